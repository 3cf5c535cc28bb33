//! When page references queued in a socket end.
//!
//! Across a wire the peer's acknowledgement proves that the bytes left this machine's memory. On
//! loopback it proves nothing: measured on Linux 6.18, after sendfile `SIOCOUTQ` reads 0 although
//! the receiver has not read a byte, a later pwrite to the file is visible to the receiver, and
//! closing with a linger of 0 does not withdraw it, because the pages themselves sit in the
//! receiver's queue. The same holds between containers, where packets travel over veth pairs and
//! bridges.
//!
//! Any doubt counts as "never": the planner then copies where it would have sent in place.
//! The answer takes about ten system calls; cache it per connection. Linux 5.14.

use std::os::fd::AsFd;

use zhaul_core::InPlaceEnd;

pub use zhaul_sys::peer::peer_is_remote;

/// When page references queued in this socket end.
pub fn in_place_end(socket: impl AsFd) -> InPlaceEnd {
    if peer_is_remote(socket) {
        InPlaceEnd::Acknowledged
    } else {
        InPlaceEnd::Never
    }
}
