//! Each occurrence once. Pure.
//!
//! A thread that was made while a session attached may have inherited an event and been given its
//! own besides, and what it makes inherits both. Of all that tell of the same occurrence one is
//! believed: the thread's own event, or else the first that is seen of each event on each CPU.

use std::collections::{HashMap, VecDeque};

use super::super::record::{EventKey, Kind, Record};

/// Whom to believe, by thread.
#[derive(Debug, Default)]
pub(super) struct Once {
    /// Threads that were attached to, and when.
    own: HashMap<u32, u64>,
    /// How many were attached to in all: with one, nothing is told twice.
    attached: usize,
    believed: HashMap<u32, Vec<Believed>>,
    /// Threads that ended, and when.
    ended: VecDeque<(u64, u32)>,
}

/// Of one event on one CPU, the thread that the event was attached to.
#[derive(Debug)]
struct Believed {
    event: EventKey,
    cpu: u32,
    attached_to: u32,
}

impl Once {
    /// The session attached to this thread.
    pub(super) fn attached_to(&mut self, tid: u32, now_ns: u64) {
        if self.own.insert(tid, now_ns).is_none() {
            self.attached += 1;
        }
    }

    /// Whether the record, of an event that was attached to the thread `attached_to`, is to be
    /// handed out. Records come in the order of time.
    pub(super) fn accept(
        &mut self,
        event: EventKey,
        attached_to: u32,
        record: &Record<'_>,
    ) -> bool {
        if self.attached <= 1 || matches!(record.kind, Kind::Lost { .. }) {
            return true;
        }
        let teller = match record.kind {
            Kind::Fork { parent_tid, .. } => parent_tid,
            _ => record.tid,
        };
        if let Kind::Comm { exec: true, .. } = record.kind {
            // A thread takes the number of the first when it executes a program, but keeps the
            // events it had. (Told twice, this is handed out twice.)
            self.forget(teller, record.time_ns);
        }
        let believed = if self.own.contains_key(&teller) {
            teller
        } else {
            self.believe(teller, event, record.cpu, attached_to)
        };
        if attached_to != believed {
            return false;
        }
        match record.kind {
            Kind::Fork { .. } => self.forget(record.tid, record.time_ns),
            Kind::Exit => self.ended.push_back((record.time_ns, record.tid)),
            _ => {}
        }
        self.forget_ended(record.time_ns);
        true
    }

    fn believe(&mut self, teller: u32, event: EventKey, cpu: u32, attached_to: u32) -> u32 {
        let of_teller = self.believed.entry(teller).or_default();
        let known = of_teller
            .iter()
            .find(|believed| believed.event == event && believed.cpu == cpu);
        if let Some(known) = known {
            return known.attached_to;
        }
        of_teller.push(Believed {
            event,
            cpu,
            attached_to,
        });
        attached_to
    }

    /// The number belongs to another thread since `time_ns`.
    fn forget(&mut self, tid: u32, time_ns: u64) {
        self.believed.remove(&tid);
        // A fork that is told of now may be older than our attaching to what it made.
        if self
            .own
            .get(&tid)
            .is_some_and(|&since_ns| since_ns < time_ns)
        {
            self.own.remove(&tid);
        }
    }

    /// Drops what is known of threads that ended a while ago: their end is told twice as well.
    fn forget_ended(&mut self, now_ns: u64) {
        while let Some(&(time_ns, tid)) = self.ended.front()
            && time_ns.saturating_add(WHILE_NS) < now_ns
        {
            self.ended.pop_front();
            self.forget(tid, time_ns);
        }
    }
}

const WHILE_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: EventKey = EventKey(0);
    const TASKS: EventKey = EventKey(1);
    const MAKER: u32 = 1;
    const MADE: u32 = 2;
    const CHILD: u32 = 3;

    fn record(tid: u32, time_ns: u64, kind: Kind<'static>) -> Record<'static> {
        Record {
            time_ns,
            cpu: 0,
            pid: 1,
            tid,
            kind,
        }
    }

    fn passed(tid: u32, time_ns: u64) -> Record<'static> {
        let kind = Kind::Tracepoint {
            event: EVENT,
            raw: b"",
            callchain: Default::default(),
            user: Default::default(),
        };
        record(tid, time_ns, kind)
    }

    fn fork(parent_tid: u32, tid: u32, time_ns: u64) -> Record<'static> {
        let parent_pid = 1;
        record(
            tid,
            time_ns,
            Kind::Fork {
                parent_pid,
                parent_tid,
            },
        )
    }

    /// Two threads were attached to, the second of which had inherited from the first.
    fn once() -> Once {
        let mut once = Once::default();
        once.attached_to(MAKER, 100);
        once.attached_to(MADE, 100);
        once
    }

    #[test]
    fn a_thread_with_an_event_of_its_own_is_believed_by_it() {
        let mut once = once();
        assert!(once.accept(EVENT, MADE, &passed(MADE, 200)));
        assert!(!once.accept(EVENT, MAKER, &passed(MADE, 200)));
        assert!(once.accept(EVENT, MAKER, &passed(MAKER, 200)));
    }

    #[test]
    fn what_inherited_twice_is_believed_by_the_first() {
        let mut once = once();
        assert!(once.accept(EVENT, MAKER, &passed(CHILD, 200)));
        assert!(!once.accept(EVENT, MADE, &passed(CHILD, 200)));
        let elsewhere = Record {
            cpu: 1,
            ..passed(CHILD, 210)
        };
        assert!(
            once.accept(EVENT, MADE, &elsewhere),
            "inherited on that CPU only"
        );
        assert!(!once.accept(EVENT, MAKER, &elsewhere));
    }

    #[test]
    fn the_fork_of_a_thread_that_was_attached_to_afterwards_changes_nothing() {
        let mut once = once();
        assert!(once.accept(TASKS, MAKER, &fork(MAKER, MADE, 50)));
        assert!(!once.accept(EVENT, MAKER, &passed(MADE, 200)));
    }

    #[test]
    fn a_number_that_is_used_again_is_another_thread() {
        let mut once = once();
        assert!(once.accept(TASKS, MADE, &record(MADE, 200, Kind::Exit)));
        assert!(
            !once.accept(TASKS, MAKER, &record(MADE, 200, Kind::Exit)),
            "told twice"
        );
        assert!(once.accept(TASKS, MAKER, &fork(MAKER, MADE, 300)));
        assert!(once.accept(EVENT, MAKER, &passed(MADE, 400)));
    }

    #[test]
    fn ended_threads_are_forgotten() {
        let mut once = once();
        once.accept(EVENT, MAKER, &passed(CHILD, 200));
        once.accept(TASKS, MAKER, &record(CHILD, 300, Kind::Exit));
        once.accept(TASKS, MADE, &record(MADE, 300, Kind::Exit));
        once.accept(EVENT, MAKER, &passed(MAKER, 301 + WHILE_NS));
        assert!(!once.believed.contains_key(&CHILD) && once.ended.is_empty());
        assert!(!once.own.contains_key(&MADE) && once.own.contains_key(&MAKER));
    }

    #[test]
    fn a_thread_that_executes_a_program_under_another_number_is_still_seen() {
        let mut once = once();
        let exec = Kind::Comm {
            name: b"sh",
            exec: true,
        };
        // MADE executes and becomes MAKER.
        assert!(once.accept(TASKS, MADE, &record(MAKER, 200, exec)));
        assert!(once.accept(EVENT, MADE, &passed(MAKER, 300)));
    }
}
