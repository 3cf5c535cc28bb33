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
    unchanged: Option<bool>,
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

    fn unchanged(&mut self, _: &Object, _: &Object) -> Option<bool> {
        self.unchanged
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

/// Events one after the other, a nanosecond apart.
fn take(ledger: &mut Ledger<Scripted>, events: Vec<Event>) {
    let first = ledger.now_ns + 1;
    ledger.take((first..).zip(events).collect());
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

fn verdicts(ledger: &mut Ledger<Scripted>) -> Vec<String> {
    let flows = ledger.summary().flows;
    flows.into_iter().map(|flow| flow.verdict).collect()
}

fn flow(ledger: &mut Ledger<Scripted>, source: Kind, sink: Kind) -> FlowLine {
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
        take(
            &mut ledger,
            vec![read(3, BUFFER, 65_536), write(4, BUFFER, 65_536)],
        );
    }
    assert_eq!(
        verdicts(&mut ledger),
        [
            "file → socket: 2.00 CPU copies per byte (read, write); sendfile would make it 0 if the \
             program does not change them"
        ]
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 655_360);
    assert_eq!(ledger.summary().copied.value, 1_310_720);
}

#[test]
fn other_addresses_are_no_flow() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    take(
        &mut ledger,
        vec![read(3, BUFFER, 4096), write(4, BUFFER + 8192, 4096)],
    );
    assert_eq!(
        flow(&mut ledger, Kind::File, Kind::Program).copies_per_byte,
        Some(1.0)
    );
    assert_eq!(
        flow(&mut ledger, Kind::Program, Kind::Tcp).copies_per_byte,
        Some(1.0)
    );
}

#[test]
fn a_short_write_and_its_rest_are_one_flow() {
    let mut ledger = ledger(&[(3, Kind::Tcp), (4, Kind::Tcp)]);
    take(
        &mut ledger,
        vec![
            read(3, BUFFER, 1000),
            write(4, BUFFER, 300),
            write(4, BUFFER + 300, -i64::from(libc::EAGAIN)),
            write(4, BUFFER + 300, 700),
        ],
    );
    let flow = flow(&mut ledger, Kind::Tcp, Kind::Tcp);
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
fn what_is_sent_often_was_read_once_and_the_rest_is_unknown() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    take(&mut ledger, vec![read(3, BUFFER, 1000)]);
    for _ in 0..100 {
        take(&mut ledger, vec![write(4, BUFFER, 4000)]);
    }
    let from_file = flow(&mut ledger, Kind::File, Kind::Tcp);
    assert_eq!((from_file.bytes, from_file.copied_bytes), (1000, 2000));
    assert_eq!(flow(&mut ledger, Kind::Unknown, Kind::Tcp).bytes, 99_000);
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 300_000);
    assert_eq!(ledger.summary().unknown_bytes, 99_000);
}

#[test]
fn whatever_is_put_into_a_buffer_replaces_what_was_there() {
    let news = (5, Kind::Event);
    let peek = libc::MSG_PEEK as u64;
    let dontneed = libc::MADV_DONTNEED as u64;
    for overwrites in [
        read(5, BUFFER, 4096),
        call(libc::SYS_recvfrom, &[4, BUFFER, 4096, peek], 4096),
        call(libc::SYS_getrandom, &[BUFFER, 4096, 0], 4096),
        call(libc::SYS_getdents64, &[6, BUFFER, 4096], 4096),
        call(libc::SYS_madvise, &[BUFFER, 4096, dontneed], 0),
        call(libc::SYS_munmap, &[BUFFER, 4096], 0),
        vectored(libc::SYS_readv, 4, &[(BUFFER, 1), (BUFFER + 1, 4095)], 4096),
    ] {
        let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp), news]);
        let said = format!("{overwrites:?}");
        take(
            &mut ledger,
            vec![read(3, BUFFER, 4096), overwrites, write(4, BUFFER, 4096)],
        );
        let flows = ledger.summary().flows;
        let joined = flows
            .iter()
            .any(|f| (f.source, f.sink) == (Kind::File, Kind::Tcp));
        assert!(!joined, "{said}: {flows:#?}");
    }
}

