//! Many relays on one event loop with few pipes, few buffers and no descriptors left: whatever
//! their peers do, what arrives is a prefix of what was sent, all of it after a clean end, and
//! nothing is left over.
//!
//! `ZHAUL_SOAK=5000` relays so many connections instead of a few hundred.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "relay/random.rs"]
mod random;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use random::Random;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{self, AddressFamily, SocketType, sockopt};
use rustix::process::{Resource, getrlimit, setrlimit};
use zhaul::PipePool;
use zhaul::relay::{
    BufferPool, Relay, RelayCause, RelayEnding, RelayOptions, Resources, Side, Turn, WATCH, Way,
    now, readiness,
};

/// Connections at a time: each has four threads for its peers.
const BATCH: usize = 30;

/// The byte at a position of what a side sends.
fn byte_at(side: Side, position: usize) -> u8 {
    let salt = [3, 101][side.index()];
    (position.wrapping_mul(salt) ^ (position >> 8) ^ (position >> 16)) as u8
}

/// How a peer behaves.
#[derive(Clone, Copy, Debug)]
struct Character {
    sends: usize,
    piece: usize,
    pauses: bool,
    /// Reads so much and then goes away.
    leaves_after: Option<usize>,
    /// Goes away by a reset in the middle of what it sends.
    resets: bool,
    tiny_buffers: bool,
    unix: bool,
}

impl Character {
    fn random(random: &mut Random) -> Self {
        let tiny_buffers = random.below(5) == 0;
        let sizes = if tiny_buffers { 3 } else { 5 };
        let size = [1, 100, 20_000, 400_000, 3_000_000][random.below(sizes)];
        Self {
            sends: random.below(size),
            piece: [1, 700, 65_536, 1 << 20][random.below(4)].max(size / 2000),
            pauses: random.below(4) == 0,
            leaves_after: (random.below(6) == 0).then(|| random.below(100_000)),
            resets: random.below(8) == 0,
            tiny_buffers,
            unix: random.below(3) == 0,
        }
    }

