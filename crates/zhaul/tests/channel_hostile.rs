//! Peers of a channel that mean harm: what they send is refused by name, takes nothing with it, and ends
//! nothing but the channel.

#[path = "channel_hostile/peer.rs"]
mod peer;
#[path = "channel_hostile/script.rs"]
mod script;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use peer::{Peer, lease, memfd, sealed_memfd};
use rustix::fs::SealFlags;
use zhaul::channel::wire::{Control, Descriptor, Ticket};
use zhaul::channel::{self, ChannelError, Limits, Received, Receiver, Sender, Violation};
use zhaul::{FBuf, Pool};
use zhaul_sys::memfd_seals::MemfdRefusal;

const WINDOW: u32 = 4;
const POOL: u64 = 8192;

/// A receiver, and somebody who plays its sender and said `Hello`.
fn receiver() -> (Receiver, Peer) {
    let (mut receiver, peer) = stranger();
    peer.hello(WINDOW);
    assert!(matches!(receiver.try_receive(), Ok(Received::Empty)));
    (receiver, peer)
}

fn stranger() -> (Receiver, Peer) {
    let (near, far) = channel::socket_pair().expect("sockets");
    let limits = Limits::default().window(64).pool_bytes(1 << 20);
    let receiver = Receiver::new(far, limits).expect("a socket");
    (receiver, Peer::new(near))
}

/// The same, and pool 0 was announced.
fn receiver_with_pool() -> (Receiver, Peer) {
    let (receiver, peer) = receiver();
    let pool = sealed_memfd(POOL);
    peer.say(
        Control::Pool { serial: 0 },
        &[pool.as_fd(), lease().as_fd()],
    );
    (receiver, peer)
}

/// A sender, and somebody who plays its receiver and said `Hello`.
fn sender() -> (Sender, Peer) {
    let (near, far) = channel::socket_pair().expect("sockets");
    let sender = Sender::new(near, WINDOW).expect("a socket");
    let peer = Peer::new(far);
    peer.hello(WINDOW);
    (sender, peer)
}

