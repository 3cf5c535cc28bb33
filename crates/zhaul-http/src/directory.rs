//! Reading a directory for its listing.
//!
//! Blocks; runs on the cold pool. Shows what the server would serve: files and directories, names
//! with a leading dot only where they are served, symbolic links as what they lead to, and only if
//! the policy lets them lead there.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, statx};
use rustix::io::Errno;

use crate::answer::{Answer, Exchange, Next};
use crate::head;
use crate::listing::{self, Entry, Format, HTML_CSP, Sort};
use crate::open_file::OpenFile;
use crate::request::Method;
use crate::root::{Kind, Walk};
use crate::site::Site;
use crate::storage::TimedOut;
use crate::worker::Worker;

/// Entries shown at most. Bounds the time and memory that one listing takes.
const MOST: usize = 10_000;
/// Bytes of names shown at most; escaped and linked they become several times as many.
const MOST_NAME_BYTES: usize = 512 * 1024;
/// Entries looked at for them.
const MOST_READ: usize = 100_000;
/// Bytes of listings that may be made and wait for their clients at once, in the whole server.
const MOST_PAGE_BYTES: usize = 64 * 1024 * 1024;
/// What is reserved for a page that is being made: each byte of a name takes up to twelve.
const RESERVED_BYTES: usize = 8 * 1024 * 1024;

/// Reads the directory at `path`; the flag says that there are more than are shown.
pub(crate) fn read(site: &Site, dir: &OpenFile, path: &[u8]) -> Result<(Vec<Entry>, bool), Errno> {
    let mut entries = Vec::new();
    let mut name_bytes = 0;
    for (looked_at, entry) in Dir::read_from(dir)?.enumerate() {
        let entry = entry?;
        let name = entry.file_name();
        if is_hidden(name, path, site.config.dot_files) {
            continue;
        }
        name_bytes += name.count_bytes();
        if entries.len() == MOST || name_bytes > MOST_NAME_BYTES || looked_at >= MOST_READ {
            return Ok((entries, true));
        }
        entries.extend(describe(site, dir, path, name));
    }
    Ok((entries, false))
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
        let before = site.page_bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = Self {
            site: Arc::clone(site),
            bytes,
        };
        (before + bytes <= MOST_PAGE_BYTES).then_some(taken)
    }

    /// Gives back what the finished page does not take.
    fn settle(&mut self, bytes: usize) {
        let counted = &self.site.page_bytes;
        counted.fetch_add(bytes, Ordering::Relaxed);
        counted.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for PageMemory {
    fn drop(&mut self) {
        self.site
            .page_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
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
        Next::List(Box::new(Listing {
            dir,
            path: path.to_vec(),
            sort: Sort::from_query(head.query),
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
            format,
            version_minor,
            fields,
            mut answer,
        } = listing;
        // Before it is made: what is being made takes memory, too.
        let Some(mut memory) = PageMemory::take(&self.site, RESERVED_BYTES) else {
            self.warn(|| "too many listings are waiting for slow clients".to_owned());
            self.fail(&mut answer, 503);
            return answer;
        };
        let site = Arc::clone(&self.site);
        let directory = Arc::clone(&dir);
        let job = move || {
            let entries = read(&site, &directory, &path);
            entries.map(|(entries, truncated)| {
                listing::Listing::new(&path, entries, sort, truncated).render(format)
            })
        };
        let pool = &dir.file_system().listings;
        let page = match self.site.storage.run(pool, job).await {
            Ok(Ok(page)) => page,
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
        memory.settle(page.len());
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
