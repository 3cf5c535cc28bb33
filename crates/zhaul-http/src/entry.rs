//! What a request path leads to: loading it, and knowing whether that still holds.
//!
//! [`load`] does all that needs the file system for one path: it opens the file below the root,
//! reads it if it is small, finds its precompressed siblings or, for a directory, its index file,
//! and prepares the header fields that every answer with this file has. It runs on an event loop
//! with [`Walk::Cached`], where it fails with [`Miss::NotCached`] rather than wait for a disk, and
//! on a thread of the cold pool with [`Walk::Full`].
//!
//! What was loaded is kept, and each use is preceded by a check ([`FileSet::check`]):
//! one statx(2) of the path of the file that is about to be sent, compared in device, inode, size,
//! mtime and ctime; and where the answer also depends on names that were *not* there (a sibling in
//! a better coding, an earlier index file), one statx(2) of their directory, whose mtime changes
//! with every name.
//!
//! A file on a network file system, or one that a program serves, is not looked at by the event loop:
//! the answer may take a while. It is checked on a thread, all of it, and not again for as long as the
//! configured freshness says.
//!
//! Timestamps are only as fine as the kernel's tick (1 to 10 ms before Linux 6.13): a second edit
//! within the tick of the first leaves them as they are. So a file (or directory) that changed
//! less than [`SETTLE`] ago is not yet *settled*: it is served without an entity tag and loaded
//! again by the next request.

use std::cell::{Cell, Ref, RefCell};
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::io::{Errno, ReadWriteFlags};
use zhaul::{Timestamp, Version};

use crate::clock::{Clock, DATE_BYTES};
use crate::encoding::{Coding, CodingSet};
use crate::etag::FileStamp;
use crate::head;
use crate::mime::{CHARSET_SAMPLE_BYTES, inherent_coding};
use crate::open_file::OpenFile;
use crate::root::{Kind, Miss, Opened, Root, Walk};
use crate::site::Site;
use crate::validators::Validators;

/// Files up to this size are kept in memory, already behind their header, and go out in one
/// send(2). A choice, not yet a measured crossover: at 16 KiB one send costs what header + sendfile
/// do, at 128 KiB 1.6 times as much (the two floors in docs/bench-serve.md).
pub(crate) const SMALL: u64 = 64 * 1024;

/// Longer than a clock tick at the lowest rate that Linux is configured with (100 Hz), twice over.
const SETTLE: Duration = Duration::from_millis(25);

/// Representations of a file: one in each [`Coding`].
const CODINGS: usize = 1 + Coding::COMPRESSED.len();

/// How often a small file is read again because it changed while it was read.
const READ_ATTEMPTS: usize = 3;

/// What a path led to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A file, in all its codings.
    File(Box<FileSet>),
    /// A directory that was asked for without its slash.
    Redirect,
    /// A directory without an index file, to be listed.
    Listing(OpenFile),
}

/// A file and its precompressed siblings.
#[derive(Debug)]
pub(crate) struct FileSet {
    /// By coding; identity is always there.
    representations: [Option<Representation>; CODINGS],
    /// The directory and its state when names in it were found missing.
    absences: Watch,
    /// Whether every answer, not only a negotiated one, depends on an absence.
    index_depends: bool,
    /// Whether what was found may be kept.
    settled: bool,
    /// The last check that held: in which round, for which coding, whether with the directory.
    checked: Cell<Option<(u64, Coding, bool)>>,
    /// When all of it was last known to hold, by [`Clock::now_ms`].
    known_ms: Cell<u64>,
}

/// One file that can be sent.
#[derive(Debug)]
pub(crate) struct Representation {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) version: Version,
    /// Bytes that are sent: the file's size, except where the kernel makes a size up.
    pub(crate) size: u64,
    pub(crate) validators: Validators,
    /// Header fields of every 200, 206 and 304 with this file, each with its CRLF.
    pub(crate) fields: Vec<u8>,
    pub(crate) content_type: String,
    /// The coding that what is sent has, be it negotiated or the file's own.
    pub(crate) content_encoding: Option<&'static str>,
    pub(crate) coding: Coding,
    pub(crate) small: Option<Small>,
    watch: Watch,
}

/// A small file in memory: a whole answer with status 200, ready for one send(2).
#[derive(Debug)]
pub(crate) struct Small {
    /// Shared with an answer that the socket took only in part; replaced, not changed, while it is.
    wire: RefCell<Arc<Vec<u8>>>,
    body_at: usize,
    /// The second that its Date field tells.
    second: Cell<u64>,
}

