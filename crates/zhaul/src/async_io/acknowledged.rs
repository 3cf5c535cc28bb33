//! Waiting until a peer acknowledged everything.

use std::os::fd::AsFd;
use std::time::Duration;

use zhaul_core::Errno;

use crate::in_flight::is_in_flight;

/// Waits until the peer's kernel acknowledged all bytes queued in this socket (`SIOCOUTQ` 0).
/// Across a real wire ([`crate::peer::peer_is_remote`]) that is the moment when pages sent in place
/// are no longer shared; on loopback it proves nothing.
///
/// The kernel has no event for it, so this polls, after 1 ms at first and after 64 ms at last. It
/// waits for as long as a connection with a silent peer exists: put a limit on it.
///
/// # Errors
/// ECONNRESET, ETIMEDOUT or the like if the connection is gone before; the kernel has dropped what
/// was queued then. ENOTTY if this is not a socket.
pub async fn acknowledged(socket: &(impl AsFd + ?Sized)) -> Result<(), Errno> {
    let mut pause = FIRST_PAUSE;
    while is_in_flight(socket.as_fd())? {
        super::pause(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    Ok(())
}

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(64);
