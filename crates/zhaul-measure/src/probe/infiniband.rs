//! RDMA: which devices there are. No transfer is tried: zhaul has no verbs yet.

use std::fs;
use std::path::Path;

use super::context::Context;
use super::report::{Cause, Group};
use super::seen::{Mechanism, Seen};
use super::trouble::Trouble;

pub(super) const RDMA: Mechanism = Mechanism {
    id: "rdma",
    name: "RDMA",
    call: "/sys/class/infiniband",
    group: Group::ToSocket,
    since: (2, 6),
    since_text: "2.6.11",
};

pub(super) fn try_it(_: &Context) -> Result<Seen, Trouble> {
    Ok(look(Path::new("/sys/class/infiniband")))
}

fn look(class: &Path) -> Seen {
    let Ok(entries) = fs::read_dir(class) else {
        return Seen::missing(
            Cause::KernelLacks,
            "no device, and no InfiniBand in the kernel",
            format!("{} is not there", class.display()),
        )
        .remedy("a kernel with CONFIG_INFINIBAND, and a device or the module rdma_rxe");
    };
    let mut devices: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| described(&entry.path()))
        .collect();
    devices.sort();
    if devices.is_empty() {
        return Seen::missing(
            Cause::DeviceLacks,
            "no device",
            format!("{} is empty", class.display()),
        )
        .remedy("soft-RoCE for trying: rdma link add rxe0 type rxe netdev DEVICE (as root)");
    }
    Seen::unknown(
        format!("{} found; no transfer was tried", devices.join(", ")),
        format!("{} lists {}", class.display(), devices.join(", ")),
    )
    .fact("devices", devices)
}

/// `rxe0 (ACTIVE)`
fn described(device: &Path) -> String {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let states = fs::read_dir(device.join("ports")).ok();
    let mut states: Vec<_> = states
        .into_iter()
        .flatten()
        .filter_map(|port| fs::read_to_string(port.ok()?.path().join("state")).ok())
        // `4: ACTIVE`
        .filter_map(|state| Some(state.split_once(": ")?.1.trim().to_owned()))
        .collect();
    states.sort();
    if states.is_empty() {
        return name.into_owned();
    }
    format!("{name} ({})", states.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::report::Status;

    #[test]
    fn devices_are_named_with_the_state_of_their_ports() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(look(class.path()).of(&RDMA).status, Status::Missing);
        let port = class.path().join("rxe0/ports/1");
        fs::create_dir_all(&port).unwrap();
        fs::write(port.join("state"), "4: ACTIVE\n").unwrap();
        fs::create_dir(class.path().join("mlx5_0")).unwrap();
        let finding = look(class.path()).of(&RDMA);
        assert_eq!(finding.status, Status::Unknown, "nothing was transferred");
        let reason = finding.reason.unwrap();
        assert!(
            reason.starts_with("mlx5_0, rxe0 (ACTIVE) found"),
            "{reason}"
        );
        let gone = look(&class.path().join("gone")).of(&RDMA);
        assert_eq!(gone.cause, Some(Cause::KernelLacks));
    }
}
