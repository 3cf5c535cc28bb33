//! One sample: a number of transfers between ends that are all ready, and what they cost each end.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::content::Content;
use super::cores::{Cores, pin};
use super::ends::Ends;
use super::feeder::feed;
use super::mover::{Job, Mover};
use super::receiver::receive;
use super::results::Cost;
use crate::meter::{Account, Meter, Reading};

/// What every sample of a run shares.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) cores: Cores,
    /// The receiver's.
    pub(super) buffer: Vec<u8>,
}

/// How a sample is taken.
pub(super) enum Mode<'a> {
    /// Nothing but the clock and the accounts.
    Timed,
    /// The receiver hashes what it gets.
    Hashed,
    /// With instruments on the mover.
    Metered(&'a mut Meter),
}

/// What a sample gave.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) wall: Duration,
    pub(super) mover: Cost,
    pub(super) receiver: Option<Cost>,
    pub(super) feeder: Option<Cost>,
    /// Of all that came through a connection, if asked for.
    pub(super) digest: Option<u64>,
    /// What the instruments saw, if there were any.
    pub(super) reading: Option<Reading>,
    /// Bytes sent by reference that the kernel copied after all, where that is known.
    pub(super) copied_after_all: Option<u64>,
}

struct Received {
    at: Instant,
    cost: Cost,
    digest: Option<u64>,
}

/// Keeps the feeder from filling buffers before the mover begins.
#[derive(Default)]
struct Gate {
    ready: AtomicUsize,
    open: AtomicBool,
}

impl Gate {
    fn arrive(&self) {
        self.ready.fetch_add(1, Ordering::Release);
    }

    fn pass(&self) {
        self.arrive();
        while !self.open.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }

    fn open_for(&self, others: usize) {
        while self.ready.load(Ordering::Acquire) < others {
            thread::yield_now();
        }
        self.open.store(true, Ordering::Release);
    }
}

/// Moves `repeats` times, on this thread, between `ends`, which `job` names.
///
/// # Errors
/// What went wrong at the mover, or else at the others: InvalidData if the mover finished, and the
/// receiver did not get all. The ends are of no use any more then.
pub(super) fn take(
    stage: &mut Stage,
    ends: &Ends,
    content: &Content,
    (mover, job, repeats): (&mut Mover, &Job<'_>, u64),
    mode: Mode<'_>,
) -> io::Result<Taken> {
    let total = job.bytes * repeats;
    let cores = stage.cores;
    let buffer = &mut stage.buffer[..];
    let hashed = matches!(mode, Mode::Hashed);
    let gate = &Gate::default();
    thread::scope(|scope| {
        let acknowledged = ends.sink.acknowledged();
        let receiver = ends.sink.far().map(|far| {
            scope.spawn(move || {
                pin(cores.receiver);
                gate.arrive();
                let account = Account::of_this_thread();
                let digest = receive(far, buffer, (total, acknowledged), hashed)?;
                let at = Instant::now();
                Ok(Received {
                    at,
                    cost: account.until_now(),
                    digest,
                })
            })
        });
        let feeder = ends.source.far().map(|far| {
            scope.spawn(move || {
                pin(cores.feeder);
                gate.pass();
                let account = Account::of_this_thread();
                let fed = feed(far, content, total);
                if fed.is_err() {
                    // The mover would wait for the rest. A pipe's reader is gone already.
                    let _ = rustix::net::shutdown(far, rustix::net::Shutdown::Write);
                }
                fed.map(|()| account.until_now())
            })
        });
        gate.open_for(usize::from(receiver.is_some()) + usize::from(feeder.is_some()));
        let moved = move_all(mover, job, repeats, mode);
        if moved.is_err() {
            ends.hang_up();
            if let (Some(feeder), Some(source)) = (&feeder, ends.source.stream()) {
                release(feeder, source);
            }
        }
        let received = receiver.map(join).transpose();
        let fed = feeder.map(join).transpose();
        let moved = moved?;
        // The mover says that it moved them all.
        let received = received.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let feeder = fed?;
        let ended = received
            .as_ref()
            .map_or(moved.ended, |r| r.at.max(moved.ended));
        Ok(Taken {
            wall: ended - moved.began,
            mover: moved.cost,
            digest: received.as_ref().and_then(|received| received.digest),
            receiver: received.map(|received| received.cost),
            feeder,
            reading: moved.reading,
            copied_after_all: moved.copied_after_all,
        })
    })
}

struct Moved {
    began: Instant,
    ended: Instant,
    cost: Cost,
    reading: Option<Reading>,
    copied_after_all: Option<u64>,
}

fn move_all(mover: &mut Mover, job: &Job<'_>, repeats: u64, mode: Mode<'_>) -> io::Result<Moved> {
    let mut meter = match mode {
        Mode::Metered(meter) => Some(meter),
        Mode::Timed | Mode::Hashed => None,
    };
    if let Some(meter) = &mut meter {
        meter.start().map_err(io::Error::other)?;
    }
    let account = Account::of_this_thread();
    let began = Instant::now();
    let moved = mover.move_all(job, repeats);
    let ended = Instant::now();
    let cost = account.until_now();
    let reading = meter.map(Meter::stop).transpose().map_err(io::Error::other);
    moved?;
    Ok(Moved {
        began,
        ended,
        cost,
        reading: reading?,
        copied_after_all: mover.take_copied(),
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Takes what a feeder still has, so that it ends: whoever should have taken it failed.
fn release<T>(feeder: &ScopedJoinHandle<'_, T>, source: BorrowedFd<'_>) {
    let mut scratch = [0; 64 << 10];
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    while !feeder.is_finished() {
        let mut fds = [PollFd::from_borrowed_fd(source, PollFlags::IN)];
        if poll(&mut fds, Some(&moment)).is_ok_and(|ready| ready > 0) {
            let _ = rustix::io::read(source, &mut scratch);
        }
    }
}
