//! Both ends of a path: what the mover reads from and writes to, and the far ends of both.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path as FsPath;
use std::time::Duration;

use super::datagrams::ACKNOWLEDGED;
use super::files::SinkFile;
use super::results::Path;

/// Both ends of a path, for the length of a run.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) source: Source,
    pub(super) sink: Sink,
}

/// Where the bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file, which differs between sizes and is kept elsewhere.
    File,
    /// The same of memory.
    Memory,
    Tcp {
        mover: TcpStream,
        far: TcpStream,
    },
    Pipe {
        mover: OwnedFd,
        far: OwnedFd,
    },
}

/// Where they go.
#[derive(Debug)]
pub(super) enum Sink {
    File(SinkFile),
    Tcp { mover: TcpStream, far: TcpStream },
    Udp { mover: UdpSocket, far: UdpSocket },
}

impl Ends {
    pub(super) fn open(path: Path, dir: &FsPath) -> io::Result<Self> {
        let source = match path {
            Path::FileToTcp | Path::FileToFile => Source::File,
            Path::MemoryToTcp | Path::MemoryToUdp => Source::Memory,
            Path::TcpToTcp | Path::TcpToFile => {
                let (far, mover) = tcp_pair()?;
                Source::Tcp { mover, far }
            }
            Path::PipeToTcp => {
                let flags = rustix::pipe::PipeFlags::CLOEXEC;
                let (mover, far) = rustix::pipe::pipe_with(flags)?;
                Source::Pipe { mover, far }
            }
        };
        let sink = match path {
            Path::FileToFile | Path::TcpToFile => Sink::File(SinkFile::create(dir)?),
            Path::FileToTcp | Path::TcpToTcp | Path::PipeToTcp | Path::MemoryToTcp => {
                let (mover, far) = tcp_pair()?;
                far.set_read_timeout(Some(SILENCE))?;
                Sink::Tcp { mover, far }
            }
            Path::MemoryToUdp => {
                let (mover, far) = udp_pair()?;
                mover.set_read_timeout(Some(SILENCE))?;
                far.set_read_timeout(Some(SILENCE))?;
                Sink::Udp { mover, far }
            }
        };
        Ok(Self { source, sink })
    }

    /// Tells the receiver that nothing more will come.
    pub(super) fn hang_up(&self) {
        if let Sink::Tcp { mover, .. } = &self.sink {
            // Gone already: then the receiver knows.
            let _ = mover.shutdown(Shutdown::Write);
        }
    }
}

impl Source {
    /// The mover's end of a stream.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File | Self::Memory => None,
            Self::Tcp { mover, .. } => Some(mover.as_fd()),
            Self::Pipe { mover, .. } => Some(mover.as_fd()),
        }
    }

    /// The feeder's end.
    pub(super) fn far(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File | Self::Memory => None,
            Self::Tcp { far, .. } => Some(far.as_fd()),
            Self::Pipe { far, .. } => Some(far.as_fd()),
        }
    }
}

impl Sink {
    /// The mover's end.
    pub(super) fn mover(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.file().as_fd(),
            Self::Tcp { mover, .. } => mover.as_fd(),
            Self::Udp { mover, .. } => mover.as_fd(),
        }
    }

    /// The receiver's end.
    pub(super) fn far(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File(_) => None,
            Self::Tcp { far, .. } => Some(far.as_fd()),
            Self::Udp { far, .. } => Some(far.as_fd()),
        }
    }

    /// After how many messages the receiver has to say that it has them.
    pub(super) const fn acknowledged(&self) -> Option<u64> {
        match self {
            Self::File(_) | Self::Tcp { .. } => None,
            Self::Udp { .. } => Some(ACKNOWLEDGED),
        }
    }
}

/// A receiver that hears nothing for so long waits for bytes that were lost.
const SILENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 20 });

/// Two datagram sockets on loopback that are connected to each other.
fn udp_pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let bind = || UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"));
    let (near, far) = (bind()?, bind()?);
    near.connect(far.local_addr()?)?;
    far.connect(near.local_addr()?)?;
    Ok((near, far))
}

/// Two connected sockets on loopback: the first connected, the second was accepted.
///
/// Without TCP_NODELAY the last small piece of a sample would wait for an acknowledgement that the
/// receiver delays by 40 ms.
fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").or_else(|_| TcpListener::bind("[::1]:0"))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let own = near.local_addr()?;
    // Another program may have connected first.
    let far = loop {
        let (far, peer) = listener.accept()?;
        if peer == own {
            break far;
        }
    };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}
