//! One file that can be sent: what is read of it, and what is said about it.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::OwnedSemaphorePermit;
use zhaul::{SourceFacts, Version};

use crate::files::entry::{Representation, Watch, is_settled, write_content_fields};
use crate::files::mount;
use crate::files::open_file::OpenFile;
use crate::files::root::{Miss, Opened, Root, Walk};
use crate::files::small::{SMALL, Small};
use crate::files::tree::Tree;
use crate::host::mime::{CHARSET_SAMPLE_BYTES, inherent_coding};
use crate::message::encoding::Coding;
use crate::message::etag::{ETag, FileStamp};
use crate::message::head;
use crate::message::validators::Validators;

/// The most that is read into memory of a file that states no size.
const MADE_UP_BYTES: usize = 16 * 1024 * 1024;

/// How often a small file is read again because it changed while it was read.
const READ_ATTEMPTS: usize = 3;

/// What the header of a file depends on beside the file.
pub(super) struct About<'a> {
    /// The path without the suffix of a coding: it decides the media type.
    pub(super) named: &'a CStr,
    pub(super) coding: Coding,
    /// Whether the file has siblings in other codings.
    pub(super) varies: bool,
    /// That of the file whose sibling this is.
    pub(super) content_type: Option<String>,
}

/// Reads a file if it is small, and prepares what every answer with it says.
pub(super) fn represent(
    tree: &Tree,
    about: &About<'_>,
    path: CString,
    opened: Opened,
    walk: Walk,
) -> Result<Representation, Miss> {
    let Opened {
        file, mut version, ..
    } = opened;
    let mut content = None;
    if version.size <= SMALL {
        for _ in 0..READ_ATTEMPTS {
            let read = read_whole(tree, &file, version.size, walk)?;
            let now = Root::version_of(&file)?;
            if std::mem::replace(&mut version, now) == now {
                content = Some(read);
                break;
            }
        }
    }
    let (content, room) =
        content.map_or((None, None), |content| (Some(content.bytes), content.room));
    let size = content
        .as_ref()
        .map_or(version.size, |content| content.len() as u64);
    // What procfs and sysfs make up has neither a true size nor true times.
    let made_up = size != version.size;
    let validators = validators(about.coding, &file, &version, content.as_deref());
    let named = about.named.to_bytes();
    let content_type = content_type(tree, about, &file, content.as_deref(), walk)?;
    let content_encoding = about.coding.token().or_else(|| inherent_coding(named));
    let mut fields = Vec::with_capacity(256);
    tree.site.file_fields(named, &validators, &mut fields);
    if about.varies {
        head::field(&mut fields, "Vary", b"Accept-Encoding");
    }
    let small = content.map(|content| {
        let mut head = Vec::with_capacity(fields.len() + 64);
        write_content_fields(&content_type, content_encoding, &mut head);
        head.extend_from_slice(&fields);
        Small::new(&head, &content)
    });
    Ok(Representation {
        file: Arc::new(file),
        version,
        facts: Arc::new(SourceFacts::regular(version)),
        size,
        validators,
        fields,
        content_type,
        content_encoding,
        coding: about.coding,
        small,
        settled: !made_up && is_settled(&version) && is_dated(&version, &validators),
        watch: Watch {
            path,
            version: Ok(version),
        },
        _room: room,
    })
}

fn validators(
    coding: Coding,
    file: &OpenFile,
    version: &Version,
    content: Option<&[u8]>,
) -> Validators {
    let mut stamp = stamp(version);
    let etag = match content {
        Some(content) => Some(ETag::of_content(content, coding)),
        None if !is_settled(version) => None,
        None if stamp.ctime_ns != 0 => Some(ETag::of_stamp(&stamp, coding)),
        None => mount::identity(file).map(|mount| {
            stamp.mount = mount;
            ETag::of_stamp(&stamp, coding)
        }),
    };
    let now = SystemTime::UNIX_EPOCH.elapsed();
    Validators::new(etag, &stamp, now.map_or(0, |now| now.as_secs()))
}

