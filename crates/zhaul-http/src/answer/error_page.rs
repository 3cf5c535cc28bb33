//! The built-in body of an error answer, as HTML or as plain text.
//!
//! Says what happened in words for a visitor, shows no version, no path on disk and nothing of
//! the request.

use crate::message::status::reason;

/// The value of `Allow`, for 405 and for the answer to OPTIONS.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// A sentence for the visitor.
fn explanation(status: u16) -> &'static str {
    match status {
        400 => "The server could not understand this request.",
        403 => "You may not read this file or directory.",
        404 => "There is nothing at this address.",
        405 => "Files can be read here (GET, HEAD), but not changed.",
        408 => "The request took too long to arrive.",
        412 => "The file is not in the state that the request asked for.",
        413 => "The request carries more data than the server accepts.",
        414 => "The address is too long.",
        416 => "The file has no such range of bytes.",
        429 | 503 => "The server is busy. Please try again in a moment.",
        431 => "The request has too many or too large header fields.",
        500 => "The server could not read this file.",
        501 => "The server does not support what the request asks for.",
        505 => "The server speaks HTTP/1.0 and HTTP/1.1.",
        _ => "The request could not be answered.",
    }
}

/// An HTML page of under 2 KiB; send it as `text/html; charset=utf-8`.
#[must_use]
pub fn html(status: u16) -> Vec<u8> {
    let reason = reason(status);
    let mut page = Vec::with_capacity(1024);
    let mut push = |text: &str| page.extend_from_slice(text.as_bytes());
    push("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    push("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    push("<meta name=\"robots\" content=\"noindex\">\n");
    push(&format!(
        "<title>{status} {reason}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    ));
    push(&format!(
        "<main>\n<p class=\"s\">{status}</p>\n<h1>{reason}</h1>\n"
    ));
    push(&format!("<p>{}</p>\n", explanation(status)));
    page.extend_from_slice(b"</main>\n</body>\n</html>\n");
    page
}

/// Two lines; send them as `text/plain; charset=utf-8`.
#[must_use]
pub fn plain(status: u16) -> Vec<u8> {
    format!("{status} {}\n{}\n", reason(status), explanation(status)).into_bytes()
}

pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;\
font:1rem/1.5 system-ui,sans-serif;background:Canvas;color:CanvasText}\
main{padding:2rem;max-width:32rem;text-align:center;overflow-wrap:anywhere}\
.s{margin:0;font-size:4.5rem;font-weight:700;line-height:1;opacity:.25}\
h1{margin:.5rem 0;font-size:1.4rem}\
p{margin:.5rem 0}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_that_we_send_has_a_reason_and_a_page() {
        for status in [
            400, 403, 404, 405, 408, 412, 413, 414, 416, 417, 429, 431, 500, 501, 503, 505,
        ] {
            assert_ne!(reason(status), "Unknown", "{status}");
            let page = String::from_utf8(html(status)).unwrap();
            assert!(page.contains(&format!("<title>{status} {}</title>", reason(status))));
            assert!(page.len() < 2048);
            let text = String::from_utf8(plain(status)).unwrap();
            assert!(text.starts_with(&format!("{status} ")) && text.ends_with(".\n"));
        }
    }

    #[test]
    fn pages_need_nothing_that_a_strict_policy_forbids() {
        let page = String::from_utf8(html(404)).unwrap();
        for forbidden in ["<script", "http:", "https:", "src=", "style=", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn nothing_tells_the_version() {
        for status in [400, 404, 500] {
            for page in [html(status), plain(status)] {
                let page = String::from_utf8(page).unwrap();
                assert!(!page.contains(env!("CARGO_PKG_VERSION")));
                assert!(!page.to_ascii_lowercase().contains("zhaul"));
            }
        }
    }
}
