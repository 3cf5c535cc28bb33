//! Calls that change what a descriptor or an address refers to.

use std::ops::Range;
use std::rc::Rc;

use super::super::calls::{Followed, Role, followed};
use super::super::event::Call;
use super::super::object::{Kind, Object, PipeId, Seen};
use super::super::process::Descriptor;
use super::super::world::World;
use super::Ledger;

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
            let object = Rc::clone(&descriptor.object);
            if !object.is_guessed() {
                return object;
            }
            return match self.look(pid, fd).filter(has_path) {
                Some(seen) => self.adopt(pid, fd, seen),
                None => object,
            };
        }
        let seen = self.look(pid, fd).unwrap_or_default();
        self.adopt(pid, fd, seen)
    }

    /// Looks at the process, unless what is asked about is gone for certain.
    fn look(&mut self, pid: u32, fd: i32) -> Option<Seen> {
        if self
            .closed_at
            .get(&(pid, fd))
            .is_some_and(|&at| at > self.at)
        {
            return None;
        }
        self.world.object(pid, fd)
    }

    /// The length of a file at this moment.
    pub(super) fn file_bytes(&mut self, pid: u32, fd: i32) -> Option<u64> {
        self.look(pid, fd)?.bytes
    }

    fn adopt(&mut self, pid: u32, fd: i32, seen: Seen) -> Rc<Object> {
        let cloexec = seen.cloexec;
        let object = Rc::new(Object::from(seen));
        self.set(pid, fd, Rc::clone(&object), cloexec);
        object
    }

    fn set(&mut self, pid: u32, fd: i32, object: Rc<Object>, cloexec: bool) {
        let descriptor = Descriptor { object, cloexec };
        self.process(pid).descriptors.insert(fd, descriptor);
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
                self.set(pid, made, Object::of(Kind::Memfd), cloexec);
            }
            Role::Socket => {
                let kind = socket_kind(arguments[0], arguments[1], arguments[2]);
                self.set(pid, made, Object::socket(kind), has_cloexec(arguments[1]));
            }
            Role::Accept(flags) => {
                let listener = self.object(pid, fd(arguments[0]));
                let cloexec = flags.is_some_and(|index| has_cloexec(arguments[index]));
                self.set(pid, made, Object::accepted_from(&listener), cloexec);
            }
            Role::Socketpair => self.made_pair(call, arguments[3], |fds, ledger| {
                let kind = socket_kind(arguments[0], arguments[1], arguments[2]);
                let cloexec = has_cloexec(arguments[1]);
                for fd in fds {
                    ledger.set(pid, fd, Object::socket(kind), cloexec);
                }
            }),
            Role::Pipe => self.made_pair(call, arguments[0], |fds, ledger| {
                let cloexec = call.number == libc::SYS_pipe2 && has_cloexec(arguments[1]);
                ledger.made_pipe(pid, fds, cloexec);
            }),
            Role::Dup => {
                let cloexec = call.number == libc::SYS_dup3 && has_cloexec(arguments[2]);
                self.duplicated(call, cloexec);
            }
            Role::Fcntl => self.fcntl(call),
            Role::Close => {
                self.process(pid).descriptors.remove(&fd(arguments[0]));
            }
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
            Role::Setsockopt => self.setsockopt(call),
            Role::Ioctl => self.ioctl(call),
            _ => {}
        }
    }

    /// A path was opened. If it is gone by now, it was something with a path: most likely a file.
    fn opened(&mut self, call: &Call, flags: Option<u64>) {
        let (pid, made) = (call.task.pid, call.result as i32);
        let direct = flags.is_some_and(|flags| flags & libc::O_DIRECT as u64 != 0);
        match call.made.as_deref().filter(|seen| has_path(seen)).cloned() {
            Some(seen) => drop(self.adopt(pid, made, seen)),
            None => {
                let cloexec = flags.is_some_and(has_cloexec);
                self.set(pid, made, Object::opened(direct), cloexec);
            }
        }
    }

    /// The original may have been closed before it could be looked at, and the duplicate not.
    fn duplicated(&mut self, call: &Call, cloexec: bool) {
        let (pid, made) = (call.task.pid, call.result as i32);
        let object = self.object(pid, fd(call.arguments[0]));
        let seen = call.made.as_deref().filter(|seen| has_path(seen));
        match seen.filter(|_| object.is_guessed()).cloned() {
            Some(seen) => drop(self.adopt(pid, made, seen)),
            None => self.set(pid, made, object, cloexec),
        }
    }

    /// Two descriptors were stored at this address.
    fn made_pair(&mut self, call: &Call, at: u64, then: impl FnOnce([i32; 2], &mut Self)) {
        let Some((bytes, _)) = self.arguments_at(call, at, 8) else {
            return;
        };
        let word = |at: usize| {
            i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let fds = [word(0), word(4)];
        if fds.iter().all(|&fd| (0..FD_LIMIT).contains(&fd)) && fds[0] != fds[1] {
            then(fds, self);
        }
    }

    fn made_pipe(&mut self, pid: u32, fds: [i32; 2], cloexec: bool) {
        let inode = fds.iter().find_map(|&fd| self.look(pid, fd)?.pipe);
        let id = inode.map_or_else(
            || {
                self.pipes_made += 1;
                PipeId::Made(self.pipes_made)
            },
            PipeId::Inode,
        );
        for (fd, writable) in fds.into_iter().zip([false, true]) {
            self.set(pid, fd, Object::pipe(id, writable), cloexec);
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
        let descriptors = &mut self.process(call.task.pid).descriptors;
        if flags & u64::from(libc::CLOSE_RANGE_CLOEXEC) == 0 {
            descriptors.retain(|&fd, _| !range.contains(&fd.cast_unsigned()));
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
        if protection & libc::PROT_EXEC as u64 != 0 {
            file.set_image();
        }
        file.confirm();
        let mappable = [Kind::File, Kind::DirectFile, Kind::BlockDevice];
        if mappable.contains(&file.kind()) {
            self.process(pid).mappings.map(range, file);
        }
    }

    fn unmap(&mut self, pid: u32, range: Range<u64>) {
        let process = self.process(pid);
        process.mappings.unmap(range.clone());
        let unsent = process.inputs.clear(range);
        self.stayed(unsent);
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
/// More descriptors than any process has.
const FD_LIMIT: i32 = 1 << 30;
