//! The ways for a message to get into another process.

use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use rustix::event::{EventfdFlags, eventfd};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use serde::Serialize;
use zhaul::Pool;
use zhaul::channel::{self, Limits, Receiver, Sender, TrustedPeer};

use super::exchange::{Exchange, put_stamps, stamps};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// No message: two eventfds
    Eventfd,
    /// write(2) into a pipe of 1 MiB, read(2) out of it
    Pipe,
    /// write(2) to a UNIX stream socket, read(2) from it
    Unix,
    /// A channel of zhaul, read in place by a receiver that trusts the sender
    Zhaul,
    /// The same, copied out by a receiver that does not
    ZhaulSecured,
    /// iceoryx2: publish-subscribe, and an event to wait for
    #[cfg(feature = "iceoryx2")]
    Iceoryx2,
}

/// What one process has of a way.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: Option<OwnedFd>,
}

impl Ends {
    /// For this process, and for the other.
    pub(crate) fn pair(way: Way) -> Result<(Self, Self)> {
        let ends = |input, output| Self {
            input: Some(input),
            output: Some(output),
        };
        Ok(match way {
            Way::Eventfd => {
                let there = eventfd(0, EventfdFlags::CLOEXEC)?;
                let back = eventfd(0, EventfdFlags::CLOEXEC)?;
                let far = ends(there.try_clone()?, back.try_clone()?);
                (ends(back, there), far)
            }
            Way::Pipe => {
                let (far_input, output) = pipe_with(PipeFlags::CLOEXEC)?;
                let (input, far_output) = pipe_with(PipeFlags::CLOEXEC)?;
                fcntl_setpipe_size(&output, 1 << 20)?;
                fcntl_setpipe_size(&input, 1 << 20)?;
                (ends(input, output), ends(far_input, far_output))
            }
            Way::Unix => {
                let (near, far) = UnixStream::pair()?;
                let (near, far) = (OwnedFd::from(near), OwnedFd::from(far));
                let far = ends(far.try_clone()?, far);
                (ends(near.try_clone()?, near), far)
            }
            Way::Zhaul | Way::ZhaulSecured => {
                let (output, far_input) = channel::socket_pair()?;
                let (input, far_output) = channel::socket_pair()?;
                (ends(input, output), ends(far_input, far_output))
            }
            #[cfg(feature = "iceoryx2")]
            Way::Iceoryx2 => <(Self, Self)>::default(),
        })
    }

    /// Those that this process was started with.
    pub(crate) fn inherited() -> Result<Self> {
        Ok(Self {
            input: Some(std::io::stdin().as_fd().try_clone_to_owned()?),
            output: Some(std::io::stdout().as_fd().try_clone_to_owned()?),
        })
    }
}

impl Way {
    pub(crate) fn available() -> &'static [Self] {
        Self::value_variants()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Eventfd => "eventfd",
            Self::Pipe => "pipe",
            Self::Unix => "unix",
            Self::Zhaul => "zhaul",
            Self::ZhaulSecured => "zhaul-secured",
            #[cfg(feature = "iceoryx2")]
            Self::Iceoryx2 => "iceoryx2",
        }
    }

    #[cfg_attr(not(feature = "iceoryx2"), expect(unused_variables))]
    pub(crate) fn open(
        self,
        ends: Ends,
        bytes: usize,
        name: &str,
        first: bool,
    ) -> Result<Box<dyn Exchange>> {
        #[cfg(feature = "iceoryx2")]
        if self == Self::Iceoryx2 {
            return Ok(Box::new(super::iceoryx::Iceoryx::open(bytes, name, first)?));
        }
        let input = ends.input.context("an end to read from")?;
        let output = ends.output.context("an end to write to")?;
        Ok(match self {
            Self::Eventfd => Box::new(Ping { input, output }),
            Self::Zhaul | Self::ZhaulSecured => Box::new(Shared {
                sender: Sender::new(output, 4)?,
                receiver: Receiver::new(input, Limits::default())?,
                pool: Pool::new(bytes, 4)?,
                bytes,
                copy: (self == Self::ZhaulSecured).then(|| vec![0; bytes]),
            }),
            _ => Box::new(Copied {
                input: input.into(),
                output: output.into(),
                outgoing: vec![1; bytes],
                incoming: vec![1; bytes],
            }),
        })
    }
}

struct Ping {
    input: OwnedFd,
    output: OwnedFd,
}

impl Exchange for Ping {
    fn send(&mut self, stamp: u64) -> Result<()> {
        rustix::io::write(&self.output, &(stamp + 1).to_ne_bytes())?;
        Ok(())
    }

    fn receive(&mut self) -> Result<u64> {
        let mut count = [0; 8];
        rustix::io::read(&self.input, &mut count)?;
        Ok(u64::from_ne_bytes(count) - 1)
    }
}

struct Copied {
    input: std::fs::File,
    output: std::fs::File,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Exchange for Copied {
    fn send(&mut self, stamp: u64) -> Result<()> {
        put_stamps(&mut self.outgoing, stamp);
        Ok(self.output.write_all(&self.outgoing)?)
    }

    fn receive(&mut self) -> Result<u64> {
        self.input.read_exact(&mut self.incoming)?;
        stamps(&self.incoming)
    }
}

struct Shared {
    sender: Sender,
    receiver: Receiver,
    pool: Pool,
    bytes: usize,
    /// Where messages are copied to, unless they are read in place.
    copy: Option<Vec<u8>>,
}

impl Exchange for Shared {
    fn send(&mut self, stamp: u64) -> Result<()> {
        let buffer = self.sender.allocate(&self.pool)?;
        let mut buffer = buffer.context("a free slot")?;
        put_stamps(&mut buffer[..self.bytes], stamp);
        Ok(self.sender.send(buffer.freeze(self.bytes))?)
    }

    fn receive(&mut self) -> Result<u64> {
        let buffer = self.receiver.receive()?.context("the end")?;
        if let Some(copy) = &mut self.copy {
            buffer.read_at(0, copy)?;
            return stamps(copy);
        }
        // SAFETY: the other process is this program, which does not touch what is out.
        let trusted = unsafe { TrustedPeer::assume() };
        stamps(&buffer.trust(trusted)?)
    }
}
