//! Letting a connection in on the terms that the door has set, and making room for it.

use std::cmp::Reverse;
use std::rc::Rc;

use crate::host::clock::Clock;
use crate::message::request::Reject;
use crate::run::accept::Accepted;
use crate::run::connection::Connection;
use crate::run::door::Terms;
use crate::run::linger::linger;
use crate::run::worker::Worker;

/// Of those that rest, this part is closed when room is needed, so that a crowd that comes is not a
/// search through all of them for each.
const PART_CLOSED: usize = 64;
/// Out of descriptors without having let too many in, somebody else on the machine may be to blame:
/// connections that rest for less are kept.
const SHORT_REST_MS: u64 = 5_000;

/// What became of a new connection.
pub(crate) enum Entry {
    Granted(usize, Rc<Connection>),
    /// It is to be told why, and closed.
    Refused(usize, Rc<Connection>, Reject),
}

/// Makes a place for a new connection.
pub(crate) fn let_in(worker: &Worker, accepted: Accepted) -> Entry {
    let refused = match accepted.admission.terms {
        Terms::Free => None,
        Terms::InPlaceOfAny => (!make_room(worker, 0, |_| true)).then_some(FULL),
        Terms::InPlaceOf(address) => {
            let same = |other: &Connection| other.address() == Some(address);
            (!make_room(worker, 0, same)).then_some(ADDRESS_FULL)
        }
        Terms::AddressFull => Some(ADDRESS_FULL),
    };
    let rate = worker.site().config.limits.rate;
    let epoll = worker.reactor.epoll();
    let (key, connection) = worker.connections.adopt(accepted, epoll, rate);
    let Some(why) = refused else {
        return Entry::Granted(key, connection);
    };
    connection.forfeit();
    let peer = connection.peer;
    worker
        .reports
        .warn(|| format!("refused a connection from {peer}: {}", why.why));
    Entry::Refused(key, connection, why)
}

/// Gives back what can be done without, when the machine has no descriptors left.
pub(crate) fn yield_descriptors(worker: &Worker) {
    worker.files.clear();
    make_room(worker, SHORT_REST_MS, |_| true);
}

/// Closes some of the connections that were told that nothing more will be said, or else of those
/// that have rested longest; false if there are none, or none has rested for so long.
fn make_room(worker: &Worker, least_ms: u64, among: impl Fn(&Connection) -> bool) -> bool {
    let now_ms = Clock::now_ms();
    let mut resting = worker.connections.filter(|connection| {
        // Those who were refused linger, too: they must not keep others out.
        let lingers = connection.lingers();
        let age_ms = connection.age_ms(now_ms);
        let rests = connection.rests() && age_ms >= least_ms;
        ((lingers || rests) && among(connection)).then_some((lingers, age_ms))
    });
    let wanted = resting.len().div_ceil(PART_CLOSED);
    // Some may turn out to be less at rest than they seemed.
    let tried = 4 * wanted;
    if tried < resting.len() {
        resting.select_nth_unstable_by_key(tried, |&(.., rank)| Reverse(rank));
        resting.truncate(tried);
    }
    resting.sort_unstable_by_key(|&(.., rank)| Reverse(rank));
    let mut closed = 0;
    for (key, connection, _) in resting {
        if closed == wanted {
            break;
        }
        if connection.lingers() {
            // What it still said is thrown away, or the close would be a reset.
            linger(&connection, &mut worker.reactor.receive_more.borrow_mut());
        }
        // Whoever was refused was told so in a few hundred bytes, which the kernel delivers all the
        // same. To wait until they are acknowledged, as late as delayed acknowledgements are, would
        // give a crowd that is refused every place.
        let is_owed = !connection.is_refused() && connection.is_undelivered();
        if !is_owed && !connection.stream.has_unread() {
            worker.connections.remove(key);
            closed += 1;
        }
    }
    if closed > 0 {
        worker.reports.warn(|| {
            format!("connections are short: closed {closed} of those that rested longest")
        });
    }
    closed > 0
}

const FULL: Reject = Reject {
    status: 503,
    why: "all connections are in use",
};
const ADDRESS_FULL: Reject = Reject {
    status: 429,
    why: "its address has too many connections",
};
