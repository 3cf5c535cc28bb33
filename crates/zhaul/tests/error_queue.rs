//! What lies in a socket's error queue is no readiness, and its errors are.
//!
//! A message in the error queue (a completion of MSG_ZEROCOPY, a timestamp, an ICMP error) makes
//! `poll(2)` and `epoll(7)` report POLLERR until somebody takes it, which a transfer does not.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use common::{TestFile, pattern, wait_until};
use zhaul::async_io::Attached;
use zhaul::relay::{RelayCause, RelayOptions, RelayProgress, Side, Way};
use zhaul::{CancelToken, Progress, Stability, relay, transfer};
use zhaul_sys::msg_zerocopy::Sender;

const LONG: usize = 24 << 20;
/// How long something waits, and how little of that it may work. A loop without a wait takes all.
const STALL: Duration = Duration::from_millis(400);
const WORK: Duration = Duration::from_millis(100);
/// Of one direction while it waits; a loop makes ten thousands.
const FEW_CALLS: u64 = 300;

/// A connection whose near end has a completion in its error queue, which the far end has read the
/// byte of. The sender keeps the near end open.
fn pair_with_completion() -> (TcpStream, TcpStream, Sender) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let mut sender = Sender::new(near.as_fd()).unwrap();
    put_completion(&mut sender, &mut far);
    (near, far, sender)
}

fn put_completion(near: &mut Sender, far: &mut TcpStream) {
    let sent = near.send(&[Bytes::from_static(b"!")], false).unwrap();
    assert_eq!(sent.bytes, 1);
    far.read_exact(&mut [0]).unwrap();
    wait_until("the completion is there", || has_error(near));
}

fn has_error(socket: &Sender) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).unwrap();
    fds[0].revents().contains(PollFlags::ERR)
}

fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.try_into().unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// How a transfer is driven.
#[derive(Clone, Copy, Debug)]
enum Driver {
    Blocking { sink_blocks: bool },
    Tokio,
}

const DRIVERS: [Driver; 3] = [
    Driver::Blocking { sink_blocks: false },
    Driver::Blocking { sink_blocks: true },
    Driver::Tokio,
];

/// Sends from `source` to `near` on this thread until it is cancelled or done; how much work it was.
fn send(
    driver: Driver,
    source: OwnedFd,
    near: TcpStream,
    stability: Stability,
    token: &CancelToken,
    progress: &Progress,
) -> (Result<u64, zhaul::TransferError>, Duration) {
    let before = thread_time();
    let result = match driver {
        Driver::Blocking { sink_blocks } => {
            near.set_nonblocking(!sink_blocks).unwrap();
            transfer(&source, &near)
                .stability(stability)
                .cancel(token)
                .progress(progress)
                .run()
        }
        Driver::Tokio => runtime().block_on(async {
            near.set_nonblocking(true).unwrap();
            let near = tokio::net::TcpStream::from_std(near).unwrap();
            let source = Attached::new(source).unwrap();
            transfer(&source, &near)
                .stability(stability)
                .cancel(token)
                .progress(progress)
                .run_async()
                .await
        }),
    };
    (result.map(|summary| summary.moved), thread_time() - before)
}

#[test]
fn a_full_sink_with_a_completion_in_its_error_queue_is_waited_for() {
    let bytes = pattern(LONG);
    let file = TestFile::with(&bytes);
    for driver in DRIVERS {
        for stability in [Stability::Immutable, Stability::MayChange] {
            for is_reaped in [false, true] {
                println!("{driver:?} {stability:?} {is_reaped}");
                let (near, far, mut sender) = pair_with_completion();
                let (token, progress) = (CancelToken::new(), Progress::new());
                let received = std::thread::scope(|scope| {
                    // Dropped here, a failed assertion ends the transfer.
                    let mut far = far;
                    let sending = scope.spawn(|| {
                        send(
                            driver,
                            file.open().into(),
                            near,
                            stability,
                            &token,
                            &progress,
                        )
                    });
                    wait_until("something was sent", || progress.moved() > 0);
                    std::thread::sleep(STALL / 4);
                    let calls = progress.calls();
                    std::thread::sleep(STALL);
                    let made = progress.calls() - calls;
                    assert!(made < FEW_CALLS, "{made} calls while the sink is full");
                    if is_reaped {
                        // Taken at last. It goes on all the same.
                        assert_eq!(sender.reap().unwrap().calls, 1);
                    }
                    let mut received = vec![0; LONG];
                    far.read_exact(&mut received).unwrap();
                    let (sent, work) = sending.join().unwrap();
                    assert_eq!(sent.unwrap(), LONG as u64);
                    println!("{work:?} of work");
                    received
                });
                assert!(received == bytes);
            }
        }
    }
}

