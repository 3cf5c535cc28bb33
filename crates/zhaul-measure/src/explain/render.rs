//! An explanation as a tree of lines, in the manner of SQL's EXPLAIN. Pure.
//!
//! [`tree`] says what is shown, [`layout`](self) how it fits a width. Lines come in parts, so that a
//! terminal may colour them; their text alone is the plain form.

mod layout;
mod measured;
mod nodes;

use super::explanation::Explanation;

pub use layout::{Line, Tone};

/// The explanation, no line wider than `columns` (but never narrower than 32).
pub fn tree(explanation: &Explanation, columns: usize) -> Vec<Line> {
    layout::lay_out(&nodes::root(explanation, columns), columns)
}

/// The same as plain text.
pub fn text(explanation: &Explanation, columns: usize) -> String {
    tree(explanation, columns)
        .iter()
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests;
