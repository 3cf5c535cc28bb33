//! Copy-on-write by `mmap(2)`: one memfd, mapped MAP_SHARED and MAP_PRIVATE.
//!
//! A [`CowMapping`] has two views of the same pages. While nobody holds a [`Frozen`], it is read and
//! written through the shared view, at the speed of any memory. [`freeze`](CowMapping::freeze) copies
//! nothing: it gives the shared view away and goes on with the private one, in which the kernel copies
//! a page when it is first written to. Nothing has to be write-protected, since Rust's borrows see to
//! it that nobody writes otherwise. The pages of the shared view stay what they are, for readers, for
//! the kernel's sends in flight, and for other processes that have the descriptor. When the last
//! [`Frozen`] is gone, [`fold`](CowMapping::fold) copies the pages that were written back into the
//! shared view.
//!
//! The pages of both views may be huge; the kernel copies small ones. A child made by `fork(2)` has
//! neither view (see [`memfd_pages`](crate::memfd_pages)). While the shared view is in use the private
//! one cannot be accessed: `mlockall(2)` would copy its pages, and they would be old when they are
//! needed.
//!
//! Not here: when it is better to copy everything up front.

use std::io;
use std::iter;
use std::ops::{Deref, Range};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::mm::MapFlags;

use crate::memfd_pages::{Pages, SharedPages};
use crate::pagemap::Pagemap;

/// Writable memory of which frozen states can be had.
#[derive(Debug)]
pub struct CowMapping {
    base: Arc<SharedPages>,
    /// Maps the memfd of `base`; accessible while `diverged`.
    private: Pages,
    /// The content is that of `private`. False: that of `base`, which then has no other owner.
    diverged: bool,
    pagemap: Option<Pagemap>,
}

/// A state of a [`CowMapping`] that does not change until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Frozen {
    base: Arc<SharedPages>,
    /// Maps the memfd of `base`, and differs from it in the pages that it has copied.
    own: Option<Arc<Pages>>,
}

impl CowMapping {
    /// Owns these pages. Without a `pagemap` every page counts as written to.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn new(pages: SharedPages, pagemap: Option<Pagemap>) -> io::Result<Self> {
        let private = map_inaccessible(&pages)?;
        Ok(Self {
            base: Arc::new(pages),
            private,
            diverged: false,
            pagemap,
        })
    }

    /// The content, to be changed. Frozen states do not change with it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.diverged {
            // SAFETY: accessible; self alone has the mapping and is borrowed for as long as the slice
            // lives. Pages that are not copied yet are those of `base`, which nobody writes to
            // meanwhile: only fold() and this function's other half do, on behalf of self.
            unsafe { self.private.slice_mut() }
        } else {
            // SAFETY: `base` has no other owner: only freeze() makes one, and it sets `diverged`,
            // which is unset by fold() when it has seen that there is no other, and by rebase(),
            // whose `base` is new.
            unsafe { self.base.bytes_mut_unchecked() }
        }
    }

    /// Whether there are frozen states of the present base, or were since the last
    /// [`fold`](Self::fold): stores copy pages.
    pub const fn is_diverged(&self) -> bool {
        self.diverged
    }

    /// Whether there are frozen states of the present base.
    pub fn has_frozen(&self) -> bool {
        // Only an owner can make a further one, and there are no weak references.
        self.diverged && Arc::strong_count(&self.base) > 1
    }

    /// The state of this moment, and how many bytes were copied for it. That is none if the mapping
    /// has not diverged; else what was written since.
    ///
    /// # Errors
    /// As `mprotect(2)` and `mmap(2)`.
    pub fn freeze(&mut self) -> io::Result<(Frozen, usize)> {
        let mut own = None;
        let mut copied = 0;
        if self.diverged {
            let written = self.written();
            copied = written.iter().map(ExactSizeIterator::len).sum();
            if copied > 0 {
                own = Some(Arc::new(self.private_copy(&written)?));
            }
        } else {
            self.private.unlock()?;
            // SAFETY: access is allowed.
            unsafe { self.private.protect(true) }?;
            self.diverged = true;
        }
        let base = Arc::clone(&self.base);
        Ok((Frozen { base, own }, copied))
    }

    /// A mapping of its own with the same content, for which only these parts are copied.
    fn private_copy(&self, written: &[Range<usize>]) -> io::Result<Pages> {
        let copy = map_private(&self.base)?;
        // SAFETY: nobody else knows the mapping yet. Its pages that are not copied are those of
        // `base`, which nobody writes to while a Frozen owns it.
        let to = unsafe { copy.slice_mut() };
        for part in written {
            to[part.clone()].copy_from_slice(&self[part.clone()]);
        }
        Ok(copy)
    }

    /// Copies what was written back into the base, if nobody holds a frozen state any more, and
    /// returns how many bytes that were; `None` if somebody does.
    ///
    /// # Errors
    /// As `madvise(2)` and `mprotect(2)`; the content is unharmed.
    pub fn fold(&mut self) -> io::Result<Option<usize>> {
        if !self.diverged {
            return Ok(Some(0));
        }
        if Arc::get_mut(&mut self.base).is_none() {
            return Ok(None);
        }
        let written = self.written();
        let base = Arc::get_mut(&mut self.base).expect("no owner came since");
        // SAFETY: accessible; self is borrowed exclusively and alone has the mapping. Storing to the
        // base changes pages here that are not read, or, where all are, to what they are already.
        let private = unsafe { self.private.slice() };
        for part in &written {
            base.bytes_mut()[part.clone()].copy_from_slice(&private[part.clone()]);
        }
        self.private.unlock()?;
        for part in coalesced(&written) {
            self.private.discard(part)?;
        }
        // SAFETY: `diverged` is unset with it, and no slice of the mapping is made from then on.
        unsafe { self.private.protect(false) }?;
        self.diverged = false;
        Ok(Some(written.iter().map(ExactSizeIterator::len).sum()))
    }

    /// Copies everything into `pages`, which are the base from now on. Frozen states keep the old
    /// one.
    ///
    /// # Errors
    /// As `mmap(2)`; then nothing has changed.
    ///
    /// # Panics
    /// If there are more or fewer pages.
    pub fn rebase(&mut self, mut pages: SharedPages) -> io::Result<()> {
        pages.bytes_mut().copy_from_slice(self);
        self.private = map_inaccessible(&pages)?;
        self.base = Arc::new(pages);
        self.diverged = false;
        Ok(())
    }

    /// The parts that were written to since the base was made or last folded into: all, if the kernel
    /// does not tell.
    fn written(&self) -> Vec<Range<usize>> {
        let len = self.base.len();
        self.pagemap
            .as_ref()
            .and_then(|pagemap| pagemap.own_pages(self.private.address(), len).ok())
            .unwrap_or_else(|| iter::once(0..len).collect())
    }
}

