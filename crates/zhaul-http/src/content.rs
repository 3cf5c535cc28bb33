//! Answers that carry a file: whole, in part, or the news that it has not changed.

use std::rc::Rc;
use std::sync::Arc;

use crate::answer::{Answer, Body, Exchange, Next};
use crate::body::BodyFraming;
use crate::cache::Slot;
use crate::conditional::{Decision, evaluate};
use crate::encoding::Coding;
use crate::entry::{FileSet, Representation, Small};
use crate::head;
use crate::multipart::{Boundary, Multipart};
use crate::range::{ByteRange, MAX_RANGES, Resolved, resolve, write_unsatisfied_range};
use crate::record::Outcome;
use crate::request::Method;
use crate::worker::Worker;

impl Worker {
    pub(crate) fn file(
        &self,
        exchange: Exchange<'_>,
        slot: &Rc<Slot<FileSet>>,
        coding: Coding,
    ) -> Next {
        let Some(file) = slot.value.get(coding) else {
            return self.error(exchange, 404);
        };
        if let Some(small) = file.small.as_ref().filter(|_| self.is_plain(&exchange)) {
            let wire = small.wire(&self.clock);
            return match exchange.connection.stream.try_send(&wire, false) {
                Ok(sent) if sent == wire.len() => {
                    let bytes = small.body_len(&wire);
                    self.sent(
                        exchange,
                        sent,
                        Outcome::from_memory(200, bytes, file.content_encoding),
                    )
                }
                outcome => {
                    let body_at = wire.len() - small.body_len(&wire) as usize;
                    self.sent_in_part(exchange, Arc::clone(&wire), body_at, outcome)
                }
            };
        }
        let now_s = self.clock.second();
        match evaluate(exchange.head, &file.validators, now_s) {
            Decision::NotModified => self.not_modified(exchange, file),
            Decision::PreconditionFailed => self.error(exchange, 412),
            Decision::Proceed { range_applies } => {
                let wanted = exchange.head.range.filter(|_| range_applies);
                let resolved = wanted.map_or(Resolved::Whole, |value| {
                    resolve(value, file.size, MAX_RANGES)
                });
                self.content(exchange, slot, file, resolved)
            }
        }
    }

    /// Whether the prepared answer of a small file is what this request gets.
    fn is_plain(&self, exchange: &Exchange<'_>) -> bool {
        let head = exchange.head;
        matches!(head.method, Method::Get)
            && exchange.keep_alive
            && head.version_minor == 1
            && head.body == BodyFraming::None
            && head.range.is_none()
            && !head.if_match.is_present()
            && !head.if_none_match.is_present()
            && head.if_modified_since.is_none()
            && head.if_unmodified_since.is_none()
            && !self.site.answers_depend_on_origin()
    }

    fn sent(&self, exchange: Exchange<'_>, bytes: usize, outcome: Outcome) -> Next {
        let Exchange {
            connection, record, ..
        } = exchange;
        connection.add_sent(bytes);
        connection.served.set(connection.served.get() + 1);
        if let Some(record) = record {
            self.log_line(connection, &record, outcome);
        }
        Next::Sent
    }

    fn sent_in_part(
        &self,
        exchange: Exchange<'_>,
        wire: Arc<Vec<u8>>,
        body_at: usize,
        outcome: std::io::Result<usize>,
    ) -> Next {
        let sent = match outcome {
            Ok(sent) => sent,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.log_lost(exchange.connection, exchange.record.as_ref(), 200);
                return Next::Close;
            }
        };
        exchange.connection.add_sent(sent);
        let mut answer = Answer::new(200, Vec::new(), true, exchange.record);
        // Counted from the first byte of the head, of which this much is out already.
        answer.body_at = body_at - sent.min(body_at);
        let range = sent..wire.len();
        answer.body = Body::Shared { bytes: wire, range };
        Next::Send(Box::new(answer))
    }

    fn not_modified(&self, exchange: Exchange<'_>, file: &Representation) -> Next {
        let mut out = Vec::with_capacity(512);
        self.begin(&mut out, 304);
        out.extend_from_slice(&file.fields);
        self.site.origin_fields(exchange.head, &mut out);
        self.finish_head(exchange, 304, out)
    }

    fn content(
        &self,
        exchange: Exchange<'_>,
        slot: &Rc<Slot<FileSet>>,
        file: &Representation,
        resolved: Resolved,
    ) -> Next {
        let size = file.size;
        let coding = file.coding;
        let mut out = Vec::with_capacity(512);
        let (status, range) = match resolved {
            Resolved::Unsatisfiable => return self.unsatisfiable(exchange, size),
            Resolved::Whole => (
                200,
                ByteRange {
                    start: 0,
                    end: size,
                },
            ),
            Resolved::Single(range) => (206, range),
            Resolved::Multi(ranges) => {
                let content_type = Some(file.content_type.clone());
                let parts = Multipart::new(Boundary::random(), content_type, size, ranges);
                self.begin(&mut out, 206);
                head::field(&mut out, "Content-Type", &parts.content_type());
                if let Some(encoding) = file.content_encoding {
                    head::field(&mut out, "Content-Encoding", encoding.as_bytes());
                }
                out.extend_from_slice(&file.fields);
                self.site.origin_fields(exchange.head, &mut out);
                head::content_length(&mut out, parts.content_length());
                let slot = Rc::clone(slot);
                return self.with_body(
                    exchange,
                    206,
                    out,
                    Body::Parts {
                        slot,
                        coding,
                        parts,
                    },
                );
            }
        };
        self.begin(&mut out, status);
        file.write_content_fields(&mut out);
        out.extend_from_slice(&file.fields);
        self.site.origin_fields(exchange.head, &mut out);
        if status == 206 {
            out.extend_from_slice(b"Content-Range: ");
            range.write_content_range(size, &mut out);
            out.extend_from_slice(b"\r\n");
        }
        head::content_length(&mut out, range.len());
        let body = body_of(slot, file, range);
        self.with_body(exchange, status, out, body)
    }

    fn unsatisfiable(&self, exchange: Exchange<'_>, size: u64) -> Next {
        let mut fields = b"Content-Range: ".to_vec();
        write_unsatisfied_range(size, &mut fields);
        fields.extend_from_slice(b"\r\n");
        self.error_with(exchange, 416, &fields)
    }
}

/// A range of a file as the body of an answer: from memory, if the file is small.
pub(crate) fn body_of(slot: &Rc<Slot<FileSet>>, file: &Representation, range: ByteRange) -> Body {
    match &file.small {
        _ if range.is_empty() => Body::None,
        Some(small) => small_range(small, &range),
        None => Body::File {
            slot: Rc::clone(slot),
            coding: file.coding,
            range,
        },
    }
}

fn small_range(small: &Small, range: &ByteRange) -> Body {
    let (bytes, body_at) = small.body();
    // The file was read whole into memory, so its offsets fit.
    let start = body_at + usize::try_from(range.start).unwrap_or(usize::MAX - body_at);
    let end = body_at + usize::try_from(range.end).unwrap_or(usize::MAX - body_at);
    Body::Shared {
        bytes,
        range: start..end,
    }
}