#[test]
fn a_heap_that_shrinks_takes_its_buffers_along() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let brk = |end: u64| call(libc::SYS_brk, &[end], end as i64);
    take(
        &mut ledger,
        vec![
            brk(BUFFER + 8192),
            read(3, BUFFER, 8192),
            brk(BUFFER + 4096),
            brk(BUFFER + 8192),
            write(4, BUFFER, 8192),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 4096);
}

#[test]
fn a_part_that_is_overwritten_is_not_sent_as_what_it_was() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp), (5, Kind::Unix)]);
    take(
        &mut ledger,
        vec![
            read(3, BUFFER, 4096),
            read(5, BUFFER + 1000, 96),
            write(4, BUFFER, 4096),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 4000);
    assert_eq!(flow(&mut ledger, Kind::Unix, Kind::Tcp).bytes, 96);
}

#[test]
fn what_the_loader_reads_of_a_library_goes_nowhere() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::File)]);
    let text = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let private = libc::MAP_PRIVATE as u64;
    take(
        &mut ledger,
        vec![
            call(libc::SYS_openat, &[0, 0, 0], 3),
            read(3, BUFFER, 832),
            call(libc::SYS_mmap, &[0, 4096, text, private, 3, 0], 0x4000_0000),
            call(libc::SYS_close, &[3], 0),
            write(4, BUFFER, 832),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::File).bytes, 832);
}

#[test]
fn a_mapping_that_the_program_may_change_is_not_the_file() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let private = libc::MAP_PRIVATE as u64;
    take(
        &mut ledger,
        vec![
            call(
                libc::SYS_mmap,
                &[0, 4096, writable, private, 3, 0],
                BUFFER as i64,
            ),
            write(4, BUFFER, 4096),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 4096);
}

fn file(inode: u64, name: &str) -> Seen {
    Seen {
        name: Some(name.to_owned()),
        file: Some(FileId {
            device: (8, 1),
            inode,
        }),
        ..seen(Kind::File)
    }
}

/// Two files of one file system, read and written through one buffer.
fn copying(unchanged: Option<bool>) -> Ledger<Scripted> {
    let mut ledger = ledger(&[]);
    ledger.world.objects.insert((PID, 3), file(3, "/a"));
    ledger.world.objects.insert((PID, 4), file(4, "/b"));
    ledger.world.unchanged = unchanged;
    ledger
}

#[test]
fn advice_for_files_waits_for_what_a_comparison_says() {
    for (unchanged, advice) in [
        (Some(true), Some("copy_file_range would make it 1")),
        (Some(false), None),
        (None, None),
    ] {
        let mut ledger = copying(unchanged);
        take(
            &mut ledger,
            vec![read(3, BUFFER, 4096), write(4, BUFFER, 4096)],
        );
        let flow = flow(&mut ledger, Kind::File, Kind::File);
        assert_eq!(
            (flow.unchanged, flow.advice.as_deref()),
            (unchanged, advice)
        );
    }
}

#[test]
fn a_file_that_is_rewritten_in_place_is_told_nothing() {
    let mut ledger = copying(Some(true));
    ledger.world.objects.insert((PID, 4), file(3, "/a"));
    take(
        &mut ledger,
        vec![read(3, BUFFER, 4096), write(4, BUFFER, 4096)],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::File).advice, None);
}

