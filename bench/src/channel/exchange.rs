//! Messages, each known by its stamp: what every way hands over.

use anyhow::{Context as _, Result, ensure};

/// Hands messages over, and takes them.
pub(crate) trait Exchange {
    fn send(&mut self, stamp: u64) -> Result<()>;
    fn receive(&mut self) -> Result<u64>;
}

pub(super) fn put_stamps(message: &mut [u8], stamp: u64) {
    let stamp = stamp.to_ne_bytes();
    let end = message.len() - stamp.len();
    message[..stamp.len()].copy_from_slice(&stamp);
    message[end..].copy_from_slice(&stamp);
}

pub(super) fn stamps(message: &[u8]) -> Result<u64> {
    let (first, last) = (message.first_chunk(), message.last_chunk());
    ensure!(first == last, "a message of two halves");
    Ok(u64::from_ne_bytes(*first.context("a short message")?))
}
