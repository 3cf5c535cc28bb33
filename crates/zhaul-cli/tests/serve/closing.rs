//! Connections end in stages (RFC 9112 §9.6): what a client still sends never costs it the answer.

use std::time::{Duration, Instant};

use crate::support::client::End;
use crate::support::{Client, Files, PATIENCE, Server, pattern};

/// More than the server's kernel takes for a client with little room.
const LARGE: usize = 8 << 20;

/// Asks with `request`, sends `later` when the answer is under way, and takes all of it.
fn take_all(server: &Server, request: &str, later: &[u8]) -> (Vec<u8>, End) {
    let mut client = Client::tcp_with_little_room(server.address());
    client.send(request);
    let head = client.head_of_answer();
    head.assert_status(200);
    let mut body = client.take(100_000);
    // What has no room in the server's kernel is waited for by another thread.
    let mut sender = client.second_hand();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.try_send(later));
        let (rest, end) = client.rest();
        body.extend_from_slice(&rest);
        (body, end)
    })
}

#[test]
fn what_comes_behind_the_last_request_does_not_cost_the_answer() {
    let content = pattern(LARGE);
    let files = Files::with(&[("large", &content)]);
    let server = Server::of(files.root(), &["--max-requests-per-connection", "2"]);
    let close = "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n";
    let body = vec![b'b'; 1 << 20];
    let pipelined = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    for (request, later) in [
        (format!("{close}\r\n"), &b""[..]),
        (format!("{close}\r\n"), b"\r\n"),
        (format!("{close}\r\n"), &pipelined),
        ("GET /large HTTP/1.0\r\n\r\n".to_owned(), b"\n"),
        (format!("{close}Content-Length: 1048576\r\n\r\n"), &body),
        // Longer than what is read off.
        (
            format!("{close}Content-Length: 3000000\r\n\r\n"),
            &body.repeat(2),
        ),
        (
            format!("{close}Transfer-Encoding: chunked\r\n\r\n"),
            b"not a chunk",
        ),
        (
            "GET /large HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            b"not a chunk",
        ),
    ] {
        let (got, end) = take_all(&server, &request, later);
        let what = format!("{request:?} and {} bytes later", later.len());
        assert_eq!(end, End::Closed, "{what}");
        assert!(got == content, "{what}: {} bytes", got.len());
    }
}

#[test]
fn an_answer_that_was_taken_at_once_ends_the_same_way() {
    let files = Files::with(&[("a", b"small")]);
    let server = Server::of(files.root(), &[]);
    for request in [
        "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.0\r\n\r\n",
        "HEAD /a HTTP/1.0\r\n\r\n",
        "GET /missing HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: h h\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(request);
        client.head_of_answer();
        // Nothing is said by then that the server could have missed.
        std::thread::sleep(Duration::from_millis(50));
        client.send("\r\n");
        client.send("GET /a HTTP/1.1\r\n");
        assert_eq!(client.rest().1, End::Closed, "{request}");
        assert!(!client.was_reset(), "{request}");
    }
}

#[test]
fn a_client_that_does_not_close_its_side_is_left_after_a_while() {
    let files = Files::with(&[("a", b"small")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    client.ask("GET", "/a", &[("Connection", "close")]);
    assert_eq!(client.rest().1, End::Closed);
    let began = Instant::now();
    while client.try_send("x").is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is listened to for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_client_that_sends_on_without_end_is_left_soon() {
    let files = Files::with(&[("a", b"small")]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    let mut client = server.connect();
    client.ask("GET", "/a", &[("Connection", "close")]);
    let noise = vec![b'x'; 1 << 20];
    let mut sent = 0_u64;
    while client.try_send(&noise).is_ok() {
        sent += 1;
        assert!(sent < 1000, "{sent} MiB were read off");
    }
    // And others were served meanwhile.
    server.connect().get("/a").assert_status(200);
}
