//! The yardstick answers correctly: bytes, keep-alive, pipelining, requests cut anywhere.

// The lint's exemption for tests does not reach what test functions call.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

struct Floor {
    child: Child,
    address: SocketAddr,
    body: Vec<u8>,
    _dir: TempDir,
}

impl Floor {
    fn start(kind: &str, length: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let body: Vec<u8> = (0..length).map(|index| (index * 31 % 251) as u8).collect();
        let file: PathBuf = dir.path().join("file");
        std::fs::write(&file, &body).unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_zhaul-bench"))
            .args(["floor", kind, "--listen", &address.to_string()])
            .arg(file)
            .spawn()
            .unwrap();
        let floor = Self {
            child,
            address,
            body,
            _dir: dir,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "floor {kind} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        floor
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Reads one answer and compares it.
    fn expect_answer(&self, reader: &mut BufReader<TcpStream>) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                reader.read_line(&mut head).unwrap(),
                0,
                "closed within the head: {head}"
            );
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let length = format!("\r\nContent-Length: {}\r\n", self.body.len());
        assert!(head.contains(&length), "{head}");
        let mut body = vec![0; self.body.len()];
        reader.read_exact(&mut body).unwrap();
        assert!(body == self.body, "body differs from the file");
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const KINDS: [&str; 2] = ["canned", "sendfile"];
const PLAIN: &[u8] = b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n";
const CLOSING: &[u8] = b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn assert_closed(reader: &mut BufReader<TcpStream>) {
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(
        rest.is_empty(),
        "{} bytes behind the last answer",
        rest.len()
    );
}

#[test]
fn every_answer_on_a_kept_connection_is_the_file() {
    for kind in KINDS {
        // Empty, small, and larger than any socket buffer.
        for length in [0, 1, 1024, 9 << 20] {
            let floor = Floor::start(kind, length);
            let mut stream = floor.connect();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for _ in 0..3 {
                stream.write_all(PLAIN).unwrap();
                floor.expect_answer(&mut reader);
            }
        }
    }
}

#[test]
fn pipelined_requests_are_all_answered_before_the_close() {
    for kind in KINDS {
        let floor = Floor::start(kind, 3 << 20);
        let mut stream = floor.connect();
        stream.write_all(&[PLAIN, PLAIN, CLOSING].concat()).unwrap();
        let mut reader = BufReader::new(stream);
        for _ in 0..3 {
            floor.expect_answer(&mut reader);
        }
        assert_closed(&mut reader);
    }
}

#[test]
fn request_that_arrives_byte_by_byte_is_answered_once() {
    for kind in KINDS {
        let floor = Floor::start(kind, 1024);
        let mut stream = floor.connect();
        for byte in CLOSING {
            stream.write_all(&[*byte]).unwrap();
        }
        let mut reader = BufReader::new(stream);
        floor.expect_answer(&mut reader);
        assert_closed(&mut reader);
    }
}

#[test]
fn end_of_one_request_and_beginning_of_the_next_in_one_piece_are_two_requests() {
    // Within the line that asks to close: a lost beginning would leave the connection open.
    let cut = CLOSING.len() - "close\r\n\r\n".len();
    for kind in KINDS {
        let floor = Floor::start(kind, 1024);
        let mut stream = floor.connect();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        stream.write_all(&PLAIN[..5]).unwrap();
        // Time to be received on its own, so that the next piece meets a partial request.
        std::thread::sleep(Duration::from_millis(50));
        stream
            .write_all(&[&PLAIN[5..], &CLOSING[..cut]].concat())
            .unwrap();
        floor.expect_answer(&mut reader);
        stream.write_all(&CLOSING[cut..]).unwrap();
        floor.expect_answer(&mut reader);
        assert_closed(&mut reader);
    }
}

#[test]
fn client_that_does_not_read_holds_up_nobody() {
    for kind in KINDS {
        let floor = Floor::start(kind, 9 << 20);
        let mut stalled = floor.connect();
        stalled.write_all(PLAIN).unwrap();
        let mut gone = floor.connect();
        gone.write_all(PLAIN).unwrap();
        drop(gone);
        let mut stream = floor.connect();
        stream.write_all(CLOSING).unwrap();
        let mut reader = BufReader::new(stream);
        floor.expect_answer(&mut reader);
        assert_closed(&mut reader);
        floor.expect_answer(&mut BufReader::new(stalled));
    }
}
