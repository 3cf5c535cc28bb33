//! From the bytes of a ring to records. Pure; no input panics.

use zhaul_sys::perf_event::SampleType;

/// One of the events of a session, in the order they were added to its builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(pub(super) u16);

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, by CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// On which CPU.
    pub cpu: u32,
    /// The process, by its number in our PID namespace; 0 is the idle task.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// What.
    pub kind: Kind<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind<'a> {
    /// A tracepoint was passed.
    Tracepoint {
        /// Which.
        event: EventKey,
        /// Its fields; [`Format`](super::Format) says where.
        raw: &'a [u8],
        /// Empty unless asked for.
        callchain: Callchain<'a>,
        /// Empty unless asked for.
        user: User<'a>,
    },
    /// A clock or software event fired.
    Sample {
        /// Which.
        event: EventKey,
        /// The instruction.
        ip: u64,
        /// It is one of user mode.
        user: bool,
        /// Empty unless asked for.
        callchain: Callchain<'a>,
    },
    /// An instruction with a breakpoint is about to be executed.
    Breakpoint {
        /// Which.
        event: EventKey,
        /// The instruction.
        ip: u64,
        /// Of those asked for, in the order of their bits; none if the CPU's state was not known.
        registers: Registers<'a>,
        /// Empty unless asked for.
        callchain: Callchain<'a>,
    },
    /// A process or thread was made. The record's own numbers are those of the new one.
    Fork {
        /// Who made it.
        parent_pid: u32,
        /// The thread that did.
        parent_tid: u32,
    },
    /// A thread ended.
    Exit,
    /// A thread has a new name.
    Comm {
        /// The name, up to 15 bytes.
        name: &'a [u8],
        /// Because it executes another program.
        exec: bool,
    },
    /// Records found no room in this CPU's ring.
    Lost {
        /// How many.
        records: u64,
    },
    /// Samples came too fast and are held back.
    Throttled,
    /// They are taken again.
    Unthrottled,
}

/// Addresses of a call chain, the innermost first, without the kernel's marks between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callchain<'a>(&'a [u8]);

impl<'a> Callchain<'a> {
    /// The addresses.
    pub fn addresses(self) -> impl Iterator<Item = u64> + 'a {
        words(self.0).filter(|&address| address < FIRST_CONTEXT)
    }

    /// None was asked for, or none is known.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// Registers, in the order of their bits in the mask they were asked for with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers<'a>(&'a [u8]);

impl Registers<'_> {
    /// The register at this place.
    pub fn at(self, index: usize) -> Option<u64> {
        words(self.0).nth(index)
    }
}

/// The user-mode side of a task that is in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct User<'a> {
    /// It runs 64-bit code: the numbers and registers of its system calls are those of a 64-bit
    /// kernel. `false` also when nothing is known of it.
    pub is_64_bit: bool,
    /// Those asked for.
    pub registers: Registers<'a>,
    /// The top of its stack, from the stack pointer upwards, as far as it could be read.
    pub stack: &'a [u8],
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")))
}

/// What kind of event an identifier belongs to, and so what its records hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) event: EventKey,
    pub(super) class: Class,
    pub(super) callchain: bool,
    /// How many registers.
    pub(super) registers: u32,
    /// How many registers of user mode.
    pub(super) user_registers: u32,
    /// With the top of the user stack.
    pub(super) user_stack: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tracepoint,
    Clock,
    Breakpoint,
    /// The carrier of fork, exit and names.
    Task,
}

/// In every record.
pub(super) const COMMON: SampleType = SampleType::IDENTIFIER
    .and(SampleType::TID)
    .and(SampleType::TIME)
    .and(SampleType::CPU);

