//! The access log: what it says, and that nobody can make it say something else.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::Value;

use crate::support::{Files, Serve, Server, eventually, pattern};

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The lines of a log as soon as there are this many.
fn wait_for_lines(path: &Path, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines in the log"), || {
        lines(path).len() >= count
    });
    let lines = lines(path);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

fn wait_for_json(path: &Path, count: usize) -> Vec<Value> {
    let lines = wait_for_lines(path, count);
    lines
        .iter()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn start(files: &Files, log: &Path, format: &str) -> Server {
    let log = log.to_str().unwrap();
    Server::of(
        files.root(),
        &[
            "--access-log",
            log,
            "--log-format",
            format,
            "--workers",
            "1",
        ],
    )
}

#[test]
fn combined_lines_have_the_format_that_tools_read() {
    let files = Files::with(&[("a.txt", b"hello"), ("large", &pattern(200_000))]);
    let log = files.outside().join("access.log");
    let server = start(&files, &log, "combined");
    let mut client = server.connect();
    client.get_with(
        "/a.txt?q=1",
        &[("User-Agent", "test/1.0"), ("Referer", "http://x.example/")],
    );
    client.get("/large");
    client.get_with("/large", &[("Range", "bytes=0-9")]);
    client.request("HEAD", "/a.txt", &[]);
    client.get("/missing");
    client.request("POST", "/a.txt", &[("Content-Length", "0")]);
    client.send("nonsense\r\n\r\n");
    let refused = client.answer();
    let lines = wait_for_lines(&log, 7);
    let mut rests = Vec::new();
    for line in &lines {
        let rest = line.strip_prefix("127.0.0.1 - - [").unwrap();
        let (date, rest) = rest.split_once("] ").unwrap();
        assert!(date.len() == 26 && date.ends_with(" +0000"), "{date}");
        rests.push(rest.to_owned());
    }
    let missing = server.connect().get("/missing").body.len();
    let not_allowed = server.connect().request("POST", "/", &[]).body.len();
    assert_eq!(
        rests,
        [
            "\"GET /a.txt?q=1 HTTP/1.1\" 200 5 \"http://x.example/\" \"test/1.0\"".to_owned(),
            "\"GET /large HTTP/1.1\" 200 200000 \"-\" \"-\"".to_owned(),
            "\"GET /large HTTP/1.1\" 206 10 \"-\" \"-\"".to_owned(),
            "\"HEAD /a.txt HTTP/1.1\" 200 0 \"-\" \"-\"".to_owned(),
            format!("\"GET /missing HTTP/1.1\" 404 {missing} \"-\" \"-\""),
            format!("\"POST /a.txt HTTP/1.1\" 405 {not_allowed} \"-\" \"-\""),
            format!("\"nonsense\" 400 {} \"-\" \"-\"", refused.body.len()),
        ]
    );
}

#[test]
fn json_lines_say_how_the_bytes_went() {
    let files = Files::with(&[
        ("a.txt", b"hello"),
        ("large", &pattern(200_000)),
        ("z.css", b"plain"),
        ("z.css.gz", b"gz"),
    ]);
    let log = files.outside().join("access.log");
    let server = start(&files, &log, "json");
    let mut client = server.connect();
    client.get("/a.txt");
    client.get_with("/large", &[("User-Agent", "u\"a")]);
    client.get_with("/z.css", &[("Accept-Encoding", "gzip")]);
    client.send("GET /a.txt HTTP/1.0\r\n\r\n");
    client.answer();
    let values = wait_for_json(&log, 4);
    for value in &values {
        assert_eq!(value["remote"], "127.0.0.1");
        assert_eq!(value["method"], "GET");
        assert_eq!(value["status"], 200);
        assert_eq!(value["complete"], true);
        assert!(value["duration_us"].as_u64().unwrap() < 20_000_000);
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
    }
    let get = |index: usize, key: &str| values[index][key].clone();
    assert_eq!(
        (get(0, "bytes"), get(0, "target")),
        (5.into(), "/a.txt".into())
    );
    assert_eq!(
        (get(1, "bytes"), get(1, "route")),
        (200_000.into(), "sendfile".into())
    );
    assert_eq!(get(1, "user_agent"), "u\"a");
    assert_eq!(
        (get(2, "bytes"), get(2, "encoding")),
        (2.into(), "gzip".into())
    );
    assert_eq!(
        (get(3, "protocol"), get(0, "protocol")),
        ("HTTP/1.0".into(), "HTTP/1.1".into())
    );
    assert!(get(0, "encoding").is_null() && get(0, "user_agent").is_null());
}

#[test]
fn nobody_can_forge_a_line() {
    let files = Files::with(&[("a", b"a")]);
    for format in ["combined", "json"] {
        let log = files.outside().join(format);
        let server = start(&files, &log, format);
        let mut client = server.connect();
        let hostile = "x\" 200 1 \"-\" \"\\ \u{9b}2J \u{202e} \u{85}";
        client.get_with("/a", &[("User-Agent", hostile), ("Referer", "\"\\\" - -")]);
        client.get("/%0a127.0.0.1%20-%20-%20%22GET");
        client.get("/a?\\\u{e4}\u{9b}");
        for bytes in [
            &b"GET \x1b]0;owned\x07 \xff\xfe\" 200\r\n\r\n"[..],
            b"a\nb\r\n\r\n",
            b"\x00\r\x0b\r\n\r\n",
        ] {
            let mut client = server.connect();
            client.send(bytes);
            client.answer().assert_status(400);
        }
        for line in wait_for_lines(&log, 6) {
            assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
            if format == "json" {
                serde_json::from_str::<Value>(&line).expect(&line);
            } else {
                assert_eq!(line.matches('"').count(), 6, "{line}");
            }
        }
    }
}

#[test]
fn an_answer_that_was_cut_short_is_marked() {
    let files = Files::with(&[("large", &pattern(48 << 20))]);
    let log = files.outside().join("access.log");
    let server = start(&files, &log, "json");
    let mut left = server.connect();
    left.ask("GET", "/large", &[]);
    left.head_of_answer();
    left.reset();
    let values = wait_for_json(&log, 1);
    assert_eq!(values[0]["complete"], false);
    assert!(values[0]["bytes"].as_u64().unwrap() < 48 << 20);

    let mut cut = server.connect();
    cut.ask("GET", "/large", &[]);
    cut.head_of_answer();
    fs::OpenOptions::new()
        .write(true)
        .open(files.path("large"))
        .unwrap()
        .set_len(10)
        .unwrap();
    let (rest, _) = cut.rest();
    let values = wait_for_json(&log, 2);
    assert_eq!(values[1]["complete"], false);
    assert_eq!(values[1]["status"], 200);
    let logged = values[1]["bytes"].as_u64().unwrap();
    assert!(
        logged >= rest.len() as u64 && logged < 48 << 20,
        "{logged} of {}",
        rest.len()
    );
}

#[test]
fn the_log_can_go_to_standard_output() {
    let files = Files::with(&[("a", b"a")]);
    let out = files.outside().join("stdout");
    let server = Serve::new(files.root())
        .args(["--access-log", "-"])
        .stdout_to(&out)
        .start();
    server.connect().get("/a");
    assert!(wait_for_lines(&out, 1)[0].contains("\"GET /a HTTP/1.1\" 200 1"));
}

#[test]
fn a_rotated_log_is_reopened_on_sigusr1() {
    let files = Files::with(&[("a", b"a")]);
    let log = files.outside().join("access.log");
    let rotated = files.outside().join("access.log.1");
    let server = start(&files, &log, "combined");
    let mut client = server.connect();
    client.get("/a?before");
    wait_for_lines(&log, 1);
    fs::rename(&log, &rotated).unwrap();
    client.get("/a?between");
    wait_for_lines(&rotated, 2);
    server.signal(Signal::USR1);
    eventually("the new file", || log.exists());
    client.get("/a?after");
    assert!(wait_for_lines(&log, 1)[0].contains("?after"));
    assert_eq!(lines(&rotated).len(), 2);
}

#[test]
fn no_line_is_lost_at_the_end() {
    let files = Files::with(&[("a", b"a")]);
    let log = files.outside().join("access.log");
    let mut server = start(&files, &log, "json");
    let mut client = server.connect();
    for _ in 0..1000 {
        client.get("/a").assert_status(200);
    }
    drop(client);
    server.signal(Signal::TERM);
    assert!(
        server
            .wait(Duration::from_secs(10))
            .expect("it ends")
            .success()
    );
    assert_eq!(lines(&log).len(), 1000);
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_answers() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let files = Files::with(&[("a", b"a")]);
    let fifo = files.outside().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    // Opened for both, so that neither side waits for the other; nobody reads.
    let _held = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    let server = start(&files, &fifo, "json");
    let mut client = server.connect();
    for _ in 0..3000 {
        client.get("/a").assert_status(200);
    }
}

#[test]
fn a_log_that_may_not_grow_does_not_end_the_server() {
    let files = Files::with(&[("a.txt", b"hello")]);
    let log = files.outside().join("access.log");
    let server = start(&files, &log, "combined");
    // RLIMIT_FSIZE, as `ulimit -f` and LimitFSIZE= set it.
    let limit = |current| {
        let maximum = None;
        let limit = Rlimit { current, maximum };
        prlimit(Some(server.pid()), Resource::Fsize, limit).unwrap()
    };
    limit(Some(1000));
    let mut client = server.connect();
    for _ in 0..50 {
        client.get("/a.txt").assert_status(200);
    }
    server.wait_for(&["access log", "File too large"]);
    server.connect().get("/a.txt").assert_status(200);
    assert!(fs::metadata(&log).unwrap().len() <= 1000);
}
