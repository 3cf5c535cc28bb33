//! What is no acceptable request: a status that says so, and the end of the connection.

use crate::support::{Files, Response, Server};

/// Behind each bad request comes this one. If it is answered, the server went on where it could
/// no longer know where requests begin.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";

fn refusal(server: &Server, request: &[u8]) -> Response {
    let mut client = server.connect();
    client.send([request, NEXT.as_bytes()].concat());
    let answer = client
        .try_answer("GET")
        .unwrap_or_else(|e| panic!("no answer to \"{}\": {e}", request.escape_ascii()));
    assert!(
        answer.closes(),
        "\"{}\": {}",
        request.escape_ascii(),
        answer.head
    );
    client.assert_ended();
    answer
}

#[track_caller]
fn assert_refused(server: &Server, status: u16, requests: &[&[u8]]) {
    for request in requests {
        let answer = refusal(server, request);
        assert_eq!(
            answer.status,
            status,
            "\"{}\": {}",
            request.escape_ascii(),
            answer.head
        );
    }
}

fn site() -> Files {
    Files::with(&[("a", b"a"), ("next", b"smuggled")])
}

#[test]
fn ambiguous_body_lengths_are_refused() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let ambiguous = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\ncontent-length: 0",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length:",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;x=y",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
        "Transfer-Encoding: \u{b}chunked",
    ];
    for method in ["GET", "POST"] {
        for fields in ambiguous {
            let request = format!("{method} /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
            assert_refused(&server, 400, &[request.as_bytes()]);
        }
    }
    assert_refused(
        &server,
        501,
        &[b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"],
    );
    assert_refused(&server, 400, &[
        b"GET /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn malformed_header_lines_are_refused() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    assert_refused(
        &server,
        400,
        &[
            // obs-fold
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: 1\r\n 2\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: 1\r\n\t2\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\n X: 1\r\n\r\n",
            b"GET /a HTTP/1.1\r\n Host: h\r\n\r\n",
            // bare CR
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: 1\r2\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: 1\rContent-Length: 5\r\n\r\n",
            b"GET /a HTTP/1.1\rHost: h\r\n\r\n",
            b"GET /a\rHTTP/1.1\r\nHost: h\r\n\r\n",
            b"\rGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\r\n\r\n",
            // bare LF
            b"GET /a HTTP/1.1\nHost: h\n\n",
            b"GET /a HTTP/1.1\r\nHost: h\n\r\n",
            b"GET /a HTTP/1.1\nHost: h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: 1\nY: 2\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\n\n",
            b"\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
            // spaces before the colon, and names that are none
            b"GET /a HTTP/1.1\r\nHost : h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX Y: 1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX\0Y: 1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX\xff: 1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\n(X): 1\r\n\r\n",
            // controls in values
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\x0bb\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n",
        ],
    );
}

#[test]
fn host_is_needed_once() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    assert_refused(
        &server,
        400,
        &[
            b"GET /a HTTP/1.1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nX: h\r\n\r\n",
            b"GET http://h/a HTTP/1.1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h\r\nhOsT: other\r\n\r\n",
            b"GET /a HTTP/1.0\r\nHost: h\r\nHost: other\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: user@h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h, h\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: h:port\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: [::1\r\n\r\n",
        ],
    );
}

#[test]
fn malformed_request_lines_are_refused() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    assert_refused(
        &server,
        400,
        &[
            b"GET  /a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a  HTTP/1.1\r\nHost: h\r\n\r\n",
            b" GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/1.1 \r\nHost: h\r\n\r\n",
            b"GET /a HTTP/1.1 x\r\nHost: h\r\n\r\n",
            b"GET /a\r\nHost: h\r\n\r\n",
            b"GET\r\n\r\n",
            b"/a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"G@T /a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a http/1.1\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/1\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/1.10\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/01.1\r\nHost: h\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a\x7f HTTP/1.1\r\nHost: h\r\n\r\n",
            b"\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
            // TLS spoken to a plain port
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"SSH-2.0-OpenSSH_9.2\r\n",
        ],
    );
    assert_refused(
        &server,
        505,
        &[
            b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/9.9\r\nHost: h\r\n\r\n",
            b"GET /a HTTP/0.9\r\nHost: h\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    );
}

#[test]
fn malformed_targets_are_refused() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    assert_refused(
        &server,
        400,
        &[
            b"GET a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
            b"HEAD * HTTP/1.1\r\nHost: h\r\n\r\n",
            b"OPTIONS *x HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET ftp://h/a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET file:///etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET http://user@h/a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET ?x HTTP/1.1\r\nHost: h\r\n\r\n",
        ],
    );
}

#[test]
fn over_long_lines_get_414_and_over_large_heads_431() {
    let files = site();
    let server = Server::of(
        files.root(),
        &["--max-header-bytes", "12000", "--max-headers", "20"],
    );
    let line = |target: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(target));
    // The longest line is 8 KiB: "GET /" and " HTTP/1.1" are 14 bytes of it.
    let mut client = server.connect();
    client.send(line(8192 - 14));
    assert_eq!(client.answer().status, 414, "no path is this long");
    let query =
        |length: usize| format!("GET /a?{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(length));
    client.send(query(8192 - 16));
    client.answer().assert_status(200);
    assert_refused(
        &server,
        414,
        &[
            query(8193 - 16).as_bytes(),
            line(100_000).as_bytes(),
            // An end never comes.
            "GET /".repeat(3000).as_bytes(),
            "x".repeat(9000).as_bytes(),
        ],
    );

    let head = |bytes: usize| {
        let start = "GET /a HTTP/1.1\r\nHost: h\r\nX: ";
        format!("{start}{}\r\n\r\n", "y".repeat(bytes - start.len() - 4))
    };
    client.send(head(12_000));
    client.answer().assert_status(200);
    assert_refused(
        &server,
        431,
        &[head(12_001).as_bytes(), head(1_000_000).as_bytes()],
    );
    assert_refused(
        &server,
        431,
        &[format!(
            "GET /a HTTP/1.1\r\nHost: h\r\n{}",
            "X: y\r\n".repeat(10_000)
        )
        .as_bytes()],
    );

    let count = |n: usize| {
        format!(
            "GET /a HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "X: y\r\n".repeat(n - 1)
        )
    };
    client.send(count(20));
    client.answer().assert_status(200);
    assert_refused(&server, 431, &[count(21).as_bytes(), count(200).as_bytes()]);
}

#[test]
fn malformed_paths_get_400_and_keep_the_connection() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for path in [
        "/%",
        "/%4",
        "/%zz",
        "/a%",
        "/%u0041",
        "/%00",
        "/a%00.txt",
        "/a%2fb",
        "/..%2F",
    ] {
        client.get(path).assert_status(400);
    }
    client
        .get(&format!("/{}", "n".repeat(256)))
        .assert_status(404);
    client
        .get(&format!("/{}", "n/".repeat(2100)))
        .assert_status(414);
    client.get("/a").assert_status(200).assert_body(b"a");
}

#[test]
fn a_refusal_is_read_by_a_client_that_keeps_sending() {
    // Closing with unread bytes makes the kernel reset the connection, which would take the
    // refusal away from the client.
    let files = site();
    let server = Server::of(files.root(), &[]);
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /a HTTP/1.1\r\n\r\n");
        for _ in 0..20 {
            if client.try_send([b'x'; 4096]).is_err() {
                break;
            }
        }
        client.answer().assert_status(400);
    }
}

#[test]
fn requests_before_the_bad_one_are_answered() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client.send(format!(
        "{NEXT}{NEXT}GET /a HTTP/1.1\r\nBad Name: x\r\n\r\n{NEXT}"
    ));
    client.answer().assert_status(200);
    client.answer().assert_status(200);
    client.answer().assert_status(400);
    client.assert_ended();
}
