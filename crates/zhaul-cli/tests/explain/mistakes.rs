//! What cannot be done is said in one line: what, why, and what to do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;

use crate::support::{NOBODY, Place, is_root, nobody_can_run_it, set_mode, skip};

#[test]
fn wrong_usage_has_exit_code_2() {
    let place = Place::new();
    place.file("file", 10);
    for (arguments, words) in [
        (&["file"][..], &["SINK"][..]),
        (
            &["file", "null", "--route", "teleport"],
            &["teleport", "sendfile", "splice"],
        ),
        (
            &["file", "null", "--stability", "maybe"],
            &["maybe", "immutable"],
        ),
        (&["file", "null", "--length", "much"], &["much", "64K"]),
        (&["file", "null", "--chunk", "0"], &["chunk"]),
        (&["file", "null", "--chunk", "2G"], &["chunk", "1 GiB"]),
        (&["file", "null", "--wait=-1"], &["wait"]),
        (&["file", "null", "--overwrite"], &["--run"]),
        (&["file", "tcp:nowhere"], &["sink", "port", "tcp:host:port"]),
        (&["file", "tcp:host:99999"], &["65535"]),
        (&["file", "tcp:::1:80"], &["brackets"]),
        (&["file", "unix:"], &["path"]),
        (&["null", "file"], &["source", "/dev/zero"]),
        (&["", "null"], &["source", "no name"]),
        (&["file", "null", "--no-such-option"], &["no-such-option"]),
    ] {
        let ended = place.explain(arguments).run();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with("zhaul: "), "{}", ended.stderr);
        for word in words {
            assert!(
                ended.stderr.contains(word),
                "{word:?} is missing in: {}",
                ended.stderr
            );
        }
    }
}

#[test]
fn what_is_not_there_is_named() {
    let place = Place::new();
    place.file("file", 10);
    let said = "No such file or directory";
    for run in [&[][..], &["--run"]] {
        let explain = |source, sink| {
            let arguments = [source, sink].into_iter().chain(run.iter().copied());
            place.explain(arguments).run()
        };
        explain("missing", "null").failed(1, &["missing: ", said, "check the path"]);
        explain("file", "no/such/directory").failed(1, &["no/such/directory: ", said]);
        explain("file", "unix:missing").failed(1, &["unix:missing: ", said]);
        explain("file/below", "null").failed(1, &["file/below: ", "Not a directory"]);
        explain("file", "new/").failed(1, &["new/: "]);
    }
    assert!(!place.path("new").exists());
}

#[test]
fn what_is_of_the_wrong_kind_is_named() {
    let place = Place::new();
    place.file("file", 10);
    fs::create_dir(place.path("directory")).unwrap();
    let _listener = UnixListener::bind(place.path("socket")).unwrap();
    let explain = |source: &str, sink: &str| place.explain([source, sink]).run();
    explain("directory", "null").failed(1, &["directory: is a directory", "a file in it"]);
    explain("file", "directory").failed(1, &["directory: is a directory"]);
    explain("socket", "null").failed(1, &["socket: is a socket", "unix:"]);
    explain("file", "socket").failed(1, &["socket: is a socket", "unix:"]);
    explain("file", "unix:file").failed(1, &["unix:file: is no socket"]);
}

#[test]
fn a_file_is_not_moved_onto_itself() {
    let place = Place::new();
    let content = place.file("file", 1000);
    fs::hard_link(place.path("file"), place.path("hard")).unwrap();
    std::os::unix::fs::symlink("file", place.path("soft")).unwrap();
    place.fifo("fifo");
    for sink in ["file", "./file", "hard", "soft"] {
        for run in [&[][..], &["--run", "--overwrite"]] {
            let arguments = ["file", sink].into_iter().chain(run.iter().copied());
            place
                .explain(arguments)
                .run()
                .failed(1, &["file", "the same file", "another sink"]);
        }
    }
    place
        .explain(["fifo", "fifo"])
        .run()
        .failed(1, &["the same file"]);
    let appending = fs::OpenOptions::new()
        .append(true)
        .open(place.path("file"))
        .unwrap();
    place
        .explain(["file", "-", "--run"])
        .stdout(appending)
        .run()
        .failed(1, &["the same file"]);
    assert_eq!(place.read("file"), content);
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    const NAME: &str = "what_may_not_be_read_or_written_is_named";
    let place = Place::new();
    place.file("file", 10);
    place.file("unreadable", 10);
    place.file("unwritable", 10);
    fs::create_dir(place.path("closed")).unwrap();
    set_mode(place.path("unreadable"), 0);
    set_mode(place.path("unwritable"), 0o444);
    set_mode(place.path("closed"), 0o555);
    let wrapper = if is_root() { &NOBODY[..] } else { &[] };
    if is_root() && !nobody_can_run_it() {
        skip!(NAME, "no way to run it as another user");
    }
    for run in [&[][..], &["--run", "--overwrite"]] {
        let explain = |source, sink| {
            let arguments = [source, sink].into_iter().chain(run.iter().copied());
            place.explain(arguments).under(wrapper).run()
        };
        let said = "Permission denied";
        explain("unreadable", "null").failed(1, &["unreadable: ", said]);
        explain("file", "unwritable").failed(1, &["unwritable: ", said]);
        explain("file", "closed/new").failed(1, &["closed/new: ", said]);
    }
    set_mode(place.path("closed"), 0o755);
}

