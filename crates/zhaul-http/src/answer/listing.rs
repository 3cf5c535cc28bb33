//! A directory as a page for people or as JSON for programs.
//!
//! A [`Listing`] is built from entries that somebody else has read; it sorts and renders them. Of a
//! large directory it is one page. The next page begins behind the last entry of this one
//! ([`Cursor`]), wherever that stands by then: whoever makes a page needs to keep no more than the
//! first entries behind the cursor, and files that come and go meanwhile neither repeat nor hide
//! others.
//!
//! Names are bytes that another user may have chosen. What is shown is escaped and lossy where
//! they are not UTF-8; what is linked is percent-encoded byte for byte, so that every file can be
//! opened. Links are relative and begin with `./`: no name can pass for a scheme (`javascript:`).
//!
//! JSON: `{"path", "entries": [{"name", "type", "size", "mtime", "href"}], "total", "next",
//! "truncated"}` with `type` `directory` or `file`, `size` null for directories, `mtime` in RFC 3339
//! and UTC, `total` the entries of the directory, `next` a reference to the next page or null, and
//! `truncated` whether there are entries behind these.

mod page;
#[cfg(test)]
mod tests;

pub use crate::answer::html::CONTENT_SECURITY_POLICY as HTML_CSP;
#[cfg(test)]
pub(crate) use page::STYLE;

use std::cmp::Ordering;

use crate::log::access_log::{format_time, json_string};
use crate::message::encoding::parse_weight;
use crate::message::field_lines::FieldLines;
use crate::message::target::{TargetPath, encode_path};

/// One directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File name without any slash.
    pub name: Vec<u8>,
    /// Whether it is a directory, or a link to one that is followed.
    pub is_dir: bool,
    /// Size in bytes; not shown for directories.
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime_s: i64,
}

/// What to sort by. Directories always come before files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortKey {
    /// Names as people sort them: without regard to ASCII case, `a2` before `a10`.
    #[default]
    Name,
    /// Size; directories by name.
    Size,
    /// Modification time.
    Date,
}

impl SortKey {
    const ALL: [Self; 3] = [Self::Name, Self::Size, Self::Date];

    fn token(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "size",
            Self::Date => "date",
        }
    }
}

/// Key and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// What to sort by.
    pub key: SortKey,
    /// Largest, latest or last name first.
    pub descending: bool,
}

impl Sort {
    /// Reads `sort=name|size|date` and `order=asc|desc`; what is unknown is ignored.
    #[must_use]
    pub fn from_query(query: Option<&str>) -> Self {
        let mut sort = Self::default();
        for (name, value) in parameters(query) {
            match (name, value) {
                ("sort", "name") => sort.key = SortKey::Name,
                ("sort", "size") => sort.key = SortKey::Size,
                ("sort", "date" | "mtime" | "time") => sort.key = SortKey::Date,
                ("order", "asc") => sort.descending = false,
                ("order", "desc") => sort.descending = true,
                _ => {}
            }
        }
        sort
    }

    /// Which of two entries comes first.
    #[must_use]
    pub fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let by_name = || compare_names(&a.name, &b.name);
        let by_key = match self.key {
            // Without sizes to compare, names run forward in either direction.
            SortKey::Size if a.is_dir && b.is_dir => return by_name(),
            SortKey::Name => by_name(),
            SortKey::Size => a.size.cmp(&b.size).then_with(by_name),
            SortKey::Date => a.mtime_s.cmp(&b.mtime_s).then_with(by_name),
        };
        let by_key = if self.descending {
            by_key.reverse()
        } else {
            by_key
        };
        b.is_dir.cmp(&a.is_dir).then(by_key)
    }
}

/// The last entry of a page: what sorts it, so that it need not be there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Entry);