#[test]
fn what_was_seen_to_fail_between_two_file_systems_is_not_advised() {
    let mut ledger = copying(Some(true));
    let failed = -i64::from(libc::EXDEV);
    take(
        &mut ledger,
        vec![
            call(libc::SYS_copy_file_range, &[3, 0, 4, 0, 4096, 0], failed),
            read(3, BUFFER, 4096),
            write(4, BUFFER, 4096),
        ],
    );
    let advice = flow(&mut ledger, Kind::File, Kind::File).advice;
    assert_eq!(advice.as_deref(), Some("sendfile would make it 1"));
    // Without space it may work tomorrow.
    let mut ledger = copying(Some(true));
    let full = -i64::from(libc::ENOSPC);
    take(
        &mut ledger,
        vec![
            call(libc::SYS_copy_file_range, &[3, 0, 4, 0, 4096, 0], full),
            read(3, BUFFER, 4096),
            write(4, BUFFER, 4096),
        ],
    );
    let advice = flow(&mut ledger, Kind::File, Kind::File).advice;
    assert_eq!(advice.as_deref(), Some("copy_file_range would make it 1"));
}

#[test]
fn the_names_shown_are_those_of_most_bytes() {
    let mut ledger = copying(None);
    for n in 10..20 {
        let seen = file(n, &format!("/{n}"));
        ledger.world.objects.insert((PID, n as i32), seen);
        take(
            &mut ledger,
            vec![read(n, BUFFER, n as i64), write(4, BUFFER, n as i64)],
        );
    }
    let flow = flow(&mut ledger, Kind::File, Kind::File);
    assert_eq!(flow.sources, ["/19", "/18", "/17"]);
    assert!(flow.more_sources);
}

#[test]
fn parts_of_what_a_pipe_held_lie_one_behind_the_other() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp), (5, Kind::Unix)]);
    for (fd, writable) in [(6, true), (7, false)] {
        let pipe = Seen {
            pipe: Some(1),
            writable,
            ..seen(Kind::Pipe)
        };
        ledger.world.objects.insert((PID, fd), pipe);
    }
    take(
        &mut ledger,
        vec![
            call(libc::SYS_splice, &[3, 0, 6, 0, 1 << 20, 0], 1000),
            call(libc::SYS_splice, &[5, 0, 6, 0, 1 << 20, 0], 500),
            read(7, BUFFER, 1500),
            write(4, BUFFER, 1500),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 1000);
    assert_eq!(flow(&mut ledger, Kind::Unix, Kind::Tcp).bytes, 500);
}

#[test]
fn a_header_before_the_body_is_not_taken_for_the_file() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let vectors = [(0x9000, 238), (BUFFER, 32_768)];
    take(
        &mut ledger,
        vec![
            call(libc::SYS_pread64, &[3, BUFFER, 32_768, 0], 32_768),
            vectored(libc::SYS_writev, 4, &vectors, 33_006),
        ],
    );
    let body = flow(&mut ledger, Kind::File, Kind::Tcp);
    assert_eq!((body.bytes, body.inferred_bytes), (32_768, 0));
    assert_eq!(body.calls, ["pread64", "writev"]);
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 238);
}

#[test]
fn vectors_out_of_sight_are_inferred_and_said_to_be() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    take(
        &mut ledger,
        vec![
            read(3, BUFFER, 5000),
            call(libc::SYS_readv, &[3, 0xdead, 1], 1000),
            call(libc::SYS_writev, &[4, 0xbeef, 1], 1200),
        ],
    );
    let inferred = flow(&mut ledger, Kind::File, Kind::Tcp);
    assert_eq!((inferred.bytes, inferred.inferred_bytes), (1000, 1000));
    assert!(
        inferred.verdict.contains("inferred"),
        "{}",
        inferred.verdict
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 200);
}

#[test]
fn vectors_too_short_for_the_result_are_not_believed() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    take(
        &mut ledger,
        vec![
            read(3, BUFFER, 5000),
            vectored(libc::SYS_writev, 4, &[(BUFFER, 100)], 5000),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 5000);
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
    take(
        &mut ledger,
        vec![message(libc::SYS_recvmsg), message(libc::SYS_sendmsg)],
    );
    let relayed = flow(&mut ledger, Kind::Tcp, Kind::Tcp);
    assert_eq!((relayed.bytes, relayed.inferred_bytes), (4000, 0));
    assert!(
        relayed
            .verdict
            .contains("(recvmsg, sendmsg); splice would make it 0")
    );
}

