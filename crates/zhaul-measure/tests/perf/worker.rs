//! A program to watch: this test program, run again with a role.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROLE: &str = "ZHAUL_TEST_WORKER";

/// The command of a worker.
pub(crate) fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "worker::work", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// A worker that has been started and waits to be told to go on.
pub(crate) struct Worker(pub(crate) Child);

impl Worker {
    pub(crate) fn start(role: &str) -> Self {
        Self(command(role).spawn().unwrap())
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        self.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    /// Waits for its first line of this kind: `word number`.
    pub(crate) fn line(&mut self, word: &str) -> u64 {
        let mut line = String::new();
        // A byte at a time, so that nothing of the next line is taken.
        let mut stdout = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        loop {
            line.clear();
            assert!(
                stdout.read_line(&mut line).unwrap() > 0,
                "the worker ended early"
            );
            // The test harness writes to the same line.
            if let Some((_, number)) = line.rsplit_once(word) {
                return number.trim().parse().unwrap();
            }
        }
    }

    pub(crate) fn end(mut self) {
        std::io::copy(self.0.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
#[ignore = "the program that other tests watch"]
fn work() {
    match std::env::var(ROLE).as_deref() {
        Ok("threads") => threads_and_children(),
        Ok("spawner") => spawner(),
        Ok("child") => calls(100),
        Ok("waiter") => wait_for_go(),
        _ => {}
    }
}

fn wait_for_go() {
    let _ = std::io::stdin().read(&mut [0; 8]).unwrap();
}

fn calls(number: usize) {
    for _ in 0..number {
        let _ = rustix::process::getppid();
    }
}

/// Four threads, each with a thread of its own, and a child: 10 x 100 calls.
fn threads_and_children() {
    wait_for_go();
    let own = || {
        calls(100);
        std::thread::spawn(|| calls(100)).join().unwrap();
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(own)).collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    calls(100);
    let mut child = command("child");
    assert!(child.stdin(Stdio::null()).status().unwrap().success());
}

/// Threads make threads all the while somebody attaches; each makes ten calls once told to.
fn spawner() {
    let stop = Arc::new(AtomicBool::new(false));
    let makers: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut made = Vec::new();
                let go = Arc::new(Mutex::new(()));
                let hold = go.lock().unwrap();
                // Bounded: no machine is to be brought to its knees.
                while !stop.load(Ordering::Relaxed) {
                    if made.len() >= 300 {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    let go = Arc::clone(&go);
                    made.push(std::thread::spawn(move || {
                        drop(go.lock().unwrap());
                        calls(10);
                    }));
                    std::thread::sleep(Duration::from_micros(200));
                }
                drop(hold);
                let number = made.len() as u64;
                made.into_iter().for_each(|thread| thread.join().unwrap());
                number
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(5));
    println!("\nready 1");
    wait_for_go();
    stop.store(true, Ordering::Relaxed);
    let made: u64 = makers.into_iter().map(|maker| maker.join().unwrap()).sum();
    println!("\nmade {made}");
}
