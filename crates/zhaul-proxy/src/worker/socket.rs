//! What is asked of a socket between events, and how one is closed that was not served.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// What a client has sent that nobody has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    Bytes,
    /// The end of its stream.
    End,
    /// A reset. The kernel tells of it once, and afterwards it looks like an end.
    Gone,
}

pub(super) fn unread(client: &OwnedFd) -> Unread {
    match rustix::net::recv(client, &mut [0_u8; 1][..], RecvFlags::PEEK) {
        Ok((0, _)) => Unread::End,
        Ok(_) => Unread::Bytes,
        Err(Errno::AGAIN | Errno::INTR) => Unread::Nothing,
        Err(_) => Unread::Gone,
    }
}

/// What epoll would report of a socket now.
pub(super) fn readiness_now(socket: &OwnedFd) -> EventFlags {
    let wanted = PollFlags::IN | PollFlags::PRI | PollFlags::OUT | PollFlags::RDHUP;
    let mut sockets = [PollFd::from_borrowed_fd(socket.as_fd(), wanted)];
    // Nothing can be said against it, and nothing is waited for.
    let _ = poll(&mut sockets, Some(&Timespec::default()));
    let of_epoll = |flag: PollFlags| match flag {
        PollFlags::IN => EventFlags::IN,
        PollFlags::PRI => EventFlags::PRI,
        PollFlags::OUT => EventFlags::OUT,
        PollFlags::RDHUP => EventFlags::RDHUP,
        PollFlags::ERR => EventFlags::ERR,
        PollFlags::HUP => EventFlags::HUP,
        _ => EventFlags::empty(),
    };
    sockets[0].revents().iter().map(of_epoll).collect()
}

/// Has closing this socket reset its connection. Whoever is closed without having been served sees a
/// reset: a client not the end of an empty answer, a server not an empty request.
pub(super) fn reset_on_close(socket: &OwnedFd) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