impl Layout {
    /// What the kernel is asked to store in samples.
    pub(super) fn sample_type(self) -> SampleType {
        let mut fields = match self.class {
            Class::Tracepoint => COMMON.and(SampleType::RAW),
            Class::Clock => COMMON.and(SampleType::IP),
            Class::Breakpoint => COMMON.and(SampleType::IP),
            Class::Task => COMMON,
        };
        if self.registers > 0 {
            fields = fields.and(SampleType::REGS_INTR);
        }
        if self.callchain {
            fields = fields.and(SampleType::CALLCHAIN);
        }
        if self.user_registers > 0 {
            fields = fields.and(SampleType::REGS_USER);
        }
        if self.user_stack {
            fields = fields.and(SampleType::STACK_USER);
        }
        fields
    }
}

/// A record as it lies in a ring: its kind, a word of marks, and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framed<'a> {
    pub(super) kind: u32,
    pub(super) misc: u16,
    pub(super) body: &'a [u8],
}

/// Takes the first record off `bytes`. `None` if no whole one is left, or its length makes no
/// sense, after which nothing in `bytes` can be trusted.
pub(super) fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<Framed<'a>> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let [a, b, c, d, e, f, g, h] = *header;
    let size = usize::from(u16::from_ne_bytes([g, h]));
    let body = bytes.get(HEADER..size)?;
    *bytes = &bytes[size..];
    Some(Framed {
        kind: u32::from_ne_bytes([a, b, c, d]),
        misc: u16::from_ne_bytes([e, f]),
        body,
    })
}

impl<'a> Framed<'a> {
    /// The identifier of the event that the record belongs to: first in samples, last in others.
    pub(super) fn identifier(&self) -> Option<u64> {
        let word = if self.kind == PERF_RECORD_SAMPLE {
            self.body.first_chunk::<8>()
        } else {
            self.body.last_chunk::<8>()
        };
        word.map(|word| u64::from_ne_bytes(*word))
    }

    /// When it happened, without reading the rest.
    pub(super) fn time_ns(&self, layout: Layout) -> Option<u64> {
        let time_at = if self.kind == PERF_RECORD_SAMPLE {
            // identifier, ip, pid and tid
            let ip = layout.sample_type().contains(SampleType::IP);
            16 + usize::from(ip) * 8
        } else {
            // pid and tid, time, cpu, identifier
            self.body.len().checked_sub(24)?
        };
        let word = self.body.get(time_at..time_at.checked_add(8)?)?;
        Some(u64::from_ne_bytes(word.try_into().ok()?))
    }

