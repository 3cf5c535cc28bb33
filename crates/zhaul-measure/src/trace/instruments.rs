//! The events of the kernel that a trace records and counts, and what their records mean.
//!
//! On x86-64 a call is recorded once, when it returns: the registers of user mode still hold its
//! arguments. Where the result takes the place of the first argument, its beginning is recorded as
//! well.

use zhaul_sys::perf_event::software;

use super::calls::{self, Followed, Role};
use super::event::{Call, Event, Stack, Task, Way};
use super::object::FileId;
use crate::perf::{
    Builder, CopyEvents, CopyRoutines, Direction, Error, EventKey, Field, Kind, Record, Registers,
    Symbols, Tracefs, Tracepoint, User, UserSide,
};

/// The events of a session on processes.
#[derive(Debug)]
pub(super) struct Instruments {
    calls: Calls,
    copies: Option<CopyEvents>,
    page_cache: Option<PageCache>,
    /// Counted: calls of any kind that returned.
    pub(super) returned: EventKey,
    pub(super) context_switches: EventKey,
    pub(super) major_faults: EventKey,
    pub(super) cpu_ns: EventKey,
    /// Calls of 32-bit programs, whose numbers mean something else.
    pub(super) foreign_calls: u64,
}

/// How calls are recorded.
#[derive(Debug)]
struct Calls {
    /// Their ends: without the stack, with it, and those that open paths.
    exits: Vec<EventKey>,
    number: Field,
    result: Field,
    enter: Option<Enter>,
}

#[derive(Debug)]
struct Enter {
    event: EventKey,
    number: Field,
    arguments: Field,
}

#[derive(Debug)]
struct PageCache {
    event: EventKey,
    inode: Field,
    device: Field,
    /// Before Linux 6.0 each page was added by itself.
    order: Option<Field>,
}

/// What is wanted of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copies {
    /// Exact if the kernel allows it, else by the contracts of calls.
    #[default]
    Auto,
    /// Exact or not at all.
    Exact,
    /// By the contracts of calls, which disturbs the program less.
    ByCall,
}

/// The copy routines, or why they are not watched.
pub(super) fn copy_routines(wanted: Copies) -> Result<Result<CopyRoutines, Option<Error>>, Error> {
    let found = || CopyRoutines::find(&Symbols::load()?);
    match wanted {
        Copies::ByCall => Ok(Err(None)),
        Copies::Exact => found().map(Ok),
        Copies::Auto => Ok(found().map_err(Some)),
    }
}

