//! The single-threaded epoll loop that both floors share, monomorphised for each.
//!
//! Level-triggered; one `recv` per event; EPOLLOUT only while an answer is stuck in a full socket.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

use super::request;

/// How the bytes of the one answer get into a socket.
pub(super) trait Answer {
    /// Header and body.
    fn length(&self) -> u64;
    /// Moves some of what follows the first `sent` bytes, once.
    fn send(&self, socket: BorrowedFd<'_>, sent: u64) -> rustix::io::Result<u64>;
}

struct Connection {
    socket: OwnedFd,
    /// The beginning of a request whose end has not arrived.
    partial: Vec<u8>,
    /// Answers owed.
    owed: u32,
    /// Bytes of the first of them that are sent.
    sent: u64,
    close: bool,
    waits_for_room: bool,
}

enum Outcome {
    Keep,
    Close,
}

pub(super) fn serve<A: Answer>(listen: SocketAddr, answer: &A) -> anyhow::Result<()> {
    let listener = listen_on(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, data(listener.as_fd()), EventFlags::IN)?;
    // Indexed by fd, as the kernel hands out the lowest free one.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = vec![
        Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0)
        };
        512
    ];
    let mut buffer = vec![0; 16 << 10];
    loop {
        let ready = match epoll::wait(&epoll, &mut events[..], None) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("epoll_wait"),
        };
        for event in &events[..ready] {
            let fd = event.data.u64() as usize;
            if fd == listener.as_raw_fd() as usize {
                accept(&epoll, &listener, &mut connections)?;
                continue;
            }
            let Some(slot) = connections.get_mut(fd) else {
                continue;
            };
            let Some(connection) = slot else { continue };
            if let Ok(Outcome::Keep) = connection.advance(&epoll, answer, &mut buffer) {
                continue;
            }
            // Closed, reset or broken: dropping the fd also leaves the epoll set.
            *slot = None;
        }
    }
}

impl Connection {
    fn advance<A: Answer>(
        &mut self,
        epoll: &OwnedFd,
        answer: &A,
        buffer: &mut [u8],
    ) -> rustix::io::Result<Outcome> {
        if self.owed == 0 {
            let received = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Ok(Outcome::Close),
                Ok((received, _)) => received,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Outcome::Keep),
                Err(errno) => return Err(errno),
            };
            self.take(&buffer[..received]);
        }
        let length = answer.length();
        while self.owed > 0 {
            match answer.send(self.socket.as_fd(), self.sent) {
                Ok(moved) => self.sent += moved,
                Err(Errno::AGAIN) => return self.wait_for(epoll, EventFlags::OUT),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            if self.sent < length {
                // Short means full; epoll is level-triggered, so asking again would be wasted.
                return self.wait_for(epoll, EventFlags::OUT);
            }
            self.sent = 0;
            self.owed -= 1;
        }
        if self.close {
            Ok(Outcome::Close)
        } else {
            self.wait_for(epoll, EventFlags::IN)
        }
    }

    /// Counts the requests in `bytes`, behind what an earlier call left over.
    fn take(&mut self, bytes: &[u8]) {
        if self.partial.is_empty() {
            let found = request::scan(bytes);
            self.partial.extend_from_slice(&bytes[found.consumed..]);
            (self.owed, self.close) = (found.complete, found.close);
        } else {
            self.partial.extend_from_slice(bytes);
            let found = request::scan(&self.partial);
            self.partial.drain(..found.consumed);
            (self.owed, self.close) = (found.complete, found.close);
        }
    }

    fn wait_for(&mut self, epoll: &OwnedFd, interest: EventFlags) -> rustix::io::Result<Outcome> {
        let room = interest == EventFlags::OUT;
        if self.waits_for_room != room {
            epoll::modify(epoll, &self.socket, data(self.socket.as_fd()), interest)?;
            self.waits_for_room = room;
        }
        Ok(Outcome::Keep)
    }
}

/// Takes one connection; the listener stays ready if there are more.
fn accept(
    epoll: &OwnedFd,
    listener: &OwnedFd,
    connections: &mut Vec<Option<Connection>>,
) -> anyhow::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = match rustix::net::accept_with(listener, flags) {
        Ok(socket) => socket,
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
        Err(errno) => return Err(errno).context("accept"),
    };
    epoll::add(epoll, &socket, data(socket.as_fd()), EventFlags::IN)?;
    let fd = socket.as_raw_fd() as usize;
    if connections.len() <= fd {
        connections.resize_with(fd + 1, || None);
    }
    connections[fd] = Some(Connection {
        socket,
        partial: Vec::new(),
        owed: 0,
        sent: 0,
        close: false,
        waits_for_room: false,
    });
    Ok(())
}

pub(super) fn listen_on(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted sockets inherit it, at no system call each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

fn data(fd: BorrowedFd<'_>) -> EventData {
    // An fd is never negative.
    EventData::new_u64(fd.as_raw_fd() as u64)
}
