//! Text for a screen of some width.

use std::borrow::Cow;

/// Columns of the screen: what `COLUMNS` says, else the terminal, else 80; never less than 20, and
/// never more than reads well.
pub(super) fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|n| n.parse().ok());
    let seen = || terminal_size::terminal_size().map(|(width, _)| width.0.into());
    let columns: usize = told.filter(|&n| n > 0).or_else(seen).unwrap_or(80);
    columns.clamp(20, 100)
}

/// The text without what would move the cursor or change colours: a path may hold anything.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        text.replace(char::is_control, "?").into()
    } else {
        text.into()
    }
}

/// Breaks the text into lines of at most `width` columns. The first line begins at column `first`
/// and the others at column `rest`; the indentation is not part of them. A word that is too long
/// for a line is cut.
pub(super) fn wrap(text: &str, first: usize, rest: usize, width: usize) -> Vec<String> {
    let room = |lines: &[String]| {
        let indentation = if lines.len() <= 1 { first } else { rest };
        width.saturating_sub(indentation).max(1)
    };
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let room = room(&lines);
            let may_cut = lines.len() > 1 || first <= rest;
            let line = lines.last_mut().expect("there is always one");
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= room {
                line.extend(std::iter::repeat_n(' ', gap));
                line.extend(&word);
                break;
            }
            // What fits on no line is cut, but not for the sake of a first line with little room.
            if used == 0 && may_cut {
                line.extend(word.drain(..room));
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_move_to_the_next_line_and_long_ones_are_cut() {
        assert_eq!(wrap("one two three", 0, 0, 9), ["one two", "three"]);
        assert_eq!(wrap("aaaaaaaaaaaa b", 0, 2, 10), ["aaaaaaaaaa", "aa b"]);
        assert_eq!(wrap("", 3, 3, 10), [""]);
        assert_eq!(wrap("one two", 6, 0, 14), ["one two"]);
        assert_eq!(wrap("one twoo", 6, 0, 14), ["one twoo"]);
        assert_eq!(wrap("one twooo", 6, 0, 14), ["one", "twooo"]);
        assert_eq!(wrap("available", 8, 2, 12), ["", "available"]);
        assert_eq!(wrap("abc", 99, 98, 20), ["", "a", "b", "c"]);
    }

    #[test]
    fn what_would_move_the_cursor_is_not_printed() {
        assert_eq!(printable("a\x1b[31m\nb\u{9b}c"), "a?[31m?b?c");
        assert_eq!(printable("größer"), "größer");
    }
}
