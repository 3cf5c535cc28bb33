//! Descriptors in blocking mode: what can be stopped stops, and everything is left as it was.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use common::{TestFile, pattern, wait_until};
use rustix::fs::OFlags;
use rustix::net::sockopt::{
    Timeout, set_socket_send_buffer_size, set_socket_timeout, socket_timeout,
};
use zhaul::async_io::Attached;
use zhaul::{CancelToken, Cause, Progress, Route, Stability, relay, transfer};

const LONG: usize = 24 << 20;
/// Much more than any stop takes.
const NEVER: Duration = Duration::from_secs(20);
/// After which a test that waits for what does not come has failed.
const TOO_LONG: Duration = Duration::from_secs(120);
/// Long enough for what comes at once.
const A_WHILE: rustix::event::Timespec = rustix::event::Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Runs a test that could wait for ever where nothing is stopped, or not in time: a call on a blocking
/// descriptor, or a scope that waits for its threads although an assertion in it has failed. Its
/// thread is then left behind, and ends with the process.
#[track_caller]
fn bounded(test: impl FnOnce() + Send + 'static) {
    let (ended, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(std::panic::catch_unwind(AssertUnwindSafe(test))));
    match result.recv_timeout(TOO_LONG) {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => panic!("it neither succeeds nor fails"),
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn pipe() -> (File, File) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    (reader.into(), writer.into())
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd)
        .unwrap()
        .contains(OFlags::NONBLOCK)
}

/// Sinks in blocking mode that take so much and no more.
fn full_sinks() -> Vec<(&'static str, OwnedFd, OwnedFd)> {
    let (tcp, tcp_far) = tcp_pair();
    let (small, small_far) = tcp_pair();
    set_socket_send_buffer_size(&small, 65536).unwrap();
    let (unix, unix_far) = UnixStream::pair().unwrap();
    let (pipe_far, pipe) = pipe();
    vec![
        ("TCP", tcp.into(), tcp_far.into()),
        ("TCP with a small buffer", small.into(), small_far.into()),
        ("UNIX", unix.into(), unix_far.into()),
        ("pipe", pipe.into(), pipe_far.into()),
    ]
}

#[test]
fn a_deadline_holds_although_the_receiver_of_a_blocking_sink_stalls() {
    bounded(|| {
        let file = TestFile::with(&pattern(LONG));
        for (stability, only) in [
            (Stability::Immutable, None),
            (Stability::Immutable, Some(Route::Splice)),
            (Stability::MayChange, None),
        ] {
            for (name, sink, _far) in full_sinks() {
                println!("{stability:?} {only:?} {name}");
                let timeout = Some(Duration::from_secs(7));
                let is_socket = set_socket_timeout(&sink, Timeout::Send, timeout).is_ok();
                let began = Instant::now();
                let source = file.open();
                let mut haul = transfer(&source, &sink)
                    .stability(stability)
                    .deadline(Duration::from_millis(200));
                if let Some(only) = only {
                    haul = haul.only(only);
                }
                let error = haul.run().unwrap_err();
                assert_eq!(error.cause, Cause::DeadlineExceeded);
                assert!(error.moved() > 0);
                assert!(began.elapsed() < NEVER, "{:?}", began.elapsed());
                assert!(!is_nonblocking(&sink));
                if is_socket {
                    assert_eq!(socket_timeout(&sink, Timeout::Send).unwrap(), timeout);
                }
            }
        }
    });
}

#[test]
fn a_deadline_holds_between_streams_in_blocking_mode() {
    bounded(|| {
        for only in [Route::Splice, Route::ReadWrite] {
            for (name, sink, _far) in full_sinks() {
                for from_pipe in [false, true] {
                    println!("{only} {name} {from_pipe}");
                    let (source, feed): (OwnedFd, OwnedFd) = if from_pipe {
                        let (reader, writer) = pipe();
                        (reader.into(), writer.into())
                    } else {
                        let (near, far) = UnixStream::pair().unwrap();
                        (near.into(), far.into())
                    };
                    let feeder = std::thread::spawn(move || {
                        let mut feed = File::from(feed);
                        // Until the source is closed.
                        while feed.write_all(&[7; 60_000]).is_ok() {}
                    });
                    let haul = transfer(&source, &sink).only(only);
                    let error = haul.deadline(Duration::from_millis(200)).run().unwrap_err();
                    assert_eq!(error.cause, Cause::DeadlineExceeded);
                    assert!(!is_nonblocking(&sink) && !is_nonblocking(&source));
                    drop(source);
                    feeder.join().unwrap();
                }
            }
        }
    });
}

