//! `bpf(2)`: as much as it takes to count the events of a raw tracepoint.
//!
//! Whether tracing by eBPF is allowed depends on capabilities, sysctls and lockdown in ways that
//! only a try tells. [`Counter::attach`] makes a map, loads a program of ten instructions that adds
//! one to it, and attaches the program; dropping the counter takes everything away.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Which call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// BPF_MAP_CREATE.
    Map,
    /// BPF_PROG_LOAD.
    Load,
    /// BPF_RAW_TRACEPOINT_OPEN.
    Attach,
}

impl Stage {
    /// The kernel's name of the call.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "BPF_MAP_CREATE",
            Self::Load => "BPF_PROG_LOAD",
            Self::Attach => "BPF_RAW_TRACEPOINT_OPEN",
        }
    }
}

/// Counts the hits of a raw tracepoint, of all processes.
#[derive(Debug)]
pub struct Counter {
    map: OwnedFd,
    _link: OwnedFd,
}

impl Counter {
    /// Counts the hits of the raw tracepoint, such as `sys_enter`, from now on.
    ///
    /// # Errors
    /// EPERM without CAP_BPF and CAP_PERFMON (before Linux 5.8 CAP_SYS_ADMIN) or under lockdown,
    /// ENOSYS without CONFIG_BPF_SYSCALL, ENOENT if there is no such tracepoint.
    pub fn attach(tracepoint: &str) -> Result<Self, (Stage, io::Error)> {
        let map = create_map().map_err(|error| (Stage::Map, error))?;
        let program = load(&counting(map.as_raw_fd())).map_err(|error| (Stage::Load, error))?;
        let link = open_raw_tracepoint(tracepoint, &program);
        let link = link.map_err(|error| (Stage::Attach, error))?;
        Ok(Self { map, _link: link })
    }

    /// Hits so far.
    ///
    /// # Errors
    /// As `bpf(2)`.
    pub fn hits(&self) -> io::Result<u64> {
        let (key, mut value) = (0_u32, 0_u64);
        let mut attributes = Attributes::default();
        attributes.put_u32(0, self.map.as_raw_fd() as u32);
        attributes.put_u64(8, (&raw const key) as u64);
        attributes.put_u64(16, (&raw mut value) as u64);
        // The kernel reads `key` and stores `value`, 4 and 8 bytes as the map was made.
        call(BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
        Ok(value)
    }
}

fn create_map() -> io::Result<OwnedFd> {
    let mut attributes = Attributes::default();
    attributes.put_u32(0, BPF_MAP_TYPE_ARRAY);
    attributes.put_u32(4, size_of::<u32>() as u32);
    attributes.put_u32(8, size_of::<u64>() as u32);
    attributes.put_u32(12, 1);
    descriptor(call(BPF_MAP_CREATE, &mut attributes)?)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attributes = Attributes::default();
    attributes.put_u32(0, BPF_PROG_TYPE_RAW_TRACEPOINT);
    attributes.put_u32(4, program.len() as u32);
    attributes.put_u64(8, program.as_ptr() as u64);
    attributes.put_u64(16, license.as_ptr() as u64);
    descriptor(call(BPF_PROG_LOAD, &mut attributes)?)
}

fn open_raw_tracepoint(name: &str, program: &OwnedFd) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(name)?;
    let mut attributes = Attributes::default();
    attributes.put_u64(0, name.as_ptr() as u64);
    attributes.put_u32(8, program.as_raw_fd() as u32);
    descriptor(call(BPF_RAW_TRACEPOINT_OPEN, &mut attributes)?)
}

/// The beginning of `union bpf_attr`, laid out for each command by its caller. What lies behind is
/// zero for the kernel.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes([u8; 32]);

impl Attributes {
    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
}

fn call(command: libc::c_int, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and stores the attributes, 32 bytes on the caller's stack; what they
    // point at lives in the callers, all in this file, until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.0.as_mut_ptr(),
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel just made it for us (close-on-exec, as bpf does), and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        immediate,
    }
}

/// Adds one to the first element of the map.
fn counting(map: libc::c_int) -> [Instruction; 11] {
    [
        instruction(0x18, 0x11, 0, map), // r1 = map, in two halves
        instruction(0x00, 0x00, 0, 0),   //
        instruction(0x62, 0x0a, -4, 0),  // *(u32 *)(r10 - 4) = 0
        instruction(0xbf, 0xa2, 0, 0),   // r2 = r10
        instruction(0x07, 0x02, 0, -4),  // r2 += -4
        instruction(0x85, 0x00, 0, 1),   // r0 = map_lookup_elem(r1, r2)
        instruction(0x15, 0x00, 2, 0),   // if r0 == 0 skip two
        instruction(0xb7, 0x01, 0, 1),   // r1 = 1
        instruction(0xdb, 0x10, 0, 0),   // lock *(u64 *)r0 += r1
        instruction(0xb7, 0x00, 0, 0),   // r0 = 0
        instruction(0x95, 0x00, 0, 0),   // return r0
    ]
}

const _: () = assert!(size_of::<Instruction>() == 8);
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_are_counted_or_refused_with_a_reason() {
        match Counter::attach("sys_enter") {
            Ok(counter) => {
                let before = counter.hits().unwrap();
                for _ in 0..10 {
                    let _ = rustix::process::getppid();
                }
                assert!(counter.hits().unwrap() >= before + 10);
            }
            Err((stage, error)) => {
                zhaul_untested::skip(
                    "system_calls_are_counted",
                    format_args!("{}: {error}", stage.name()),
                );
                assert!(error.raw_os_error().is_some());
            }
        }
    }

    #[test]
    fn there_is_no_tracepoint_of_that_name() {
        assert!(Counter::attach("zhaul_has_no_such_tracepoint").is_err());
    }
}
