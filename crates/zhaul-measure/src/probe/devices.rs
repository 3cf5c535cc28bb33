//! Network devices, and what they do with pages by themselves.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use zhaul_sys::ethtool::{Driver, Feature, driver, is_on};
use zhaul_sys::ethtool_rings::splits_headers;
use zhaul_sys::getifaddrs::interface_addresses;
use zhaul_sys::if_nameindex::{Interface, interfaces};

use super::report::{Device, Gathering};

/// The devices of this network namespace, those that carry bytes away first.
pub(super) fn look() -> Vec<Device> {
    let found = interfaces().unwrap_or_default();
    let socket = any_socket();
    let mut devices: Vec<_> = found
        .iter()
        .map(|interface| describe(interface, socket.as_ref()))
        .collect();
    devices.sort_by_key(|device| (!device.physical, !device.up));
    devices
}

/// Any socket will do to ask.
fn any_socket() -> Option<OwnedFd> {
    let v4 = UdpSocket::bind("127.0.0.1:0");
    let any = v4.or_else(|_| UdpSocket::bind("[::1]:0"));
    match any {
        Ok(socket) => Some(socket.into()),
        Err(_) => std::os::unix::net::UnixDatagram::unbound()
            .ok()
            .map(Into::into),
    }
}

fn describe(interface: &Interface, socket: Option<&OwnedFd>) -> Device {
    let name = interface.name.as_str();
    let node = Path::new("/sys/class/net").join(name);
    // That directory may be of another namespace, where the name belongs to another device.
    let is_ours = number(&node.join("ifindex")) == Some(interface.index.into());
    let driver = socket
        .and_then(|socket| driver(socket.as_fd(), name).ok())
        .unwrap_or_default();
    let physical = if is_ours {
        node.join("device").exists()
    } else {
        sits_on_a_bus(&driver)
    };
    let feature = |feature| is_on(socket?.as_fd(), name, feature).ok();
    let scatter_gather = feature(Feature::ScatterGather);
    let tx_checksum = feature(Feature::TxChecksum);
    let (sendfile, reason) = judge(name, physical, scatter_gather, tx_checksum);
    Device {
        name: name.to_owned(),
        driver: Some(driver.name).filter(|name| !name.is_empty()),
        physical,
        up: feature(Feature::Link).unwrap_or(false),
        // A device without a link, and many a virtual one, says nothing or the largest number.
        speed_mbit: number(&node.join("speed"))
            .filter(|&speed| is_ours && speed > 0 && speed < u64::from(u32::MAX)),
        scatter_gather,
        tx_checksum,
        tso: feature(Feature::TcpSegmentation),
        gso: feature(Feature::GenericSegmentation),
        header_split: splits_headers(interface.index),
        flow_steering: feature(Feature::FlowSteering),
        sendfile,
        reason: reason.to_owned(),
    }
}

/// For devices that `/sys` does not show.
fn sits_on_a_bus(driver: &Driver) -> bool {
    !["", "N/A", "tun", "tap"].contains(&driver.bus.as_str())
}

/// Whether the device that carries packets of this address of ours gathers pages; `None` if that
/// cannot be found out.
pub(super) fn gathers(own: IpAddr) -> Option<(String, bool)> {
    let addresses = interface_addresses().ok()?;
    let entry = addresses.into_iter().find(|entry| entry.address == own)?;
    let socket = any_socket()?;
    let gathers = is_on(socket.as_fd(), &entry.interface, Feature::ScatterGather).ok()?;
    Some((entry.interface, gathers))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn judge(
    name: &str,
    physical: bool,
    scatter_gather: Option<bool>,
    tx_checksum: Option<bool>,
) -> (Gathering, &'static str) {
    match (scatter_gather, tx_checksum) {
        (None, _) => (Gathering::Unknown, "it does not tell"),
        (Some(false), _) => (
            Gathering::CopiesOnce,
            "no scatter/gather: the kernel joins the pages of each packet",
        ),
        (Some(true), _) if name == "lo" => (
            Gathering::PassesOn,
            "the receiver's queue gets the very pages",
        ),
        (Some(true), _) if !physical => (
            Gathering::PassesOn,
            "no device of its own: pages go on to what is behind it",
        ),
        (Some(true), Some(false)) => (
            Gathering::Gathers,
            "takes pages in place, but the CPU reads them for checksums",
        ),
        (Some(true), _) => (Gathering::Gathers, "takes pages where they lie"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scatter_gather_on_a_real_device_gathers() {
        let of = |name, physical, sg| judge(name, physical, sg, Some(true)).0;
        assert_eq!(of("eth0", true, Some(true)), Gathering::Gathers);
        assert_eq!(of("eth0", true, Some(false)), Gathering::CopiesOnce);
        assert_eq!(of("eth0", true, None), Gathering::Unknown);
        assert_eq!(of("veth0", false, Some(true)), Gathering::PassesOn);
        assert_eq!(of("tun0", false, Some(false)), Gathering::CopiesOnce);
        assert_eq!(of("lo", false, Some(true)), Gathering::PassesOn);
    }

    #[test]
    fn loopback_is_found_and_is_no_device() {
        let devices = look();
        let lo = devices.iter().find(|device| device.name == "lo").unwrap();
        assert!(!lo.physical && lo.speed_mbit.is_none(), "{lo:?}");
    }
}