#[test]
fn sendfile_to_a_socket_costs_nothing_and_to_a_file_one_copy() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp), (5, Kind::File)]);
    take(
        &mut ledger,
        vec![
            call(libc::SYS_sendfile, &[4, 3, 0, 1 << 20], 1 << 20),
            call(libc::SYS_sendfile, &[5, 3, 0, 1 << 20], 1 << 20),
        ],
    );
    assert_eq!(
        flow(&mut ledger, Kind::File, Kind::Tcp).verdict,
        "file → socket: 0 CPU copies per byte (sendfile)"
    );
    assert_eq!(
        flow(&mut ledger, Kind::File, Kind::File).copies_per_byte,
        Some(1.0)
    );
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
    take(
        &mut ledger,
        vec![
            call(libc::SYS_splice, &[3, 0, 6, 0, 1 << 20, 0], 70_000),
            call(libc::SYS_splice, &[5, 0, 4, 0, 1 << 20, 0], 40_000),
            call(libc::SYS_splice, &[5, 0, 4, 0, 1 << 20, 0], 30_000),
        ],
    );
    assert_eq!(
        verdicts(&mut ledger),
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
    take(
        &mut ledger,
        vec![
            Event::Call(Call { stack, ..made }),
            call(libc::SYS_splice, &[3, 0, 8, 0, 4096, 0], 4096),
            call(libc::SYS_splice, &[7, 0, 4, 0, 4096, 0], 4096),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 4096);
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
    take(
        &mut ledger,
        vec![
            call(libc::SYS_splice, &[3, 0, 1, 0, 4096, 0], 4096),
            Event::Call(out),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 4096);
}

#[test]
fn writes_out_of_a_mapped_file_come_from_that_file() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let shared = libc::MAP_SHARED as u64;
    take(
        &mut ledger,
        vec![
            call(libc::SYS_openat, &[0, 0, 0], 3),
            call(libc::SYS_mmap, &[0, 65_536, 1, shared, 3, 0], BUFFER as i64),
            call(libc::SYS_close, &[3], 0),
            write(4, BUFFER + 100, 60_000),
            call(libc::SYS_munmap, &[BUFFER, 65_536], 0),
            write(4, BUFFER, 500),
        ],
    );
    assert_eq!(
        flow(&mut ledger, Kind::File, Kind::Tcp).verdict,
        "file → socket: 1.00 CPU copies per byte (mmap, write); sendfile would make it 0"
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 500);
}

#[test]
fn constants_of_a_program_are_not_a_file() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    let text = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let private = libc::MAP_PRIVATE as u64;
    take(
        &mut ledger,
        vec![
            call(
                libc::SYS_mmap,
                &[0, 65_536, 1, private, 3, 0],
                BUFFER as i64,
            ),
            call(libc::SYS_mmap, &[0, 4096, text, private, 3, 0], 0x4000_0000),
            write(4, BUFFER + 100, 50),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 50);
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
    take(
        &mut ledger,
        vec![write(4, 0x1000, 4096), write(4, 0x3000, 4096)],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 4096);
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 4096);
}

#[test]
fn duplicates_share_what_they_refer_to_and_exec_closes_what_it_should() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    take(
        &mut ledger,
        vec![
            call(libc::SYS_dup2, &[3, 0], 0),
            call(libc::SYS_fcntl, &[4, libc::F_DUPFD_CLOEXEC as u64, 9], 9),
            call(
                libc::SYS_fcntl,
                &[0, libc::F_SETFL as u64, libc::O_DIRECT as u64],
                0,
            ),
            read(3, BUFFER, 4096),
        ],
    );
    assert_eq!(
        flow(&mut ledger, Kind::DirectFile, Kind::Program).copied_bytes,
        0
    );
    ledger.world.objects.insert((PID, 9), seen(Kind::Unix));
    take(
        &mut ledger,
        vec![
            Event::Exec {
                task: TASK,
                name: "next".to_owned(),
            },
            read(0, BUFFER, 100),
            write(9, BUFFER, 100),
        ],
    );
    // 0 stayed open, 9 did not and was looked up anew.
    assert_eq!(flow(&mut ledger, Kind::DirectFile, Kind::Unix).bytes, 100);
}

