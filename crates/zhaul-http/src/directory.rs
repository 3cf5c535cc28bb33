//! Reading a directory for its listing.
//!
//! Blocks; runs on the cold pool. Shows what the server would serve: files and directories, names
//! with a leading dot only where they are served, symbolic links as what they lead to, and only if
//! the policy lets them lead there.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ffi::{CStr, CString};
use std::sync::atomic::Ordering as Memory;
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, statx};
use rustix::io::Errno;

use crate::answer::{Answer, Exchange, Next};
use crate::head;
use crate::listing::{self, Cursor, Entry, Format, HTML_CSP, Page, Sort, SortKey};
use crate::open_file::OpenFile;
use crate::request::Method;
use crate::root::{Kind, Walk};
use crate::site::Site;
use crate::storage::TimedOut;
use crate::worker::Worker;

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
pub(crate) fn read(
    site: &Site,
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
        if is_hidden(name, path, site.config.dot_files) {
            continue;
        }
        let Some(entry) = sketch(site, dir, path, name, entry.file_type(), sort) else {
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
            entries.extend(describe(site, dir, path, &name));
        }
    }
    Ok((entries, page))
}

/// Whether somebody still waits for a listing.
pub(crate) struct Wanted(Weak<()>);

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
    site: &Site,
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
        _ => describe(site, dir, path, name),
    }
}

/// Memory of a listing that waits for its client, counted for the whole server.
#[derive(Debug)]
pub(crate) struct PageMemory {
    site: Arc<Site>,
    bytes: usize,
}

impl PageMemory {
    /// `None` if there is too much of it already.
    fn take(site: &Arc<Site>, bytes: usize) -> Option<Self> {
        let before = site.page_bytes.fetch_add(bytes, Memory::Relaxed);
        let taken = Self {
            site: Arc::clone(site),
            bytes,
        };
        (before + bytes <= MOST_PAGE_BYTES).then_some(taken)
    }

    /// Gives back what the finished page does not take.
    fn settle(&mut self, bytes: usize) {
        let counted = &self.site.page_bytes;
        counted.fetch_add(bytes, Memory::Relaxed);
        counted.fetch_sub(self.bytes, Memory::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for PageMemory {
    fn drop(&mut self) {
        self.site.page_bytes.fetch_sub(self.bytes, Memory::Relaxed);
    }
}

fn is_hidden(name: &CStr, path: &[u8], dot_files: bool) -> bool {
    let name = name.to_bytes();
    let well_known = path.is_empty() && name == b".well-known";
    name == b"." || name == b".." || (name.starts_with(b".") && !dot_files && !well_known)
}

/// `None` for what is not served, or vanished meanwhile.
fn describe(site: &Site, dir: &OpenFile, path: &[u8], name: &CStr) -> Option<Entry> {
    let wanted = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MTIME;
    let stat = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
    let bytes = name.to_bytes().to_vec();
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => Some(entry(bytes, false, stat.stx_size, stat.stx_mtime.tv_sec)),
        FileType::Directory => Some(entry(bytes, true, 0, stat.stx_mtime.tv_sec)),
        FileType::Symlink => {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let target = CString::new([path, slash, &bytes].concat()).ok()?;
            let target = site.root.find(&target, Walk::Full).ok()?;
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
pub(crate) struct Listing {
    pub(crate) dir: Arc<OpenFile>,
    pub(crate) path: Vec<u8>,
    pub(crate) sort: Sort,
    pub(crate) after: Option<Cursor>,
    pub(crate) format: Format,
    pub(crate) version_minor: u8,
    /// Fields that every answer to this request has.
    pub(crate) fields: Vec<u8>,
    pub(crate) answer: Answer,
}

impl Worker {
    /// Asks for a directory to be read and listed.
    pub(crate) fn list(
        &self,
        exchange: &mut Exchange<'_>,
        dir: Arc<OpenFile>,
        path: &[u8],
    ) -> Next {
        let head = exchange.head;
        let mut fields = Vec::new();
        self.site.other_fields(head, &mut fields);
        let record = exchange.record.take();
        let mut answer = Answer::new(200, Vec::new(), exchange.keep_alive, record);
        answer.head_only = matches!(head.method, Method::Head);
        Self::mind_the_rest(exchange.request_body.take(), &mut answer);
        let sort = Sort::from_query(head.query);
        Next::List(Box::new(Listing {
            dir,
            path: path.to_vec(),
            sort,
            after: Cursor::from_query(head.query, sort),
            format: Format::choose(head.query, head.accept),
            version_minor: head.version_minor,
            fields,
            answer,
        }))
    }

    /// Reads a directory where a disk may be waited for, and makes the answer that lists it.
    pub(crate) async fn list_directory(&self, listing: Listing) -> Answer {
        let Listing {
            dir,
            path,
            sort,
            after,
            format,
            version_minor,
            fields,
            mut answer,
        } = listing;
        // Gone with the client and with the time limit.
        let asked = Arc::new(());
        let wanted = Wanted(Arc::downgrade(&asked));
        let site = Arc::clone(&self.site);
        let directory = Arc::clone(&dir);
        let job = move || {
            // What is being made takes memory, too; what waits for a thread does not.
            let Some(mut memory) = PageMemory::take(&site, RESERVED_BYTES) else {
                return Ok(None);
            };
            let (entries, page) = read(&site, &directory, &path, sort, after.as_ref(), &wanted)?;
            let page = listing::Listing::new(&path, entries, sort, page).render(format);
            memory.settle(page.len());
            Ok(Some((page, memory)))
        };
        let pool = &dir.file_system().listings;
        let made: Result<Result<_, Errno>, _> = self.site.storage.run(pool, job).await;
        drop(asked);
        let (page, memory) = match made {
            Ok(Ok(Some(made))) => made,
            Ok(Ok(None)) => {
                self.warn(|| "too many listings are waiting for slow clients".to_owned());
                self.fail(&mut answer, 503);
                return answer;
            }
            Ok(Err(errno)) => {
                self.error_report(|| format!("cannot read a directory: {errno}"));
                self.fail(&mut answer, 500);
                return answer;
            }
            Err(TimedOut) => {
                self.error_report(|| {
                    "cannot read a directory: its file system did not answer in time".to_owned()
                });
                self.fail(&mut answer, 503);
                return answer;
            }
        };
        answer.pages = Some(memory);
        let mut head = Vec::with_capacity(512 + page.len());
        self.begin(&mut head, 200);
        head::field(&mut head, "Content-Type", format.content_type().as_bytes());
        if format == Format::Html {
            head::field(&mut head, "Content-Security-Policy", HTML_CSP.as_bytes());
        }
        // What is listed can change at any moment, and Accept decides the format.
        head.extend_from_slice(b"Cache-Control: no-cache\r\nVary: Accept\r\n");
        head.extend_from_slice(&fields);
        head::content_length(&mut head, page.len() as u64);
        head::end(&mut head, answer.keep_alive, version_minor);
        answer.body_at = head.len();
        if !answer.head_only {
            head.extend_from_slice(&page);
        }
        answer.head = head;
        answer
    }
}
