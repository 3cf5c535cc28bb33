//! Taking a place at a server, or waiting for one.

use std::sync::Arc;
use std::time::Duration;

use super::end::End;
use super::session::{Next, Phase, Session};
use crate::state::pool::{Chosen, Pool};
use crate::state::queue::{Notify, Waiter};
use crate::state::site::Site;

/// Chooses servers for the sessions of one worker.
pub(super) struct Chooser<'a> {
    /// Who is told of places that become free.
    pub(super) worker: &'a Arc<dyn Notify>,
    /// The configuration in force.
    pub(super) site: &'a Site,
    pub(super) random: &'a mut fastrand::Rng,
    pub(super) now: Duration,
}

impl Chooser<'_> {
    /// Takes a place at a server of this pool, or waits for one.
    pub(super) fn choose(&mut self, session: &mut Session, pool: &Arc<Pool>) -> Next {
        // Nobody overtakes those who wait.
        if !pool.queue.is_occupied() {
            match self.try_choose(session, pool) {
                Chosen::Place(place) => return Next::Connect(place),
                Chosen::Nobody => return Next::End(End::NoServer),
                Chosen::Wait => {}
            }
        }
        session.facts.pool = Some(pool.name.as_str().into());
        let most = pool.config.when_full.queue;
        let Some(ticket) = pool.queue.wait(self.waiter(session), most) else {
            return Next::End(End::QueueFull);
        };
        session.phase = Phase::Queued {
            pool: Arc::clone(pool),
            since: self.now,
            ticket,
        };
        self.wait_for_place(session, pool, self.now);
        // A place that became free before it waited was offered to nobody; to give it back
        // offers it to the first.
        match self.try_choose(session, pool) {
            Chosen::Nobody => Next::End(End::NoServer),
            Chosen::Place(_) | Chosen::Wait => Next::Wait,
        }
    }

    /// The clock of a session in the queue: its time is up, or a server may be tried again.
    pub(super) fn on_timer(&mut self, session: &mut Session) -> Next {
        let Phase::Queued {
            pool,
            since,
            ticket,
        } = &session.phase
        else {
            return Next::Wait;
        };
        if self.now >= *since + pool.config.when_full.timeout {
            return Next::End(End::QueueTimeout);
        }
        pool.queue.forget(*ticket);
        self.leave_queue(session)
    }

    /// Somebody has left: tries again.
    pub(super) fn leave_queue(&mut self, session: &mut Session) -> Next {
        let Phase::Queued {
            pool: its,
            since,
            ticket,
        } = &mut session.phase
        else {
            return Next::Wait;
        };
        // After a reload the servers of the new configuration count; those that were tried are
        // known by their place in the old one.
        if session.facts.tried.is_empty()
            && let Some(pool) = self.site.pools.get(&its.name)
            && Arc::ptr_eq(&pool.queue, &its.queue)
        {
            *its = Arc::clone(pool);
        }
        let (pool, since, ticket) = (Arc::clone(its), *since, *ticket);
        match self.try_choose(session, &pool) {
            Chosen::Place(place) => {
                session.facts.queued += self.now.saturating_sub(since);
                Next::Connect(place)
            }
            // Somebody else was faster, or it is a server that was tried before.
            Chosen::Wait | Chosen::Nobody => {
                pool.queue.wait_on(ticket, self.waiter(session));
                self.wait_for_place(session, &pool, since);
                if !session.facts.tried.is_empty() {
                    pool.queue.call_behind(ticket);
                }
                // As in `choose`: what was given back meanwhile was offered to nobody.
                drop(self.try_choose(session, &pool));
                Next::Wait
            }
        }
    }

    /// Sets the clock of a session that stands in the queue.
    fn wait_for_place(&self, session: &mut Session, pool: &Pool, since: Duration) {
        let deadline = since + pool.config.when_full.timeout;
        let back_at = pool.back_at(self.now).unwrap_or(deadline);
        session.wake_at = Some(deadline.min(back_at));
    }

    fn waiter(&self, session: &Session) -> Waiter {
        Waiter {
            worker: Arc::clone(self.worker),
            session: session.name,
        }
    }

    fn try_choose(&mut self, session: &Session, pool: &Arc<Pool>) -> Chosen {
        let tried = &session.facts.tried;
        pool.choose(session.source_ip(), tried, self.random, self.now)
    }
}
