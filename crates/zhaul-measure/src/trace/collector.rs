//! A thread that does nothing but empty the kernel's rings, so that they do not overflow while the
//! ledger works, and look at descriptors the moment they are made, since many are closed soon. What
//! was looked at too late is recognised by the ledger, when it meets the close.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::event::{Event, Timed};
use super::instruments::{DeviceInstruments, Instruments};
use super::ledger::descriptors::{closes, makes};
use super::procfs::Procfs;
use super::report::Costs;
use super::world::World;
use crate::perf::{Error, Profiler, Record, Samples, Session, Symbols, Woken};

/// What a round brought.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) events: Vec<Timed>,
    /// If they were asked for.
    pub(super) costs: Option<Costs>,
    /// The first of the processes has ended.
    pub(super) ended: bool,
    /// Recording has stopped; there is no further round.
    pub(super) last: bool,
    /// Bytes of records that were not understood.
    pub(super) misread: u64,
    /// Calls of 32-bit programs.
    pub(super) foreign_calls: u64,
    /// Where the CPU time went: with the last round, if it was sampled.
    pub(super) samples: Option<Samples>,
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Collector {
    rounds: Receiver<Result<Round, Error>>,
    wants_costs: Arc<AtomicBool>,
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Starts it: what it empties is opened by the thread itself, so that nothing comes between
    /// opening and emptying. It runs before all ordinary threads if that is permitted.
    pub(super) fn start<T: Send + 'static>(
        open: impl FnOnce() -> Result<(Sources, T), Error> + Send + 'static,
    ) -> Result<(Self, T), Error> {
        let (sender, rounds) = mpsc::sync_channel(ROUNDS_AHEAD);
        let (opened_sender, opened) = mpsc::channel();
        let wants_costs = Arc::new(AtomicBool::new(false));
        let stops = Arc::new(AtomicBool::new(false));
        let flags = (Arc::clone(&wants_costs), Arc::clone(&stops));
        let thread = std::thread::Builder::new()
            .name("zhaul-collector".to_owned())
            .spawn(move || {
                // Without the permission, some descriptors are looked at too late.
                let _ = zhaul_sys::sched_setscheduler::this_thread_first();
                match open() {
                    Ok((sources, opened)) => {
                        let _ = opened_sender.send(Ok(opened));
                        Work::new(sources, flags).run(&sender);
                    }
                    Err(error) => drop(opened_sender.send(Err(error))),
                }
            })
            .map_err(|source| Error::Io {
                what: "starting a thread".to_owned(),
                source,
            })?;
        let this = Self {
            rounds,
            wants_costs,
            stops,
            thread: Some(thread),
        };
        match opened.recv() {
            Ok(opened) => opened.map(|opened| (this, opened)),
            Err(_) => Err(Error::Io {
                what: "opening events".to_owned(),
                source: std::io::ErrorKind::Other.into(),
            }),
        }
    }

    /// The next round, if there is one before the time is up.
    pub(super) fn next(&self, timeout: Duration) -> Result<Option<Round>, Error> {
        match self.rounds.recv_timeout(timeout) {
            Ok(round) => round.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// One of the next rounds brings the kernel's counters.
    pub(super) fn ask_for_costs(&self) {
        self.wants_costs.store(true, Ordering::SeqCst);
    }

    /// Recording ends, and the last round comes.
    pub(super) fn stop(&self) {
        self.stops.store(true, Ordering::SeqCst);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
        // So that it does not wait for somebody to take its rounds.
        while self.rounds.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What it empties.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) session: Session,
    pub(super) instruments: Instruments,
    pub(super) devices: Option<(Session, DeviceInstruments)>,
    pub(super) profile: Option<(Profiler, Symbols)>,
    /// Processes that are traced from the beginning.
    pub(super) pids: std::collections::HashSet<u32>,
}

struct Work {
    sources: Sources,
    wants_costs: Arc<AtomicBool>,
    stops: Arc<AtomicBool>,
    /// Lost records that events told of.
    lost: u64,
    lost_of_devices: u64,
}

impl Work {
    fn new(sources: Sources, flags: (Arc<AtomicBool>, Arc<AtomicBool>)) -> Self {
        let (wants_costs, stops) = flags;
        Self {
            sources,
            wants_costs,
            stops,
            lost: 0,
            lost_of_devices: 0,
        }
    }

    fn run(mut self, rounds: &SyncSender<Result<Round, Error>>) {
        loop {
            let round = self.round();
            let over = round.as_ref().map_or(true, |round| round.last);
            if rounds.send(round).is_err() || over {
                return;
            }
            // However many paths are opened, this is no more than a few thousand rounds a second.
            std::thread::sleep(PAUSE);
        }
    }

    fn round(&mut self) -> Result<Round, Error> {
        let mut round = Round::default();
        if self.stops.load(Ordering::SeqCst) {
            round.last = true;
            self.sources.session.disable()?;
            if let Some((devices, _)) = &self.sources.devices {
                devices.disable()?;
            }
        } else {
            round.ended = self.sources.session.wait(ROUND)? == Woken::Ended;
        }
        let fresh = self.sources.take(&mut round);
        for (_, event) in &fresh {
            match event {
                Event::Lost { records } => self.lost += records,
                Event::LostOfDevices { records } => self.lost_of_devices += records,
                _ => {}
            }
        }
        round.events = look(fresh);
        if round.last {
            self.find_silent_losses(&mut round)?;
            let profile = self.sources.profile.as_mut();
            round.samples = profile.map(|(profiler, symbols)| profiler.take(symbols, 0));
        }
        if round.last || self.wants_costs.swap(false, Ordering::SeqCst) {
            round.costs = Some(self.sources.costs()?);
        }
        round.foreign_calls = self.sources.instruments.foreign_calls;
        Ok(round)
    }

    /// Records can be lost without any later one that would tell.
    fn find_silent_losses(&self, round: &mut Round) -> Result<(), Error> {
        let records = self.sources.session.lost()?.saturating_sub(self.lost);
        if records > 0 {
            round.events.push((u64::MAX, Event::Lost { records }));
        }
        if let Some((devices, _)) = &self.sources.devices {
            let records = devices.lost()?.saturating_sub(self.lost_of_devices);
            if records > 0 {
                round
                    .events
                    .push((u64::MAX, Event::LostOfDevices { records }));
            }
        }
        Ok(())
    }
}

impl Sources {
    fn take(&mut self, round: &mut Round) -> Vec<Timed> {
        let mut events = Vec::new();
        // A record is handed out in the round after the one in which it was stored; the second is
        // there for the first.
        let rounds = if round.last { 1 } else { 2 };
        for _ in 0..rounds {
            let instruments = &mut self.instruments;
            let pids = &mut self.pids;
            let mut profiler = self.profile.as_mut().map(|(profiler, _)| profiler);
            let each = |record: Record<'_>| {
                if let Some(profiler) = &mut profiler {
                    profiler.add(&record);
                }
                let Some(event) = instruments.event(&record) else {
                    return;
                };
                if let Event::Fork { child, .. } = event {
                    pids.insert(child.pid);
                }
                events.push((record.time_ns, event));
            };
            round.misread += drain(&mut self.session, round.last, each);
            if let Some((session, devices)) = &mut self.devices {
                let each = |record: Record<'_>| {
                    let event = devices.event(&record, |pid| pids.contains(&pid));
                    events.extend(event.map(|event| (record.time_ns, event)));
                };
                round.misread += drain(session, round.last, each);
            }
        }
        events
    }

    fn costs(&self) -> Result<Costs, Error> {
        Ok(Costs {
            mode_switches: 2 * self.session.total(self.instruments.returned)?,
            context_switches: self.session.total(self.instruments.context_switches)?,
            major_faults: self.session.total(self.instruments.major_faults)?,
            cpu_ns: self.session.total(self.instruments.cpu_ns)?,
        })
    }
}

