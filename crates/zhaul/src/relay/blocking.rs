//! A relay on the caller's own thread, which sleeps in `poll(2)`.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::PollFlags;

use zhaul_core::relay::{Readiness, RelayEnding, Side, Wants};

use super::builder::Control;
use super::epoll::readiness;
use super::limit::now;
use super::turns::{Relay, Turn};
use crate::cancel::CancelToken;
use crate::edges::{BLIND_WAIT, Ends, READABLE, WRITABLE};

/// Runs the relay to its end.
pub(super) fn run(
    a: BorrowedFd<'_>,
    b: BorrowedFd<'_>,
    mut relay: Relay,
    mut control: Control<'_>,
) -> RelayEnding {
    let mut sockets = Sockets {
        ends: Ends::new([a, b].map(|fd| (fd, READABLE | WRITABLE))),
        hung_up: [false; 2],
    };
    for side in Side::BOTH {
        relay.note(side, Readiness::READABLE | Readiness::WRITABLE);
    }
    loop {
        control.apply(&mut relay);
        let turn = relay.turn(a, b, &control.resources, now());
        if let Some(progress) = &control.progress {
            progress.publish(&relay.stats());
        }
        match turn {
            Turn::Done(ending) => return ending,
            // A thread of its own has nobody to yield to.
            Turn::Again => {}
            Turn::Wait(wants) => {
                let reports = sockets.wait(&wants, control.tokens());
                for (side, report) in Side::BOTH.into_iter().zip(reports) {
                    relay.note(side, report);
                }
            }
        }
    }
}

struct Sockets<'a> {
    ends: Ends<'a, 2>,
    /// A hang-up lasts: a side that nothing is wanted of is not polled after it.
    hung_up: [bool; 2],
}

impl Sockets<'_> {
    /// Waits for what is wanted; what came, by side.
    fn wait(&mut self, wants: &Wants, tokens: [Option<&CancelToken>; 2]) -> [Readiness; 2] {
        let wanted = Side::BOTH.map(|side| {
            let mut flags = PollFlags::empty();
            let wanted = wants.of(side);
            flags.set(READABLE, wanted.readable);
            flags.set(WRITABLE, wanted.writable);
            (!flags.is_empty() || !self.hung_up[side.index()]).then_some(flags)
        });
        let Ok(reports) = self.ends.wait(wanted, &tokens, timeout(wants)) else {
            // Out of memory: not at once again.
            std::thread::sleep(BLIND_WAIT);
            return [Readiness::empty(); 2];
        };
        for (hung_up, report) in self.hung_up.iter_mut().zip(reports) {
            *hung_up |= report.contains(PollFlags::HUP);
        }
        // The two interfaces have their flags in common.
        reports.map(|report| readiness(report.bits().into()))
    }
}

fn timeout(wants: &Wants) -> Option<Duration> {
    let limit = wants.wake_at.map(|at| at.saturating_sub(now()));
    let buffer = wants.buffer.then_some(BUFFER_WAIT);
    [limit, buffer].into_iter().flatten().min()
}

/// How often a buffer is looked for when the pool had none.
const BUFFER_WAIT: Duration = Duration::from_millis(1);
