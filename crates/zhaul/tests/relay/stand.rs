//! A test stand: two peers, a relay between them, and a driver on a thread of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{self, AddressFamily, SocketType, sockopt};
use zhaul::async_io::Attached;
use zhaul::relay::{
    BufferPool, Limit, Relay, RelayBuilder, RelayEnding, RelayOptions, RelayProgress, Resources,
    Side, Trigger, Turn, WATCH, Wants, Way, now, readiness,
};
use zhaul::{CancelToken, PipePool};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Tokio,
    Blocking,
    Edge,
    Level,
}

pub(crate) const DRIVERS: [Driver; 4] =
    [Driver::Tokio, Driver::Blocking, Driver::Edge, Driver::Level];
pub(crate) const KINDS: [(Kind, Kind); 4] = [
    (Kind::Tcp, Kind::Tcp),
    (Kind::Unix, Kind::Unix),
    (Kind::Tcp, Kind::Unix),
    (Kind::Unix, Kind::Tcp),
];

/// Calls the test for each driver.
pub(crate) fn each_driver(test: impl Fn(Driver)) {
    for driver in DRIVERS {
        println!("{driver:?}");
        test(driver);
    }
}

/// Calls the test for each driver and mixture.
pub(crate) fn each(test: impl Fn(Driver, (Kind, Kind))) {
    for driver in DRIVERS {
        for kinds in KINDS {
            println!("{driver:?} {kinds:?}");
            test(driver, kinds);
        }
    }
}

/// The far end of a connection, as a client or server has it: in blocking mode.
#[derive(Debug)]
pub(crate) enum Peer {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Peer {
    pub(crate) fn end(&self) {
        let done = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        done.unwrap();
    }

    /// Closes in a way that the other side sees as a reset.
    pub(crate) fn reset(self) {
        match &self {
            Self::Tcp(stream) => {
                sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
            }
            // A UNIX socket that is closed with something unread resets.
            Self::Unix(_) => {}
        }
    }

    pub(crate) fn try_clone(&self) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().unwrap()),
            Self::Unix(stream) => Self::Unix(stream.try_clone().unwrap()),
        }
    }

    pub(crate) fn read_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Bytes up to the end, and the error that was the end.
    pub(crate) fn read_until_error(&mut self) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return (bytes, None),
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(error) => return (bytes, Some(error.kind())),
            }
        }
    }

    pub(crate) fn timeout(&self, timeout: Option<Duration>) {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout).unwrap(),
            Self::Unix(stream) => stream.set_read_timeout(timeout).unwrap(),
        }
    }

    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.read_exact(&mut got).unwrap();
        assert!(got == bytes);
    }
}

impl Read for Peer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A connection: the peer's end, and the relay's in non-blocking mode.
pub(crate) fn connection(kind: Kind) -> (Peer, OwnedFd) {
    connection_with(kind, |_| {}, |_| {})
}

/// One whose four socket buffers have about this size.
pub(crate) fn tiny_connection(kind: Kind, bytes: usize) -> (Peer, OwnedFd) {
    let resize = |socket: BorrowedFd<'_>| {
        sockopt::set_socket_send_buffer_size(socket, bytes).unwrap();
        sockopt::set_socket_recv_buffer_size(socket, bytes).unwrap();
    };
    connection_with(kind, resize, resize)
}

/// One whose peer has little room for what it receives.
pub(crate) fn small_receiver(bytes: usize) -> (Peer, OwnedFd) {
    let resize =
        |socket: BorrowedFd<'_>| sockopt::set_socket_recv_buffer_size(socket, bytes).unwrap();
    connection_with(Kind::Tcp, resize, |_| {})
}

