//! With `--run` the bytes arrive, all of them and unchanged, between every kind of end, on every
//! route.
//!
//! Most runs are plain: instruments change nothing about the bytes and take time to attach.

use std::fs;
use std::io::{Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Ended, Place, read_all, tcp_reader, tcp_writer, unix_reader, unix_writer};

/// Not a multiple of anything.
const LEN: usize = 3_000_017;

#[track_caller]
fn assert_done(run: &Value, route: &str, bytes: usize) {
    let measured = &run["measured"];
    assert_eq!(measured["finished"], true, "{measured}");
    assert_eq!(measured["bytes"], bytes, "{measured}");
    assert_eq!(run["plan"]["route"], route, "{}", run["plan"]);
}

#[test]
fn a_file_arrives_at_a_tcp_peer_by_every_route() {
    let place = Place::new();
    let content = place.file("file", LEN);
    for (route, promise) in [
        ("read+write", "may-change"),
        ("sendfile", "immutable"),
        ("splice", "immutable"),
        ("mmap+write", "leased"),
    ] {
        let (peer, reader) = tcp_reader();
        let run = place.json([
            "file",
            &peer,
            "--run",
            "--stability",
            promise,
            "--route",
            route,
        ]);
        assert_done(&run, route, LEN);
        assert!(reader.join().unwrap() == content, "{route}");
    }
}

#[test]
fn a_file_arrives_at_a_unix_peer() {
    let place = Place::new();
    let content = place.file("file", LEN);
    let reader = unix_reader(&place.path("socket"));
    let run = place.json([
        "file",
        "unix:socket",
        "--run",
        "--plain",
        "--stability",
        "immutable",
    ]);
    assert_done(&run, "sendfile", LEN);
    assert!(reader.join().unwrap() == content);
}

#[test]
fn a_file_arrives_at_a_peer_with_an_abstract_name() {
    let place = Place::new();
    let content = place.file("file", LEN);
    let name = format!("zhaul-explain-{}", std::process::id());
    let peer = format!("unix:@{name}");
    let nobody = place.explain(["file", &peer]).run();
    nobody.failed(1, &[&peer, "Connection refused"]);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let plan = place.json(["file", &peer, "--stability", "immutable"]);
    assert_eq!(plan["plan"]["route"], "sendfile");
    let reader = std::thread::spawn(move || read_all(listener.accept().unwrap().0));
    let run = place.json([
        "file",
        &peer,
        "--run",
        "--plain",
        "--stability",
        "immutable",
    ]);
    assert_done(&run, "sendfile", LEN);
    assert!(reader.join().unwrap() == content);
}

#[test]
fn a_file_is_copied_to_a_new_one() {
    let place = Place::new();
    let content = place.file("file", LEN);
    for (promise, route) in [
        ("immutable", "copy_file_range"),
        ("may-change", "read+write"),
    ] {
        let run = place.json(["file", promise, "--run", "--plain", "--stability", promise]);
        assert_done(&run, route, LEN);
        assert_eq!(run["sink"]["exists"], false);
        assert!(place.read(promise) == content, "{route}");
    }
}

#[test]
fn what_exists_is_replaced_with_consent_only() {
    let place = Place::new();
    let content = place.file("file", 1000);
    let old = place.file("there", 5000);
    place
        .explain(["file", "there", "--run", "--plain"])
        .run()
        .failed(1, &["there", "--overwrite"]);
    assert_eq!(place.read("there"), old);
    let run = place.json(["file", "there", "--run", "--plain", "--overwrite"]);
    assert_done(&run, "read+write", 1000);
    assert_eq!(run["sink"]["emptied"], true);
    assert_eq!(
        place.read("there"),
        content,
        "and nothing is left of what was there"
    );
}

#[test]
fn a_part_of_a_file_is_moved() {
    let place = Place::new();
    let content = place.file("file", 1_000_000);
    let arguments = [
        "file", "part", "--run", "--plain", "--offset", "123456", "--length", "500001", "--chunk",
        "10000",
    ];
    let run = place.json(arguments);
    assert_done(&run, "read+write", 500_001);
    assert!(place.read("part") == content[123_456..][..500_001]);
}

#[test]
fn a_tcp_peer_is_read_into_a_file() {
    let place = Place::new();
    let content = crate::support::pattern(LEN);
    let (peer, writer) = tcp_writer(content.clone());
    let run = place.json([peer.as_str(), "file", "--run", "--plain"]);
    assert_done(&run, "splice", LEN);
    writer.join().unwrap();
    assert!(place.read("file") == content);
}

#[test]
fn a_unix_peer_is_read_into_a_file() {
    let place = Place::new();
    let content = crate::support::pattern(LEN);
    let writer = unix_writer(&place.path("socket"), content.clone());
    let run = place.json(["unix:socket", "file", "--run", "--plain"]);
    assert_done(&run, "splice", LEN);
    writer.join().unwrap();
    assert!(place.read("file") == content);
}

#[test]
fn one_peer_is_relayed_to_another() {
    let place = Place::new();
    let content = crate::support::pattern(LEN);
    let (from, writer) = tcp_writer(content.clone());
    let (to, reader) = tcp_reader();
    let run = place.json([from.as_str(), to.as_str(), "--run", "--plain"]);
    assert_done(&run, "splice", LEN);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == content);
}

