//! `userfaultfd(2)`: page faults of a range of memory, answered by user space.
//!
//! A thread that touches a missing or write-protected page of watched memory sleeps until somebody
//! fills or unprotects the page. When the [`Userfault`] is dropped, nothing is watched any more and
//! everybody goes on: missing pages read as zeros.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags};

use crate::{check, check_len};

/// Anonymous memory that faults are watched in. Loads and stores are atomic bytes, since pages are
/// filled by another thread.
#[derive(Debug)]
pub struct WatchedMemory {
    start: NonNull<u8>,
    page_bytes: usize,
    pages: usize,
}

// SAFETY: the memory belongs to the process and not to a thread.
unsafe impl Send for WatchedMemory {}
// SAFETY: it is accessed by atomic loads and stores only, and by the kernel.
unsafe impl Sync for WatchedMemory {}

impl WatchedMemory {
    /// So many pages, none of which exists yet.
    ///
    /// # Errors
    /// ENOMEM; EINVAL for none, or for more than an address can reach.
    pub fn pages(pages: usize) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        // Everything below computes with pages * page_bytes, which fits from here on.
        let len = pages
            .checked_mul(page_bytes)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh anonymous range chosen by the kernel aliases nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Self {
            start,
            page_bytes,
            pages,
        };
        // Pages are protected and replaced one by one. A kernel without huge pages says EINVAL.
        // SAFETY: the range is this memory's own; the advice changes no content.
        let _ = unsafe { rustix::mm::madvise(memory.address(0), len, Advice::LinuxNoHugepage) };
        Ok(memory)
    }

    /// The first byte of a page.
    pub fn load(&self, page: usize) -> u8 {
        self.first_byte(page).load(Ordering::SeqCst)
    }

    /// Changes the first byte of a page.
    pub fn store(&self, page: usize, byte: u8) {
        self.first_byte(page).store(byte, Ordering::SeqCst);
    }

    /// Bytes in a page.
    pub const fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The page that an address is in, as a [`Fault`] tells it.
    pub fn page_of(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.start.as_ptr() as u64)?;
        let page = usize::try_from(offset).ok()? / self.page_bytes;
        (page < self.pages).then_some(page)
    }

    fn address(&self, page: usize) -> *mut libc::c_void {
        assert!(page < self.pages, "inside the memory");
        // SAFETY: the page is inside the range, which is mapped until drop.
        unsafe { self.start.as_ptr().add(page * self.page_bytes) }.cast()
    }

    fn first_byte(&self, page: usize) -> &AtomicU8 {
        let address = self.address(page).cast();
        // SAFETY: readable and writable until drop, and accessed atomically by everybody.
        unsafe { AtomicU8::from_ptr(address) }
    }

    fn range(&self, page: usize, pages: usize) -> UffdioRange {
        let end = page.checked_add(pages);
        assert!(
            end.is_some_and(|end| end <= self.pages),
            "inside the memory"
        );
        UffdioRange {
            start: self.start.as_ptr() as u64 + (page * self.page_bytes) as u64,
            len: (pages * self.page_bytes) as u64,
        }
    }
}

impl Drop for WatchedMemory {
    fn drop(&mut self) {
        let len = self.pages * self.page_bytes;
        // SAFETY: the range was mapped by pages(), is unmapped once, and nobody else knows it.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), len) };
        debug_assert!(result.is_ok(), "munmap of an own range succeeds");
    }
}

/// Receives the faults of watched memory.
#[derive(Debug)]
pub struct Userfault {
    fd: OwnedFd,
    features: u64,
}

/// A thread sleeps on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it touched.
    pub address: u64,
    /// The page is there and write-protected; otherwise it is missing.
    pub write_protected: bool,
}

/// UFFD_FEATURE_PAGEFAULT_FLAG_WP: pages of anonymous memory can be write-protected. Linux 5.7.
pub const FEATURE_WRITE_PROTECT: u64 = 1;

impl Userfault {
    /// The system call. With `user_mode_only` (Linux 5.11) faults inside system calls are not
    /// handled, which needs no privilege.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_PTRACE while `vm.unprivileged_userfaultfd` is 0 and not
    /// `user_mode_only`; ENOSYS without CONFIG_USERFAULTFD.
    pub fn open(user_mode_only: bool) -> io::Result<Self> {
        let mut flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        if user_mode_only {
            flags |= UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
        }
        // SAFETY: the descriptor does nothing until memory is registered with it, for which there
        // is only watch(), whose memory nobody sees but through atomics.
        let fd = unsafe { rustix::mm::userfaultfd(flags) }?;
        Self::greet(fd)
    }

