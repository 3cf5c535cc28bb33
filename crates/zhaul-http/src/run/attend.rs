//! The task of a connection whose answer has to wait for something.

use std::rc::Rc;
use std::sync::Arc;

use crate::answer::directory::{Listing, Unlisted};
use crate::files::storage::TimedOut;
use crate::message::body::BodyDiscard;
use crate::run::answer::{Answer, Exchange, Next};
use crate::run::connection::{Connection, Input, Phase};
use crate::run::linger::begin_to_linger;
use crate::run::requests::answer_requests;
use crate::run::send::{give_up, send};
use crate::run::worker::Worker;
use crate::wire::h1;

/// What is read of a request's body at a time.
const BODY_BYTES: usize = 16 * 1024;

/// Waits for what an answer needs, until the connection can wait for requests by itself again.
pub(crate) async fn wait_for(attended: Attended, connection: Rc<Connection>, mut next: Next) {
    let worker = &attended.worker;
    loop {
        match next {
            Next::Close => return,
            Next::Leave => {
                if begin_to_linger(&connection, &mut worker.reactor.receive_more.borrow_mut()) {
                    attended.leave(&connection);
                }
                return;
            }
            Next::Yield => {
                // Requests are there: this is no connection that rests.
                connection.enter(Phase::Working);
                connection.yield_turn().await;
            }
            Next::Load(load) => {
                connection.enter(Phase::Working);
                let loaded = worker.loader.load(load).await;
                connection.input.borrow_mut().loaded.push(loaded);
            }
            Next::List(asked) => {
                connection.enter(Phase::Working);
                let (listing, exchange) = *asked;
                let answer = list(worker, &connection, listing, exchange).await;
                if let Some(end) = finish(worker, &connection, answer).await {
                    next = end;
                    continue;
                }
            }
            Next::Send(answer) => {
                if let Some(end) = finish(worker, &connection, *answer).await {
                    next = end;
                    continue;
                }
            }
        }
        match answer_requests(worker, &connection, None) {
            Some(more) => next = more,
            None => return attended.leave(&connection),
        }
    }
}

/// Sends an answer that could not be sent at once; says how the connection ends, if it does.
async fn finish(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    mut answer: Answer,
) -> Option<Next> {
    if !send(worker, connection, &mut answer).await {
        return Some(Next::Close);
    }
    if !answer.framing.keep_alive {
        return Some(Next::Leave);
    }
    let request_body = answer.request_body.take()?;
    // A client may take its time with the body: nobody's file stays open for that.
    drop(answer);
    read_off(connection, request_body).await
}

/// Reads a directory where a disk may be waited for, and makes the answer that lists it.
async fn list(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    listing: Listing,
    exchange: Exchange,
) -> Answer {
    // Gone with the client and with the time limit.
    let asked = Arc::new(());
    let wanted = Arc::downgrade(&asked);
    let (tree, pages) = (Arc::clone(worker.tree()), worker.pages.clone());
    let dir = Arc::clone(listing.dir());
    let job = move || {
        let made = listing.make(&tree, &pages, wanted);
        made.map(|(page, memory)| (listing, page, memory))
    };
    let pool = &dir.file_system().listings;
    let made = worker.tree().storage.run(pool, job).await;
    drop(asked);
    let failed = match made {
        Ok(Ok((listing, page, memory))) => {
            let response = listing.respond(page);
            let message = h1::write(response, exchange.framing, &worker.clock);
            let mut answer = Answer::new(worker, connection, message, exchange);
            answer.pages = Some(memory);
            return answer;
        }
        Ok(Err(Unlisted::TooMany)) => {
            let why = || "too many listings are waiting for slow clients".to_owned();
            worker.reports.warn(why);
            503
        }
        Ok(Err(Unlisted::Failed(errno))) => {
            worker
                .reports
                .error(|| format!("cannot read a directory: {errno}"));
            500
        }
        Err(TimedOut) => {
            worker.reports.error(|| {
                "cannot read a directory: its file system did not answer in time".to_owned()
            });
            503
        }
    };
    give_up(worker, connection, exchange, failed)
}

/// Reads a request's body off, so that the next request is found behind it; says how the connection
/// ends, if it does.
async fn read_off(connection: &Connection, mut body: BodyDiscard) -> Option<Next> {
    connection.enter(Phase::Header);
    let mut bytes = std::mem::take(&mut connection.input.borrow_mut().bytes);
    let mut buffer = vec![0; BODY_BYTES];
    loop {
        let Ok(fed) = body.feed(&bytes) else {
            // Where the next request begins is not known, and the answer may still be under way.
            return Some(Next::Leave);
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
            Ok(0) | Err(_) => return Some(Next::Close),
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
            self.worker.connections.end(self.key);
        }
    }
}
