//! A connection for every request.
//!
//! Contract: `total` connections, `parallel` at a time. Each asks with `Connection: close`, reads to
//! the end of the stream, and resets what is left of the connection (SO_LINGER 0): the server has
//! closed by then, so the reset costs it nothing and no TIME_WAIT state piles up on either side
//! from one server's run to the next one's.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::head::Head;
use crate::interrupt;

#[derive(Debug)]
pub(crate) struct Outcome {
    /// From the start of connect to the end of the stream, ascending.
    pub(crate) sorted_ns: Vec<u64>,
    pub(crate) wall: Duration,
}

struct Attempt {
    socket: OwnedFd,
    started: Instant,
    received: Vec<u8>,
}

/// Fetches `path` over and over; every answer must be 200 with its whole body.
pub(crate) fn run(
    host: SocketAddrV4,
    path: &str,
    total: u32,
    parallel: usize,
    limit: Duration,
) -> anyhow::Result<Outcome> {
    let request = super::request("GET", path, host, "Connection: close\r\n");
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut attempts: Vec<Option<Attempt>> = (0..parallel).map(|_| None).collect();
    let mut room = vec![0; 256 << 10];
    let mut events = vec![
        Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0)
        };
        256
    ];
    let mut sorted_ns = Vec::with_capacity(total as usize);
    let started = Instant::now();
    let mut opened = 0;
    for (index, slot) in attempts.iter_mut().enumerate().take(total as usize) {
        *slot = Some(Attempt::open(&epoll, index, host, &request)?);
        opened += 1;
    }
    while sorted_ns.len() < total as usize {
        interrupt::check()?;
        ensure!(
            started.elapsed() < limit,
            "{} of {total} answers in {limit:?}",
            sorted_ns.len()
        );
        let ready = super::fan::wait(&epoll, &mut events, Duration::from_millis(50))?;
        for event in &events[..ready] {
            let index = event.data.u64() as usize;
            let Some(attempt) = &mut attempts[index] else {
                continue;
            };
            if !attempt.receive(&mut room)? {
                continue;
            }
            attempt.check()?;
            sorted_ns.push(u64::try_from(attempt.started.elapsed().as_nanos()).unwrap_or(u64::MAX));
            attempts[index] = None;
            if opened < total {
                attempts[index] = Some(Attempt::open(&epoll, index, host, &request)?);
                opened += 1;
            }
        }
    }
    let wall = started.elapsed();
    sorted_ns.sort_unstable();
    Ok(Outcome { sorted_ns, wall })
}

impl Attempt {
    fn open(
        epoll: &OwnedFd,
        index: usize,
        host: SocketAddrV4,
        request: &[u8],
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &host)
            .with_context(|| format!("cannot connect to {host}"))?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let sent = rustix::net::send(&socket, request, SendFlags::NOSIGNAL)?;
        ensure!(
            sent == request.len(),
            "request did not fit the socket buffer"
        );
        epoll::add(
            epoll,
            &socket,
            EventData::new_u64(index as u64),
            EventFlags::IN,
        )?;
        Ok(Self {
            socket,
            started,
            received: Vec::new(),
        })
    }

    /// Takes what has arrived, once; true at the end of the stream.
    fn receive(&mut self, room: &mut [u8]) -> anyhow::Result<bool> {
        match rustix::net::recv(&self.socket, &mut *room, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Ok(true),
            Ok((count, _)) => {
                self.received.extend_from_slice(&room[..count]);
                Ok(false)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno).context("recv"),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let head = Head::parse(&self.received)?.context("connection closed within the head")?;
        let body = (self.received.len() - head.size) as u64;
        ensure!(head.status == 200, "status {}", head.status);
        ensure!(
            head.length == Some(body),
            "{body} bytes, announced {:?}",
            head.length
        );
        Ok(())
    }
}
