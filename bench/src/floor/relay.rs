//! The bare relay loop that both proxy floors share, monomorphised for each way of moving bytes.
//!
//! Level-triggered, one thread; one read per event; EPOLLOUT only while bytes are stuck in front of
//! a full socket. Half-closes are passed on; a reset of either side ends the pair.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// One direction of a connection: what it holds back, and how it moves bytes.
pub(super) trait Direction: Default {
    /// What all directions share.
    type Shared: Default;
    /// Bytes that were read and are not written.
    fn pending(&self) -> usize;
    /// Reads once if nothing is pending, then writes. `false` at the end of the input.
    fn advance(
        &mut self,
        shared: &mut Self::Shared,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> rustix::io::Result<bool>;
    /// The connection is over.
    fn retire(self, _shared: &mut Self::Shared) {}
}

/// `recv` and `send` through one buffer.
#[derive(Default)]
pub(super) struct Copy {
    rest: Vec<u8>,
    /// What of `rest` is sent.
    sent: usize,
}

pub(super) struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER_BYTES])
    }
}

impl Direction for Copy {
    type Shared = Buffer;

    fn pending(&self) -> usize {
        self.rest.len() - self.sent
    }

    fn advance(
        &mut self,
        Buffer(buffer): &mut Buffer,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> rustix::io::Result<bool> {
        if self.pending() > 0 {
            self.sent += send(to, &self.rest[self.sent..])?;
            if self.pending() == 0 {
                (self.rest, self.sent) = (Vec::new(), 0);
            }
            return Ok(true);
        }
        let (received, _) = rustix::net::recv(from, &mut buffer[..], RecvFlags::empty())?;
        if received == 0 {
            return Ok(false);
        }
        let sent = send(to, &buffer[..received])?;
        self.rest.extend_from_slice(&buffer[sent..received]);
        Ok(true)
    }
}

/// As much as the socket takes, possibly nothing.
fn send(to: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    match rustix::net::send(to, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => Ok(0),
        other => other,
    }
}

/// `splice` through a pipe, which is borrowed with the first bytes and kept to the end.
#[derive(Default)]
pub(super) struct Splice {
    pipe: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Direction for Splice {
    /// Empty pipes of connections that ended.
    type Shared = Vec<(OwnedFd, OwnedFd)>;

    fn pending(&self) -> usize {
        self.held
    }

    fn advance(
        &mut self,
        pool: &mut Self::Shared,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> rustix::io::Result<bool> {
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pool.pop().map_or_else(large_pipe, Ok)?,
        };
        let (output, input) = &*self.pipe.insert(pipe);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        if self.held == 0 {
            self.held = rustix::pipe::splice(from, None, input, None, PIPE_BYTES, flags)?;
            if self.held == 0 {
                return Ok(false);
            }
        }
        while self.held > 0 {
            match rustix::pipe::splice(output, None, to, None, self.held, flags) {
                // A pipe that holds bytes never says that it is at its end.
                Ok(0) => return Err(Errno::IO),
                Ok(moved) => self.held -= moved,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    fn retire(self, pool: &mut Self::Shared) {
        if self.held == 0 {
            pool.extend(self.pipe);
        }
    }
}

fn large_pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Refused beyond the user's limit: then the pipe keeps its size.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe.1, PIPE_BYTES);
    Ok(pipe)
}

struct Pair<D> {
    /// The client's, the backend's.
    sockets: [OwnedFd; 2],
    /// Reading from the socket of the same index.
    directions: [D; 2],
    ended: [bool; 2],
    interest: [EventFlags; 2],
}

/// Relays until it is killed.
pub(super) fn relay<D: Direction>(listen: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let listener =
        super::epoll::listen_on(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut shared = D::Shared::default();
    // Indexed by the client's fd, as the kernel hands out the lowest free one.
    let mut pairs: Vec<Option<Pair<D>>> = Vec::new();
    let idle = Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    };
    let mut events = vec![idle; 512];
    let mut over = Vec::new();
    loop {
        let ready = match epoll::wait(&epoll, &mut events[..], None) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("epoll_wait"),
        };
        for event in &events[..ready] {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == LISTENER {
                accept(&epoll, &listener, to, &mut pairs)?;
                continue;
            }
            let (index, side) = ((data >> 1) as usize, (data & 1) as usize);
            let Some(Some(pair)) = pairs.get_mut(index) else {
                continue;
            };
            if !matches!(
                pair.advance(&epoll, index, side, flags, &mut shared),
                Ok(true)
            ) {
                over.push(index);
            }
        }
        // Only now: a later event of the same batch must not meet another connection.
        for index in over.drain(..) {
            let Some(pair) = pairs[index].take() else {
                continue;
            };
            for direction in pair.directions {
                direction.retire(&mut shared);
            }
        }
    }
}

impl<D: Direction> Pair<D> {
    /// `false` once both directions are done.
    fn advance(
        &mut self,
        epoll: &OwnedFd,
        index: usize,
        side: usize,
        flags: EventFlags,
        shared: &mut D::Shared,
    ) -> rustix::io::Result<bool> {
        if flags.contains(EventFlags::ERR) {
            return Err(Errno::CONNRESET);
        }
        // Room on this side is for what came from the other one.
        if flags.contains(EventFlags::OUT) && self.directions[1 - side].pending() > 0 {
            self.step(1 - side, shared)?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP)
            && !self.ended[side]
            && self.directions[side].pending() == 0
        {
            self.step(side, shared)?;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let reads = !self.ended[from] && self.directions[from].pending() == 0;
            let waits = self.directions[to].pending() > 0;
            let mut wanted = EventFlags::empty();
            wanted.set(EventFlags::IN, reads);
            wanted.set(EventFlags::OUT, waits);
            if wanted != self.interest[from] {
                let data = EventData::new_u64((index << 1 | from) as u64);
                epoll::modify(epoll, &self.sockets[from], data, wanted)?;
                self.interest[from] = wanted;
            }
        }
        Ok(!(self.ended[0] && self.ended[1]))
    }

    fn step(&mut self, from: usize, shared: &mut D::Shared) -> rustix::io::Result<()> {
        use std::os::fd::AsFd as _;
        let to = 1 - from;
        let (source, target) = (self.sockets[from].as_fd(), self.sockets[to].as_fd());
        match self.directions[from].advance(shared, source, target) {
            Ok(true) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok(false) => {
                self.ended[from] = true;
                rustix::net::shutdown(&self.sockets[to], Shutdown::Write)
            }
            Err(errno) => Err(errno),
        }
    }
}

fn accept<D: Direction>(
    epoll: &OwnedFd,
    listener: &OwnedFd,
    to: SocketAddr,
    pairs: &mut Vec<Option<Pair<D>>>,
) -> anyhow::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let client = match rustix::net::accept_with(listener, flags) {
        Ok(client) => client,
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
        Err(errno) => return Err(errno).context("accept"),
    };
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let backend = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_tcp_nodelay(&backend, true)?;
    match rustix::net::connect(&backend, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno).with_context(|| format!("connect to {to}")),
    }
    let index = client.as_raw_fd() as usize;
    let sockets = [client, backend];
    for (side, socket) in sockets.iter().enumerate() {
        let data = EventData::new_u64((index << 1 | side) as u64);
        epoll::add(epoll, socket, data, EventFlags::IN)?;
    }
    if pairs.len() <= index {
        pairs.resize_with(index + 1, || None);
    }
    pairs[index] = Some(Pair {
        sockets,
        directions: [D::default(), D::default()],
        ended: [false; 2],
        interest: [EventFlags::IN; 2],
    });
    Ok(())
}

const LISTENER: u64 = u64::MAX;
const BUFFER_BYTES: usize = 256 << 10;
const PIPE_BYTES: usize = 1 << 20;
