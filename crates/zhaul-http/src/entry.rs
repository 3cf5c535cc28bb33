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
//! mtime and ctime; of a sibling also one of the file whose sibling it is, since one that is older
//! is stale and not sent; and where the answer also depends on names that were *not* there (a
//! sibling in a better coding, an earlier index file), one statx(2) of their directory, whose mtime
//! changes with every name. What is there and of no use (a sibling that is stale or may not be read,
//! a link that leads nowhere) can become so without that, and is looked at by its own path.
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
use tokio::sync::OwnedSemaphorePermit;
use zhaul::{Timestamp, Version};

use crate::clock::{Clock, DATE_BYTES};
use crate::encoding::{Coding, CodingSet};
use crate::etag::{ETag, FileStamp};
use crate::head;
use crate::mime::{CHARSET_SAMPLE_BYTES, inherent_coding};
use crate::mount;
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
/// The same where times seem to be whole seconds: FAT has every other one.
const SETTLE_COARSE: Duration = Duration::from_millis(2025);

/// Representations of a file: one in each [`Coding`].
const CODINGS: usize = 1 + Coding::COMPRESSED.len();

/// The most that is read into memory of a file that states no size.
const MADE_UP_BYTES: usize = 16 * 1024 * 1024;

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
    /// What every answer depends on beside its file: index files that were missing.
    index: Vec<Watch>,
    /// What an answer depends on that might have had a better coding: siblings that were missing.
    siblings: Vec<Watch>,
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
    /// Whether nothing about it will look different a second later with the file unchanged.
    settled: bool,
    watch: Watch,
    /// What a body counts against that is in memory and not small.
    _room: Option<OwnedSemaphorePermit>,
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

/// A path, and what it led to.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    path: CString,
    version: Result<Version, Errno>,
}

impl Watch {
    fn of(root: &Root, path: CString, walk: Walk) -> Result<Self, Miss> {
        match root.version(&path, walk) {
            Err(Errno::AGAIN) => Err(Miss::NotCached),
            version => Ok(Self { path, version }),
        }
    }

    pub(crate) fn holds(&self, root: &Root, walk: Walk) -> bool {
        root.version(&self.path, walk) == self.version
    }

    /// Whether a change within the same tick of the clock can be ruled out.
    fn is_settled(&self) -> bool {
        self.version.is_ok_and(|version| is_settled(&version)) || self.version.is_err()
    }
}

impl FileSet {
    /// Whether `coding` may be sent as it was loaded. `may_be_better` says that the client would
    /// like another coding better, so that a sibling that has appeared since would matter.
    ///
    /// `batch` names requests that were all received before any of them was answered. A check made
    /// for one of them is later than each of them, and is not made again.
    pub(crate) fn check(
        &self,
        root: &Root,
        coding: Coding,
        may_be_better: bool,
        batch: Option<u64>,
    ) -> bool {
        let Some(chosen) = self.get(coding) else {
            return false;
        };
        let this = batch.map(|batch| (batch, coding, may_be_better));
        if this.is_some() && this == self.checked.get() {
            return true;
        }
        let holds = |watch: &Watch| watch.holds(root, Walk::Cached);
        // A sibling is stale when its file is newer.
        let plain = self
            .get(Coding::Identity)
            .filter(|_| coding != Coding::Identity);
        let siblings = self.siblings.iter().filter(|_| may_be_better);
        let holds = holds(&chosen.watch)
            && plain.is_none_or(|plain| holds(&plain.watch))
            && self.index.iter().chain(siblings).all(holds);
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
        let watches = files.map(|representation| &representation.watch);
        let names = self.index.iter().chain(&self.siblings);
        watches.chain(names).cloned().collect()
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
        (Kind::File, false) => load_file(site, &name, opened, walk, Names::NONE).map(Found::file),
        // A slash behind a file's name asks for a directory of that name.
        (Kind::File, true) => Err(Miss::NotFound),
        (Kind::Directory, false) => Ok(Found::Redirect),
        (Kind::Directory, true) => load_index(site, &name, &opened, walk),
    }
}

impl Found {
    fn file(set: FileSet) -> Self {
        Self::File(Box::new(set))
    }
}

fn load_index(site: &Site, dir: &CStr, opened: &Opened, walk: Walk) -> Result<Found, Miss> {
    // As it was before names in it were looked for.
    let directory = Watch {
        path: dir.to_owned(),
        version: Ok(opened.version),
    };
    let mut missing = Absences::default();
    for index in &site.config.index {
        let name = join(dir, index.as_bytes())?;
        match site.root.open(&name, walk) {
            Ok(file) if file.kind == Kind::File => {
                return load_file(site, &name, file, walk, missing.within(directory))
                    .map(Found::file);
            }
            Ok(_) => missing.note_useless(site, &name, walk)?,
            Err(Miss::NotFound) => missing.note(site, &name, dir, walk)?,
            Err(miss) => return Err(miss),
        }
    }
    if site.config.listing {
        Ok(Found::Listing(Root::open_directory(&opened.file)?))
    } else {
        Err(Miss::NotFound)
    }
}

/// Names that were looked for and not found, or found to be of no use.
#[derive(Debug, Default)]
struct Absences {
    /// Some were not there, which their directory tells.
    are_in_directory: bool,
    /// Of the others only their own paths tell.
    others: Vec<Watch>,
    /// Some are refused links. To look at what they lead to may wait for whoever has it.
    are_refused: bool,
}