fn buffer(pool: &Pool) -> FBuf {
    pool.allocate().expect("a free slot").freeze(100)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

/// What the receiver says, now and ever after.
fn refusal(receiver: &mut Receiver) -> Violation {
    let Err(ChannelError::Violation(violation)) = receiver.try_receive() else {
        panic!("it was accepted");
    };
    let again = receiver.receive().expect_err("it ended");
    assert!(matches!(again, ChannelError::Violation(same) if same == violation));
    violation
}

fn descriptor(offset: u64, len: u64) -> Descriptor {
    Descriptor {
        pool: 0,
        ticket: Ticket::decode(0),
        offset,
        len,
    }
}

#[test]
fn messages_that_are_none_are_refused() {
    for bytes in [&b"x"[..], &[0; 16], &[255; 16], &[1; 17], &[0; 4096]] {
        let (mut receiver, peer) = stranger();
        peer.send(bytes, &[]);
        assert_eq!(refusal(&mut receiver), Violation::Malformed);
    }
    // A message of no bytes is the end of the socket, with a descriptor it is not.
    let (mut receiver, peer) = stranger();
    peer.send(b"", &[]);
    assert!(matches!(receiver.receive(), Err(ChannelError::PeerGone)));
    let (mut receiver, peer) = stranger();
    peer.send(b"", &[lease().as_fd()]);
    assert_eq!(refusal(&mut receiver), Violation::Malformed);
}

#[test]
fn messages_where_they_do_not_belong_are_refused() {
    let pool = sealed_memfd(POOL);
    let lease = lease();
    let fds = [pool.as_fd(), lease.as_fd()];
    let pool = Control::Pool { serial: 0 };
    for (message, fds) in [(pool, &fds[..]), (Control::Finish, &[])] {
        let (mut receiver, peer) = stranger();
        peer.say(message, fds);
        assert_eq!(refusal(&mut receiver), Violation::Unexpected(message));
    }
    let (mut receiver, peer) = receiver();
    peer.hello(WINDOW);
    let hello = Control::Hello { window: WINDOW };
    assert_eq!(refusal(&mut receiver), Violation::Unexpected(hello));

    let (mut receiver, peer) = receiver_with_pool();
    peer.say(Control::Retire { serial: 64 }, &[]);
    let refused = Violation::UnknownPool { serial: 64 };
    assert_eq!(refusal(&mut receiver), refused);

    for message in [pool, Control::Retire { serial: 0 }] {
        let (mut sender, peer) = sender();
        let fds = if message == pool { &fds[..] } else { &[] };
        peer.say(message, fds);
        let error = sender.reclaim().expect_err("it is no receiver's");
        let refused = Violation::Unexpected(message);
        assert!(matches!(error, ChannelError::Violation(violation) if violation == refused));
    }
}

#[test]
fn windows_beyond_the_limit_and_short_rings_are_refused() {
    for window in [0, 3, 128, 1 << 31, u32::MAX] {
        let (mut receiver, peer) = stranger();
        peer.hello(window);
        assert_eq!(refusal(&mut receiver), Violation::Window { window });
    }
    let (mut receiver, peer) = stranger();
    peer.hello_with(64, 64 * 4 - 1);
    assert_eq!(refusal(&mut receiver), Violation::RingTooShort);
}

#[test]
fn a_ring_that_could_vanish_is_refused() {
    let (pipe, _writer) = rustix::pipe::pipe().expect("a pipe");
    let cases: [(OwnedFd, MemfdRefusal); 4] = [
        (pipe, MemfdRefusal::NotMemfd),
        (lease(), MemfdRefusal::NotMemfd),
        (memfd(8192, SealFlags::GROW), MemfdRefusal::Unsealed),
        (memfd(8192, SealFlags::SHRINK), MemfdRefusal::Unsealed),
    ];
    for (fd, why) in cases {
        let (mut receiver, peer) = stranger();
        peer.say(Control::Hello { window: WINDOW }, &[fd.as_fd()]);
        assert_eq!(refusal(&mut receiver), Violation::Memory(why));
    }
}

#[test]
fn memory_that_could_vanish_or_have_no_pages_is_refused() {
    let sparse = memfd(0, SealFlags::empty());
    rustix::fs::ftruncate(&sparse, 1 << 16).expect("a memfd");
    let seals = SealFlags::SHRINK | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&sparse, seals).expect("a memfd");
    let large = sealed_memfd((1 << 20) + 1);
    let socket = lease();
    let (pipe, _writer) = rustix::pipe::pipe().expect("a pipe");
    let good = sealed_memfd(POOL);
    let shrinks = memfd(POOL, SealFlags::WRITE);
    let cases: [(&OwnedFd, &OwnedFd, Violation); 5] = [
        (&shrinks, &socket, Violation::Memory(MemfdRefusal::Unsealed)),
        (&sparse, &socket, Violation::Memory(MemfdRefusal::Sparse)),
        (&socket, &socket, Violation::Memory(MemfdRefusal::NotMemfd)),
        (
            &large,
            &socket,
            Violation::PoolTooLarge {
                bytes: (1 << 20) + 1,
            },
        ),
        (&good, &pipe, Violation::Lease),
    ];
    for (memory, lease, why) in cases {
        let (mut receiver, peer) = receiver();
        peer.say(
            Control::Pool { serial: 0 },
            &[memory.as_fd(), lease.as_fd()],
        );
        assert_eq!(refusal(&mut receiver), why);
    }
}

