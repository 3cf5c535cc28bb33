//! A run of the bench as one self-contained page.
//!
//! [`page`] is a pure function of the results: the same results give the same bytes. The page
//! loads nothing, and its content security policy forbids it to; it works without scripts; every
//! name in the results is escaped. It says nothing that the results do not: what was not measured
//! is missing, what lies within the noise is called no difference, and what the plan expects is
//! named as such.
//!
//! The order is that of a reader who knows nothing: the result in a sentence for each path
//! (`headline`), how often the CPU touched the bytes (`copies`), cost by size (`curves`), what the
//! CPU was busy with (`split`), the way of the bytes as a drawing (`data_path`), and all figures
//! (`tables`, `notes`).

mod chart;
mod checked;
mod copies;
mod crossover;
mod curves;
mod data_path;
mod headline;
mod mechanism;
mod notes;
mod page;
mod plain;
mod split;
mod tables;
mod view;
mod words;

pub use page::page;
