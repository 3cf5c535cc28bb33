//! A worker's life: serving until it is told to stop, then until the last answer is sent. Meanwhile it
//! sees to it that time limits are kept.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use zhaul_service::Stop;

use crate::host::clock::Clock;
use crate::run::accept::{Accepted, Acceptor};
use crate::run::admission::yield_descriptors;
use crate::run::connection::{Connection, Overdue, Phase};
use crate::run::requests::too_late;
use crate::run::rounds::{go_on, react, welcome};
use crate::run::worker::{SWEEP, Worker};

/// How long a draining worker waits for the first request of a connection.
const FRESH_MS: u64 = 1000;
/// Where connections are short, the rate of taking is averaged over no longer than this.
const CROWDED_SEND_WINDOW: Duration = Duration::from_secs(10);

/// Connections that another thread accepts for this worker; `None` if it accepts by itself.
type Inbox = Option<mpsc::UnboundedReceiver<Accepted>>;

async fn next_of(inbox: &mut Inbox) -> Option<Accepted> {
    match inbox {
        Some(inbox) => inbox.recv().await,
        None => std::future::pending().await,
    }
}

/// Serves what comes through `inbox`, or what `acceptors` let in, until it is told to stop and
/// the last answer is sent.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut inbox: Inbox,
    acceptors: Vec<Acceptor>,
    mut stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    worker.reactor.listen(acceptors)?;
    let reacting = tokio::task::spawn_local(react(Rc::clone(&worker)));
    let mut sweeps = tokio::time::interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shortages = 0;
    let mut told_to_stop = false;
    while !told_to_stop && !reacting.is_finished() {
        tokio::select! {
            accepted = next_of(&mut inbox) => match accepted {
                Some(accepted) => {
                    welcome(&worker, accepted);
                    // The runtime interrupts a task that always finds something.
                    let has_mail = inbox.as_ref().is_some_and(|inbox| !inbox.is_empty());
                    worker.has_mail.set(has_mail);
                }
                None => break,
            },
            _ = sweeps.tick() => sweep(&worker, &mut shortages),
            told = stop.wait_for(|stop| *stop != Stop::No) => told_to_stop = told.is_ok(),
        }
    }
    // Whoever comes now is refused.
    worker.reactor.close_listeners();
    drain(&worker, inbox, stop, &mut shortages).await;
    worker.lines.flush();
    if reacting.is_finished() {
        return reacting.await.map_err(io::Error::other)?;
    }
    reacting.abort();
    Ok(())
}

async fn drain(
    worker: &Rc<Worker>,
    mut inbox: Inbox,
    mut stop: watch::Receiver<Stop>,
    shortages: &mut usize,
) {
    worker.draining.set(true);
    // Accepted before the socket was closed: these clients were promised an answer.
    while let Some(Ok(accepted)) = inbox.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
        welcome(worker, accepted);
    }
    close_idle(worker);
    // A limit beyond what a clock can say is none.
    let drain_timeout = worker.site().config.limits.drain_timeout;
    let mut deadline = pin!(tokio::time::sleep(drain_timeout));
    let mut sweeps = tokio::time::interval(SWEEP);
    while worker.connections.len() > 0 {
        tokio::select! {
            () = worker.connections.one_less() => {}
            Some(accepted) = next_of(&mut inbox) => welcome(worker, accepted),
            _ = sweeps.tick() => sweep(worker, shortages),
            _ = stop.wait_for(|stop| *stop == Stop::Now) => break,
            () = &mut deadline => break,
        }
    }
    let left = worker.connections.len();
    if left > 0 {
        tracing::warn!("{left} connections were cut off when the time to drain had passed");
        end_all(worker, |_| Some(Overdue::Slow));
    }
    while worker.connections.len() > 0 {
        worker.connections.one_less().await;
    }
}

/// Ends what has run out of time, and does what is due now and then. `shortages` of descriptors are
/// those that something was done about.
fn sweep(worker: &Rc<Worker>, shortages: &mut usize) {
    let now_ms = Clock::now_ms();
    let limits = &worker.site().config.limits;
    let storage = worker.tree().storage.limit();
    // Who takes hardly anything takes a place from others, too.
    let window = match worker.door.is_crowded() {
        true => limits.send_window.min(CROWDED_SEND_WINDOW),
        false => limits.send_window,
    };
    end_all(worker, |connection| {
        connection.overdue(now_ms, limits, window, storage)
    });
    let counted = worker.door.shortages();
    if std::mem::replace(shortages, counted) != counted {
        yield_descriptors(worker);
    }
    if worker.draining.get() {
        close_idle(worker);
    }
    worker.reactor.end_rest();
    worker.files.sweep();
    worker.lines.flush();
}

fn close_idle(worker: &Rc<Worker>) {
    let now_ms = Clock::now_ms();
    end_all(worker, |connection| {
        // A client that has just connected may have sent a request that is not here yet.
        let spared = connection.served.get() == 0 && connection.age_ms(now_ms) < FRESH_MS;
        let idle = connection.phase() == Phase::Idle && !connection.has_task();
        (idle && !spared).then_some(Overdue::Quiet)
    });
}

fn end_all(worker: &Rc<Worker>, why: impl Fn(&Connection) -> Option<Overdue>) {
    for (key, connection, why) in worker.connections.filter(|connection| why(connection)) {
        if why == Overdue::Starved {
            let peer = connection.peer;
            worker.reports.error(|| {
                format!("the answer to {peer} is cut short: its file system did not answer in time")
            });
        }
        if matches!(why, Overdue::Slow | Overdue::Starved) {
            connection.stream.abort_queued();
        }
        if let Some(task) = &*connection.task.borrow() {
            task.abort();
            continue;
        }
        match why {
            Overdue::Header => {
                let answer = too_late(worker, &connection);
                go_on(worker, key, &connection, answer);
            }
            Overdue::Quiet | Overdue::Slow | Overdue::Starved => worker.connections.end(key),
        }
    }
}
