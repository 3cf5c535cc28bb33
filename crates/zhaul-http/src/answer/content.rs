//! Answers that carry a file: whole, in part, or the news that it has not changed.

use crate::answer::response::{Body, Fields, Refusal, Response, Stored};
use crate::files::lookup::Selected;
use crate::host::site::Site;
use crate::message::conditional::{Decision, evaluate};
use crate::message::head;
use crate::message::multipart::{Boundary, Multipart};
use crate::message::range::{ByteRange, MAX_RANGES, Resolved, resolve, write_unsatisfied_range};
use crate::message::request::RequestHead;

/// What a request for this file is answered with at the time `now_s`.
///
/// # Errors
/// Its preconditions do not hold, or it asks for bytes that are not there.
pub(crate) fn of_file(
    site: &Site,
    head: &RequestHead<'_>,
    selected: Selected,
    now_s: u64,
) -> Result<Response, Refusal> {
    let file = selected.file();
    let size = file.size;
    let range = match evaluate(head, &file.validators, now_s) {
        Decision::NotModified => {
            let mut fields = Fields {
                of_file: Some((selected, Stored::Validators)),
                own: Vec::new(),
            };
            site.origin_fields(head, &mut fields.own);
            return Ok(response(304, fields, Body::Absent));
        }
        Decision::PreconditionFailed => return Err(Refusal::of(412)),
        Decision::Proceed { range_applies } => head.range.filter(|_| range_applies),
    };
    let mut own = Vec::new();
    let (status, range) = match range.map(|value| resolve(value, size, MAX_RANGES)) {
        Some(Resolved::Unsatisfiable) => return Err(unsatisfiable(size)),
        Some(Resolved::Multi(ranges)) => return Ok(parts(site, head, selected, ranges)),
        None | Some(Resolved::Whole) => (
            200,
            ByteRange {
                start: 0,
                end: size,
            },
        ),
        Some(Resolved::Single(range)) => (206, range),
    };
    site.origin_fields(head, &mut own);
    if status == 206 {
        own.extend_from_slice(b"Content-Range: ");
        range.write_content_range(size, &mut own);
        own.extend_from_slice(b"\r\n");
    }
    let of_file = Some((selected.clone(), Stored::All));
    let fields = Fields { of_file, own };
    Ok(response(status, fields, Body::File(selected, range)))
}

fn parts(
    site: &Site,
    head: &RequestHead<'_>,
    selected: Selected,
    ranges: Vec<ByteRange>,
) -> Response {
    let file = selected.file();
    let content_type = Some(file.content_type.clone());
    let parts = Multipart::new(Boundary::random(), content_type, file.size, ranges);
    let mut own = Vec::with_capacity(128);
    head::field(&mut own, "Content-Type", &parts.content_type());
    if let Some(encoding) = file.content_encoding {
        head::field(&mut own, "Content-Encoding", encoding.as_bytes());
    }
    site.origin_fields(head, &mut own);
    let of_file = Some((selected.clone(), Stored::Validators));
    let fields = Fields { of_file, own };
    response(206, fields, Body::Parts(selected, Box::new(parts)))
}

fn unsatisfiable(size: u64) -> Refusal {
    let mut refusal = Refusal::of(416);
    refusal.fields.extend_from_slice(b"Content-Range: ");
    write_unsatisfied_range(size, &mut refusal.fields);
    refusal.fields.extend_from_slice(b"\r\n");
    refusal
}

fn response(status: u16, fields: Fields, body: Body) -> Response {
    Response {
        status,
        fields,
        body,
        complaints: Vec::new(),
    }
}
