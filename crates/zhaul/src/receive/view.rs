//! What one receive brought.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd;

use zhaul_sys::tcp_zerocopy_receive::ReceiveWindow;

use super::figures::Copying;

/// Bytes of a stream, some of which may be pages of the kernel's. They stay until the next receive,
/// also when the connection ends or is reset meanwhile, and cannot be looked at after it:
///
/// ```compile_fail,E0499
/// # fn example(mut receiver: zhaul::receive::ZeroCopyReceiver<std::net::TcpStream>) {
/// let first = receiver.receive().unwrap().unwrap();
/// let second = receiver.receive().unwrap().unwrap();
/// println!("{}", first.len() + second.len());
/// # }
/// ```
#[derive(Debug)]
pub struct ReceivedBytes<'r> {
    /// With pages in it.
    pub(super) window: Option<&'r ReceiveWindow>,
    /// What follows them.
    pub(super) copied: &'r [u8],
    pub(super) why: Option<Copying>,
}

impl<'r> ReceivedBytes<'r> {
    /// All bytes.
    pub fn len(&self) -> usize {
        self.mapped_len() + self.copied.len()
    }

    /// True if no bytes were asked for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that were mapped: the first ones.
    pub fn mapped_len(&self) -> usize {
        self.window.map_or(0, ReceiveWindow::mapped)
    }

    /// Why the bytes after those were copied; `None` if there are none.
    pub const fn copying(&self) -> Option<Copying> {
        self.why
    }

    /// The mapped bytes, then the copied ones, without copying. `None` if the process that sent them
    /// may still write to what is mapped.
    pub fn slices(&self) -> Option<[&'r [u8]; 2]> {
        let mapped = match self.window {
            Some(window) => window.as_slice()?,
            None => &[],
        };
        Some([mapped, self.copied])
    }

    /// All bytes in one piece: borrowed if they are in one and nobody may write to it, else copied.
    pub fn bytes(&self) -> Cow<'r, [u8]> {
        match self.slices() {
            Some([mapped, []]) => Cow::Borrowed(mapped),
            Some([[], copied]) => Cow::Borrowed(copied),
            _ => {
                let mut bytes = vec![0; self.len()];
                self.copy_to(&mut bytes);
                Cow::Owned(bytes)
            }
        }
    }

    /// Copies the first bytes, whoever may write to them meanwhile, and returns how many that were.
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        let mapped = self.window.map_or(0, |window| window.copy_to(target));
        let target = &mut target[mapped..];
        let copied = target.len().min(self.copied.len());
        target[..copied].copy_from_slice(&self.copied[..copied]);
        mapped + copied
    }

    /// Writes all bytes to a descriptor at its own position, out of the pages where they are mapped.
    ///
    /// # Errors
    /// As `write(2)`, WouldBlock of a non-blocking descriptor included; some bytes may have been
    /// written then.
    pub fn write_to(&self, sink: impl AsFd) -> io::Result<()> {
        let sink = sink.as_fd();
        let mut written = 0;
        while written < self.len() {
            let mapped = self.mapped_len();
            let result = match self.window {
                Some(window) if written < mapped => window.write_to(sink, written),
                _ => rustix::io::write(sink, &self.copied[written - mapped..]).map_err(Into::into),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
