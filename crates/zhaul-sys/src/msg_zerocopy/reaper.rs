//! Sockets whose calls are numbered by us: who has them, and the thread that waits for the
//! completions of those whose sender was dropped.
//!
//! The thread starts with the first sender that is dropped while calls are pending. While there are
//! such sockets it sleeps in an edge-triggered epoll instance, since an error that stays would keep
//! a level-triggered one awake, and looks at all of them once a second; else it waits for the next.
//! If it cannot be started, memory is kept, and the next sender that is dropped tries again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::account::{Account, Freed};

/// A socket whose sender was dropped while calls were pending.
#[derive(Debug)]
struct Orphan {
    account: Account,
    /// The connection is reset when nothing was completed for so long.
    patience: Option<Duration>,
    since: Instant,
}

#[derive(Debug)]
enum Holder {
    Sender,
    Reaper(Box<Orphan>),
    /// Nothing is pending; the number of the next call.
    Nobody(u32),
}

struct Table {
    /// By the socket's cookie, which the kernel gives to no other until it is booted anew.
    holders: BTreeMap<u64, Holder>,
    orphans: usize,
    /// Sockets held by nobody, in the order in which they were left.
    idle: VecDeque<u64>,
    /// Of the thread, once it runs.
    epoll: Option<Arc<OwnedFd>>,
}

/// What is known of a socket that a sender has claimed.
#[derive(Debug)]
pub(super) enum Past {
    /// No sender had it.
    None,
    /// The last sender left nothing pending; the number of the next call.
    Next(u32),
    /// The last sender was dropped with calls pending.
    Pending(Account),
}

/// Gives the socket to a sender. `enable` is called unless another sender has the socket, with
/// whether one had it before; no other sender comes in between.
///
/// # Errors
/// EBUSY if a sender has it, or what `enable` says.
pub(super) fn claim(cookie: u64, enable: impl FnOnce(bool) -> io::Result<()>) -> io::Result<Past> {
    let mut table = table();
    let known = table.holders.get(&cookie);
    if matches!(known, Some(Holder::Sender)) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    enable(known.is_some())?;
    Ok(match table.holders.insert(cookie, Holder::Sender) {
        None | Some(Holder::Sender) => Past::None,
        Some(Holder::Nobody(next)) => {
            if let Some(place) = table.idle.iter().rposition(|idle| *idle == cookie) {
                table.idle.remove(place);
            }
            Past::Next(next)
        }
        Some(Holder::Reaper(orphan)) => {
            table.orphans -= 1;
            table.unwatch(&orphan.account);
            Past::Pending(orphan.account)
        }
    })
}

/// Takes the socket of a sender that is dropped.
pub(super) fn leave(account: Account, patience: Option<Duration>) {
    let cookie = account.cookie;
    let mut table = table();
    if account.calls.is_empty() {
        table.settle(&account);
        // Closing what may be the last descriptor of a connection takes its time.
        drop(table);
        drop(account);
        return;
    }
    table.orphans += 1;
    if let Some(epoll) = table.runs() {
        // What is not watched is looked at all the same.
        let _ = watch(&epoll, &account);
    }
    let orphan = Orphan {
        account,
        patience,
        since: Instant::now(),
    };
    let orphan = Holder::Reaper(Box::new(orphan));
    table.holders.insert(cookie, orphan);
    drop(table);
    LEFT.notify_one();
}

/// Sockets whose sender was dropped with calls pending, and the bytes of these.
pub(super) fn orphans() -> (usize, usize) {
    let table = table();
    let pending = table.holders.values().map(|holder| match holder {
        Holder::Reaper(orphan) => orphan.account.calls.pending(),
        Holder::Sender | Holder::Nobody(_) => 0,
    });
    (table.orphans, pending.sum())
}

