//! The thread that takes back what nobody waits for: what a dropped sender left out, and what was passed
//! on from another process.
//!
//! A process in the middle may sleep in its receiver, whose sender waits for the very buffers that the
//! third process has given back. So as soon as a sender passes on what is not its own, it is attended
//! to here: each return wakes this thread, which gives the buffer back to the first process at once. There
//! is one such thread in a process, started when it is first needed.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use super::error::ChannelError;
use super::lent::{Lent, Next};
use super::wire::MAX_WINDOW;

/// A sender's end, shared with the thread once it attends to it.
#[derive(Debug)]
pub(super) struct Shared {
    key: u64,
    lent: Mutex<Lent>,
    came: Condvar,
    #[cfg(feature = "tokio")]
    pub(super) notify: tokio::sync::Notify,
}

/// The sender's end while its owner works on it.
pub(super) struct Access<'a> {
    shared: &'a Arc<Shared>,
    /// Always there but while it waits.
    lent: Option<MutexGuard<'a, Lent>>,
}

impl Shared {
    pub(super) fn new(lent: Lent) -> Arc<Self> {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            lent: Mutex::new(lent),
            came: Condvar::new(),
            #[cfg(feature = "tokio")]
            notify: tokio::sync::Notify::new(),
        })
    }

    pub(super) fn access(self: &Arc<Self>) -> Access<'_> {
        Access {
            shared: self,
            lent: Some(self.lock()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its owner is gone: what is out is waited for here.
    pub(super) fn abandon(self: &Arc<Self>) {
        let mut access = self.access();
        access.say_gone();
        if access.len() > 0 && access.attend().is_err() {
            tracing::warn!("no thread to wait for buffers that are out: they are never used again");
            access.leak();
        }
        // What came back before the receiver was told to wake the thread wakes nobody.
        let lied = access.reclaim().is_err();
        if lied {
            access.forget_all();
        }
        access.abandoned = true;
        if access.len() == 0 {
            drop(access);
            self.forget();
        }
    }

    /// Uses at once again what is out.
    pub(super) fn revoke(self: &Arc<Self>) {
        self.access().forget_all();
        self.forget();
    }

    fn forget(&self) {
        if let Some(attendant) = ATTENDANT.get() {
            attendant.remove(self.key);
        }
    }
}

impl Access<'_> {
    /// Sleeps until something came back, or may have. False when the deadline passed.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<bool, ChannelError> {
        if !self.attended {
            return Lent::wait(self, deadline);
        }
        self.flush()?;
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let lent = self.lent.take().expect("it is not waiting");
        let came = &self.shared.came;
        self.lent = Some(match left {
            None => came.wait(lent).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                came.wait_timeout(lent, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        });
        self.check()?;
        Ok(true)
    }

    /// Waits for room on the socket, which the thread may read meanwhile. False when the deadline passed.
    pub(super) fn wait_for_room(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<bool, ChannelError> {
        let socket = self.socket().clone();
        self.lent = None;
        let room = socket.wait(true, deadline);
        self.lent = Some(self.shared.lock());
        self.check()?;
        room
    }

    /// Has the thread attend to it from now on.
    pub(super) fn attend(&mut self) -> Result<(), ChannelError> {
        if !self.attended {
            attendant()?.add(self.shared, self)?;
            self.begin_attendance();
        }
        Ok(())
    }
}

impl Deref for Access<'_> {
    type Target = Lent;

    fn deref(&self) -> &Lent {
        self.lent.as_ref().expect("it is not waiting")
    }
}

impl DerefMut for Access<'_> {
    fn deref_mut(&mut self) -> &mut Lent {
        self.lent.as_mut().expect("it is not waiting")
    }
}

#[derive(Debug)]
struct Attendant {
    epoll: OwnedFd,
    attended: Mutex<HashMap<u64, Arc<Shared>>>,
}

static ATTENDANT: OnceLock<Attendant> = OnceLock::new();

fn attendant() -> Result<&'static Attendant, ChannelError> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(attendant) = ATTENDANT.get() {
        return Ok(attendant);
    }
    let epoll =
        epoll::create(epoll::CreateFlags::CLOEXEC).map_err(ChannelError::errno("epoll_create1"))?;
    let watched = epoll.try_clone().map_err(ChannelError::io("fcntl"))?;
    std::thread::Builder::new()
        .name("zhaul-returns".into())
        .spawn(move || serve(&watched))
        .map_err(ChannelError::io("clone"))?;
    Ok(ATTENDANT.get_or_init(|| Attendant {
        epoll,
        attended: Mutex::default(),
    }))
}

fn serve(epoll: &OwnedFd) {
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        // EINTR; nothing else can be wrong with a descriptor of our own.
        let _ = epoll::wait(epoll, spare_capacity(&mut events), None);
        let Some(attendant) = ATTENDANT.get() else {
            continue;
        };
        for event in &events {
            let key = { event.data }.u64();
            // Giving a slot back to its pool wakes tasks, which may panic: that is theirs to deal with, and
            // others wait for this thread. Each time at least one buffer came back.
            let look = || catch_unwind(AssertUnwindSafe(|| attendant.look_at(key)));
            let _ = (0..=MAX_WINDOW).find(|_| look().is_ok());
        }
    }
}

impl Attendant {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Shared>>> {
        self.attended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, shared: &Arc<Shared>, lent: &Lent) -> Result<(), ChannelError> {
        let data = epoll::EventData::new_u64(shared.key);
        // Held, so that the thread finds in the list what it is told of.
        let mut attended = self.lock();
        epoll::add(&self.epoll, lent.socket(), data, epoll::EventFlags::IN)
            .map_err(ChannelError::errno("epoll_ctl"))?;
        attended.insert(shared.key, Arc::clone(shared));
        Ok(())
    }

    fn remove(&self, key: u64) {
        // Dropped after the lock is released.
        let removed = self.lock().remove(&key);
        if let Some(shared) = removed {
            let lent = shared.lock();
            // Mostly one of them is watched.
            let _ = epoll::delete(&self.epoll, lent.socket());
            let _ = epoll::delete(&self.epoll, lent.leases());
        }
    }

    fn look_at(&self, key: u64) {
        let shared = self.lock().get(&key).cloned();
        let Some(shared) = shared else {
            return;
        };
        let mut lent = shared.lock();
        let next = lent.look();
        if next == Next::WatchLeases {
            let _ = epoll::delete(&self.epoll, lent.socket());
            let data = epoll::EventData::new_u64(key);
            // Nothing is asked for: that all other ends are closed is always told. Without a watch what is
            // out stays out.
            let _ = epoll::add(
                &self.epoll,
                lent.watch_leases(),
                data,
                epoll::EventFlags::empty(),
            );
        }
        drop(lent);
        shared.came.notify_all();
        #[cfg(feature = "tokio")]
        shared.notify.notify_waiters();
        if next == Next::Done {
            self.remove(key);
        }
    }
}
