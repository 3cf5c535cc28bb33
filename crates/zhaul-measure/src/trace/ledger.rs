//! Keeps account: told of events in the order of time, it knows which bytes went where by which
//! calls. Without descriptors, clock or system calls of its own; what events do not tell it asks of
//! a [`World`].
//!
//! A flow is claimed only where something links its two ends: one call that names both, a pipe that
//! was filled and emptied, or an address where a read-like call put bytes and from which a write-like
//! call took them. Where the address is not known (an array of buffers that could not be read), the
//! thread's last input is taken for it, and the flow is marked as inferred. What a program does with
//! bytes elsewhere in its memory is not seen; they end and begin in the program. What goes out of a
//! buffer a second time may be the same or something new: its source is unknown, and is counted as
//! such.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::calls::{Role, followed};
use super::event::{Call, Event, Task, Timed, Way};
use super::fit::Refusals;
use super::flows::Flows;
use super::memory::{Moment, Portion};
use super::object::{FileId, Kind, Object};
use super::pipes::Pipes;
use super::process::Process;
use super::world::World;

mod completions;
pub(super) mod descriptors;
mod devices;
mod moves;
mod transfers;

pub(crate) use devices::Devices;

/// What one kind of system call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallAccount {
    pub(crate) calls: u64,
    pub(crate) bytes: u64,
    pub(crate) copied: u64,
    /// Results that say: not now.
    pub(crate) would_block: u64,
    pub(crate) errors: u64,
    /// Calls whose bytes are not in their result.
    pub(crate) unsized_calls: u64,
}

/// Sums that only grow, for figures per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Calls that move data.
    pub calls: u64,
    /// Bytes that calls put into programs' memory.
    pub bytes_in: u64,
    /// Bytes that calls took out of it.
    pub bytes_out: u64,
    /// Bytes that calls moved without it.
    pub bytes_through: u64,
    /// Bytes copied by the CPU.
    pub copied: u64,
    /// Records that the kernel dropped.
    pub lost: u64,
}

/// Pages that were added to the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Because they were read and not there: misses.
    pub missed: u64,
    /// To hold what was written.
    pub written: u64,
}

impl Sums {
    /// Bytes that arrived somewhere: what a program only took in, or only made, counts as well.
    pub fn moved(&self) -> u64 {
        self.bytes_in.max(self.bytes_out) + self.bytes_through
    }
}

/// Bytes that the copy routines were asked to copy.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    to_user: u64,
    from_user: u64,
    within: u64,
}

impl Copied {
    fn sum(self) -> u64 {
        self.to_user + self.from_user + self.within
    }

    /// What was really copied by a call that moved so many bytes. Writing to a pipe asks for whole
    /// pages and gets what there is, and where a page of user memory has to be fetched first, the
    /// rest is asked for again: more than its result a call does not copy from or to the program.
    fn of_call(self, role: Role, bytes: u64) -> u64 {
        let mut copied = self;
        match role {
            Role::Input(..) => copied.to_user = copied.to_user.min(bytes),
            Role::Output(..) => copied.from_user = copied.from_user.min(bytes),
            _ => {}
        }
        copied.sum()
    }
}

#[derive(Debug, Default)]
struct Thread {
    /// A call that has begun and not returned, where that is recorded.
    pending: Option<(i64, [u64; 6])>,
    /// Copied since the last call returned.
    copied: Copied,
    /// Pages added to the page cache since the last call returned, by file.
    pages: Vec<(FileId, u64)>,
    /// Input whose address is not known.
    last_input: Option<Portion>,
}

/// The account. See the module.
#[derive(Debug)]
pub struct Ledger<W> {
    pub(crate) world: W,
    /// Copies are counted by [`Event::Copied`] and not by the contracts of calls.
    exact: bool,
    processes: HashMap<u32, Process>,
    threads: HashMap<u32, Thread>,
    pipes: Pipes,
    pipes_made: u64,
    program: Rc<Object>,
    /// What lies in a buffer that went out before.
    unknown: Rc<Object>,
    pub(crate) refusals: Refusals,
    pub(crate) calls: BTreeMap<&'static str, CallAccount>,
    pub(crate) flows: Flows,
    pub(crate) devices: Devices,
    sums: Sums,
    /// Copies for which no call that moves data answers.
    pub(crate) copied_elsewhere: u64,
    pub(crate) pages: Pages,
    /// Calls whose beginning was not seen.
    pub(crate) headless_calls: u64,
    /// Mappings of files that others see, too.
    pub(crate) shared_mappings: u64,
    /// When the event at hand happened.
    now_ns: u64,
}

impl<W: World> Ledger<W> {
    /// An empty one. With `exact`, copies are those of [`Event::Copied`] and no others.
    pub fn new(world: W, exact: bool) -> Self {
        Self {
            world,
            exact,
            processes: HashMap::new(),
            threads: HashMap::new(),
            pipes: Pipes::default(),
            pipes_made: 0,
            program: Object::of(Kind::Program),
            unknown: Object::of(Kind::Unknown),
            refusals: Refusals::default(),
            calls: BTreeMap::new(),
            flows: Flows::default(),
            devices: Devices::default(),
            sums: Sums::default(),
            copied_elsewhere: 0,
            pages: Pages::default(),
            headless_calls: 0,
            shared_mappings: 0,
            now_ns: 0,
        }
    }

