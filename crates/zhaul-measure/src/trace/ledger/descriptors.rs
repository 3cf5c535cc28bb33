//! Calls that change what a descriptor or an address refers to.

use std::ops::Range;
use std::rc::Rc;

use super::super::calls::{Followed, Role, followed};
use super::super::event::{Call, Task};
use super::super::fit::By;
use super::super::object::{Kind, Object, PipeId, Seen};
use super::super::process::Descriptor;
use super::super::world::World;
use super::Ledger;
use super::transfers::FICLONE;

/// The descriptor that a successful call makes and that is worth a look while it is open.
pub(in super::super) fn makes(call: &Call) -> Option<(u32, i32)> {
    if call.result < 0 {
        return None;
    }
    let duplicates = matches!(
        call.arguments[1] as i32,
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC
    );
    match followed(call.number)?.role {
        Role::Open(_) | Role::Dup => {}
        Role::Fcntl if duplicates => {}
        _ => return None,
    }
    Some((call.task.pid, call.result as i32))
}

/// The descriptor that a successful call closes, possibly to use its number again.
pub(in super::super) fn closes(call: &Call) -> Option<(u32, i32)> {
    if call.result < 0 {
        return None;
    }
    match followed(call.number)?.role {
        Role::Close => Some((call.task.pid, fd(call.arguments[0]))),
        // dup2 and dup3: their result is the number that was asked for.
        Role::Dup if call.number != libc::SYS_dup => Some((call.task.pid, call.result as i32)),
        _ => None,
    }
}

/// A descriptor as the kernel takes it out of a register: its lower half.
pub(super) const fn fd(argument: u64) -> i32 {
    argument as i32
}

impl<W: World> Ledger<W> {
    /// The process has this descriptor.
    pub fn know(&mut self, pid: u32, fd: i32, seen: Seen) {
        self.adopt(pid, fd, seen);
    }

    /// What a descriptor refers to. Looked up once, unless the events say.
    pub(super) fn object(&mut self, pid: u32, fd: i32) -> Rc<Object> {
        if let Some(descriptor) = self.process(pid).descriptors.get(&fd) {
            return Rc::clone(&descriptor.object);
        }
        let seen = self.world.object(pid, fd).unwrap_or_default();
        self.adopt(pid, fd, seen)
    }

    /// The length of a file at this moment.
    pub(super) fn file_bytes(&mut self, pid: u32, fd: i32) -> Option<u64> {
        self.world.object(pid, fd)?.bytes
    }

    fn adopt(&mut self, pid: u32, fd: i32, seen: Seen) -> Rc<Object> {
        let cloexec = seen.cloexec;
        let object = Object::looked_at(pid, fd, seen);
        let descriptor = Descriptor::of(Rc::clone(&object), cloexec);
        self.process(pid).descriptors.insert(fd, descriptor);
        object
    }

    /// A call made this descriptor.
    fn set(&mut self, call: &Call, fd: i32, object: Rc<Object>, cloexec: bool) {
        let (pid, now_ns) = (call.task.pid, self.now_ns);
        let made = Descriptor {
            maker: call.task.tid,
            ..Descriptor::of(object, cloexec)
        };
        let descriptors = &mut self.process(pid).descriptors;
        let Some(before) = descriptors.insert(fd, made) else {
            return;
        };
        before.object.closed(pid, fd, now_ns);
        if closes(call).is_none()
            && let Some(made) = descriptors.get_mut(&fd)
        {
            made.took_over_ns = Some(now_ns);
        }
    }

    /// A number was given free. If another thread got it before this call returned, what it has now
    /// stays.
    fn closed(&mut self, task: Task, fd: i32) {
        let now_ns = self.now_ns;
        let descriptors = &mut self.process(task.pid).descriptors;
        let Some(descriptor) = descriptors.get_mut(&fd) else {
            return;
        };
        let took_over_ns = descriptor.took_over_ns.take();
        let is_late = took_over_ns.is_some_and(|ns| now_ns.saturating_sub(ns) < CLOSE_NS);
        if is_late && descriptor.maker != task.tid {
            return;
        }
        descriptor.object.closed(task.pid, fd, now_ns);
        descriptors.remove(&fd);
    }

