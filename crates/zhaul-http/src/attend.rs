//! The task of a connection whose answer has to wait for something.

use std::rc::Rc;

use crate::answer::{Answer, Next};
use crate::body::BodyDiscard;
use crate::connection::{Connection, Input, Phase};
use crate::lookup::{Load, Loaded};
use crate::worker::Worker;

/// What is read of a request's body at a time.
const BODY_BYTES: usize = 16 * 1024;

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
            Event::Leave | Event::Next(Next::Leave) => {
                if worker.begin_to_linger(&connection) {
                    attended.leave(&connection);
                }
                return;
            }
            Event::Yield | Event::Next(Next::Sent) => {
                // Requests are there: this is no connection that rests.
                connection.enter(Phase::Working);
                tokio::task::yield_now().await;
            }
            Event::Next(Next::Load(load)) => {
                connection.enter(Phase::Working);
                let loaded = load_cold(worker, load).await;
                connection.input.borrow_mut().loaded.push(loaded);
            }
            Event::Next(Next::List(listing)) => {
                connection.enter(Phase::Working);
                let answer = worker.list_directory(*listing).await;
                if let Some(end) = finish(worker, &connection, answer).await {
                    event = end;
                    continue;
                }
            }
            Event::Next(Next::Send(answer)) => {
                if let Some(end) = finish(worker, &connection, *answer).await {
                    event = end;
                    continue;
                }
            }
        }
        match worker.answer_requests(&connection, None) {
            Some(next) => event = next,
            None => return attended.leave(&connection),
        }
    }
}

/// Sends an answer that could not be sent at once; says how the connection ends, if it does.
async fn finish(worker: &Worker, connection: &Connection, mut answer: Answer) -> Option<Event> {
    if !worker.send(connection, &mut answer).await {
        return Some(Event::Close);
    }
    if !answer.keep_alive {
        return Some(Event::Leave);
    }
    read_off(connection, answer.request_body.take()?).await
}

async fn load_cold(worker: &Rc<Worker>, wanted: Load) -> Loaded {
    let Load { path, is_dir, came } = wanted;
    let result = worker.load(&path, is_dir).await;
    Loaded {
        path,
        is_dir,
        came,
        result,
    }
}

/// Reads a request's body off, so that the next request is found behind it; says how the connection
/// ends, if it does.
async fn read_off(connection: &Connection, mut body: BodyDiscard) -> Option<Event> {
    connection.enter(Phase::Header);
    let mut bytes = std::mem::take(&mut connection.input.borrow_mut().bytes);
    let mut buffer = vec![0; BODY_BYTES];
    loop {
        let Ok(fed) = body.feed(&bytes) else {
            // Where the next request begins is not known, and the answer may still be under way.
            return Some(Event::Leave);
        };
        if fed.done {
            bytes.drain(..fed.consumed);
            connection.input.replace(Input {
                bytes,
                ..Input::default()
            });
            return None;
        }
        match connection.stream.recv(&mut buffer).await {
            Ok(n @ 1..) => {
                bytes = buffer[..n].to_vec();
                tokio::task::yield_now().await;
            }
            Ok(0) | Err(_) => return Some(Event::Close),
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
            self.worker.end(self.key);
        }
    }
}
