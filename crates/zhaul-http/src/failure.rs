//! Answers that say why there is no file: configured pages, or built-in ones.

use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;

use crate::answer::{Answer, Body, Exchange, Next};
use crate::cache::Slot;
use crate::connection::Connection;
use crate::content::body_of;
use crate::encoding::Coding;
use crate::entry::FileSet;
use crate::error_page::{self, ALLOW};
use crate::field_lines::FieldLines;
use crate::head;
use crate::listing::{Format, HTML_CSP};
use crate::lookup::{Lookup, Missed};
use crate::range::ByteRange;
use crate::request::{Reject, first_line};
use crate::root::Miss;
use crate::worker::Worker;

impl Worker {
    /// Answers bytes that are no acceptable request, and closes.
    pub(crate) fn reject(&self, connection: &Connection, bytes: &[u8], reject: Reject) -> Next {
        tracing::debug!("refused a request from {}: {}", connection.peer, reject.why);
        let mut out = Vec::with_capacity(512);
        self.begin(&mut out, reject.status);
        if reject.status == 405 {
            head::field(&mut out, "Allow", ALLOW.as_bytes());
        }
        if matches!(reject.status, 429 | 503) {
            head::field(&mut out, "Retry-After", b"1");
        }
        out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        let body = error_page::plain(reject.status);
        head::content_length(&mut out, body.len() as u64);
        head::end(&mut out, false, 1);
        let record = self.record_malformed(first_line(bytes, 1024));
        let mut answer = Answer::new(reject.status, out, false, record);
        answer.head.extend_from_slice(&body);
        self.send_now(connection, answer)
    }

    /// The answer to a request whose header did not come to its end in time.
    pub(crate) fn too_late(&self, connection: &Connection) -> Next {
        let late = Reject {
            status: 408,
            why: "its header did not come to its end in time",
        };
        let bytes = std::mem::take(&mut connection.input.borrow_mut().bytes);
        self.reject(connection, &bytes, late)
    }

    pub(crate) fn failed(&self, exchange: Exchange<'_>, path: &[u8], miss: Miss) -> Next {
        let path = String::from_utf8_lossy(path);
        match miss {
            Miss::Forbidden => self.error(exchange, 403),
            Miss::Exhausted(errno) => {
                self.warn(|| {
                    let remedy = match errno {
                        Errno::MFILE | Errno::NFILE => " (raise the limit on open files)",
                        _ => "",
                    };
                    format!("cannot open {path:?}: {errno}{remedy}")
                });
                self.error(exchange, 503)
            }
            Miss::Leased => {
                self.warn(|| {
                    format!("cannot open {path:?}: another program holds a write lease on it")
                });
                self.error(exchange, 503)
            }
            Miss::Gone => {
                self.warn(|| "the served directory was removed".to_owned());
                self.error(exchange, 503)
            }
            Miss::TimedOut => {
                self.error_report(|| {
                    format!("cannot open {path:?}: its file system did not answer in time")
                });
                self.error(exchange, 503)
            }
            Miss::Failed(errno) => {
                self.error_report(|| format!("cannot read {path:?}: {errno}"));
                self.error(exchange, 500)
            }
            Miss::NotFound | Miss::NotCached => self.error(exchange, 404),
        }
    }

    pub(crate) fn error(&self, exchange: Exchange<'_>, status: u16) -> Next {
        let mut fields = Vec::new();
        if status == 405 {
            head::field(&mut fields, "Allow", ALLOW.as_bytes());
        }
        self.error_with(exchange, status, &fields)
    }

    /// An answer whose body says what the status means: the configured page, or a built-in one.
    pub(crate) fn error_with(&self, exchange: Exchange<'_>, status: u16, fields: &[u8]) -> Next {
        let head = exchange.head;
        let mut out = Vec::with_capacity(1024);
        self.begin(&mut out, status);
        out.extend_from_slice(fields);
        self.site.other_fields(head, &mut out);
        let page = self.site.config.error_pages.get(&status);
        match page
            .map(|page| self.look_up(&exchange, page.as_bytes(), false, FieldLines::default()))
        {
            Some(Err(Missed::Elsewhere(next))) => return next,
            Some(Ok((Lookup::File(slot), _))) if slot.value.get(Coding::Identity).is_some() => {
                return self.error_page(exchange, status, out, &slot);
            }
            Some(Ok(_)) => self.warn(|| format!("the error page of {status} is not a file")),
            Some(Err(Missed::Miss(miss))) => {
                self.warn(|| format!("the error page of {status} cannot be read: {miss:?}"));
            }
            None => {}
        }
        let html = Format::choose(None, head.accept) == Format::Html;
        out.extend_from_slice(b"Vary: Accept\r\n");
        let body = if html {
            head::field(&mut out, "Content-Type", b"text/html; charset=utf-8");
            head::field(&mut out, "Content-Security-Policy", HTML_CSP.as_bytes());
            error_page::html(status)
        } else {
            head::field(&mut out, "Content-Type", b"text/plain; charset=utf-8");
            error_page::plain(status)
        };
        head::content_length(&mut out, body.len() as u64);
        let range = 0..body.len();
        self.with_body(
            exchange,
            status,
            out,
            Body::Shared {
                bytes: Arc::new(body),
                range,
            },
        )
    }

    fn error_page(
        &self,
        exchange: Exchange<'_>,
        status: u16,
        mut out: Vec<u8>,
        slot: &Rc<Slot<FileSet>>,
    ) -> Next {
        let Some(file) = slot.value.get(Coding::Identity) else {
            return Next::Close;
        };
        file.write_content_fields(&mut out);
        head::content_length(&mut out, file.size);
        let range = ByteRange {
            start: 0,
            end: file.size,
        };
        let body = body_of(slot, file, range);
        self.with_body(exchange, status, out, body)
    }
}