    /// The device `/dev/userfaultfd` (Linux 6.1), for whoever its permissions admit.
    ///
    /// # Errors
    /// As opening the device.
    pub fn open_device() -> io::Result<Self> {
        let device = File::open("/dev/userfaultfd")?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the request takes flags and returns a new descriptor.
        let fd =
            check(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as _, flags) })?;
        // SAFETY: the kernel just made it for us, and nobody else owns it.
        Self::greet(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn greet(fd: OwnedFd) -> io::Result<Self> {
        let mut api = UffdioApi {
            api: UFFD_API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: the request reads and stores a struct uffdio_api, which lives on this stack.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API as _, &raw mut api) })?;
        Ok(Self {
            fd,
            features: api.features,
        })
    }

    /// What the kernel can do, such as [`FEATURE_WRITE_PROTECT`].
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// From now on threads that touch missing or write-protected pages of `memory` sleep.
    ///
    /// # Errors
    /// EINVAL if the kernel cannot write-protect, EBUSY if another one watches already.
    pub fn watch(&self, memory: &WatchedMemory) -> io::Result<()> {
        let mut register = UffdioRegister {
            range: memory.range(0, memory.pages),
            mode: REGISTER_MISSING | REGISTER_WRITE_PROTECT,
            ioctls: 0,
        };
        // SAFETY: the request reads and stores a struct uffdio_register, which lives on this stack;
        // the range is the memory's own.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut register) })
            .map(drop)
    }

    /// The next fault, if somebody sleeps on one that was not reported yet.
    ///
    /// # Errors
    /// As `read(2)`, but EAGAIN is `None`.
    pub fn next(&self) -> io::Result<Option<Fault>> {
        let mut message = [0_u64; 4];
        // SAFETY: the kernel stores whole struct uffd_msg, 32 bytes each; there is room for one.
        let read = check_len(unsafe {
            libc::read(
                self.fd.as_raw_fd(),
                message.as_mut_ptr().cast(),
                size_of_val(&message),
            )
        });
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let [event, flags, address, _] = message;
        let is_fault = event.to_ne_bytes()[0] == EVENT_PAGEFAULT;
        Ok(is_fault.then_some(Fault {
            address,
            write_protected: flags & PAGEFAULT_FLAG_WP != 0,
        }))
    }

    /// Makes a missing page of `memory` with these bytes, write-protected or not, and wakes who
    /// sleeps on it.
    ///
    /// # Errors
    /// EEXIST if the page is there already.
    ///
    /// # Panics
    /// If it is not exactly one page of bytes.
    pub fn fill(
        &self,
        memory: &WatchedMemory,
        page: usize,
        bytes: &[u8],
        protected: bool,
    ) -> io::Result<()> {
        assert_eq!(bytes.len(), memory.page_bytes, "one page");
        let range = memory.range(page, 1);
        let mut copy = UffdioCopy {
            dst: range.start,
            src: bytes.as_ptr() as u64,
            len: range.len,
            mode: if protected { COPY_MODE_WP } else { 0 },
            copy: 0,
        };
        // SAFETY: the request reads and stores a struct uffdio_copy, which lives on this stack,
        // reads the bytes, borrowed for the call, and makes a page of the memory's own.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), UFFDIO_COPY as _, &raw mut copy) })
            .map(drop)
    }

    /// Lifts the write protection of a page and wakes who sleeps on it.
    ///
    /// # Errors
    /// As `ioctl_userfaultfd(2)`.
    pub fn unprotect(&self, memory: &WatchedMemory, page: usize) -> io::Result<()> {
        self.write_protect(memory.range(page, 1), 0)
    }

    /// Write-protects all pages that are there, or lifts the protection and wakes who sleeps.
    ///
    /// # Errors
    /// As `ioctl_userfaultfd(2)`.
    pub fn protect_all(&self, memory: &WatchedMemory, protected: bool) -> io::Result<()> {
        let mode = if protected { WRITEPROTECT_MODE_WP } else { 0 };
        self.write_protect(memory.range(0, memory.pages), mode)
    }

    /// Puts a writable copy in the place of a write-protected page and wakes who sleeps on it. Whoever
    /// has a reference to the page itself, as a send in flight, keeps it as it was. The thread that
    /// handles the faults calls this; it must not store to the memory itself.
    ///
    /// # Errors
    /// As `madvise(2)` and `ioctl_userfaultfd(2)`.
    pub fn replace(&self, memory: &WatchedMemory, page: usize) -> io::Result<()> {
        let mut copy = vec![0_u8; memory.page_bytes];
        copy[0] = memory.load(page);
        let from = memory.address(page);
        // SAFETY: the second byte of the page.
        let rest = unsafe { from.cast::<u8>().add(1) };
        // SAFETY: both are a page long but for a byte, and all but the first byte of a page is written
        // by the kernel only, when it makes the page.
        unsafe { ptr::copy_nonoverlapping(rest, copy[1..].as_mut_ptr(), memory.page_bytes - 1) };
        // SAFETY: the page is the memory's own; who touches it from now on sleeps until it is filled.
        unsafe { rustix::mm::madvise(from, memory.page_bytes, Advice::LinuxDontNeed) }?;
        self.fill(memory, page, &copy, false)
    }

    fn write_protect(&self, range: UffdioRange, mode: u64) -> io::Result<()> {
        let mut protect = UffdioWriteprotect { range, mode };
        // SAFETY: the request reads a struct uffdio_writeprotect, which lives on this stack; the
        // range is the memory's own.
        check(unsafe {
            libc::ioctl(
                self.fd.as_raw_fd(),
                UFFDIO_WRITEPROTECT as _,
                &raw mut protect,
            )
        })
        .map(drop)
    }
}

