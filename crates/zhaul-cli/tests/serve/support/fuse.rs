//! A file system in user space that answers late or not at all: the few requests of the FUSE protocol
//! (`linux/fuse.h`, version 7.31) that a server of files makes, spoken over `/dev/fuse`.
//!
//! One directory with files in memory. Nothing that the kernel is told may be cached, so that each use
//! of a file asks again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    LookUp = 1,
    GetAttr = 3,
    Open = 14,
    Read = 15,
    Release = 18,
    Flush = 25,
    OpenDir = 27,
    ReadDir = 28,
}

/// Nothing is held up for longer, so that a test that fails comes to its end.
const LONGEST: Duration = Duration::from_secs(20);
const INIT: u32 = 26;
const STATFS: u32 = 17;
const RELEASEDIR: u32 = 29;
/// FORGET, INTERRUPT and BATCH_FORGET have no answer.
const UNANSWERED: [u32; 3] = [2, 36, 42];
const ROOT: u64 = 1;
/// Names may be looked up while the directory is read.
const PARALLEL_DIROPS: u32 = 1 << 18;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

/// A mounted file system. Dropping it unmounts it, and fails whoever still waits for an answer.
pub(crate) struct Fuse {
    point: PathBuf,
    state: Arc<State>,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    files: Vec<Entry>,
    /// What is answered late, and how late.
    late: HashMap<u32, Duration>,
    /// What is not answered until further notice.
    held: Vec<u32>,
    lacks_flush: bool,
    /// What sizes state beyond what there is.
    overstated: u64,
    hangs_since: Option<Instant>,
    asked: HashMap<u32, usize>,
    over: bool,
}

struct Entry {
    name: String,
    bytes: Vec<u8>,
    mtime: u64,
}

impl Fuse {
    /// Mounts a file system with these files at `point`; `Err` says why that is not possible here.
    pub(crate) fn mount(point: &Path, files: &[(&str, &[u8])]) -> Result<Self, String> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/fuse")
            .map_err(|e| format!("/dev/fuse: {e}"))?;
        std::fs::create_dir_all(point).unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other\0",
            device.as_raw_fd()
        );
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("zhaul-test", point, "fuse", flags, Some(options))
            .map_err(|e| format!("cannot mount a FUSE file system: {e}"))?;
        let state = Arc::new(State::default());
        let fuse = Self {
            point: point.to_owned(),
            server: Some({
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&Arc::new(device), &state))
            }),
            state,
        };
        for (name, bytes) in files {
            fuse.write(name, bytes);
        }
        Ok(fuse)
    }

    /// Puts a file there, or another content into one.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let mut inner = self.state.inner.lock().unwrap();
        match inner.files.iter_mut().find(|file| file.name == name) {
            Some(file) => {
                bytes.clone_into(&mut file.bytes);
                file.mtime += 1;
            }
            None => inner.files.push(Entry {
                name: name.to_owned(),
                bytes: bytes.to_owned(),
                mtime: super::files::LONG_AGO_S,
            }),
        }
    }

    /// From now on answers this late.
    pub(crate) fn delay(&self, ask: Ask, by: Duration) {
        self.state.inner.lock().unwrap().late.insert(ask as u32, by);
    }

    /// From now on does not answer these.
    pub(crate) fn hold(&self, asks: &[Ask]) {
        let held = asks.iter().map(|&ask| ask as u32);
        self.state.inner.lock().unwrap().held = held.collect();
    }

    /// From now on does not even hear what it is asked, so that whoever waits can be killed: the
    /// kernel lets nobody go whose question was heard.
    pub(crate) fn hang(&self) {
        self.state.inner.lock().unwrap().hangs_since = Some(Instant::now());
    }

    /// Sizes state so many bytes more than reads give, as where they are stale.
    pub(crate) fn overstate(&self, by: u64) {
        self.state.inner.lock().unwrap().overstated = by;
    }

    /// Has the kernel close files without asking, like the file systems that do not need it. A process
    /// with an open file of another one that hangs cannot end.
    pub(crate) fn do_without_flush(&self) {
        self.state.inner.lock().unwrap().lacks_flush = true;
        let name = self.state.inner.lock().unwrap().files[0].name.clone();
        std::fs::read(self.point.join(name)).unwrap();
    }

    /// Answers again, also what was asked meanwhile.
    pub(crate) fn resume(&self) {
        let mut inner = self.state.inner.lock().unwrap();
        inner.held.clear();
        inner.hangs_since = None;
        drop(inner);
        self.state.changed.notify_all();
    }

    /// How often it was asked this.
    pub(crate) fn asked(&self, ask: Ask) -> usize {
        let inner = self.state.inner.lock().unwrap();
        inner.asked.get(&(ask as u32)).copied().unwrap_or_default()
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.state.inner.lock().unwrap().over = true;
        self.state.changed.notify_all();
        // The descriptor is closed with the thread, which fails what waits.
        let _ = self.server.take().unwrap().join();
        let _ = unmount(&self.point, UnmountFlags::DETACH);
    }
}

