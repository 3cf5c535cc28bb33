//! Reading a directory for its listing.
//!
//! Blocks; runs on the cold pool. Shows what the server would serve: files and directories, names
//! with a leading dot only where they are served, symbolic links as what they lead to, and only if
//! the policy lets them lead there.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicUsize, Ordering as Memory};
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, statx};
use rustix::io::Errno;

use crate::answer::listing::{self, Cursor, Entry, Format, HTML_CSP, Page, Sort, SortKey};
use crate::answer::response::{Body, Fields, Response};
use crate::files::open_file::OpenFile;
use crate::files::root::{Kind, Walk};
use crate::files::tree::Tree;
use crate::host::site::Site;
use crate::message::head;
use crate::message::request::RequestHead;

/// Entries on a page at most. Bounds the memory that one listing takes.
const MOST: usize = 10_000;
/// Bytes of names on a page at most; escaped and linked they become several times as many.
const MOST_NAME_BYTES: usize = 512 * 1024;
/// Entries of a directory that are looked at. Bounds the time that one listing takes.
const MOST_READ: usize = 1_000_000;
/// Bytes of listings that may be made and wait for their clients at once, in the whole server.
const MOST_PAGE_BYTES: usize = 64 * 1024 * 1024;
/// What is reserved for a page that is being made: each byte of a name takes up to twelve.
const RESERVED_BYTES: usize = 8 * 1024 * 1024;

/// Reads the directory at `path`: the first entries, in the order of `sort`, of those behind
/// `after`. All are looked at; no more are kept than make a page.
fn read(
    tree: &Tree,
    dir: &OpenFile,
    path: &[u8],
    sort: Sort,
    after: Option<&Cursor>,
    wanted: &Wanted,
) -> Result<(Vec<Entry>, Page), Errno> {
    let mut page = Page::default();
    let mut first = BinaryHeap::new();
    let mut name_bytes = 0;
    for (looked_at, entry) in Dir::read_from(dir)?.enumerate() {
        if looked_at == MOST_READ {
            page.is_cut = true;
            break;
        }
        wanted.check(looked_at)?;
        let entry = entry?;
        let name = entry.file_name();
        if is_hidden(name, path, tree.site.config.dot_files) {
            continue;
        }
        let Some(entry) = sketch(tree, dir, path, name, entry.file_type(), sort) else {
            continue;
        };
        page.total += 1;
        if after.is_some_and(|after| !after.is_before(&entry, sort)) {
            page.before += 1;
            continue;
        }
        name_bytes += entry.name.len();
        first.push(Ranked { entry, sort });
        while first.len() > MOST || name_bytes > MOST_NAME_BYTES {
            let dropped = first.pop();
            name_bytes -= dropped.map_or(name_bytes, |dropped| dropped.entry.name.len());
        }
    }
    let mut entries = Vec::with_capacity(first.len());
    for (described, Ranked { entry, sort }) in first.into_iter().enumerate() {
        wanted.check(described)?;
        if sort.key != SortKey::Name {
            entries.push(entry);
        } else if let Ok(name) = CString::new(entry.name) {
            entries.extend(describe(tree, dir, path, &name));
        }
    }
    Ok((entries, page))
}

/// Whether somebody still waits for a listing.
struct Wanted(Weak<()>);

impl Wanted {
    /// # Errors
    /// ECANCELED, at every 256th step, if nobody waits: a thread is not kept from other listings by
    /// one that was given up.
    fn check(&self, step: usize) -> Result<(), Errno> {
        if step.is_multiple_of(256) && self.0.strong_count() == 0 {
            return Err(Errno::CANCELED);
        }
        Ok(())
    }
}

/// An entry in the order of its listing.
struct Ranked {
    entry: Entry,
    sort: Sort,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort.compare(&self.entry, &other.entry)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

/// As much of an entry as it takes to sort it. To sort by name, what the directory says is enough,
/// except of links.
fn sketch(
    tree: &Tree,
    dir: &OpenFile,
    path: &[u8],
    name: &CStr,
    kind: FileType,
    sort: Sort,
) -> Option<Entry> {
    match kind {
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            None
        }
        FileType::RegularFile | FileType::Directory if sort.key == SortKey::Name => {
            let is_dir = kind == FileType::Directory;
            Some(entry(name.to_bytes().to_vec(), is_dir, 0, 0))
        }
        _ => describe(tree, dir, path, name),
    }
}

/// Bytes of listings that are being made or wait for their clients, in the whole server.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageBytes(Arc<AtomicUsize>);

/// Memory of a listing, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct PageMemory {
    counted: PageBytes,
    bytes: usize,
}

