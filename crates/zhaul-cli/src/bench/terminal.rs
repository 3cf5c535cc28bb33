//! How wide the output may be.

/// Columns of the terminal; `COLUMNS` has the last word, and a pipe takes 80.
pub(super) fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok();
    let told = told.and_then(|text| text.parse().ok());
    let seen = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    told.or_else(seen).unwrap_or(80).max(NARROWEST)
}

const NARROWEST: usize = 30;
