//! Two network name spaces, and TCP connections between them over pairs of devices.
//!
//! The guest's init made the name spaces `near` and `far` and put one device of each pair into
//! either; QEMU joins the two of a pair by a hub. The kernel at both ends is the same, but packets
//! pass through two devices by DMA, as they would between two machines.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use zhaul_sys::ethtool::{Feature, is_on};

/// A pair of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// virtio-net. It gathers, sums and segments where the host could make a bridge for it.
    Virtio,
    /// An emulated Intel 82574 (e1000e), which gathers, sums and segments always.
    Gather,
    /// virtio-net on a hub, which knows no virtio-net header: no scatter/gather, no checksums, no
    /// segmentation in the device.
    Plain,
}

impl Device {
    pub(crate) const ALL: [Self; 3] = [Self::Virtio, Self::Gather, Self::Plain];

    /// Those that take packets in fragments: two where the host could make a bridge, else one.
    pub(crate) fn gathering() -> Vec<Self> {
        let mut devices = vec![Self::Gather];
        if Self::Virtio.gathers() {
            devices.push(Self::Virtio);
        } else {
            println!("(virtio-net has no offloads on this host and is left out)");
        }
        devices
    }

    /// Whether it takes packets in fragments, as its driver says.
    pub(crate) fn gathers(self) -> bool {
        within("near", || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            is_on(socket.as_fd(), self.near(), Feature::ScatterGather).unwrap()
        })
    }
}

impl Device {
    /// The name of the device in the name space `near`.
    pub(crate) const fn near(self) -> &'static str {
        match self {
            Self::Virtio => "near-virtio",
            Self::Gather => "near-gather",
            Self::Plain => "near-plain",
        }
    }

    const fn far_address(self) -> &'static str {
        match self {
            Self::Virtio => "10.77.0.2:0",
            Self::Gather => "10.77.1.2:0",
            Self::Plain => "10.77.2.2:0",
        }
    }
}

/// Runs `work` on a thread in a network name space, with the `/sys` that belongs to it.
pub(crate) fn within<T: Send>(space: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(space);
            work()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn enter(space: &str) {
    let link = File::open(format!("/run/netns/{space}")).unwrap();
    move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    #[expect(
        deprecated,
        reason = "it is unsafe only where it takes the descriptor table apart"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
    for (kind, place) in [("sysfs", "/sys"), ("tracefs", "/sys/kernel/tracing")] {
        rustix::mount::mount(kind, place, kind, MountFlags::empty(), None).unwrap();
    }
}

/// A connection over a pair of devices: the socket in `near`, the socket in `far`.
pub(crate) fn connection(device: Device) -> (TcpStream, TcpStream) {
    connect_to(&listener(device))
}

/// The same, with room at the far end for everything that a test sends. Where there is too little
/// the kernel copies what was received to press it together, and whether it has to depends on when
/// the reader gets its turn.
pub(crate) fn roomy_connection(device: Device) -> (TcpStream, TcpStream) {
    let listener = listener(device);
    set_socket_recv_buffer_size_force(&listener, 32 << 20).unwrap();
    connect_to(&listener)
}

fn listener(device: Device) -> TcpListener {
    within("far", || TcpListener::bind(device.far_address()).unwrap())
}

/// Two datagram sockets with a pair of devices between them; that in `near` is connected.
pub(crate) fn datagram_ends(device: Device) -> (UdpSocket, UdpSocket) {
    let far = within("far", || UdpSocket::bind(device.far_address()).unwrap());
    far.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let address = far.local_addr().unwrap();
    let near = within("near", || UdpSocket::bind("0.0.0.0:0").unwrap());
    near.connect(address).unwrap();
    (near, far)
}

fn connect_to(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let address = listener.local_addr().unwrap();
    let near = within("near", || connect(address));
    (near, listener.accept().unwrap().0)
}

/// The other side may not have answered yet who it is: on a busy host that takes longer than the
/// kernel waits for.
fn connect(address: SocketAddr) -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Err(error)
                if error.kind() == ErrorKind::HostUnreachable
                    && began.elapsed() < Duration::from_secs(30) => {}
            connected => return connected.unwrap(),
        }
    }
}

/// A connection over loopback.
pub(crate) fn loopback() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}
