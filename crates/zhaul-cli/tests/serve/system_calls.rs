//! Zero-copy, checked: the server's own system calls are traced and counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::tasks;
use crate::support::{Client, Files, Serve, Server, eventually, has_program, pattern, skip};

/// A server under strace; `None` says why that is not possible here.
fn traced(files: &Files, arguments: &[&str]) -> Result<(Server, PathBuf), String> {
    if !has_program("strace") {
        return Err("strace is not installed".to_owned());
    }
    let trial = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output()
        .unwrap();
    if !trial.status.success() {
        return Err(format!(
            "ptrace: {}",
            String::from_utf8_lossy(&trial.stderr)
        ));
    }
    let trace = files.outside().join("trace");
    // -D makes the server our child, not strace's, so that it can be ended by its id.
    let wrapper = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-s",
        "64",
        "-e",
        "signal=none",
        "-o",
    ];
    let words = wrapper
        .into_iter()
        .map(str::to_owned)
        .chain([trace.display().to_string()]);
    let server = Serve::new(files.root())
        .under(words)
        .args(arguments.iter().copied())
        .start();
    Ok((server, trace))
}

/// One finished system call.
#[derive(Debug)]
struct Call {
    thread: String,
    name: String,
    text: String,
    result: i64,
}

/// The calls between the requests for `/begin` and `/end`.
fn calls_between_marks(
    client: &mut Client,
    trace: &Path,
    work: impl FnOnce(&mut Client),
) -> Vec<Call> {
    client.get("/begin").assert_status(404);
    work(client);
    client.get("/end").assert_status(404);
    // strace writes behind.
    eventually("the mark in the trace", || {
        fs::read_to_string(trace).unwrap().contains("GET /end")
    });
    let text = fs::read_to_string(trace).unwrap();
    let calls: Vec<Call> = text.lines().filter_map(parse).collect();
    let at = |mark: &str| {
        calls
            .iter()
            .position(|call| call.text.contains(mark))
            .unwrap()
    };
    let (begin, end) = (at("GET /begin"), at("GET /end"));
    // Behind the answer to the first mark.
    let mut between: Vec<Call> = calls.into_iter().take(end).skip(begin + 1).collect();
    let answer = between
        .iter()
        .position(|call| call.name == "sendto")
        .unwrap();
    between.drain(..=answer);
    between
}

/// A line such as `123 sendto(9, "..."..., 180, MSG_NOSIGNAL, NULL, 0) = 180`. Of a call that was
/// interrupted by another thread's only the end has the result, and only that is counted.
fn parse(line: &str) -> Option<Call> {
    let (thread, text) = line.split_once(' ')?;
    let text = text.trim_start();
    if text.contains("<unfinished") || text.starts_with("+++") || text.starts_with("---") {
        return None;
    }
    let name = match text.strip_prefix("<... ") {
        Some(resumed) => resumed.split_once(' ')?.0,
        None => text.split_once('(')?.0,
    };
    let result = text.rsplit_once(" = ")?.1.split_whitespace().next()?;
    let result = result.parse().unwrap_or(0);
    Some(Call {
        thread: thread.to_owned(),
        name: name.to_owned(),
        text: text.to_owned(),
        result,
    })
}

fn bytes_through(calls: &[Call], names: &[&str]) -> i64 {
    let matching = calls
        .iter()
        .filter(|call| names.contains(&call.name.as_str()));
    matching.map(|call| call.result.max(0)).sum()
}

const COPYING: &[&str] = &[
    "read",
    "pread64",
    "readv",
    "preadv",
    "preadv2",
    "write",
    "writev",
    "pwrite64",
    "send",
    "sendto",
    "sendmsg",
    "recv",
    "recvfrom",
    "recvmsg",
    "process_vm_readv",
];

#[test]
fn a_large_file_goes_through_sendfile() {
    const NAME: &str = "a_large_file_goes_through_sendfile";
    const SIZE: usize = 32 << 20;
    let content = pattern(SIZE);
    let files = Files::with(&[("large", &content)]);
    let (server, trace) = match traced(&files, &["--workers", "1"]) {
        Ok(traced) => traced,
        Err(why) => skip!(NAME, "{why}"),
    };
    let mut client = server.connect();
    let calls = calls_between_marks(&mut client, &trace, |client| {
        client
            .get("/large")
            .assert_status(200)
            .assert_body(&content);
    });
    let sent = bytes_through(&calls, &["sendfile", "sendfile64"]);
    assert_eq!(sent, SIZE as i64, "{:?}", summary(&calls));
    let copied = bytes_through(&calls, COPYING);
    assert!(
        copied < 16_384,
        "{copied} bytes were copied: {:?}",
        summary(&calls)
    );
    assert!(
        !calls
            .iter()
            .any(|call| call.text.starts_with("mmap(NULL, 33554432"))
    );
}