#[test]
fn what_was_accepted_cannot_be_taken_away() {
    let (mut receiver, peer) = receiver();
    let pool = sealed_memfd(POOL);
    peer.say(
        Control::Pool { serial: 0 },
        &[pool.as_fd(), lease().as_fd()],
    );
    peer.publish(&[descriptor(0, POOL)], 1);
    let buffer = receiver.receive().expect("it is good").expect("one");
    let view = buffer.view().expect("mapped").expect("sealed");
    let before = view.to_vec();
    assert!(rustix::fs::ftruncate(&pool, 0).is_err());
    assert!(rustix::io::pwrite(&pool, b"x", 0).is_err());
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    assert!(rustix::fs::fallocate(&pool, punch, 0, 4096).is_err());
    assert!(view[..] == before[..]);
}

#[test]
fn descriptors_out_of_the_pool_are_refused() {
    let cases = [
        (POOL, 1),
        (0, POOL + 1),
        (POOL + 1, 0),
        (u64::MAX, 1),
        (1, u64::MAX),
        (u64::MAX, u64::MAX),
        (1 << 63, 1 << 63),
    ];
    for (offset, len) in cases {
        let (mut receiver, peer) = receiver_with_pool();
        peer.publish(&[descriptor(offset, len)], 1);
        let refused = Violation::OutOfPool {
            offset,
            len,
            pool_bytes: POOL,
        };
        assert_eq!(refusal(&mut receiver), refused);
    }
    // Up to the last byte they are not.
    let (mut receiver, peer) = receiver_with_pool();
    peer.publish(&[descriptor(POOL - 1, 1), descriptor(POOL, 0)], 2);
    let last = receiver.receive().expect("it is good").expect("one");
    assert_eq!(last.secure().expect("read").0.len(), 1);
    assert!(
        receiver
            .receive()
            .expect("it is good")
            .expect("one")
            .is_empty()
    );
}

#[test]
fn descriptors_into_no_pool_are_refused() {
    for serial in [1, 64, u32::MAX] {
        let (mut receiver, peer) = receiver_with_pool();
        let mut nowhere = descriptor(0, 1);
        nowhere.pool = serial;
        peer.publish(&[nowhere], 1);
        assert_eq!(refusal(&mut receiver), Violation::UnknownPool { serial });
    }
}

#[test]
fn a_counter_that_runs_ahead_or_back_is_refused() {
    for published in [WINDOW + 1, u32::MAX, 1 << 31] {
        let (mut receiver, peer) = receiver_with_pool();
        peer.publish(&[descriptor(0, 1)], published);
        let refused = Violation::RingOverrun {
            ahead: published,
            most: WINDOW,
        };
        assert_eq!(refusal(&mut receiver), refused);
    }
    // Nor may it when some are out, or go back.
    let (mut receiver, peer) = receiver_with_pool();
    peer.publish(&[descriptor(0, 1), descriptor(1, 1)], 2);
    let _out = [receiver.receive(), receiver.receive()];
    peer.publish(&[], WINDOW + 1);
    let refused = Violation::RingOverrun { ahead: 3, most: 2 };
    assert_eq!(refusal(&mut receiver), refused);
    let (mut receiver, peer) = receiver_with_pool();
    peer.publish(&[descriptor(0, 1), descriptor(1, 1)], 2);
    let _out = [receiver.receive(), receiver.receive()];
    peer.publish(&[], 1);
    assert!(matches!(
        refusal(&mut receiver),
        Violation::RingOverrun { .. }
    ));
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    for message in [Control::Hello { window: WINDOW }, Control::Finish] {
        let (mut receiver, peer) = stranger();
        let (mut reader, writer) = UnixStream::pair().expect("sockets");
        let many: Vec<BorrowedFd<'_>> = vec![writer.as_fd(); 250];
        peer.say(message, &many);
        let refused = refusal(&mut receiver);
        assert!(matches!(refused, Violation::Descriptors { .. }));
        drop(writer);
        // Ends when none is open any more, in this process or on the way.
        assert_eq!(reader.read(&mut [0]).expect("a socket"), 0);
    }
}

