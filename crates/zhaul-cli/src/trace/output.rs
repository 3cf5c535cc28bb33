//! Where the report goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anstream::AutoStream;
use anyhow::Context;

/// Takes text as it comes. A file is there when it is complete, or not at all.
pub(super) enum Output {
    Stdout(AutoStream<io::Stdout>),
    Stderr(AutoStream<io::Stderr>),
    /// Kept until the end.
    File {
        path: PathBuf,
        text: String,
    },
}

impl Output {
    /// The file, if one is wanted; else stderr for a command, whose own output is on stdout.
    pub(super) fn new(file: Option<&Path>, of_command: bool) -> Self {
        match file {
            Some(path) => Self::File {
                path: path.to_owned(),
                text: String::new(),
            },
            None if of_command => Self::Stderr(AutoStream::auto(io::stderr())),
            None => Self::Stdout(AutoStream::auto(io::stdout())),
        }
    }

    /// Prints some text. `false` if nobody reads any more.
    pub(super) fn print(&mut self, more: &str) -> anyhow::Result<bool> {
        let written = match self {
            Self::Stdout(stream) => stream
                .write_all(more.as_bytes())
                .and_then(|()| stream.flush()),
            Self::Stderr(stream) => stream.write_all(more.as_bytes()),
            Self::File { text, .. } => {
                text.push_str(&anstream::adapter::strip_str(more).to_string());
                Ok(())
            }
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("writing the report"),
        }
    }

    /// Puts the file in its place.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self::File { path, text } = self else {
            return Ok(());
        };
        write_whole(&path, text.as_bytes())
            .with_context(|| format!("writing the report to {}", path.display()))
    }
}

/// Under a name of its own first, so that nobody ever sees half a report. What is not a regular file
/// (`/dev/stdout`, a pipe) is written to directly.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return File::options().write(true).open(path)?.write_all(content);
    }
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(beside);
    let mut file = File::create_new(&beside)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(write_whole(&taken, b"x").is_err());
        assert!(write_whole(&dir.path().join("no/where"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let path = dir.path().join("report");
        write_whole(&path, b"old").unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
