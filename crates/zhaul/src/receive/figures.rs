//! What a receiver did.

use std::fmt;

use zhaul_core::Errno;

/// Why bytes were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Copying {
    /// This kernel, or a filter, does not map pages of this socket: no TCP (ENODEV), kTLS
    /// (EOPNOTSUPP), before Linux 4.18 (ENOPROTOOPT) or 5.11 (ENOSYS), no memory, no descriptor.
    Unsupported(Errno),
    /// The peer is a process on this machine, which may still write to what it sent.
    LocalPeer,
    /// There was less than is worth mapping.
    SmallRead,
    /// The payload does not lie in whole pages of its own (`recv_skip_hint`).
    NotPages,
    /// It did not the last few times, and the kernel was not asked.
    AskedInVain,
}

/// What a [`ZeroCopyReceiver`](super::ZeroCopyReceiver) has received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Views given.
    pub views: u64,
    /// Bytes that were mapped.
    pub mapped: u64,
    /// Bytes that were copied.
    pub copied: u64,
    /// The same by reason.
    pub because: Vec<(Copying, u64)>,
}

impl Figures {
    /// All bytes received.
    pub const fn received(&self) -> u64 {
        self.mapped + self.copied
    }

    pub(super) fn count(&mut self, mapped: usize, copied: Option<(Copying, usize)>) {
        self.views += 1;
        self.mapped += mapped as u64;
        let Some((why, copied)) = copied else {
            return;
        };
        let copied = copied as u64;
        self.copied += copied;
        match self.because.iter_mut().find(|(known, _)| *known == why) {
            Some((_, bytes)) => *bytes += copied,
            None => self.because.push((why, copied)),
        }
    }
}

impl fmt::Display for Copying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(errno) => write!(f, "the kernel does not map here: {errno}"),
            Self::LocalPeer => f.write_str("the peer is on this machine"),
            Self::SmallRead => f.write_str("too little to be worth mapping"),
            Self::NotPages => f.write_str("not in whole pages"),
            Self::AskedInVain => f.write_str("nothing could be mapped before"),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            views,
            mapped,
            copied,
            because,
        } = self;
        write!(f, "{views} views: {mapped} bytes mapped, {copied} copied")?;
        for (at, (why, bytes)) in because.iter().enumerate() {
            let sign = if at == 0 { " (" } else { "; " };
            write!(f, "{sign}{bytes}: {why}")?;
        }
        f.write_str(if because.is_empty() { "" } else { ")" })
    }
}