/// A socket whose closing waits for longer than any test, and what must be kept for that.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let mut socket = TcpStream::connect(address).expect("it listens");
    let (far, _) = listener.accept().expect("it connects");
    socket.set_nonblocking(true).expect("a socket");
    while socket.write(&[0; 1 << 16]).is_ok() {}
    socket.set_nonblocking(false).expect("a socket");
    let minutes = Some(Duration::from_secs(300));
    rustix::net::sockopt::set_socket_linger(&socket, minutes).expect("a socket");
    (socket.into(), far)
}

#[test]
fn closing_what_a_peer_passed_keeps_nobody_waiting() {
    let began = Instant::now();
    // More than a message of ours has.
    let (slow, _far) = lingering();
    let (mut receiver, peer) = stranger();
    peer.say(Control::Finish, &vec![slow.as_fd(); 100]);
    drop(slow);
    let refused = Violation::Descriptors { came: 100 };
    assert_eq!(refusal(&mut receiver), refused);

    // In a message that nobody read.
    let (slow, _far) = lingering();
    let (receiver, peer) = self::receiver();
    peer.say(Control::Finish, &[slow.as_fd()]);
    drop((slow, receiver));
    let (slow, _far) = lingering();
    let (sender, peer) = sender();
    peer.say(Control::Finish, &[slow.as_fd()]);
    drop((slow, sender));

    // In a message on a lease, whether it is taken or refused.
    for bytes in [POOL, (1 << 20) + 1] {
        let (slow, _far) = lingering();
        let (near, far) = channel::socket_pair().expect("sockets");
        Peer::new(near).say(Control::Finish, &[slow.as_fd()]);
        let (mut receiver, peer) = self::receiver();
        let pool = Control::Pool { serial: 0 };
        peer.say(pool, &[sealed_memfd(bytes).as_fd(), far.as_fd()]);
        drop((slow, far));
        assert_eq!(receiver.try_receive().is_ok(), bytes == POOL);
        drop(receiver);
    }
    assert!(began.elapsed() < Duration::from_secs(100));
}

#[test]
fn a_number_whose_buffers_are_out_is_not_given_to_other_memory() {
    for serial in [0, 64] {
        for retire in [false, true] {
            if retire && serial == 64 {
                continue;
            }
            let (mut receiver, peer) = receiver_with_pool();
            peer.publish(&[descriptor(0, 1)], 1);
            let kept = receiver.receive().expect("it is good").expect("one");
            if retire {
                peer.say(Control::Retire { serial }, &[]);
            } else {
                let pool = sealed_memfd(POOL);
                peer.say(Control::Pool { serial }, &[pool.as_fd(), lease().as_fd()]);
            }
            let refused = Violation::PoolInUse { serial };
            assert_eq!(refusal(&mut receiver), refused);
            assert_eq!(kept.secure().expect("read").0.len(), 1);
        }
    }
    // Without any it is.
    let (mut receiver, peer) = receiver_with_pool();
    peer.publish(&[descriptor(0, 1)], 1);
    drop(receiver.receive().expect("it is good"));
    let pool = sealed_memfd(POOL);
    let message = Control::Pool { serial: 64 };
    peer.say(message, &[pool.as_fd(), lease().as_fd()]);
    assert!(matches!(receiver.try_receive(), Ok(Received::Empty)));
}

#[test]
fn a_flood_of_messages_does_not_outlast_a_deadline() {
    let (mut receiver, peer) = receiver();
    let flood = peer.flood();
    assert!(matches!(
        receiver.receive_by(soon()),
        Err(ChannelError::TimedOut)
    ));
    assert!(matches!(receiver.try_receive(), Ok(Received::Empty)));
    drop(receiver);
    flood.join().expect("it ends with the socket");

    let (mut sender, peer) = sender();
    let pool = Pool::new(4096, 1).expect("memory");
    let buffer = buffer(&pool);
    for _ in 0..WINDOW {
        sender.send(buffer.clone()).expect("there is room");
    }
    let flood = peer.flood();
    assert!(matches!(
        sender.send_by(buffer, soon()),
        Err(ChannelError::TimedOut)
    ));
    sender.revoke();
    flood.join().expect("it ends with the socket");
}

