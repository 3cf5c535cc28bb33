//! What the tests share: a proxy that ends with its test, and servers that do as they are told.

#[path = "../../serve/support/process.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of serve, which use more of it"
)]
pub(crate) mod process;
pub(crate) mod proxy;
#[path = "../../serve/support/running.rs"]
pub(crate) mod running;
pub(crate) mod servers;

pub(crate) use proxy::{Proxy, configured, simple, try_configured};
pub(crate) use running::binary;
pub(crate) use servers::{Servers, answer_lines, echo};

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No single wait of a test is longer than this; it is generous because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until `done` holds, and panics with `what` if it never does.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A connection on which nothing waits for ever.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The same, or `None` if it is refused at once.
pub(crate) fn attempt(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// Sends one line and reads the line that comes back, without its end.
pub(crate) fn ask(mut stream: &TcpStream, line: &str) -> io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    read_line(stream)
}

/// Reads one line, byte by byte, so that nothing behind it is taken.
pub(crate) fn read_line(mut stream: impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte == *b"\n" {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
}

/// Bytes in which every position can be told from every other, for comparing.
pub(crate) fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// How a connection that should not go on ended: an error, or an end without a byte.
pub(crate) fn is_refused(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
        return true;
    };
    if stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return true;
    }
    // The write may succeed before the reset arrives.
    let _ = stream.write_all(b"x\n");
    matches!(stream.read(&mut [0]), Err(_) | Ok(0))
}

/// Whether this user may do what only root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program is installed.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