#[test]
fn a_silent_source_with_a_completion_in_its_error_queue_is_waited_for() {
    for driver in DRIVERS {
        for sink_is_file in [false, true] {
            println!("{driver:?} {sink_is_file}");
            let (near, far, _sender) = pair_with_completion();
            let (sink, mut receiver): (OwnedFd, Option<UnixStream>) = if sink_is_file {
                let null = File::options().write(true).open("/dev/null").unwrap();
                (null.into(), None)
            } else {
                let (sink, receiver) = UnixStream::pair().unwrap();
                (sink.into(), Some(receiver))
            };
            let progress = Progress::new();
            std::thread::scope(|scope| {
                let mut far = far;
                let sending = scope.spawn(|| {
                    let before = thread_time();
                    let summary = match driver {
                        Driver::Blocking { sink_blocks } => {
                            near.set_nonblocking(!sink_blocks).unwrap();
                            transfer(&near, &sink).progress(&progress).run()
                        }
                        Driver::Tokio => runtime().block_on(async {
                            let near = Attached::new(near.into()).unwrap();
                            let sink = Attached::new(sink).unwrap();
                            transfer(&near, &sink).progress(&progress).run_async().await
                        }),
                    };
                    (summary.unwrap().moved, thread_time() - before)
                });
                std::thread::sleep(STALL);
                let made = progress.calls();
                assert!(made < FEW_CALLS, "{made} calls while the source is silent");
                far.write_all(b"something").unwrap();
                drop(far);
                let (moved, work) = sending.join().unwrap();
                assert_eq!(moved, 9);
                assert!(work < WORK, "{work:?} of work");
            });
            if let Some(receiver) = &mut receiver {
                let mut received = [0; 9];
                receiver.read_exact(&mut received).unwrap();
                assert_eq!(&received, b"something");
            }
        }
    }
}

#[test]
fn a_relay_waits_although_its_sockets_have_completions_in_their_error_queues() {
    for is_async in [false, true] {
        println!("async: {is_async}");
        let (near_a, far_a, mut sender_a) = pair_with_completion();
        let (near_b, far_b, _sender_b) = pair_with_completion();
        let progress = RelayProgress::new();
        std::thread::scope(|scope| {
            let (mut far_a, mut far_b) = (far_a, far_b);
            let progress = &progress;
            let relaying = scope.spawn(move || {
                let before = thread_time();
                let ending = if is_async {
                    runtime().block_on(async {
                        let [a, b] =
                            [near_a, near_b].map(|near| Attached::new(near.into()).unwrap());
                        relay(a, b).progress(progress).run_async().await
                    })
                } else {
                    relay(near_a, near_b).progress(progress).run().unwrap()
                };
                (ending, thread_time() - before)
            });
            // Idle.
            std::thread::sleep(STALL);
            let turns = progress.turns();
            assert!(turns < FEW_CALLS, "{turns} turns of an idle relay");
            // B reads nothing.
            let bytes = pattern(LONG);
            let feeding = scope.spawn({
                let (bytes, mut far_a) = (bytes.clone(), far_a.try_clone().unwrap());
                move || {
                    far_a.write_all(&bytes).unwrap();
                    far_a.shutdown(std::net::Shutdown::Write).unwrap();
                }
            });
            wait_until("something came through", || {
                progress.delivered(Way::AToB) > 0
            });
            std::thread::sleep(STALL / 4);
            let turns = progress.turns();
            std::thread::sleep(STALL);
            let turns = progress.turns() - turns;
            assert!(turns < FEW_CALLS, "{turns} turns of a full relay");
            put_completion(&mut sender_a, &mut far_a);
            let mut received = vec![0; LONG];
            far_b.read_exact(&mut received).unwrap();
            assert!(received == bytes);
            far_b.shutdown(std::net::Shutdown::Write).unwrap();
            feeding.join().unwrap();
            let (ending, work) = relaying.join().unwrap();
            assert!(ending.cause.is_clean(), "{}", ending.cause);
            println!("{work:?} of work");
        });
    }
}

