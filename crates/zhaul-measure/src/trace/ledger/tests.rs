//! Scripted events.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::object::Seen;
use super::super::world::{MappedFile, World};
use super::super::{FlowLine, Stack};
use super::*;

/// What is there to be looked at.
#[derive(Default)]
struct Scripted {
    objects: HashMap<(u32, i32), Seen>,
    mappings: Vec<MappedFile>,
    memory: HashMap<u64, Vec<u8>>,
}

impl World for Scripted {
    fn object(&mut self, pid: u32, fd: i32) -> Option<Seen> {
        self.objects.get(&(pid, fd)).cloned()
    }

    fn mappings(&mut self, _: u32) -> Vec<MappedFile> {
        self.mappings.clone()
    }

    fn memory(&mut self, _: u32, address: u64, into: &mut [u8]) -> bool {
        match self.memory.get(&address) {
            Some(bytes) if bytes.len() >= into.len() => {
                into.copy_from_slice(&bytes[..into.len()]);
                true
            }
            _ => false,
        }
    }
}

const PID: u32 = 10;
const TASK: Task = Task { pid: PID, tid: PID };
/// Where the scripts keep their buffer.
const BUFFER: u64 = 0x10_0000;

fn seen(kind: Kind) -> Seen {
    Seen {
        kind,
        ..Seen::default()
    }
}

fn ledger(objects: &[(i32, Kind)]) -> Ledger<Scripted> {
    let mut world = Scripted::default();
    for &(fd, kind) in objects {
        world.objects.insert((PID, fd), seen(kind));
    }
    Ledger::new(world, false)
}

fn call(number: libc::c_long, arguments: &[u64], result: i64) -> Event {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    Event::Call(Call {
        task: TASK,
        number,
        arguments: all,
        result,
        stack: None,
        made: None,
    })
}

fn read(fd: u64, address: u64, bytes: i64) -> Event {
    call(libc::SYS_read, &[fd, address, 1 << 20], bytes)
}

fn write(fd: u64, address: u64, bytes: i64) -> Event {
    call(libc::SYS_write, &[fd, address, 1 << 20], bytes)
}

fn iovecs(vectors: &[(u64, u64)]) -> Vec<u8> {
    let words = vectors.iter().flat_map(|&(start, length)| [start, length]);
    words.flat_map(u64::to_ne_bytes).collect()
}

/// A vectored call whose array lies on the stack.
fn vectored(number: libc::c_long, fd: u64, vectors: &[(u64, u64)], result: i64) -> Event {
    const STACK: u64 = 0x7fff_0000;
    let Event::Call(mut call) = call(number, &[fd, STACK + 64, vectors.len() as u64], result)
    else {
        unreachable!()
    };
    let mut bytes = vec![0; 64];
    bytes.extend(iovecs(vectors));
    call.stack = Some(Stack {
        address: STACK,
        bytes,
    });
    Event::Call(call)
}

fn verdicts(ledger: &Ledger<Scripted>) -> Vec<String> {
    let flows = ledger.summary().flows;
    flows.into_iter().map(|flow| flow.verdict).collect()
}

fn flow(ledger: &Ledger<Scripted>, source: Kind, sink: Kind) -> FlowLine {
    let flows = ledger.summary().flows;
    let mut matching = flows
        .iter()
        .filter(|f| (f.source, f.sink) == (source, sink));
    match (matching.next(), matching.next()) {
        (Some(flow), None) => flow.clone(),
        _ => panic!("not one flow {source:?} to {sink:?}: {flows:#?}"),
    }
}

#[test]
fn read_and_write_of_one_buffer_are_a_flow() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    for _ in 0..10 {
        ledger.take(vec![read(3, BUFFER, 65_536), write(4, BUFFER, 65_536)]);
    }
    assert_eq!(
        verdicts(&ledger),
        ["file → socket: 2.00 CPU copies per byte (read, write); sendfile would make it 0"]
    );
    assert_eq!(flow(&ledger, Kind::File, Kind::Tcp).bytes, 655_360);
    assert_eq!(ledger.summary().copied.value, 1_310_720);
}

#[test]
fn other_addresses_are_no_flow() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.take(vec![read(3, BUFFER, 4096), write(4, BUFFER + 8192, 4096)]);
    assert_eq!(
        flow(&ledger, Kind::File, Kind::Program).copies_per_byte,
        1.0
    );
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).copies_per_byte, 1.0);
}

