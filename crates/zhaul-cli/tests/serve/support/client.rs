//! A client that sends exactly the bytes it is given.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::PATIENCE;
use super::http::{Response, read_head, read_response, receive};

/// A connection to the server.
pub(crate) struct Client {
    stream: Stream,
    /// Received and not yet read.
    buffer: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

impl Client {
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(Stream::Tcp(stream))
    }

    /// A client whose kernel takes little ahead of it: what it does not read stays at the server.
    pub(crate) fn tcp_with_little_room(address: SocketAddr) -> Self {
        let (family, cloexec) = (AddressFamily::INET, SocketFlags::CLOEXEC);
        let fd = socket_with(family, SocketType::STREAM, cloexec, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&fd, 16 * 1024).unwrap();
        connect(&fd, &address).unwrap();
        Self::of_tcp_stream(fd.into())
    }

    pub(crate) fn of_tcp_stream(stream: TcpStream) -> Self {
        Self::on(Stream::Tcp(stream))
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::over_unix(UnixStream::connect(path).unwrap())
    }

    pub(crate) fn over_unix(stream: UnixStream) -> Self {
        Self::on(Stream::Unix(stream))
    }

    fn on(stream: Stream) -> Self {
        let client = Self {
            stream,
            buffer: Vec::new(),
        };
        client.set_patience(PATIENCE);
        client
    }

    /// A second hand on the same connection, for sending while the first one reads.
    pub(crate) fn second_hand(&self) -> Self {
        let stream = match &self.stream {
            Stream::Tcp(s) => Stream::Tcp(s.try_clone().unwrap()),
            Stream::Unix(s) => Stream::Unix(s.try_clone().unwrap()),
        };
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn set_patience(&self, patience: Duration) {
        match &self.stream {
            Stream::Tcp(s) => {
                s.set_read_timeout(Some(patience)).unwrap();
                s.set_write_timeout(Some(patience)).unwrap();
            }
            Stream::Unix(s) => {
                s.set_read_timeout(Some(patience)).unwrap();
                s.set_write_timeout(Some(patience)).unwrap();
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(s) => s.write_all(bytes.as_ref()),
            Stream::Unix(s) => s.write_all(bytes.as_ref()),
        }
    }

    /// Sends a request with these header fields and a Host, without waiting for the answer.
    pub(crate) fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        self.send(request);
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[])
    }

    pub(crate) fn get_with(&mut self, target: &str, fields: &[(&str, &str)]) -> Response {
        self.request("GET", target, fields)
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        self.ask(method, target, fields);
        self.answer_to(method)
    }

    /// Reads the next answer.
    pub(crate) fn answer(&mut self) -> Response {
        self.answer_to("GET")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Response {
        self.try_answer(method)
            .unwrap_or_else(|e| panic!("no whole answer to {method}: {e}"))
    }

    pub(crate) fn try_answer(&mut self, method: &str) -> io::Result<Response> {
        read_response(&mut self.stream, &mut self.buffer, method)
    }

    /// Reads only the head of the next answer; its body is then read by the other methods.
    pub(crate) fn head_of_answer(&mut self) -> Response {
        self.try_head_of_answer().unwrap()
    }

    pub(crate) fn try_head_of_answer(&mut self) -> io::Result<Response> {
        read_head(&mut self.stream, &mut self.buffer)
    }

    /// Exactly this many bytes of a body.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert_ne!(
                receive(&mut self.stream, &mut self.buffer).unwrap(),
                0,
                "it ended early"
            );
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// This many bytes of a body, or fewer if the connection ends before.
    pub(crate) fn try_take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            match receive(&mut self.stream, &mut self.buffer) {
                Ok(1..) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("neither bytes nor an end"),
                Ok(0) | Err(_) => break,
            }
        }
        let rest = self.buffer.split_off(count.min(self.buffer.len()));
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Whether the connection was reset, though there may be bytes left to read.
    pub(crate) fn was_reset(&self) -> bool {
        sockopt::socket_error(self).unwrap().is_err()
    }

    /// What one read gives, for clients that read at their own pace.
    pub(crate) fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }

    /// Everything until the connection ends.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            match receive(&mut self.stream, &mut self.buffer) {
                Ok(0) => return (std::mem::take(&mut self.buffer), End::Closed),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                    return (std::mem::take(&mut self.buffer), End::Reset);
                }
                Err(e) => panic!("neither bytes nor an end: {e}"),
            }
        }
    }

    /// Panics unless the connection ends without another byte.
    #[track_caller]
    pub(crate) fn assert_ended(&mut self) {
        let (rest, _) = self.rest();
        assert!(
            rest.is_empty(),
            "more bytes: {}",
            rest[..rest.len().min(200)].escape_ascii()
        );
    }

    /// Whether the server has neither sent anything nor closed within `time`.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        assert!(self.buffer.is_empty());
        self.set_patience(time);
        let received = receive(&mut self.stream, &mut self.buffer);
        self.set_patience(PATIENCE);
        matches!(received, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Ends the sending direction.
    pub(crate) fn finish_sending(&self) {
        match &self.stream {
            Stream::Tcp(s) => s.shutdown(Shutdown::Write).unwrap(),
            Stream::Unix(s) => s.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(&self, Some(Duration::ZERO)).unwrap();
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(into),
            Self::Unix(s) => s.read(into),
        }
    }
}
