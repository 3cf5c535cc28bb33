//! What the access log needs of a request after the request's bytes are gone.

use std::time::{Instant, SystemTime};

use crate::access_log::{self, LogClock, Request, write_combined, write_json};
use crate::config::LogFormat;
use crate::connection::Connection;
use crate::lookup::Loaded;
use crate::request::RequestHead;
use crate::worker::Worker;
use zhaul_service::FLUSH_BYTES;

/// A request to be logged when its answer ends. One allocation holds all its text.
#[derive(Debug)]
pub(crate) struct Record {
    text: Box<[u8]>,
    /// Where in `text` method, target, referer and user agent end.
    ends: [usize; 4],
    /// `None` for what was no request.
    version_minor: Option<u8>,
    came: Came,
}

/// When a request was there, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    unix_us: u64,
    at: Instant,
}

impl Came {
    fn now() -> Self {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            unix_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            at: Instant::now(),
        }
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// Of the body.
    pub(crate) bytes: u64,
    pub(crate) complete: bool,
    pub(crate) route: &'static str,
    pub(crate) encoding: Option<&'static str>,
}

impl Outcome {
    /// A whole answer from memory.
    pub(crate) fn from_memory(status: u16, bytes: u64, encoding: Option<&'static str>) -> Self {
        Self {
            status,
            bytes,
            complete: true,
            route: MEMORY,
            encoding,
        }
    }
}

/// The route of what is in user-space memory when it is sent.
pub(crate) const MEMORY: &str = "memory";

impl Record {
    /// `came` if the request was there before and is looked at again.
    fn new(parts: [&[u8]; 4], version_minor: Option<u8>, came: Option<Came>) -> Self {
        let mut ends = [0; 4];
        let mut end = 0;
        for (part, at) in parts.iter().zip(&mut ends) {
            end += part.len();
            *at = end;
        }
        let text = parts.concat().into_boxed_slice();
        Self {
            text,
            ends,
            version_minor,
            came: came.unwrap_or_else(Came::now),
        }
    }

    /// When the request was there.
    pub(crate) fn came(&self) -> Came {
        self.came
    }

    fn part(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    fn request(&self) -> Request<'_> {
        let text = |index| std::str::from_utf8(self.part(index)).unwrap_or_default();
        match self.version_minor {
            None => Request::Malformed(self.part(1)),
            Some(version_minor) => Request::Parsed {
                method: text(0),
                target: text(1),
                version_minor,
            },
        }
    }
}

impl Worker {
    /// Notes what will be logged about a request; nothing when there is no log.
    ///
    /// A request that is parsed again because something had to be looked up for it came when it was
    /// parsed first.
    pub(crate) fn record(&self, head: &RequestHead<'_>, loaded: &[Loaded]) -> Option<Record> {
        self.log.as_ref()?;
        let parts = [
            head.method.as_str().as_bytes(),
            head.target.as_bytes(),
            head.referer.unwrap_or_default(),
            head.user_agent.unwrap_or_default(),
        ];
        let came = loaded.first().and_then(|loaded| loaded.came);
        Some(Record::new(parts, Some(head.version_minor), came))
    }

    /// The same for bytes that were no request.
    pub(crate) fn record_malformed(&self, line: &[u8]) -> Option<Record> {
        self.log.as_ref()?;
        Some(Record::new([b"", line, b"", b""], None, None))
    }

    /// Writes the line of an answer that has ended.
    pub(crate) fn log_line(&self, connection: &Connection, record: &Record, outcome: Outcome) {
        let Some(log) = &self.site.config.access_log else {
            return;
        };
        let duration_us = u64::try_from(record.came.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let some = |index| Some(record.part(index)).filter(|part| !part.is_empty());
        let line = access_log::Record {
            unix_us: record.came.unix_us,
            remote: connection.remote(),
            request: record.request(),
            status: outcome.status,
            bytes: outcome.bytes,
            referer: some(2),
            user_agent: some(3),
            duration_us,
            route: outcome.route,
            complete: outcome.complete,
            encoding: outcome.encoding,
        };
        let lines = &mut *self.log_lines.borrow_mut();
        match log.format {
            LogFormat::Combined => write_combined(&line, &mut lines.clock, &mut lines.bytes),
            LogFormat::Json => write_json(&line, &mut lines.clock, &mut lines.bytes),
        }
        let full = lines.bytes.len() >= FLUSH_BYTES;
        if full {
            self.hand_over(lines);
        }
    }

    /// Writes the line of an answer of which the client, already gone, got nothing.
    pub(crate) fn log_lost(&self, connection: &Connection, record: Option<&Record>, status: u16) {
        if let Some(record) = record {
            let outcome = Outcome {
                complete: false,
                ..Outcome::from_memory(status, 0, None)
            };
            self.log_line(connection, record, outcome);
        }
    }

    /// Sends the lines so far on their way to the disk.
    pub(crate) fn flush_log(&self) {
        self.hand_over(&mut self.log_lines.borrow_mut());
    }

    fn hand_over(&self, lines: &mut Lines) {
        let Some(log) = &self.log else { return };
        if !lines.bytes.is_empty() {
            let room = Vec::with_capacity(FLUSH_BYTES + 4096);
            log.send(std::mem::replace(&mut lines.bytes, room));
        }
    }
}

/// Lines that wait to be handed over.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    clock: LogClock,
}
