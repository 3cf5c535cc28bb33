//! Records as the kernel lays them out, whole, cut short and made up.

use proptest::prelude::*;

use super::*;

/// The bytes of a record: its header and its body.
pub(in super::super) fn frame(kind: u32, misc: u16, body: &[u8]) -> Vec<u8> {
    let size = u16::try_from(HEADER + body.len()).unwrap();
    let mut bytes = kind.to_ne_bytes().to_vec();
    bytes.extend(misc.to_ne_bytes());
    bytes.extend(size.to_ne_bytes());
    bytes.extend(body);
    bytes
}

pub(in super::super) fn layout(class: Class) -> Layout {
    Layout {
        event: EventKey(3),
        class,
        callchain: false,
        registers: 0,
        user_registers: 0,
        user_stack: false,
    }
}

/// Whose record and when.
#[derive(Clone, Copy)]
pub(in super::super) struct Stamp {
    pub(in super::super) identifier: u64,
    pub(in super::super) tid: u32,
    pub(in super::super) time_ns: u64,
}

const STAMP: Stamp = Stamp {
    identifier: 77,
    tid: 12,
    time_ns: 1000,
};
const PID: u32 = 11;
const ON_CPU: u32 = 5;

/// A sample with no instruction address: a tracepoint's.
pub(in super::super) fn tracepoint(stamp: Stamp, raw: &[u8]) -> Vec<u8> {
    let mut body = stamp.identifier.to_ne_bytes().to_vec();
    body.extend(PID.to_ne_bytes());
    body.extend(stamp.tid.to_ne_bytes());
    body.extend(stamp.time_ns.to_ne_bytes());
    body.extend(ON_CPU.to_ne_bytes());
    body.extend([0; 4]);
    body.extend(u32::try_from(raw.len()).unwrap().to_ne_bytes());
    body.extend(raw);
    frame(PERF_RECORD_SAMPLE, 1, &body)
}

/// A record that is no sample.
pub(in super::super) fn other(kind: u32, misc: u16, stamp: Stamp, own: &[u8]) -> Vec<u8> {
    let mut body = own.to_vec();
    body.extend(PID.to_ne_bytes());
    body.extend(stamp.tid.to_ne_bytes());
    body.extend(stamp.time_ns.to_ne_bytes());
    body.extend(ON_CPU.to_ne_bytes());
    body.extend([0; 4]);
    body.extend(stamp.identifier.to_ne_bytes());
    frame(kind, misc, &body)
}

pub(in super::super) fn lost(stamp: Stamp, records: u64) -> Vec<u8> {
    let mut own = 9_u64.to_ne_bytes().to_vec();
    own.extend(records.to_ne_bytes());
    other(PERF_RECORD_LOST, 0, stamp, &own)
}

pub(in super::super) fn exit(stamp: Stamp) -> Vec<u8> {
    other(PERF_RECORD_EXIT, 0, stamp, &task([PID, 1, stamp.tid, 1]))
}

fn task(numbers: [u32; 4]) -> Vec<u8> {
    let mut own: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
    own.extend(1000_u64.to_ne_bytes());
    own
}

fn decode(bytes: &[u8], layout: Layout) -> Record<'_> {
    let mut rest = bytes;
    let framed = take_frame(&mut rest).unwrap();
    assert!(rest.is_empty());
    assert_eq!(framed.identifier(), Some(STAMP.identifier));
    assert_eq!(framed.time_ns(layout), Some(STAMP.time_ns));
    let record = framed.decode(layout).unwrap();
    assert_eq!((record.time_ns, record.cpu), (STAMP.time_ns, ON_CPU));
    record
}

#[test]
fn a_tracepoint_hands_out_its_raw_part() {
    let bytes = tracepoint(STAMP, b"raw part");
    let record = decode(&bytes, layout(Class::Tracepoint));
    assert_eq!((record.pid, record.tid), (PID, STAMP.tid));
    let Kind::Tracepoint {
        event,
        raw,
        callchain,
        user,
    } = record.kind
    else {
        panic!("{record:?}")
    };
    assert_eq!(
        (event, raw, callchain.is_empty()),
        (EventKey(3), &b"raw part"[..], true)
    );
    assert_eq!(user, User::default());
}

