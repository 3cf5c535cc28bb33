//! One mechanism at a time, for a process that may die of it.
//!
//! A seccomp filter can end the process that makes a call instead of refusing the call. Where a
//! filter is active ([`is_filtered`]), whoever surveys has each mechanism tried first by a process of
//! its own ([`try_alone`]), and leaves out those that were killed ([`super::Ask::deadly`]).

use std::path::Path;

use super::context::Context;
use super::deadline;
use super::place::Place;
use super::survey::{MECHANISMS, OF_FILES, ONE_PROBE};

/// True if a seccomp filter is active in this process.
pub fn is_filtered() -> bool {
    Context::look().is_filtered()
}

/// The ids of everything that a survey tries, each once.
pub fn mechanisms() -> Vec<&'static str> {
    let of_host = MECHANISMS.iter().map(|(mechanism, _)| mechanism.id);
    let of_files = OF_FILES.iter().map(|(mechanism, _)| mechanism.id);
    let mut ids: Vec<_> = of_host.collect();
    for id in of_files {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// Tries one mechanism, that of the host or else that of the file system of `path`, and forgets what
/// was seen. It returns within seconds, if at all.
pub fn try_alone(id: &str, path: &Path) {
    let context = Context::look();
    let of_host = MECHANISMS.iter().find(|(mechanism, _)| mechanism.id == id);
    if let Some(&(_, probe)) = of_host {
        let _ = deadline::within(ONE_PROBE, move || drop(probe(&context)));
        return;
    }
    let of_files = OF_FILES.iter().find(|(mechanism, _)| mechanism.id == id);
    if let Some(&(_, probe)) = of_files {
        let path = path.to_owned();
        let _ = deadline::within(ONE_PROBE, move || {
            if let Ok(place) = Place::open(&path) {
                drop(probe(&place.subject()));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_has_an_id_of_its_own() {
        let mut ids = mechanisms();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(ids.contains(&"sendfile") && ids.contains(&"reflink"));
    }

    #[test]
    fn what_is_unknown_is_not_tried() {
        try_alone("no such mechanism", Path::new("/nowhere"));
        try_alone("reflink", Path::new("/nowhere"));
    }
}
