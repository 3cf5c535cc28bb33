//! `send(2)` with MSG_ZEROCOPY, and whether the kernel really did without a copy.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use bytes::Bytes;
use rustix::event::PollFlags;
use zhaul_sys::msg_zerocopy::Sender;

use super::context::Context;
use super::devices;
use super::ends::{self, Ends, PATIENCE};
use super::pattern;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const MSG_ZEROCOPY: Mechanism = Mechanism {
    id: "msg_zerocopy",
    name: "MSG_ZEROCOPY",
    call: "send (MSG_ZEROCOPY)",
    group: Group::ToSocket,
    since: (4, 14),
    since_text: "4.14",
};

pub(super) const TRY_A_PEER: &str =
    "try it against another machine: zhaul doctor --peer ADDRESS:PORT";

/// On loopback, which is all there is without another machine: an address of a real device is
/// reached over loopback, too, when it is our own.
pub(super) fn to_socket(_: &Context) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let ends = Ends::tcp()?;
    let mut sender = Sender::new(ends.near.as_fd()).during("setsockopt (SO_ZEROCOPY)")?;
    let bytes = Bytes::from_static(content);
    let mut calls = 0;
    ends.carry(content, "send (MSG_ZEROCOPY)", |at| {
        let sent = sender.send(&[bytes.slice(at..)], false)?;
        calls += 1;
        Ok(sent.bytes)
    })?;
    let copied = copied(&mut sender)?;
    let evidence = format!(
        "{} bytes over TCP on loopback arrived unchanged; every call was completed ({calls}); \
         the kernel {}",
        content.len(),
        if copied {
            "copied after all"
        } else {
            "did not copy"
        }
    );
    let seen = if copied {
        Seen::limited(
            Cause::DeviceLacks,
            "works, but loopback always copies; a real device decides",
            evidence,
        )
        .remedy(TRY_A_PEER)
    } else {
        Seen::works(evidence)
    };
    Ok(seen.fact("avoided_copy_on_loopback", !copied))
}

/// Waits for the completions; true if any call was copied after all.
fn copied(sender: &mut Sender) -> Result<bool, Trouble> {
    let deadline = Instant::now() + PATIENCE;
    let mut copied = false;
    loop {
        let reaped = sender.reap().during("recvmsg (MSG_ERRQUEUE)")?;
        copied |= reaped.copied_calls > 0;
        if sender.pending() == 0 {
            return Ok(copied);
        }
        // A filled error queue is POLLERR, which needs no asking for.
        if reaped.calls == 0 && !ends::wait(&[(sender.as_fd(), PollFlags::empty())], deadline) {
            return Err(Trouble::Stuck("completions of MSG_ZEROCOPY"));
        }
    }
}

/// To another machine that reads and drops what it gets. Whether the bytes arrived unchanged is not
/// seen from here.
pub(super) fn to_peer(peer: SocketAddr) -> Result<Seen, Trouble> {
    let content = pattern::bytes(pattern::FEW);
    let socket = TcpStream::connect_timeout(&peer, PATIENCE).preparing("connect to the peer")?;
    socket.set_nonblocking(true).preparing("fcntl")?;
    let mut sender = Sender::new(socket.as_fd()).during("setsockopt (SO_ZEROCOPY)")?;
    let bytes = Bytes::from_static(content);
    let deadline = Instant::now() + PATIENCE;
    let (mut sent, mut calls) = (0, 0);
    while sent < content.len() {
        match sender.send(&[bytes.slice(sent..)], false) {
            Ok(call) => {
                sent += call.bytes;
                calls += 1;
            }
            Err(error) if ends::is_soon(&error) => {
                if !ends::wait(&[(socket.as_fd(), PollFlags::OUT)], deadline) {
                    return Err(Trouble::Stuck("send (MSG_ZEROCOPY)"));
                }
            }
            Err(error) => return Err(error).during("send (MSG_ZEROCOPY)"),
        }
    }
    let copied = copied(&mut sender)?;
    let own = socket.local_addr().preparing("getsockname")?;
    let device = devices::gathers(own.ip().to_canonical());
    let evidence = format!("{sent} bytes to {peer}; every call was completed ({calls})");
    Ok(judge_peer(peer, copied, device, evidence))
}

/// A device that cannot gather is given packets that the kernel joined from the pages, and the
/// completion does not tell (seen on Linux 6.12).
fn judge_peer(
    peer: SocketAddr,
    copied: bool,
    device: Option<(String, bool)>,
    evidence: String,
) -> Seen {
    let seen = match device {
        _ if copied => {
            let reason = format!("on the way to {peer} the kernel copied after all");
            Seen::limited(Cause::DeviceLacks, reason, evidence)
        }
        Some((name, false)) => {
            let reason = format!("{name} cannot gather: the kernel copied, and did not say so");
            Seen::limited(Cause::DeviceLacks, reason, evidence)
                .remedy(format!("ethtool -K {name} sg on, if the device can"))
                .fact("device", name)
        }
        Some((name, true)) => {
            Seen::works(format!("{evidence}; the kernel did not copy")).fact("device", name)
        }
        None => Seen::works(format!("{evidence}; the kernel says that it did not copy")),
    };
    let avoided = seen.is_available();
    seen.fact("avoided_copy_to_peer", avoided)
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn a_device_that_cannot_gather_copies_whatever_the_completion_says() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 9));
        let status = |copied, device: Option<(&str, bool)>| {
            let device = device.map(|(name, gathers)| (name.to_owned(), gathers));
            let seen = judge_peer(peer, copied, device, String::new());
            seen.of(&MSG_ZEROCOPY).status
        };
        assert_eq!(status(false, Some(("eth0", true))), Status::Available);
        assert_eq!(status(false, Some(("eth0", false))), Status::Limited);
        assert_eq!(status(true, Some(("eth0", true))), Status::Limited);
        assert_eq!(status(false, None), Status::Available);
    }
}