#[test]
fn a_short_write_and_its_rest_are_one_flow() {
    let mut ledger = ledger(&[(3, Kind::Tcp), (4, Kind::Tcp)]);
    ledger.take(vec![
        read(3, BUFFER, 1000),
        write(4, BUFFER, 300),
        write(4, BUFFER + 300, -i64::from(libc::EAGAIN)),
        write(4, BUFFER + 300, 700),
    ]);
    let flow = flow(&ledger, Kind::Tcp, Kind::Tcp);
    assert_eq!((flow.bytes, flow.copied_bytes), (1000, 2000));
    let summary = ledger.summary();
    let line = summary
        .calls
        .iter()
        .find(|line| line.name == "write")
        .unwrap();
    assert_eq!((line.calls, line.would_block, line.errors), (3, 1, 0));
}

#[test]
fn what_is_sent_often_was_read_once() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.take(vec![read(3, BUFFER, 1000)]);
    for _ in 0..100 {
        ledger.take(vec![write(4, BUFFER, 1000)]);
    }
    assert_eq!(flow(&ledger, Kind::File, Kind::Tcp).copied_bytes, 101_000);
}

#[test]
fn a_header_before_the_body_is_not_taken_for_the_file() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let vectors = [(0x9000, 238), (BUFFER, 32_768)];
    ledger.take(vec![
        call(libc::SYS_pread64, &[3, BUFFER, 32_768, 0], 32_768),
        vectored(libc::SYS_writev, 4, &vectors, 33_006),
    ]);
    let body = flow(&ledger, Kind::File, Kind::Tcp);
    assert_eq!((body.bytes, body.inferred_bytes), (32_768, 0));
    assert_eq!(body.calls, ["pread64", "writev"]);
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).bytes, 238);
}

#[test]
fn vectors_out_of_sight_are_inferred_and_said_to_be() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.take(vec![
        read(3, BUFFER, 5000),
        call(libc::SYS_readv, &[3, 0xdead, 1], 1000),
        call(libc::SYS_writev, &[4, 0xbeef, 1], 1200),
    ]);
    let inferred = flow(&ledger, Kind::File, Kind::Tcp);
    assert_eq!((inferred.bytes, inferred.inferred_bytes), (1000, 1000));
    assert!(
        inferred.verdict.contains("inferred"),
        "{}",
        inferred.verdict
    );
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).bytes, 200);
}

#[test]
fn vectors_too_short_for_the_result_are_not_believed() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.take(vec![
        read(3, BUFFER, 5000),
        vectored(libc::SYS_writev, 4, &[(BUFFER, 100)], 5000),
    ]);
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).bytes, 5000);
}

#[test]
fn a_message_header_on_the_stack_is_followed() {
    const STACK: u64 = 0x7fff_0000;
    let mut ledger = ledger(&[(3, Kind::Tcp), (4, Kind::Tcp)]);
    let mut header = vec![0; 56];
    header[16..24].copy_from_slice(&(STACK + 56).to_ne_bytes());
    header[24..32].copy_from_slice(&1_u64.to_ne_bytes());
    header.extend(iovecs(&[(BUFFER, 4096)]));
    let stack = Some(Stack {
        address: STACK,
        bytes: header,
    });
    let message = |number| {
        let Event::Call(call) = call(
            number,
            &[if number == libc::SYS_recvmsg { 3 } else { 4 }, STACK],
            4000,
        ) else {
            unreachable!()
        };
        let stack = stack.clone();
        Event::Call(Call { stack, ..call })
    };
    ledger.take(vec![message(libc::SYS_recvmsg), message(libc::SYS_sendmsg)]);
    let relayed = flow(&ledger, Kind::Tcp, Kind::Tcp);
    assert_eq!((relayed.bytes, relayed.inferred_bytes), (4000, 0));
    assert!(
        relayed
            .verdict
            .ends_with("(recvmsg, sendmsg); splice would make it 0")
    );
}

