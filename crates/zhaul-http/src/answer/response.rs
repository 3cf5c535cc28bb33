//! What is answered, as no version of HTTP writes it: a status, header fields, a body.
//!
//! What a message needs on its connection (Date, Server, how its body is delimited, whether the
//! connection goes on) is added by whoever writes it.

use std::fmt;

use rustix::io::Errno;

use crate::answer::error_page::ALLOW;
use crate::files::lookup::{Looked, Missed, Selected};
use crate::files::root::Miss;
use crate::message::field_lines::FieldLines;
use crate::message::head;
use crate::message::multipart::Multipart;
use crate::message::range::ByteRange;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
    /// What the operator should know of how it came about.
    pub(crate) complaints: Vec<Complaint>,
}

/// Header fields.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// Those of a file, which are kept with it rather than copied.
    pub(crate) of_file: Option<(Selected, Stored)>,
    /// Those of this answer alone, each with its CRLF.
    pub(crate) own: Vec<u8>,
}

/// What of a file's fields is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Its type and coding, and what it is validated by.
    All,
    /// Its type and coding: it stands in for something else.
    Content,
    /// All but those: none of it is sent, or it is sent in parts.
    Validators,
}

/// What follows the header.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing, and by the status nothing could (204, 304): no length is stated either.
    Absent,
    /// Bytes made for this answer.
    Memory(Vec<u8>),
    /// Bytes of a file.
    File(Selected, ByteRange),
    /// Several ranges of a file.
    Parts(Selected, Box<Multipart>),
}

/// What a decision asks of the file system. Answered from memory, or not at all.
pub(crate) trait Files {
    /// What `path` (decoded, relative, without a slash at its end) leads to, and in which of the
    /// codings in `accept` it is to be sent.
    fn look_up(&self, path: &[u8], is_dir: bool, accept: FieldLines<'_>) -> Result<Looked, Missed>;
}

/// An answer that carries no file, for which there may be a page.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// What its header says beside what every answer's does.
    pub(crate) fields: Vec<u8>,
    pub(crate) complaint: Option<Complaint>,
}

impl Refusal {
    pub(crate) fn of(status: u16) -> Self {
        let mut fields = Vec::new();
        if status == 405 {
            head::field(&mut fields, "Allow", ALLOW.as_bytes());
        }
        Self {
            status,
            fields,
            complaint: None,
        }
    }
}

impl Fields {
    pub(crate) fn own(own: Vec<u8>) -> Self {
        Self { of_file: None, own }
    }

    /// Writes all of them, each with its CRLF.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if let Some((selected, stored)) = &self.of_file {
            let file = selected.file();
            if *stored != Stored::Validators {
                file.write_content_fields(out);
            }
            if *stored != Stored::Content {
                out.extend_from_slice(&file.fields);
            }
        }
        out.extend_from_slice(&self.own);
    }
}

impl Body {
    /// All of a file.
    pub(crate) fn whole(selected: Selected) -> Self {
        let end = selected.file().size;
        Self::File(selected, ByteRange { start: 0, end })
    }

    /// Content-Length, if one is stated.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Absent => None,
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::File(_, range) => Some(range.len()),
            Self::Parts(_, parts) => Some(parts.content_length()),
        }
    }

    /// Content-Encoding of what is sent, for the log.
    pub(crate) fn encoding(&self) -> Option<&'static str> {
        match self {
            Self::Absent | Self::Memory(_) => None,
            Self::File(selected, _) | Self::Parts(selected, _) => selected.file().content_encoding,
        }
    }
}

/// Something that the operator should know. What it says is put into words when it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    CannotOpen { path: Vec<u8>, miss: Miss },
    PageIsNoFile { status: u16 },
    PageMissed { status: u16, miss: Miss },
}

impl Complaint {
    /// Whether the machine is to blame, rather than what somebody did.
    pub(crate) fn is_of_machine(&self) -> bool {
        let Self::CannotOpen { miss, .. } = self else {
            return false;
        };
        matches!(miss, Miss::TimedOut | Miss::Failed(_))
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, miss) = match self {
            Self::CannotOpen { path, miss } => (String::from_utf8_lossy(path), miss),
            Self::PageIsNoFile { status } => {
                return write!(f, "the error page of {status} is not a file");
            }
            Self::PageMissed { status, miss } => {
                return write!(f, "the error page of {status} cannot be read: {miss:?}");
            }
        };
        match miss {
            Miss::Exhausted(errno) => {
                let remedy = match *errno {
                    Errno::MFILE | Errno::NFILE => " (raise the limit on open files)",
                    _ => "",
                };
                write!(f, "cannot open {path:?}: {errno}{remedy}")
            }
            Miss::Leased => write!(
                f,
                "cannot open {path:?}: another program holds a write lease on it"
            ),
            Miss::Gone => f.write_str("the served directory was removed"),
            Miss::TimedOut => write!(
                f,
                "cannot open {path:?}: its file system did not answer in time"
            ),
            Miss::Failed(errno) => write!(f, "cannot read {path:?}: {errno}"),
            Miss::Forbidden | Miss::NotFound | Miss::NotCached => {
                write!(f, "cannot open {path:?}: {miss:?}")
            }
        }
    }
}
