//! Servers on loopback that do as they are told, on threads that end when they are dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::PATIENCE;

/// A server. Dropping it closes its listening socket; conversations end by themselves.
pub(crate) struct Servers {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// A server that has each conversation held by `talk`, on a thread of its own.
    pub(crate) fn start(talk: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), talk)
    }

    pub(crate) fn start_on(
        listener: TcpListener,
        talk: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (over, accepted) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (theirs, count) = (Arc::clone(&over), Arc::clone(&accepted));
        let talk = Arc::new(talk);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if theirs.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _: &AtomicUsize = &count;
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.set_read_timeout(Some(PATIENCE * 3));
                let _ = stream.set_write_timeout(Some(PATIENCE * 3));
                let talk = Arc::clone(&talk);
                std::thread::spawn(move || talk(stream));
            }
        });
        Self {
            address,
            accepted,
            over,
            thread: Some(thread),
        }
    }

    /// Sends everything back, and ends its stream when the client ends its own.
    pub(crate) fn echo() -> Self {
        Self::start(echo)
    }

    /// Answers each line by its own name and the line.
    pub(crate) fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::start(move |stream| answer_lines(&name, &stream))
    }

    /// An address on which nobody listens.
    pub(crate) fn nobody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Sends everything back, and ends its stream when the client ends its own.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) if stream.write_all(&buffer[..n]).is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Answers each line by a name and the line.
pub(crate) fn answer_lines(name: &str, mut stream: &TcpStream) {
    while let Ok(line) = super::read_line(stream) {
        if stream
            .write_all(format!("{name} {line}\n").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread out of accept(2).
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