    /// A call that another way of moving bytes is made of failed, and will fail again.
    pub(super) fn refused(&mut self, call: &Call, role: Role) {
        let [first, second, third, ..] = call.arguments;
        let (by, source, sink) = match role {
            Role::Sendfile => (By::Sendfile, second, first),
            Role::Splice => (By::Splice, first, third),
            Role::CopyFileRange => (By::CopyFileRange, first, third),
            Role::Ioctl if second as u32 == FICLONE => (By::Reflink, third, first),
            _ => return,
        };
        if !is_final(-call.result) {
            return;
        }
        let (source, sink) = (
            self.object(call.task.pid, fd(source)),
            self.object(call.task.pid, fd(sink)),
        );
        self.refusals.add(by, source, sink);
    }

    /// A successful call that moves no data.
    pub(super) fn bookkeeping(&mut self, call: &Call, known: &Followed) {
        let pid = call.task.pid;
        let arguments = &call.arguments;
        let made = call.result as i32;
        match known.role {
            Role::Open(flags) => self.opened(call, flags.map(|index| arguments[index])),
            Role::Memfd => {
                let cloexec = arguments[1] & u64::from(libc::MFD_CLOEXEC) != 0;
                self.set(call, made, Object::of(Kind::Memfd), cloexec);
            }
            Role::Socket => {
                let kind = socket_kind(arguments[0], arguments[1], arguments[2]);
                self.set(call, made, Object::socket(kind), has_cloexec(arguments[1]));
            }
            Role::Accept(flags) => {
                let listener = self.object(pid, fd(arguments[0]));
                let cloexec = flags.is_some_and(|index| has_cloexec(arguments[index]));
                self.set(call, made, Object::accepted_from(&listener), cloexec);
            }
            Role::Socketpair => self.made_pair(call, arguments[3], is_socket, |fds, ledger| {
                let kind = socket_kind(arguments[0], arguments[1], arguments[2]);
                let cloexec = has_cloexec(arguments[1]);
                for fd in fds {
                    ledger.set(call, fd, Object::socket(kind), cloexec);
                }
            }),
            Role::Pipe => self.made_pair(call, arguments[0], is_pipe, |fds, ledger| {
                let cloexec = call.number == libc::SYS_pipe2 && has_cloexec(arguments[1]);
                ledger.made_pipe(call, fds, cloexec);
            }),
            Role::Dup => {
                let cloexec = call.number == libc::SYS_dup3 && has_cloexec(arguments[2]);
                self.duplicated(call, cloexec);
            }
            Role::Fcntl => self.fcntl(call),
            Role::Close => self.closed(call.task, fd(arguments[0])),
            Role::CloseRange => self.close_range(call),
            Role::Mmap => self.mmap(call),
            Role::Munmap => self.unmap(pid, span(arguments[0], arguments[1])),
            Role::Mremap => {
                let from = span(arguments[0], arguments[1]);
                let to = span(call.result as u64, arguments[2]);
                let process = self.process(pid);
                process.mappings.remap(from.clone(), to.clone());
                let mut unsent = process.inputs.clear(from);
                unsent.extend(process.inputs.clear(to));
                self.stayed(unsent);
            }
            Role::Brk => {
                let before = std::mem::replace(&mut self.process(pid).heap_end, call.result as u64);
                self.overwritten(pid, call.result as u64..before);
            }
            Role::Madvise => match arguments[2] as i32 {
                libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_REMOVE => {
                    self.overwritten(pid, span(arguments[0], arguments[1]));
                }
                _ => {}
            },
            Role::Fill(index) => {
                let start = arguments[index];
                self.overwritten(pid, start..start.saturating_add(call.result as u64));
            }
            Role::Setsockopt => self.setsockopt(call),
            Role::Ioctl => self.ioctl(call),
            _ => {}
        }
    }

    /// Something else is in this range from now on.
    pub(super) fn overwritten(&mut self, pid: u32, range: Range<u64>) {
        if range.start < range.end {
            let unsent = self.process(pid).inputs.clear(range);
            self.stayed(unsent);
        }
    }