#[test]
fn a_reset_ends_a_wait_although_there_is_a_completion_in_the_error_queue() {
    let file = TestFile::with(&pattern(LONG));
    for driver in DRIVERS {
        println!("{driver:?}");
        let (near, far, _sender) = pair_with_completion();
        let (token, progress) = (CancelToken::new(), Progress::new());
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let source = file.open().into();
                send(
                    driver,
                    source,
                    near,
                    Stability::Immutable,
                    &token,
                    &progress,
                )
            });
            wait_until("something was sent", || progress.moved() > 0);
            std::thread::sleep(STALL / 4);
            // With so much unread, this is a reset.
            drop(far);
            let error = sending.join().unwrap().0.unwrap_err();
            assert!(error.is_disconnect(), "{error}");
        });
    }
}

#[test]
fn a_wait_can_be_cancelled_although_there_is_a_completion_in_the_error_queue() {
    let file = TestFile::with(&pattern(LONG));
    for driver in DRIVERS {
        println!("{driver:?}");
        let (near, _far, _sender) = pair_with_completion();
        let (token, progress) = (CancelToken::new(), Progress::new());
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let source = file.open().into();
                send(
                    driver,
                    source,
                    near,
                    Stability::Immutable,
                    &token,
                    &progress,
                )
            });
            wait_until("something was sent", || progress.moved() > 0);
            std::thread::sleep(STALL / 4);
            token.cancel();
            let error = sending.join().unwrap().0.unwrap_err();
            assert_eq!(error.cause, zhaul::Cause::Cancelled);
        });
    }
}

#[test]
fn a_relay_waits_for_one_side_although_the_other_hung_up() {
    for is_async in [false, true] {
        println!("async: {is_async}");
        let (near_a, far_a, sender_a) = pair_with_completion();
        let (near_b, far_b, sender_b) = pair_with_completion();
        let progress = RelayProgress::new();
        std::thread::scope(|scope| {
            let (far_a, mut far_b) = (far_a, far_b);
            let progress = &progress;
            let mut options = RelayOptions::default();
            options.reset_grace = Duration::from_secs(3600);
            let relaying = scope.spawn(move || {
                if is_async {
                    runtime().block_on(async {
                        let [a, b] =
                            [near_a, near_b].map(|near| Attached::new(near.into()).unwrap());
                        let relay = relay(a, b).options(options).progress(progress);
                        relay.run_async().await
                    })
                } else {
                    let relay = relay(near_a, near_b).options(options).progress(progress);
                    relay.run().unwrap()
                }
            });
            // Both directions are full.
            for far in [&far_a, &far_b] {
                far.set_nonblocking(true).unwrap();
            }
            let (mut calm, mut before) = (0, 0);
            while calm < 10 {
                for mut far in [&far_a, &far_b] {
                    while far.write(&[7; 100_000]).is_ok() {}
                }
                std::thread::sleep(Duration::from_millis(20));
                let taken = progress.taken(Way::AToB) + progress.taken(Way::BToA);
                calm = if taken == before { calm + 1 } else { 0 };
                before = taken;
            }
            // With so much unread, this is a reset.
            drop(far_a);
            std::thread::sleep(STALL / 4);
            let turns = progress.turns();
            std::thread::sleep(STALL);
            let turns = progress.turns() - turns;
            assert!(turns < FEW_CALLS, "{turns} turns with one side gone");
            far_b.set_nonblocking(false).unwrap();
            drop((sender_a, sender_b));
            let _ = far_b.read_to_end(&mut Vec::new());
            let cause = relaying.join().unwrap().cause;
            assert!(
                matches!(cause, RelayCause::Reset { by: Side::A }),
                "{cause}"
            );
        });
    }
}
