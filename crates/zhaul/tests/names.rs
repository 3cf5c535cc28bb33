//! In what the two library crates export, a name stands for one thing, so that glob imports of their
//! modules get along and `Cause` in a message or a search is one `Cause`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn no_two_public_types_have_the_same_name() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in ["src", "../zhaul-core/src"].map(|dir| crates.join(dir)) {
        for file in rust_files(&source) {
            let text = fs::read_to_string(&file).unwrap();
            for name in text.lines().filter_map(public_type) {
                let place = file.display().to_string();
                places.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    assert!(places.contains_key("Haul") && places.contains_key("Transfer"));
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "more than one of each: {places:#?}");
}

/// The name of the type or trait that this line declares for everybody.
fn public_type(line: &str) -> Option<&str> {
    let declared = line.trim_start().strip_prefix("pub ")?;
    let (kind, rest) = declared.split_once(' ')?;
    let end = |c: char| !c.is_alphanumeric() && c != '_';
    ["struct", "enum", "trait", "type", "union"]
        .contains(&kind)
        .then(|| rest.split(end).next())?
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