impl PageMemory {
    /// `None` if there is too much of it already.
    fn take(counted: &PageBytes, bytes: usize) -> Option<Self> {
        let before = counted.0.fetch_add(bytes, Memory::Relaxed);
        let taken = Self {
            counted: counted.clone(),
            bytes,
        };
        (before + bytes <= MOST_PAGE_BYTES).then_some(taken)
    }

    /// Gives back what the finished page does not take.
    fn settle(&mut self, bytes: usize) {
        let PageBytes(counted) = &self.counted;
        counted.fetch_add(bytes, Memory::Relaxed);
        counted.fetch_sub(self.bytes, Memory::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for PageMemory {
    fn drop(&mut self) {
        self.counted.0.fetch_sub(self.bytes, Memory::Relaxed);
    }
}

fn is_hidden(name: &CStr, path: &[u8], dot_files: bool) -> bool {
    let name = name.to_bytes();
    let well_known = path.is_empty() && name == b".well-known";
    name == b"." || name == b".." || (name.starts_with(b".") && !dot_files && !well_known)
}

/// `None` for what is not served, or vanished meanwhile.
fn describe(tree: &Tree, dir: &OpenFile, path: &[u8], name: &CStr) -> Option<Entry> {
    let wanted = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MTIME;
    let stat = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
    let bytes = name.to_bytes().to_vec();
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => Some(entry(bytes, false, stat.stx_size, stat.stx_mtime.tv_sec)),
        FileType::Directory => Some(entry(bytes, true, 0, stat.stx_mtime.tv_sec)),
        FileType::Symlink => {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let target = CString::new([path, slash, &bytes].concat()).ok()?;
            let target = tree.root.find(&target, Walk::Full).ok()?;
            let is_dir = target.kind == Kind::Directory;
            let size = if is_dir { 0 } else { target.version.size };
            Some(entry(bytes, is_dir, size, target.version.mtime.seconds))
        }
        _ => None,
    }
}

fn entry(name: Vec<u8>, is_dir: bool, size: u64, mtime_s: i64) -> Entry {
    Entry {
        name,
        is_dir,
        size,
        mtime_s,
    }
}

/// A directory to be listed.
#[derive(Debug)]
pub(crate) struct Listing {
    dir: Arc<OpenFile>,
    path: Vec<u8>,
    sort: Sort,
    after: Option<Cursor>,
    format: Format,
    /// Fields that every answer to this request has.
    fields: Vec<u8>,
}

/// Why there is no listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlisted {
    /// Too many wait for their clients already.
    TooMany,
    Failed(Errno),
}

impl Listing {
    /// What `head` asks of the directory `dir`, which is at `path`.
    pub(crate) fn new(
        site: &Site,
        head: &RequestHead<'_>,
        dir: Arc<OpenFile>,
        path: &[u8],
    ) -> Self {
        let mut fields = Vec::new();
        site.other_fields(head, &mut fields);
        let sort = Sort::from_query(head.query);
        Self {
            dir,
            path: path.to_vec(),
            sort,
            after: Cursor::from_query(head.query, sort),
            format: Format::choose(head.query, head.accept),
            fields,
        }
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Arc<OpenFile> {
        &self.dir
    }

    /// Reads the directory and makes the page, unless `asked` is gone meanwhile. Blocks.
    ///
    /// # Errors
    /// There is no memory for it, or the directory cannot be read.
    pub(crate) fn make(
        &self,
        tree: &Tree,
        counted: &PageBytes,
        asked: Weak<()>,
    ) -> Result<(Vec<u8>, PageMemory), Unlisted> {
        // What is being made takes memory, too; what waits for a thread does not.
        let mut memory = PageMemory::take(counted, RESERVED_BYTES).ok_or(Unlisted::TooMany)?;
        let wanted = Wanted(asked);
        let (path, after) = (&self.path, self.after.as_ref());
        let (entries, page) =
            read(tree, &self.dir, path, self.sort, after, &wanted).map_err(Unlisted::Failed)?;
        let page = listing::Listing::new(path, entries, self.sort, page).render(self.format);
        memory.settle(page.len());
        Ok((page, memory))
    }

    /// The answer with the page that was made.
    pub(crate) fn respond(&self, page: Vec<u8>) -> Response {
        let mut own = Vec::with_capacity(512);
        let content_type = self.format.content_type();
        head::field(&mut own, "Content-Type", content_type.as_bytes());
        if self.format == Format::Html {
            head::field(&mut own, "Content-Security-Policy", HTML_CSP.as_bytes());
        }
        // What is listed can change at any moment, and Accept decides the format.
        own.extend_from_slice(b"Cache-Control: no-cache\r\nVary: Accept\r\n");
        own.extend_from_slice(&self.fields);
        Response {
            status: 200,
            fields: Fields::own(own),
            body: Body::Memory(page),
            complaints: Vec::new(),
        }
    }
}