#[test]
fn sendfile_to_a_socket_costs_nothing_and_to_a_file_one_copy() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp), (5, Kind::File)]);
    ledger.take(vec![
        call(libc::SYS_sendfile, &[4, 3, 0, 1 << 20], 1 << 20),
        call(libc::SYS_sendfile, &[5, 3, 0, 1 << 20], 1 << 20),
    ]);
    assert_eq!(
        flow(&ledger, Kind::File, Kind::Tcp).verdict,
        "file → socket: 0 CPU copies per byte (sendfile)"
    );
    assert_eq!(flow(&ledger, Kind::File, Kind::File).copies_per_byte, 1.0);
}

#[test]
fn splice_through_a_pipe_joins_the_two_sockets() {
    let mut ledger = ledger(&[(3, Kind::Tcp), (4, Kind::Tcp)]);
    let pipe = |writable| Seen {
        pipe: Some(99),
        writable,
        ..seen(Kind::Pipe)
    };
    ledger.world.objects.insert((PID, 5), pipe(false));
    ledger.world.objects.insert((PID, 6), pipe(true));
    ledger.take(vec![
        call(libc::SYS_splice, &[3, 0, 6, 0, 1 << 20, 0], 70_000),
        call(libc::SYS_splice, &[5, 0, 4, 0, 1 << 20, 0], 40_000),
        call(libc::SYS_splice, &[5, 0, 4, 0, 1 << 20, 0], 30_000),
    ]);
    assert_eq!(
        verdicts(&ledger),
        ["socket → socket: 0 CPU copies per byte (splice)"]
    );
    assert_eq!(ledger.sums().bytes_through, 70_000);
}

#[test]
fn a_pipe_made_and_gone_before_anybody_looked_is_still_one_pipe() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let Event::Call(made) = call(libc::SYS_pipe2, &[0x7fff_0000, 0], 0) else {
        unreachable!()
    };
    let bytes = [7_i32, 8].into_iter().flat_map(i32::to_ne_bytes).collect();
    let stack = Some(Stack {
        address: 0x7fff_0000,
        bytes,
    });
    ledger.take(vec![
        Event::Call(Call { stack, ..made }),
        call(libc::SYS_splice, &[3, 0, 8, 0, 4096, 0], 4096),
        call(libc::SYS_splice, &[7, 0, 4, 0, 4096, 0], 4096),
    ]);
    assert_eq!(flow(&ledger, Kind::File, Kind::Tcp).bytes, 4096);
}

#[test]
fn a_pipe_joins_two_processes_by_its_inode() {
    let other = Task { pid: 11, tid: 11 };
    let mut ledger = ledger(&[(3, Kind::File)]);
    let pipe = Seen {
        pipe: Some(99),
        ..seen(Kind::Pipe)
    };
    ledger.world.objects.insert((PID, 1), pipe.clone());
    ledger.world.objects.insert((11, 0), pipe);
    ledger.world.objects.insert((11, 4), seen(Kind::Tcp));
    let Event::Call(mut out) = call(libc::SYS_splice, &[0, 0, 4, 0, 4096, 0], 4096) else {
        unreachable!()
    };
    out.task = other;
    ledger.take(vec![
        call(libc::SYS_splice, &[3, 0, 1, 0, 4096, 0], 4096),
        Event::Call(out),
    ]);
    assert_eq!(flow(&ledger, Kind::File, Kind::Tcp).bytes, 4096);
}

#[test]
fn writes_out_of_a_mapped_file_come_from_that_file() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let shared = libc::MAP_SHARED as u64;
    ledger.take(vec![
        call(libc::SYS_openat, &[0, 0, 0], 3),
        call(libc::SYS_mmap, &[0, 65_536, 1, shared, 3, 0], BUFFER as i64),
        call(libc::SYS_close, &[3], 0),
        write(4, BUFFER + 100, 60_000),
        call(libc::SYS_munmap, &[BUFFER, 65_536], 0),
        write(4, BUFFER, 500),
    ]);
    assert_eq!(
        flow(&ledger, Kind::File, Kind::Tcp).verdict,
        "file → socket: 1.00 CPU copies per byte (mmap, write); sendfile would make it 0"
    );
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).bytes, 500);
}

#[test]
fn constants_of_a_program_are_not_a_file() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let text = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let private = libc::MAP_PRIVATE as u64;
    ledger.take(vec![
        call(
            libc::SYS_mmap,
            &[0, 65_536, 1, private, 3, 0],
            BUFFER as i64,
        ),
        call(libc::SYS_mmap, &[0, 4096, text, private, 3, 0], 0x4000_0000),
        write(4, BUFFER + 100, 50),
    ]);
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).bytes, 50);
}

