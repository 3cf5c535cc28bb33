//! Files that change while they are sent.
//!
//! The files here are filled with one byte at a time, and every state that a file ever has is made
//! of fill bytes only. So any other byte that a client receives, above all a zero, was in no state
//! of the file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::metadata::METADATA;
use crate::support::http::assert_same;
use crate::support::{Client, EndsOnDrop, Files, Server, pattern};

/// More than both ends' kernels buffer.
const LARGE: usize = 48 << 20;
const LINE: &[u8] = b"one more line\n";
const MODES: [&str; 3] = ["immutable", "lease", "copy"];

fn open_for_writing(path: impl AsRef<Path>) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// Begins a download and stops reading it a little behind the head.
fn begin_download(server: &Server, target: &str) -> (Client, usize, Vec<u8>) {
    let mut client = server.connect();
    client.ask("GET", target, &[]);
    let answer = client.head_of_answer();
    answer.assert_status(200);
    let announced = usize::try_from(answer.announced_length().unwrap()).unwrap();
    let first = client.take(100_000);
    (client, announced, first)
}

#[test]
fn a_file_truncated_while_it_is_sent_ends_short_and_is_named() {
    for mode in MODES {
        let files = Files::with(&[("cut-me.bin", &pattern(LARGE)), ("a", b"a")]);
        let server = Server::of(files.root(), &["--stability", mode]);
        let (mut client, announced, first) = begin_download(&server, "/cut-me.bin");
        assert_eq!(announced, LARGE);
        // In a thread, as a lease makes it wait.
        let path = files.path("cut-me.bin");
        let editor = std::thread::spawn(move || open_for_writing(path).set_len(1 << 20).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let (rest, _) = client.rest();
        let received = [first, rest].concat();
        assert!(
            received.len() < LARGE,
            "{mode}: {} bytes, as if nothing had happened",
            received.len()
        );
        if mode != "immutable" {
            assert_same(&received, &pattern(LARGE)[..received.len()], mode);
        }
        server.wait_for(&["WARN", "cut-me.bin"]);
        editor.join().unwrap();
        // Nobody else is harmed.
        server
            .connect()
            .get("/a")
            .assert_status(200)
            .assert_body(b"a");
        let answer = server.connect().get("/cut-me.bin");
        answer
            .assert_status(200)
            .assert_body(&pattern(LARGE)[..1 << 20]);
    }
}

#[test]
fn an_edit_while_it_is_sent_ends_short() {
    // Behind what is already sent, or before what is still to be sent.
    for (mode, place) in [
        ("immutable", 7),
        ("copy", 7),
        ("copy", LARGE / 2),
        ("copy", LARGE - 1),
    ] {
        let files = Files::with(&[("edit-me.bin", &vec![b'a'; LARGE])]);
        let server = Server::of(files.root(), &["--stability", mode]);
        let (mut client, announced, first) = begin_download(&server, "/edit-me.bin");
        open_for_writing(files.path("edit-me.bin"))
            .write_all_at(b"b", place as u64)
            .unwrap();
        let (rest, _) = client.rest();
        assert!(
            first.len() + rest.len() < announced,
            "{mode}, {place}: a mixture of two versions was sent as whole"
        );
        server.wait_for(&["WARN", "edit-me.bin"]);
    }
}

#[test]
fn parts_of_a_copied_file_that_is_edited_meanwhile_end_short() {
    let files = Files::with(&[("edit-me.bin", &vec![b'a'; LARGE])]);
    let server = Server::of(files.root(), &["--stability", "copy"]);
    let ranges = format!("bytes=0-{},{}-", LARGE / 2, LARGE / 2 + 1000);
    let mut client = server.connect();
    client.ask("GET", "/edit-me.bin", &[("Range", &ranges)]);
    let answer = client.head_of_answer();
    answer.assert_status(206);
    let announced = usize::try_from(answer.announced_length().unwrap()).unwrap();
    let first = client.take(100_000);
    open_for_writing(files.path("edit-me.bin"))
        .write_all_at(b"b", 7)
        .unwrap();
    let (rest, _) = client.rest();
    assert!(first.len() + rest.len() < announced);
}

#[test]
fn a_growing_file_is_sent_as_long_as_announced() {
    for mode in ["immutable", "copy"] {
        let content = pattern(LARGE);
        let files = Files::with(&[("grow.log", &content), ("a", b"a")]);
        let server = Server::of(files.root(), &["--stability", mode]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = EndsOnDrop(&over);
            let path = files.path("grow.log");
            let over = &over;
            // The kernel stamps a file before it makes it longer, and the server may look in
            // between.
            scope.spawn(move || {
                let mut log = OpenOptions::new().append(true).open(path).unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::io::Write::write_all(&mut log, LINE).unwrap();
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
            for _ in 0..6 {
                let (mut client, announced, mut received) = begin_download(&server, "/grow.log");
                assert!(announced >= LARGE);
                received.extend(client.take(announced - received.len()));
                assert_same(&received[..LARGE], &content, mode);
                let appended = LINE.iter().cycle().take(announced - LARGE);
                assert!(received[LARGE..].iter().eq(appended), "{mode}");
                // The connection is at the next request, not in what was appended.
                client.get("/a").assert_status(200).assert_body(b"a");
            }
        });
    }
}

#[test]
fn a_file_replaced_by_rename_or_removed_is_sent_to_its_end() {
    let content = pattern(LARGE);
    for mode in MODES {
        let files = Files::with(&[("f", &content)]);
        let server = Server::of(files.root(), &["--stability", mode]);
        let (mut renamed, announced, mut received) = begin_download(&server, "/f");
        files.replace("f", "new");
        received.extend(renamed.take(announced - received.len()));
        assert_same(&received, &content, mode);
        renamed.get("/f").assert_status(200).assert_body(b"new");

        files.replace("f", &content);
        let (mut removed, announced, mut received) = begin_download(&server, "/f");
        files.remove("f");
        received.extend(removed.take(announced - received.len()));
        assert_same(&received, &content, mode);
        removed.get("/f").assert_status(404);
    }
}

#[test]
fn a_change_of_metadata_while_it_is_sent_is_no_edit() {
    let content = pattern(LARGE);
    for mode in MODES {
        for (name, change) in METADATA {
            // To set times a descriptor is opened for writing, which a lease holds up.
            if mode == "lease" && name == "atime put back" {
                continue;
            }
            let files = Files::with(&[("f", &content)]);
            let server = Server::of(files.root(), &["--stability", mode]);
            let (mut client, announced, mut received) = begin_download(&server, "/f");
            change(&files.path("f"));
            received.extend(client.try_take(announced - received.len()));
            assert_same(&received, &content, &format!("{mode}, {name}"));
        }
    }
}

/// Writers that keep a file in motion, readers that check every byte that they receive. Says how
/// many answers came whole and how many were cut short.
struct Motion {
    whole: AtomicU64,
    cut: AtomicU64,
    edits: AtomicU64,
    over: AtomicBool,
}

impl Motion {
    fn run(server: &Server, path: &Path, time: Duration, edit: impl Fn(&Path, u64) + Sync) -> Self {
        let motion = Self {
            whole: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            edits: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !motion.over.load(Ordering::Relaxed) {
                    edit(path, motion.edits.fetch_add(1, Ordering::Relaxed));
                }
            });
            let readers: Vec<_> = (0..3_u64)
                .map(|reader| {
                    scope.spawn({
                        let motion = &motion;
                        move || motion.read(server, reader, time)
                    })
                })
                .collect();
            let _ends = EndsOnDrop(&motion.over);
            for reader in readers {
                reader.join().unwrap();
            }
        });
        motion
    }

    fn read(&self, server: &Server, reader: u64, time: Duration) {
        let until = Instant::now() + time;
        let mut round = reader;
        while Instant::now() < until {
            round += 1;
            let mut client = server.connect();
            let range = [("Range", "bytes=5000-")];
            client.ask(
                "GET",
                "/moving",
                if round.is_multiple_of(5) { &range } else { &[] },
            );
            // Reset before anything was sent: it changed between the look-up and the first byte.
            let Ok(answer) = client.try_head_of_answer() else {
                self.cut.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if !matches!(answer.status, 200 | 206) {
                continue;
            }
            let announced = answer.announced_length().unwrap();
            if round.is_multiple_of(3) {
                // What is queued meanwhile must not change any more.
                std::thread::sleep(Duration::from_millis(round % 17));
            }
            let body = client.try_take(usize::try_from(announced).unwrap());
            if let Some(at) = body.iter().position(|byte| !byte.is_ascii_uppercase()) {
                panic!(
                    "byte {at} of {} (announced {announced}) is {:#x}, which no state of the file had",
                    body.len(),
                    body[at]
                );
            }
            let counter = if body.len() as u64 == announced {
                &self.whole
            } else {
                &self.cut
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn fill(round: u64) -> u8 {
    b'A' + (round % 26) as u8
}

const MOVING: usize = 3 << 20;

fn moving_site() -> Files {
    Files::with(&[("moving", &vec![b'A'; MOVING])])
}

/// Overwrites all of it in place with the next fill byte.
fn overwrite(path: &Path, round: u64) {
    let block = vec![fill(round); 64 << 10];
    let file = open_for_writing(path);
    for at in (0..MOVING).step_by(block.len()) {
        file.write_all_at(&block, at as u64).unwrap();
    }
    drop(file);
    std::thread::sleep(Duration::from_millis(round % 7));
}

/// Cuts it somewhere and fills it up again from there, so that no hole ever comes to be.
fn cut_and_refill(path: &Path, round: u64) {
    let cut = (round.wrapping_mul(0x9E37_79B9_7F4A_7C15) % MOVING as u64) as usize;
    let file = open_for_writing(path);
    file.set_len(cut as u64).unwrap();
    let block = vec![fill(round); 256 << 10];
    let mut at = cut;
    while at < MOVING {
        let count = block.len().min(MOVING - at);
        file.write_all_at(&block[..count], at as u64).unwrap();
        at += count;
    }
    drop(file);
    std::thread::sleep(Duration::from_millis(round % 5));
}

#[test]
fn copy_never_sends_a_byte_that_was_not_in_the_file() {
    for edit in [overwrite, cut_and_refill] {
        let files = moving_site();
        let server = Server::of(files.root(), &["--stability", "copy", "--workers", "2"]);
        let motion = Motion::run(&server, &files.path("moving"), Duration::from_secs(3), edit);
        let (whole, edits) = (motion.whole.into_inner(), motion.edits.into_inner());
        assert!(whole > 20, "{whole} whole answers");
        assert!(edits > 20, "{edits} edits");
    }
}

#[test]
fn lease_never_sends_a_byte_that_was_not_in_the_file() {
    for edit in [overwrite, cut_and_refill] {
        let files = moving_site();
        let server = Server::of(files.root(), &["--stability", "lease", "--workers", "2"]);
        let motion = Motion::run(&server, &files.path("moving"), Duration::from_secs(3), edit);
        let (whole, cut) = (motion.whole.into_inner(), motion.cut.into_inner());
        let edits = motion.edits.into_inner();
        assert!(
            whole + cut > 20,
            "{whole} whole answers and {cut} cut short"
        );
        assert!(edits > 20, "{edits} edits: writers starve");
    }
}

#[test]
fn small_files_in_motion_are_sent_whole_from_one_state() {
    for mode in ["lease", "copy"] {
        let size = 20_000;
        let files = Files::with(&[("small", &vec![b'A'; size])]);
        let server = Server::of(files.root(), &["--stability", mode]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let path = files.path("small");
            let over = &over;
            scope.spawn(move || {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    round += 1;
                    let file = open_for_writing(&path);
                    file.set_len(1000).unwrap();
                    file.write_all_at(&vec![fill(round); 19_000], 1000).unwrap();
                    if round % 50 == 0 {
                        std::thread::sleep(Duration::from_millis(40));
                    }
                }
            });
            let _ends = EndsOnDrop(over);
            let until = Instant::now() + Duration::from_millis(700);
            let mut client = server.connect();
            while Instant::now() < until {
                // Reset even behind a whole answer: the last look at the file comes after the last byte.
                let asked = client.try_send("GET /small HTTP/1.1\r\nHost: h\r\n\r\n");
                let Ok(answer) = asked.and_then(|()| client.try_answer("GET")) else {
                    client = server.connect();
                    continue;
                };
                let foreign = answer
                    .body
                    .iter()
                    .position(|byte| !byte.is_ascii_uppercase());
                assert_eq!(foreign, None, "{mode}: a byte that was not in the file");
            }
        });
    }
}

#[test]
fn a_file_that_a_logger_appends_to_is_sent_as_it_was_announced() {
    for mode in MODES {
        let files = Files::with(&[("app.log", &pattern(LARGE))]);
        let server = Server::of(files.root(), &["--stability", mode]);
        let (mut client, announced, first) = begin_download(&server, "/app.log");
        // In a thread, as a lease makes it wait. It opens the file when the answer is under way.
        let path = files.path("app.log");
        let logger = std::thread::spawn(move || {
            let mut log = File::options().append(true).open(path).unwrap();
            for _ in 0..20 {
                std::io::Write::write_all(&mut log, b"one more line\n").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        let rest = client.take(announced - first.len());
        assert_same(&[first, rest].concat(), &pattern(LARGE), mode);
        client.get("/app.log").assert_status(200);
        logger.join().unwrap();
    }
}

#[test]
fn an_editor_waits_for_a_leased_answer_or_cuts_it_short_soon() {
    let files = Files::with(&[("leased", &vec![b'A'; LARGE])]);
    let server = Server::of(files.root(), &["--stability", "lease"]);
    let (mut client, announced, first) = begin_download(&server, "/leased");
    let began = Instant::now();
    // The client does not read on: the editor must not be kept for as long as that lasts.
    open_for_writing(files.path("leased"))
        .write_all_at(&vec![b'B'; LARGE], 0)
        .unwrap();
    let waited = began.elapsed();
    assert!(
        waited < Duration::from_secs(15),
        "the editor waited for {waited:?}"
    );
    let (rest, _) = client.rest();
    let received = first.len() + rest.len();
    assert!(received < announced);
    let foreign = first.iter().chain(&rest).position(|&byte| byte != b'A');
    assert_eq!(foreign, None, "an edit behind a lease reached the client");
    server.wait_for(&["WARN", "leased"]);
}
