//! Both ends of a proxied connection: a backend in a thread of its own, and the client's side.
//!
//! A request says in its first 16 bytes how long it is (these included) and how long the answer
//! shall be. The answer is a pattern whose period divides no power of two, so that a misplaced
//! block shows.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, RecvFlags, SocketType};

use crate::interrupt;

/// More than any run moves: such an answer has no end.
pub(crate) const ENDLESS: u64 = 1 << 50;
const HEAD: usize = 16;
const PERIOD: usize = 65_521;
const SLICE: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(20);
const LISTENER: u64 = u64::MAX;

/// The pattern from its start, long enough for a slice from anywhere in the first period.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let period: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state >> 32) as u8
        })
        .collect();
    period
        .iter()
        .copied()
        .cycle()
        .take(PERIOD + SLICE)
        .collect()
});

/// A slice of the answer that begins `offset` bytes into it.
fn pattern(offset: u64, most: u64) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    let length = most.min(SLICE as u64) as usize;
    &PATTERN[start..start + length]
}

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub(crate) fn start() -> anyhow::Result<Self> {
        // The queue of the standard library's own `bind` is too short for a burst of connections.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        rustix::net::listen(&listener, 4096)?;
        listener.set_nonblocking(true)?;
        let SocketAddr::V4(address) = listener.local_addr()? else {
            anyhow::bail!("asked for IPv4")
        };
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // The clients notice: their connections end, or time out.
            if let Err(error) = serve(&listener, &asked) {
                let _ = writeln!(io::stderr(), "zhaul-bench: backend: {error:#}");
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// From here on the calling thread runs only while no other wants to.
pub(crate) fn give_way() {
    // Anybody may step back; if not, the thread is like the others and the figures are worse.
    let _ = zhaul_sys::sched_setscheduler::this_thread_last();
}

struct Connection {
    stream: TcpStream,
    head: [u8; HEAD],
    received: u64,
    /// Length of the current answer and what of it is sent; equal while reading.
    answer: u64,
    sent: u64,
    waits_for_room: bool,
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> anyhow::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = events();
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        let ready = wait(&epoll, &mut events, Duration::from_millis(20))?;
        for event in &events[..ready] {
            let data = event.data.u64();
            if data == LISTENER {
                let Ok((stream, _)) = listener.accept() else {
                    continue;
                };
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let index = stream.as_raw_fd() as usize;
                let data = EventData::new_u64(index as u64);
                epoll::add(&epoll, &stream, data, EventFlags::IN)?;
                if connections.len() <= index {
                    connections.resize_with(index + 1, || None);
                }
                connections[index] = Some(Connection {
                    stream,
                    head: [0; HEAD],
                    received: 0,
                    answer: 0,
                    sent: 0,
                    waits_for_room: false,
                });
                continue;
            }
            let index = data as usize;
            let Some(Some(connection)) = connections.get_mut(index) else {
                continue;
            };
            let going_on = connection.advance(&mut buffer).unwrap_or(false);
            if !going_on {
                connections[index] = None;
                continue;
            }
            if connection.answer >= ENDLESS {
                epoll::delete(&epoll, &connection.stream)?;
                if let Some(connection) = connections[index].take() {
                    connection.stream.set_nonblocking(false)?;
                    std::thread::spawn(|| pour(connection));
                }
                continue;
            }
            let room = connection.sent < connection.answer;
            if room != connection.waits_for_room {
                let wanted = if room {
                    EventFlags::OUT
                } else {
                    EventFlags::IN
                };
                epoll::modify(&epoll, &connection.stream, EventData::new_u64(data), wanted)?;
                connection.waits_for_room = room;
            }
        }
    }
    Ok(())
}

/// Sends until the other side has gone. In a thread of its own that gives way, because nobody's
/// small exchange shall wait for it.
fn pour(mut connection: Connection) {
    give_way();
    let Connection { stream, sent, .. } = &mut connection;
    while let Ok(count) = stream.write(pattern(*sent, SLICE as u64)) {
        *sent += count as u64;
    }
}

impl Connection {
    /// Reads or writes once. `false` at the end.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if self.sent == self.answer {
            let wanted = if self.received < HEAD as u64 {
                HEAD as u64 - self.received
            } else {
                self.field(0) - self.received
            };
            // The rest of a request arrives with its head, so read past it only up to its end.
            let wanted = (wanted as usize).min(buffer.len());
            match self.stream.read(&mut buffer[..wanted]) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    if self.received < HEAD as u64 {
                        let at = self.received as usize;
                        self.head[at..at + count].copy_from_slice(&buffer[..count]);
                    }
                    self.received += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            if self.received < HEAD as u64 || self.received < self.field(0) {
                return Ok(true);
            }
            (self.received, self.answer, self.sent) = (0, self.field(1), 0);
        }
        match self
            .stream
            .write(pattern(self.sent, self.answer - self.sent))
        {
            Ok(count) => self.sent += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn field(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.head[8 * index..8 * index + 8]);
        u64::from_le_bytes(bytes)
    }
}

