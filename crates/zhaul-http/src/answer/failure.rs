//! Answers that say why there is no file: configured pages, or built-in ones.

use crate::answer::error_page::{self, ALLOW};
use crate::answer::listing::{Format, HTML_CSP};
use crate::answer::response::{Body, Complaint, Fields, Files, Refusal, Response, Stored};
use crate::files::lookup::{Load, Looked, Missed};
use crate::files::root::Miss;
use crate::host::site::Site;
use crate::message::field_lines::FieldLines;
use crate::message::head;
use crate::message::request::{Reject, RequestHead};

/// The answer to bytes that are no acceptable request.
pub(crate) fn rejected(reject: Reject) -> Response {
    let mut own = Vec::with_capacity(128);
    if reject.status == 405 {
        head::field(&mut own, "Allow", ALLOW.as_bytes());
    }
    if matches!(reject.status, 429 | 503) {
        head::field(&mut own, "Retry-After", b"1");
    }
    plain(reject.status, own)
}

/// What takes the place of an answer that cannot be given after all.
pub(crate) fn given_up(site: &Site, status: u16) -> Response {
    plain(status, site.fields_of_all().to_vec())
}

fn plain(status: u16, mut own: Vec<u8>) -> Response {
    head::field(&mut own, "Content-Type", b"text/plain; charset=utf-8");
    Response {
        status,
        fields: Fields::own(own),
        body: Body::Memory(error_page::plain(status)),
        complaints: Vec::new(),
    }
}

/// What a path that led to nothing is answered with.
pub(crate) fn missed(path: &[u8], miss: Miss) -> Refusal {
    let status = match miss {
        Miss::Forbidden => 403,
        Miss::Exhausted(_) | Miss::Leased | Miss::Gone | Miss::TimedOut => 503,
        Miss::Failed(_) => 500,
        Miss::NotFound | Miss::NotCached => 404,
    };
    let path = path.to_vec();
    Refusal {
        complaint: (status >= 500).then_some(Complaint::CannotOpen { path, miss }),
        ..Refusal::of(status)
    }
}

/// An answer whose body says what the status means: the configured page, or a built-in one.
///
/// # Errors
/// The page has to be looked up where a disk may be waited for.
pub(crate) fn explain(
    site: &Site,
    head: &RequestHead<'_>,
    files: &impl Files,
    refusal: Refusal,
) -> Result<Response, Load> {
    let Refusal {
        status,
        fields: mut own,
        complaint,
    } = refusal;
    site.other_fields(head, &mut own);
    let mut complaints = Vec::from_iter(complaint);
    if let Some(page) = site.config.error_pages.get(&status) {
        let page = page.as_bytes();
        match files.look_up(page, false, FieldLines::default()) {
            Ok(Looked::File(selected)) => {
                let of_file = Some((selected.clone(), Stored::Content));
                return Ok(Response {
                    status,
                    fields: Fields { of_file, own },
                    body: Body::whole(selected),
                    complaints,
                });
            }
            Ok(_) => complaints.push(Complaint::PageIsNoFile { status }),
            Err(Missed::Miss(miss)) => complaints.push(Complaint::PageMissed { status, miss }),
            Err(Missed::Elsewhere) => {
                return Err(Load {
                    path: page.to_vec(),
                    is_dir: false,
                });
            }
        }
    }
    own.extend_from_slice(b"Vary: Accept\r\n");
    let body = if Format::choose(None, head.accept) == Format::Html {
        head::field(&mut own, "Content-Type", b"text/html; charset=utf-8");
        head::field(&mut own, "Content-Security-Policy", HTML_CSP.as_bytes());
        error_page::html(status)
    } else {
        head::field(&mut own, "Content-Type", b"text/plain; charset=utf-8");
        error_page::plain(status)
    };
    Ok(Response {
        status,
        fields: Fields::own(own),
        body: Body::Memory(body),
        complaints,
    })
}