/// Sets up the peer's socket and the relay's before the handshake: a sender that has once seen a
/// large window waits for half of it.
fn connection_with(
    kind: Kind,
    set_up_peer: impl Fn(BorrowedFd<'_>),
    set_up_near: impl Fn(BorrowedFd<'_>),
) -> (Peer, OwnedFd) {
    let (peer, near) = match kind {
        Kind::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            set_up_near(listener.as_fd());
            let peer = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            set_up_peer(peer.as_fd());
            net::connect(&peer, &listener.local_addr().unwrap()).unwrap();
            let peer = TcpStream::from(peer);
            peer.set_nodelay(true).unwrap();
            let near = listener.accept().unwrap().0;
            near.set_nodelay(true).unwrap();
            (Peer::Tcp(peer), OwnedFd::from(near))
        }
        Kind::Unix => {
            let (peer, near) = UnixStream::pair().unwrap();
            set_up_peer(peer.as_fd());
            set_up_near(near.as_fd());
            (Peer::Unix(peer), OwnedFd::from(near))
        }
    };
    peer.timeout(Some(Duration::from_secs(20)));
    rustix::io::ioctl_fionbio(&near, true).unwrap();
    (peer, near)
}

/// What a relay is to be run with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) options: RelayOptions,
    pub(crate) resources: Resources,
    pub(crate) progress: Arc<RelayProgress>,
    pub(crate) cancel: CancelToken,
    pub(crate) drain: CancelToken,
    pub(crate) drain_within: Duration,
    pub(crate) limits: Vec<(Way, Arc<dyn Limit>)>,
    pub(crate) preload: Vec<u8>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            options: RelayOptions::default(),
            resources: Resources {
                pipes: PipePool::new(8, 1 << 20),
                buffers: BufferPool::new(8, 64 << 10),
            },
            progress: Arc::default(),
            cancel: CancelToken::new(),
            drain: CancelToken::new(),
            drain_within: Duration::from_secs(20),
            limits: Vec::new(),
            preload: Vec::new(),
        }
    }
}

impl Setup {
    pub(crate) fn with(change: impl FnOnce(&mut RelayOptions)) -> Self {
        let mut setup = Self::default();
        change(&mut setup.options);
        setup
    }

    /// Nothing that was borrowed is still out.
    pub(crate) fn check_returned(&self) {
        assert_eq!(self.resources.pipes.held(), 0, "pipes are back or closed");
        assert_eq!(self.resources.buffers.held(), 0, "buffers are back");
    }
}

/// A relay under way.
pub(crate) struct Running {
    pub(crate) a: Peer,
    pub(crate) b: Peer,
    pub(crate) setup: Setup,
    thread: JoinHandle<RelayEnding>,
}

impl Running {
    pub(crate) fn start(driver: Driver, kinds: (Kind, Kind), setup: Setup) -> Self {
        let (a, near_a) = connection(kinds.0);
        let (b, near_b) = connection(kinds.1);
        Self::start_between(driver, (a, near_a), (b, near_b), setup)
    }

    pub(crate) fn start_between(
        driver: Driver,
        (a, near_a): (Peer, OwnedFd),
        (b, near_b): (Peer, OwnedFd),
        setup: Setup,
    ) -> Self {
        let inside = setup.clone();
        let thread = std::thread::spawn(move || match driver {
            Driver::Tokio => on_tokio(near_a, near_b, &inside),
            Driver::Blocking => builder(near_a, near_b, &inside).run().unwrap(),
            Driver::Edge => on_epoll(&near_a, &near_b, &inside, Trigger::Edge),
            Driver::Level => on_epoll(&near_a, &near_b, &inside, Trigger::Level),
        });
        Self {
            a,
            b,
            setup,
            thread,
        }
    }

    /// Waits for the end; the peers stay open until then.
    pub(crate) fn finish(self) -> RelayEnding {
        let ending = self.thread.join().unwrap();
        self.setup.check_returned();
        ending
    }

    /// Gives the peers away and leaves the relay.
    pub(crate) fn split(self) -> (Peer, Peer, Rest) {
        let Self {
            a,
            b,
            setup,
            thread,
        } = self;
        (a, b, Rest { setup, thread })
    }
}

pub(crate) struct Rest {
    pub(crate) setup: Setup,
    thread: JoinHandle<RelayEnding>,
}

impl Rest {
    /// The same for pools that others are using.
    pub(crate) fn finish_sharing(self) -> RelayEnding {
        self.thread.join().unwrap()
    }

    pub(crate) fn finish(self) -> RelayEnding {
        let ending = self.thread.join().unwrap();
        self.setup.check_returned();
        ending
    }
}

fn builder<A, B>(a: A, b: B, setup: &Setup) -> RelayBuilder<'_, A, B> {
    let mut relay = zhaul::relay(a, b)
        .options(setup.options)
        .pipes(&setup.resources.pipes)
        .buffers(&setup.resources.buffers)
        .progress(&setup.progress)
        .preload(Way::AToB, &setup.preload)
        .drain(&setup.drain, setup.drain_within)
        .cancel(&setup.cancel);
    for (way, limit) in &setup.limits {
        relay = relay.limit(*way, Arc::clone(limit));
    }
    relay
}