impl Cursor {
    /// Reads `after=KIND.KEY.NAME`: `d` or `f`, the number that is sorted by, the encoded name.
    #[must_use]
    pub fn from_query(query: Option<&str>, sort: Sort) -> Option<Self> {
        let (_, value) = parameters(query).find(|(name, _)| *name == "after")?;
        let mut parts = value.splitn(3, '.');
        let is_dir = match parts.next()? {
            "d" => true,
            "f" => false,
            _ => return None,
        };
        let key: i64 = parts.next()?.parse().ok()?;
        let path = format!("/{}", parts.next()?);
        let name = TargetPath::decode(&path).ok()?.relative.into_owned();
        let (size, mtime_s) = match sort.key {
            SortKey::Size => (key.cast_unsigned(), 0),
            SortKey::Date => (0, key),
            SortKey::Name => (0, 0),
        };
        Some(Self(Entry {
            name,
            is_dir,
            size,
            mtime_s,
        }))
    }

    /// Whether `entry` comes behind it.
    #[must_use]
    pub fn is_before(&self, entry: &Entry, sort: Sort) -> bool {
        sort.compare(&self.0, entry).is_lt()
    }

    /// The relative reference of the page behind `last`; it needs no escaping but that of `&`.
    fn reference(last: &Entry, sort: Sort, format: Format) -> Vec<u8> {
        let key = match sort.key {
            SortKey::Size => last.size.cast_signed(),
            SortKey::Date => last.mtime_s,
            SortKey::Name => 0,
        };
        let order = if sort.descending { "desc" } else { "asc" };
        let kind = if last.is_dir { 'd' } else { 'f' };
        let json = match format {
            Format::Json => "format=json&",
            Format::Html => "",
        };
        let sort = sort.key.token();
        let mut out =
            format!("./?{json}sort={sort}&order={order}&after={kind}.{key}.").into_bytes();
        // What parts parameters would end it, or be taken for a space.
        for &byte in &last.name {
            match byte {
                b'+' | b'=' | b';' | b'&' => {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
                _ => encode_path(&[byte], &mut out),
            }
        }
        out
    }
}

/// Where a page of a directory stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries before this page.
    pub before: usize,
    /// Entries in all.
    pub total: usize,
    /// There are entries that nobody has looked at.
    pub is_cut: bool,
}

/// How to render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/html; charset=utf-8`
    Html,
    /// `application/json`
    Json,
}

impl Format {
    /// `format=html|json` in the query decides; without it, JSON is for clients that like
    /// `application/json` better than `text/html`. The answer varies by Accept.
    #[must_use]
    pub fn choose(query: Option<&str>, accept: FieldLines<'_>) -> Self {
        for (name, value) in parameters(query) {
            match (name, value) {
                ("format", "json") => return Self::Json,
                ("format", "html") => return Self::Html,
                _ => {}
            }
        }
        let json = accept_weight(accept, "application/json");
        let html = accept_weight(accept, "text/html");
        if json > html { Self::Json } else { Self::Html }
    }

    /// The value of Content-Type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }
}

/// A directory ready to be rendered.
#[derive(Clone, Debug)]
pub struct Listing<'a> {
    path: &'a [u8],
    entries: Vec<Entry>,
    sort: Sort,
    page: Page,
}

impl<'a> Listing<'a> {
    /// Sorts `entries`. `path` is the directory relative to the root, without a slash at either
    /// end (see [`crate::message::target::TargetPath`]); `page` says which of its entries these are.
    #[must_use]
    pub fn new(path: &'a [u8], mut entries: Vec<Entry>, sort: Sort, page: Page) -> Self {
        entries.sort_unstable_by(|a, b| sort.compare(a, b));
        Self {
            path,
            entries,
            sort,
            page,
        }
    }

    /// The last entry, if there are others behind it.
    fn last_of_page(&self) -> Option<&Entry> {
        let shown = self.page.before + self.entries.len();
        self.entries.last().filter(|_| shown < self.page.total)
    }

