//! What is logged of an answer when it ends, and reported when it does not end well.

use std::rc::Rc;

use zhaul::{Cause, Route, SendError, Stability};

use crate::files::lookup::Selected;
use crate::log::record::{Outcome, Record};
use crate::run::connection::Connection;
use crate::run::worker::Worker;
use crate::wire::h1::Message;

/// Writes the log line of an answer when it ends, in whatever way.
#[derive(Debug)]
pub(crate) struct Ending {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    pub(crate) account: Account,
    pub(crate) record: Option<Record>,
    pub(crate) complete: bool,
}

impl Ending {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        account: Account,
        record: Option<Record>,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            account,
            record,
            complete: false,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let record = self.record.as_ref();
        self.account
            .log(&self.worker, &self.connection, record, self.complete);
    }
}

/// What is to be known of an answer at its end.
#[derive(Debug)]
pub(crate) struct Account {
    status: u16,
    /// Content-Encoding.
    encoding: Option<&'static str>,
    /// What the connection will have sent when the body begins.
    body_from: u64,
    /// The file that is sent.
    selected: Option<Selected>,
}

impl Account {
    /// Of a message of which nothing is sent yet.
    pub(crate) fn new(message: &Message, connection: &Connection) -> Self {
        Self {
            status: message.status,
            encoding: message.encoding,
            body_from: connection.sent() + message.body_at as u64,
            selected: message.rest.selected().cloned(),
        }
    }

    /// The file that is sent, if it is one.
    pub(crate) fn selected(&self) -> Option<&Selected> {
        self.selected.as_ref()
    }

    /// Writes the line of an answer that has ended, in whatever way.
    pub(crate) fn log(
        &self,
        worker: &Worker,
        connection: &Connection,
        record: Option<&Record>,
        complete: bool,
    ) {
        let Some(record) = record else { return };
        let bytes = connection.sent().saturating_sub(self.body_from);
        let mut outcome = Outcome {
            complete,
            ..Outcome::from_memory(self.status, bytes, self.encoding)
        };
        if let Some(selected) = &self.selected {
            // What threads read for us is not a transfer's to tell.
            let is_remote = selected.file().file.is_remote();
            let route = connection.progress.route().filter(|_| !is_remote);
            outcome.route = route.unwrap_or(Route::ReadWrite).name();
        }
        let remote = connection.remote();
        worker.lines.write(record, remote, &outcome);
    }

    /// Reports why an answer is cut short, of a file on these terms.
    pub(crate) fn explain(
        &self,
        worker: &Worker,
        connection: &Connection,
        stability: Stability,
        error: &SendError,
    ) {
        let peer = connection.peer;
        let reports = &worker.reports;
        let Some(selected) = self.selected.as_ref().filter(|_| !error.is_disconnect()) else {
            return tracing::debug!("the answer to {peer} is cut short: {error}");
        };
        let path = selected.file().path();
        match error.cause {
            Cause::SourceEnded => reports.error(|| {
                format!(
                    "{path:?} ends before the size that its file system states; the connection to {peer} is closed there: {error}"
                )
            }),
            Cause::Truncated { .. } | Cause::Changed => {
                let remedy = match stability {
                    Stability::Immutable => {
                        " (replace files by rename, or use --stability lease or copy)"
                    }
                    _ => "",
                };
                reports.warn(|| format!("{path:?} changed while it was sent to {peer}; the connection is closed short of its length: {error}{remedy}"));
            }
            Cause::LeaseBroken => reports.warn(|| {
                format!(
                    "{path:?} is about to be written to, and {peer} did not take in time what it was sent; the answer is cut short: {error}"
                )
            }),
            _ => reports.error(|| format!("cannot send {path:?} to {peer}: {error}")),
        }
    }
}
