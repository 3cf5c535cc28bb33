//! The header by `send` with MSG_MORE, the body by `sendfile`.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::sendfile;
use rustix::net::{SendFlags, send};

use super::epoll::Answer;

pub(super) struct Sendfile {
    header: Vec<u8>,
    file: File,
    body_length: u64,
}

impl Sendfile {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let body_length = file.metadata()?.len();
        Ok(Self {
            header: super::header(body_length),
            file,
            body_length,
        })
    }
}

impl Answer for Sendfile {
    fn length(&self) -> u64 {
        self.header.len() as u64 + self.body_length
    }

    fn send(&self, socket: BorrowedFd<'_>, sent: u64) -> rustix::io::Result<u64> {
        let header_length = self.header.len() as u64;
        let mut moved = 0;
        if sent < header_length {
            // Below the length of a Vec, so it fits.
            let rest = &self.header[sent as usize..];
            // MSG_MORE only if a body follows: nothing else would push the header out.
            let more = if self.body_length > 0 {
                SendFlags::MORE
            } else {
                SendFlags::empty()
            };
            moved = send(socket, rest, SendFlags::NOSIGNAL | more)? as u64;
            if moved < rest.len() as u64 || self.body_length == 0 {
                return Ok(moved);
            }
        }
        let mut offset = sent + moved - header_length;
        let count = usize::try_from(self.body_length - offset).unwrap_or(usize::MAX);
        match sendfile(socket, &self.file, Some(&mut offset), count) {
            // The file became shorter: the answer can never be finished.
            Ok(0) => Err(rustix::io::Errno::IO),
            Ok(count) => Ok(moved + count as u64),
            // The header went out, which is progress; the next call meets EAGAIN again.
            Err(rustix::io::Errno::AGAIN) if moved > 0 => Ok(moved),
            Err(errno) => Err(errno),
        }
    }
}
