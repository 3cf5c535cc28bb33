//! `ioctl(2)` SIOCETHTOOL: what a network device does by itself.
//!
//! Only questions, which any user may ask.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// A feature of a device that is switched on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// ETHTOOL_GLINK: it is up and has a link.
    Link,
    /// ETHTOOL_GTXCSUM: it computes checksums of what it sends.
    TxChecksum,
    /// ETHTOOL_GSG: it gathers a packet from several pages.
    ScatterGather,
    /// ETHTOOL_GTSO: it cuts a large TCP segment into packets.
    TcpSegmentation,
    /// ETHTOOL_GGSO: the kernel cuts large segments just before the device.
    GenericSegmentation,
    /// ETHTOOL_GFLAGS: it steers flows to receive queues by rules (n-tuple filters).
    FlowSteering,
}

impl Feature {
    const fn command(self) -> u32 {
        match self {
            Self::Link => 0x0a,
            Self::TxChecksum => 0x16,
            Self::ScatterGather => 0x18,
            Self::TcpSegmentation => 0x1e,
            Self::GenericSegmentation => 0x23,
            Self::FlowSteering => 0x25,
        }
    }

    /// The bits of the answer that say so.
    const fn bits(self) -> u32 {
        match self {
            // ETH_FLAG_NTUPLE
            Self::FlowSteering => 1 << 27,
            _ => u32::MAX,
        }
    }
}

/// Whether the device named `interface` has the feature switched on; `socket` is any socket of the
/// network namespace.
///
/// # Errors
/// ENODEV if there is no such device, EINVAL for a name too long for one, EOPNOTSUPP if it does not
/// tell.
pub fn is_on(socket: BorrowedFd<'_>, interface: &str, feature: Feature) -> io::Result<bool> {
    let mut value = Value {
        command: feature.command(),
        data: 0,
    };
    ask(socket, interface, &mut value)?;
    Ok(value.data & feature.bits() != 0)
}

/// What drives a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// Name of the driver; empty if it has none.
    pub name: String,
    /// Where on a bus the device sits, such as `0000:00:03.0`; empty if it sits on none. Some
    /// virtual ones say `N/A`, `tun` or `tap`.
    pub bus: String,
}

/// What drives the device.
///
/// # Errors
/// As [`is_on`]; virtual devices may have none.
pub fn driver(socket: BorrowedFd<'_>, interface: &str) -> io::Result<Driver> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware_version: [0; 32],
        bus: [0; 32],
        rest: [0; 64],
    };
    ask(socket, interface, &mut info)?;
    Ok(Driver {
        name: text(&info.driver),
        bus: text(&info.bus),
    })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// A struct that begins with one of the commands of `linux/ethtool.h` which read and store no more
/// than the struct.
trait Question {}
impl Question for Value {}
impl Question for DriverInfo {}

fn ask<Q: Question>(socket: BorrowedFd<'_>, interface: &str, question: &mut Q) -> io::Result<()> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        data: std::ptr::from_mut(question).cast(),
        rest: [0; 16],
    };
    let name = interface.as_bytes();
    // The last byte stays NUL.
    if name.len() >= request.name.len() || name.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name);
    // SAFETY: the descriptor is borrowed for the call; the request is a struct ifreq with a
    // terminated name, and its data a struct that is large enough for its command and borrowed for
    // the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) }).map(drop)
}

/// `struct ifreq` with `ifr_data`.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut libc::c_void,
    rest: [u8; 16],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware_version: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
const _: () = assert!(size_of::<DriverInfo>() == 196);
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn loopback_gathers() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(is_on(socket.as_fd(), "lo", Feature::ScatterGather).unwrap());
        assert!(is_on(socket.as_fd(), "lo", Feature::TxChecksum).unwrap());
        assert!(!is_on(socket.as_fd(), "lo", Feature::FlowSteering).unwrap());
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = is_on(socket.as_fd(), "no-such-device", Feature::ScatterGather).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(driver(socket.as_fd(), "a-name-of-sixteen").is_err());
        assert!(driver(socket.as_fd(), "nul\0").is_err());
    }
}
