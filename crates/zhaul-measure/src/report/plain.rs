//! Names from outside, made harmless to read.
//!
//! Escaping, which the templates do, keeps a name from being markup. It does not keep one from
//! turning round the words that follow it, or from containing what no document may contain.

use crate::bench::results::{Found, Results};

/// The results with every name in printable characters, for show.
pub(super) fn plain(results: &Results) -> Results {
    let mut shown = results.clone();
    let host = &mut shown.host;
    for name in [
        &mut shown.zhaul,
        &mut shown.began,
        &mut host.kernel,
        &mut host.cpu,
        &mut host.file_system,
        &mut host.load,
    ] {
        clean(name);
    }
    for cell in &mut shown.cells {
        clean(&mut cell.route);
    }
    for profile in &mut shown.profiles {
        clean(&mut profile.route);
        for (function, _) in &mut profile.top {
            clean(function);
        }
    }
    for skipped in &mut shown.skipped {
        clean(&mut skipped.route);
        clean(&mut skipped.why);
    }
    shown.notes.iter_mut().for_each(clean);
    shown.missing = std::mem::take(&mut shown.missing)
        .into_iter()
        .map(|(mut name, mut why)| {
            clean(&mut name);
            clean(&mut why);
            (name, why)
        })
        .collect();
    shown.methods = std::mem::take(&mut shown.methods)
        .into_iter()
        .map(|(mut name, Found { method, mut how })| {
            clean(&mut name);
            clean(&mut how);
            (name, Found { method, how })
        })
        .collect();
    shown
}

/// JSON in which no character can end the element that holds it or turn its text round.
pub(super) fn json(results: &Results) -> String {
    let json = serde_json::to_string(results).unwrap_or_else(|_| "null".to_owned());
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '<' | '>' | '&') || is_unseen(c) {
            // All of them lie below U+10000, where one escape is enough.
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn clean(name: &mut String) {
    if name.contains(is_unseen) {
        *name = name.replace(is_unseen, "\u{fffd}");
    }
}

/// Control characters, and those that set the direction of text.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_characters_are_replaced_and_others_kept() {
        let mut name = "a\u{202e}b\0c é → 🙂".to_owned();
        clean(&mut name);
        assert_eq!(name, "a\u{fffd}b\u{fffd}c é → 🙂");
    }
}
