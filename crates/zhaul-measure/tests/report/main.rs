//! The page of `zhaul bench --html`, made of results that never took place.
//!
//! `ZHAUL_KEEP_PAGES=DIR` keeps the pages, to be looked at.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests panic and print to report"
)]

mod browser;
mod content;
mod markup;
mod odd;
mod synthetic;

use std::path::PathBuf;
use std::{env, fs};

use tempfile::TempDir;
use zhaul_measure::bench::results::Results;

/// Every kind of run.
fn runs() -> [(&'static str, Results); 6] {
    [
        ("whole", synthetic::whole()),
        ("interrupted", odd::interrupted()),
        ("least", odd::least()),
        ("nothing", odd::nothing()),
        ("absurd", odd::absurd()),
        ("hostile", odd::hostile()),
    ]
}

/// Pages as files; removed with it unless they are to be kept.
struct Pages {
    dir: PathBuf,
    _removed: Option<TempDir>,
}

impl Pages {
    fn new() -> Self {
        if let Some(dir) = env::var_os("ZHAUL_KEEP_PAGES").map(PathBuf::from) {
            fs::create_dir_all(&dir).unwrap();
            let _removed = None;
            return Self { dir, _removed };
        }
        let removed = tempfile::tempdir().unwrap();
        Self {
            dir: removed.path().to_path_buf(),
            _removed: Some(removed),
        }
    }

    fn write(&self, name: &str, page: &str) -> PathBuf {
        let file = self.dir.join(format!("{name}.html"));
        fs::write(&file, page).unwrap();
        file
    }
}