impl AsFd for Userfault {
    /// Readable when somebody sleeps.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// The structs and numbers of `linux/userfaultfd.h`.
#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRange {
    start: u64,
    len: u64,
}

#[repr(C)]
struct UffdioRegister {
    range: UffdioRange,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[repr(C)]
struct UffdioWriteprotect {
    range: UffdioRange,
    mode: u64,
}

const UFFD_API: u64 = 0xaa;
const UFFD_USER_MODE_ONLY: u32 = 1;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const UFFDIO_WRITEPROTECT: libc::c_ulong = 0xc018_aa06;
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xaa00;
const REGISTER_MISSING: u64 = 1;
const REGISTER_WRITE_PROTECT: u64 = 2;
const COPY_MODE_WP: u64 = 2;
const WRITEPROTECT_MODE_WP: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const PAGEFAULT_FLAG_WP: u64 = 2;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn wait(faults: &Userfault) -> Fault {
        let began = Instant::now();
        loop {
            if let Some(fault) = faults.next().unwrap() {
                return fault;
            }
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_missing_page_is_filled_and_a_protected_one_released() {
        let faults = match Userfault::open(true) {
            Ok(faults) => faults,
            Err(error) => {
                zhaul_untested::skip(
                    "a_missing_page_is_filled_and_a_protected_one_released",
                    error,
                );
                return;
            }
        };
        let memory = WatchedMemory::pages(2).unwrap();
        faults.watch(&memory).unwrap();
        std::thread::scope(|scope| {
            let toucher = scope.spawn(|| {
                let before = memory.load(1);
                memory.store(1, 8);
                (before, memory.load(1))
            });
            let missing = wait(&faults);
            assert!(!missing.write_protected);
            let page = vec![7; memory.page_bytes()];
            faults.fill(&memory, 1, &page, true).unwrap();
            let protected = wait(&faults);
            assert!(protected.write_protected && protected.address == missing.address);
            faults.unprotect(&memory, 1).unwrap();
            assert_eq!(toucher.join().unwrap(), (7, 8));
        });
    }

    #[test]
    fn a_protected_page_is_replaced_and_written() {
        let Ok(faults) = Userfault::open(true) else {
            zhaul_untested::skip_this("no userfaultfd");
            return;
        };
        let memory = WatchedMemory::pages(2).unwrap();
        memory.store(1, 7);
        faults.watch(&memory).unwrap();
        faults.protect_all(&memory, true).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let before = memory.load(1);
                memory.store(1, before + 1);
            });
            let fault = wait(&faults);
            let page = memory.page_of(fault.address).unwrap();
            assert!(fault.write_protected && page == 1);
            faults.replace(&memory, page).unwrap();
            writer.join().unwrap();
        });
        assert_eq!(memory.load(1), 8);
        assert_eq!((memory.page_of(0), memory.page_of(u64::MAX)), (None, None));
    }

    #[test]
    fn more_pages_than_an_address_can_reach_are_refused() {
        let page_bytes = rustix::param::page_size();
        for pages in [usize::MAX, usize::MAX / page_bytes + 2, 1 << 52, 0] {
            assert!(WatchedMemory::pages(pages).is_err(), "{pages}");
        }
    }

    #[test]
    fn a_page_outside_of_the_memory_is_refused() {
        let Ok(faults) = Userfault::open(true) else {
            zhaul_untested::skip("a_page_outside_of_the_memory_is_refused", "no userfaultfd");
            return;
        };
        let memory = WatchedMemory::pages(1).unwrap();
        faults.watch(&memory).unwrap();
        for page in [1, usize::MAX] {
            let outside = || drop(faults.unprotect(&memory, page));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(outside)).is_err());
        }
    }

    #[test]
    fn who_sleeps_goes_on_when_nobody_watches_any_more() {
        let Ok(faults) = Userfault::open(true) else {
            zhaul_untested::skip(
                "who_sleeps_goes_on_when_nobody_watches_any_more",
                "no userfaultfd",
            );
            return;
        };
        let memory = WatchedMemory::pages(1).unwrap();
        faults.watch(&memory).unwrap();
        std::thread::scope(|scope| {
            let toucher = scope.spawn(|| memory.load(0));
            wait(&faults);
            drop(faults);
            assert_eq!(toucher.join().unwrap(), 0);
        });
    }
}
