//! One blocking connection, one request after the other.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::head::Head;
use crate::interrupt;

#[derive(Debug)]
pub(crate) struct Exchange {
    stream: TcpStream,
    host: SocketAddrV4,
    /// Received, of which the first `taken` bytes are used up.
    buffer: Vec<u8>,
    taken: usize,
    deadline: Option<Instant>,
}

impl Exchange {
    /// Connects from `source`, so that more connections than ports fit.
    pub(crate) fn connect(host: SocketAddrV4, source: Ipv4Addr) -> anyhow::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        rustix::net::connect(&socket, &host)
            .with_context(|| format!("cannot connect to {host}"))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(POLL_INTERVAL))?;
        Ok(Self {
            stream,
            host,
            buffer: Vec::with_capacity(4096),
            taken: 0,
            deadline: None,
        })
    }

    /// Waits no longer than this for any byte. Without it, [`PATIENCE`] from each request on.
    pub(crate) fn give_up_at(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Sends a request and reads the head of its answer; the body must be taken afterwards.
    pub(crate) fn get(&mut self, path: &str, extra: &str) -> anyhow::Result<Head> {
        self.send(&super::request("GET", path, self.host, extra))
    }

    /// The same with a request that was put together before.
    pub(crate) fn send(&mut self, request: &[u8]) -> anyhow::Result<Head> {
        self.stream.write_all(request)?;
        let deadline = self.patience();
        self.buffer.drain(..self.taken);
        self.taken = 0;
        loop {
            if let Some(head) = Head::parse(&self.buffer)? {
                self.taken = head.size;
                return Ok(head);
            }
            let mut chunk = [0; 4096];
            match self.read_before(deadline, |stream| stream.read(&mut chunk))? {
                0 => bail!("connection closed before the answer"),
                count => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Reads a body of `length` bytes in pieces.
    pub(crate) fn body(
        &mut self,
        length: u64,
        mut piece: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let deadline = self.patience();
        let buffered = self.buffered(length);
        piece(&self.buffer[self.taken..self.taken + buffered])?;
        self.taken += buffered;
        let mut left = length - buffered as u64;
        let mut chunk = vec![0; left.min(256 << 10) as usize];
        while left > 0 {
            let want = left.min(chunk.len() as u64) as usize;
            match self.read_before(deadline, |stream| stream.read(&mut chunk[..want]))? {
                0 => bail!("connection closed {left} bytes short of Content-Length"),
                count => {
                    piece(&chunk[..count])?;
                    left -= count as u64;
                }
            }
        }
        Ok(())
    }

    /// Throws away a body of `length` bytes, or all that comes; returns how much there was.
    ///
    /// MSG_TRUNC on TCP drops the bytes inside the kernel: the client does not copy.
    pub(crate) fn discard(&mut self, length: Option<u64>) -> anyhow::Result<u64> {
        let deadline = self.patience();
        let total = length.unwrap_or(u64::MAX);
        let mut done = self.buffered(total) as u64;
        self.taken += done as usize;
        let mut room = vec![0; DISCARD_CHUNK];
        while done < total {
            let want = (total - done).min(DISCARD_CHUNK as u64) as usize;
            let count = self.read_before(deadline, |stream| {
                let (_, count) = rustix::net::recv(stream, &mut room[..want], RecvFlags::TRUNC)?;
                Ok(count)
            })?;
            match count {
                0 if length.is_none() => break,
                0 => bail!("connection closed after {done} of {total} bytes"),
                count => done += count as u64,
            }
        }
        Ok(done)
    }

    fn buffered(&self, limit: u64) -> usize {
        limit.min((self.buffer.len() - self.taken) as u64) as usize
    }

    fn patience(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + PATIENCE)
    }

    fn read_before(
        &mut self,
        deadline: Instant,
        mut read: impl FnMut(&mut TcpStream) -> std::io::Result<usize>,
    ) -> anyhow::Result<usize> {
        loop {
            match read(&mut self.stream) {
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    interrupt::check()?;
                    if Instant::now() >= deadline {
                        return Err(Unanswered.into());
                    }
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Nothing came until the deadline.
#[derive(Debug)]
pub(crate) struct Unanswered;

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no answer in time")
    }
}

impl std::error::Error for Unanswered {}

/// How often a blocked read looks at its deadline and at the interrupt flag.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);
const DISCARD_CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers the first request with `answer`, then waits for the client to go.
    fn peer(answer: &'static [u8]) -> SocketAddrV4 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!()
        };
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read(&mut request);
        });
        address
    }

    fn exchange(answer: &'static [u8]) -> Exchange {
        Exchange::connect(peer(answer), Ipv4Addr::LOCALHOST).unwrap()
    }

    #[test]
    fn body_shorter_than_announced_is_an_error() {
        let mut short = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody");
        let head = short.get("x", "").unwrap();
        let mut seen = Vec::new();
        let outcome = short.body(head.length.unwrap(), |piece| {
            seen.extend_from_slice(piece);
            Ok(())
        });
        assert!(outcome.is_err());
        assert_eq!(seen, b"body");
        let mut short = exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody");
        let head = short.get("x", "").unwrap();
        assert!(short.discard(head.length).is_err());
    }

    #[test]
    fn body_without_length_ends_with_the_connection() {
        let mut open = exchange(b"HTTP/1.1 200 OK\r\n\r\nbody and more");
        let head = open.get("x", "").unwrap();
        assert_eq!(open.discard(head.length).unwrap(), 13);
    }

    #[test]
    fn silence_until_the_deadline_is_unanswered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!()
        };
        let mut silent = Exchange::connect(address, Ipv4Addr::LOCALHOST).unwrap();
        silent.give_up_at(Instant::now() + Duration::from_millis(30));
        assert!(silent.get("x", "").unwrap_err().is::<Unanswered>());
    }
}
