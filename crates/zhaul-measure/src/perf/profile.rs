//! Where CPU time goes: samples, by the function they fell on.

use std::collections::{BTreeMap, HashMap};

use crate::bench::results::Part;

use super::parts::direction_of;
use super::{Builder, Direction, EventKey, Kind, Record, Symbols, part_of};

/// Samples of where the CPU was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Samples {
    /// CPU time from one sample to the next.
    pub period_ns: u64,
    /// Samples taken.
    pub total: u64,
    /// Samples that found no room.
    pub lost: u64,
    /// Of those in the copy routines, which way they copied.
    pub copying: Copying,
    /// By part.
    pub parts: BTreeMap<Part, u64>,
    /// By function of the kernel; user mode is `user`, and addresses without a name `unknown`.
    pub functions: HashMap<String, u64>,
}

/// Samples in copy routines, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copying {
    /// From the kernel to user memory.
    pub to_user: u64,
    /// From user memory to the kernel.
    pub from_user: u64,
    /// From kernel memory to kernel memory, or unknown.
    pub other: u64,
}

impl Samples {
    /// CPU time spent in a part, as far as samples tell.
    pub fn ns_in(&self, part: Part) -> u64 {
        self.parts.get(&part).copied().unwrap_or(0) * self.period_ns
    }

    /// Adds other samples of the same period: those of another round.
    pub fn add(&mut self, other: Self) {
        debug_assert!(self.total == 0 || self.period_ns == other.period_ns);
        self.period_ns = other.period_ns;
        self.total += other.total;
        self.lost += other.lost;
        self.copying.to_user += other.copying.to_user;
        self.copying.from_user += other.copying.from_user;
        self.copying.other += other.copying.other;
        for (part, samples) in other.parts {
            *self.parts.entry(part).or_default() += samples;
        }
        for (function, samples) in other.functions {
            *self.functions.entry(function).or_default() += samples;
        }
    }

    /// The functions most often seen, with their samples.
    pub fn top(&self, count: usize) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.functions.clone().into_iter().collect();
        all.sort_by(|(a_name, a), (b_name, b)| b.cmp(a).then_with(|| a_name.cmp(b_name)));
        all.truncate(count);
        all
    }
}

/// Makes [`Samples`] from the records of a session.
#[derive(Debug)]
pub struct Profiler {
    clock: EventKey,
    samples: Samples,
    /// Samples in the kernel by their address and its caller's, so that each is looked up once.
    places: HashMap<(u64, Option<u64>), u64>,
}

impl Profiler {
    /// Adds a clock of this period to the session that is being built.
    pub fn new(builder: &mut Builder, period_ns: u64) -> Self {
        Self {
            clock: builder.cpu_clock(period_ns, FRAMES),
            samples: Samples {
                period_ns,
                ..Samples::default()
            },
            places: HashMap::new(),
        }
    }

    /// Takes in a record of the session; those of other events change nothing.
    pub fn add(&mut self, record: &Record<'_>) {
        let Kind::Sample {
            event,
            ip,
            user,
            callchain,
        } = record.kind
        else {
            return;
        };
        if event != self.clock {
            return;
        }
        self.samples.total += 1;
        if user {
            count(&mut self.samples, "user", Part::User, 1);
        } else {
            let caller = callchain.addresses().nth(1);
            *self.places.entry((ip, caller)).or_default() += 1;
        }
    }

    /// The samples so far, with names; the count begins anew. `lost` is what the session says.
    pub fn take(&mut self, symbols: &Symbols, lost: u64) -> Samples {
        let name_of = |address| symbols.lookup(address).map(|symbol| symbol.name);
        for ((ip, caller), samples) in self.places.drain() {
            let name = name_of(ip).unwrap_or("unknown");
            let part = part_of(name);
            count(&mut self.samples, name, part, samples);
            if part == Part::Copy {
                // With a processor that copies by a single instruction the routine with the
                // direction in its name copies itself; else it calls one that has none.
                let way = direction_of(name).or_else(|| direction_of(name_of(caller?)?));
                *self.samples.copying.of(way) += samples;
            }
        }
        let empty = Samples {
            period_ns: self.samples.period_ns,
            ..Samples::default()
        };
        Samples {
            lost,
            ..std::mem::replace(&mut self.samples, empty)
        }
    }
}

impl Copying {
    fn of(&mut self, direction: Option<Direction>) -> &mut u64 {
        match direction {
            Some(Direction::ToUser) => &mut self.to_user,
            Some(Direction::FromUser) => &mut self.from_user,
            Some(Direction::Within) | None => &mut self.other,
        }
    }
}

fn count(samples: &mut Samples, name: &str, part: Part, number: u64) {
    *samples.parts.entry(part).or_default() += number;
    *samples.functions.entry(name.into()).or_default() += number;
}

/// A period that does not beat with the kernel's own ticks.
pub const PERIOD_NS: u64 = 199_967;

/// The instruction and its caller.
const FRAMES: u16 = 2;
