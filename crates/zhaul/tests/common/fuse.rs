//! A file system of one file, `big`, that gives less than it states, or takes no write until it is told
//! to: what FUSE and network file systems with a stale size look like, and a disk that hangs. As much of the protocol as that takes (`linux/fuse.h`).
#![allow(dead_code, unreachable_pub)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Mounted until it is dropped.
pub struct ShortFile {
    dir: tempfile::TempDir,
    server: Option<JoinHandle<()>>,
}

/// What the file gives, what it states, and whether the kernel keeps pages of it.
#[derive(Clone)]
struct Content {
    bytes: Vec<u8>,
    stated: u64,
    direct_io: bool,
    disk: Arc<Disk>,
}

/// What was written, and whether writes are let through.
#[derive(Default)]
pub struct Disk {
    written: Mutex<Vec<u8>>,
    moves: Mutex<bool>,
    changed: Condvar,
}

impl Disk {
    /// Lets writes through that wait, and all that follow.
    pub fn go_on(&self) {
        *self.moves.lock().unwrap() = true;
        self.changed.notify_all();
    }

    pub fn written(&self) -> Vec<u8> {
        self.written.lock().unwrap().clone()
    }

    /// Nobody is to hang for ever because a test failed.
    fn write(&self, offset: u64, bytes: &[u8]) {
        let moves = self.moves.lock().unwrap();
        let wait = |moves: &mut bool| !*moves;
        let waited = self
            .changed
            .wait_timeout_while(moves, Duration::from_secs(20), wait);
        *waited.unwrap().0 = true;
        let mut written = self.written.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let len = written.len().max(offset + bytes.len());
        written.resize(len, 0);
        written[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

impl ShortFile {
    /// A file of `bytes` that states `too_much` more. The error says why none can be mounted here.
    pub fn mount(bytes: &[u8], too_much: u64, direct_io: bool) -> Result<Self, String> {
        Self::mounted(Content {
            bytes: bytes.to_vec(),
            stated: bytes.len() as u64 + too_much,
            direct_io,
            disk: Arc::default(),
        })
    }

    /// An empty file whose writes wait until the disk moves, for 20 s at most.
    pub fn on_stalled_disk() -> Result<(Self, Arc<Disk>), String> {
        let disk = Arc::<Disk>::default();
        let mounted = Self::mounted(Content {
            bytes: Vec::new(),
            stated: 0,
            direct_io: false,
            disk: Arc::clone(&disk),
        })?;
        Ok((mounted, disk))
    }

    fn mounted(content: Content) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|error| format!("/dev/fuse: {error}"))?;
        let given: OwnedFd = device
            .try_clone()
            .map_err(|error| error.to_string())?
            .into();
        // The descriptor is the standard input of mount(8), so that it is inherited.
        let mounted = Command::new("mount")
            .args([
                "-i",
                "-t",
                "fuse",
                "-o",
                "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other",
                "zhaul-test",
            ])
            .arg(dir.path())
            .stdin(Stdio::from(given))
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr);
            return Err(format!("no FUSE mount: {}", why.trim()));
        }
        let server = std::thread::spawn(move || while serve(&device, &content).is_ok() {});
        Ok(Self {
            dir,
            server: Some(server),
        })
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("big")
    }
}

impl Drop for ShortFile {
    fn drop(&mut self) {
        // Lazily: somebody may still have the file open.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .output();
        // The server ends when the last reference to the mount is gone, which may be later.
        drop(self.server.take());
    }
}

/// Answers one request; an error once the file system is unmounted.
fn serve(mut device: &File, content: &Content) -> io::Result<()> {
    let mut request = vec![0; 1 << 20];
    let read = device.read(&mut request)?;
    let request = &request[..read];
    let (opcode, unique, node) = (u32_at(request, 4), &request[8..16], u64_at(request, 16));
    let body = &request[40..];
    let reply = match opcode {
        FORGET | BATCH_FORGET | INTERRUPT => return Ok(()),
        INIT => Ok(init()),
        LOOKUP if body == b"big\0" => Ok(entry(content)),
        LOOKUP => Err(ENOENT),
        GETATTR => Ok([
            &0_u64.to_ne_bytes()[..],
            &[0; 8],
            &attributes(node, content),
        ]
        .concat()),
        OPEN => Ok([
            &[0; 8][..],
            &u32::from(content.direct_io).to_ne_bytes(),
            &[0; 4],
        ]
        .concat()),
        OPENDIR => Ok(vec![0; 16]),
        READ => {
            let (offset, len) = (u64_at(body, 8), u32_at(body, 16) as usize);
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(content.bytes.len());
            let end = start.saturating_add(len).min(content.bytes.len());
            Ok(content.bytes[start..end].to_vec())
        }
        WRITE => {
            let (offset, len) = (u64_at(body, 8), u32_at(body, 16));
            content.disk.write(offset, &body[40..40 + len as usize]);
            Ok([len.to_ne_bytes(), [0; 4]].concat())
        }
        RELEASE | RELEASEDIR | FLUSH | READDIR | DESTROY => Ok(Vec::new()),
        _ => Err(ENOSYS),
    };
    let (error, payload) = match reply {
        Ok(payload) => (0, payload),
        Err(errno) => (-errno, Vec::new()),
    };
    let len = u32::try_from(16 + payload.len()).unwrap_or(u32::MAX);
    let answer = [
        &len.to_ne_bytes()[..],
        &error.to_ne_bytes(),
        unique,
        &payload,
    ]
    .concat();
    // A request that was interrupted meanwhile wants no answer.
    let _ = device.write(&answer);
    Ok(())
}

fn init() -> Vec<u8> {
    let words = [7_u32, 31, 128 << 10, 0];
    let mut out: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    out.extend([0; 4]);
    out.extend((128_u32 << 10).to_ne_bytes());
    out.resize(64, 0);
    out
}

fn entry(content: &Content) -> Vec<u8> {
    let mut out = 2_u64.to_ne_bytes().to_vec();
    out.resize(40, 0);
    out.extend(attributes(2, content));
    out
}

fn attributes(node: u64, content: &Content) -> Vec<u8> {
    let (size, mode) = match node {
        1 => (0, 0o040_755_u32),
        _ => {
            let written = content.disk.written.lock().unwrap().len() as u64;
            (content.stated.max(written), 0o100_644)
        }
    };
    let mut out = Vec::with_capacity(88);
    // An old file: inode, size, blocks, three times.
    for word in [
        node,
        size,
        size.div_ceil(512),
        1_000_000_000,
        1_000_000_000,
        1_000_000_000,
    ] {
        out.extend(word.to_ne_bytes());
    }
    out.extend([0; 12]);
    out.extend(mode.to_ne_bytes());
    out.extend(1_u32.to_ne_bytes());
    out.resize(88, 0);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
