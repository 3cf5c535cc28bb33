//! A process of its own, because the limit of descriptors is the process's.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{TestFile, pattern, wait_until};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zhaul::channel::ChannelError;
use zhaul::relay::{RelayCause, RelayProgress, Way};
use zhaul::{CancelToken, Cause, Progress, transfer};

/// One test at a time has no descriptors.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as this lives, nothing can be opened.
struct NoDescriptors(Rlimit);

impl NoDescriptors {
    fn new() -> Self {
        let before = getrlimit(Resource::Nofile);
        let maximum = before.maximum;
        let current = Some(3);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        Self(before)
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

#[test]
fn a_cancellation_is_noticed_without_a_descriptor_to_wake_up_by() {
    let _one = one_at_a_time();
    let file = TestFile::with(&pattern(4 << 20)).open();
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let (token, progress) = (CancelToken::new(), Progress::new());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let haul = transfer(&file, &near).cancel(&token);
            let _none = NoDescriptors::new();
            haul.progress(&progress).run()
        });
        wait_until("the socket is full", || progress.moved() > 0);
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        token.cancel();
        while !sending.is_finished() && began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Ends it in any case, but then not as cancelled.
        drop(far);
        let outcome = sending.join().unwrap();
        assert_eq!(outcome.unwrap_err().cause, Cause::Cancelled);
        assert!(began.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_sender_without_descriptors_keeps_out_what_its_receiver_reads() {
    let _one = one_at_a_time();
    let (mut sender, mut receiver) = zhaul::channel::pair(4).unwrap();
    let pool = zhaul::Pool::new(4096, 1).unwrap();
    sender.send(pool.allocate().unwrap().freeze(100)).unwrap();
    let read = receiver.receive().unwrap().unwrap();
    {
        // The receiver's `Hello` came, and its memfd cannot be taken in.
        let _none = NoDescriptors::new();
        let Err(ChannelError::Io { source, .. }) = sender.reclaim() else {
            panic!("not an error of this process");
        };
        assert_eq!(source.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    }
    assert!(pool.allocate().is_none(), "it is read");
    drop(read);
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn on_tokio(socket: TcpStream) -> tokio::net::TcpStream {
    socket.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(socket).unwrap()
}

const LEN: usize = 20 << 20;

/// The sockets are in blocking mode, and no reactor can be told of them: a call that waits would
/// stop the only thread, and with it the peers.
#[test]
fn a_relay_of_unregistered_sockets_leaves_the_thread_to_others() {
    let _one = one_at_a_time();
    for gets_pipes in [true, false] {
        let relaying = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(relay_unregistered(gets_pipes));
        });
        let began = Instant::now();
        while !relaying.is_finished() {
            assert!(began.elapsed() < Duration::from_secs(60), "it hangs");
            std::thread::sleep(Duration::from_millis(20));
        }
        relaying.join().unwrap();
    }
}

async fn relay_unregistered(gets_pipes: bool) {
    let ((near_a, far_a), (near_b, far_b)) = (tcp_pair(), tcp_pair());
    let (mut far_a, far_b) = (on_tokio(far_a), on_tokio(far_b));
    let (token, progress) = (CancelToken::new(), RelayProgress::new());
    let none = NoDescriptors::new();
    let relay = zhaul::relay(&near_a, &near_b)
        .cancel(&token)
        .progress(&progress)
        .run_async();
    // Bulk is spliced if there is a pipe to be had, and splice waits in blocking mode.
    let _none = (!gets_pipes).then_some(none);
    let said = pattern(LEN);
    let peers = async {
        let sending = async { far_a.write_all(&said).await.unwrap() };
        let ((), received) = tokio::join!(sending, received_late(far_b, &progress));
        assert!(received == said);
        token.cancel();
    };
    let (ending, ()) = tokio::join!(relay, peers);
    assert_eq!(ending.cause, RelayCause::Cancelled);
    let flags = rustix::fs::fcntl_getfl(&near_a).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "as before");
}

/// Begins to read when the sink has been full for a while.
async fn received_late(mut far: tokio::net::TcpStream, progress: &RelayProgress) -> Vec<u8> {
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = progress.delivered(Way::AToB);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    let mut received = vec![0; LEN];
    far.read_exact(&mut received).await.unwrap();
    received
}