    /// The whole record. `None` if it is shorter than its kind needs, or of a kind not asked for.
    pub(super) fn decode(&self, layout: Layout) -> Option<Record<'a>> {
        if self.kind == PERF_RECORD_SAMPLE {
            self.sample(layout)
        } else {
            self.other()
        }
    }

    fn sample(&self, layout: Layout) -> Option<Record<'a>> {
        let fields = layout.sample_type();
        let mut body = Reader(self.body);
        body.u64()?;
        let ip = if fields.contains(SampleType::IP) {
            body.u64()?
        } else {
            0
        };
        let (pid, tid) = (body.u32()?, body.u32()?);
        let time_ns = body.u64()?;
        let cpu = body.u32()?;
        body.u32()?;
        let callchain = if layout.callchain {
            let frames = usize::try_from(body.u64()?).ok()?;
            Callchain(body.bytes(frames.checked_mul(8)?)?)
        } else {
            Callchain::default()
        };
        let event = layout.event;
        let kind = match layout.class {
            Class::Tracepoint => {
                let size = usize::try_from(body.u32()?).ok()?;
                Kind::Tracepoint {
                    event,
                    raw: body.bytes(size)?,
                    callchain,
                    user: body.user(layout)?,
                }
            }
            Class::Clock => Kind::Sample {
                event,
                ip,
                user: self.misc & CPUMODE_MASK == CPUMODE_USER,
                callchain,
            },
            Class::Breakpoint => Kind::Breakpoint {
                event,
                ip,
                registers: body.registers(layout.registers)?,
                callchain,
            },
            Class::Task => return None,
        };
        Some(Record {
            time_ns,
            cpu,
            pid,
            tid,
            kind,
        })
    }

    /// Records that are no samples end with pid, tid, time, cpu, identifier.
    fn other(&self) -> Option<Record<'a>> {
        let (own, common) = self
            .body
            .split_at_checked(self.body.len().checked_sub(32)?)?;
        let mut common = Reader(common);
        let (mut pid, mut tid) = (common.u32()?, common.u32()?);
        let time_ns = common.u64()?;
        let cpu = common.u32()?;
        let mut own = Reader(own);
        let kind = match self.kind {
            PERF_RECORD_LOST => {
                own.u64()?;
                Kind::Lost {
                    records: own.u64()?,
                }
            }
            PERF_RECORD_LOST_SAMPLES => Kind::Lost {
                records: own.u64()?,
            },
            PERF_RECORD_COMM => {
                (pid, tid) = (own.u32()?, own.u32()?);
                let end = own.0.iter().position(|&byte| byte == 0);
                Kind::Comm {
                    name: &own.0[..end.unwrap_or(own.0.len())],
                    exec: self.misc & MISC_COMM_EXEC != 0,
                }
            }
            PERF_RECORD_FORK => {
                let parent_pid;
                let parent_tid;
                (pid, parent_pid) = (own.u32()?, own.u32()?);
                (tid, parent_tid) = (own.u32()?, own.u32()?);
                Kind::Fork {
                    parent_pid,
                    parent_tid,
                }
            }
            PERF_RECORD_EXIT => {
                pid = own.u32()?;
                own.u32()?;
                tid = own.u32()?;
                Kind::Exit
            }
            PERF_RECORD_THROTTLE => Kind::Throttled,
            PERF_RECORD_UNTHROTTLE => Kind::Unthrottled,
            _ => return None,
        };
        Some(Record {
            time_ns,
            cpu,
            pid,
            tid,
            kind,
        })
    }
}

/// Takes numbers off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*word))
    }

    fn u64(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*word))
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Registers of user mode and the top of the stack.
    fn user(&mut self, layout: Layout) -> Option<User<'a>> {
        let mut user = User::default();
        if layout.user_registers > 0 {
            let abi = self.u64()?;
            user.is_64_bit = abi == PERF_SAMPLE_REGS_ABI_64;
            if abi != 0 {
                let bytes = usize::try_from(layout.user_registers).ok()? * 8;
                user.registers = Registers(self.bytes(bytes)?);
            }
        }
        if layout.user_stack {
            let room = usize::try_from(self.u64()?).ok()?;
            let stack = self.bytes(room)?;
            if room > 0 {
                let read = usize::try_from(self.u64()?).ok()?;
                user.stack = stack.get(..read)?;
            }
        }
        Some(user)
    }

    /// The ABI, and unless it is 0 (none) the registers.
    fn registers(&mut self, count: u32) -> Option<Registers<'a>> {
        if count == 0 || self.u64()? == 0 {
            return Some(Registers::default());
        }
        Some(Registers(self.bytes(usize::try_from(count).ok()? * 8)?))
    }
}

/// `struct perf_event_header`.
const HEADER: usize = 8;
/// Entries of a call chain from here on are marks (`PERF_CONTEXT_MAX` and above), not addresses.
const FIRST_CONTEXT: u64 = -4095_i64 as u64;

const PERF_SAMPLE_REGS_ABI_64: u64 = 2;
const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_COMM: u32 = 3;
const PERF_RECORD_EXIT: u32 = 4;
const PERF_RECORD_THROTTLE: u32 = 5;
const PERF_RECORD_UNTHROTTLE: u32 = 6;
const PERF_RECORD_FORK: u32 = 7;
const PERF_RECORD_SAMPLE: u32 = 9;
const PERF_RECORD_LOST_SAMPLES: u32 = 13;
const CPUMODE_MASK: u16 = 7;
const CPUMODE_USER: u16 = 2;
const MISC_COMM_EXEC: u16 = 1 << 13;

#[cfg(test)]
#[path = "record_tests.rs"]
pub(super) mod tests;
