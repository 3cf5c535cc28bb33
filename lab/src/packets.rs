//! What the kernel hands to a device: of each packet, how much lies in its linear part and how much
//! in page fragments; and what the kernel copied on the way there, on whichever CPU.

use std::sync::LazyLock;

use zhaul_measure::perf::{Kind, Session, Symbols, Target, Tracefs};

use crate::meter;

/// A packet handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Bytes in all, link header included.
    pub(crate) len: u64,
    /// Of those, in page fragments: gathered by the device, not copied in front of it.
    pub(crate) data_len: u64,
}

impl Packet {
    /// Bytes that lie in the packet itself.
    pub(crate) const fn linear(self) -> u64 {
        self.len - self.data_len
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Those that carry payload, in order.
    pub(crate) packets: Vec<Packet>,
    /// Bytes that `skb_copy_bits` copied out of packets, on all CPUs.
    pub(crate) copied_out: u64,
    /// Packets whose borrowed pages were copied (`skb_copy_ubufs`).
    pub(crate) unborrowed: u64,
}

impl Seen {
    /// Payload and headers in all packets.
    pub(crate) fn bytes(&self) -> u64 {
        self.packets.iter().map(|packet| packet.len).sum()
    }
}

/// Watches the whole guest while `work` runs, and the packets that go out by `interface`.
pub(crate) fn watch<T>(interface: &str, work: impl FnOnce() -> T) -> (Seen, T) {
    meter::close();
    let tracefs = Tracefs::find().unwrap();
    let transmit = tracefs.tracepoint("net:net_dev_start_xmit").unwrap();
    let field = |name: &str| transmit.format.field(name).unwrap();
    let (name, len, data_len) = (field("name"), field("len"), field("data_len"));

    let mut builder = Session::builder();
    builder.ring_bytes(4 << 20);
    let sent = builder.tracepoint(&transmit, None);
    let [copy_bits, copy_ubufs] = *ROUTINES;
    let copy_bits = builder.breakpoint("skb_copy_bits", copy_bits, LENGTH_REGISTER, false);
    let copy_ubufs = builder.breakpoint("skb_copy_ubufs", copy_ubufs, 0, false);
    let mut session = builder.attach(Target::System).unwrap();
    session.enable().unwrap();
    let result = work();
    session.disable().unwrap();

    let mut seen = Seen::default();
    session.drain_all(|record| match record.kind {
        Kind::Tracepoint { event, raw, .. } if event == sent => {
            let packet = Packet {
                len: len.unsigned(raw).unwrap(),
                data_len: data_len.unsigned(raw).unwrap(),
            };
            if packet.len > LONGEST_HEADERS_BYTES && name.text(raw).unwrap() == interface {
                seen.packets.push(packet);
            }
        }
        Kind::Breakpoint {
            event, registers, ..
        } if event == copy_bits => {
            seen.copied_out += registers.at(0).unwrap();
        }
        Kind::Breakpoint { event, .. } if event == copy_ubufs => seen.unborrowed += 1,
        _ => {}
    });
    assert_eq!(session.lost().unwrap(), 0, "records were lost");
    (seen, result)
}

/// Where `skb_copy_bits` and `skb_copy_ubufs` begin.
static ROUTINES: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let symbols = Symbols::load().unwrap();
    ["skb_copy_bits", "skb_copy_ubufs"].map(|name| symbols.address_of(name).unwrap())
});

/// Ethernet, IPv4 and TCP with timestamps: the headers of a packet with payload.
pub(crate) const HEADERS_BYTES: u64 = 14 + 20 + 32;

/// What is not longer is a handshake or an acknowledgement.
const LONGEST_HEADERS_BYTES: u64 = 14 + 20 + 60;

/// The fourth argument on x86-64, CX, in the numbering of `perf_regs.h`.
const LENGTH_REGISTER: u64 = 1 << 2;
