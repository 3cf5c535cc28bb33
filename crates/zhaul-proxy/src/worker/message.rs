//! What other threads tell a worker.

use std::sync::{Arc, mpsc};

use zhaul_service::Mailbox;

use super::session::SessionView;
use crate::state::queue::{Notify, Queue};
use crate::state::site::Site;

/// Something a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A session that waits for a place may try again. If it has gone meanwhile, the next one may.
    PlaceFree { queue: Arc<Queue>, session: u64 },
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

impl Notify for Mailbox<Message> {
    fn place_free(&self, queue: Arc<Queue>, session: u64) {
        self.send(Message::PlaceFree { queue, session });
    }
}
