//! Whether a file holds the bytes of another one: a program that reads into a buffer and writes out
//! of it may have changed them in between, and no event tells. So samples of both files are compared
//! when the trace is over. What is gone, is empty, or may wait for a server, is not compared.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use super::object::{FileId, Kind, Object};

/// Compares samples at the same offsets; then, for what was appended to a file, at the same
/// distances from the ends.
pub(super) fn unchanged(source: &Object, sink: &Object) -> Option<bool> {
    let (source, sink) = (open(source)?, open(sink)?);
    let shorter = source.bytes.min(sink.bytes);
    if shorter == 0 {
        return None;
    }
    let at_start = equal_samples(&source, 0, &sink, 0, shorter)?;
    if at_start || source.bytes > sink.bytes {
        return Some(at_start);
    }
    let behind = sink.bytes - source.bytes;
    equal_samples(&source, 0, &sink, behind, shorter)
}

struct Opened {
    file: File,
    bytes: u64,
}

/// The very file that was traced, if its name still leads to it.
fn open(object: &Object) -> Option<Opened> {
    if object.kind() != Kind::File {
        return None;
    }
    let (name, id) = (object.name()?, object.file()?);
    let system = rustix::fs::statfs(name.as_str()).ok()?.f_type as u64;
    if MAY_WAIT.contains(&system) {
        return None;
    }
    let mut options = OpenOptions::new();
    // Whatever has the name by now, opening it has no effect.
    options.read(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(name).ok()?;
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let same = FileId {
        device: (rustix::fs::major(device), rustix::fs::minor(device)),
        inode: metadata.ino(),
    } == id;
    (metadata.is_file() && same).then(|| Opened {
        file,
        bytes: metadata.len(),
    })
}

/// `None` if a sample cannot be read.
fn equal_samples(
    source: &Opened,
    source_at: u64,
    sink: &Opened,
    sink_at: u64,
    bytes: u64,
) -> Option<bool> {
    let step = (bytes / SAMPLES).max(SAMPLE_BYTES as u64);
    let (mut left, mut right) = ([0; SAMPLE_BYTES], [0; SAMPLE_BYTES]);
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(SAMPLE_BYTES as u64) as usize;
        let (left, right) = (&mut left[..length], &mut right[..length]);
        source.file.read_exact_at(left, source_at + at).ok()?;
        sink.file.read_exact_at(right, sink_at + at).ok()?;
        if left != right {
            return Some(false);
        }
        at += step;
    }
    Some(true)
}

const SAMPLES: u64 = 16;
const SAMPLE_BYTES: usize = 4096;

/// NFS, SMB (two), FUSE, Ceph, 9P: a file may take as long as its server does.
const MAY_WAIT: [u64; 6] = [
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x00c3_6400,
    0x0102_1997,
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::procfs::Procfs;
    use super::super::world::World;
    use super::*;

    fn compared(source: &[u8], sink: &[u8]) -> Option<bool> {
        let dir = tempfile::tempdir().unwrap();
        let object = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            let seen = Procfs::default().object(std::process::id(), fd).unwrap();
            Object::looked_at(1, 3, seen)
        };
        let (source, sink) = (object("source", source), object("sink", sink));
        unchanged(&source, &sink)
    }

    #[test]
    fn copies_are_told_from_changes_wherever_they_lie() {
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(compared(&content, &content), Some(true));
        assert_eq!(
            compared(&content, &[b"before", &content[..]].concat()),
            Some(true)
        );
        assert_eq!(compared(&content, &content[..1000]), Some(true), "a part");
        let upper: Vec<u8> = content.iter().map(|byte| byte ^ 0x20).collect();
        assert_eq!(compared(&content, &upper), Some(false));
        assert_eq!(compared(&content, b""), None);
    }

    #[test]
    fn a_file_that_is_gone_or_another_one_is_not_compared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "content").unwrap();
        let file = File::open(&path).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let seen = Procfs::default().object(std::process::id(), fd).unwrap();
        let object = Object::looked_at(1, 3, seen);
        assert_eq!(unchanged(&object, &object), Some(true));
        fs::write(dir.path().join("b"), "content").unwrap();
        fs::rename(dir.path().join("b"), &path).unwrap();
        assert_eq!(unchanged(&object, &object), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(unchanged(&object, &object), None);
    }
}
