//! `io_uring_setup(2)`: a read and a zero-copy send through a ring, and which operations there are.

use std::os::fd::AsFd;

use rustix::io::Errno;
use zhaul_sys::io_uring::Ring;

use super::context::Context;
use super::devices;
use super::ends::{Checker, Ends, PATIENCE, wait};
use super::pattern;
use super::report::{Cause, Device, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, described, errno_of};

pub(super) const READ: Mechanism = Mechanism {
    id: "io_uring",
    name: "io_uring",
    call: "io_uring_setup",
    group: Group::Memory,
    since: (5, 6),
    since_text: "5.1, READ 5.6",
};

pub(super) const SEND_ZC: Mechanism = Mechanism {
    id: "io_uring_send_zc",
    name: "SEND_ZC",
    call: "io_uring_enter (IORING_OP_SEND_ZC)",
    group: Group::ToSocket,
    since: (6, 0),
    since_text: "6.0",
};

pub(super) const RECV_ZC: Mechanism = Mechanism {
    id: "io_uring_recv_zc",
    name: "RECV_ZC",
    call: "io_uring_register (IORING_REGISTER_ZCRX_IFQ)",
    group: Group::FromSocket,
    since: (6, 15),
    since_text: "6.15",
};

/// A read of a file.
pub(super) fn read(context: &Context) -> Result<Seen, Trouble> {
    let mut ring = ring(context)?;
    let operations = ring.operations().during("io_uring_register (PROBE)")?;
    let content = pattern::bytes(pattern::FEW);
    let file = scratch::holding(content)?;
    let (read, buffer) = ring
        .read(file.as_fd(), vec![0; content.len()], 0, PATIENCE)
        .during("io_uring_enter (IORING_OP_READ)")?;
    if buffer[..read] != *content {
        return Err(Trouble::Differs("IORING_OP_READ"));
    }
    let evidence = format!(
        "{read} bytes of a file were read through a ring, unchanged; operations: {}",
        operations.join(" ")
    );
    Ok(Seen::works(evidence).fact("operations", operations))
}

/// A zero-copy send over loopback.
pub(super) fn send_zc(context: &Context) -> Result<Seen, Trouble> {
    let mut ring = ring(context)?;
    let there = ring.operations().during("io_uring_register (PROBE)")?;
    if !there.contains(&"SEND_ZC") {
        return Err(Seen::missing(
            Cause::KernelLacks,
            "the kernel has no such operation; Linux 6.0 has",
            "IORING_REGISTER_PROBE does not list it",
        )
        .remedy("a kernel from 6.0 on")
        .into());
    }
    let ends = Ends::tcp()?;
    let content = pattern::bytes(pattern::FEW);
    let done = ring
        .send_zero_copy(ends.near.as_fd(), content, PATIENCE)
        .during("io_uring_enter (IORING_OP_SEND_ZC)")?;
    let mut checker = Checker::of(&content[..done.sent], "IORING_OP_SEND_ZC");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !checker.is_done() {
        if !checker.take_from(ends.far.as_fd())?
            && !wait(
                &[(ends.far.as_fd(), rustix::event::PollFlags::IN)],
                deadline,
            )
        {
            return Err(Trouble::Stuck("IORING_OP_SEND_ZC"));
        }
    }
    let evidence = format!("{} bytes over TCP on loopback arrived unchanged", done.sent);
    Ok(match done.copied {
        Some(true) => Seen::limited(
            Cause::DeviceLacks,
            "works, but loopback always copies; a real device decides",
            format!("{evidence}; the kernel copied after all"),
        )
        .remedy(super::msg_zerocopy::TRY_A_PEER)
        .fact("avoided_copy_on_loopback", false),
        Some(false) => Seen::works(format!("{evidence}; the kernel did not copy"))
            .fact("avoided_copy_on_loopback", true),
        None => Seen::limited(
            Cause::KernelLacks,
            "works; whether it copies is told from Linux 6.2 on",
            evidence,
        ),
    })
}

/// Whether a device has what zero-copy receive takes. A queue of it is not taken for that: it would
/// lose what it is receiving.
pub(super) fn recv_zc(context: &Context) -> Result<Seen, Trouble> {
    let there = ring(context)?
        .operations()
        .during("io_uring_register (PROBE)")?;
    if !there.contains(&"RECV_ZC") {
        return Err(Seen::missing(
            Cause::KernelLacks,
            "the kernel has no such operation; Linux 6.15 has, if built with IO_URING_ZCRX",
            "IORING_REGISTER_PROBE does not list it",
        )
        .remedy("a kernel from 6.15 on")
        .into());
    }
    let devices = devices::look();
    let real: Vec<_> = devices.iter().filter(|device| device.physical).collect();
    let lacks: Vec<String> = real.iter().map(|device| lack_of(device)).collect();
    let evidence =
        "IORING_REGISTER_PROBE lists it; devices were asked by ethtool, nothing was received";
    Ok(if real.is_empty() {
        Seen::missing(Cause::DeviceLacks, "no network device", evidence)
    } else if lacks.iter().all(|lack| !lack.is_empty()) {
        Seen::missing(Cause::DeviceLacks, lacks.join("; "), evidence).remedy(
            "a device with both: ethtool -G DEV tcp-data-split on, ethtool -K DEV ntuple on",
        )
    } else {
        Seen::unknown(
            "a device has header split and flow steering; to try it would take a receive queue",
            evidence,
        )
    })
}

/// `eth0 has no header split`; nothing if it has all.
fn lack_of(device: &Device) -> String {
    let lacks: Vec<_> = [
        (device.header_split, "header split"),
        (device.flow_steering, "flow steering"),
    ]
    .into_iter()
    .filter(|(has, _)| *has != Some(true))
    .map(|(_, what)| what)
    .collect();
    match lacks.is_empty() {
        true => String::new(),
        false => format!("{} has no {}", device.name, lacks.join(" and no ")),
    }
}

fn ring(context: &Context) -> Result<Ring, Trouble> {
    Ring::new().map_err(|error| match errno_of(&error) {
        errno @ Errno::PERM => refused(errno, context).into(),
        errno => Trouble::Call("io_uring_setup", errno),
    })
}

const SETTING: &str = "/proc/sys/kernel/io_uring_disabled";

/// EPERM: by the setting, or by somebody else.
fn refused(errno: Errno, context: &Context) -> Seen {
    let evidence = format!("io_uring_setup failed: {}", described(errno));
    let setting = std::fs::read_to_string(SETTING).unwrap_or_default();
    match setting.trim() {
        value @ ("1" | "2") => {
            let reason = format!("switched off: kernel.io_uring_disabled is {value}");
            Seen::missing(Cause::Configured, reason, evidence)
                .remedy("sysctl kernel.io_uring_disabled=0 (as root)")
        }
        _ if context.is_filtered() => {
            Seen::missing(Cause::NotPermitted, "a seccomp filter forbids it", evidence)
                .remedy("allow io_uring_setup, io_uring_enter and io_uring_register in the profile")
        }
        _ => Seen::missing(
            Cause::NotPermitted,
            "a security module forbids it",
            evidence,
        ),
    }
}
