//! What the kernel says of `MSG_ZEROCOPY` sends when it is done with their pages: whether it copied
//! after all, as it does on loopback and where a device cannot gather.

use super::super::event::Call;
use super::super::world::World;
use super::Ledger;
use super::descriptors::fd;
use super::moves::{MSGHDR_BYTES, word};

impl<W: World> Ledger<W> {
    /// `recvmsg(fd, header, MSG_ERRQUEUE)` gives one completion, for a range of sends.
    pub(super) fn completions(&mut self, call: &Call) {
        if call.arguments[2] as i32 & libc::MSG_ERRQUEUE == 0 {
            return;
        }
        let Some((sends, copied)) = self.completion(call) else {
            return;
        };
        let socket = self.object(call.task.pid, fd(call.arguments[0]));
        socket.completed(sends, copied);
    }

    fn completion(&mut self, call: &Call) -> Option<(u64, bool)> {
        let (header, _) = self.arguments_at(call, call.arguments[1], MSGHDR_BYTES)?;
        let length = word(&header, MSG_CONTROLLEN).min(CONTROL_AT_MOST);
        let length = usize::try_from(length).ok()?;
        let (control, _) = self.arguments_at(call, word(&header, MSG_CONTROL), length)?;
        let extended = control.get(CMSG_BYTES..CMSG_BYTES + EXTENDED_ERR_BYTES)?;
        if extended[EE_ORIGIN] != SO_EE_ORIGIN_ZEROCOPY {
            return None;
        }
        let number = |at: usize| {
            let bytes = extended[at..at + 4].try_into();
            u32::from_ne_bytes(bytes.unwrap_or_default())
        };
        // Numbers of sends, first and last; they wrap around.
        let sends = number(EE_DATA).wrapping_sub(number(EE_INFO));
        Some((
            u64::from(sends) + 1,
            extended[EE_CODE] & SO_EE_CODE_ZEROCOPY_COPIED != 0,
        ))
    }
}

/// `struct msghdr`, `struct cmsghdr` and `struct sock_extended_err`.
const MSG_CONTROL: usize = 32;
const MSG_CONTROLLEN: usize = 40;
const CMSG_BYTES: usize = 16;
const EXTENDED_ERR_BYTES: usize = 16;
const EE_ORIGIN: usize = 4;
const EE_CODE: usize = 6;
const EE_INFO: usize = 8;
const EE_DATA: usize = 12;
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;
const CONTROL_AT_MOST: u64 = 128;
