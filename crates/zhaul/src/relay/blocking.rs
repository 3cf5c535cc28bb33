//! A relay on the caller's own thread, which sleeps in `poll(2)`.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use zhaul_core::relay::{Ending, Readiness, Side, Wants};

use super::builder::Control;
use super::epoll::readiness;
use super::limit::now;
use super::turns::{Relay, Turn};
use crate::cancel::CancelToken;

/// Runs the relay to its end.
pub(super) fn run(
    a: BorrowedFd<'_>,
    b: BorrowedFd<'_>,
    mut relay: Relay,
    control: Control<'_>,
) -> Ending {
    let mut sockets = Sockets {
        fds: [a, b],
        hung_up: [false; 2],
    };
    for side in Side::BOTH {
        relay.note(side, Readiness::READABLE | Readiness::WRITABLE);
    }
    loop {
        if control.cancel.is_some_and(CancelToken::is_cancelled) {
            relay.cancel();
        }
        let turn = relay.turn(a, b, control.resources, now());
        if let Some(progress) = control.progress {
            progress.publish(&relay.stats());
        }
        match turn {
            Turn::Done(ending) => return ending,
            // A thread of its own has nobody to yield to.
            Turn::Again => {}
            Turn::Wait(wants) => {
                let reports = sockets.wait(&wants, control.cancel);
                for (side, report) in Side::BOTH.into_iter().zip(reports) {
                    relay.note(side, report);
                }
            }
        }
    }
}

struct Sockets<'a> {
    fds: [BorrowedFd<'a>; 2],
    /// A hang-up lasts: a side that nothing is wanted of is not polled after it.
    hung_up: [bool; 2],
}

impl Sockets<'_> {
    /// Waits for what is wanted; what came, by side.
    fn wait(&mut self, wants: &Wants, cancel: Option<&CancelToken>) -> [Readiness; 2] {
        let mut fds = Vec::with_capacity(3);
        let mut sides = Vec::with_capacity(2);
        for side in Side::BOTH {
            let mut flags = PollFlags::empty();
            let wanted = wants.of(side);
            flags.set(PollFlags::IN | PollFlags::RDHUP, wanted.readable);
            flags.set(PollFlags::OUT, wanted.writable);
            if !flags.is_empty() || !self.hung_up[side.index()] {
                fds.push(PollFd::from_borrowed_fd(self.fds[side.index()], flags));
                sides.push(side);
            }
        }
        let event = cancel.and_then(CancelToken::event);
        if let Some(event) = event {
            fds.push(PollFd::from_borrowed_fd(event, PollFlags::IN));
        }
        // The descriptor exists now, so cancelling from here on makes it readable.
        let mut reports = [Readiness::empty(); 2];
        if cancel.is_some_and(CancelToken::is_cancelled) {
            return reports;
        }
        let blind = cancel.is_some() && event.is_none();
        let timeout = timeout(wants, blind);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return reports,
            // Out of memory: not at once again.
            Err(_) => std::thread::sleep(BLIND_WAIT),
        }
        for (side, fd) in sides.into_iter().zip(&fds) {
            let came = fd.revents();
            self.hung_up[side.index()] |= came.intersects(PollFlags::HUP | PollFlags::ERR);
            // The two interfaces have their flags in common.
            let flags = EventFlags::from_bits_truncate(came.bits().into());
            reports[side.index()] = readiness(flags);
        }
        reports
    }
}

fn timeout(wants: &Wants, blind: bool) -> Option<Timespec> {
    let limit = wants.wake_at.map(|at| at.saturating_sub(now()));
    let blind = blind.then_some(BLIND_WAIT);
    let buffer = wants.buffer.then_some(BUFFER_WAIT);
    let shortest = [limit, blind, buffer].into_iter().flatten().min()?;
    Timespec::try_from(shortest).ok()
}

/// How long cancelling goes unnoticed in a process out of descriptors.
const BLIND_WAIT: Duration = Duration::from_millis(50);

/// How often a buffer is looked for when the pool had none.
const BUFFER_WAIT: Duration = Duration::from_millis(1);
