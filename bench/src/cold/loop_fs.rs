//! A small file system of our own on a loop device, whose metadata a remount makes cold.
//!
//! The alternative, `drop_caches` and evicting the disk's own page cache, empties caches of
//! everybody on the machine and needs to open the raw disk, which hardened kernels refuse to root.
//! Contract: the mount is in a private mount namespace, so that it ends with this process however
//! that ends; nobody else ever sees it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::evict;
use crate::server::find_program;

#[derive(Debug)]
pub(crate) struct LoopFs {
    image: PathBuf,
    root: PathBuf,
}

impl LoopFs {
    /// Makes a file system in `dir` with room for `inodes`, and mounts it.
    ///
    /// Must run on the thread that starts the servers: they inherit its mount namespace.
    pub(crate) fn create(dir: &Path, inodes: u32) -> anyhow::Result<Self> {
        unshare_mounts().context("cannot leave the mount namespace")?;
        let this = Self {
            image: dir.join("loop.img"),
            root: dir.join("loop"),
        };
        fs::create_dir(&this.root)?;
        File::create(&this.image)?.set_len(IMAGE_BYTES)?;
        // No journal and no lazy initialisation: nothing reads or writes behind the clients' backs.
        let options = [
            "-q",
            "-F",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=0",
            "-N",
        ];
        run("mkfs.ext4", |mkfs| {
            mkfs.args(options).arg(inodes.to_string()).arg(&this.image)
        })?;
        this.mount()?;
        Ok(this)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Unmounts, evicts the image, mounts again: no directory and no inode is cached afterwards.
    pub(crate) fn remount(&self) -> anyhow::Result<()> {
        self.unmount()?;
        File::open(&self.image)?.sync_all()?;
        evict::pages([self.image.as_path()])?;
        self.mount()
    }

    fn mount(&self) -> anyhow::Result<()> {
        // Without read-ahead of inodes a lookup reads what it needs, not 32 blocks.
        let options = ["-t", "ext4", "-o", "loop,noatime,inode_readahead_blks=1"];
        run("mount", |mount| {
            mount.args(options).arg(&self.image).arg(&self.root)
        })
    }

    /// Tries for a while: a killed server may still be on its way out.
    fn unmount(&self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for _ in 0..UNMOUNT_ATTEMPTS {
            outcome = run("umount", |umount| umount.arg(&self.root));
            if outcome.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        outcome
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        // If it fails, the end of the process unmounts.
        let _ = self.unmount();
    }
}

fn run(name: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> anyhow::Result<()> {
    let program = find_program(name).with_context(|| format!("{name} is not installed"))?;
    let mut command = Command::new(program);
    let output = arguments(&mut command).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} ended with {}: {}", output.status, said.trim());
    }
    Ok(())
}

fn unshare_mounts() -> std::io::Result<()> {
    // SAFETY: no pointer is passed; the new namespace is the calling thread's alone, and what
    // CLONE_NEWNS implies (CLONE_FS) only parts its working directory from other threads'.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let (none, root, nothing) = (c"none".as_ptr(), c"/".as_ptr(), std::ptr::null());
    // SAFETY: source and target are static C strings; changing propagation reads neither the type
    // nor the data, for which null is allowed.
    if unsafe { libc::mount(none, root, std::ptr::null(), flags, nothing) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

const IMAGE_BYTES: u64 = 256 << 20;
const UNMOUNT_ATTEMPTS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_survive_a_remount_and_nobody_else_sees_them() {
        if !rustix::process::geteuid().is_root() {
            zhaul_untested::skip_this("mounting needs root");
            return;
        }
        // A thread of its own, for the mount namespace is per thread.
        std::thread::spawn(|| {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            let fs = match LoopFs::create(dir.path(), 1000) {
                Ok(fs) => fs,
                Err(reason) => {
                    zhaul_untested::skip_this(format_args!("{reason:#}"));
                    return;
                }
            };
            let file = fs.root().join("file");
            fs::write(&file, "kept").unwrap();
            fs.remount().unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
            let outside =
                std::thread::spawn(|| fs::read_to_string("/proc/1/mounts").unwrap_or_default());
            let root = fs.root().display().to_string();
            assert!(!outside.join().unwrap().contains(&root));
            drop(fs);
            assert!(!file.exists());
        })
        .join()
        .unwrap();
    }
}