    /// Takes events in the order of time.
    pub fn take(&mut self, events: Vec<Timed>) {
        for (time_ns, event) in events {
            self.now_ns = time_ns;
            self.one(event);
        }
        self.flows.fold(self.now_ns);
    }

    fn one(&mut self, event: Event) {
        match event {
            Event::Enter {
                task,
                number,
                arguments,
            } => self.thread(task).pending = Some((number, arguments)),
            Event::Exit {
                task,
                number,
                result,
                stack,
            } => match self.thread(task).pending.take() {
                Some((begun, arguments)) if begun == number => self.call(&Call {
                    task,
                    number,
                    arguments,
                    result,
                    stack,
                    made: None,
                }),
                _ => self.headless_calls += 1,
            },
            Event::Call(call) => self.call(&call),
            Event::Fork { parent, child } => self.fork(parent, child),
            Event::Exec { task, .. } => self.exec(task),
            Event::End { task } => self.end(task),
            Event::Copied { task, way, bytes } => self.copied(task, way, bytes),
            Event::PageCacheAdd { task, file, pages } => self.page_added(task, file, pages),
            Event::Transmit {
                task,
                device,
                bytes,
                gathered,
            } => self
                .devices
                .transmit(task.is_some(), device, bytes, gathered),
            Event::BlockRequest {
                task,
                device,
                bytes,
                write,
            } => self.devices.block(task.is_some(), device, bytes, write),
            Event::Lost { records } => self.lost(records),
            Event::LostOfDevices { records } => self.sums.lost += records,
        }
    }

    fn thread(&mut self, task: Task) -> &mut Thread {
        self.threads.entry(task.tid).or_default()
    }

    fn process(&mut self, pid: u32) -> &mut Process {
        self.processes.entry(pid).or_default()
    }

    fn copied(&mut self, task: Task, way: Way, bytes: u64) {
        let copied = &mut self.thread(task).copied;
        match way {
            Way::ToUser => copied.to_user += bytes,
            Way::FromUser => copied.from_user += bytes,
            Way::Within => copied.within += bytes,
        }
    }

    fn page_added(&mut self, task: Task, file: FileId, pages: u64) {
        let waiting = &mut self.thread(task).pages;
        match waiting.iter_mut().find(|(other, _)| *other == file) {
            Some((_, sum)) => *sum += pages,
            None => waiting.push((file, pages)),
        }
    }

    /// Books the pages that were added during a call (or before it, by faults), and says how many of
    /// them hold what the call wrote.
    fn book_pages(&mut self, task: Task, source: Option<&Object>, sink: Option<&Object>) -> u64 {
        let mut written = 0;
        for (file, pages) in std::mem::take(&mut self.thread(task).pages) {
            // By the inode's number alone: the device in a tracepoint is not always that of stat(2).
            let inode = |object: Option<&Object>| object?.file().map(|file| file.inode);
            let is_sink = match inode(sink) {
                Some(inode) => inode == file.inode,
                None => sink.is_some_and(|sink| sink.kind().is_stored()),
            };
            if is_sink && inode(source) != Some(file.inode) {
                written += pages;
            } else {
                self.pages.missed += pages;
            }
        }
        self.pages.written += written;
        written
    }

    fn call(&mut self, call: &Call) {
        let copied = std::mem::take(&mut self.thread(call.task).copied);
        let Some(known) = followed(call.number) else {
            self.copied_elsewhere += copied.sum();
            return;
        };
        if !known.role.moves_data() {
            self.copied_elsewhere += copied.sum();
            if call.result >= 0 {
                self.bookkeeping(call, known);
            } else {
                self.refused(call, known.role);
            }
            return;
        }
        self.process(call.task.pid).calls += 1;
        let account = self.calls.entry(known.name).or_default();
        self.sums.calls += 1;
        account.calls += 1;
        account.unsized_calls += u64::from(known.role == Role::Elsewhere);
        if call.number == libc::SYS_recvmsg && call.result >= 0 {
            self.completions(call);
        }
        if call.result <= 0 {
            let account = self.calls.entry(known.name).or_default();
            self.copied_elsewhere += copied.sum();
            match -call.result {
                0 => {}
                EAGAIN | EINPROGRESS => account.would_block += 1,
                // Interrupted by a signal and begun again: that is not the program's affair.
                ERESTARTSYS..=ERESTART_RESTARTBLOCK => {}
                _ => {
                    account.errors += 1;
                    self.refused(call, known.role);
                }
            }
            return;
        }
        let bytes = call.result.unsigned_abs();
        let exact = copied.of_call(known.role, bytes);
        match known.role {
            Role::Input(span, flags) => self.input(call, known, span, flags, exact),
            Role::Output(span, flags) => self.output(call, known, span, flags, exact),
            Role::Sendfile => self.sendfile(call, bytes, exact),
            Role::Splice => self.splice(call, bytes, exact),
            Role::Tee => self.tee(call, bytes, exact),
            Role::Vmsplice => self.vmsplice(call, bytes, exact),
            Role::CopyFileRange => self.copy_file_range(call, bytes, exact),
            Role::OtherMemory => self.other_memory(known, bytes, exact),
            _ => {
                let account = self.calls.entry(known.name).or_default();
                account.unsized_calls += u64::from(known.role == Role::Messages);
                self.account(known.name, 0, exact);
            }
        }
    }