impl Deref for CowMapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.diverged {
            // SAFETY: accessible; whoever changes the bytes borrows self exclusively, as in
            // bytes_mut().
            unsafe { self.private.slice() }
        } else {
            &self.base
        }
    }
}

impl Frozen {
    /// The only owner of these pages, frozen from now on.
    pub fn new(pages: SharedPages) -> Self {
        Self {
            base: Arc::new(pages),
            own: None,
        }
    }

    /// The bytes, to be changed, if nobody else can see them.
    pub fn try_mut(&mut self) -> Option<&mut [u8]> {
        if self.own.is_some() {
            return None;
        }
        Some(Arc::get_mut(&mut self.base)?.bytes_mut())
    }

    /// The memfd that has these bytes, readable and sealed against writing, until this is dropped;
    /// `None` if some of them are in no file.
    pub fn memfd(&self) -> Option<BorrowedFd<'_>> {
        self.own.is_none().then(|| self.base.memfd())
    }
}

impl Deref for Frozen {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.own {
            // SAFETY: nobody writes to the mapping since freeze() made it, nor to the pages of the
            // base that show through, while self owns the base.
            Some(own) => unsafe { own.slice() },
            None => &self.base,
        }
    }
}

fn map_private(pages: &SharedPages) -> io::Result<Pages> {
    let mut private = Pages::map(pages.memfd(), pages.len(), MapFlags::PRIVATE)?;
    // After mlockall(MCL_FUTURE) the kernel has just copied every page.
    private.unlock()?;
    private.discard(0..pages.len())?;
    Ok(private)
}

fn map_inaccessible(pages: &SharedPages) -> io::Result<Pages> {
    let mut private = map_private(pages)?;
    // SAFETY: no slice of a CowMapping's mapping is made before freeze() has made it accessible.
    unsafe { private.protect(false) }?;
    Ok(private)
}

/// Joins parts that are near each other, so that `madvise(2)` is called once for many of them. What
/// lies between is shown from the file before and after; only its page-table entries are made anew.
fn coalesced(parts: &[Range<usize>]) -> Vec<Range<usize>> {
    let near = NEAR_PAGES * rustix::param::page_size();
    let mut joined: Vec<Range<usize>> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if part.start - last.end <= near => last.end = part.end,
            _ => joined.push(part.clone()),
        }
    }
    joined
}