fn on_tokio(a: OwnedFd, b: OwnedFd, setup: &Setup) -> RelayEnding {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let [a, b] = [a, b].map(|fd| Attached::new(fd).unwrap());
        builder(a, b, setup).run_async().await
    })
}

fn on_epoll(a: &OwnedFd, b: &OwnedFd, setup: &Setup, trigger: Trigger) -> RelayEnding {
    let mut options = setup.options;
    options.trigger = trigger;
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (key, fd) in [(0, a), (1, b)] {
        let flags = match trigger {
            Trigger::Level => EventFlags::IN | EventFlags::ONESHOT,
            _ => EventFlags::from_bits_retain(WATCH),
        };
        epoll::add(&instance, fd, EventData::new_u64(key), flags).unwrap();
    }
    let mut relay = Relay::new(&Arc::new(options), now());
    for (way, limit) in &setup.limits {
        relay.limit(*way, Arc::clone(limit));
    }
    relay.preload(Way::AToB, &setup.preload);
    let mut events = Vec::with_capacity(8);
    let mut armed = [Armed::default(); 2];
    loop {
        if setup.cancel.is_cancelled() {
            relay.cancel();
        }
        let draining = setup.drain.is_cancelled();
        if draining {
            relay.drain(now() + setup.drain_within);
        }
        let turn = relay.turn(a.as_fd(), b.as_fd(), &setup.resources, now());
        setup.progress.publish(&relay.stats());
        let wants = match turn {
            Turn::Done(ending) => return ending,
            Turn::Again => continue,
            Turn::Wait(wants) => wants,
        };
        if trigger == Trigger::Level {
            follow(&instance, [a, b], &wants, &mut armed);
        }
        loop {
            // Cancelling is looked for every so often, a buffer too; a real loop has a descriptor
            // for the one and knows of the other.
            let tick = Timespec::try_from(Duration::from_millis(10)).unwrap();
            epoll::wait(&instance, spare_capacity(&mut events), Some(&tick)).unwrap();
            let buffer = wants.buffer && setup.resources.buffers.is_available();
            let cancelled = setup.cancel.is_cancelled() || !draining && setup.drain.is_cancelled();
            if !events.is_empty() || relay.is_due(now()) || buffer || cancelled {
                break;
            }
        }
        for event in events.drain(..) {
            let side = Side::BOTH[event.data.u64() as usize];
            armed[side.index()].flags = None;
            let flags = event.flags;
            armed[side.index()].hung_up |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
            relay.note(side, readiness(flags.bits()));
        }
    }
}

/// A level-triggered registration that reports once each time it is armed.
#[derive(Clone, Copy, Default)]
struct Armed {
    flags: Option<EventFlags>,
    hung_up: bool,
}

/// Arms what is wanted; a side of which nothing is wanted for errors only, until it hung up: that
/// lasts, and would be reported for ever.
fn follow(instance: &OwnedFd, fds: [&OwnedFd; 2], wants: &Wants, armed: &mut [Armed; 2]) {
    for side in Side::BOTH {
        let mut flags = EventFlags::ONESHOT;
        flags.set(EventFlags::IN | EventFlags::RDHUP, wants.of(side).readable);
        flags.set(EventFlags::OUT, wants.of(side).writable);
        let armed = &mut armed[side.index()];
        let nothing = flags == EventFlags::ONESHOT;
        if armed.flags == Some(flags) || nothing && armed.hung_up {
            continue;
        }
        let key = EventData::new_u64(side.index() as u64);
        epoll::modify(instance, fds[side.index()], key, flags).unwrap();
        armed.flags = Some(flags);
    }
}

/// More than fits in between. To be made before the time counts.
pub(crate) fn plenty() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| crate::common::pattern(64 << 20))
}

/// Sends until everything between is full because the other side does not read; what was sent.
pub(crate) fn fill(peer: &mut Peer, progress: &RelayProgress) -> Vec<u8> {
    let bytes = plenty();
    rustix::io::ioctl_fionbio(&peer, true).unwrap();
    let (mut sent, mut quiet, mut seen) = (0, 0, 0);
    while quiet < 10 {
        while let Ok(n) = peer.write(&bytes[sent..]) {
            assert!(n > 0, "it is never full");
            sent += n;
        }
        std::thread::sleep(Duration::from_millis(10));
        let delivered = Way::BOTH.iter().map(|&way| progress.delivered(way)).sum();
        quiet = if delivered == seen { quiet + 1 } else { 0 };
        seen = delivered;
    }
    rustix::io::ioctl_fionbio(&peer, false).unwrap();
    bytes[..sent].to_vec()
}
