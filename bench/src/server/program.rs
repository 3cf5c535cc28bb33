//! Finds an installed program.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Looks through PATH and the two directories that an ordinary user's PATH may lack.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_is_found_and_nonsense_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-here"), None);
        // A directory on the way, and a file that cannot be run.
        assert!(!is_executable(Path::new("/etc")));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_executable(file.path()));
    }
}