#[test]
fn a_receiver_that_gives_nothing_back_gets_no_more_than_a_window() {
    let (near, far) = channel::socket_pair().expect("sockets");
    let mut sender = Sender::new(near, WINDOW).expect("a socket");
    let pool = Pool::new(4096, WINDOW as usize + 1).expect("memory");
    // Whether or not it ever says a word.
    for _ in 0..WINDOW {
        sender.send(buffer(&pool)).expect("there is room");
    }
    assert!(sender.try_send(buffer(&pool)).expect("it lives").is_some());
    assert!(matches!(
        sender.send_by(buffer(&pool), soon()),
        Err(ChannelError::TimedOut)
    ));
    assert!(matches!(
        sender.finish(Some(soon())),
        Err(ChannelError::TimedOut)
    ));
    // What is out stays out as long as it may be read.
    assert_eq!(pool.usage().in_use, WINDOW as usize);
    drop(far);
    while pool.usage().in_use > 0 {
        std::thread::yield_now();
    }

    let (mut sender, _peer) = self::sender();
    sender.send(buffer(&pool)).expect("there is room");
    sender.revoke();
    assert_eq!(pool.usage().in_use, 0);
}

#[test]
fn tickets_that_are_not_out_are_refused_and_end_the_loan() {
    let stale = [
        Ticket {
            index: 1,
            generation: 0,
        },
        Ticket {
            index: 0,
            generation: 1,
        },
        Ticket {
            index: WINDOW,
            generation: 0,
        },
        Ticket {
            index: u32::MAX,
            generation: u32::MAX,
        },
    ];
    for ticket in stale {
        let (mut sender, peer) = sender();
        let pool = Pool::new(4096, 1).expect("memory");
        sender.send(buffer(&pool)).expect("there is room");
        peer.give_back(&[ticket], 1);
        let error = sender.reclaim().expect_err("it is not out");
        let refused = Violation::NotOut(ticket);
        assert!(matches!(error, ChannelError::Violation(violation) if violation == refused));
        assert_eq!(pool.usage().in_use, 0);
        assert!(sender.send(buffer(&pool)).is_err());
    }
    // Twice the same.
    let (mut sender, peer) = sender();
    let pool = Pool::new(4096, 2).expect("memory");
    sender.send(buffer(&pool)).expect("there is room");
    sender.send(buffer(&pool)).expect("there is room");
    let ticket = Ticket {
        index: 0,
        generation: 0,
    };
    peer.give_back(&[ticket, ticket], 2);
    assert!(sender.reclaim().is_err());
}

#[test]
fn a_receivers_counter_that_runs_ahead_is_refused() {
    for published in [2, WINDOW + 1, u32::MAX] {
        let (mut sender, peer) = sender();
        let pool = Pool::new(4096, 1).expect("memory");
        sender.send(buffer(&pool)).expect("there is room");
        peer.give_back(&[Ticket::decode(0); 4], published);
        let error = sender.reclaim().expect_err("one is out");
        let refused = Violation::RingOverrun {
            ahead: published,
            most: 1,
        };
        assert!(matches!(error, ChannelError::Violation(violation) if violation == refused));
    }
}

#[test]
fn a_receivers_hello_is_held_against_the_senders() {
    for (window, cells) in [(WINDOW * 2, 64), (WINDOW, u64::from(WINDOW) - 1)] {
        let (near, far) = channel::socket_pair().expect("sockets");
        let mut sender = Sender::new(near, WINDOW).expect("a socket");
        Peer::new(far).hello_with(window, cells);
        assert!(matches!(
            sender.reclaim(),
            Err(ChannelError::Violation(
                Violation::Window { .. } | Violation::RingTooShort
            ))
        ));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn whatever_a_peer_does_is_an_error_or_a_good_buffer(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)
    ) {
        script::against_receiver(&bytes);
        script::against_sender(&bytes);
    }
}