impl Small {
    /// The answer with the date of now.
    pub(crate) fn wire(&self, clock: &Clock) -> Ref<'_, Arc<Vec<u8>>> {
        let second = clock.second();
        if self.second.replace(second) != second {
            let mut wire = self.wire.borrow_mut();
            let date = clock.date();
            Arc::make_mut(&mut wire)[head::OK_DATE_AT..][..date.len()].copy_from_slice(&date);
        }
        self.wire.borrow()
    }

    /// Length of the body in `wire`.
    pub(crate) fn body_len(&self, wire: &[u8]) -> u64 {
        (wire.len() - self.body_at) as u64
    }

    /// The answer with the date of some moment, and where in it the body begins.
    pub(crate) fn body(&self) -> (Arc<Vec<u8>>, usize) {
        (Arc::clone(&self.wire.borrow()), self.body_at)
    }
}

/// A path and the version it had.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    path: CString,
    version: Version,
}

impl Watch {
    pub(crate) fn holds(&self, root: &Root, walk: Walk) -> bool {
        root.version(&self.path, walk) == Ok(self.version)
    }
}

impl FileSet {
    /// Whether `coding` may be sent as it was loaded. `negotiated` says that the client's
    /// Accept-Encoding had a part in the choice, so that a better sibling that has appeared since
    /// would matter.
    ///
    /// `batch` names requests that were all received before any of them was answered. A check made
    /// for one of them is later than each of them, and is not made again.
    pub(crate) fn check(
        &self,
        root: &Root,
        coding: Coding,
        negotiated: bool,
        batch: Option<u64>,
    ) -> bool {
        let Some(chosen) = self.get(coding) else {
            return false;
        };
        let whole = negotiated || self.index_depends;
        let this = batch.map(|batch| (batch, coding, whole));
        if this.is_some() && this == self.checked.get() {
            return true;
        }
        let holds = |watch: &Watch| watch.holds(root, Walk::Cached);
        let holds = holds(&chosen.watch) && (!whole || holds(&self.absences));
        if holds && this.is_some() {
            self.checked.set(this);
        }
        holds
    }

    /// Whether a later request may be answered with this, after a check.
    pub(crate) fn may_be_kept(&self) -> bool {
        self.settled || self.is_remote()
    }

    /// Whether to look at it may wait for somebody who does not answer.
    pub(crate) fn is_remote(&self) -> bool {
        let mut files = self.representations.iter().flatten();
        files.any(|representation| representation.file.is_remote())
    }

    /// Whether all of it was known to hold at most so long ago.
    pub(crate) fn is_fresh(&self, freshness: Duration) -> bool {
        let age_ms = Clock::now_ms().saturating_sub(self.known_ms.get());
        u128::from(age_ms) <= freshness.as_millis()
    }

    /// Notes that all of it held at `now_ms`.
    pub(crate) fn renew(&self, now_ms: u64) {
        self.known_ms.set(now_ms);
    }

    /// What has to hold for it to be sent; nothing if it has to be loaded again in any case.
    pub(crate) fn watches(&self) -> Vec<Watch> {
        if !self.settled {
            return Vec::new();
        }
        let files = self.representations.iter().flatten();
        let watches = files.map(|representation| representation.watch.clone());
        watches.chain([self.absences.clone()]).collect()
    }

    /// Codings that can be sent.
    pub(crate) fn codings(&self) -> CodingSet {
        let present = self.representations.iter().flatten().map(|r| r.coding);
        present.fold(CodingSet::IDENTITY, CodingSet::with)
    }

    /// The file in this coding, if it is there.
    pub(crate) fn get(&self, coding: Coding) -> Option<&Representation> {
        self.representations[coding as usize].as_ref()
    }

    /// Open files behind this.
    pub(crate) fn open_files(&self) -> usize {
        self.representations.iter().flatten().count()
    }

    /// Bytes of memory behind this.
    pub(crate) fn memory(&self) -> usize {
        let one = |r: &Representation| r.small.as_ref().map_or(0, |s| s.wire.borrow().len()) + 1024;
        self.representations.iter().flatten().map(one).sum()
    }
}

/// Finds what `path` (decoded, relative, without a slash at its end) leads to.
pub(crate) fn load(site: &Site, path: &[u8], is_dir: bool, walk: Walk) -> Result<Found, Miss> {
    let now_ms = Clock::now_ms();
    let found = find(site, path, is_dir, walk)?;
    if let Found::File(set) = &found {
        set.renew(now_ms);
    }
    Ok(found)
}

fn find(site: &Site, path: &[u8], is_dir: bool, walk: Walk) -> Result<Found, Miss> {
    let name = c_path(path)?;
    let opened = site.root.open(&name, walk)?;
    match (opened.kind, is_dir) {
        (Kind::File, false) => load_file(site, &name, opened, walk, None).map(Found::file),
        // A slash behind a file's name asks for a directory of that name.
        (Kind::File, true) => Err(Miss::NotFound),
        (Kind::Directory, false) => Ok(Found::Redirect),
        (Kind::Directory, true) => load_index(site, &name, opened, walk),
    }
}