    /// Renders in the given format.
    #[must_use]
    pub fn render(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Html => self.to_html(),
            Format::Json => self.to_json(),
        }
    }

    /// The page; needs no script, image or font.
    #[must_use]
    pub fn to_html(&self) -> Vec<u8> {
        page::render(self)
    }

    /// The JSON object.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 128 * self.entries.len());
        out.extend_from_slice(b"{\"path\":");
        json_string(&self.display_path(), &mut out);
        out.extend_from_slice(b",\"entries\":[");
        for (index, entry) in self.entries.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
            entry.write_json(&mut out);
        }
        out.extend_from_slice(b"\n],\"total\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.page.total).as_bytes());
        out.extend_from_slice(b",\"next\":");
        let last = self.last_of_page();
        match last {
            Some(last) => json_string(&Cursor::reference(last, self.sort, Format::Json), &mut out),
            None => out.extend_from_slice(b"null"),
        }
        let truncated = last.is_some() || self.page.is_cut;
        out.extend_from_slice(format!(",\"truncated\":{truncated}}}\n").as_bytes());
        out
    }

    /// `/` or `/a/b/`
    fn display_path(&self) -> Vec<u8> {
        let end: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        [b"/", self.path, end].concat()
    }
}

impl Entry {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"name\":");
        json_string(&self.name, out);
        if self.is_dir {
            out.extend_from_slice(b",\"type\":\"directory\",\"size\":null");
        } else {
            out.extend_from_slice(b",\"type\":\"file\",\"size\":");
            out.extend_from_slice(itoa::Buffer::new().format(self.size).as_bytes());
        }
        out.extend_from_slice(b",\"mtime\":");
        match timestamp(self.mtime_s) {
            Some(Timestamp { date, time }) => {
                out.extend_from_slice(format!("\"{date}T{time}Z\"").as_bytes());
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"href\":\"");
        self.write_href(out);
        out.extend_from_slice(b"\"}");
    }

    /// A relative reference that needs no further escaping in HTML or JSON.
    fn write_href(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"./");
        encode_path(&self.name, out);
        if self.is_dir {
            out.push(b'/');
        }
    }
}

/// A time of the years 1970 to 9999, in UTC.
struct Timestamp {
    /// `2026-11-20`
    date: String,
    /// `08:43:36`
    time: String,
}

fn timestamp(unix_s: i64) -> Option<Timestamp> {
    const YEAR_10000_S: u64 = 253_402_300_800;
    let unix_s = u64::try_from(unix_s).ok().filter(|&s| s < YEAR_10000_S)?;
    Some(Timestamp {
        date: format_time("%Y-%m-%d", unix_s),
        time: format_time("%H:%M:%S", unix_s),
    })
}

/// Runs of digits count as numbers, letters without their case; equal so far, the bytes decide.
fn compare_names(a: &[u8], b: &[u8]) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    loop {
        let ordering = match (rest_a, rest_b) {
            ([x, ..], [y, ..]) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (number_a, after_a) = split_number(rest_a);
                let (number_b, after_b) = split_number(rest_b);
                (rest_a, rest_b) = (after_a, after_b);
                number_a
                    .len()
                    .cmp(&number_b.len())
                    .then(number_a.cmp(number_b))
            }
            ([x, after_a @ ..], [y, after_b @ ..]) => {
                (rest_a, rest_b) = (after_a, after_b);
                x.to_ascii_lowercase().cmp(&y.to_ascii_lowercase())
            }
            _ => return rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b)),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
}

/// The digits in front without leading zeros, and what follows.
fn split_number(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(bytes.len());
    let (digits, after) = bytes.split_at(end);
    let zeros = digits.iter().take_while(|&&b| b == b'0').count();
    (&digits[zeros..], after)
}

fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query
        .unwrap_or_default()
        .split('&')
        .filter_map(|parameter| parameter.split_once('='))
}

/// The weight of a media type in thousandths, by the most specific range that names it
/// (RFC 9110 §12.5.1).
fn accept_weight(accept: FieldLines<'_>, media_type: &str) -> u16 {
    let (main, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    let mut best = (0, 0);
    for member in accept.members() {
        let end = memchr::memchr(b';', member).unwrap_or(member.len());
        let range = member[..end].trim_ascii_end();
        let specificity = match range {
            b"*/*" => 1,
            _ if range.eq_ignore_ascii_case(format!("{main}/*").as_bytes()) => 2,
            _ if range.eq_ignore_ascii_case(media_type.as_bytes()) => 3,
            _ => continue,
        };
        let weight = member.get(end + 1..).map_or(Some(1000), parse_weight);
        if let Some(weight) = weight {
            best = best.max((specificity, weight));
        }
    }
    best.1
}
