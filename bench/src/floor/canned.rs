//! One `send` of a header and body that were put together before the first request.

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::Context as _;
use rustix::net::{SendFlags, send};

use super::epoll::Answer;

pub(super) struct Canned {
    bytes: Vec<u8>,
}

impl Canned {
    pub(super) fn load(file: &Path) -> anyhow::Result<Self> {
        let body =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut bytes = super::header(body.len() as u64);
        bytes.extend_from_slice(&body);
        Ok(Self { bytes })
    }
}

impl Answer for Canned {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn send(&self, socket: BorrowedFd<'_>, sent: u64) -> rustix::io::Result<u64> {
        // `sent` is below the length of a Vec, so it fits.
        Ok(send(socket, &self.bytes[sent as usize..], SendFlags::NOSIGNAL)? as u64)
    }
}