#[test]
fn a_route_that_cannot_be_taken_is_refused_with_a_remedy() {
    let place = Place::new();
    place.file("file", 100_000);
    place.fifo("fifo");
    for run in [&[][..], &["--run"]] {
        let explain = |words: &[&str]| {
            let arguments = words.iter().chain(run).copied();
            place.explain(arguments).run()
        };
        explain(&["file", "new", "--route", "sendfile"]).failed(
            1,
            &["sendfile", "edits of the source", "--stability immutable"],
        );
        explain(&["fifo", "new", "--route", "mmap+write"])
            .failed(1, &["mmap+write", "cannot be mapped"]);
        explain(&[
            "file",
            "null",
            "--route",
            "copy_file_range",
            "--stability",
            "immutable",
        ])
        .failed(1, &["copy_file_range", "not a regular file"]);
    }
    assert!(!place.path("new").exists(), "a refused run creates nothing");
}

#[test]
fn more_than_there_is_cannot_be_asked_for() {
    let place = Place::new();
    place.file("file", 1000);
    place.fifo("fifo");
    let explain = |words: &[&str]| place.explain(words).run();
    explain(&["file", "null", "--offset", "1001"]).failed(1, &["file", "ends at 1,000 bytes"]);
    explain(&["file", "null", "--length", "1001"]).failed(1, &["ends at 1,000 bytes"]);
    explain(&["file", "null", "--offset", "500", "--length", "501"]).failed(1, &["ends at"]);
    explain(&["file", "null", "--offset", "1000"]).succeeded();
    explain(&["fifo", "null", "--offset", "1"]).failed(1, &["fifo", "no positions", "--offset"]);
    explain(&["-", "null", "--offset", "1"]).succeeded();
}

#[test]
fn nobody_listening_is_named() {
    let place = Place::new();
    place.file("file", 1000);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("tcp:{}", taken.local_addr().unwrap());
    drop(taken);
    let said = "Connection refused";
    place
        .explain(["file", &name, "--run"])
        .run()
        .failed(1, &[&name, said, "listen"]);
    place
        .explain([&name, "out", "--run"])
        .run()
        .failed(1, &[&name, said]);
    assert!(!place.path("out").exists());
    drop(UnixListener::bind(place.path("dead")).unwrap());
    place
        .explain(["file", "unix:dead", "--run"])
        .run()
        .failed(1, &["unix:dead", said]);
    let _datagrams = UnixDatagram::bind(place.path("datagrams")).unwrap();
    place
        .explain(["file", "unix:datagrams", "--run"])
        .run()
        .failed(1, &["unix:datagrams", "stream"]);
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let place = Place::new();
    place.file("file", 1000);
    for run in [&[][..], &["--run"]] {
        let arguments = ["file", "tcp:no.such.host.invalid:80"];
        let arguments = arguments.into_iter().chain(run.iter().copied());
        place
            .explain(arguments)
            .run()
            .failed(1, &["no.such.host.invalid", "no address", "name"]);
    }
}

#[test]
fn the_other_side_of_a_fifo_is_not_waited_for_for_ever() {
    let place = Place::new();
    place.file("file", 1000);
    place.fifo("fifo");
    let explain = |source, sink| {
        place
            .explain([source, sink, "--run", "--wait", "0.2"])
            .run()
    };
    explain("fifo", "out").failed(1, &["fifo: nobody wrote to it", "0.2 s", "--wait"]);
    explain("file", "fifo").failed(1, &["fifo: nobody opened it for reading", "--wait"]);
    assert!(!place.path("out").exists());
}

