//! What the access log needs of a request after the request's bytes are gone.

use std::time::{Instant, SystemTime};

use crate::log::access_log::{self, Request};
use crate::message::request::RequestHead;

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
const MEMORY: &str = "memory";

impl Record {
    /// Of a request; `came` if it was there before and is looked at again.
    pub(super) fn of(head: &RequestHead<'_>, came: Option<Came>) -> Self {
        let parts = [
            head.method.as_str().as_bytes(),
            head.target.as_bytes(),
            head.referer.unwrap_or_default(),
            head.user_agent.unwrap_or_default(),
        ];
        Self::new(parts, Some(head.version_minor), came)
    }

    /// Of bytes that were no request, by their first line.
    pub(super) fn of_malformed(line: &[u8]) -> Self {
        Self::new([b"", line, b"", b""], None, None)
    }

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

    /// What is logged of it when its answer has ended.
    pub(super) fn line<'a>(&'a self, remote: &'a str, outcome: &Outcome) -> access_log::Record<'a> {
        let duration_us = u64::try_from(self.came.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let some = |index| Some(self.part(index)).filter(|part| !part.is_empty());
        access_log::Record {
            unix_us: self.came.unix_us,
            remote,
            request: self.request(),
            status: outcome.status,
            bytes: outcome.bytes,
            referer: some(2),
            user_agent: some(3),
            duration_us,
            route: outcome.route,
            complete: outcome.complete,
            encoding: outcome.encoding,
        }
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
