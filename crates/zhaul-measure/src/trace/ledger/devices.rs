//! What went to and came from devices: that is moved by DMA, or made to look so.

use std::collections::BTreeMap;

/// What one device moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// Requests or packets.
    pub(crate) operations: u64,
    /// Bytes to the device.
    pub(crate) bytes_out: u64,
    /// Bytes from the device.
    pub(crate) bytes_in: u64,
    /// Of the bytes out: in page fragments.
    pub(crate) gathered: u64,
}

/// All devices, by name and by who was running.
#[derive(Clone, Debug, Default)]
pub(crate) struct Devices {
    /// Packets: by device, and whether a traced thread was running.
    pub(crate) net: BTreeMap<(String, bool), Device>,
    /// Requests: by the numbers of the device, and whether a traced thread was running.
    pub(crate) block: BTreeMap<((u32, u32), bool), Device>,
}

impl Devices {
    pub(crate) fn transmit(&mut self, traced: bool, device: String, bytes: u64, gathered: u64) {
        let account = self.net.entry((device, traced)).or_default();
        account.operations += 1;
        account.bytes_out += bytes;
        account.gathered += gathered;
    }

    pub(crate) fn block(&mut self, traced: bool, device: (u32, u32), bytes: u64, write: bool) {
        let account = self.block.entry((device, traced)).or_default();
        account.operations += 1;
        if write {
            account.bytes_out += bytes;
        } else {
            account.bytes_in += bytes;
        }
    }
}