    /// A path was opened. If nobody could look at it, it was something with a path: most likely a
    /// file.
    fn opened(&mut self, call: &Call, flags: Option<u64>) {
        let (pid, made) = (call.task.pid, call.result as i32);
        let direct = flags.is_some_and(|flags| flags & libc::O_DIRECT as u64 != 0);
        let object = Object::opened(direct);
        let seen = call.made.as_deref().filter(|seen| has_path(seen)).cloned();
        let seen_cloexec = seen.as_ref().is_some_and(|seen| seen.cloexec);
        if let Some(seen) = seen {
            object.add_look(pid, made, seen);
        }
        let cloexec = flags.map_or(seen_cloexec, has_cloexec);
        self.set(call, made, object, cloexec);
    }

    /// The original may have been closed before it could be looked at, and the duplicate not.
    fn duplicated(&mut self, call: &Call, cloexec: bool) {
        let (pid, made) = (call.task.pid, call.result as i32);
        let object = self.object(pid, fd(call.arguments[0]));
        if made == fd(call.arguments[0]) {
            return;
        }
        if let Some(seen) = call.made.as_deref().filter(|seen| has_path(seen)) {
            object.add_look(pid, made, seen.clone());
        }
        self.set(call, made, object, cloexec);
    }

    /// Two descriptors were stored at this address. If that is read late, something else may be
    /// there by now.
    fn made_pair(
        &mut self,
        call: &Call,
        at: u64,
        what: fn(&Seen) -> bool,
        then: impl FnOnce([i32; 2], &mut Self),
    ) {
        let Some((bytes, late)) = self.arguments_at(call, at, 8) else {
            return;
        };
        let word = |at: usize| {
            i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let fds = [word(0), word(4)];
        if fds.iter().any(|fd| !(0..FD_LIMIT).contains(fd)) || fds[0] == fds[1] {
            return;
        }
        if late {
            for fd in fds {
                if let Some(seen) = self.world.object(call.task.pid, fd).filter(what) {
                    self.adopt(call.task.pid, fd, seen);
                }
            }
            return;
        }
        then(fds, self);
    }

    fn made_pipe(&mut self, call: &Call, fds: [i32; 2], cloexec: bool) {
        self.pipes_made += 1;
        let id = PipeId::Made(self.pipes_made);
        for (fd, writable) in fds.into_iter().zip([false, true]) {
            self.set(call, fd, Object::pipe(id, writable), cloexec);
        }
    }

    fn fcntl(&mut self, call: &Call) {
        let pid = call.task.pid;
        let number = fd(call.arguments[0]);
        match call.arguments[1] as i32 {
            command @ (libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => {
                self.duplicated(call, command == libc::F_DUPFD_CLOEXEC);
            }
            libc::F_SETFD => {
                let cloexec = call.arguments[2] & libc::FD_CLOEXEC as u64 != 0;
                if let Some(descriptor) = self.process(pid).descriptors.get_mut(&number) {
                    descriptor.cloexec = cloexec;
                }
            }
            libc::F_SETFL => {
                let direct = call.arguments[2] & libc::O_DIRECT as u64 != 0;
                self.object(pid, number).set_direct(direct);
            }
            _ => {}
        }
    }

    fn close_range(&mut self, call: &Call) {
        let [first, last, flags, ..] = call.arguments;
        let range = first as u32..=last as u32;
        let (pid, now_ns) = (call.task.pid, self.now_ns);
        let descriptors = &mut self.process(pid).descriptors;
        if flags & u64::from(libc::CLOSE_RANGE_CLOEXEC) == 0 {
            let closed = descriptors.extract_if(|fd, _| range.contains(&fd.cast_unsigned()));
            for (fd, descriptor) in closed {
                descriptor.object.closed(pid, fd, now_ns);
            }
            return;
        }
        for (fd, descriptor) in descriptors {
            descriptor.cloexec |= range.contains(&fd.cast_unsigned());
        }
    }

    fn mmap(&mut self, call: &Call) {
        let pid = call.task.pid;
        let [_, length, protection, flags, number, _] = call.arguments;
        let range = span(call.result as u64, length);
        self.unmap(pid, range.clone());
        let anonymous = flags & libc::MAP_ANONYMOUS as u64 != 0;
        if anonymous || fd(number) < 0 {
            return;
        }
        let file = self.object(pid, fd(number));
        file.confirm();
        if protection & libc::PROT_EXEC as u64 != 0 {
            // What the loader read of it were headers.
            file.set_image();
            let read = self.process(pid).inputs.forget(&file);
            self.stayed(read);
        }
        let shared = flags & libc::MAP_TYPE as u64 != libc::MAP_PRIVATE as u64;
        let writable = libc::PROT_WRITE as u64;
        self.shared_mappings += u64::from(shared && file.kind() == Kind::File);
        if !shared && protection & writable != 0 {
            // The program may change what it sees there, and the file stays as it is.
            return;
        }
        let mappable = [Kind::File, Kind::DirectFile, Kind::BlockDevice];
        if mappable.contains(&file.kind()) {
            self.process(pid).mappings.map(range, file);
        }
    }

    fn unmap(&mut self, pid: u32, range: Range<u64>) {
        self.process(pid).mappings.unmap(range.clone());
        self.overwritten(pid, range);
    }

    fn setsockopt(&mut self, call: &Call) {
        let socket = fd(call.arguments[0]);
        match (call.arguments[1] as i32, call.arguments[2] as i32) {
            (libc::SOL_SOCKET, libc::SO_ZEROCOPY) => {
                self.object(call.task.pid, socket).set_zerocopy();
            }
            (libc::SOL_TLS, _) => self.object(call.task.pid, socket).set_tls(),
            _ => {}
        }
    }

    /// Bytes of a call's arguments that lie in the program's memory, and whether they were read
    /// later than the call.
    pub(super) fn arguments_at(
        &mut self,
        call: &Call,
        address: u64,
        length: usize,
    ) -> Option<(Vec<u8>, bool)> {
        let on_stack = call.stack.as_ref().and_then(|s| s.read(address, length));
        if let Some(bytes) = on_stack {
            return Some((bytes.to_vec(), false));
        }
        let mut bytes = vec![0; length];
        self.world
            .memory(call.task.pid, address, &mut bytes)
            .then_some((bytes, true))
    }
}

/// What was opened by a path has one; else another descriptor has its number by now.
fn has_path(seen: &Seen) -> bool {
    !seen.kind.is_socket() && seen.kind != Kind::Event
}

fn is_pipe(seen: &Seen) -> bool {
    seen.kind == Kind::Pipe
}

fn is_socket(seen: &Seen) -> bool {
    seen.kind.is_socket()
}

/// Whether a call that failed so would fail again between ends of the same kind: it is not a matter
/// of memory, space, signals, or of what the peer did.
fn is_final(errno: i64) -> bool {
    let errno = i32::try_from(errno).unwrap_or(0);
    matches!(
        errno,
        libc::EXDEV
            | libc::EINVAL
            | libc::EOPNOTSUPP
            | libc::ENOTTY
            | libc::ENOSYS
            | libc::EPERM
            | libc::EBADF
            | libc::ETXTBSY
    )
}

/// The pages of a mapping.
fn span(address: u64, length: u64) -> Range<u64> {
    let page = rustix::param::page_size() as u64;
    address..address.saturating_add(length.next_multiple_of(page))
}

/// SOCK_CLOEXEC and MFD-like flags are O_CLOEXEC.
const fn has_cloexec(flags: u64) -> bool {
    flags & libc::O_CLOEXEC as u64 != 0
}

/// By the arguments of `socket(2)`.
const fn socket_kind(domain: u64, kind: u64, protocol: u64) -> Kind {
    let stream = kind as i32 & SOCK_TYPE_MASK == libc::SOCK_STREAM;
    let datagram = kind as i32 & SOCK_TYPE_MASK == libc::SOCK_DGRAM;
    match domain as i32 {
        libc::AF_UNIX => Kind::Unix,
        libc::AF_INET | libc::AF_INET6
            if stream && matches!(protocol as i32, 0 | libc::IPPROTO_TCP) =>
        {
            Kind::Tcp
        }
        libc::AF_INET | libc::AF_INET6 if datagram => Kind::Udp,
        _ => Kind::Socket,
    }
}

const SOCK_TYPE_MASK: i32 = 0xf;
/// From the time when a number is free to the return of the call that gave it free.
const CLOSE_NS: u64 = 10_000_000;
/// More descriptors than any process has.
const FD_LIMIT: i32 = 1 << 30;