#[test]
fn cancelling_reaches_a_thread_that_sends_on_a_blocking_socket() {
    bounded(|| {
        let file = TestFile::with(&pattern(LONG));
        for (name, sink, _far) in full_sinks() {
            println!("{name}");
            let (token, progress) = (CancelToken::new(), Progress::new());
            std::thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    let haul = transfer(file.open(), &sink).stability(Stability::Immutable);
                    haul.cancel(&token).progress(&progress).run()
                });
                wait_until("something was sent", || progress.moved() > 0);
                std::thread::sleep(Duration::from_millis(100));
                token.cancel();
                let began = Instant::now();
                let error = sending.join().unwrap().unwrap_err();
                assert_eq!(error.cause, Cause::Cancelled);
                assert!(began.elapsed() < NEVER);
            });
            assert!(!is_nonblocking(&sink));
        }
    });
}

/// A thread for each direction is how blocking programs use a socket.
#[test]
fn the_other_direction_of_a_blocking_socket_stays_in_blocking_mode() {
    bounded(|| {
        let bytes = pattern(LONG);
        let file = TestFile::with(&bytes);
        let (near, mut far) = tcp_pair();
        let token = CancelToken::new();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut answer = [0; 6];
                (&near).read_exact(&mut answer).map(|()| answer)
            });
            let sending = scope.spawn(|| {
                let haul = transfer(file.open(), &near).stability(Stability::Immutable);
                haul.cancel(&token).deadline(NEVER).run()
            });
            let mut received = vec![0; LONG];
            far.read_exact(&mut received[..LONG / 2]).unwrap();
            assert!(!is_nonblocking(&near), "while the transfer is under way");
            far.write_all(b"ans").unwrap();
            far.read_exact(&mut received[LONG / 2..]).unwrap();
            far.write_all(b"wer").unwrap();
            assert_eq!(&reader.join().unwrap().unwrap(), b"answer");
            assert_eq!(sending.join().unwrap().unwrap().moved, LONG as u64);
            assert!(received == bytes);
        });
    });
}

#[test]
fn a_transfer_that_nothing_can_stop_leaves_timeouts_alone() {
    let (near, mut far) = tcp_pair();
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        far.read_to_end(&mut received).map(|_| received.len())
    });
    let file = TestFile::with(&pattern(LONG));
    let haul = transfer(file.open(), &near).stability(Stability::Immutable);
    assert_eq!(haul.run().unwrap().moved, LONG as u64);
    assert_eq!(socket_timeout(&near, Timeout::Send).unwrap(), None);
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), LONG);
}

#[test]
fn a_socket_has_its_timeout_back_after_the_last_of_several_transfers() {
    bounded(|| {
        let file = TestFile::with(&pattern(LONG));
        for own in [None, Some(NEVER)] {
            let (near, _far) = UnixStream::pair().unwrap();
            set_socket_timeout(&near, Timeout::Send, own).unwrap();
            let (first, second) = (CancelToken::new(), CancelToken::new());
            let send = |token| transfer(file.open(), &near).cancel(token).run();
            let timeout = || socket_timeout(&near, Timeout::Send).unwrap();
            let is_short = || timeout().is_some_and(|timeout| timeout < NEVER);
            std::thread::scope(|scope| {
                let one = scope.spawn(|| send(&first));
                wait_until("the first has shortened it", is_short);
                let other = scope.spawn(|| send(&second));
                // Should it come later than this, the test passes for nothing.
                std::thread::sleep(Duration::from_millis(100));
                first.cancel();
                assert_eq!(one.join().unwrap().unwrap_err().cause, Cause::Cancelled);
                assert!(is_short(), "the other one still needs it");
                second.cancel();
                assert_eq!(other.join().unwrap().unwrap_err().cause, Cause::Cancelled);
            });
            assert_eq!(timeout(), own);
        }
    });
}

/// The master of a new pseudoterminal, and its terminal, which passes on what it is given.
fn pseudoterminal() -> Option<(OwnedFd, File)> {
    use rustix::{pty, termios};
    let flags = pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY | pty::OpenptFlags::CLOEXEC;
    let master = pty::openpt(flags).ok()?;
    pty::unlockpt(&master).ok()?;
    let name = pty::ptsname(&master, Vec::new()).ok()?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).ok()?;
    let mut attributes = termios::tcgetattr(&terminal).unwrap();
    attributes.make_raw();
    termios::tcsetattr(&terminal, termios::OptionalActions::Now, &attributes).unwrap();
    Some((master, terminal.into()))
}