impl Found {
    fn file(set: FileSet) -> Self {
        Self::File(Box::new(set))
    }
}

fn load_index(site: &Site, dir: &CStr, opened: Opened, walk: Walk) -> Result<Found, Miss> {
    for (i, index) in site.config.index.iter().enumerate() {
        let name = join(dir, index.as_bytes())?;
        match site.root.open(&name, walk) {
            Ok(file) if file.kind == Kind::File => {
                let watch = Watch {
                    path: dir.to_owned(),
                    version: opened.version,
                };
                return load_file(site, &name, file, walk, Some((watch, i > 0))).map(Found::file);
            }
            Ok(_) | Err(Miss::NotFound) => {}
            Err(miss) => return Err(miss),
        }
    }
    if site.config.listing {
        Ok(Found::Listing(opened.file))
    } else {
        Err(Miss::NotFound)
    }
}

/// `of_index` is the directory as it was before the index files were tried, and whether one of
/// them was missing.
fn load_file(
    site: &Site,
    name: &CStr,
    opened: Opened,
    walk: Walk,
    of_index: Option<(Watch, bool)>,
) -> Result<FileSet, Miss> {
    let index_depends = of_index.as_ref().is_some_and(|&(_, depends)| depends);
    // The directory is looked at before its names are, so that a name that appears in between
    // changes a version that we remember.
    let absences = match of_index {
        Some((watch, _)) => watch,
        None => {
            let path = parent(name);
            let version = site.root.version(&path, walk)?;
            Watch { path, version }
        }
    };
    let mut files: [Option<(CString, Opened)>; CODINGS] = Default::default();
    // What is compressed already gains nothing by it.
    if site.config.precompressed && inherent_coding(name.to_bytes()).is_none() {
        for coding in Coding::COMPRESSED {
            let sibling = c_path(&[name.to_bytes(), coding.file_suffix().as_bytes()].concat())?;
            match site.root.open(&sibling, walk) {
                Ok(file) if file.kind == Kind::File => {
                    files[coding as usize] = Some((sibling, file));
                }
                Err(miss @ (Miss::NotCached | Miss::Exhausted(_))) => return Err(miss),
                // An unreadable sibling is none.
                Ok(_) | Err(_) => {}
            }
        }
    }
    let varies = files.iter().any(Option::is_some);
    files[Coding::Identity as usize] = Some((name.to_owned(), opened));
    let mut representations: [Option<Representation>; CODINGS] = Default::default();
    for coding in [Coding::Identity].into_iter().chain(Coding::COMPRESSED) {
        let Some((path, file)) = files[coding as usize].take() else {
            continue;
        };
        let plain = representations[Coding::Identity as usize].as_ref();
        let about = About {
            named: name,
            coding,
            varies,
            content_type: plain.map(|plain| plain.content_type.clone()),
        };
        representations[coding as usize] = Some(represent(site, &about, path, file, walk)?);
    }
    let settled = is_settled(&absences.version)
        && representations
            .iter()
            .flatten()
            .all(Representation::is_settled);
    Ok(FileSet {
        representations,
        absences,
        index_depends,
        settled,
        checked: Cell::new(None),
        known_ms: Cell::new(0),
    })
}

/// What the header of a file depends on beside the file.
struct About<'a> {
    /// The path without the suffix of a coding: it decides the media type.
    named: &'a CStr,
    coding: Coding,
    /// Whether the file has siblings in other codings.
    varies: bool,
    /// That of the file whose sibling this is.
    content_type: Option<String>,
}

fn represent(
    site: &Site,
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
            let read = read_whole(&file, version.size, walk)?;
            let now = Root::version_of(&file)?;
            if std::mem::replace(&mut version, now) == now {
                content = Some(read);
                break;
            }
        }
    }
    let now_s = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |t| t.as_secs());
    let size = content
        .as_ref()
        .map_or(version.size, |content| content.len() as u64);
    // What procfs and sysfs make up has neither a true size nor true times.
    let made_up = size != version.size;
    let racy = made_up || !is_settled(&version);
    let validators = Validators::of_file(&stamp(&version), about.coding, racy, now_s);
    let named = about.named.to_bytes();
    let content_type = content_type(site, about, &file, content.as_deref(), walk)?;
    let content_encoding = about.coding.token().or_else(|| inherent_coding(named));
    let mut fields = Vec::with_capacity(256);
    site.file_fields(named, &validators, &mut fields);
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
        size,
        validators,
        fields,
        content_type,
        content_encoding,
        coding: about.coding,
        small,
        watch: Watch { path, version },
    })
}