/// Whether Last-Modified will be the same a second later, with the file unchanged.
fn is_dated(version: &Version, validators: &Validators) -> bool {
    let seconds = version.mtime.seconds;
    let from_the_future = SystemTime::UNIX_EPOCH
        .elapsed()
        .is_ok_and(|now| u64::try_from(seconds).is_ok_and(|seconds| seconds > now.as_secs() + 1));
    validators.last_modified_s.is_some() || seconds < 0 || from_the_future
}

/// The media type, with a charset where that is known. Of what is not in memory, the beginning is
/// read for it.
fn content_type(
    tree: &Tree,
    about: &About<'_>,
    file: &OpenFile,
    content: Option<&[u8]>,
    walk: Walk,
) -> Result<String, Miss> {
    if let Some(content_type) = &about.content_type {
        return Ok(content_type.clone());
    }
    let charset = &tree.site.config.charset;
    let media_type = tree.site.media_type(about.named.to_bytes());
    if content.is_some() || !charset.asks_for_content(&media_type) {
        return Ok(charset.declare(&media_type, content));
    }
    let mut sample = vec![0; CHARSET_SAMPLE_BYTES];
    let read = read_at(file, &mut sample, 0, walk)?;
    Ok(charset.declare(&media_type, Some(&sample[..read])))
}

fn stamp(version: &Version) -> FileStamp {
    FileStamp {
        dev: version.dev,
        ino: version.ino,
        size: version.size,
        mtime_s: version.mtime.seconds,
        mtime_ns: version.mtime.nanoseconds,
        ctime_s: version.ctime.seconds,
        ctime_ns: version.ctime.nanoseconds,
        mount: 0,
    }
}

/// What was read of a file, and what its memory counts against.
struct Content {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

/// Reads a file of a stated size; less if it ends before. Files in procfs state no size, so one
/// without is read to its end, which nobody else could announce.
fn read_whole(tree: &Tree, file: &OpenFile, size: u64, walk: Walk) -> Result<Content, Miss> {
    let states_no_size = size == 0;
    let size = if states_no_size { SMALL } else { size };
    let size = usize::try_from(size).map_err(|_| Miss::Exhausted(Errno::NOMEM))?;
    let mut bytes = vec![0; size];
    let mut filled = read_at(file, &mut bytes, 0, walk)?;
    let mut room = None;
    while states_no_size && filled == bytes.len() {
        if bytes.len() >= MADE_UP_BYTES {
            return Err(Miss::Failed(Errno::FBIG));
        }
        if room.is_none() {
            let permit = Arc::clone(&tree.made_up).try_acquire_owned();
            room = Some(permit.map_err(|_| Miss::Exhausted(Errno::NOBUFS))?);
        }
        bytes.resize((4 * bytes.len()).min(MADE_UP_BYTES), 0);
        filled += read_at(file, &mut bytes[filled..], filled, walk)?;
    }
    bytes.truncate(filled);
    bytes.shrink_to_fit();
    Ok(Content { bytes, room })
}

/// Fills `into` from `offset` on, as far as the file goes.
fn read_at(file: &OpenFile, into: &mut [u8], offset: usize, walk: Walk) -> Result<usize, Miss> {
    let flags = match walk {
        Walk::Cached => ReadWriteFlags::NOWAIT,
        Walk::Full => ReadWriteFlags::empty(),
    };
    let mut filled = 0;
    while filled < into.len() {
        let rest = &mut [std::io::IoSliceMut::new(&mut into[filled..])];
        match rustix::io::preadv2(file, rest, (offset + filled) as u64, flags) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            // A file system without RWF_NOWAIT: nobody can say whether it would block.
            Err(Errno::OPNOTSUPP) if walk == Walk::Cached => return Err(Miss::NotCached),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}