#[test]
fn copy_mode_is_seen_to_copy() {
    // The counter-proof: the same count tells a server that copies from one that does not.
    const NAME: &str = "copy_mode_is_seen_to_copy";
    const SIZE: usize = 4 << 20;
    let content = pattern(SIZE);
    let files = Files::with(&[("large", &content)]);
    let (server, trace) = match traced(&files, &["--workers", "1", "--stability", "copy"]) {
        Ok(traced) => traced,
        Err(why) => skip!(NAME, "{why}"),
    };
    let mut client = server.connect();
    let calls = calls_between_marks(&mut client, &trace, |client| {
        client
            .get("/large")
            .assert_status(200)
            .assert_body(&content);
    });
    assert_eq!(bytes_through(&calls, &["sendfile", "sendfile64"]), 0);
    assert!(
        bytes_through(&calls, COPYING) >= SIZE as i64,
        "{:?}",
        summary(&calls)
    );
}

#[test]
fn a_resident_large_file_is_sent_in_the_round_that_brought_its_request() {
    const NAME: &str = "a_resident_large_file_is_sent_in_the_round_that_brought_its_request";
    const REQUESTS: usize = 100;
    // Above what is kept in memory, and below what a socket takes at once.
    let files = Files::with(&[("large", &pattern(80_000))]);
    let (server, trace) = match traced(&files, &["--workers", "1"]) {
        Ok(traced) => traced,
        Err(why) => skip!(NAME, "{why}"),
    };
    let mut client = server.connect();
    client.get("/large").assert_status(200);
    client.get("/large").assert_status(200);
    fs::write(&trace, "").unwrap();
    let calls = calls_between_marks(&mut client, &trace, |client| {
        for _ in 0..REQUESTS {
            client.get("/large").assert_status(200);
        }
    });
    let worker = calls
        .iter()
        .find(|call| call.text.contains("GET "))
        .map(|call| &call.thread);
    let counted = calls
        .iter()
        .filter(|call| Some(&call.thread) == worker)
        .count();
    // epoll_wait, recv, statx, send, sendfile, fstat; a task would wait twice.
    assert!(
        counted <= REQUESTS * 6 + REQUESTS / 10,
        "{counted} calls for {REQUESTS} requests: {:?}",
        summary(&calls)
    );
    let compared = calls.iter().filter(|call| call.name.ends_with("stat"));
    assert!(compared.count() <= REQUESTS + 4, "{:?}", summary(&calls));
}

#[test]
fn a_resident_small_file_costs_a_look_at_what_it_depends_on() {
    const NAME: &str = "a_resident_small_file_costs_a_look_at_what_it_depends_on";
    const REQUESTS: usize = 100;
    let files = Files::with(&[
        ("small.html", &pattern(4000)),
        ("small.html.gz", &pattern(1000)),
        ("site/index.html", b"home"),
        ("alone.js", &pattern(60_000)),
    ]);
    let (server, trace) = match traced(&files, &["--workers", "1"]) {
        Ok(traced) => traced,
        Err(why) => skip!(NAME, "{why}"),
    };
    for (target, fields, most) in [
        ("/small.html", &[][..], 3),
        // The sibling and its file.
        ("/small.html", &[("Accept-Encoding", "gzip")], 4),
        // The directory, too: there might be a better one.
        (
            "/small.html",
            &[("Accept-Encoding", "gzip, deflate, br, zstd")],
            5,
        ),
        ("/alone.js", &[], 3),
        ("/alone.js", &[("Accept-Encoding", "identity")], 3),
        ("/alone.js", &[("Accept-Encoding", "gzip")], 4),
        ("/site/", &[("Accept-Encoding", "gzip")], 4),
    ] {
        let mut client = server.connect();
        client.get_with(target, fields).assert_status(200);
        client.get_with(target, fields).assert_status(200);
        fs::write(&trace, "").unwrap();
        let calls = calls_between_marks(&mut client, &trace, |client| {
            for _ in 0..REQUESTS {
                client.get_with(target, fields).assert_status(200);
            }
        });
        // Of other threads only what serves requests: one may start, or look at what somebody on this
        // machine mounts meanwhile.
        let serves = |name: &str| {
            [
                "statx", "openat2", "sendto", "sendfile", "pread64", "preadv2",
            ]
            .contains(&name)
        };
        let worker = calls
            .iter()
            .find(|call| call.text.contains("GET "))
            .map(|call| &call.thread);
        let counted: Vec<_> = calls
            .iter()
            .filter(|call| !call.name.starts_with("epoll_"))
            .filter(|call| Some(&call.thread) == worker || serves(&call.name))
            .collect();
        let received = counted
            .iter()
            .filter(|call| call.text.contains("GET "))
            .count();
        assert_eq!(
            received,
            REQUESTS,
            "one recv for each request: {:?}",
            summary(&calls)
        );
        // A little room for what happens once in a while, such as a sweep.
        assert!(
            counted.len() <= REQUESTS * most + 4,
            "{} calls for {REQUESTS} requests of {target} {fields:?}: {:?}",
            counted.len(),
            summary(&calls)
        );
    }
}

