//! File systems that answer late or not at all: only who asks for their files waits, and not for ever.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::fuse::{Ask, Fuse};
use crate::support::{Client, Files, Serve, Server, eventually, pattern, skip};

/// How late the file system is, where that matters.
const LATE: Duration = Duration::from_millis(2500);
/// Sooner than that, by far, though the machine may be busy.
const PROMPT: Duration = Duration::from_millis(1500);

/// Local files, with a file system in user space at `far` below the root; or ends the test.
macro_rules! with_far {
    ($name:expr, $far:expr) => {{
        let files = Files::with(&[("hot", b"hot"), ("large", &pattern(300_000))]);
        match Fuse::mount(&files.path("far"), $far) {
            Ok(far) => (files, far),
            Err(why) => skip!($name, "{why}"),
        }
    }};
}

/// Panics unless whoever asks for nothing far away is answered at once: from memory, from a file, and
/// for a name that nobody has asked for before.
#[track_caller]
fn assert_prompt(server: &Server) {
    let began = Instant::now();
    let mut client = server.connect();
    client.request("OPTIONS", "*", &[]).assert_status(204);
    client.get("/hot").assert_status(200).assert_body(b"hot");
    client.get("/large").assert_status(200);
    let name = format!("/{}", fastrand_name());
    client.get(&name).assert_status(404);
    let took = began.elapsed();
    assert!(took < PROMPT, "it took {took:?}");
}

fn fastrand_name() -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    format!("{}", now.as_nanos())
}

fn ask(server: &Server, target: &str) -> Client {
    let mut client = server.connect();
    client.ask("GET", target, &[]);
    client
}

fn on(root: &Path, arguments: &[&str]) -> Server {
    let one = ["--workers", "1"];
    Server::of(root, &[&one, arguments].concat())
}

#[test]
fn whoever_asks_for_nothing_remote_does_not_wait_for_it() {
    let name = "whoever_asks_for_nothing_remote_does_not_wait_for_it";
    let large = pattern(1 << 20);
    for asked in [Ask::LookUp, Ask::GetAttr, Ask::Open, Ask::Read] {
        let (files, far) = with_far!(name, &[("small", b"far"), ("large", &large)]);
        let server = on(files.root(), &["--remote-freshness", "0s"]);
        assert_prompt(&server);
        // Twice: what is known already has to be looked at again.
        for round in 0..2 {
            far.delay(asked, Duration::ZERO);
            server.connect().get("/far/small").assert_status(200);
            server.connect().get("/far/large").assert_status(200);
            far.delay(asked, LATE);
            let began = Instant::now();
            let mut waiting = [ask(&server, "/far/small"), ask(&server, "/far/large")];
            while began.elapsed() < LATE - PROMPT {
                assert_prompt(&server);
            }
            let bodies = [&b"far"[..], &large];
            for (client, body) in waiting.iter_mut().zip(bodies) {
                client.answer().assert_status(200).assert_body(body);
            }
            let asks = far.asked(asked);
            assert!(asks > 0, "{asked:?} was never asked in round {round}");
        }
    }
}

#[test]
fn closing_a_remote_file_holds_nobody_up() {
    let name = "closing_a_remote_file_holds_nobody_up";
    let (files, far) = with_far!(name, &[("small", b"old"), ("large", &pattern(1 << 20))]);
    let server = on(files.root(), &["--remote-freshness", "0s"]);
    for target in ["/far/small", "/far/large", "/far/"] {
        server.connect().get(target).assert_status(200);
    }
    far.hold(&[Ask::Flush, Ask::Release]);
    // Another version: the file that was open is closed.
    far.write("small", b"new");
    far.write("large", &pattern(1 << 21));
    let before = far.asked(Ask::Flush);
    let answer = server.connect().get("/far/small");
    answer.assert_status(200).assert_body(b"new");
    server.connect().get("/far/large").assert_status(200);
    eventually("a close", || far.asked(Ask::Flush) > before);
    for _ in 0..5 {
        assert_prompt(&server);
        // Files are opened while others wait to be closed.
        server.connect().get("/far/small").assert_status(200);
    }
    far.resume();
}

