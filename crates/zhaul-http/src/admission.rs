//! Letting a connection in on the terms that the door has set, and making room for it.

use std::cmp::Reverse;
use std::rc::Rc;

use crate::accept::{Accepted, Terms};
use crate::attend::Event;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::request::Reject;
use crate::worker::Worker;

/// Of those that rest, this part is closed when room is needed, so that a crowd that comes is not a
/// search through all of them for each.
const PART_CLOSED: usize = 64;
/// Out of descriptors without having let too many in, somebody else on the machine may be to blame:
/// connections that rest for less are kept.
const SHORT_REST_MS: u64 = 5_000;

impl Worker {
    /// Makes a place for a new connection; `None` if it is refused, which it is then told.
    pub(crate) fn let_in(self: &Rc<Self>, accepted: Accepted) -> Option<(usize, Rc<Connection>)> {
        let terms = accepted.admission.terms;
        let refused = match terms {
            Terms::Free => None,
            Terms::InPlaceOfAny => (!self.make_room(0, |_| true)).then_some(FULL),
            Terms::InPlaceOf(address) => {
                let same = |other: &Connection| other.address() == Some(address);
                (!self.make_room(0, same)).then_some(ADDRESS_FULL)
            }
            Terms::AddressFull => Some(ADDRESS_FULL),
        };
        let (key, connection) = self.adopt(accepted);
        let Some(why) = refused else {
            return Some((key, connection));
        };
        connection.forfeit();
        let peer = connection.peer;
        self.warn(|| format!("refused a connection from {peer}: {}", why.why));
        let answer = self.reject(&connection, b"", why);
        self.go_on(key, &connection, Event::Next(answer));
        None
    }

    /// Gives back what can be done without, when the machine has no descriptors left.
    pub(crate) fn yield_descriptors(self: &Rc<Self>) {
        self.cache.borrow_mut().clear();
        self.make_room(SHORT_REST_MS, |_| true);
    }

    /// Closes some of the connections that were told that nothing more will be said, or else of those
    /// that have rested longest; false if there are none, or none has rested for so long.
    fn make_room(self: &Rc<Self>, least_ms: u64, among: impl Fn(&Connection) -> bool) -> bool {
        let now_ms = Clock::now_ms();
        let mut resting = Vec::new();
        for (key, connection) in self.connections.borrow().iter() {
            // Those who were refused linger, too: they must not keep others out.
            let lingers = connection.lingers();
            let age_ms = connection.age_ms(now_ms);
            let rests = connection.rests() && age_ms >= least_ms;
            if (lingers || rests) && among(connection) {
                resting.push(((lingers, age_ms), key, Rc::clone(connection)));
            }
        }
        let wanted = resting.len().div_ceil(PART_CLOSED);
        // Some may turn out to be less at rest than they seemed.
        let tried = 4 * wanted;
        if tried < resting.len() {
            resting.select_nth_unstable_by_key(tried, |&(rank, ..)| Reverse(rank));
            resting.truncate(tried);
        }
        resting.sort_unstable_by_key(|&(rank, ..)| Reverse(rank));
        let mut closed = 0;
        for (_, key, connection) in resting {
            if closed == wanted {
                break;
            }
            if connection.lingers() {
                // What it still said is thrown away, or the close would be a reset.
                self.linger(&connection);
            }
            // Whoever was refused was told so in a few hundred bytes, which the kernel delivers all the
            // same. To wait until they are acknowledged, as late as delayed acknowledgements are, would
            // give a crowd that is refused every place.
            let is_owed = !connection.is_refused() && connection.is_undelivered();
            if !is_owed && !connection.stream.has_unread() {
                self.remove(key);
                closed += 1;
            }
        }
        if closed > 0 {
            self.warn(|| {
                format!("connections are short: closed {closed} of those that rested longest")
            });
        }
        closed > 0
    }
}

const FULL: Reject = Reject {
    status: 503,
    why: "all connections are in use",
};
const ADDRESS_FULL: Reject = Reject {
    status: 429,
    why: "its address has too many connections",
};