#[test]
fn a_number_that_is_used_again_is_looked_up_again() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    take(&mut ledger, vec![read(3, BUFFER, 10)]);
    take(
        &mut ledger,
        vec![
            call(libc::SYS_close, &[3], 0),
            call(
                libc::SYS_socket,
                &[libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0],
                3,
            ),
            read(3, BUFFER, 20),
            write(4, BUFFER, 20),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Unix, Kind::Tcp).bytes, 20);
}

/// A descriptor that a call made, with what was found when it was looked at.
fn made(number: libc::c_long, arguments: &[u64], fd: i64, seen: Seen) -> Event {
    let Event::Call(call) = call(number, arguments, fd) else {
        unreachable!()
    };
    let made = Some(Box::new(seen));
    Event::Call(Call { made, ..call })
}

fn looked_at(name: &str, looked_ns: u64) -> Seen {
    Seen {
        looked_ns,
        ..file(9, name)
    }
}

#[test]
fn what_was_looked_at_after_its_close_is_not_believed() {
    // A shell opens a file, makes it its output, and executes a program, whose loader gets the same
    // number for a library before the file is looked at.
    for looked_ns in [4, 1000] {
        let mut ledger = ledger(&[(0, Kind::Null)]);
        let library = looked_at("/lib.so", looked_ns);
        take(
            &mut ledger,
            vec![made(libc::SYS_openat, &[0, 0, 0], 3, library.clone())],
        );
        take(
            &mut ledger,
            vec![
                call(libc::SYS_dup2, &[3, 1], 1),
                call(libc::SYS_close, &[3], 0),
            ],
        );
        take(
            &mut ledger,
            vec![
                made(libc::SYS_openat, &[0, 0, 0], 3, library),
                write(1, BUFFER, 100),
            ],
        );
        let flow = flow(&mut ledger, Kind::Program, Kind::Opened);
        assert!(flow.sinks.is_empty(), "{:?}", flow.sinks);
    }
    // A look at the duplicate is as good, even if it is taken later.
    let mut ledger = ledger(&[]);
    take(
        &mut ledger,
        vec![
            made(libc::SYS_openat, &[0, 0, 0], 3, looked_at("/lib.so", 900)),
            made(libc::SYS_dup2, &[3, 1], 1, looked_at("/out", 1000)),
            write(1, BUFFER, 100),
            call(libc::SYS_close, &[3], 0),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::File).sinks, ["/out"]);
}

#[test]
fn every_way_of_closing_shows_that_a_look_was_too_late() {
    let exec = Event::Exec {
        task: TASK,
        name: "next".to_owned(),
    };
    for closes in [
        call(libc::SYS_close, &[3], 0),
        call(libc::SYS_close_range, &[3, u64::from(u32::MAX), 0], 0),
        call(libc::SYS_dup2, &[0, 3], 3),
        call(libc::SYS_dup3, &[0, 3, 0], 3),
        exec,
        Event::End { task: TASK },
    ] {
        let said = format!("{closes:?}");
        let mut ledger = ledger(&[(0, Kind::Null)]);
        let flags = libc::O_CLOEXEC as u64;
        take(
            &mut ledger,
            vec![
                made(
                    libc::SYS_openat,
                    &[0, 0, flags],
                    3,
                    looked_at("/other", 100),
                ),
                write(3, BUFFER, 100),
                closes,
            ],
        );
        let flow = flow(&mut ledger, Kind::Program, Kind::Opened);
        assert!(flow.sinks.is_empty(), "{said}: {:?}", flow.sinks);
    }
}

