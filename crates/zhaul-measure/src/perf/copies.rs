//! Bytes that the kernel's copy routines copy, exactly: execution breakpoints.
//!
//! The routines of `lib/iov_iter.c` are given the number of bytes in a register. Since Linux 5.15
//! at the latest each of those counted here copies by itself and calls none of the others
//! (`copy_page_to_iter` and its like call `_copy_to_iter` page by page and are not counted), so
//! that no byte is counted twice. Where a copy is cut short by a page of user memory that is not
//! there, it is repeated, and counted again.
//!
//! Not seen: copies to and from user memory by other means (`copy_to_user` of structures), copies
//! by device drivers, and `memcpy` within the kernel.

use std::ops::Range;

use crate::meter::Copied;

use super::{Builder, Callchain, Error, EventKey, Kind, Record, Session, Symbols, Target};

/// Which way a routine copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the kernel to user memory.
    ToUser,
    /// From user memory to the kernel.
    FromUser,
    /// From kernel memory to kernel memory.
    Within,
}

/// The copy routines of this kernel that may be watched.
#[derive(Clone, Debug)]
pub struct CopyRoutines {
    found: Vec<(&'static Routine, u64)>,
    /// Functions whose callees copy within the kernel, as ranges of addresses.
    within: Vec<Range<u64>>,
}

/// The copy routines as events of one session.
#[derive(Clone, Debug)]
pub struct CopyEvents {
    events: Vec<(EventKey, &'static Routine)>,
    within: Vec<Range<u64>>,
}

/// One copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Which way.
    pub direction: Direction,
    /// How much; `None` if the routine does not say.
    pub bytes: Option<u64>,
    /// The routine.
    pub routine: &'static str,
}

#[derive(Debug)]
struct Routine {
    name: &'static str,
    direction: Direction,
    /// The register with the number of bytes, as a bit of `perf_regs.h`.
    bytes: Option<u64>,
    /// Counting goes on without it if the breakpoint registers do not suffice.
    optional: bool,
}

impl CopyRoutines {
    /// Finds the routines, and tries whether this kernel takes breakpoints on them.
    ///
    /// # Errors
    /// [`Error::NoCopyRoutine`]; [`Error::NoKernelBreakpoints`] on kernels without kprobes;
    /// [`Error::NotPermitted`]; [`Error::NoBreakpointRegister`].
    pub fn find(symbols: &Symbols) -> Result<Self, Error> {
        let mut routines = Self {
            found: ROUTINES
                .iter()
                .filter_map(|routine| Some((routine, symbols.address_of(routine.name)?)))
                .collect(),
            within: WITHIN
                .iter()
                .filter_map(|name| symbols.range_of(name))
                .collect(),
        };
        if routines.found.iter().all(|(routine, _)| routine.optional) {
            return Err(Error::NoCopyRoutine);
        }
        match routines.try_here() {
            Err(Error::NoBreakpointRegister) => {
                routines.found.retain(|(routine, _)| !routine.optional);
                routines.try_here()?;
            }
            tried => tried?,
        }
        Ok(routines)
    }

    fn try_here(&self) -> Result<(), Error> {
        let mut builder = Session::builder();
        builder.ring_bytes(1);
        self.add_to(&mut builder);
        builder.attach(Target::ThisThread).map(drop)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.found.iter().map(|(routine, _)| routine.name)
    }

    /// Adds a breakpoint on each to a session that is being built.
    pub fn add_to(&self, builder: &mut Builder) -> CopyEvents {
        let events = self.found.iter().map(|&(routine, address)| {
            let mask = routine.bytes.map_or(0, |bit| 1 << bit);
            let key = builder.breakpoint(routine.name, address, mask, true);
            (key, routine)
        });
        CopyEvents {
            events: events.collect(),
            within: self.within.clone(),
        }
    }
}

impl CopyEvents {
    /// The copy that a record tells of, if it does.
    pub fn copy(&self, record: &Record<'_>) -> Option<Copy> {
        let Kind::Breakpoint {
            event,
            registers,
            callchain,
            ..
        } = record.kind
        else {
            return None;
        };
        let (_, routine) = self.events.iter().find(|(key, _)| *key == event)?;
        Some(Copy {
            direction: if self.is_within(callchain) {
                Direction::Within
            } else {
                routine.direction
            },
            bytes: routine.bytes.and_then(|_| registers.at(0)),
            routine: routine.name,
        })
    }

    fn is_within(&self, callchain: Callchain<'_>) -> bool {
        callchain
            .addresses()
            .any(|address| self.within.iter().any(|range| range.contains(&address)))
    }
}

impl Copied {
    /// Adds one copy.
    pub fn add(&mut self, copy: Copy) {
        match (copy.direction, copy.bytes) {
            (Direction::ToUser, Some(bytes)) => self.to_user += bytes,
            (Direction::FromUser, Some(bytes)) => self.from_user += bytes,
            (Direction::Within, Some(bytes)) => self.within += bytes,
            (_, None) => self.unsized_buffers += 1,
        }
    }
}

/// In the order of their use: four breakpoints is what x86-64 has.
static ROUTINES: &[Routine] = &[
    Routine {
        name: "_copy_to_iter",
        direction: Direction::ToUser,
        bytes: Some(SECOND_ARGUMENT),
        optional: false,
    },
    Routine {
        name: "_copy_from_iter",
        direction: Direction::FromUser,
        bytes: Some(SECOND_ARGUMENT),
        optional: false,
    },
    // Writing files. Its folio form is the newer (Linux 6.16), and there is but one of them.
    Routine {
        name: "copy_folio_from_iter_atomic",
        direction: Direction::FromUser,
        bytes: Some(THIRD_ARGUMENT),
        optional: false,
    },
    Routine {
        name: "copy_page_from_iter_atomic",
        direction: Direction::FromUser,
        bytes: Some(THIRD_ARGUMENT),
        optional: false,
    },
    // A zero-copy send whose pages were copied after all.
    Routine {
        name: "skb_copy_ubufs",
        direction: Direction::Within,
        bytes: None,
        optional: true,
    },
];

/// What copies between a file or socket and pages of the kernel's own: splice where pages cannot be
/// passed on, and reads and writes on behalf of the kernel.
const WITHIN: &[&str] = &[
    "copy_splice_read",
    "generic_file_splice_read",
    "iter_file_splice_write",
    "splice_to_socket",
    "__kernel_read",
    "__kernel_write_iter",
    "__kernel_write",
    "vfs_iter_read",
    "vfs_iter_write",
    "kernel_sendmsg",
    "kernel_recvmsg",
];

#[cfg(target_arch = "x86_64")]
const SECOND_ARGUMENT: u64 = 4; // SI
#[cfg(target_arch = "x86_64")]
const THIRD_ARGUMENT: u64 = 3; // DX
#[cfg(target_arch = "aarch64")]
const SECOND_ARGUMENT: u64 = 1; // X1
#[cfg(target_arch = "aarch64")]
const THIRD_ARGUMENT: u64 = 2; // X2