/// A call costs as much as walking over so many pages.
const NEAR_PAGES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    fn mapping(pages: usize, pagemap: bool) -> (CowMapping, usize) {
        let page_bytes = rustix::param::page_size();
        let shared = SharedPages::new(pages * page_bytes).unwrap();
        let pagemap = pagemap.then(|| Pagemap::open().unwrap());
        (CowMapping::new(shared, pagemap).unwrap(), page_bytes)
    }

    #[test]
    fn only_pages_that_were_written_are_copied() {
        let (mut mapping, page) = mapping(8, true);
        mapping.bytes_mut().fill(1);
        let (frozen, copied) = mapping.freeze().unwrap();
        assert_eq!(copied, 0);
        mapping.bytes_mut()[3 * page] = 2;
        assert!(frozen.iter().all(|&byte| byte == 1) && mapping[3 * page] == 2);
        assert_eq!(mapping.fold().unwrap(), None);
        let (second, copied) = mapping.freeze().unwrap();
        assert_eq!(copied, page);
        mapping.bytes_mut()[7 * page] = 3;
        assert_eq!((second[3 * page], second[7 * page]), (2, 1));
        assert!(second.memfd().is_none() && frozen.memfd().is_some());
        drop(frozen);
        assert!(mapping.has_frozen() && mapping.fold().unwrap().is_none());
        drop(second);
        assert_eq!(mapping.fold().unwrap(), Some(2 * page));
        assert_eq!(mapping.fold().unwrap(), Some(0));
        assert_eq!(
            (mapping[0], mapping[3 * page], mapping[7 * page]),
            (1, 2, 3)
        );
    }

    #[test]
    fn without_a_pagemap_every_page_counts_as_written() {
        let (mut mapping, page) = mapping(2, false);
        let (frozen, _) = mapping.freeze().unwrap();
        mapping.bytes_mut()[page] = 1;
        drop(frozen);
        assert_eq!(mapping.fold().unwrap(), Some(2 * page));
        assert_eq!((mapping[0], mapping[page]), (0, 1));
    }

    #[test]
    fn frozen_states_outlive_base_and_mapping() {
        let (mut mapping, page) = mapping(2, true);
        let (first, _) = mapping.freeze().unwrap();
        mapping.bytes_mut()[0] = 1;
        mapping.rebase(SharedPages::new(2 * page).unwrap()).unwrap();
        assert!(!mapping.is_diverged());
        mapping.bytes_mut()[0] = 2;
        let (second, copied) = mapping.freeze().unwrap();
        mapping.bytes_mut()[0] = 3;
        drop(mapping);
        assert_eq!((first[0], second[0], copied), (0, 2, 0));
    }

    #[test]
    fn what_others_can_see_is_not_given_out_to_be_changed() {
        let (mut mapping, page) = mapping(1, true);
        let (mut frozen, _) = mapping.freeze().unwrap();
        assert!(frozen.try_mut().is_none());
        let mut alone = Frozen::new(SharedPages::new(page).unwrap());
        let clone = alone.clone();
        assert!(alone.try_mut().is_none());
        drop(clone);
        alone.try_mut().unwrap()[0] = 1;
    }

    #[test]
    fn parts_are_joined_when_they_are_near() {
        let page = rustix::param::page_size();
        let parts = [0..page, 2 * page..3 * page, 90 * page..91 * page];
        let joined = coalesced(&parts);
        assert_eq!(joined, [0..3 * page, 90 * page..91 * page]);
    }

    #[test]
    fn a_child_made_by_fork_can_touch_neither_view() {
        let (mut mapping, _) = mapping(1, true);
        mapping.bytes_mut()[0] = 1;
        let (frozen, _) = mapping.freeze().unwrap();
        mapping.bytes_mut()[0] = 2;
        for address in [mapping.as_ptr(), frozen.as_ptr()] {
            let address = address.cast_mut();
            // SAFETY: the child stores a byte and ends; it calls nothing that needs the locks of
            // threads that it does not have.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: the address is a page's, or nothing is there, which ends this process.
                unsafe { address.write_volatile(3) };
                // SAFETY: ends this process and nothing else.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: stores the status in an own variable.
            check(unsafe { libc::waitpid(child, &raw mut status, 0) }).unwrap();
            assert!(libc::WIFSIGNALED(status), "{status}");
            assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
        }
        assert_eq!((mapping[0], frozen[0]), (2, 1));
    }
}
