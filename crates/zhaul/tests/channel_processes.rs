//! Channels between processes that die: what they held comes back, and what they passed on does not.
//!
//! The other processes are this program once more, with a part to play.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, thread};

use zhaul::channel::{self, ChannelError, Limits, Receiver, Sender, TrustedPeer};
use zhaul::{FBuf, Pool};

const PART: &str = "ZHAUL_CHANNEL_PART";
const PATH: &str = "ZHAUL_CHANNEL_PATH";

/// Another process, killed when it is dropped.
struct Process(Child);

impl Process {
    /// Plays a part at the other end of this socket.
    fn start(part: &str, socket: OwnedFd, path: &Path) -> Self {
        let child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "the_other_process", "--nocapture"])
            .env(PART, part)
            .env(PATH, path)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: what a [`Process`] does.
#[test]
fn the_other_process() {
    let Ok(part) = env::var(PART) else {
        return;
    };
    let socket = || std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let receiver = || Receiver::new(socket(), Limits::default()).unwrap();
    let stay = || loop {
        thread::park();
    };
    match part.as_str() {
        // Gives the first back and keeps the others.
        "keep" => {
            let mut receiver = receiver();
            drop(receiver.receive().unwrap());
            let _kept: Vec<_> = (0..3).map(|_| receiver.receive().unwrap()).collect();
            stay();
        }
        "send" => {
            let mut sender = Sender::new(socket(), 4).unwrap();
            let pool = Pool::new(4096, 4).unwrap();
            // Shown at one time, so who has one has all.
            sender
                .send_all((0..3).map(|byte| filled(&pool, byte)))
                .unwrap();
            stay();
        }
        "pass on" => {
            let mut receiver = receiver();
            let onward = channel::connect(env::var(PATH).unwrap()).unwrap();
            let mut sender = Sender::new(onward, 4).unwrap();
            while let Some(buffer) = receiver.receive().unwrap() {
                sender.send(buffer).unwrap();
            }
            sender.finish(None).unwrap();
        }
        other => panic!("no part {other}"),
    }
}

fn filled(pool: &Pool, byte: u8) -> FBuf {
    let mut buffer = pool.allocate().expect("a free slot");
    buffer[..].fill(byte);
    let len = buffer.len();
    buffer.freeze(len)
}

#[test]
fn what_a_killed_receiver_held_comes_back() {
    let (near, far) = channel::socket_pair().unwrap();
    let mut process = Process::start("keep", far, Path::new(""));
    let mut sender = Sender::new(near, 8).unwrap();
    let pool = Pool::new(4096, 8).unwrap();
    for byte in 0..4 {
        sender.send(filled(&pool, byte)).unwrap();
    }
    while sender.reclaim().unwrap() > 3 {
        thread::yield_now();
    }
    process.kill();
    assert!(matches!(sender.reclaim(), Err(ChannelError::PeerGone)));
    assert!(matches!(
        sender.send(filled(&pool, 9)),
        Err(ChannelError::PeerGone)
    ));
    while pool.usage().in_use > 0 {
        thread::yield_now();
    }
}

#[test]
fn what_a_killed_sender_sent_is_there_and_no_end() {
    let (near, far) = channel::socket_pair().unwrap();
    let mut process = Process::start("send", far, Path::new(""));
    let mut receiver = Receiver::new(near, Limits::default()).unwrap();
    let first = receiver.receive().unwrap().unwrap();
    let second = receiver.receive().unwrap().unwrap();
    process.kill();
    let third = receiver.receive().unwrap().unwrap();
    assert!(matches!(receiver.receive(), Err(ChannelError::PeerGone)));
    for (byte, buffer) in [first, second, third].into_iter().enumerate() {
        let (bytes, _) = buffer.secure().unwrap();
        assert!(bytes.len() == 4096 && bytes.iter().all(|b| usize::from(*b) == byte));
    }
}

/// The first process, the last, and the one between them.
fn through_a_third() -> (Sender, Process, Receiver) {
    let directory = tempfile::tempdir().expect("a channel");
    let path = directory.path().join("onward");
    let listener = channel::Listener::bind(&path).expect("a channel");
    let (near, far) = channel::socket_pair().expect("a channel");
    let process = Process::start("pass on", far, &path);
    let sender = Sender::new(near, 4).expect("a channel");
    let receiver =
        Receiver::new(listener.accept().expect("a channel"), Limits::default()).expect("a channel");
    (sender, process, receiver)
}

#[test]
fn bytes_pass_through_a_process_that_does_not_touch_them() {
    let (mut sender, mut process, mut receiver) = through_a_third();
    let pool = Pool::new(4096, 4).unwrap();
    let sending = thread::spawn(move || {
        for i in 0..2000_u32 {
            let mut buffer = sender.allocate(&pool).unwrap().unwrap();
            buffer[4092..].copy_from_slice(&i.to_ne_bytes());
            sender.send(buffer.freeze(4096)).unwrap();
        }
        sender.finish(None).unwrap();
    });
    // SAFETY: this very program made the pool, and keeps what is out as it is.
    let trusted = unsafe { TrustedPeer::assume() };
    for i in 0..2000_u32 {
        let view = receiver.receive().unwrap().unwrap().trust(trusted).unwrap();
        assert_eq!(view[4092..], i.to_ne_bytes());
    }
    assert!(receiver.receive().unwrap().is_none());
    sending.join().unwrap();
    assert!(process.0.wait().unwrap().success());
}

#[test]
fn what_a_killed_process_passed_on_is_not_used_again() {
    let (mut sender, mut process, mut receiver) = through_a_third();
    let pool = Pool::new(4096, 1).unwrap();
    sender.send(filled(&pool, 7)).unwrap();
    let buffer = receiver.receive().unwrap().unwrap();
    process.kill();
    assert!(matches!(receiver.receive(), Err(ChannelError::PeerGone)));
    assert!(matches!(sender.reclaim(), Err(ChannelError::PeerGone)));
    // Long enough for what would happen at once.
    thread::sleep(std::time::Duration::from_millis(50));
    assert!(pool.allocate().is_none());
    assert!(
        buffer
            .clone()
            .secure()
            .unwrap()
            .0
            .iter()
            .all(|byte| *byte == 7)
    );
    drop((buffer, receiver));
    while pool.usage().in_use > 0 {
        thread::yield_now();
    }
}
