//! The files to serve. They are created for a run and removed with it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;

/// A directory tree that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Fixture {
    dir: TempDir,
}

impl Fixture {
    pub(crate) fn create(parent: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("zhaul-bench-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot create a directory in {}", parent.display()))?;
        Ok(Self { dir })
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A file of `length` bytes that do not repeat, written to disk. Its name is returned.
    pub(crate) fn file(&self, name: &str, length: u64) -> anyhow::Result<String> {
        let path = self.root().join(name);
        if !path.exists() {
            write_noise(&path, length)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(name.to_owned())
    }

    /// A file of `length` bytes without a single block.
    pub(crate) fn sparse_file(&self, name: &str, length: u64) -> anyhow::Result<String> {
        let path = self.root().join(name);
        File::create(&path)
            .and_then(|file| file.set_len(length))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(name.to_owned())
    }
}

/// `directories` × `files` empty files below `root`; the paths in an order in which no two
/// neighbours share a directory.
pub(crate) fn tree(root: &Path, directories: u32, files: u32) -> anyhow::Result<Vec<String>> {
    let mut paths = Vec::new();
    for directory in 0..directories {
        let path = root.join(format!("tree/d{directory:05}"));
        fs::create_dir_all(&path)?;
        for file in 0..files {
            File::create(path.join(format!("f{file}")))?;
        }
    }
    for file in 0..files {
        for index in 0..u64::from(directories) {
            // A prime step visits every directory, and jumps across the disk.
            let directory = index * 7919 % u64::from(directories);
            paths.push(format!("tree/d{directory:05}/f{file}"));
        }
    }
    Ok(paths)
}

/// A file of `length` bytes that do not repeat, written to disk.
pub(crate) fn write_noise(path: &Path, length: u64) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(path)?);
    // xorshift64*: cheap, and no two blocks are alike, so a misplaced one shows.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length;
    let mut left = length;
    while left > 0 {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        let count = left.min(8);
        writer.write_all(&word[..count as usize])?;
        left -= count;
    }
    writer.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn blocks_of_a_file_differ() {
        let fixture = Fixture::create(&std::env::temp_dir()).unwrap();
        let name = fixture.file("noise", 64 * 512 + 3).unwrap();
        let bytes = fs::read(fixture.root().join(name)).unwrap();
        assert_eq!(bytes.len(), 64 * 512 + 3);
        assert_eq!(bytes.chunks_exact(512).collect::<HashSet<_>>().len(), 64);
    }

    #[test]
    fn sparse_file_has_no_blocks() {
        let fixture = Fixture::create(&std::env::temp_dir()).unwrap();
        let name = fixture.sparse_file("sparse", 1 << 32).unwrap();
        let metadata = fs::metadata(fixture.root().join(name)).unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (1 << 32, 0));
    }

    #[test]
    fn tree_paths_exist_once_each_and_jump() {
        let fixture = Fixture::create(&std::env::temp_dir()).unwrap();
        let paths = tree(fixture.root(), 10, 2).unwrap();
        assert_eq!(paths.iter().collect::<HashSet<_>>().len(), 20);
        assert!(paths.iter().all(|path| fixture.root().join(path).is_file()));
        assert!(
            paths.windows(2).all(|pair| pair[0][..11] != pair[1][..11]),
            "{paths:?}"
        );
    }
}
