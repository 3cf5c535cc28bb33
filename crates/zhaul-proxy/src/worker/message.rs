//! What other threads tell a worker.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use zhaul_service::Wake;

use crate::pool::Pool;
use crate::session::SessionView;
use crate::site::Site;

/// Something a worker is told.
#[derive(Debug)]
pub(crate) enum Letter {
    /// A session that waits for a place may try again. If it has gone meanwhile, the next one may.
    PlaceFree { pool: Arc<Pool>, session: u64 },
    /// A new configuration is in force.
    Site(Arc<Site>),
    /// Accept nothing more; sessions may end. The configuration has no sockets any more.
    Drain(Arc<Site>),
    /// End every session now.
    Stop,
    /// Say what sessions there are.
    List(mpsc::Sender<Vec<SessionView>>),
    /// End the session of this number.
    Kill { number: u64 },
}

/// Leads to one worker, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    letters: Arc<Mutex<Vec<Letter>>>,
    wake: Wake,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            letters: Arc::default(),
            wake: Wake::new()?,
        })
    }

    /// What the worker sleeps on.
    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    pub(crate) fn send(&self, letter: Letter) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push(letter);
        let is_first = letters.len() == 1;
        drop(letters);
        // The worker takes all letters at once, so one call is enough until it does.
        if is_first {
            self.wake.wake();
        }
    }

    /// Takes what has come.
    pub(crate) fn take(&self) -> Vec<Letter> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *letters)
    }
}