#[test]
fn a_client_that_asks_and_leaves_costs_what_closing_in_stages_takes() {
    const NAME: &str = "a_client_that_asks_and_leaves_costs_what_closing_in_stages_takes";
    const CLIENTS: usize = 20;
    let files = Files::with(&[("small.html", &pattern(4000))]);
    let (server, trace) = match traced(&files, &["--workers", "1"]) {
        Ok(traced) => traced,
        Err(why) => skip!(NAME, "{why}"),
    };
    let mut marker = server.connect();
    marker.get("/small.html").assert_status(200);
    fs::write(&trace, "").unwrap();
    let calls = calls_between_marks(&mut marker, &trace, |_| {
        // Stopped, it finds all of them with their requests when it goes on.
        server.signal(Signal::STOP);
        // All of its threads, and not only because strace looks at one of them.
        eventually("it is stopped", || {
            is_stopped(&server) && {
                std::thread::sleep(Duration::from_millis(10));
                is_stopped(&server)
            }
        });
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.ask("GET", "/small.html", &[("Connection", "close")]);
        }
        server.signal(Signal::CONT);
        for client in &mut clients {
            client
                .answer()
                .assert_status(200)
                .assert_body(&pattern(4000));
            client.assert_ended();
        }
    });
    let counts = summary(&calls);
    let of = |name| counts.get(name).copied().unwrap_or(0);
    // The request, and the client's end of the connection, which may be looked for too early once.
    let received = of("recvfrom");
    assert!(received <= 3 * CLIENTS, "{counts:?}");
    for (name, most) in [
        ("sendto", CLIENTS),
        ("shutdown", CLIENTS),
        ("epoll_ctl", CLIENTS),
        ("close", CLIENTS),
    ] {
        assert!(of(name) <= most, "{name}: {counts:?}");
    }
    assert!(
        of("accept4") <= CLIENTS + 2,
        "hardly one in vain: {counts:?}"
    );
}

#[test]
fn who_pipelines_large_answers_lets_others_have_their_turn() {
    const NAME: &str = "who_pipelines_large_answers_lets_others_have_their_turn";
    const ANSWERS: usize = 64;
    /// The rest of an answer, a budget's worth, and what the answer that spends it has more.
    const MOST: i64 = 4 << 20;
    let files = Files::with(&[("large", &pattern(2 << 20))]);
    for length in [1_572_864, 1_047_000] {
        let (server, trace) = match traced(&files, &["--workers", "1"]) {
            Ok(traced) => traced,
            Err(why) => skip!(NAME, "{why}"),
        };
        let mut client = server.connect();
        client.get("/large").assert_status(200);
        fs::write(&trace, "").unwrap();
        let range = format!("bytes=0-{}", length - 1);
        let calls = calls_between_marks(&mut client, &trace, |client| {
            let request = format!("GET /large HTTP/1.1\r\nHost: x\r\nRange: {range}\r\n\r\n");
            client.send(request.repeat(ANSWERS));
            for _ in 0..ANSWERS {
                client.answer().assert_status(206);
            }
        });
        let worker = calls
            .iter()
            .find(|call| call.text.contains("GET "))
            .map(|call| &call.thread);
        let (mut stretch, mut longest) = (0, 0);
        for call in calls.iter().filter(|call| Some(&call.thread) == worker) {
            if call.name.starts_with("epoll_") {
                stretch = 0;
            } else if call.name.starts_with("send") {
                stretch += call.result.max(0);
            }
            longest = longest.max(stretch);
        }
        assert!(longest > 0 && longest <= MOST, "{longest} bytes at a time");
    }
}

fn is_stopped(server: &Server) -> bool {
    tasks(server.pid()).all(|task| {
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.contains(") T ") || stat.contains(") t ")
    })
}

/// How often each call was made.
fn summary(calls: &[Call]) -> std::collections::BTreeMap<&str, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for call in calls {
        *counts.entry(call.name.as_str()).or_insert(0) += 1;
    }
    counts
}