impl Absences {
    /// Notes a name that led to nothing, looked for in `dir`.
    fn note(&mut self, site: &Site, name: &CStr, dir: &CStr, walk: Walk) -> Result<(), Miss> {
        if parent(name).as_c_str() == dir && !site.root.has_name(name, walk) {
            self.are_in_directory = true;
            return Ok(());
        }
        if site.root.refuses(name, walk)? {
            self.are_refused = true;
            return Ok(());
        }
        self.note_useless(site, name, walk)
    }

    /// Notes a name that is there.
    fn note_useless(&mut self, site: &Site, name: &CStr, walk: Walk) -> Result<(), Miss> {
        self.others
            .push(Watch::of(&site.root, name.to_owned(), walk)?);
        Ok(())
    }

    /// What is to be watched for them, `directory` being as it was before.
    fn within(self, directory: Watch) -> Names {
        let directory = Some(directory).filter(|_| self.are_in_directory);
        Names {
            watches: directory.into_iter().chain(self.others).collect(),
            are_all: !self.are_refused,
        }
    }
}

/// What a choice depends on.
#[derive(Debug)]
struct Names {
    watches: Vec<Watch>,
    /// Whether there is nothing else that it depends on.
    are_all: bool,
}

impl Names {
    const NONE: Self = Self {
        watches: Vec::new(),
        are_all: true,
    };
}

/// `index` is what the choice of this file depends on.
fn load_file(
    site: &Site,
    name: &CStr,
    opened: Opened,
    walk: Walk,
    index: Names,
) -> Result<FileSet, Miss> {
    // The directory is looked at before its names are, so that a name that appears in between
    // changes a version that we remember.
    let dir = parent(name);
    let directory = Watch::of(&site.root, dir.clone(), walk)?;
    let plain = opened.version;
    let mut missing = Absences::default();
    let mut settled = true;
    let mut files: [Option<(CString, Opened)>; CODINGS] = Default::default();
    // What is compressed already gains nothing by it.
    if site.config.precompressed && inherent_coding(name.to_bytes()).is_none() {
        for coding in Coding::COMPRESSED {
            let sibling = c_path(&[name.to_bytes(), coding.file_suffix().as_bytes()].concat())?;
            match site.root.open(&sibling, walk) {
                Ok(file) if file.kind == Kind::File && !is_stale(&file.version, &plain) => {
                    files[coding as usize] = Some((sibling, file));
                }
                Err(miss) if is_temporary(miss) => return Err(miss),
                Err(Miss::NotFound | Miss::Forbidden) => {
                    missing.note(site, &sibling, &dir, walk)?;
                }
                // Stale or of another kind.
                Ok(_) => missing.note_useless(site, &sibling, walk)?,
                // Nothing tells when that ends.
                Err(_) => settled = false,
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
        match represent(site, &about, path, file, walk) {
            Ok(representation) => representations[coding as usize] = Some(representation),
            // A sibling that cannot be read is as good as none, and nothing tells when that ends.
            Err(miss) if coding != Coding::Identity && !is_temporary(miss) => settled = false,
            Err(miss) => return Err(miss),
        }
    }
    let siblings = missing.within(directory);
    settled &= siblings.are_all && index.are_all;
    let (index, mut siblings) = (index.watches, siblings.watches);
    // What is looked at for every answer is not looked at twice.
    siblings.retain(|sibling| index.iter().all(|watch| watch.path != sibling.path));
    settled &= index.iter().chain(&siblings).all(Watch::is_settled)
        && representations
            .iter()
            .flatten()
            .all(|representation| representation.settled);
    Ok(FileSet {
        representations,
        index,
        siblings,
        settled,
        checked: Cell::new(None),
        known_ms: Cell::new(0),
    })
}

/// Whether to try again, elsewhere or with more descriptors, may help.
fn is_temporary(miss: Miss) -> bool {
    matches!(miss, Miss::NotCached | Miss::Exhausted(_))
}

/// Whether a sibling was made of an earlier state of its file. Compressors give their output the
/// time of their input, some of them cut to whole seconds or to microseconds.
fn is_stale(sibling: &Version, plain: &Version) -> bool {
    let (sibling, plain) = (sibling.mtime, plain.mtime);
    if sibling.seconds != plain.seconds {
        return sibling.seconds < plain.seconds;
    }
    let is_cut = sibling.nanoseconds == 0
        || sibling.nanoseconds == plain.nanoseconds - plain.nanoseconds % 1000;
    sibling.nanoseconds < plain.nanoseconds && !is_cut
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
            let read = read_whole(site, &file, version.size, walk)?;
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

impl Representation {
    /// Writes what is said of the bytes that are sent, and so not in a 304.
    pub(crate) fn write_content_fields(&self, out: &mut Vec<u8>) {
        write_content_fields(&self.content_type, self.content_encoding, out);
    }

    /// Where the file is, relative to the root; for messages.
    pub(crate) fn path(&self) -> &CStr {
        &self.watch.path
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
fn read_whole(site: &Site, file: &OpenFile, size: u64, walk: Walk) -> Result<Content, Miss> {
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
            let permit = Arc::clone(&site.made_up).try_acquire_owned();
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

fn is_settled(version: &Version) -> bool {
    let Timestamp {
        seconds,
        nanoseconds,
    } = version.ctime;
    let Ok(seconds) = u64::try_from(seconds) else {
        return true;
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    let settle = if nanoseconds == 0 {
        SETTLE_COARSE
    } else {
        SETTLE
    };
    // A time stamp from the future says that the clock was set back: nothing can be told.
    changed.elapsed().is_ok_and(|age| age >= settle)
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