/// A tracepoint with two registers of user mode and a stack, of which `read` bytes could be read.
fn with_user(abi: u64, stack: &[u8], read: u64) -> Vec<u8> {
    let mut bytes = tracepoint(STAMP, &[0; 4]).split_off(HEADER);
    bytes.extend(abi.to_ne_bytes());
    if abi != 0 {
        bytes.extend([7_u64, 8].into_iter().flat_map(u64::to_ne_bytes));
    }
    bytes.extend((stack.len() as u64).to_ne_bytes());
    bytes.extend(stack);
    if !stack.is_empty() {
        bytes.extend(read.to_ne_bytes());
    }
    frame(PERF_RECORD_SAMPLE, 1, &bytes)
}

#[test]
fn the_user_side_follows_the_raw_part() {
    let layout = Layout {
        user_registers: 2,
        user_stack: true,
        ..layout(Class::Tracepoint)
    };
    let user = |bytes: &[u8]| match decode(bytes, layout).kind {
        Kind::Tracepoint { user, .. } => {
            let registers = (user.registers.at(0), user.registers.at(1));
            (user.is_64_bit, registers, user.stack.to_vec())
        }
        kind => panic!("{kind:?}"),
    };
    let both = (Some(7), Some(8));
    let full = with_user(2, b"sixteen bytes...", 16);
    assert_eq!(user(&full), (true, both, b"sixteen bytes...".to_vec()));
    let cut = with_user(1, b"sixteen bytes...", 8);
    assert_eq!(user(&cut), (false, both, b"sixteen ".to_vec()));
    let none = with_user(0, b"", 0);
    assert_eq!(user(&none), (false, (None, None), Vec::new()));
    // More than there is room for.
    let wrong = with_user(2, b"sixteen bytes...", 17);
    assert_eq!(
        take_frame(&mut wrong.as_slice()).unwrap().decode(layout),
        None
    );
}

#[test]
fn a_clock_sample_tells_user_mode_from_the_kernel() {
    for (misc, expected) in [(1, false), (2, true)] {
        let mut body = STAMP.identifier.to_ne_bytes().to_vec();
        body.extend(0xffff_u64.to_ne_bytes());
        body.extend(PID.to_ne_bytes());
        body.extend(STAMP.tid.to_ne_bytes());
        body.extend(STAMP.time_ns.to_ne_bytes());
        body.extend(u64::from(ON_CPU).to_ne_bytes());
        let bytes = frame(PERF_RECORD_SAMPLE, misc, &body);
        let Kind::Sample { ip, user, .. } = decode(&bytes, layout(Class::Clock)).kind else {
            panic!()
        };
        assert_eq!((ip, user), (0xffff, expected));
    }
}

/// A breakpoint with a call chain of a mark and two addresses, and registers unless `abi` is 0.
fn breakpoint(abi: u64) -> Vec<u8> {
    let mut body = STAMP.identifier.to_ne_bytes().to_vec();
    body.extend(0xf00_u64.to_ne_bytes());
    body.extend(PID.to_ne_bytes());
    body.extend(STAMP.tid.to_ne_bytes());
    body.extend(STAMP.time_ns.to_ne_bytes());
    body.extend(u64::from(ON_CPU).to_ne_bytes());
    for word in [3, -128_i64 as u64, 0xf00, 0xe00, abi] {
        body.extend(word.to_ne_bytes());
    }
    if abi != 0 {
        body.extend(4096_u64.to_ne_bytes());
        body.extend(7_u64.to_ne_bytes());
    }
    frame(PERF_RECORD_SAMPLE, 1, &body)
}

