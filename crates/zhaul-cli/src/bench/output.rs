//! A file that the results go to: checked before a long run, written whole or not at all.
//!
//! The text is written to a new file beside it, which then takes its name; so a reader sees the old
//! content or the new, and a full disk leaves the old. What is there and no regular file (a fifo,
//! `/dev/full`) is written to as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

/// Where results go.
#[derive(Debug)]
pub(super) enum Output {
    Stdout,
    /// Takes the name when all is written.
    Replaced(PathBuf),
    /// A device or a fifo.
    Written(PathBuf),
}

impl Output {
    /// Finds out whether it can be written.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        // The file that a link leads to is replaced, not the link.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            Err(error) => return Err(cannot_write(path, &error)),
        };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(anyhow!(
                "cannot write {}: it is a directory (name a file)",
                path.display()
            )),
            Ok(found) if !found.is_file() => Ok(Self::Written(path)),
            Ok(_) | Err(_) => {
                let (file, temporary) = beside(&path).map_err(|e| cannot_write(&path, &e))?;
                drop(file);
                remove(&temporary);
                Ok(Self::Replaced(path))
            }
        }
    }

    pub(super) const fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// Writes it.
    pub(super) fn write(&self, text: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(text).and_then(|()| stdout.flush());
                match written {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    written => written.context("cannot write to standard output"),
                }
            }
            Self::Written(path) => {
                let file = OpenOptions::new().write(true).open(path);
                let written = file.and_then(|mut file| file.write_all(text));
                written.map_err(|error| cannot_write(path, &error))
            }
            Self::Replaced(path) => {
                let (file, temporary) = beside(path).map_err(|e| cannot_write(path, &e))?;
                let replaced = fill(file, text).and_then(|()| fs::rename(&temporary, path));
                replaced.map_err(|error| {
                    remove(&temporary);
                    cannot_write(path, &error)
                })
            }
        }
    }
}

/// A disk may say that it is full only when the file is synced.
fn fill(mut file: File, text: &[u8]) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_all()
}

/// A new file in the same directory.
fn beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)?;
    Ok((file, temporary))
}

/// Whoever removed it first did what was wanted.
fn remove(temporary: &Path) {
    let _ = fs::remove_file(temporary);
}

fn cannot_write(path: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or name a file elsewhere; nothing was left behind"
        }
        io::ErrorKind::NotFound => "create its directory first",
        _ => "name a file in a directory that you may write to",
    };
    anyhow!("cannot write {}: {error} ({remedy})", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn checking_leaves_nothing_and_writing_leaves_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let output = Output::open(&path).unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
        output.write(b"first").unwrap();
        Output::open(&path).unwrap().write(b"second").unwrap();
        assert_eq!(names(dir.path()), ["a.json"]);
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        Output::open(&link).unwrap().write(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_full_disk_is_said_and_a_device_stays_one() {
        let full = Output::open(Path::new("/dev/full")).unwrap();
        assert!(matches!(full, Output::Written(_)), "{full:?}");
        let error = full.write(&[b'x'; 10]).unwrap_err().to_string();
        assert!(
            error.contains("/dev/full") && error.contains("make room"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_that_is_missing_or_named_is_an_error_before_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Output::open(&dir.path().join("no/a.json")).unwrap_err();
        assert!(
            missing.to_string().contains("create its directory"),
            "{missing}"
        );
        let named = Output::open(dir.path()).unwrap_err();
        assert!(named.to_string().contains("it is a directory"), "{named}");
    }
}
