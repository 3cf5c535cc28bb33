//! A worker's part of the access log: what it notes of requests, and its lines until there are enough
//! of them to be handed over.

use std::cell::RefCell;

use zhaul_service::{FLUSH_BYTES, LogSender};

use crate::host::config::LogFormat;
use crate::log::access_log::{LogClock, write_combined, write_json};
use crate::log::record::{Came, Outcome, Record};
use crate::message::request::RequestHead;

/// Lines on their way to the log, if there is one.
#[derive(Debug)]
pub(crate) struct Lines {
    log: Option<(LogSender, LogFormat)>,
    waiting: RefCell<Waiting>,
}

/// Lines that wait to be handed over.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    clock: LogClock,
}

impl Lines {
    pub(crate) fn new(log: Option<(LogSender, LogFormat)>) -> Self {
        Self {
            log,
            waiting: RefCell::default(),
        }
    }

    /// Notes what will be logged about a request; nothing when there is no log.
    ///
    /// A request that is parsed again because something had to be looked up for it `came` when it was
    /// parsed first.
    pub(crate) fn note(&self, head: &RequestHead<'_>, came: Option<Came>) -> Option<Record> {
        self.log.as_ref()?;
        Some(Record::of(head, came))
    }

    /// The same for bytes that were no request.
    pub(crate) fn note_malformed(&self, line: &[u8]) -> Option<Record> {
        self.log.as_ref()?;
        Some(Record::of_malformed(line))
    }

    /// Writes the line of an answer to `remote` that has ended.
    pub(crate) fn write(&self, record: &Record, remote: &str, outcome: &Outcome) {
        let Some((log, format)) = &self.log else {
            return;
        };
        let line = record.line(remote, outcome);
        let waiting = &mut *self.waiting.borrow_mut();
        match format {
            LogFormat::Combined => write_combined(&line, &mut waiting.clock, &mut waiting.bytes),
            LogFormat::Json => write_json(&line, &mut waiting.clock, &mut waiting.bytes),
        }
        if waiting.bytes.len() >= FLUSH_BYTES {
            waiting.hand_over(log);
        }
    }

    /// Sends the lines so far on their way to the disk.
    pub(crate) fn flush(&self) {
        if let Some((log, _)) = &self.log {
            self.waiting.borrow_mut().hand_over(log);
        }
    }
}

impl Waiting {
    fn hand_over(&mut self, log: &LogSender) {
        if !self.bytes.is_empty() {
            let room = Vec::with_capacity(FLUSH_BYTES + 4096);
            log.send(std::mem::replace(&mut self.bytes, room));
        }
    }
}