/// A request of `length` bytes (at least 16) for `answer` bytes.
pub(crate) fn request(length: usize, answer: u64) -> Vec<u8> {
    let mut bytes = vec![b'.'; length.max(HEAD)];
    let total = bytes.len() as u64;
    bytes[..8].copy_from_slice(&total.to_le_bytes());
    bytes[8..HEAD].copy_from_slice(&answer.to_le_bytes());
    bytes
}

/// A blocking connection whose reads give up after a while.
pub(crate) fn connect(to: SocketAddrV4, from: Ipv4Addr) -> anyhow::Result<TcpStream> {
    let connected = || -> io::Result<TcpStream> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        if from != Ipv4Addr::LOCALHOST {
            rustix::net::bind(&socket, &SocketAddrV4::new(from, 0))?;
        }
        rustix::net::connect(&socket, &to)?;
        Ok(TcpStream::from(socket))
    };
    let stream = connected().with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `request` and reads an answer as long as `buffer`.
pub(crate) fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut [u8],
) -> anyhow::Result<()> {
    stream.write_all(request).context("cannot send a request")?;
    stream.read_exact(buffer).context("no complete answer")
}

/// Compares `bytes` of an answer with what the backend sends.
pub(crate) fn verify(to: SocketAddrV4, bytes: u64) -> anyhow::Result<()> {
    let mut stream = connect(to, Ipv4Addr::LOCALHOST)?;
    stream.write_all(&request(1000, bytes))?;
    let mut buffer = vec![0; 64 << 10];
    let mut offset = 0;
    while offset < bytes {
        let most = (bytes - offset).min(buffer.len() as u64) as usize;
        let count = stream.read(&mut buffer[..most])?;
        ensure!(count > 0, "the answer ended after {offset} of {bytes} B");
        ensure!(
            buffer[..count] == *pattern(offset, count as u64),
            "other bytes than were sent, after {offset} B"
        );
        offset += count as u64;
    }
    Ok(())
}

/// Reads `each` bytes from every connection, thrown away inside the kernel; each must have asked
/// for as many. Ends early, and without an error, if `stop` says so.
pub(crate) fn drain(streams: &[TcpStream], each: u64, stop: &AtomicBool) -> anyhow::Result<u64> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, stream) in streams.iter().enumerate() {
        let data = EventData::new_u64(index as u64);
        epoll::add(&epoll, stream, data, EventFlags::IN)?;
    }
    let mut left = vec![each; streams.len()];
    let mut open = streams.len();
    let mut total = 0;
    let mut events = events();
    // MSG_TRUNC on TCP discards: the buffer is never touched.
    let mut buffer = vec![0; 1 << 20];
    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    while open > 0 && !stop.load(Ordering::Relaxed) {
        interrupt::check()?;
        let ready = wait(&epoll, &mut events, PATIENCE)?;
        ensure!(
            ready > 0,
            "nothing arrived for {PATIENCE:?}, after {total} B"
        );
        for event in &events[..ready] {
            let index = event.data.u64() as usize;
            let (_, count) = match rustix::net::recv(&streams[index], &mut buffer[..], flags) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                other => other.context("bulk")?,
            };
            ensure!(count > 0, "a stream ended with {} B missing", left[index]);
            total += count as u64;
            left[index] = left[index]
                .checked_sub(count as u64)
                .context("more bytes than were sent")?;
            if left[index] == 0 {
                epoll::delete(&epoll, &streams[index])?;
                open -= 1;
            }
        }
    }
    Ok(total)
}

fn events() -> Vec<Event> {
    let idle = Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    };
    vec![idle; 512]
}

fn wait(
    epoll: &std::os::fd::OwnedFd,
    events: &mut [Event],
    limit: Duration,
) -> anyhow::Result<usize> {
    let limit = rustix::time::Timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    };
    match epoll::wait(epoll, events, Some(&limit)) {
        Err(rustix::io::Errno::INTR) => {
            interrupt::check()?;
            Ok(0)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_the_pattern_to_its_end() {
        let backend = Backend::start().unwrap();
        verify(backend.address, 3_000_001).unwrap();
        let mut stream = connect(backend.address, Ipv4Addr::LOCALHOST).unwrap();
        let mut buffer = vec![0; 64];
        for _ in 0..3 {
            exchange(&mut stream, &request(64, 64), &mut buffer).unwrap();
            assert_eq!(buffer, pattern(0, 64));
        }
        stream.write_all(&request(16, 500_000)).unwrap();
        let never = AtomicBool::new(false);
        assert_eq!(drain(&[stream], 500_000, &never).unwrap(), 500_000);
    }
}