impl Instruments {
    /// Adds all of them to a session that is being built. Opening a path ends a wait, so that it can
    /// be looked at while it is open.
    pub(super) fn add_to(
        builder: &mut Builder,
        tracefs: &Tracefs,
        copies: Option<&CopyRoutines>,
    ) -> Result<Self, Error> {
        let enter = tracefs.tracepoint("raw_syscalls:sys_enter")?;
        let exit = tracefs.tracepoint("raw_syscalls:sys_exit")?;
        // At the end of calls, where they are recorded: a second tracepoint would cost each call
        // as much again.
        let returned = builder.count(&exit, None);
        let calls = Calls::add_to(builder, &enter, &exit, copies.is_some())?;
        let count = |builder: &mut Builder, name, number| builder.count_software(name, number);
        let context_switches = count(builder, "context switches", software::CONTEXT_SWITCHES);
        let major_faults = count(builder, "major faults", software::PAGE_FAULTS_MAJ);
        let cpu_ns = count(builder, "CPU time", software::TASK_CLOCK);
        let page_cache = match tracefs.tracepoint("filemap:mm_filemap_add_to_page_cache") {
            Ok(tracepoint) => Some(PageCache::add_to(builder, &tracepoint)?),
            Err(Error::NoTracepoint(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            calls,
            copies: copies.map(|routines| routines.add_to(builder)),
            page_cache,
            returned,
            context_switches,
            major_faults,
            cpu_ns,
            foreign_calls: 0,
        })
    }

    /// Whether copies are seen one by one.
    pub(super) fn are_exact(&self) -> bool {
        self.copies.is_some()
    }

    /// What a record says, if it says anything.
    pub(super) fn event(&mut self, record: &Record<'_>) -> Option<Event> {
        let task = Task {
            pid: record.pid,
            tid: record.tid,
        };
        match record.kind {
            Kind::Tracepoint {
                event, raw, user, ..
            } => self.tracepoint(task, event, raw, user),
            Kind::Breakpoint { .. } => {
                let copy = self.copies.as_ref()?.copy(record)?;
                Some(Event::Copied {
                    task,
                    way: match copy.direction {
                        Direction::ToUser => Way::ToUser,
                        Direction::FromUser => Way::FromUser,
                        Direction::Within => Way::Within,
                    },
                    bytes: copy.bytes?,
                })
            }
            Kind::Fork {
                parent_pid,
                parent_tid,
            } => Some(Event::Fork {
                parent: Task {
                    pid: parent_pid,
                    tid: parent_tid,
                },
                child: task,
            }),
            Kind::Exit => Some(Event::End { task }),
            Kind::Comm { name, exec: true } => Some(Event::Exec {
                task,
                name: String::from_utf8_lossy(name).into_owned(),
            }),
            Kind::Lost { records } => Some(Event::Lost { records }),
            _ => None,
        }
    }

    fn tracepoint(
        &mut self,
        task: Task,
        event: EventKey,
        raw: &[u8],
        user: User<'_>,
    ) -> Option<Event> {
        if self.calls.exits.contains(&event) {
            if !user.is_64_bit {
                self.foreign_calls += 1;
                return None;
            }
            return self.calls.exit(task, raw, user);
        }
        if let Some(enter) = self.calls.enter.as_ref().filter(|e| e.event == event) {
            return enter.event(task, raw);
        }
        let page_cache = self.page_cache.as_ref().filter(|p| p.event == event)?;
        Some(Event::PageCacheAdd {
            task,
            file: FileId {
                device: numbers(page_cache.device.unsigned(raw)?),
                inode: page_cache.inode.unsigned(raw)?,
            },
            pages: match &page_cache.order {
                Some(order) => 1_u64.checked_shl(u32::try_from(order.unsigned(raw)?).ok()?)?,
                None => 1,
            },
        })
    }
}

impl Calls {
    fn add_to(
        builder: &mut Builder,
        enter: &Tracepoint,
        exit: &Tracepoint,
        all: bool,
    ) -> Result<Self, Error> {
        let opens = |call: &Followed| matches!(call.role, Role::Open(_) | Role::Dup);
        let with_stack = |call: &Followed| call.role.has_arguments_in_memory();
        let registers = UserSide {
            registers: REGISTERS,
            stack_bytes: 0,
        };
        let stack = UserSide {
            stack_bytes: STACK_BYTES,
            ..registers
        };
        // To say which call a copy belongs to, the ends of all calls are needed.
        let plain = if all {
            all_but(|call| opens(call) || with_stack(call))
        } else {
            any_of(|call| !opens(call) && !with_stack(call))
        };
        let mut add = |filter: String, user, wakes| {
            builder.tracepoint_with_user(exit, Some(&filter), user, wakes)
        };
        let mut exits = vec![add(plain, registers, false)];
        exits.push(add(any_of(with_stack), stack, false));
        exits.push(add(any_of(opens), registers, true));
        let enter = match RESULT_HIDES_ARGUMENT {
            true => Some(Enter {
                event: builder.tracepoint(enter, Some(&any_of(|_| true))),
                number: field(enter, "id")?,
                arguments: field(enter, "args")?,
            }),
            false => None,
        };
        Ok(Self {
            exits,
            number: field(exit, "id")?,
            result: field(exit, "ret")?,
            enter,
        })
    }

    fn exit(&self, task: Task, raw: &[u8], user: User<'_>) -> Option<Event> {
        let number = self.number.signed(raw)?;
        let result = self.result.signed(raw)?;
        let stack = (!user.stack.is_empty()).then(|| stack(user)).flatten();
        if self.enter.is_some() {
            return Some(Event::Exit {
                task,
                number,
                result,
                stack,
            });
        }
        Some(Event::Call(Call {
            task,
            number,
            arguments: arguments(user.registers)?,
            result,
            stack,
            made: None,
        }))
    }
}

impl Enter {
    fn event(&self, task: Task, raw: &[u8]) -> Option<Event> {
        let mut arguments = [0; 6];
        for (index, argument) in arguments.iter_mut().enumerate() {
            *argument = self.arguments.unsigned_at(raw, index)?;
        }
        Some(Event::Enter {
            task,
            number: self.number.signed(raw)?,
            arguments,
        })
    }
}

impl PageCache {
    fn add_to(builder: &mut Builder, tracepoint: &Tracepoint) -> Result<Self, Error> {
        Ok(Self {
            event: builder.tracepoint(tracepoint, None),
            inode: field(tracepoint, "i_ino")?,
            device: field(tracepoint, "s_dev")?,
            order: tracepoint.format.field("order").cloned(),
        })
    }
}

/// The events of whole CPUs: devices work for whoever is running.
#[derive(Debug)]
pub(super) struct DeviceInstruments {
    transmit: Option<Transmit>,
    request: Option<Request>,
}

#[derive(Debug)]
struct Transmit {
    event: EventKey,
    device: Field,
    bytes: Field,
    gathered: Field,
}

#[derive(Debug)]
struct Request {
    event: EventKey,
    device: Field,
    bytes: Field,
    direction: Field,
}

impl DeviceInstruments {
    /// Adds them to a session on all CPUs. A kernel without networking or disks has none.
    pub(super) fn add_to(builder: &mut Builder, tracefs: &Tracefs) -> Result<Self, Error> {
        let optional = |name| match tracefs.tracepoint(name) {
            Ok(tracepoint) => Ok(Some(tracepoint)),
            Err(Error::NoTracepoint(_)) => Ok(None),
            Err(error) => Err(error),
        };
        let mut this = Self {
            transmit: None,
            request: None,
        };
        if let Some(tracepoint) = optional("net:net_dev_start_xmit")? {
            this.transmit = Some(Transmit {
                event: builder.tracepoint(&tracepoint, None),
                device: field(&tracepoint, "name")?,
                bytes: field(&tracepoint, "len")?,
                gathered: field(&tracepoint, "data_len")?,
            });
        }
        if let Some(tracepoint) = optional("block:block_rq_issue")? {
            this.request = Some(Request {
                event: builder.tracepoint(&tracepoint, Some("bytes > 0")),
                device: field(&tracepoint, "dev")?,
                bytes: field(&tracepoint, "bytes")?,
                direction: field(&tracepoint, "rwbs")?,
            });
        }
        Ok(this)
    }

