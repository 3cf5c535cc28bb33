//! Many connections at once on one thread; bodies are thrown away inside the kernel.
//!
//! Contract: each connection sends the requests that it is given, one after the other, and checks
//! status and length of each answer. The run ends when all are done or at the deadline.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::head::Head;
use crate::interrupt;

/// What to ask for; a HEAD is answered without a body.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Get(String),
    Head(String),
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Bytes received, heads included.
    pub(crate) bytes: u64,
    /// Answers received whole.
    pub(crate) answers: u64,
}

enum Awaits {
    Head(Vec<u8>),
    Body(u64),
}

struct Member {
    socket: OwnedFd,
    awaits: Awaits,
    /// The answer has a head only.
    head_only: bool,
}

/// Opens `connections` and sends what `next` gives for each (`None`: this one is done).
pub(crate) fn run(
    host: SocketAddrV4,
    connections: usize,
    limit: Duration,
    mut next: impl FnMut(usize) -> Option<Request>,
) -> anyhow::Result<Totals> {
    let deadline = Instant::now() + limit;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut members: Vec<Option<Member>> = Vec::with_capacity(connections);
    for index in 0..connections {
        let socket = connect(host)?;
        epoll::add(
            &epoll,
            &socket,
            EventData::new_u64(index as u64),
            EventFlags::IN,
        )?;
        let mut member = Member {
            socket,
            awaits: Awaits::Head(Vec::new()),
            head_only: false,
        };
        members.push(member.ask(host, next(index).as_ref())?.then_some(member));
    }
    let mut totals = Totals::default();
    let mut room = vec![0; CHUNK];
    let mut events = vec![
        Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0)
        };
        256
    ];
    while members.iter().any(Option::is_some) {
        interrupt::check()?;
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            break;
        };
        let ready = wait(&epoll, &mut events, left.min(POLL_INTERVAL))?;
        for event in &events[..ready] {
            let index = event.data.u64() as usize;
            let Some(member) = &mut members[index] else {
                continue;
            };
            if member.receive(&mut room, &mut totals)? && !member.ask(host, next(index).as_ref())? {
                members[index] = None;
            }
        }
    }
    Ok(totals)
}

impl Member {
    /// Sends the request; false if there is none.
    fn ask(&mut self, host: SocketAddrV4, request: Option<&Request>) -> anyhow::Result<bool> {
        let (method, path) = match request {
            None => return Ok(false),
            Some(Request::Get(path)) => ("GET", path),
            Some(Request::Head(path)) => ("HEAD", path),
        };
        let bytes = super::request(method, path, host, "");
        // A request fits an empty socket buffer.
        let sent = rustix::net::send(&self.socket, &bytes, SendFlags::NOSIGNAL)?;
        ensure!(sent == bytes.len(), "request did not fit the socket buffer");
        self.awaits = Awaits::Head(Vec::new());
        self.head_only = method == "HEAD";
        Ok(true)
    }

    /// Takes what has arrived, once; true if the answer is complete.
    fn receive(&mut self, room: &mut [u8], totals: &mut Totals) -> anyhow::Result<bool> {
        let (flags, want) = match self.awaits {
            Awaits::Head(_) => (RecvFlags::empty(), HEAD_CHUNK),
            Awaits::Body(left) => (RecvFlags::TRUNC, left.min(CHUNK as u64) as usize),
        };
        let received = match rustix::net::recv(&self.socket, &mut room[..want], flags) {
            Ok((_, 0)) => bail!("connection closed before the end of an answer"),
            Ok((_, received)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno).context("recv"),
        };
        totals.bytes += received as u64;
        let left = match &mut self.awaits {
            Awaits::Body(left) => *left - received as u64,
            Awaits::Head(buffer) => {
                buffer.extend_from_slice(&room[..received]);
                let Some(head) = Head::parse(buffer)? else {
                    return Ok(false);
                };
                ensure!(head.status == 200, "status {}", head.status);
                let length = if self.head_only { Some(0) } else { head.length };
                let length = length.context("answer without Content-Length")?;
                let early = (buffer.len() - head.size) as u64;
                length
                    .checked_sub(early)
                    .context("answer is longer than announced")?
            }
        };
        self.awaits = Awaits::Body(left);
        if left == 0 {
            totals.answers += 1;
        }
        Ok(left == 0)
    }
}

/// Connected at once on loopback; non-blocking afterwards.
fn connect(host: SocketAddrV4) -> anyhow::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &host).with_context(|| format!("cannot connect to {host}"))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

pub(super) fn wait(
    epoll: &OwnedFd,
    events: &mut [Event],
    limit: Duration,
) -> rustix::io::Result<usize> {
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    match epoll::wait(epoll, events, Some(&limit)) {
        Err(Errno::INTR) => Ok(0),
        outcome => outcome,
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// More than a head, less than what a copy of would be felt.
const HEAD_CHUNK: usize = 4096;
const CHUNK: usize = 1 << 20;
