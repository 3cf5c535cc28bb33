//! What a peer of a channel does, read from bytes that may be anything: for a property test and for
//! fuzz/fuzz_targets/channel.rs.
#![allow(unreachable_pub)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zhaul::Pool;
use zhaul::channel::wire::{Control, Descriptor, Ticket};
use zhaul::channel::{self, Buffer, ChannelError, Limits, Received, Receiver, Sender};

use super::peer::{Peer, lease, sealed_memfd};

const WINDOW: u32 = 4;
const POOL: u64 = 4096;

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Mostly a number at which something ends.
    fn number(&mut self) -> u64 {
        let (at, around) = (self.byte().unwrap_or(0), self.byte().unwrap_or(0));
        let near = [
            0,
            1,
            u64::from(WINDOW),
            64,
            POOL,
            1 << 31,
            1 << 32,
            1 << 63,
            u64::MAX,
        ];
        match near.get(usize::from(at & 15)) {
            Some(number) => number.wrapping_add(u64::from(around & 7)).wrapping_sub(3),
            None => u64::from(around),
        }
    }

    fn message(&mut self, fds: &[OwnedFd]) -> (Vec<u8>, Vec<usize>) {
        let value = self.number() as u32;
        let kind = self.byte().unwrap_or(0);
        let (message, wants): (_, &[usize]) = match kind & 7 {
            0 => (Control::Hello { window: value }, &[0]),
            1 => (Control::Pool { serial: value }, &[1, 2]),
            2 => (Control::Retire { serial: value }, &[]),
            3 => (Control::Finish, &[]),
            4 => (Control::Wake, &[]),
            5 => (Control::Pool { serial: 0 }, &[1, 2]),
            6 => (Control::Hello { window: WINDOW }, &[0]),
            _ => (Control::Wake, &[3, 3]),
        };
        let mut bytes = message.encode().to_vec();
        let mut which = wants.to_vec();
        // One in eight is spoilt.
        if kind >> 5 == 7 {
            let at = usize::from(self.byte().unwrap_or(0)) % bytes.len();
            bytes[at] = self.byte().unwrap_or(0);
            bytes.truncate(16 - usize::from(self.byte().unwrap_or(0) & 1));
            which = (0..usize::from(kind & 31)).map(|i| i % fds.len()).collect();
        }
        (bytes, which)
    }
}

/// What a peer can pass: a ring, a pool, a lease, and something else.
fn descriptors(peer: &Peer) -> Vec<OwnedFd> {
    let ring = peer.memfd().try_clone_to_owned().expect("a descriptor");
    let (pipe, _) = rustix::pipe::pipe().expect("a pipe");
    vec![ring, sealed_memfd(POOL), lease(), pipe]
}

/// One step of the peer. False at the end of the script.
fn step(script: &mut Script<'_>, peer: &Peer, fds: &[OwnedFd]) -> bool {
    let Some(what) = script.byte() else {
        return false;
    };
    match what & 7 {
        0 | 1 => {
            let (bytes, which) = script.message(fds);
            let fds: Vec<BorrowedFd<'_>> = which.iter().map(|&at| fds[at].as_fd()).collect();
            peer.try_send(&bytes, &fds);
        }
        2 => peer.set_cell(script.number() as usize % 256, script.number()),
        3 => peer.set_published(script.number() as u32),
        4 => peer.set_sleep(script.number() as u32),
        5 => {
            let descriptor = Descriptor {
                pool: 0,
                ticket: Ticket::decode(script.number()),
                offset: script.number(),
                len: script.number(),
            };
            let first = usize::from(what >> 6) * 4;
            for (at, word) in descriptor.encode().into_iter().enumerate() {
                peer.set_cell(first + at, word);
            }
        }
        _ => {}
    }
    true
}

/// A receiver gets errors and good buffers, and nothing else.
pub fn against_receiver(script: &[u8]) {
    let (near, far) = channel::socket_pair().expect("sockets");
    let limits = Limits::default().window(64).pool_bytes(1 << 20);
    let mut receiver = Receiver::new(far, limits).expect("a socket");
    let peer = Peer::new(near);
    let fds = descriptors(&peer);
    let mut script = Script(script);
    if script.byte().is_some_and(|first| first & 1 == 0) {
        peer.hello(WINDOW);
        peer.try_send(
            &Control::Pool { serial: 0 }.encode(),
            &[fds[1].as_fd(), fds[2].as_fd()],
        );
    }
    let mut kept: Vec<Buffer> = Vec::new();
    while step(&mut script, &peer, &fds) {
        match receiver.try_receive() {
            Ok(Received::Buffer(buffer)) => {
                check(&buffer);
                kept.push(buffer);
            }
            Ok(Received::Empty | Received::End) => kept.truncate(1),
            Err(error) => assert!(!matches!(
                error,
                ChannelError::TimedOut | ChannelError::NotSeqpacket
            )),
        }
        assert!(kept.len() <= 64);
    }
    kept.iter().for_each(check);
}

/// The bytes are those of the pool, at the place that is named.
fn check(buffer: &Buffer) {
    let range = buffer.file_range().1;
    assert_eq!(range.end - range.start, buffer.len() as u64);
    assert!(range.end <= POOL.max(128 + 256 * 8));
    let view = match buffer.clone().view().expect("it can be mapped") {
        Ok(view) => view,
        Err(volatile) => {
            // Its own ring, passed as a pool.
            let (bytes, copied) = volatile.secure().expect("it can be read");
            return assert!(copied && bytes.len() == buffer.len());
        }
    };
    let expected = range.map(|i| (i % 251) as u8);
    assert!(view.iter().copied().eq(expected));
}

/// A sender gets errors, and its buffers back at the latest when it gives up.
pub fn against_sender(script: &[u8]) {
    let (near, far) = channel::socket_pair().expect("sockets");
    let mut sender = Sender::new(near, WINDOW).expect("a socket");
    let peer = Peer::new(far);
    let fds = descriptors(&peer);
    let pool = Pool::new(1, WINDOW as usize + 1).expect("memory");
    let mut script = Script(script);
    if script.byte().is_some_and(|first| first & 1 == 0) {
        peer.hello(WINDOW);
    }
    while step(&mut script, &peer, &fds) {
        if let Some(buffer) = pool.allocate() {
            let _ = sender.try_send(buffer.freeze(1));
        }
        if let Ok(out) = sender.reclaim() {
            assert!(out <= WINDOW as usize);
            assert_eq!(out, pool.usage().in_use);
        }
    }
    sender.revoke();
}