#[test]
fn mappings_from_before_are_read_once_and_their_libraries_left_out() {
    let mut ledger = ledger(&[(4, Kind::Tcp)]);
    let mapped = |start: u64, executable, inode| MappedFile {
        range: start..start + 4096,
        executable,
        file: Seen {
            file: Some(FileId {
                device: (8, 1),
                inode,
            }),
            ..seen(Kind::File)
        },
    };
    ledger.world.mappings = vec![
        mapped(0x1000, false, 5),
        mapped(0x2000, true, 6),
        mapped(0x3000, false, 6),
    ];
    ledger.take(vec![write(4, 0x1000, 4096), write(4, 0x3000, 4096)]);
    assert_eq!(flow(&ledger, Kind::File, Kind::Tcp).bytes, 4096);
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).bytes, 4096);
}

#[test]
fn duplicates_share_what_they_refer_to_and_exec_closes_what_it_should() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.take(vec![
        call(libc::SYS_dup2, &[3, 0], 0),
        call(libc::SYS_fcntl, &[4, libc::F_DUPFD_CLOEXEC as u64, 9], 9),
        call(
            libc::SYS_fcntl,
            &[0, libc::F_SETFL as u64, libc::O_DIRECT as u64],
            0,
        ),
        read(3, BUFFER, 4096),
    ]);
    assert_eq!(
        flow(&ledger, Kind::DirectFile, Kind::Program).copied_bytes,
        0
    );
    ledger.world.objects.insert((PID, 9), seen(Kind::Unix));
    ledger.take(vec![
        Event::Exec {
            task: TASK,
            name: "next".to_owned(),
        },
        read(0, BUFFER, 100),
        write(9, BUFFER, 100),
    ]);
    // 0 stayed open, 9 did not and was looked up anew.
    assert_eq!(flow(&ledger, Kind::DirectFile, Kind::Unix).bytes, 100);
}

#[test]
fn a_number_that_is_used_again_is_looked_up_again() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.take(vec![read(3, BUFFER, 10)]);
    ledger.take(vec![
        call(libc::SYS_close, &[3], 0),
        call(
            libc::SYS_socket,
            &[libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0],
            3,
        ),
        read(3, BUFFER, 20),
        write(4, BUFFER, 20),
    ]);
    assert_eq!(flow(&ledger, Kind::Unix, Kind::Tcp).bytes, 20);
}

#[test]
fn what_is_closed_later_in_the_same_events_is_not_looked_up() {
    // By the time of the look, 3 is a socket.
    let mut ledger = ledger(&[(3, Kind::Tcp), (4, Kind::Tcp)]);
    ledger.take(vec![
        call(libc::SYS_openat, &[0, 0, 0], 3),
        call(libc::SYS_sendfile, &[4, 3, 0, 100], 100),
        call(libc::SYS_close, &[3], 0),
    ]);
    assert_eq!(flow(&ledger, Kind::File, Kind::Tcp).bytes, 100);
}

#[test]
fn what_was_not_looked_at_is_said_not_to_be_known() {
    let mut ledger = ledger(&[(4, Kind::Null), (5, Kind::Tcp), (6, Kind::File)]);
    ledger.take(vec![
        call(libc::SYS_openat, &[0, 0, 0], 3),
        read(3, BUFFER, 100),
        write(4, BUFFER, 100),
        call(libc::SYS_close, &[3], 0),
    ]);
    assert_eq!(
        verdicts(&ledger),
        ["file? → /dev/null: 1.00 CPU copies per byte (read, write)"]
    );
    // Where a file was seen to go the same way, it is taken for one.
    ledger.take(vec![
        call(libc::SYS_openat, &[0, 0, 0], 3),
        read(3, BUFFER, 100),
        write(5, BUFFER, 100),
        call(libc::SYS_close, &[3], 0),
        read(6, BUFFER, 50),
        write(5, BUFFER, 50),
    ]);
    let joined = flow(&ledger, Kind::File, Kind::Tcp);
    assert_eq!((joined.bytes, joined.guessed_bytes), (150, 100));
}