impl Representation {
    /// Writes what is said of the bytes that are sent, and so not in a 304.
    pub(crate) fn write_content_fields(&self, out: &mut Vec<u8>) {
        write_content_fields(&self.content_type, self.content_encoding, out);
    }

    /// Where the file is, relative to the root; for messages.
    pub(crate) fn path(&self) -> &CStr {
        &self.watch.path
    }

    /// Whether nothing about it will look different a second later with the file unchanged.
    fn is_settled(&self) -> bool {
        let seconds = self.version.mtime.seconds;
        let dated = self.validators.last_modified_s.is_some();
        let from_the_future = SystemTime::UNIX_EPOCH.elapsed().is_ok_and(|now| {
            u64::try_from(seconds).is_ok_and(|seconds| seconds > now.as_secs() + 1)
        });
        self.validators.etag.is_some() && (dated || seconds < 0 || from_the_future)
    }
}

impl Small {
    fn new(fields: &[u8], content: &[u8]) -> Self {
        let mut wire = Vec::with_capacity(content.len() + fields.len() + 256);
        head::begin(&mut wire, 200, &[b'0'; DATE_BYTES]);
        wire.extend_from_slice(fields);
        head::content_length(&mut wire, content.len() as u64);
        wire.extend_from_slice(b"\r\n");
        let body_at = wire.len();
        wire.extend_from_slice(content);
        wire.shrink_to_fit();
        Self {
            wire: RefCell::new(Arc::new(wire)),
            body_at,
            second: Cell::new(u64::MAX),
        }
    }
}

fn write_content_fields(content_type: &str, encoding: Option<&str>, out: &mut Vec<u8>) {
    head::field(out, "Content-Type", content_type.as_bytes());
    if let Some(encoding) = encoding {
        head::field(out, "Content-Encoding", encoding.as_bytes());
    }
}

/// The media type, with a charset where that is known. Of what is not in memory, the beginning is
/// read for it.
fn content_type(
    site: &Site,
    about: &About<'_>,
    file: &OpenFile,
    content: Option<&[u8]>,
    walk: Walk,
) -> Result<String, Miss> {
    if let Some(content_type) = &about.content_type {
        return Ok(content_type.clone());
    }
    let charset = &site.config.charset;
    let media_type = site.media_type(about.named.to_bytes());
    if content.is_some() || !charset.asks_for_content(&media_type) {
        return Ok(charset.declare(&media_type, content));
    }
    let mut sample = vec![0; CHARSET_SAMPLE_BYTES];
    let read = read_at(file, &mut sample, walk)?;
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
    }
}

/// Reads a small file of a stated size; less if it ends before. Files in procfs state no size, so
/// one without is read as far as small files go.
fn read_whole(file: &OpenFile, size: u64, walk: Walk) -> Result<Vec<u8>, Miss> {
    let states_no_size = size == 0;
    let size = if states_no_size { SMALL } else { size };
    let size = usize::try_from(size).map_err(|_| Miss::Exhausted(Errno::NOMEM))?;
    let mut content = vec![0; size];
    let filled = read_at(file, &mut content, walk)?;
    if states_no_size && filled == content.len() {
        // There may be more, and nobody says how much: no length can be announced.
        return Err(Miss::NotFound);
    }
    content.truncate(filled);
    content.shrink_to_fit();
    Ok(content)
}

/// Fills `into` from the beginning of a file, as far as that goes.
fn read_at(file: &OpenFile, into: &mut [u8], walk: Walk) -> Result<usize, Miss> {
    let flags = match walk {
        Walk::Cached => ReadWriteFlags::NOWAIT,
        Walk::Full => ReadWriteFlags::empty(),
    };
    let mut filled = 0;
    while filled < into.len() {
        let rest = &mut [std::io::IoSliceMut::new(&mut into[filled..])];
        match rustix::io::preadv2(file, rest, filled as u64, flags) {
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

fn is_settled(version: &Version) -> bool {
    let Timestamp {
        seconds,
        nanoseconds,
    } = version.ctime;
    let Ok(seconds) = u64::try_from(seconds) else {
        return true;
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    // A time stamp from the future says that the clock was set back: nothing can be told.
    changed.elapsed().is_ok_and(|age| age >= SETTLE)
}

fn c_path(path: &[u8]) -> Result<CString, Miss> {
    CString::new(path).map_err(|_| Miss::NotFound)
}

fn join(dir: &CStr, name: &[u8]) -> Result<CString, Miss> {
    let dir = dir.to_bytes();
    let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
    c_path(&[dir, slash, name].concat())
}

/// The directory part of a relative path; empty for the root.
fn parent(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let end = memchr::memrchr(b'/', bytes).unwrap_or(0);
    CString::new(&bytes[..end]).unwrap_or_default()
}
