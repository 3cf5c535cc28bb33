//! `bpf(2)`: a program that counts system calls for a moment.

use std::path::Path;

use rustix::io::Errno;
use zhaul_sys::bpf::Counter;

use super::context::Context;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, described, errno_of};

pub(super) const BPF: Mechanism = Mechanism {
    id: "bpf",
    name: "eBPF tracing",
    call: "bpf",
    group: Group::Proof,
    since: (4, 17),
    since_text: "4.17, fexit 5.5",
};

const CALLS: u64 = 10;

pub(super) fn try_it(context: &Context) -> Result<Seen, Trouble> {
    let counter =
        Counter::attach("sys_enter").map_err(|(stage, error)| match errno_of(&error) {
            errno @ (Errno::PERM | Errno::ACCESS) => refused(stage.name(), errno, context).into(),
            errno => Trouble::Call("bpf", errno),
        })?;
    let before = counter.hits().during("bpf (BPF_MAP_LOOKUP_ELEM)")?;
    for _ in 0..CALLS {
        let _ = rustix::process::getppid();
    }
    let hits = counter.hits().during("bpf (BPF_MAP_LOOKUP_ELEM)")? - before;
    if hits < CALLS {
        return Err(Seen::missing(
            Cause::Misbehaves,
            "a program was attached and did not run",
            format!("{CALLS} system calls were made and {hits} counted"),
        )
        .into());
    }
    let evidence = format!("a program on the raw tracepoint sys_enter counted {hits} system calls");
    let kprobes = Path::new("/sys/bus/event_source/devices/kprobe").exists();
    let types = Path::new("/sys/kernel/btf/vmlinux").exists();
    let seen = match (kprobes, types) {
        (true, true) => Seen::works(evidence),
        (false, _) => Seen::limited(
            Cause::KernelLacks,
            "tracepoints only: the kernel has no kprobes",
            evidence,
        )
        .remedy("a kernel with CONFIG_KPROBES"),
        (true, false) => Seen::limited(
            Cause::KernelLacks,
            "no fentry and fexit: the kernel has no BTF",
            evidence,
        )
        .remedy("a kernel with CONFIG_DEBUG_INFO_BTF"),
    };
    Ok(seen.fact("kprobes", kprobes).fact("btf", types))
}

fn refused(stage: &str, errno: Errno, context: &Context) -> Seen {
    let evidence = format!("{stage} failed: {}", described(errno));
    let privileged =
        context.has("CAP_SYS_ADMIN") || context.has("CAP_BPF") && context.has("CAP_PERFMON");
    let (reason, remedy) = match context.kernel.lockdown.as_deref() {
        Some(mode @ ("integrity" | "confidentiality")) if privileged => (
            format!("forbidden by lockdown={mode}"),
            "boot without lockdown (it comes with Secure Boot or the boot parameter)".to_owned(),
        ),
        _ if context.is_filtered() => (
            "not permitted (a seccomp filter is active)".to_owned(),
            "allow bpf in the profile and grant CAP_BPF and CAP_PERFMON".to_owned(),
        ),
        _ if privileged => (
            "a security module forbids it".to_owned(),
            "see the log of the security module".to_owned(),
        ),
        _ => (
            "needs CAP_BPF and CAP_PERFMON".to_owned(),
            "ask as root, or grant CAP_BPF and CAP_PERFMON".to_owned(),
        ),
    };
    Seen::missing(Cause::NotPermitted, reason, evidence).remedy(remedy)
}