#[test]
fn a_breakpoint_hands_out_registers_and_callers() {
    let with = Layout {
        callchain: true,
        registers: 2,
        ..layout(Class::Breakpoint)
    };
    let bytes = breakpoint(2);
    let Kind::Breakpoint {
        ip,
        registers,
        callchain,
        ..
    } = decode(&bytes, with).kind
    else {
        panic!()
    };
    assert_eq!(ip, 0xf00);
    assert_eq!(
        (registers.at(0), registers.at(1), registers.at(2)),
        (Some(4096), Some(7), None)
    );
    assert_eq!(callchain.addresses().collect::<Vec<_>>(), [0xf00, 0xe00]);
    let bytes = breakpoint(0);
    let Kind::Breakpoint { registers, .. } = decode(&bytes, with).kind else {
        panic!()
    };
    assert_eq!(registers.at(0), None, "no registers were known");
}

#[test]
fn forks_exits_and_names_are_told_of_the_right_thread() {
    let any = layout(Class::Task);
    let bytes = other(PERF_RECORD_FORK, 0, STAMP, &task([21, 11, 22, 12]));
    let record = decode(&bytes, any);
    assert_eq!((record.pid, record.tid), (21, 22));
    let parent = Kind::Fork {
        parent_pid: 11,
        parent_tid: 12,
    };
    assert_eq!(record.kind, parent);

    let bytes = exit(STAMP);
    let record = decode(&bytes, any);
    assert_eq!((record.tid, record.kind), (STAMP.tid, Kind::Exit));

    let mut own = [21_u32, 22]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect::<Vec<_>>();
    own.extend(b"nginx\0\0\0");
    let bytes = other(PERF_RECORD_COMM, MISC_COMM_EXEC, STAMP, &own);
    let record = decode(&bytes, any);
    assert_eq!(record.tid, 22);
    assert_eq!(
        record.kind,
        Kind::Comm {
            name: b"nginx",
            exec: true
        }
    );
}

#[test]
fn lost_records_are_told_with_their_number() {
    let bytes = lost(STAMP, 42);
    let record = decode(&bytes, layout(Class::Tracepoint));
    assert_eq!(record.kind, Kind::Lost { records: 42 });
}

#[test]
fn a_frame_that_is_not_whole_is_not_taken() {
    let whole = tracepoint(STAMP, b"raw part");
    for cut in 0..whole.len() {
        let mut rest = &whole[..cut];
        assert_eq!(take_frame(&mut rest), None);
        assert_eq!(rest.len(), cut, "nothing was taken");
    }
    for size in 0..HEADER as u16 {
        let mut bytes = whole.clone();
        bytes[6..8].copy_from_slice(&size.to_ne_bytes());
        assert_eq!(take_frame(&mut bytes.as_slice()), None, "size {size}");
    }
}

#[test]
fn a_record_shorter_than_its_kind_is_none() {
    let whole = breakpoint(2);
    let with = Layout {
        callchain: true,
        registers: 2,
        ..layout(Class::Breakpoint)
    };
    for cut in HEADER..whole.len() {
        let bytes = frame(PERF_RECORD_SAMPLE, 1, &whole[HEADER..cut]);
        let framed = take_frame(&mut bytes.as_slice()).unwrap();
        assert_eq!(framed.decode(with), None, "{cut}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        kind in 0_u32..20,
        misc: u16,
        body in proptest::collection::vec(any::<u8>(), 0..200),
        class in prop_oneof![Just(Class::Tracepoint), Just(Class::Clock), Just(Class::Breakpoint), Just(Class::Task)],
        callchain: bool,
        registers in 0_u32..4,
        user_registers in 0_u32..4,
        user_stack: bool,
    ) {
        let layout = Layout {
            event: EventKey(0), class, callchain, registers, user_registers, user_stack,
        };
        let bytes = frame(kind, misc, &body);
        let framed = take_frame(&mut bytes.as_slice()).unwrap();
        let _ = (framed.identifier(), framed.time_ns(layout));
        let record = framed.decode(layout);
        if let Some(Kind::Breakpoint { callchain, registers, .. }) = record.map(|r| r.kind) {
            let _ = (callchain.addresses().count(), registers.at(9));
        }
        let mut rest = body.as_slice();
        while take_frame(&mut rest).is_some() {}
    }
}