    /// What a record says. `is_traced` knows the processes that are.
    pub(super) fn event(
        &self,
        record: &Record<'_>,
        is_traced: impl Fn(u32) -> bool,
    ) -> Option<Event> {
        let Kind::Tracepoint { event, raw, .. } = record.kind else {
            return match record.kind {
                Kind::Lost { records } => Some(Event::LostOfDevices { records }),
                _ => None,
            };
        };
        let task = is_traced(record.pid).then_some(Task {
            pid: record.pid,
            tid: record.tid,
        });
        if let Some(transmit) = self.transmit.as_ref().filter(|t| t.event == event) {
            return Some(Event::Transmit {
                task,
                device: transmit.device.text(raw)?.into_owned(),
                bytes: transmit.bytes.unsigned(raw)?,
                gathered: transmit.gathered.unsigned(raw)?,
            });
        }
        let request = self.request.as_ref().filter(|r| r.event == event)?;
        Some(Event::BlockRequest {
            task,
            device: numbers(request.device.unsigned(raw)?),
            bytes: request.bytes.unsigned(raw)?,
            write: request.direction.text(raw)?.contains('W'),
        })
    }
}

fn field(tracepoint: &Tracepoint, name: &str) -> Result<Field, Error> {
    let field = tracepoint.format.field(name);
    field
        .cloned()
        .ok_or_else(|| Error::Format(tracepoint.name.clone()))
}

/// The kernel's own `dev_t`: 12 bits of major, 20 of minor number.
const fn numbers(device: u64) -> (u32, u32) {
    ((device >> 20) as u32, (device & 0xf_ffff) as u32)
}

/// A filter for the calls that match. Every call of the traced threads goes through it, so it halves
/// the numbers instead of comparing them one by one.
fn any_of(matches: impl Fn(&Followed) -> bool) -> String {
    let calls = calls::all().iter().filter(|call| matches(call));
    let mut numbers: Vec<i64> = calls.map(|call| call.number).collect();
    numbers.sort_unstable();
    halving(&numbers)
}

fn halving(numbers: &[i64]) -> String {
    if numbers.len() <= 3 {
        let terms: Vec<String> = numbers.iter().map(|n| format!("id == {n}")).collect();
        return terms.join(" || ");
    }
    let (low, high) = numbers.split_at(numbers.len() / 2);
    let border = high[0];
    format!(
        "(id < {border} && ({})) || (id >= {border} && ({}))",
        halving(low),
        halving(high)
    )
}

/// A filter for all calls but those that match.
fn all_but(matches: impl Fn(&Followed) -> bool) -> String {
    let numbers = calls::all().iter().filter(|call| matches(call));
    let terms: Vec<String> = numbers
        .map(|call| format!("id != {}", call.number))
        .collect();
    terms.join(" && ")
}

fn stack(user: User<'_>) -> Option<Stack> {
    Some(Stack {
        address: user.registers.at(STACK_POINTER)?,
        bytes: user.stack.to_vec(),
    })
}

/// Enough for the arrays of buffers of most programs: nginx keeps 64 vectors, 1 KiB, on its stack.
const STACK_BYTES: u32 = 2048;

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::Registers;

    // asm/perf_regs.h: DX is 3, SI 4, DI 5, SP 7, R8 16, R9 17, R10 18; in this order in a record.
    pub(super) const REGISTERS: u64 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 7 << 16;
    pub(super) const STACK_POINTER: usize = 3;
    pub(super) const RESULT_HIDES_ARGUMENT: bool = false;

    /// `rdi, rsi, rdx, r10, r8, r9`.
    pub(super) fn arguments(registers: Registers<'_>) -> Option<[u64; 6]> {
        let mut arguments = [0; 6];
        for (argument, at) in arguments.iter_mut().zip([2, 1, 0, 6, 4, 5]) {
            *argument = registers.at(at)?;
        }
        Some(arguments)
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use super::Registers;

    // asm/perf_regs.h: SP is 31.
    pub(super) const REGISTERS: u64 = 1 << 31;
    pub(super) const STACK_POINTER: usize = 0;
    /// x0 holds the first argument before, and the result after.
    pub(super) const RESULT_HIDES_ARGUMENT: bool = true;

    pub(super) fn arguments(_: Registers<'_>) -> Option<[u64; 6]> {
        None
    }
}

use registers::{REGISTERS, RESULT_HIDES_ARGUMENT, STACK_POINTER, arguments};