/// Returns the bytes that were not understood.
fn drain(session: &mut Session, all: bool, each: impl FnMut(Record<'_>)) -> u64 {
    let drained = if all {
        session.drain_all(each)
    } else {
        session.drain(each)
    };
    drained.misread
}

/// Looks at what calls made, unless it is known to be closed again.
fn look(mut events: Vec<Timed>) -> Vec<Timed> {
    let mut closed_at: HashMap<(u32, i32), usize> = HashMap::new();
    for (at, (_, event)) in events.iter().enumerate() {
        if let Some(closed) = closed_by(event) {
            closed_at.insert(closed, at);
        }
    }
    for (at, (_, event)) in events.iter_mut().enumerate() {
        let Event::Call(call) = event else { continue };
        let Some((pid, fd)) = makes(call) else {
            continue;
        };
        // dup2 closes what it makes anew, which is no reason against a look.
        if closed_at.get(&(pid, fd)).is_none_or(|&closed| closed <= at) {
            call.made = Procfs::default().object(pid, fd).map(Box::new);
        }
    }
    events
}

fn closed_by(event: &Event) -> Option<(u32, i32)> {
    match event {
        Event::Call(call) => closes(call),
        _ => None,
    }
}

/// Opening a path ends it, and a ring that is half full.
const ROUND: Duration = Duration::from_millis(25);
const PAUSE: Duration = Duration::from_micros(200);
/// Rounds that wait for the ledger; then the rings fill, and what is lost is counted.
const ROUNDS_AHEAD: usize = 256;