#[test]
fn a_look_before_the_close_stands() {
    let mut ledger = ledger(&[]);
    take(
        &mut ledger,
        vec![
            made(libc::SYS_openat, &[0, 0, 0], 3, looked_at("/out", 2)),
            write(3, BUFFER, 100),
            call(libc::SYS_close, &[3], 0),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::File).sinks, ["/out"]);
}

#[test]
fn a_close_that_returns_late_does_not_take_the_next_file_along() {
    let mut ledger = ledger(&[]);
    let Event::Call(close) = call(libc::SYS_close, &[3], 0) else {
        unreachable!()
    };
    let other = Task { pid: PID, tid: 11 };
    take(
        &mut ledger,
        vec![
            made(libc::SYS_openat, &[0, 0, 0], 3, looked_at("/first", 0)),
            // The other thread's close has given the number free, and returns only then.
            made(libc::SYS_openat, &[0, 0, 0], 3, looked_at("/second", 0)),
            Event::Call(Call {
                task: other,
                ..close
            }),
            write(3, BUFFER, 100),
        ],
    );
    assert_eq!(
        flow(&mut ledger, Kind::Program, Kind::File).sinks,
        ["/second"]
    );
}

#[test]
fn what_was_not_looked_at_is_said_not_to_be_known() {
    let mut ledger = ledger(&[(4, Kind::Null), (5, Kind::Tcp), (6, Kind::File)]);
    take(
        &mut ledger,
        vec![
            call(libc::SYS_openat, &[0, 0, 0], 3),
            read(3, BUFFER, 100),
            write(4, BUFFER, 100),
            call(libc::SYS_close, &[3], 0),
        ],
    );
    assert_eq!(
        verdicts(&mut ledger),
        ["file? → /dev/null: 1.00 CPU copies per byte (read, write)"]
    );
    // Where a file was seen to go the same way, it is taken for one.
    take(
        &mut ledger,
        vec![
            call(libc::SYS_openat, &[0, 0, 0], 3),
            read(3, BUFFER, 100),
            write(5, BUFFER, 100),
            call(libc::SYS_close, &[3], 0),
            read(6, BUFFER, 50),
            write(5, BUFFER, 50),
        ],
    );
    let joined = flow(&mut ledger, Kind::File, Kind::Tcp);
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
    take(
        &mut ledger,
        vec![
            call(libc::SYS_openat, &[0, 0, 0], 3),
            Event::Call(Call { made, ..duplicate }),
            call(libc::SYS_close, &[3], 0),
            read(0, BUFFER, 100),
            write(4, BUFFER, 100),
        ],
    );
    let flow = flow(&mut ledger, Kind::Zero, Kind::Tcp);
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
    take(
        &mut ledger,
        vec![
            read(3, BUFFER, 4096),
            write(4, BUFFER, 1),
            Event::Fork {
                parent: TASK,
                child,
            },
            Event::Call(by_child),
            Event::End { task: child },
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Tcp).bytes, 1);
    let by_child = flow(&mut ledger, Kind::Unknown, Kind::Tcp);
    assert_eq!((by_child.bytes, by_child.copied_bytes), (4096, 4096));
}

#[test]
fn peeking_and_discarding_are_not_moving() {
    let mut ledger = ledger(&[(3, Kind::Tcp)]);
    let peek = libc::MSG_PEEK as u64;
    let discard = libc::MSG_TRUNC as u64;
    take(
        &mut ledger,
        vec![
            call(libc::SYS_recvfrom, &[3, BUFFER, 100, peek], 100),
            call(libc::SYS_recvfrom, &[3, 0, 100, discard], 100),
        ],
    );
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
    take(&mut ledger, vec![socket, send.clone()]);
    assert_eq!(ledger.summary().copied.value, 1000);
    let option = [3, libc::SOL_SOCKET as u64, libc::SO_ZEROCOPY as u64];
    take(
        &mut ledger,
        vec![call(libc::SYS_setsockopt, &option, 0), send],
    );
    assert_eq!(ledger.summary().copied.value, 1000);
}