    /// May end the connection otherwise than by a FIN after everything.
    fn is_rude(self) -> bool {
        self.resets || self.leaves_after.is_some()
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn try_clone(&self) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().unwrap()),
            Self::Unix(stream) => Self::Unix(stream.try_clone().unwrap()),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

fn connect(character: Character) -> (Stream, OwnedFd) {
    // Before the handshake: a sender that has once seen a large window waits for half of it.
    let resize = |socket: BorrowedFd<'_>| {
        if character.tiny_buffers {
            sockopt::set_socket_send_buffer_size(socket, 2304).unwrap();
            sockopt::set_socket_recv_buffer_size(socket, 2304).unwrap();
        }
    };
    let (peer, near): (Stream, OwnedFd) = if character.unix {
        let (peer, near) = UnixStream::pair().unwrap();
        resize(near.as_fd());
        (Stream::Unix(peer), near.into())
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        resize(listener.as_fd());
        let peer = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        resize(peer.as_fd());
        net::connect(&peer, &listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        (Stream::Tcp(peer.into()), near.into())
    };
    rustix::io::ioctl_fionbio(&near, true).unwrap();
    (peer, near)
}

/// Sends; what it sent.
fn talk(mut peer: Stream, side: Side, character: Character, mut random: Random) -> usize {
    let stop_at = match character.resets {
        true => random.below(character.sends + 1),
        false => character.sends,
    };
    let mut sent = 0;
    while sent < stop_at {
        let len = (1 + random.below(character.piece)).min(stop_at - sent);
        let piece: Vec<u8> = (sent..sent + len).map(|at| byte_at(side, at)).collect();
        match peer.write(&piece) {
            Ok(n) => sent += n,
            Err(_) => return sent,
        }
        if character.pauses && random.below(20) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if !character.resets {
        peer.shutdown(Shutdown::Write);
    } else if let Stream::Tcp(stream) = &peer {
        let _ = net::connect_unspec(stream);
    } else {
        peer.shutdown(Shutdown::Both);
    }
    sent
}

/// Reads; how much came, all of it right, and whether it came to an end.
fn listen(mut peer: Stream, from: Side, character: Character) -> (usize, bool) {
    let mut buffer = vec![0; 50_000];
    let mut got = 0;
    loop {
        if character.leaves_after.is_some_and(|most| got > most) {
            peer.shutdown(Shutdown::Both);
            return (got, false);
        }
        match peer.read(&mut buffer) {
            Ok(0) => return (got, true),
            Ok(n) => {
                let right = (got..got + n).map(|at| byte_at(from, at));
                assert!(
                    buffer[..n].iter().copied().eq(right),
                    "a prefix of what was sent"
                );
                got += n;
            }
            Err(_) => return (got, false),
        }
    }
}

/// A connection as an event loop keeps it.
struct Session {
    /// `None` once it is over.
    fds: Option<[OwnedFd; 2]>,
    relay: Relay,
    ending: Option<RelayEnding>,
}

/// Runs relays on one epoll instance until all are over.
fn run_all(
    instance: &OwnedFd,
    pairs: Vec<[OwnedFd; 2]>,
    resources: &Resources,
) -> Vec<RelayEnding> {
    let options = Arc::new(RelayOptions::default());
    let mut sessions = Vec::new();
    for (key, fds) in pairs.into_iter().enumerate() {
        for side in Side::BOTH {
            let data = EventData::new_u64((key * 2 + side.index()) as u64);
            epoll::add(
                instance,
                &fds[side.index()],
                data,
                EventFlags::from_bits_retain(WATCH),
            )
            .unwrap();
        }
        let relay = Relay::new(&options, now());
        let fds = Some(fds);
        sessions.push(Session {
            fds,
            relay,
            ending: None,
        });
    }
    let mut turns: VecDeque<usize> = (0..sessions.len()).collect();
    let mut without_buffer = VecDeque::new();
    let mut sleeping: Vec<(Duration, usize)> = Vec::new();
    let mut left = sessions.len();
    let mut events = Vec::with_capacity(64);
    while left > 0 {
        for _ in 0..turns.len() {
            let key = turns.pop_front().unwrap();
            let session = &mut sessions[key];
            let Some([a, b]) = &session.fds else { continue };
            match session.relay.turn(a.as_fd(), b.as_fd(), resources, now()) {
                Turn::Again => turns.push_back(key),
                Turn::Done(ending) => {
                    session.ending = Some(ending);
                    session.fds = None;
                    left -= 1;
                }
                Turn::Wait(wants) => {
                    if wants.buffer {
                        without_buffer.push_back(key);
                    }
                    sleeping.extend(wants.wake_at.map(|at| (at, key)));
                }
            }
        }
        if left == 0 {
            break;
        }
        if resources.buffers.is_available() {
            turns.extend(without_buffer.drain(..));
        }
        let next = sleeping.iter().map(|&(at, _)| at).min();
        let wait = match next {
            _ if !turns.is_empty() => Duration::ZERO,
            Some(at) => at.saturating_sub(now()),
            None => Duration::from_secs(30),
        };
        let wait = Timespec::try_from(wait).unwrap();
        epoll::wait(instance, spare_capacity(&mut events), Some(&wait)).unwrap();
        let idle = events.is_empty() && turns.is_empty() && next.is_none();
        assert!(!idle, "{left} relays wait for nothing");
        for event in events.drain(..) {
            let key = event.data.u64() as usize;
            sessions[key / 2]
                .relay
                .note(Side::BOTH[key % 2], readiness({ event.flags }.bits()));
            turns.push_back(key / 2);
        }
        sleeping.retain(|&(at, key)| {
            let is_due = at <= now();
            turns.extend(is_due.then_some(key));
            !is_due
        });
    }
    sessions
        .into_iter()
        .map(|session| session.ending.unwrap())
        .collect()
}

type Talker = JoinHandle<usize>;
type Listener = JoinHandle<(usize, bool)>;

struct Peers {
    characters: [Character; 2],
    talkers: [Talker; 2],
    listeners: [Listener; 2],
}

fn peers(streams: [Stream; 2], characters: [Character; 2], seed: u64) -> Peers {
    let listeners = Side::BOTH.map(|side| {
        let stream = streams[side.index()].try_clone();
        let character = characters[side.index()];
        std::thread::spawn(move || listen(stream, side.other(), character))
    });
    let mut streams = streams.into_iter();
    let talkers = Side::BOTH.map(|side| {
        let stream = streams.next().unwrap();
        let character = characters[side.index()];
        let random = Random(seed ^ (side.index() as u64 + 1));
        std::thread::spawn(move || talk(stream, side, character, random))
    });
    Peers {
        characters,
        talkers,
        listeners,
    }
}

fn check(peers: Peers, ending: &RelayEnding) {
    let sent = peers.talkers.map(|talker| talker.join().unwrap());
    let got = peers.listeners.map(|listener| listener.join().unwrap());
    let rude = peers.characters.map(Character::is_rude);
    let told = format!(
        "{:?} {ending:?} sent {sent:?} got {got:?}",
        peers.characters
    );
    for way in Way::BOTH {
        let (received, ended) = got[way.sink().index()];
        assert!(received as u64 <= ending.stats.way(way).delivered, "{told}");
        if ending.cause.is_clean() && !rude[way.sink().index()] {
            assert!(ended && received == sent[way.source().index()], "{told}");
        }
    }
    match ending.cause {
        RelayCause::Closed { .. } => {}
        RelayCause::Reset { by } => assert!(rude[by.index()], "{told}"),
        other => panic!("{other}: {told}"),
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// From now on no more descriptors are to be had.
fn exhaust_descriptors() -> rustix::process::Rlimit {
    let before = getrlimit(Resource::Nofile);
    let mut now = before;
    now.current = Some(1);
    setrlimit(Resource::Nofile, now).unwrap();
    before
}

#[test]
fn whatever_peers_do_nothing_is_lost_or_left_over() {
    let connections: usize = std::env::var("ZHAUL_SOAK")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(240);
    let resources = Resources {
        pipes: PipePool::new(3, 1 << 20),
        buffers: BufferPool::new(4, 64 << 10),
    };
    let before = open_descriptors();
    let mut causes = std::collections::BTreeMap::<String, usize>::new();
    for batch in 0..connections.div_ceil(BATCH) {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (batch as u64 + 1));
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let characters = [(); 2].map(|()| Character::random(&mut random));
            let [a, b] = characters.map(connect);
            near.push([a.1, b.1]);
            far.push(([a.0, b.0], characters));
        }
        // In every third batch pipes find no descriptors.
        let starved = batch % 3 == 2;
        let seed = batch as u64 * 7919 + 11;
        let mut far: Vec<_> = far
            .into_iter()
            .map(|(streams, characters)| peers(streams, characters, seed))
            .collect();
        let endings = if starved {
            run_starved(near, &resources)
        } else {
            let instance = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            run_all(&instance, near, &resources)
        };
        for (peers, ending) in far.drain(..).zip(&endings) {
            *causes.entry(ending.cause.to_string()).or_default() += 1;
            check(peers, ending);
        }
        assert_eq!((resources.pipes.held(), resources.buffers.held()), (0, 0));
        assert!(resources.pipes.alive() <= 3);
    }
    println!("{causes:?}");
    drop(resources);
    assert_eq!(open_descriptors(), before, "descriptors are closed");
}

/// The same with a pool that can open no pipe.
fn run_starved(pairs: Vec<[OwnedFd; 2]>, resources: &Resources) -> Vec<RelayEnding> {
    let starved = Resources {
        pipes: PipePool::new(3, 1 << 20),
        buffers: resources.buffers.clone(),
    };
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let limit = exhaust_descriptors();
    let endings = catch_unwind(AssertUnwindSafe(|| run_all(&instance, pairs, &starved)));
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(starved.pipes.alive(), 0, "none could be opened");
    endings.unwrap()
}
