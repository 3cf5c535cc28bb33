//! A file on which another program holds a write lease (fcntl(2), F_SETLEASE), as file servers do
//! for clients that cache writes: opening it takes as long as the holder needs to let go.
//!
//! The holder is a few lines of Python, because rustix does not know leases.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Files, Server, eventually, has_program, skip};

/// Takes the lease, says so, and lets go as long after being asked to as the second argument says.
const HOLDER: &str = r"
import fcntl, os, signal, sys, time
path, seconds = sys.argv[1], float(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fd = os.open(path, os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
signal.sigwait([signal.SIGIO])
time.sleep(seconds)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
print('released', flush=True)
time.sleep(60)
";

/// Ends with its test.
struct Holder(Child);

impl Holder {
    /// `Err` says why there is none.
    fn of(path: &Path, lets_go_after: &str) -> Result<Self, String> {
        if !has_program("python3") {
            return Err("python3 is not installed".to_owned());
        }
        let child = Command::new("python3")
            .args(["-c", HOLDER])
            .arg(path)
            .arg(lets_go_after)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut holder = Self(child.map_err(|e| e.to_string())?);
        let mut said = String::new();
        let stdout = holder.0.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        match said.as_str() {
            "held\n" => Ok(holder),
            _ => Err("this file system gives no lease".to_owned()),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both kept in memory and not.
const SIZES: [usize; 2] = [5, 200_000];

#[test]
fn a_writer_that_lets_go_soon_is_waited_for() {
    for size in SIZES {
        let content = vec![b'w'; size];
        let files = Files::with(&[("written", &content), ("a", b"a")]);
        let server = Server::of(files.root(), &["--workers", "1"]);
        let _holder = match Holder::of(&files.path("written"), "0.1") {
            Ok(holder) => holder,
            Err(why) => skip!("a_writer_that_lets_go_soon_is_waited_for", "{why}"),
        };
        let mut client = server.connect();
        client.ask("GET", "/written", &[]);
        // Nobody else waits.
        let began = Instant::now();
        server.connect().get("/a").assert_status(200);
        let others = began.elapsed();
        client.answer().assert_status(200).assert_body(&content);
        assert!(
            began.elapsed() >= Duration::from_millis(80),
            "the lease was not in the way"
        );
        assert!(others < Duration::from_millis(80), "{others:?}");
    }
}

#[test]
fn a_writer_that_does_not_let_go_makes_it_503_and_not_an_error_of_the_disk() {
    for size in SIZES {
        let files = Files::with(&[("written", &vec![b'w'; size]), ("a", b"a")]);
        let server = Server::of(files.root(), &["--workers", "1"]);
        let holder = match Holder::of(&files.path("written"), "60") {
            Ok(holder) => holder,
            Err(why) => skip!(
                "a_writer_that_does_not_let_go_makes_it_503_and_not_an_error_of_the_disk",
                "{why}"
            ),
        };
        let mut client = server.connect();
        let began = Instant::now();
        let answer = client.get("/written");
        answer.assert_status(503);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?} for a 503");
        server.connect().get("/a").assert_status(200);
        server.wait_for(&["WARN", "written", "lease"]);
        drop(holder);
        eventually("the file after the writer is gone", || {
            server.connect().get("/written").status == 200
        });
    }
}

#[test]
fn no_thread_waits_for_a_writer() {
    let files = Files::with(&[("written", b"w")]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    let _holder = match Holder::of(&files.path("written"), "20") {
        Ok(holder) => holder,
        Err(why) => skip!("no_thread_waits_for_a_writer", "{why}"),
    };
    // Five times as many as there are threads; each waits for half a second.
    let mut waiting: Vec<_> = (0..80).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.ask("GET", "/written", &[]);
    }
    let began = Instant::now();
    // A name that is not in memory, so that a thread has to look it up.
    server.connect().get("/never-asked-for").assert_status(404);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1500), "it took {took:?}");
    for client in &mut waiting {
        client.answer().assert_status(503);
    }
}
