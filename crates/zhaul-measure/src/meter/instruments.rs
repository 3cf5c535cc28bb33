//! The instruments that record: breakpoints on copy routines, and clock samples. While they run, a
//! thread of their own empties the ring.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::EventfdFlags;

use crate::perf::{
    CopyEvents, CopyRoutines, Error, PERIOD_NS, Profiler, Record, Session, Switch, Symbols, Target,
    Woken,
};

use super::{Copied, Missing, Reading, Wanted};

/// One session and what is made of its records.
#[derive(Debug)]
pub(super) struct Instruments {
    symbols: &'static Symbols,
    switch: Switch,
    /// With the thread that empties the ring while there is one.
    tally: Option<Tally>,
    running: Option<Running>,
    copies: bool,
}

#[derive(Debug)]
struct Running {
    drainer: JoinHandle<Result<Tally, Error>>,
    /// Readable when the drainer is to end.
    end: OwnedFd,
}

#[derive(Debug)]
struct Tally {
    session: Session,
    lost_before: u64,
    copies: Option<(CopyEvents, Copied)>,
    profiler: Option<Profiler>,
}

impl Instruments {
    /// `None` if nothing is wanted or nothing can be had.
    pub(super) fn of_this_thread(wanted: Wanted, missing: &mut Vec<Missing>) -> Option<Self> {
        if !wanted.copies && !wanted.profile {
            return None;
        }
        let wants = [(wanted.copies, "copies"), (wanted.profile, "profile")];
        let wants = wants
            .into_iter()
            .filter_map(|(wanted, what)| wanted.then_some(what));
        let Ok(symbols) = Symbols::shared() else {
            for what in wants {
                missing.extend(Symbols::shared().err().map(|why| Missing { what, why }));
            }
            return None;
        };
        let routines = wanted.copies.then(|| CopyRoutines::find(symbols));
        let routines = routines.and_then(|found| {
            let lack = |why| {
                missing.push(Missing {
                    what: "copies",
                    why,
                });
            };
            found.map_err(lack).ok()
        });
        if routines.is_none() && !wanted.profile {
            return None;
        }
        let what = if wanted.profile { "profile" } else { "copies" };
        Self::attach(symbols, routines.as_ref(), wanted.profile)
            .map_err(|why| missing.push(Missing { what, why }))
            .ok()
    }

    fn attach(
        symbols: &'static Symbols,
        routines: Option<&CopyRoutines>,
        profile: bool,
    ) -> Result<Self, Error> {
        let mut builder = Session::builder();
        builder.ring_bytes(RING_BYTES);
        let events = routines.map(|routines| routines.add_to(&mut builder));
        let profiler = profile.then(|| Profiler::new(&mut builder, PERIOD_NS));
        let session = builder.attach(Target::ThisThread)?;
        Ok(Self {
            symbols,
            switch: session.switch(),
            copies: events.is_some(),
            tally: Some(Tally {
                session,
                lost_before: 0,
                copies: events.map(|events| (events, Copied::default())),
                profiler,
            }),
            running: None,
        })
    }

    pub(super) fn copies(&self) -> bool {
        self.copies
    }

    pub(super) fn start(&mut self) -> Result<(), Error> {
        let Some(mut tally) = self.tally.take() else {
            return Ok(());
        };
        tally.begin(self.symbols)?;
        let fd = |error| Error::io("making an eventfd", error);
        let end = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(fd)?;
        let theirs = end
            .try_clone()
            .map_err(|error| Error::io("copying a descriptor", error))?;
        let drainer = thread::Builder::new()
            .name("zhaul-meter".into())
            .spawn(move || tally.fill(&theirs))
            .map_err(|error| Error::io("starting a thread", error))?;
        self.running = Some(Running { drainer, end });
        self.switch.enable()
    }

    pub(super) fn stop(&mut self, reading: &mut Reading) -> Result<(), Error> {
        self.switch.disable()?;
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        rustix::io::write(&running.end, &1_u64.to_ne_bytes())
            .map_err(|error| Error::io("ending a thread", error))?;
        let ended = running.drainer.join();
        let mut tally = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        tally.finish(self.symbols, reading)?;
        self.tally = Some(tally);
        Ok(())
    }
}

impl Drop for Instruments {
    fn drop(&mut self) {
        // A meter dropped while it runs: the drainer ends, and with it the session.
        if let Some(running) = self.running.take() {
            let _ = rustix::io::write(&running.end, &1_u64.to_ne_bytes());
            let _ = running.drainer.join();
        }
    }
}

impl Tally {
    /// Forgets what came before.
    fn begin(&mut self, symbols: &Symbols) -> Result<(), Error> {
        self.session.drain_all(|_| {});
        if let Some((_, copied)) = &mut self.copies {
            *copied = Copied::default();
        }
        if let Some(profiler) = &mut self.profiler {
            profiler.take(symbols, 0);
        }
        self.lost_before = self.session.lost()?;
        Ok(())
    }

    /// Empties the ring until `end` is readable.
    fn fill(mut self, end: &OwnedFd) -> Result<Self, Error> {
        while self.session.wait_or(Some(end.as_fd()), PAUSE)? != Woken::Other {
            self.add(false);
        }
        self.add(true);
        Ok(self)
    }

    fn add(&mut self, all: bool) {
        let (copies, profiler) = (&mut self.copies, &mut self.profiler);
        let each = |record: Record<'_>| {
            if let Some((events, copied)) = copies
                && let Some(copy) = events.copy(&record)
            {
                copied.add(copy);
            }
            if let Some(profiler) = profiler {
                profiler.add(&record);
            }
        };
        if all {
            self.session.drain_all(each);
        } else {
            self.session.drain(each);
        }
    }

    fn finish(&mut self, symbols: &Symbols, reading: &mut Reading) -> Result<(), Error> {
        let lost = self.session.lost()? - self.lost_before;
        reading.copied = self
            .copies
            .as_ref()
            .map(|(_, copied)| Copied { lost, ..*copied });
        reading.profile = self
            .profiler
            .as_mut()
            .map(|profiler| profiler.take(symbols, lost));
        Ok(())
    }
}

/// Each copy of a page takes some 150 bytes of it.
const RING_BYTES: usize = 4 << 20;
/// A ring that is not half full is emptied this often.
const PAUSE: Duration = Duration::from_millis(50);
