//! `getsockopt(2)` TCP_ZEROCOPY_RECEIVE: how much of what was received could be mapped.

use std::os::fd::AsFd;
use std::time::Instant;

use bytes::Bytes;
use rustix::event::PollFlags;
use zhaul_sys::msg_zerocopy::Sender;
use zhaul_sys::setsockopt::{IntOption, set};
use zhaul_sys::tcp_zerocopy_receive::ReceiveWindow;

use super::context::Context;
use super::ends::{self, Checker, Ends, PATIENCE};
use super::pattern;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const TCP_ZEROCOPY_RECEIVE: Mechanism = Mechanism {
    id: "tcp_zerocopy_receive",
    name: "TCP_ZEROCOPY_RECEIVE",
    call: "getsockopt (TCP_ZEROCOPY_RECEIVE)",
    group: Group::FromSocket,
    since: (4, 18),
    since_text: "4.18",
};

/// One page of payload and the timestamp option.
const SEGMENT: i32 = 4096 + 12;

pub(super) fn from_socket(_: &Context) -> Result<Seen, Trouble> {
    // The best case: one page a segment, from whole pages.
    let ends = Ends::tcp_with(|listener| set(listener, IntOption::TcpMaxSegment, SEGMENT))?;
    let content = pattern::bytes(pattern::ALL);
    // Kept until all has arrived, so that nothing is left to be reaped.
    let (sent, _sender) = send_pages(&ends, content)?;
    let content = &content[..sent];
    let window = ReceiveWindow::of(ends.far.as_fd(), sent.next_multiple_of(4096));
    let mut window = window.during("mmap of a socket")?;
    let mut checker = Checker::of(content, "TCP_ZEROCOPY_RECEIVE");
    let mut mapped = 0;
    let deadline = Instant::now() + PATIENCE;
    while !checker.is_done() {
        if !ends::wait(&[(ends.far.as_fd(), PollFlags::IN)], deadline) {
            return Err(Trouble::Stuck("TCP_ZEROCOPY_RECEIVE"));
        }
        let received = window
            .receive(usize::MAX, &mut [])
            .during("getsockopt (TCP_ZEROCOPY_RECEIVE)")?;
        let mut bytes = vec![0; received.mapped];
        window.copy_to(&mut bytes);
        checker.take(&bytes)?;
        mapped += received.mapped;
        if received.mapped == 0 || received.to_read > 0 {
            checker.take_from(ends.far.as_fd())?;
        }
    }
    let evidence =
        format!("{mapped} of {sent} received bytes were mapped, the others read, all unchanged");
    let seen = if mapped > 0 {
        Seen::works(evidence)
    } else {
        Seen::limited(
            Cause::DeviceLacks,
            "the call works, but nothing could be mapped on loopback",
            evidence,
        )
        .remedy("it needs a device that puts payload into pages of their own (header split)")
    };
    Ok(seen
        .fact("mapped_bytes", mapped)
        .fact("received_bytes", sent))
}

/// Sends what the socket takes at once: by whole pages if MSG_ZEROCOPY works, since pages that were
/// copied together with others cannot be mapped.
fn send_pages(ends: &Ends, content: &'static [u8]) -> Result<(usize, Option<Sender>), Trouble> {
    let near = ends.near.as_fd();
    let Ok(mut sender) = Sender::new(near) else {
        let sent = rustix::io::write(near, content).preparing("write to a socket")?;
        return Ok((sent, None));
    };
    let sent = sender.send(&[Bytes::from_static(content)], false);
    Ok((sent.preparing("send")?.bytes, Some(sender)))
}
