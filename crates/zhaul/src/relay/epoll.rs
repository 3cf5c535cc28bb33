//! Readiness from an epoll instance of the caller's own.

use rustix::event::epoll::EventFlags;

use zhaul_core::relay::Readiness;

/// What to register both sockets of a relay for, once, if its trigger is
/// [`Trigger::Edge`](super::Trigger::Edge).
///
/// The bits of `epoll_event.events`, as all crates that wrap `epoll(7)` have them.
pub const WATCH: u32 = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::PRI)
    .union(EventFlags::ET)
    .bits();

/// What epoll reported in `epoll_event.events`, in a relay's words. The bits of `poll(2)` are the
/// same.
pub fn readiness(events: u32) -> Readiness {
    let flags = EventFlags::from_bits_retain(events);
    let mut readiness = Readiness::empty();
    let ended = EventFlags::RDHUP | EventFlags::HUP;
    for (reported, means) in [
        (EventFlags::IN | ended, Readiness::READABLE),
        (EventFlags::OUT | EventFlags::HUP, Readiness::WRITABLE),
        (ended, Readiness::ENDED),
        (EventFlags::ERR, Readiness::ERROR),
        (EventFlags::PRI, Readiness::URGENT),
    ] {
        if flags.intersects(reported) {
            readiness |= means;
        }
    }
    readiness
}
