//! Request bodies: read off or refused, and never taken for the next request.

use std::time::{Duration, Instant};

use crate::support::http::receive_all_answers;
use crate::support::{Files, Server, pattern};

const SECRET: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";

fn site() -> Files {
    let large = pattern(200_000);
    Files::with(&[
        ("a", b"a"),
        ("large", &large),
        ("next", b"next"),
        ("smuggled", b"SMUGGLED"),
    ])
}

fn chunked(chunks: &[&str]) -> String {
    let mut body = String::new();
    for chunk in chunks {
        body += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
    }
    body + "0\r\n\r\n"
}

#[test]
fn a_body_is_read_off_before_the_next_request() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let bodies = [
        (
            format!("Content-Length: {}", SECRET.len()),
            SECRET.to_owned(),
        ),
        ("Transfer-Encoding: chunked".to_owned(), chunked(&[SECRET])),
        (
            "Transfer-Encoding: Chunked".to_owned(),
            chunked(&["G", "ET /smuggled", " HTTP/1.1\r\n\r\n"]),
        ),
        (
            "Transfer-Encoding: chunked".to_owned(),
            format!(
                "{:X};a=b;c=\"d\"\r\n{SECRET}\r\n000\r\nTrailer: {}\r\n\r\n",
                SECRET.len(),
                1
            ),
        ),
        (
            "Content-Length: 300000".to_owned(),
            SECRET.repeat(9000)[..300_000].to_owned(),
        ),
        (
            "Transfer-Encoding: chunked".to_owned(),
            chunked(&[&"x".repeat(300_000)]),
        ),
        ("Content-Length: 0".to_owned(), String::new()),
        ("Content-Length: 00000".to_owned(), String::new()),
    ];
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
        for target in ["/a", "/large", "/missing", "/"] {
            for (field, body) in &bodies {
                client.send(format!(
                    "{method} {target} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n{body}{NEXT}"
                ));
                let first = client.answer_to(method);
                assert!(!first.closes(), "{method} {target} {field}");
                client.answer().assert_status(200).assert_body(b"next");
            }
        }
    }
}

#[test]
fn a_body_that_comes_slowly_is_waited_for() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client.send("GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.answer().assert_status(200).assert_body(b"a");
    for byte in chunked(&[SECRET, "x"]).bytes() {
        client.send([byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    client.send(NEXT);
    client.answer().assert_status(200).assert_body(b"next");
}

#[test]
fn malformed_chunks_end_the_connection() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    for bad in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "g\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;\rx\r\nhello\r\n0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\n\n",
        "0\r\n\n",
    ] {
        for target in ["/a", "/large"] {
            let mut client = server.connect();
            client.send(format!(
                "GET {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{bad}{SECRET}{NEXT}"
            ));
            let answers = receive_all_answers(client);
            assert_eq!(answers.len(), 1, "{bad:?} was taken for a whole body");
        }
    }
}

#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    for target in ["/a", "/large", "/missing"] {
        for field in [
            "Content-Length: 1048577",
            "Content-Length: 18446744073709551615",
        ] {
            let mut client = server.connect();
            client.send(format!(
                "GET {target} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n{SECRET}{NEXT}"
            ));
            let answer = client.answer();
            assert!(
                answer.closes(),
                "the connection will end and the answer does not say so: {}",
                answer.head
            );
            client.assert_ended();
        }
    }
    // Nobody knows how long this one is going to be.
    let mut client = server.connect();
    client.send("GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.answer().assert_status(200);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // What is read off, what is thrown away behind it, and what two kernels hold.
    let sent = (0..1000)
        .take_while(|_| client.try_send(&chunk).is_ok())
        .count();
    assert!(sent < 400, "{sent} chunks of 64 KiB were read");
    client.assert_ended();
}

#[test]
fn a_limit_of_exactly_one_mebibyte_is_kept() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client.send("GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n");
    client.answer().assert_status(200);
    client.send("x".repeat(1 << 20));
    client.send(NEXT);
    client.answer().assert_status(200).assert_body(b"next");
}

#[test]
fn a_body_that_never_comes_ends_the_connection() {
    let files = site();
    let server = Server::of(files.root(), &["--header-timeout", "1"]);
    let began = Instant::now();
    for field in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.send(format!("GET /a HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n1"));
        client.answer().assert_status(200);
        client.assert_ended();
    }
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
}