#[test]
fn a_dead_file_system_is_answered_503_and_holds_nobody_else_up() {
    let name = "a_dead_file_system_is_answered_503_and_holds_nobody_else_up";
    let small: Vec<_> = (0..40).map(|n| format!("{n}")).collect();
    let far: Vec<_> = small
        .iter()
        .map(|name| (name.as_str(), &b"far"[..]))
        .collect();
    let (files, far) = with_far!(name, &far);
    let server = on(files.root(), &["--storage-timeout", "2"]);
    server.connect().get("/far/0").assert_status(200);
    far.hang();
    std::thread::sleep(Duration::from_millis(1100));
    // More than there are threads, and each path several times.
    let mut waiting: Vec<_> = (0..60)
        .map(|n| ask(&server, &format!("/far/{}", n % 40)))
        .collect();
    waiting.push(ask(&server, "/far/"));
    for _ in 0..5 {
        assert_prompt(&server);
    }
    for client in &mut waiting {
        client.answer().assert_status(503);
    }
    server.wait_for(&["ERROR", "did not answer in time"]);
    assert_prompt(&server);
    far.resume();
    eventually("an answer", || server.connect().get("/far/7").status == 200);
}

#[test]
fn a_second_signal_ends_a_server_of_a_dead_file_system() {
    let name = "a_second_signal_ends_a_server_of_a_dead_file_system";
    let (files, far) = with_far!(name, &[("small", b"far")]);
    far.do_without_flush();
    for root in [files.root().to_owned(), files.path("far")] {
        let target = if root == files.root() {
            "/far/small"
        } else {
            "/small"
        };
        let mut server = on(&root, &[]);
        server.connect().get(target).assert_status(200);
        far.hang();
        std::thread::sleep(Duration::from_millis(1100));
        let _waiting = ask(&server, target);
        std::thread::sleep(Duration::from_millis(300));
        server.signal(Signal::TERM);
        assert!(server.wait(Duration::from_millis(500)).is_none());
        let began = Instant::now();
        server.signal(Signal::TERM);
        assert!(
            server.wait(Duration::from_secs(8)).is_some(),
            "the second signal did not end it"
        );
        assert!(began.elapsed() < Duration::from_secs(5));
        far.resume();
    }
}

#[test]
fn a_remote_file_is_looked_at_as_often_as_its_freshness_says() {
    let name = "a_remote_file_is_looked_at_as_often_as_its_freshness_says";
    let (files, far) = with_far!(name, &[("small", b"old")]);
    let server = on(files.root(), &["--remote-freshness", "2s"]);
    let mut client = server.connect();
    client.get("/far/small").assert_status(200);
    let began = Instant::now();
    let before = far.asked(Ask::GetAttr) + far.asked(Ask::LookUp);
    let mut answers = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        client.get("/far/small").assert_body(b"old");
        answers += 1;
    }
    let asked = far.asked(Ask::GetAttr) + far.asked(Ask::LookUp) - before;
    if began.elapsed() < Duration::from_secs(2) {
        assert_eq!(asked, 0, "for {answers} answers within the freshness");
    }
    far.write("small", b"new");
    std::thread::sleep(Duration::from_millis(2100));
    client.get("/far/small").assert_body(b"new");
    far.write("small", b"newer");
    std::thread::sleep(Duration::from_millis(2100));
    // Many at once share one look.
    let opened = far.asked(Ask::Open);
    far.delay(Ask::LookUp, Duration::from_millis(500));
    let mut many: Vec<_> = (0..30).map(|_| ask(&server, "/far/small")).collect();
    for client in &mut many {
        client.answer().assert_status(200).assert_body(b"newer");
    }
    let opened = far.asked(Ask::Open) - opened;
    assert!(opened < 5, "{opened} times opened for 30 requests");
}