#[test]
fn what_can_be_stopped_goes_through_the_pseudoterminal_that_was_given() {
    bounded(|| {
        let Some((master, mut terminal)) = pseudoterminal() else {
            return println!("SKIP pseudoterminals: there are none");
        };
        let said = TestFile::with(b"to the terminal");
        let sent = transfer(said.open(), &master).deadline(NEVER).run();
        assert_eq!(sent.unwrap().moved, 15);
        let mut received = [0; 15];
        let far = rustix::event::PollFd::new(&terminal, rustix::event::PollFlags::IN);
        assert_eq!(rustix::event::poll(&mut [far], Some(&A_WHILE)).unwrap(), 1);
        terminal.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"to the terminal");

        terminal.write_all(b"from there").unwrap();
        let mut out = tempfile::tempfile().unwrap();
        let taken = transfer(&master, &out).length(10).deadline(NEVER).run();
        assert_eq!(taken.unwrap().moved, 10);
        let mut received = Vec::new();
        out.rewind().unwrap();
        out.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"from there");
        assert!(!is_nonblocking(&master), "as it was");
    });
}

/// Masters share an inode.
#[tokio::test]
async fn each_of_several_descriptions_of_one_inode_is_left_as_it_was() {
    let (Some((blocking, _a)), Some((other, _b))) = (pseudoterminal(), pseudoterminal()) else {
        return println!("SKIP pseudoterminals: there are none");
    };
    let attach = |fd: &OwnedFd| Attached::new(fd.try_clone().unwrap()).unwrap();
    rustix::io::ioctl_fionbio(&other, true).unwrap();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let fds = [&blocking, &other, &blocking];
        let mut attached = fds.map(|fd| Some(attach(fd)));
        for (count, index) in order.into_iter().enumerate() {
            assert!(is_nonblocking(&blocking) && is_nonblocking(&other));
            attached[index] = None;
            let is_left = order[count + 1..].iter().any(|&index| index != 1);
            assert_eq!(is_nonblocking(&blocking), is_left, "{order:?}");
        }
        assert!(is_nonblocking(&other));
    }
}

#[test]
fn a_transfer_keeps_the_mode_that_another_user_of_its_socket_has_set() {
    bounded(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _in_runtime = runtime.enter();
        let file = TestFile::with(&pattern(LONG));
        let (near, mut far) = UnixStream::pair().unwrap();
        let attached = Attached::new(near.try_clone().unwrap().into()).unwrap();
        let (token, progress) = (CancelToken::new(), Progress::new());
        std::thread::scope(|scope| {
            let haul = transfer(file.open(), &near).cancel(&token);
            let sending = scope.spawn(|| haul.progress(&progress).run());
            wait_until("the socket is full", || progress.moved() > 0);
            drop(attached);
            assert!(is_nonblocking(&near), "the transfer still needs it");
            far.read_exact(&mut vec![0; 1 << 20]).unwrap();
            token.cancel();
            let error = sending.join().unwrap().unwrap_err();
            assert_eq!(error.cause, Cause::Cancelled);
        });
        assert!(!is_nonblocking(&near));
    });
}

#[test]
fn a_relay_leaves_its_sockets_in_the_mode_they_were_in() {
    bounded(|| {
        for was_nonblocking in [false, true] {
            let (near_a, far_a) = tcp_pair();
            let (near_b, far_b) = UnixStream::pair().unwrap();
            near_a.set_nonblocking(was_nonblocking).unwrap();
            far_a.shutdown(Shutdown::Write).unwrap();
            far_b.shutdown(Shutdown::Write).unwrap();
            assert!(relay(&near_a, &near_b).run().unwrap().cause.is_clean());
            assert_eq!(is_nonblocking(&near_a), was_nonblocking);
            assert!(!is_nonblocking(&near_b));
        }
    });
}

#[tokio::test]
async fn attaching_a_pipe_leaves_those_alone_who_share_it() {
    let (shared, mut feed) = pipe();
    let (mut receiver, shared_too) = pipe();
    let source = Attached::new(shared.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let sink = Attached::new(shared_too.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert!(!is_nonblocking(&shared) && !is_nonblocking(&shared_too));
    assert!(is_nonblocking(&source) && is_nonblocking(&sink));
    feed.write_all(b"some bytes").unwrap();
    let sent = transfer(&source, &sink).length(10).run_async().await;
    assert_eq!(sent.unwrap().moved, 10);
    let mut received = [0; 10];
    receiver.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"some bytes");
    drop((sink, shared_too));
    assert_eq!(receiver.read(&mut received).unwrap(), 0, "closed by all");
}

#[tokio::test]
async fn an_attached_socket_is_back_in_its_mode_when_the_last_is_dropped() {
    let (near, _far) = UnixStream::pair().unwrap();
    let attach = || Attached::new(near.try_clone().unwrap().into()).unwrap();
    let (reads, writes) = (attach(), attach());
    assert!(is_nonblocking(&near));
    drop(reads);
    assert!(is_nonblocking(&near), "the other one still needs it");
    drop(writes);
    assert!(!is_nonblocking(&near));
    near.set_nonblocking(true).unwrap();
    drop(attach());
    assert!(is_nonblocking(&near), "as it was");
}