#[test]
fn a_duplicate_that_was_looked_at_makes_up_for_its_original() {
    let mut ledger = ledger(&[(4, Kind::Tcp)]);
    let Event::Call(duplicate) = call(libc::SYS_dup2, &[3, 0], 0) else {
        unreachable!()
    };
    let made = Some(Box::new(Seen {
        name: Some("/dev/zero".to_owned()),
        ..seen(Kind::Zero)
    }));
    ledger.take(vec![
        call(libc::SYS_openat, &[0, 0, 0], 3),
        Event::Call(Call { made, ..duplicate }),
        call(libc::SYS_close, &[3], 0),
        read(0, BUFFER, 100),
        write(4, BUFFER, 100),
    ]);
    let flow = flow(&ledger, Kind::Zero, Kind::Tcp);
    assert_eq!((flow.bytes, flow.copied_bytes), (100, 100));
    assert_eq!(flow.sources, ["/dev/zero"]);
}

#[test]
fn a_forked_child_reads_nothing_twice() {
    let child = Task { pid: 11, tid: 11 };
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let Event::Call(mut by_child) = write(4, BUFFER, 4096) else {
        unreachable!()
    };
    by_child.task = child;
    ledger.take(vec![
        read(3, BUFFER, 4096),
        write(4, BUFFER, 1),
        Event::Fork {
            parent: TASK,
            child,
        },
        Event::Call(by_child),
        Event::End { task: child },
    ]);
    let flow = flow(&ledger, Kind::File, Kind::Tcp);
    assert_eq!((flow.bytes, flow.copied_bytes), (4097, 1 + 1 + 4096));
}

#[test]
fn peeking_and_discarding_are_not_moving() {
    let mut ledger = ledger(&[(3, Kind::Tcp)]);
    let peek = libc::MSG_PEEK as u64;
    let discard = libc::MSG_TRUNC as u64;
    ledger.take(vec![
        call(libc::SYS_recvfrom, &[3, BUFFER, 100, peek], 100),
        call(libc::SYS_recvfrom, &[3, 0, 100, discard], 100),
    ]);
    assert_eq!(ledger.sums().bytes_in, 0);
    assert_eq!(ledger.summary().copied.value, 100);
}

#[test]
fn zero_copy_sends_count_as_such_only_where_the_flag_means_something() {
    let mut ledger = ledger(&[]);
    let flag = libc::MSG_ZEROCOPY as u64;
    let socket = call(
        libc::SYS_socket,
        &[libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0],
        3,
    );
    let send = call(libc::SYS_sendto, &[3, BUFFER, 1000, flag], 1000);
    ledger.take(vec![socket, send.clone()]);
    assert_eq!(ledger.summary().copied.value, 1000);
    let option = [3, libc::SOL_SOCKET as u64, libc::SO_ZEROCOPY as u64];
    ledger.take(vec![call(libc::SYS_setsockopt, &option, 0), send]);
    assert_eq!(ledger.summary().copied.value, 1000);
}

#[test]
fn copies_that_are_counted_replace_the_contract() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.exact = true;
    let copied = |way, bytes| Event::Copied {
        task: TASK,
        way,
        bytes,
    };
    ledger.take(vec![
        copied(Way::ToUser, 4096),
        read(3, BUFFER, 4096),
        copied(Way::FromUser, 2048),
        copied(Way::FromUser, 2048),
        copied(Way::Within, 100),
        write(4, BUFFER, 4096),
        copied(Way::ToUser, 16),
        call(libc::SYS_getrandom, &[BUFFER, 16, 0], 16),
    ]);
    let flow = flow(&ledger, Kind::File, Kind::Tcp);
    assert_eq!(
        (flow.copied_bytes, flow.method),
        (8292, crate::Method::Exact)
    );
    assert_eq!(ledger.summary().copied_elsewhere, 16);
}

#[test]
fn a_call_copies_no_more_than_it_moves() {
    let mut ledger = ledger(&[(3, Kind::Tcp), (4, Kind::Pipe)]);
    ledger.exact = true;
    let copied = |way, bytes| Event::Copied {
        task: TASK,
        way,
        bytes,
    };
    // A pipe asks for whole pages, and a second time for the rest of the page.
    ledger.take(vec![
        copied(Way::ToUser, 6),
        read(3, BUFFER, 6),
        copied(Way::FromUser, 4096),
        copied(Way::FromUser, 4090),
        write(4, BUFFER, 6),
    ]);
    assert_eq!(flow(&ledger, Kind::Tcp, Kind::Pipe).copied_bytes, 12);
}