#[test]
fn a_root_that_is_remote_is_served_like_any_other() {
    let name = "a_root_that_is_remote_is_served_like_any_other";
    let large = pattern(3_000_000);
    let (files, far) = with_far!(
        name,
        &[
            ("small", b"far"),
            ("large", &large),
            ("index.html", b"home")
        ]
    );
    let server = on(&files.path("far"), &["--remote-freshness", "0s"]);
    let mut client = server.connect();
    client.get("/").assert_status(200).assert_body(b"home");
    client.get("/small").assert_body(b"far");
    client.get("/missing").assert_status(404);
    client.get("/large").assert_status(200).assert_body(&large);
    for (range, expected) in [
        ("bytes=0-0", &large[..1]),
        ("bytes=131071-131072", &large[131_071..131_073]),
        ("bytes=-200000", &large[2_800_000..]),
    ] {
        let answer = client.get_with("/large", &[("Range", range)]);
        answer.assert_status(206).assert_body(expected);
    }
    let parts = client.get_with("/large", &[("Range", "bytes=5-9,200000-400000")]);
    parts.assert_status(206);
    assert!(
        parts
            .body
            .windows(200_001)
            .any(|part| part == &large[200_000..=400_000])
    );
    let head = client.request("HEAD", "/large", &[]);
    assert_eq!(head.field("Content-Length"), Some("3000000"));
    // Nothing of the server's own waits for it, either.
    far.hang();
    std::thread::sleep(Duration::from_millis(1100));
    let began = Instant::now();
    client.request("OPTIONS", "*", &[]).assert_status(204);
    server
        .connect()
        .request("OPTIONS", "*", &[])
        .assert_status(204);
    assert!(began.elapsed() < PROMPT);
    far.resume();
}

#[test]
fn a_remote_file_that_changes_while_it_is_sent_is_cut_short() {
    let name = "a_remote_file_that_changes_while_it_is_sent_is_cut_short";
    let old = pattern(48 << 20);
    let (files, far) = with_far!(name, &[("large", &old)]);
    let server = on(files.root(), &[]);
    let new: Vec<u8> = old.iter().map(|byte| !byte).collect();
    for content in [&new[..], &old[..1 << 20]] {
        let mut client = ask(&server, "/far/large");
        if client.head_of_answer().status == 503 {
            // What was known of it a moment ago no longer holds, which is found out now.
            client = ask(&server, "/far/large");
            client.head_of_answer().assert_status(200);
        }
        let mut received = client.take(1 << 20);
        far.write("large", content);
        let (rest, _) = client.rest();
        received.extend(rest);
        assert!(received.len() < old.len());
        assert!(
            received[..] == old[..received.len()],
            "bytes of another version"
        );
        server.wait_for(&["WARN", "large", "changed"]);
        far.write("large", &old);
    }
}

#[test]
fn a_file_system_mounted_later_is_noticed() {
    let name = "a_file_system_mounted_later_is_noticed";
    let files = Files::with(&[
        ("hot", b"hot"),
        ("large", &pattern(300_000)),
        ("far/small", b"near"),
    ]);
    let server = on(files.root(), &[]);
    server.connect().get("/far/small").assert_body(b"near");
    let far = match Fuse::mount(&files.path("far"), &[("small", b"far")]) {
        Ok(far) => far,
        Err(why) => skip!(name, "{why}"),
    };
    eventually("the file system that was mounted over it", || {
        server.connect().get("/far/small").body == b"far"
    });
    far.hang();
    std::thread::sleep(Duration::from_millis(1100));
    let _waiting = ask(&server, "/far/small");
    assert_prompt(&server);
    drop(far);
    eventually("what was there before", || {
        server.connect().get("/far/small").body == b"near"
    });
}

#[test]
fn listings_and_look_ups_do_not_wait_for_one_another() {
    let name = "listings_and_look_ups_do_not_wait_for_one_another";
    let (files, far) = with_far!(name, &[("small", b"far")]);
    let server = on(files.root(), &["--remote-freshness", "0s"]);
    far.hold(&[Ask::ReadDir]);
    let mut listings: Vec<_> = (0..20).map(|_| ask(&server, "/far/")).collect();
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    server.connect().get("/far/small").assert_status(200);
    server.connect().get("/far/missing").assert_status(404);
    assert!(began.elapsed() < PROMPT);
    far.resume();
    // What is made takes memory like what waits for its client, so not all get one.
    let statuses: Vec<_> = listings
        .iter_mut()
        .map(|client| client.answer().status)
        .collect();
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 503)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&200), "{statuses:?}");
}