/// `recvmsg(3, ..., MSG_ERRQUEUE)` with a completion of the sends `first..=last`.
fn completion(first: u32, last: u32, code: u8) -> Event {
    const STACK: u64 = 0x7fff_0000;
    let mut bytes = vec![0; 56];
    bytes[32..40].copy_from_slice(&(STACK + 56).to_ne_bytes());
    bytes[40..48].copy_from_slice(&48_u64.to_ne_bytes());
    let mut control = [0; 48];
    control[16 + 4] = 5;
    control[16 + 6] = code;
    control[24..28].copy_from_slice(&first.to_ne_bytes());
    control[28..32].copy_from_slice(&last.to_ne_bytes());
    bytes.extend(control);
    let flags = libc::MSG_ERRQUEUE as u64;
    let Event::Call(call) = call(libc::SYS_recvmsg, &[3, STACK, flags], 0) else {
        unreachable!()
    };
    let stack = Some(Stack {
        address: STACK,
        bytes,
    });
    Event::Call(Call { stack, ..call })
}

#[test]
fn what_zero_copy_sends_cost_is_unknown_until_the_kernel_says_so() {
    let cost = |completions: Vec<Event>| {
        let mut ledger = ledger(&[(3, Kind::Tcp)]);
        let flag = libc::MSG_ZEROCOPY as u64;
        let sends = (0..4).map(|_| call(libc::SYS_sendto, &[3, BUFFER, 1000, flag], 1000));
        take(&mut ledger, sends.chain(completions).collect());
        let flow = flow(&mut ledger, Kind::Program, Kind::Tcp);
        let hides = ledger.summary().hides_bytes();
        assert_eq!(hides, flow.copies_per_byte.is_none());
        (flow.copies_per_byte, flow.verdict)
    };
    let (copies, verdict) = cost(vec![]);
    assert_eq!(copies, None);
    assert!(verdict.contains(": ? CPU copies per byte"), "{verdict}");
    assert_eq!(cost(vec![completion(0, 3, 0)]).0, Some(0.0));
    let (copies, verdict) = cost(vec![completion(0, 3, 1)]);
    assert_eq!(copies, Some(1.0));
    assert!(
        verdict.contains("1.00 CPU copies per byte (send(MSG_ZEROCOPY); copied after all: 4 of 4"),
        "{verdict}"
    );
    let (copies, verdict) = cost(vec![completion(0, 1, 0), completion(2, 3, 1)]);
    assert_eq!(copies, None);
    assert!(
        verdict.contains("copied after all: 2 of 4 sends"),
        "{verdict}"
    );
}

