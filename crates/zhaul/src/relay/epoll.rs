//! Readiness from an epoll instance of the caller's own.

use rustix::event::epoll::EventFlags;

use zhaul_core::relay::Readiness;

/// What to register both sockets of a relay for, once, if its trigger is
/// [`Trigger::Edge`](super::Trigger::Edge).
pub const WATCH: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::PRI)
    .union(EventFlags::ET);

/// What epoll reported, in a relay's words.
pub fn readiness(flags: EventFlags) -> Readiness {
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