#[test]
fn the_duration_in_the_log_includes_the_wait_for_a_file_system() {
    let name = "the_duration_in_the_log_includes_the_wait_for_a_file_system";
    let (files, far) = with_far!(name, &[("small", b"far"), ("large", &pattern(1 << 20))]);
    let log = files.outside().join("log");
    let server = Serve::new(files.root())
        .args(["--log-format", "json", "--access-log"])
        .args([&log])
        .start();
    far.delay(Ask::LookUp, Duration::from_millis(700));
    server.connect().get("/far/small").assert_status(200);
    server.connect().get("/far/large").assert_status(200);
    eventually("two lines", || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .count()
            == 2
    });
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let duration_us = value["duration_us"].as_u64().unwrap();
        assert!(duration_us >= 700_000, "{line}");
    }
}

#[test]
fn who_leaves_before_anything_was_sent_is_in_the_log() {
    let name = "who_leaves_before_anything_was_sent_is_in_the_log";
    let (files, far) = with_far!(name, &[("large", &pattern(1 << 20))]);
    let log = files.outside().join("log");
    let server = Serve::new(files.root())
        .args(["--log-format", "json", "--access-log"])
        .args([&log])
        .start();
    far.hold(&[Ask::Read]);
    let client = ask(&server, "/far/large");
    eventually("its first bytes are asked for", || far.asked(Ask::Read) > 0);
    client.reset();
    eventually("a line", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n'))
    });
    far.resume();
    let line = std::fs::read_to_string(&log).unwrap();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&value["complete"], &value["bytes"]),
        (&false.into(), &0.into())
    );
}

#[test]
fn look_ups_end_with_those_who_asked_for_them() {
    let name = "look_ups_end_with_those_who_asked_for_them";
    let (files, far) = with_far!(name, &[("small", b"far")]);
    let server = on(files.root(), &["--storage-timeout", "0"]);
    server.connect().get("/far/small").assert_status(200);
    far.hang();
    let waiting: Vec<_> = (0..300)
        .map(|n| ask(&server, &format!("/far/none{n}")))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    for client in waiting {
        client.reset();
    }
    assert_prompt(&server);
    std::thread::sleep(Duration::from_millis(500));
    let before = far.asked(Ask::LookUp);
    far.resume();
    eventually("an answer", || {
        server.connect().get("/far/small").status == 200
    });
    // Each thread may have begun one more.
    let asked = far.asked(Ask::LookUp) - before;
    assert!(asked < 100, "{asked} look-ups that nobody waited for");
}

#[test]
fn a_link_that_is_refused_is_not_looked_through() {
    let name = "a_link_that_is_refused_is_not_looked_through";
    let files = Files::with(&[("hot", b"hot"), ("large", &pattern(300_000)), ("x", b"x")]);
    let point = files.outside().join("far");
    let far = match Fuse::mount(&point, &[("small", b"far")]) {
        Ok(far) => far,
        Err(why) => skip!(name, "{why}"),
    };
    files.symlink(point.join("small"), "x.br");
    for policy in ["inside", "never"] {
        let server = on(
            files.root(),
            &["--symlinks", policy, "--storage-timeout", "2"],
        );
        let coded = [("Accept-Encoding", "br")];
        for _ in 0..3 {
            let answer = server.connect().get_with("/x", &coded);
            answer.assert_status(200).assert_body(b"x");
        }
        far.hang();
        std::thread::sleep(Duration::from_millis(1100));
        let mut client = server.connect();
        client.ask("GET", "/x", &coded);
        std::thread::sleep(Duration::from_millis(100));
        assert_prompt(&server);
        client.answer();
        far.resume();
    }
}
