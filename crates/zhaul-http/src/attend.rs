//! The task of a connection whose answer has to wait for something.

use std::rc::Rc;
use std::sync::Arc;

use crate::answer::{Answer, Next};
use crate::body::BodyDiscard;
use crate::connection::{Connection, Input, Phase};
use crate::entry::load;
use crate::lookup::Loaded;
use crate::root::Walk;
use crate::worker::Worker;

/// What is read of a request's body at a time.
const BODY_BYTES: usize = 16 * 1024;
/// Reads from a client that was told that nothing more will be said.
const LINGER_READS: usize = 64;

/// What keeps a connection from just waiting for its next request.
pub(crate) enum Event {
    /// The client is gone, or nothing more is to be said to it.
    Close,
    /// The server is stopping: the client is told that nothing more will be said.
    Leave,
    /// Others have waited long enough.
    Yield,
    Next(Next),
}

/// Waits for what an answer needs, until the connection can wait for requests by itself again.
pub(crate) async fn wait_for(attended: Attended, connection: Rc<Connection>, mut event: Event) {
    let worker = &attended.worker;
    loop {
        match event {
            Event::Close | Event::Next(Next::Close) => return,
            Event::Leave => return leave(&connection).await,
            Event::Yield | Event::Next(Next::Sent) => {
                // Requests are there: this is no connection that rests.
                connection.enter(Phase::Working);
                tokio::task::yield_now().await;
            }
            Event::Next(Next::Load { path, is_dir }) => {
                connection.enter(Phase::Working);
                let loaded = load_cold(worker, path, is_dir).await;
                connection.input.borrow_mut().loaded.push(loaded);
            }
            Event::Next(Next::List(listing)) => {
                connection.enter(Phase::Working);
                let answer = worker.list_directory(*listing).await;
                if !finish(worker, &connection, answer).await {
                    return;
                }
            }
            Event::Next(Next::Send(answer)) => {
                if !finish(worker, &connection, *answer).await {
                    return;
                }
            }
        }
        match worker.answer_requests(&connection, None) {
            Some(next) => event = next,
            None => return attended.leave(&connection),
        }
    }
}

/// Sends an answer that could not be sent at once; false ends the connection.
async fn finish(worker: &Worker, connection: &Connection, mut answer: Answer) -> bool {
    if !worker.send(connection, &mut answer).await {
        return false;
    }
    if answer.keep_alive {
        return match answer.request_body.take() {
            None => true,
            Some(body) => read_off(connection, body).await,
        };
    }
    if answer.lingers {
        leave(connection).await;
    } else {
        connection.stream.shutdown_send();
    }
    false
}

/// Says good-bye, and waits until the client has closed its side or has taken too long. Closing
/// while bytes of the client are unread makes the kernel send a reset, which can destroy the answer
/// before the client has read it.
async fn leave(connection: &Connection) {
    connection.stream.shutdown_send();
    connection.enter(Phase::Lingering);
    let mut buffer = vec![0; BODY_BYTES];
    for _ in 0..LINGER_READS {
        if !matches!(connection.stream.recv(&mut buffer).await, Ok(1..)) {
            return;
        }
        // A client that sends without a pause does not keep the others waiting.
        tokio::task::yield_now().await;
    }
}

async fn load_cold(worker: &Worker, path: Vec<u8>, is_dir: bool) -> Loaded {
    let site = Arc::clone(&worker.site);
    let pool = Arc::clone(&worker.site.cold);
    let job = move || {
        let found = load(&site, &path, is_dir, Walk::Full);
        (path, found)
    };
    let (path, found) = pool.run(job).await;
    let result = found.map(|found| worker.keep(&path, is_dir, found));
    Loaded {
        path,
        is_dir,
        result,
    }
}

/// Reads a request's body off, so that the next request is found behind it.
async fn read_off(connection: &Connection, mut body: BodyDiscard) -> bool {
    connection.enter(Phase::Header);
    let mut bytes = std::mem::take(&mut connection.input.borrow_mut().bytes);
    let mut buffer = vec![0; BODY_BYTES];
    loop {
        let Ok(fed) = body.feed(&bytes) else {
            return false;
        };
        if fed.done {
            bytes.drain(..fed.consumed);
            connection.input.replace(Input {
                bytes,
                ..Input::default()
            });
            return true;
        }
        match connection.stream.recv(&mut buffer).await {
            Ok(n @ 1..) => {
                bytes = buffer[..n].to_vec();
                tokio::task::yield_now().await;
            }
            Ok(0) | Err(_) => return false,
        }
    }
}

/// A connection that a task attends to. Unless the task [leaves](Self::leave) it in order, it is
/// closed when the task ends, in whatever way.
pub(crate) struct Attended {
    worker: Rc<Worker>,
    key: usize,
    leaves: bool,
}

impl Attended {
    pub(crate) fn new(worker: &Rc<Worker>, key: usize) -> Self {
        worker.attending.set(worker.attending.get() + 1);
        Self {
            worker: Rc::clone(worker),
            key,
            leaves: false,
        }
    }

    /// Gives the connection back to the reactor.
    fn leave(mut self, connection: &Connection) {
        connection.task.replace(None);
        self.leaves = true;
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.worker.attending.set(self.worker.attending.get() - 1);
        if !self.leaves {
            self.worker.remove(self.key);
        }
    }
}