#[test]
fn a_full_sink_is_named_with_what_it_took() {
    let place = Place::new();
    place.file("file", 1 << 20);
    let ended = place.explain(["file", "/dev/full", "--run"]).run().failed(
        1,
        &[
            "file to /dev/full: ",
            "no space left on device",
            "after 0 bytes",
            "make room",
        ],
    );
    let text = ended.text();
    assert!(text.contains("stopped  0 bytes moved"), "{text}");
}

#[test]
fn a_sink_that_was_created_for_nothing_is_taken_away() {
    let place = Place::new();
    place.file("file", 1 << 20);
    let open = fs::OpenOptions::new()
        .write(true)
        .open(place.path("file"))
        .unwrap();
    place
        .explain(["file", "out", "--run", "--stability", "leased"])
        .run()
        .failed(1, &["file: no lease", "open for writing", "may-change"]);
    drop(open);
    assert!(!place.path("out").exists());
    // Its first byte cannot be read: nothing is mapped at address 0.
    place
        .explain(["/proc/self/mem", "out", "--run"])
        .run()
        .failed(1, &["/proc/self/mem to out: ", "after 0 bytes"]);
    assert!(!place.path("out").exists());
    // What was there before is not.
    place.file("there", 5);
    place
        .explain(["/proc/self/mem", "there", "--run", "--overwrite"])
        .run()
        .failed(1, &["after 0 bytes"]);
    assert!(place.path("there").exists());
}

#[test]
fn a_reader_that_closed_the_pipe_is_named() {
    let place = Place::new();
    place.file("file", 1 << 20);
    let mut child = place
        .explain(["file", "-", "--run"])
        .stdout(Stdio::piped())
        .start();
    drop(child.stdout.take());
    crate::support::Ended::of(child).failed(1, &["broken pipe", "gone"]);
}

#[test]
fn a_report_that_cannot_be_written_is_a_failure_and_a_closed_pipe_is_not() {
    let place = Place::new();
    place.file("file", 1000);
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let ended = place.explain(["file", "null"]).stdout(full).run();
    ended.failed(1, &["standard output", "No space left on device"]);
    let mut child = place
        .explain(["file", "null"])
        .stdout(Stdio::piped())
        .start();
    drop(child.stdout.take());
    let ended = crate::support::Ended::of(child);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn standard_streams_that_are_open_the_wrong_way_are_named() {
    let place = Place::new();
    place.file("file", 1000);
    let write_only = fs::OpenOptions::new()
        .write(true)
        .open(place.path("file"))
        .unwrap();
    place
        .explain(["-", "null"])
        .stdin(write_only)
        .run()
        .failed(1, &["standard input", "not open"]);
    let read_only = fs::File::open(place.path("file")).unwrap();
    place
        .explain(["/dev/zero", "-", "--length", "1"])
        .stdout(read_only)
        .run()
        .failed(1, &["standard output", "not open"]);
}

#[test]
fn a_block_device_is_not_written_to_without_consent() {
    const NAME: &str = "a_block_device_is_not_written_to_without_consent";
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let place = Place::new();
    place.file("file", 1000);
    // A number for experiments, behind which there is nothing.
    let nothing = makedev(240, 255);
    let mode = Mode::from_raw_mode(0o600);
    if let Err(errno) = mknodat(
        CWD,
        place.path("disk"),
        FileType::BlockDevice,
        mode,
        nothing,
    ) {
        skip!(NAME, "no device node can be made: {errno}");
    }
    let plan = place.json(["file", "disk"]);
    assert_eq!(plan["sink"]["kind"], "block");
    assert!(
        plan["notes"].to_string().contains("--overwrite"),
        "{}",
        plan["notes"]
    );
    place
        .explain(["file", "disk", "--run"])
        .run()
        .failed(1, &["disk: is a block device", "--overwrite"]);
    // With it the device is opened, and is not there.
    place
        .explain(["file", "disk", "--run", "--overwrite"])
        .run()
        .failed(1, &["disk: No such device or address"]);
}

#[test]
fn a_peer_that_resets_at_the_end_is_no_success() {
    let place = Place::new();
    place.file("file", 10_000);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("tcp:{}", listener.local_addr().unwrap());
    let peer = std::thread::spawn(move || {
        let (peer, _) = listener.accept().unwrap();
        // Closing with bytes that were not read resets the connection.
        let mut byte = [0];
        peer.peek(&mut byte).unwrap();
    });
    let ended = place.explain(["file", &name, "--run", "--plain"]).run();
    peer.join().unwrap();
    ended.failed(1, &[&format!("file to {name}: "), "reset", "gone"]);
}