#[test]
fn pages_are_misses_or_hold_what_was_written() {
    let mut ledger = ledger(&[]);
    let id = |inode| FileId {
        device: (8, 1),
        inode,
    };
    for (fd, inode) in [(3, 30), (4, 40)] {
        let file = Some(id(inode));
        let seen = Seen {
            file,
            ..seen(Kind::File)
        };
        ledger.world.objects.insert((PID, fd), seen);
    }
    let added = |inode, pages| Event::PageCacheAdd {
        task: TASK,
        file: id(inode),
        pages,
    };
    ledger.take(vec![
        added(30, 32),
        added(40, 16),
        call(libc::SYS_copy_file_range, &[3, 0, 4, 0, 65_536, 0], 65_536),
        added(30, 8),
        read(3, BUFFER, 4096),
    ]);
    let summary = ledger.summary();
    assert_eq!((summary.pages_missed, summary.pages_written), (40, 16));
}

#[test]
fn shared_blocks_are_told_from_copies_by_the_pages_they_fill() {
    let mut ledger = ledger(&[(3, Kind::File)]);
    let sink = Seen {
        shares_blocks: true,
        ..seen(Kind::File)
    };
    ledger.world.objects.insert((PID, 4), sink);
    ledger.take(vec![call(
        libc::SYS_copy_file_range,
        &[3, 0, 4, 0, 65_536, 0],
        65_536,
    )]);
    assert_eq!(
        verdicts(&ledger),
        ["file → file: 0 CPU copies per byte (copy_file_range)"]
    );
}

#[test]
fn after_a_loss_nothing_is_linked_by_guess() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    ledger.take(vec![
        read(3, BUFFER, 4096),
        Event::Lost { records: 7 },
        write(4, BUFFER, 4096),
    ]);
    assert_eq!(flow(&ledger, Kind::File, Kind::Program).bytes, 4096);
    assert_eq!(flow(&ledger, Kind::Program, Kind::Tcp).bytes, 4096);
    assert_eq!(ledger.summary().lost, 7);
}

#[test]
fn an_exit_without_its_beginning_is_counted_and_not_guessed() {
    let mut ledger = ledger(&[(3, Kind::File)]);
    let exit = |number| Event::Exit {
        task: TASK,
        number,
        result: 4096,
        stack: None,
    };
    let arguments = [3, BUFFER, 4096, 0, 0, 0];
    ledger.take(vec![
        exit(libc::SYS_read),
        Event::Enter {
            task: TASK,
            number: libc::SYS_read,
            arguments,
        },
        exit(libc::SYS_read),
    ]);
    assert_eq!(ledger.headless_calls, 1);
    assert_eq!(ledger.sums().bytes_in, 4096);
}

proptest! {
    /// Whatever is read, written, spliced and lost: each copy is in exactly one flow.
    #[test]
    fn every_copy_belongs_to_one_flow(script in proptest::collection::vec((0..8_u8, 0..64_u64, 1..5000_i64), 0..200)) {
        let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp), (5, Kind::Unix)]);
        for (fd, writable) in [(6, true), (7, false)] {
            let pipe = Seen { pipe: Some(1), writable, ..seen(Kind::Pipe) };
            ledger.world.objects.insert((PID, fd), pipe);
        }
        for (what, place, bytes) in script {
            let at = BUFFER + place * 512;
            ledger.take(vec![match what {
                0 => read(3, at, bytes),
                1 => read(4, at, bytes),
                2 => write(5, at, bytes),
                3 => call(libc::SYS_splice, &[3, 0, 6, 0, 1 << 20, 0], bytes),
                4 => call(libc::SYS_splice, &[7, 0, 4, 0, 1 << 20, 0], bytes),
                5 => read(7, at, bytes),
                6 => write(6, at, bytes),
                _ => call(libc::SYS_munmap, &[at & !4095, 4096], 0),
            }]);
        }
        let summary = ledger.summary();
        let in_flows: u64 = summary.flows.iter().map(|flow| flow.copied_bytes).sum();
        prop_assert_eq!(in_flows, summary.copied.value);
    }
}