fn serve(device: &Arc<File>, state: &Arc<State>) {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let inner = state.inner.lock().unwrap();
        if inner.over {
            return;
        }
        let hangs = inner
            .hangs_since
            .is_some_and(|since| since.elapsed() < LONGEST);
        drop(inner);
        if hangs {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let mut asked = [PollFd::new(&**device, PollFlags::IN)];
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        if !matches!(poll(&mut asked, Some(&pause)), Ok(1..)) {
            continue;
        }
        match (&**device).read(&mut buffer) {
            Ok(n) => {
                let request = buffer[..n].to_vec();
                let (device, state) = (Arc::clone(device), Arc::clone(state));
                // Whoever waits holds up nobody else.
                std::thread::spawn(move || answer(&device, &state, &request));
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            // Interrupted before we saw it; or unmounted.
            Err(e) if e.raw_os_error() == Some(ENOENT) => {}
            Err(_) => return,
        }
    }
}

fn answer(device: &File, state: &State, request: &[u8]) {
    let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
    let (opcode, unique, node) = (word(4), long(8), long(16));
    if UNANSWERED.contains(&opcode) {
        return;
    }
    let mut inner = state.inner.lock().unwrap();
    *inner.asked.entry(opcode).or_default() += 1;
    let late = inner.late.get(&opcode).copied().unwrap_or_default();
    drop(inner);
    std::thread::sleep(late);
    let mut inner = state.inner.lock().unwrap();
    let began = Instant::now();
    while inner.held.contains(&opcode) && !inner.over && began.elapsed() < LONGEST {
        inner = state.changed.wait_timeout(inner, LONGEST).unwrap().0;
    }
    if inner.over {
        return;
    }
    let arguments = &request[40..];
    let body = match opcode {
        INIT => Ok(init()),
        op if op == Ask::LookUp as u32 => look_up(&inner, arguments),
        op if op == Ask::GetAttr as u32 => attributes(&inner, node).map(|attr| {
            // Valid for no time at all.
            [vec![0; 16], attr].concat()
        }),
        op if op == Ask::Open as u32 || op == Ask::OpenDir as u32 => Ok(open(&inner)),
        op if op == Ask::Read as u32 => Ok(read(&inner, node, long(48), word(56))),
        op if op == Ask::ReadDir as u32 => Ok(read_dir(&inner, long(48))),
        op if op == Ask::Flush as u32 && inner.lacks_flush => Err(ENOSYS),
        op if op == Ask::Release as u32 || op == Ask::Flush as u32 => Ok(Vec::new()),
        RELEASEDIR => Ok(Vec::new()),
        STATFS => Ok(vec![0; 80]),
        _ => Err(ENOSYS),
    };
    drop(inner);
    let (error, body) = body.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
    let length = (16 + body.len()) as u32;
    let head = [
        &length.to_le_bytes()[..],
        &error.to_le_bytes(),
        &unique.to_le_bytes(),
    ]
    .concat();
    // ENOENT if whoever asked was interrupted.
    let _ = (&*device).write(&[head, body].concat());
}

/// `struct fuse_init_out`.
fn init() -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7_u32, 31, 0, PARALLEL_DIROPS, 0, 64 * 1024, 1] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.resize(64, 0);
    out
}

/// `struct fuse_entry_out`.
fn look_up(inner: &Inner, name: &[u8]) -> Result<Vec<u8>, i32> {
    let name = name.split(|&byte| byte == 0).next().unwrap();
    let index = inner
        .files
        .iter()
        .position(|file| file.name.as_bytes() == name);
    let node = index.ok_or(ENOENT)? as u64 + ROOT + 1;
    let mut out = node.to_le_bytes().to_vec();
    out.resize(40, 0);
    out.extend(attributes(inner, node)?);
    Ok(out)
}

/// `struct fuse_attr`.
fn attributes(inner: &Inner, node: u64) -> Result<Vec<u8>, i32> {
    let (size, mtime, mode) = match node {
        ROOT => (0, super::files::LONG_AGO_S, 0o40_755_u32),
        _ => {
            let file = file(inner, node).ok_or(ENOENT)?;
            let size = file.bytes.len() as u64 + inner.overstated;
            (size, file.mtime, 0o100_644)
        }
    };
    let mut out = Vec::new();
    for long in [node, size, size.div_ceil(512), mtime, mtime, mtime] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    Ok(out)
}

/// `struct fuse_open_out`. Pages that the kernel keeps it would fill up with zeros.
fn open(inner: &Inner) -> Vec<u8> {
    let direct_io = u32::from(inner.overstated > 0);
    [&[0; 8][..], &direct_io.to_le_bytes(), &[0; 4]].concat()
}

fn file(inner: &Inner, node: u64) -> Option<&Entry> {
    inner.files.get(usize::try_from(node - ROOT - 1).ok()?)
}

fn read(inner: &Inner, node: u64, offset: u64, size: u32) -> Vec<u8> {
    let bytes = file(inner, node).map_or(&[][..], |file| &file.bytes);
    let start = usize::try_from(offset).unwrap().min(bytes.len());
    let end = (start + size as usize).min(bytes.len());
    bytes[start..end].to_vec()
}

/// A run of `struct fuse_dirent`.
fn read_dir(inner: &Inner, offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, file) in inner
        .files
        .iter()
        .enumerate()
        .skip(usize::try_from(offset).unwrap())
    {
        let node = index as u64 + ROOT + 1;
        for long in [node, index as u64 + 1] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        // A regular file.
        for word in [file.name.len() as u32, 8] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(file.name.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}
