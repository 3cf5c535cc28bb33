//! A runtime without timers drives whatever asks for no time limit.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{TestFile, pattern, wait_until};
use zhaul::async_io::{Attached, acknowledged};
use zhaul::relay::{RelayCause, RelayProgress, Side, Way};
use zhaul::{Progress, Stability, relay, transfer};

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// It slept for a millisecond at each, and for that it needed a timer.
#[test]
fn a_transfer_from_a_pipe_to_a_file_waits_for_the_pipe_alone() {
    run(async {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let source = Attached::new(reader).unwrap();
        let target = TestFile::with(b"");
        let sink = File::options().append(true).open(target.path()).unwrap();
        let progress = Progress::new();
        let sending = transfer(&source, &sink).progress(&progress).run_async();
        let feeding = async {
            let mut writer = File::from(writer);
            for number in 1..=100 {
                writer.write_all(&[7; 100]).unwrap();
                while progress.moved() < number * 100 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let (summary, ()) = tokio::join!(sending, feeding);
        assert_eq!(summary.unwrap().moved, 10_000);
        assert_eq!(std::fs::read(target.path()).unwrap().len(), 10_000);
    });
}

#[test]
fn a_file_that_looks_edited_is_looked_at_again() {
    let file = TestFile::with(&pattern(12 << 20));
    let (near, mut far) = UnixStream::pair().unwrap();
    let progress = Progress::new();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            run(async {
                let near = Attached::new(near.into()).unwrap();
                transfer(file.open(), &near)
                    .stability(Stability::Immutable)
                    .progress(&progress)
                    .run_async()
                    .await
            })
        });
        wait_until("the socket is full", || progress.moved() > 0);
        std::thread::sleep(Duration::from_millis(20));
        let editor = File::options().write(true).open(file.path()).unwrap();
        editor.write_all_at(b"edited", 5_000_000).unwrap();
        let _ = far.read_to_end(&mut Vec::new());
        let error = sending.join().unwrap().unwrap_err();
        assert_eq!(error.cause, zhaul::Cause::Changed);
    });
}

#[test]
fn an_acknowledgement_is_waited_for() {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    near.write_all(b"unread").unwrap();
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        far.read_exact(&mut [0; 6]).map(|()| far)
    });
    run(acknowledged(&near)).unwrap();
    reader.join().unwrap().unwrap();
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// The relay looks again and again whether the receiver has acknowledged.
#[test]
fn a_reset_is_passed_on_after_what_was_sent_before_it() {
    let ((near_a, mut far_a), (near_b, mut far_b)) = (tcp_pair(), tcp_pair());
    rustix::net::sockopt::set_socket_recv_buffer_size(&far_b, 8192).unwrap();
    let said = pattern(300_000);
    let progress = RelayProgress::new();
    std::thread::scope(|scope| {
        let relaying = scope.spawn(|| {
            run(async {
                let [a, b] = [near_a, near_b].map(|near| Attached::new(near.into()).unwrap());
                relay(a, b).progress(&progress).run_async().await
            })
        });
        far_a.write_all(&said).unwrap();
        wait_until("it is in the kernel", || {
            progress.delivered(Way::AToB) == said.len() as u64
        });
        rustix::net::sockopt::set_socket_linger(&far_a, Some(Duration::ZERO)).unwrap();
        drop(far_a);
        std::thread::sleep(Duration::from_millis(30));
        let mut received = Vec::new();
        let reset = far_b.read_to_end(&mut received).unwrap_err();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(received == said[..received.len()]);
        let cause = relaying.join().unwrap().cause;
        assert_eq!(cause, RelayCause::Reset { by: Side::A });
    });
}

#[test]
fn a_deadline_needs_timers_and_says_so_at_once() {
    let (near, _far) = UnixStream::pair().unwrap();
    let file = TestFile::with(b"never sent");
    let progress = Progress::new();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(async {
            let near = Attached::new(near.into()).unwrap();
            let haul = transfer(file.open(), &near).progress(&progress);
            haul.deadline(Duration::from_secs(3600)).run_async().await
        })
    }));
    assert!(panic.is_err());
    assert_eq!(progress.moved(), 0);
}
