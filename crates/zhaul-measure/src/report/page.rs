//! The page as a whole.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{copies, curves, data_path, headline, notes, plain, split, tables, view};
use crate::bench::results::Results;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Nothing may be loaded, and of what is in the page only our own style and script count: they are
/// named by their hashes (`sha256sum style.css`, in base64).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; \
    style-src 'sha256-D7HzUaYHqL5fsOi1TWPA4BVQ2rGWxXHBEYJElq4hqsw='; \
    script-src 'sha256-vABxWRJNWzxhQSAVWYorlhBFyvWxHEwIe3RDDSdsJMs='";

/// The results as one HTML document, complete in itself.
pub fn page(results: &Results) -> String {
    let json = plain::json(results);
    let results = &plain::plain(results);
    let views = view::paths(results);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            (head(results))
            body {
                (split::patterns())
                main {
                    (headline::section(results, &views))
                    (contents())
                    (copies::section(results, &views))
                    (curves::section(results, &views))
                    (split::section(results, &views))
                    (data_path::section(results, &views))
                    (tables::section(results, &views))
                    (notes::sections(results, &json))
                }
                footer { p { "Made by zhaul " (results.zhaul) ", " code { "zhaul bench --html" } "." } }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    document.into_string()
}

fn head(results: &Results) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(CONTENT_SECURITY_POLICY);
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="referrer" content="no-referrer";
            title { "zhaul bench: what moving bytes costs on " (results.host.cpu) }
            style { (PreEscaped(STYLE)) }
        }
    }
}

fn contents() -> Markup {
    html! {
        nav aria-label="Contents" {
            ul {
                @for (id, title) in [
                    ("copies", "Copies"),
                    ("curves", "Cost by size"),
                    ("split", "CPU time"),
                    ("data-paths", "Data paths"),
                    ("figures", "All figures"),
                    ("skipped", "Not run"),
                    ("methods", "Methods"),
                    ("machine", "Machine"),
                    ("raw", "Raw data"),
                ] {
                    li { a href={ "#" (id) } { (title) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// The hash as a content security policy writes it; `None` without the program.
    fn hash(text: &str) -> Option<String> {
        let mut child = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(text.as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        let hex = String::from_utf8(output.stdout).ok()?;
        let bytes: Vec<u8> = (0..32)
            .map(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
            .collect();
        Some(format!("'sha256-{}'", base64(&bytes)))
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = (0..3).fold(0u32, |bits, index| {
                bits << 8 | u32::from(group.get(index).copied().unwrap_or(0))
            });
            for index in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * index) & 63) as usize];
                text.push(if index > group.len() {
                    '='
                } else {
                    digit.into()
                });
            }
        }
        text
    }

    #[test]
    fn policy_names_style_and_script_by_their_hashes() {
        for (name, text) in [("style-src", STYLE), ("script-src", SCRIPT)] {
            let Some(hash) = hash(text) else {
                zhaul_untested::skip(
                    "policy_names_style_and_script_by_their_hashes",
                    "no sha256sum",
                );
                return;
            };
            let wanted = format!("{name} {hash}");
            assert!(
                CONTENT_SECURITY_POLICY.contains(&wanted),
                "must contain: {wanted}"
            );
        }
    }

    #[test]
    fn style_and_script_cannot_end_their_elements() {
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains("</"));
        }
    }
}