impl Table {
    /// The thread's epoll instance; starts the thread if it does not run.
    fn runs(&mut self) -> Option<Arc<OwnedFd>> {
        if self.epoll.is_none() {
            let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC).ok()?);
            let thread = std::thread::Builder::new().name("zhaul-reaper".to_owned());
            let also = Arc::clone(&epoll);
            thread.spawn(move || run(&also)).ok()?;
            self.epoll = Some(epoll);
        }
        self.epoll.clone()
    }

    /// Closing our descriptor would not do: it stays watched as long as anybody has the socket open.
    fn unwatch(&self, account: &Account) {
        if let Some(epoll) = &self.epoll {
            // Fails if it could not be added.
            let _ = epoll::delete(epoll, &account.socket);
        }
    }

    /// Remembers the number of the next call on a socket that nobody holds, if it is known.
    fn settle(&mut self, account: &Account) {
        let Account { cookie, .. } = *account;
        if account.is_number_in_doubt {
            self.holders.remove(&cookie);
            return;
        }
        let next = account.calls.next();
        self.holders.insert(cookie, Holder::Nobody(next));
        self.idle.push_back(cookie);
        if self.idle.len() > REMEMBERED
            && let Some(oldest) = self.idle.pop_front()
        {
            self.holders.remove(&oldest);
        }
    }

    /// Takes what was completed on a socket, if it is still the reaper's. The socket comes too if
    /// nothing else is pending there.
    fn reap(&mut self, cookie: u64) -> Option<(Freed, Option<Account>)> {
        let Some(Holder::Reaper(orphan)) = self.holders.get_mut(&cookie) else {
            return None;
        };
        let mut freed = Freed::default();
        // An error that is not about the queue is looked at again within a second.
        if let Ok(reaped) = orphan.account.reap(&mut freed, |_| {})
            && reaped.calls > 0
        {
            orphan.since = Instant::now();
        }
        if !orphan.account.calls.is_empty() {
            if orphan
                .patience
                .is_some_and(|most| orphan.since.elapsed() > most)
            {
                orphan.patience = None;
                // What is queued is dropped and completed, which is an edge.
                let _ = rustix::net::connect_unspec(&orphan.account.socket);
            }
            return Some((freed, None));
        }
        let Some(Holder::Reaper(orphan)) = self.holders.remove(&cookie) else {
            return None;
        };
        self.orphans -= 1;
        self.unwatch(&orphan.account);
        self.settle(&orphan.account);
        Some((freed, Some(orphan.account)))
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(epoll: &OwnedFd, account: &Account) -> rustix::io::Result<()> {
    // EPOLLERR needs no asking for. What is in the queue already is the first edge.
    let cookie = EventData::new_u64(account.cookie);
    epoll::add(epoll, &account.socket, cookie, EventFlags::ET)
}

/// Reaps for ever.
fn run(epoll: &OwnedFd) {
    let mut room = [MaybeUninit::uninit(); 64];
    let mut looked = Instant::now();
    loop {
        let mut table = table();
        while table.orphans == 0 {
            table = LEFT.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        drop(table);
        let events = epoll::wait(epoll, &mut room, Some(&A_SECOND));
        let mut due: Vec<u64> = match events {
            Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
            Err(_) => {
                std::thread::sleep(Duration::from_secs(1));
                Vec::new()
            }
        };
        if looked.elapsed().as_secs() >= 1 {
            looked = Instant::now();
            due = all_orphans();
        }
        for cookie in due {
            let Some((freed, account)) = self::table().reap(cookie) else {
                continue;
            };
            // Owners run code of their own when they are dropped, which may come here again, so it
            // is done without the lock. A panic of one of them is not the reaper's end.
            for owners in freed.into_calls() {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(owners)));
            }
            drop(account);
        }
    }
}

fn all_orphans() -> Vec<u64> {
    let table = table();
    let orphans = table.holders.iter();
    let orphans = orphans.filter(|(_, holder)| matches!(holder, Holder::Reaper(_)));
    orphans.map(|(cookie, _)| *cookie).collect()
}

/// Sockets without a sender whose numbers are remembered. One that is forgotten looks like one that
/// somebody else enabled.
const REMEMBERED: usize = 4096;
const A_SECOND: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

static TABLE: Mutex<Table> = Mutex::new(Table {
    holders: BTreeMap::new(),
    orphans: 0,
    idle: VecDeque::new(),
    epoll: None,
});
/// A socket was left with calls pending.
static LEFT: Condvar = Condvar::new();