#[test]
fn what_is_not_seen_is_not_nothing() {
    for (number, what) in [
        (libc::SYS_io_uring_enter, "io_uring"),
        (libc::SYS_io_submit, "libaio"),
        (libc::SYS_sendmmsg, "sendmmsg"),
        (libc::SYS_recvmmsg, "recvmmsg"),
    ] {
        let mut ledger = ledger(&[(3, Kind::Udp)]);
        take(&mut ledger, vec![call(number, &[3], 8)]);
        let summary = ledger.summary();
        assert!(summary.hides_bytes(), "{what}");
        assert!(summary.blind[0].what.contains(what), "{:?}", summary.blind);
        assert_eq!(summary.blind[0].times, Some(1));
        let line = &summary.calls[0];
        assert_eq!((line.bytes, line.copied_bytes), (None, None), "{what}");
    }
    let mut ledger = ledger(&[(3, Kind::File)]);
    let shared = libc::MAP_SHARED as u64;
    take(
        &mut ledger,
        vec![call(libc::SYS_mmap, &[0, 4096, 3, shared, 3, 0], 0x1000)],
    );
    assert_eq!(ledger.summary().blind.len(), 1);
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
    take(
        &mut ledger,
        vec![
            copied(Way::ToUser, 4096),
            read(3, BUFFER, 4096),
            copied(Way::FromUser, 2048),
            copied(Way::FromUser, 2048),
            copied(Way::Within, 100),
            write(4, BUFFER, 4096),
            copied(Way::ToUser, 16),
            call(libc::SYS_getrandom, &[BUFFER, 16, 0], 16),
        ],
    );
    let flow = flow(&mut ledger, Kind::File, Kind::Tcp);
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
    take(
        &mut ledger,
        vec![
            copied(Way::ToUser, 6),
            read(3, BUFFER, 6),
            copied(Way::FromUser, 4096),
            copied(Way::FromUser, 4090),
            write(4, BUFFER, 6),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::Tcp, Kind::Pipe).copied_bytes, 12);
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
    take(
        &mut ledger,
        vec![
            added(30, 32),
            added(40, 16),
            call(libc::SYS_copy_file_range, &[3, 0, 4, 0, 65_536, 0], 65_536),
            added(30, 8),
            read(3, BUFFER, 4096),
        ],
    );
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
    take(
        &mut ledger,
        vec![call(
            libc::SYS_copy_file_range,
            &[3, 0, 4, 0, 65_536, 0],
            65_536,
        )],
    );
    assert_eq!(
        verdicts(&mut ledger),
        ["file → file: 0 CPU copies per byte (copy_file_range)"]
    );
}

#[test]
fn after_a_loss_nothing_is_linked_by_guess() {
    let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp)]);
    take(
        &mut ledger,
        vec![
            read(3, BUFFER, 4096),
            Event::Lost { records: 7 },
            write(4, BUFFER, 4096),
        ],
    );
    assert_eq!(flow(&mut ledger, Kind::File, Kind::Program).bytes, 4096);
    assert_eq!(flow(&mut ledger, Kind::Program, Kind::Tcp).bytes, 4096);
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
    take(
        &mut ledger,
        vec![
            exit(libc::SYS_read),
            Event::Enter {
                task: TASK,
                number: libc::SYS_read,
                arguments,
            },
            exit(libc::SYS_read),
        ],
    );
    assert_eq!(ledger.headless_calls, 1);
    assert_eq!(ledger.sums().bytes_in, 4096);
}

proptest! {
    /// Whatever is read, written and spliced: each copy is in exactly one flow, and no more comes
    /// from a source than was read of it.
    #[test]
    fn every_copy_belongs_to_one_flow(script in proptest::collection::vec((0..8_u8, 0..64_u64, 1..5000_i64), 0..200)) {
        let mut ledger = ledger(&[(3, Kind::File), (4, Kind::Tcp), (5, Kind::Unix)]);
        for (fd, writable) in [(6, true), (7, false)] {
            let pipe = Seen { pipe: Some(1), writable, ..seen(Kind::Pipe) };
            ledger.world.objects.insert((PID, fd), pipe);
        }
        let mut read_of = [0; 5];
        for (what, place, bytes) in script {
            let at = BUFFER + place * 512;
            match what {
                0 | 3 => read_of[3] += bytes.unsigned_abs(),
                1 => read_of[4] += bytes.unsigned_abs(),
                _ => {}
            }
            take(&mut ledger, vec![match what {
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
        let bytes = |is: &dyn Fn(&FlowLine) -> bool| -> u64 {
            summary.flows.iter().filter(|flow| is(flow)).map(|flow| flow.bytes).sum()
        };
        prop_assert_eq!(bytes(&|flow| flow.source == Kind::File), read_of[3]);
        prop_assert_eq!(bytes(&|flow| flow.source == Kind::Tcp), read_of[4]);
    }
}
