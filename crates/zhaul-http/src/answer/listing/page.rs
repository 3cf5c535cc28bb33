//! The HTML of a listing: one table that a phone shows as two lines an entry.
//!
//! The style is inline and constant, so that [`crate::answer::html::CONTENT_SECURITY_POLICY`] can name it
//! by its hash; there is no script and no style attribute.

use super::{Cursor, Entry, Format, Listing, Page, Sort, SortKey, timestamp};
use crate::answer::html::escape_html;
use crate::message::target::encode_path;

pub(super) fn render(listing: &Listing<'_>) -> Vec<u8> {
    let mut page = Html {
        out: Vec::with_capacity(4096 + 320 * listing.entries.len()),
    };
    page.head(listing);
    page.breadcrumb(listing.path);
    page.table(listing);
    page.foot(listing);
    page.out
}

struct Html {
    out: Vec<u8>,
}

impl Html {
    fn raw(&mut self, html: &str) {
        self.out.extend_from_slice(html.as_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        escape_html(text, &mut self.out);
    }

    fn head(&mut self, listing: &Listing<'_>) {
        self.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        self.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        self.raw("<meta name=\"referrer\" content=\"same-origin\">\n<title>");
        self.text(&listing.display_path());
        self.raw("</title>\n<style>");
        self.raw(STYLE);
        self.raw("</style>\n</head>\n<body>\n<main>\n");
    }

    /// Each directory above is a link, the last segment is where we are.
    fn breadcrumb(&mut self, path: &[u8]) {
        self.raw("<h1>");
        if path.is_empty() {
            self.raw("<span>Files</span></h1>\n");
            return;
        }
        self.raw("<a href=\"/\">Files</a>");
        let ends = memchr::memchr_iter(b'/', path).chain([path.len()]);
        let mut start = 0;
        for end in ends {
            self.raw("<i>/</i>");
            if end == path.len() {
                self.raw("<span>");
                self.text(&path[start..end]);
                self.raw("</span>");
            } else {
                self.raw("<a href=\"/");
                encode_path(&path[..end], &mut self.out);
                self.raw("/\">");
                self.text(&path[start..end]);
                self.raw("</a>");
            }
            start = end + 1;
        }
        self.raw("</h1>\n");
    }

    fn table(&mut self, listing: &Listing<'_>) {
        if listing.entries.is_empty() {
            self.raw(if listing.page.total == 0 {
                "<p class=\"e\">This directory is empty."
            } else {
                "<p class=\"e\">There is nothing behind this place."
            });
            if !listing.path.is_empty() {
                self.raw(" <a href=\"../\">Back to the parent directory</a>");
            }
            self.raw("</p>\n");
            return;
        }
        self.raw("<table>\n<thead><tr>");
        for key in SortKey::ALL {
            self.column_head(key, listing.sort);
        }
        self.raw("</tr></thead>\n<tbody>\n");
        if !listing.path.is_empty() {
            self.raw("<tr class=\"u\"><td class=\"n\"><a href=\"../");
            self.raw(&sort_query(listing.sort));
            self.raw("\">..</a></td><td></td><td></td></tr>\n");
        }
        for entry in &listing.entries {
            self.row(entry, listing.sort);
        }
        self.raw("</tbody>\n</table>\n");
    }

    /// A link that sorts by this column, or turns it round. Sizes and dates start with the
    /// largest and latest, which is what people look for.
    fn column_head(&mut self, key: SortKey, current: Sort) {
        let is_current = key == current.key;
        let descending = if is_current {
            !current.descending
        } else {
            !matches!(key, SortKey::Name)
        };
        self.raw(match (is_current, current.descending) {
            (false, _) => "<th scope=\"col\">",
            (true, false) => "<th scope=\"col\" aria-sort=\"ascending\">",
            (true, true) => "<th scope=\"col\" aria-sort=\"descending\">",
        });
        let order = if descending { "desc" } else { "asc" };
        let label = match key {
            SortKey::Name => "Name",
            SortKey::Size => "Size",
            SortKey::Date => "Modified",
        };
        // A form and not a link: crawlers follow links, whatever those say of it, and would fetch
        // the directory once for each order.
        self.raw(&format!(
            "<form rel=\"nofollow\"><input type=\"hidden\" name=\"order\" value=\"{order}\">\
             <button name=\"sort\" value=\"{}\">{label}</button></form></th>",
            key.token()
        ));
    }

    fn row(&mut self, entry: &Entry, sort: Sort) {
        self.raw(if entry.is_dir {
            "<tr class=\"d\">"
        } else {
            "<tr>"
        });
        self.raw("<td class=\"n\"><a href=\"");
        entry.write_href(&mut self.out);
        if entry.is_dir {
            self.raw(&sort_query(sort));
        }
        self.raw("\">");
        self.text(&entry.name);
        self.raw(if entry.is_dir {
            "/</a></td><td>"
        } else {
            "</a></td>"
        });
        if !entry.is_dir {
            self.raw(&format!(
                "<td title=\"{} bytes\">{}",
                entry.size,
                human_size(entry.size)
            ));
        }
        self.raw("</td><td>");
        if let Some(modified) = timestamp(entry.mtime_s) {
            let (date, time) = (modified.date, modified.time);
            // Seconds are for sorting, not for reading.
            let minutes = &time[..5];
            self.raw(&format!(
                "<time datetime=\"{date}T{time}Z\" title=\"{date} {time} UTC\">{date} \
                 <b>{minutes}</b></time>"
            ));
        }
        self.raw("</td></tr>\n");
    }

    fn foot(&mut self, listing: &Listing<'_>) {
        let Page {
            before,
            total,
            is_cut,
        } = listing.page;
        let shown = listing.entries.len();
        if before > 0 || shown < total {
            self.raw("<p class=\"w\">");
            if shown > 0 {
                let (first, last) = (before + 1, before + shown);
                self.raw(&format!("{first} to {last} of {total}."));
            }
            if before > 0 {
                self.raw(" <a rel=\"first\" href=\"./");
                self.raw(&sort_query(listing.sort));
                self.raw("\">First page</a>");
            }
            if let Some(last) = listing.last_of_page() {
                self.raw(" <a rel=\"next\" href=\"");
                self.text(&Cursor::reference(last, listing.sort, Format::Html));
                self.raw("\">Next page</a>");
            }
            self.raw("</p>\n");
        }
        if is_cut {
            self.raw(
                "<p class=\"w\" role=\"note\">There are more entries than are listed here; they can \
                 be opened by name.</p>\n",
            );
        }
        let files = listing.entries.iter().filter(|entry| !entry.is_dir);
        let total = files
            .clone()
            .map(|entry| entry.size)
            .fold(0, u64::saturating_add);
        let files = files.count();
        let directories = listing.entries.len() - files;
        if !listing.entries.is_empty() {
            self.raw(&format!(
                "<footer>{}, {}, {}. Times are UTC.</footer>\n",
                count(directories, "directory", "directories"),
                count(files, "file", "files"),
                human_size(total)
            ));
        }
        self.raw("</main>\n</body>\n</html>\n");
    }
}

/// Keeps the order when going to another directory; nothing for the default one.
fn sort_query(sort: Sort) -> String {
    if sort == Sort::default() {
        return String::new();
    }
    let order = if sort.descending { "desc" } else { "asc" };
    format!("?sort={}&amp;order={order}", sort.key.token())
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Three significant digits in binary units.
pub(super) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for next in UNITS {
        // What rounds to 1024.0 of one unit is 1.0 of the next.
        if tenths < 10 * 1024 - 1 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = next;
    }
    match tenths {
        0..1000 => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        _ => format!("{} {unit}", (tenths + 5) / 10),
    }
}

/// The two icons are clipped boxes: no image, no font, and they follow the colour scheme.
pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark;--l:#0b57d0;--m:#5c6370;--b:#e3e6ea;--h:#f2f5f9;--d:#e0a93b;\
--w:#fff6dc;--f:#1b1f24;--g:#fff}\
@media(prefers-color-scheme:dark){:root{--l:#8ab4f8;--m:#9aa3af;--b:#30363d;--h:#1c2128;\
--d:#d9a53f;--w:#3b3116;--f:#e6edf3;--g:#0d1117}}\
*{box-sizing:border-box}\
body{margin:0;font:1rem/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;\
background:var(--g);color:var(--f)}\
main{max-width:64rem;margin:0 auto;padding:1.5rem 1rem 3rem}\
a{color:var(--l);text-decoration:none}\
a:hover{text-decoration:underline}\
h1,.e,footer{padding:0 .75rem}\
h1{font-size:1.35rem;line-height:1.4;margin:0 0 1rem;overflow-wrap:anywhere;font-weight:600}\
h1 i{color:var(--m);font-style:normal;font-weight:400;margin:0 .35em}\
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.4rem .75rem;border-bottom:1px solid var(--b);vertical-align:top}\
th{font-size:.8125rem;font-weight:600;white-space:nowrap}\
th button{color:var(--m);font:inherit;background:none;border:0;padding:0;cursor:pointer}\
th button:hover{text-decoration:underline}\
th[aria-sort] button{color:inherit}\
th[aria-sort=ascending] button::after{content:' \\2191'}\
th[aria-sort=descending] button::after{content:' \\2193'}\
th+th,td+td{text-align:right;white-space:nowrap;width:1%}\
td+td{color:var(--m);font-size:.875rem;line-height:1.75}\
td b{font-weight:400}\
tbody tr:hover{background:var(--h)}\
.n{overflow-wrap:anywhere}\
.n a{display:block;position:relative;padding-left:1.75rem}\
.n a::before{content:'';position:absolute;left:0;top:.25rem;width:.85rem;height:1.05rem;\
background:var(--m);opacity:.55;clip-path:polygon(0 0,62% 0,100% 30%,100% 100%,0 100%)}\
.d .n a::before{width:1.15rem;height:.9rem;top:.32rem;background:var(--d);opacity:1;\
clip-path:polygon(0 0,38% 0,50% 16%,100% 16%,100% 100%,0 100%)}\
.d .n a{font-weight:600}\
.u .n a::before{content:'\\2191';background:none;clip-path:none;opacity:1;color:var(--m);\
width:auto;height:auto;top:0;left:.2rem}\
.e{color:var(--m);margin:0}\
.e a{display:block;padding:1rem 0}\
.w{background:var(--w);border-radius:.5rem;padding:.75rem 1rem;margin:1rem 0 0}\
footer{color:var(--m);font-size:.8125rem;margin-top:1rem}\
@media(max-width:40rem){\
main{padding:1rem 0 2rem}\
h1,.e,footer{padding:0 1rem}\
.w{margin:1rem}\
thead tr{display:flex;gap:1.25rem;padding:0 1rem .5rem;border-bottom:1px solid var(--b)}\
th,td{border:0;padding:0}\
th{width:auto!important;font-size:.875rem}\
tbody tr{display:grid;grid-template-columns:auto 1fr;column-gap:1rem;padding:.6rem 1rem;\
border-bottom:1px solid var(--b)}\
.n{grid-column:1/-1;width:auto}\
td+td{width:auto;text-align:left;padding-left:1.75rem}\
td+td+td{padding:0}\
td:empty{display:none}\
.d td:empty+td{padding-left:1.75rem}}\
@media print{:root{color-scheme:light}a{color:inherit}th button::after{content:none!important}\
tbody tr{break-inside:avoid}.u{display:none}}";
