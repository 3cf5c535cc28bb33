//! HTTP/1.1 as it is spoken: methods, versions, persistence, pipelining.

use std::time::Duration;

use crate::support::{Files, Server, pattern};

#[test]
fn get_returns_the_file_with_its_type_and_length() {
    let content = pattern(3000);
    let files = Files::with(&[("a.txt", &content), ("empty", b"")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let answer = client.get("/a.txt");
    answer.assert_status(200).assert_body(&content);
    assert_eq!(answer.field("Content-Type"), Some("text/plain"));
    assert_eq!(answer.field("Accept-Ranges"), Some("bytes"));
    assert_eq!(
        answer.field("Last-Modified"),
        Some("Tue, 14 Nov 2023 22:13:20 GMT")
    );
    assert!(answer.field("ETag").is_some());
    client.get("/empty").assert_status(200).assert_body(b"");
}

#[test]
fn every_size_arrives_as_it_is() {
    let files = Files::new();
    let sizes = [
        0,
        1,
        1447,
        16 << 10,
        (16 << 10) + 1,
        65_535,
        65_536,
        65_537,
        1 << 20,
        5_000_001,
    ];
    for size in sizes {
        files.write(format!("{size}.bin"), pattern(size));
    }
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for round in 0..2 {
        for size in sizes {
            let answer = client.get(&format!("/{size}.bin"));
            answer.assert_status(200).assert_body(&pattern(size));
            assert_eq!(
                answer.announced_length(),
                Some(size as u64),
                "round {round}"
            );
        }
    }
}

#[test]
fn head_has_the_header_of_get_and_no_body() {
    let files = Files::with(&[
        ("small.txt", b"hello"),
        ("large.bin", &pattern(300_000)),
        ("dir/x", b""),
        ("site/index.html", b"<p>"),
    ]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for target in [
        "/small.txt",
        "/large.bin",
        "/missing",
        "/dir",
        "/dir/",
        "/site/",
        "/a/../b",
    ] {
        // Both from a cache that has seen the file.
        client.get(target);
        let get = client.get(target);
        let head = client.request("HEAD", target, &[]);
        assert_eq!(head.lasting_head(), get.lasting_head(), "{target}");
        assert_eq!(
            head.announced_length(),
            Some(get.body.len() as u64),
            "{target}"
        );
    }
    client
        .get("/small.txt")
        .assert_status(200)
        .assert_body(b"hello");
}

#[test]
fn options_names_the_methods() {
    let files = Files::with(&[("a.txt", b"a")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for target in ["*", "/a.txt", "/missing"] {
        let answer = client.request("OPTIONS", target, &[]);
        answer.assert_status(204);
        assert_eq!(answer.list("Allow"), ["get", "head", "options"], "{target}");
        assert_eq!(answer.field("Content-Length"), None);
    }
    client.get("/a.txt").assert_status(200);
}

#[test]
fn other_methods_get_405_with_allow_and_keep_the_connection() {
    let files = Files::with(&[("a.txt", b"a")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for method in [
        "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "get", "X-1~",
    ] {
        let answer = client.request(method, "/a.txt", &[("Content-Length", "0")]);
        answer.assert_status(405);
        assert_eq!(answer.list("Allow"), ["get", "head", "options"], "{method}");
        assert!(!answer.closes(), "{method}");
    }
    client.get("/a.txt").assert_status(200).assert_body(b"a");
    assert_eq!(std::fs::read(files.path("a.txt")).unwrap(), b"a");
}

#[test]
fn connect_gets_405_and_ends_the_connection() {
    let files = Files::new();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client.send(
        "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\nGET / HTTP/1.1\r\n",
    );
    let answer = client.answer();
    answer.assert_status(405);
    assert_eq!(answer.list("Allow"), ["get", "head", "options"]);
    client.assert_ended();
}

#[test]
fn a_connection_serves_many_requests() {
    let large = pattern(200_000);
    let files = Files::with(&[("small", b"small"), ("large", &large)]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for _ in 0..300 {
        client
            .get("/small")
            .assert_status(200)
            .assert_body(b"small");
        client.get("/missing").assert_status(404);
        client.get("/large").assert_status(200).assert_body(&large);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let large = pattern(150_000);
    let files = Files::with(&[("a", b"first"), ("b", b"second"), ("large", &large)]);
    let server = Server::of(files.root(), &["--workers", "2"]);
    let mut client = server.connect();
    let etag = client.get("/a").etag().to_owned();
    let mut batch = String::new();
    let mut ask = |method: &str, target: &str, fields: &str| {
        batch += &format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    };
    for round in 0..400 {
        ask("GET", &format!("/missing?{round}"), "");
        ask("GET", "/a", "");
        ask("HEAD", "/large", "");
        ask("GET", "/b", "");
        ask("GET", "/a", &format!("If-None-Match: {etag}\r\n"));
        if round % 40 == 0 {
            ask("GET", "/large", "");
            ask("GET", "/large", "Range: bytes=7-99\r\n");
        }
    }
    std::thread::scope(|scope| {
        let mut sender = client.second_hand();
        scope.spawn(move || sender.send(batch));
        for round in 0..400 {
            client.answer().assert_status(404);
            client.answer().assert_status(200).assert_body(b"first");
            client.answer_to("HEAD").assert_status(200);
            client.answer().assert_status(200).assert_body(b"second");
            client.answer().assert_status(304);
            if round % 40 == 0 {
                client.answer().assert_status(200).assert_body(&large);
                client
                    .answer()
                    .assert_status(206)
                    .assert_body(&large[7..=99]);
            }
        }
    });
}

#[test]
fn a_client_that_finished_sending_still_gets_all_answers() {
    let large = pattern(3_000_000);
    let files = Files::with(&[("a", b"a"), ("large", &large)]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for target in ["/a", "/large", "/a"] {
        client.ask("GET", target, &[]);
    }
    client.finish_sending();
    client.answer().assert_body(b"a");
    client.answer().assert_body(&large);
    client.answer().assert_body(b"a");
    client.assert_ended();
}

#[test]
fn connection_close_is_honoured() {
    let files = Files::with(&[("a", b"a"), ("large", &pattern(500_000))]);
    let server = Server::of(files.root(), &[]);
    for target in ["/a", "/large", "/missing", "/"] {
        for value in ["close", "keep-alive, Close", "foo, close"] {
            let mut client = server.connect();
            // In one write: a client that sends more afterwards may lose the answer to a reset.
            let last = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: {value}\r\n\r\n");
            client.send(last + "GET /never-answered HTTP/1.1\r\nHost: h\r\n\r\n");
            assert!(client.answer().closes(), "{target} {value}");
            client.assert_ended();
        }
    }
}

#[test]
fn http_1_0_closes_unless_asked_to_keep_alive() {
    let large = pattern(100_000);
    let files = Files::with(&[("a", b"a"), ("large", &large)]);
    let server = Server::of(files.root(), &[]);
    for (target, body) in [("/a", &b"a"[..]), ("/large", &large)] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let answer = client.answer();
        answer.assert_status(200).assert_body(body);
        assert!(!answer.list("Connection").contains(&"keep-alive".to_owned()));
        client.assert_ended();

        let mut client = server.connect();
        for _ in 0..3 {
            client.send(format!(
                "GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ));
            let answer = client.answer();
            answer.assert_status(200).assert_body(body);
            assert_eq!(answer.list("Connection"), ["keep-alive"]);
        }
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        client.answer().assert_body(body);
        client.assert_ended();
    }
}

#[test]
fn a_request_means_the_same_wherever_it_is_cut() {
    let files = Files::with(&[("a", b"first"), ("b", &pattern(100_000))]);
    let server = Server::of(files.root(), &[]);
    let requests = b"GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nGET /\
                     GET /b HTTP/1.1\r\nhost:test\r\nRange: bytes=0-9\r\n\r\n\r\n\
                     OPTIONS * HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let pause = Duration::from_millis(2);
    for cut in 1..requests.len() {
        let mut client = server.connect();
        client.send(&requests[..cut]);
        std::thread::sleep(pause);
        client.send(&requests[cut..]);
        client.answer().assert_status(200).assert_body(b"first");
        client.answer().assert_status(206).assert_body(&pattern(10));
        client.answer().assert_status(204);
        client.assert_ended();
    }
    let mut client = server.connect();
    for byte in requests {
        client.send([*byte]);
        std::thread::sleep(pause / 2);
    }
    client.answer().assert_status(200).assert_body(b"first");
    client.answer().assert_status(206).assert_body(&pattern(10));
    client.answer().assert_status(204);
    client.assert_ended();
}

#[test]
fn the_absolute_form_means_its_path() {
    let files = Files::with(&[("a", b"a"), ("index.html", b"home")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for target in [
        "http://test/a",
        "HTTP://test:8080/a",
        "http://other.example/a?x",
        "https://[::1]/a",
    ] {
        client.get(target).assert_status(200).assert_body(b"a");
    }
    client
        .get("http://test")
        .assert_status(200)
        .assert_body(b"home");
    client
        .get("http://test?q")
        .assert_status(200)
        .assert_body(b"home");
}

#[test]
fn an_expectation_is_answered_without_waiting_for_the_body() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &[]);
    let fields = [("Expect", "100-continue"), ("Content-Length", "10")];
    for (method, status) in [("GET", 200), ("POST", 405)] {
        let mut client = server.connect();
        let answer = client.request(method, "/a", &fields);
        answer.assert_status(status);
        // The body may or may not follow: what comes next cannot be told from it.
        assert!(answer.closes(), "{method}");
        let _ = client.try_send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
        client.assert_ended();
    }
    let mut client = server.connect();
    client
        .request("GET", "/a", &[("Expect", "200-ok")])
        .assert_status(417);
    client.assert_ended();
}

#[test]
fn every_answer_is_dated() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let first = client.get("/a").field("Date").unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(2100));
    let later = client.get("/a").field("Date").unwrap().to_owned();
    assert_ne!(first, later, "the date of a cached answer stood still");
    assert!(later.ends_with(" GMT") && later.len() == 29, "{later}");
}

#[test]
fn query_strings_do_not_matter_to_files() {
    let files = Files::with(&[("a", b"a"), ("a?b", b"q")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client
        .get("/a?b=c&d=/../../etc/passwd")
        .assert_status(200)
        .assert_body(b"a");
    client.get("/a?%00%zz").assert_status(200).assert_body(b"a");
    client.get("/a%3Fb").assert_status(200).assert_body(b"q");
}

#[test]
fn names_are_decoded_once() {
    let files = Files::with(&[
        ("a b+c.txt", b"space"),
        ("%41", b"percent"),
        ("\u{e4}\u{20ac}", b"utf-8"),
        ("back\\slash", b"backslash"),
    ]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client
        .get("/a%20b+c.txt")
        .assert_status(200)
        .assert_body(b"space");
    client
        .get("/%2541")
        .assert_status(200)
        .assert_body(b"percent");
    client.get("/%41").assert_status(404);
    client
        .get("/%c3%a4%E2%82%ac")
        .assert_status(200)
        .assert_body(b"utf-8");
    client
        .get("/back%5Cslash")
        .assert_status(200)
        .assert_body(b"backslash");
}

#[test]
fn two_connections_do_not_wait_for_each_other() {
    let large = pattern(40_000_000);
    let files = Files::with(&[("a", b"a"), ("large", &large)]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    // One that does not read its answer.
    let mut stuck = server.connect();
    stuck.ask("GET", "/large", &[]);
    stuck.head_of_answer();
    let mut other = server.connect();
    for _ in 0..50 {
        other.get("/a").assert_status(200);
    }
    assert_eq!(stuck.take(large.len()), large);
}
