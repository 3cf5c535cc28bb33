//! What the ledger is told.

use super::object::Seen;

/// A thread of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    /// The process (thread group).
    pub pid: u32,
    /// The thread.
    pub tid: u32,
}

/// A piece of a thread's stack as it was when its call returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// The address of the first byte: the stack pointer.
    pub address: u64,
    /// From there upwards.
    pub bytes: Vec<u8>,
}

impl Stack {
    /// `length` bytes at `address`, if all of them are there.
    pub(crate) fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(address.checked_sub(self.address)?).ok()?;
        self.bytes.get(from..from.checked_add(length)?)
    }
}

/// A system call that has returned.
#[derive(Clone, Debug)]
pub struct Call {
    /// Whose.
    pub task: Task,
    /// The number of the call.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// What it returned: -errno for a failure.
    pub result: i64,
    /// The caller's stack, where part of the arguments may lie.
    pub stack: Option<Stack>,
    /// The descriptor that it returned, looked at as soon as the record was seen. If it had been
    /// closed by then, a later event says so.
    pub made: Option<Box<Seen>>,
}

/// From where to where the CPU copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the kernel into the program's memory.
    ToUser,
    /// From the program's memory into the kernel.
    FromUser,
    /// Within the kernel.
    Within,
}

/// An event, and when it happened by `CLOCK_MONOTONIC`, in nanoseconds.
pub type Timed = (u64, Event);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A call began. Needed only where the arguments are gone by its end.
    Enter {
        /// Whose.
        task: Task,
        /// The number of the call.
        number: i64,
        /// Its arguments.
        arguments: [u64; 6],
    },
    /// A call that began with [`Event::Enter`] returned.
    Exit {
        /// Whose.
        task: Task,
        /// The number of the call.
        number: i64,
        /// What it returned.
        result: i64,
        /// The caller's stack.
        stack: Option<Stack>,
    },
    /// A call returned whose arguments are known.
    Call(Call),
    /// A process or thread was made.
    Fork {
        /// By whom.
        parent: Task,
        /// The new one.
        child: Task,
    },
    /// A process runs another program from now on.
    Exec {
        /// Which.
        task: Task,
        /// The new program's name.
        name: String,
    },
    /// A thread ended.
    End {
        /// Which.
        task: Task,
    },
    /// The CPU copied bytes on behalf of this thread: exact.
    Copied {
        /// Whose.
        task: Task,
        /// From where to where.
        way: Way,
        /// How many.
        bytes: u64,
    },
    /// Pages were added to the page cache.
    PageCacheAdd {
        /// By whom.
        task: Task,
        /// The file, as the tracepoint names it.
        file: super::object::FileId,
        /// How many pages.
        pages: u64,
    },
    /// A packet was given to a network device.
    Transmit {
        /// Who was running: a traced thread, or somebody else.
        task: Option<Task>,
        /// The device's name.
        device: String,
        /// Bytes of the packet, headers included.
        bytes: u64,
        /// Bytes of it in page fragments.
        gathered: u64,
    },
    /// A request was given to a block device.
    BlockRequest {
        /// Who was running: a traced thread, or somebody else.
        task: Option<Task>,
        /// Major and minor number.
        device: (u32, u32),
        /// How many bytes.
        bytes: u64,
        /// To the device.
        write: bool,
    },
    /// The kernel dropped records because they came too fast.
    Lost {
        /// How many.
        records: u64,
    },
    /// The kernel dropped records about devices: figures of devices are too low.
    LostOfDevices {
        /// How many.
        records: u64,
    },
}
