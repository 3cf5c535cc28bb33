//! `fork(2)`: the child has the state of before, and sends it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Context as _, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{Contender, Cycle, Times, timed};

/// Private anonymous memory of small pages, which a child inherits.
pub(crate) struct Forked {
    start: *mut u8,
    bytes: usize,
}

impl Forked {
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous range chosen by the kernel aliases nothing.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }?;
        let mut forked = Self {
            start: start.cast(),
            bytes,
        };
        forked.memory().fill(1);
        Ok(forked)
    }

    fn memory(&mut self) -> &mut [u8] {
        // SAFETY: mapped until drop, and borrowed exclusively with self.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Contender for Forked {
    fn cycle(&mut self, cycle: &Cycle<'_>) -> anyhow::Result<Times> {
        let page_bytes = rustix::param::page_size();
        let (lives, ended) = rustix::pipe::pipe()?;
        let wait_for = (lives.as_raw_fd(), ended.as_raw_fd());
        // SAFETY: the child makes system calls on memory and descriptors that it inherited, and
        // ends; it takes no lock and allocates nothing.
        let (snapshot_us, child) = timed(|| unsafe { libc::fork() });
        if child == 0 {
            let intact = keep(self.memory(), cycle, wait_for);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(!intact)) };
        }
        ensure!(child > 0, "fork: {}", io::Error::last_os_error());
        let memory = self.memory();
        let (write_us, ()) = timed(|| {
            for page in cycle.pages {
                memory[page * page_bytes] = cycle.byte;
            }
        });
        let (release_us, status) = timed(|| end(child, ended));
        ensure!(
            status.context("waitpid")? == 0,
            "the child could not send, or saw a change"
        );
        Ok(Times {
            snapshot_us,
            write_us,
            release_us,
        })
    }
}

/// In the child: sends, waits until the parent has written, and looks at the pages.
fn keep(memory: &[u8], cycle: &Cycle<'_>, (lives, ended): (RawFd, RawFd)) -> bool {
    let socket = cycle.sink.map(AsRawFd::as_raw_fd);
    let mut sent = 0;
    while let Some(socket) = socket.filter(|_| sent < memory.len()) {
        let piece = &memory[sent..memory.len().min(sent + (1 << 20))];
        // SAFETY: the bytes are the child's own, and the descriptor is inherited.
        let result = unsafe { libc::write(socket, piece.as_ptr().cast(), piece.len()) };
        match usize::try_from(result) {
            Ok(bytes) => sent += bytes,
            Err(_) => return false,
        }
    }
    let mut byte = 0_u8;
    // SAFETY: the child's own copy of the descriptor.
    unsafe { libc::close(ended) };
    // SAFETY: there is room for the byte. The read ends when the parent closes its end.
    unsafe { libc::read(lives, (&raw mut byte).cast(), 1) };
    let page_bytes = rustix::param::page_size();
    let mut pages = cycle.pages.iter().zip(cycle.before);
    pages.all(|(page, &byte)| memory[page * page_bytes] == byte)
}

/// Lets the child end, and waits for it: its status.
fn end(child: libc::pid_t, ended: OwnedFd) -> io::Result<libc::c_int> {
    drop(ended);
    let mut status = 0;
    // SAFETY: stores the status in an own variable.
    match unsafe { libc::waitpid(child, &raw mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        // SAFETY: mapped by new(), unmapped once, and nobody has a slice of it.
        let _ = unsafe { munmap(self.start.cast(), self.bytes) };
    }
}