#[test]
fn fifos_are_waited_for_and_carry_everything() {
    let place = Place::new();
    let content = crate::support::pattern(LEN);
    let (from, to) = (place.fifo("from"), place.fifo("to"));
    let child = place
        .explain(["from", "to", "--run", "--plain", "--json"])
        .start();
    // They are opened in this order; each open waits for the other side.
    let writer = {
        let content = content.clone();
        std::thread::spawn(move || {
            let mut fifo = fs::OpenOptions::new().write(true).open(from).unwrap();
            fifo.write_all(&content).unwrap();
        })
    };
    let reader = std::thread::spawn(move || read_all(fs::File::open(to).unwrap()));
    let run = Ended::of(child).json();
    assert_done(&run, "splice", LEN);
    writer.join().unwrap();
    assert!(reader.join().unwrap() == content);
}

#[test]
fn a_pipe_is_read_from_standard_input() {
    let place = Place::new();
    let content = crate::support::pattern(LEN);
    let mut child = place
        .explain(["-", "file", "--run", "--plain", "--json"])
        .stdin(Stdio::piped())
        .start();
    let mut pipe = child.stdin.take().unwrap();
    let theirs = content.clone();
    let writer = std::thread::spawn(move || pipe.write_all(&theirs).unwrap());
    let run = Ended::of(child).json();
    assert_done(&run, "splice", LEN);
    writer.join().unwrap();
    assert!(place.read("file") == content);
}

#[test]
fn a_file_is_read_from_standard_input_where_it_stands() {
    let place = Place::new();
    let content = place.file("file", 100_000);
    let mut stdin = fs::File::open(place.path("file")).unwrap();
    stdin.seek(std::io::SeekFrom::Start(60_000)).unwrap();
    let run = place
        .explain(["-", "rest", "--run", "--plain", "--json"])
        .stdin(stdin)
        .run()
        .json();
    assert_done(&run, "read+write", 40_000);
    assert!(place.read("rest") == content[60_000..]);
}

#[test]
fn standard_output_carries_the_bytes_and_nothing_else() {
    let place = Place::new();
    let content = place.file("file", LEN);
    let ended = place
        .explain(["file", "-", "--run", "--plain", "--stability", "immutable"])
        .run()
        .succeeded();
    assert!(ended.stdout == content, "{} bytes", ended.stdout.len());
    assert!(
        ended.stderr.contains("sendfile  file → standard output"),
        "{}",
        ended.stderr
    );
    // And into a file, behind what is there already.
    let mut file = fs::File::create(place.path("out")).unwrap();
    file.write_all(b"before ").unwrap();
    let ended = place
        .explain(["file", "-", "--run", "--plain", "--json"])
        .stdout(file)
        .run()
        .succeeded();
    let run: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_done(&run, "read+write", LEN);
    let out = place.read("out");
    assert!(out.starts_with(b"before ") && out[7..] == content);
}

#[test]
fn devices_and_generated_files_are_sources_too() {
    let place = Place::new();
    let run = place.json(["/dev/zero", "zeros", "--run", "--plain", "--length", "100K"]);
    assert_done(&run, "sendfile", 102_400);
    assert!(place.read("zeros").iter().all(|&byte| byte == 0));
    let version = fs::read("/proc/version").unwrap();
    let run = place.json(["/proc/version", "version", "--run", "--plain"]);
    assert_done(&run, "sendfile", version.len());
    assert_eq!(place.read("version"), version);
}

#[test]
fn an_empty_source_makes_an_empty_sink() {
    let place = Place::new();
    place.file("empty", 0);
    let run = place.json(["empty", "out", "--run", "--plain"]);
    assert_eq!(run["measured"]["bytes"], 0);
    assert_eq!(run["measured"]["finished"], true);
    assert_eq!(place.read("out"), b"");
    let (peer, reader) = tcp_reader();
    place.json(["empty", &peer, "--run", "--plain"]);
    assert_eq!(reader.join().unwrap(), b"");
}

#[test]
fn the_plan_of_the_run_is_the_plan_without_it() {
    let place = Place::new();
    place.file("file", LEN);
    place.fifo("fifo");
    for promise in ["immutable", "may-change", "leased"] {
        for sink in ["null", "new", "/dev/null"] {
            let arguments = ["file", sink, "--stability", promise];
            let plan = place.json(arguments);
            let run = place.json(arguments.into_iter().chain(["--run", "--plain"]));
            assert_eq!(plan["plan"], run["plan"], "{sink} {promise}");
            assert_eq!(plan["expected"], run["expected"], "{sink} {promise}");
            let _ = fs::remove_file(place.path("new"));
        }
        let (peer, reader) = tcp_reader();
        let plan = place.json(["file", &peer, "--stability", promise]);
        let run = place.json(["file", &peer, "--stability", promise, "--run", "--plain"]);
        assert_eq!(plan["plan"], run["plan"], "{promise}");
        assert_eq!(plan["expected"], run["expected"], "{promise}");
        reader.join().unwrap();
    }
}

#[test]
fn a_sink_that_may_not_grow_is_an_error_with_the_bytes_moved() {
    let place = Place::new();
    place.file("file", LEN);
    for (copy, promise) in [
        ("read+write", "may-change"),
        ("copy_file_range", "immutable"),
    ] {
        place
            .explain(
                ["file", copy, "--run"]
                    .iter()
                    .chain(&["--stability", promise]),
            )
            .under(&["prlimit", "--fsize=65536"])
            .run()
            .failed(1, &["EFBIG", "65,536 bytes", "ulimit -f"]);
        assert_eq!(fs::metadata(place.path(copy)).unwrap().len(), 65_536);
    }
}