    /// Books a call that moved data: its bytes, and what the CPU copied.
    fn account(&mut self, name: &'static str, bytes: u64, copied: u64) {
        let account = self.calls.entry(name).or_default();
        account.bytes += bytes;
        account.copied += copied;
        self.sums.copied += copied;
    }

    /// What a call copied: as counted, or as its contract says.
    fn cost(&self, exact: u64, by_contract: u64) -> u64 {
        if self.exact { exact } else { by_contract }
    }

    /// These bytes came into the program and did not go on.
    fn stayed(&mut self, portions: Vec<Portion>) {
        let program = Rc::clone(&self.program);
        for portion in portions {
            self.flows.arrive(&portion, &program, false);
        }
    }

    fn fork(&mut self, parent: Task, child: Task) {
        if parent.pid != child.pid
            && let Some(process) = self.processes.get(&parent.pid)
        {
            let process = process.forked();
            self.processes.insert(child.pid, process);
        }
    }

    /// For what goes into or out of memory at this moment.
    fn moment(&mut self, pid: u32) -> Moment {
        Moment {
            time_ns: self.now_ns,
            calls: self.process(pid).calls,
        }
    }

    fn exec(&mut self, task: Task) {
        let now_ns = self.now_ns;
        let process = self.process(task.pid);
        for (fd, descriptor) in process.exec() {
            descriptor.object.closed(task.pid, fd, now_ns);
        }
        let unsent = process.inputs.drain();
        self.stayed(unsent);
        self.forget_input_of(task.tid);
    }

    fn end(&mut self, task: Task) {
        self.forget_input_of(task.tid);
        self.book_pages(task, None, None);
        if let Some(thread) = self.threads.remove(&task.tid) {
            self.copied_elsewhere += thread.copied.sum();
        }
        if task.pid == task.tid
            && let Some(mut process) = self.processes.remove(&task.pid)
        {
            for (fd, descriptor) in &process.descriptors {
                descriptor.object.closed(task.pid, *fd, self.now_ns);
            }
            let unsent = process.inputs.drain();
            self.stayed(unsent);
        }
    }

    fn forget_input_of(&mut self, tid: u32) {
        let last = self.threads.get_mut(&tid).and_then(|t| t.last_input.take());
        self.stayed(last.into_iter().collect());
    }

    /// Records are missing: descriptors may have been closed, pipes emptied and memory filled anew.
    /// What is not known for certain any more is forgotten.
    fn lost(&mut self, records: u64) {
        self.sums.lost += records;
        // One of them may have been the close that shows a look to be void.
        self.flows.doubt(self.now_ns);
        let mut unsent: Vec<Portion> = Vec::new();
        for process in self.processes.values_mut() {
            process.descriptors.clear();
            process.mappings = super::memory::Mappings::default();
            process.mappings_are_known = false;
            unsent.extend(process.inputs.drain());
        }
        for thread in self.threads.values_mut() {
            thread.pending = None;
            unsent.extend(thread.last_input.take());
        }
        self.stayed(unsent);
        let in_pipes = self.pipes.drain();
        self.stayed_in_pipe(in_pipes);
    }

    /// These bytes were spliced into a pipe and not seen to leave it.
    fn stayed_in_pipe(&mut self, portions: Vec<Portion>) {
        let pipe = Object::of(Kind::Pipe);
        for portion in portions {
            self.flows.arrive(&portion, &pipe, false);
        }
    }

    /// The sums so far.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// The flows so far, with what is still waiting where it is.
    pub(crate) fn flows_so_far(&self) -> Flows {
        let mut flows = self.flows.clone();
        let in_memory = self.processes.values().flat_map(|p| p.inputs.waiting());
        let unknown_place = self.threads.values().filter_map(|t| t.last_input.as_ref());
        for portion in in_memory.chain(unknown_place) {
            flows.arrive(portion, &self.program, false);
        }
        let pipe = Object::of(Kind::Pipe);
        for portion in self.pipes.waiting() {
            flows.arrive(portion, &pipe, false);
        }
        flows
    }

    /// Whether copies are counted and not added up from the contracts of calls.
    pub fn is_exact(&self) -> bool {
        self.exact
    }
}

const EAGAIN: i64 = libc::EAGAIN as i64;
const EINPROGRESS: i64 = libc::EINPROGRESS as i64;
/// Results that only the kernel sees: the call is begun again.
const ERESTARTSYS: i64 = 512;
const ERESTART_RESTARTBLOCK: i64 = 516;

#[cfg(test)]
mod tests;
