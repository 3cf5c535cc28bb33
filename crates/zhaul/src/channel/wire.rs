//! What two ends of a channel say to one another, as bytes and words, and how it is judged. Pure.
//!
//! A control message is one SOCK_SEQPACKET message of [`CONTROL_BYTES`]; descriptors and tickets are
//! entries of rings in shared memory. All of it may come from somebody who means harm, so decoding
//! accepts exactly what encoding makes, and a descriptor says nothing until it was
//! [checked](Descriptor::range).
//!
//! | message | from | descriptors that come with it |
//! |---|---|---|
//! | `Hello` | both, first | the memfd of the ring that its sender writes |
//! | `Pool` | sender, before the first descriptor into it | the pool's memfd, then 1 to [`MAX_LEASES`] sockets that are kept open as long as the memory may be read |
//! | `Retire` | sender | none: the pool will not be named again |
//! | `Finish` | sender: all was sent; receiver: nothing more is taken | none |
//! | `Wake` | both, to a peer that said that it sleeps on the socket | none |

use std::fmt;
use std::ops::Range;

use zhaul_sys::memfd_seals::MemfdRefusal;

/// Bytes of a control message.
pub const CONTROL_BYTES: usize = 16;
/// Words of a descriptor in its ring.
pub const DESCRIPTOR_WORDS: usize = 4;
/// How many processes a buffer may be lent through, one after another.
pub const MAX_LEASES: usize = 4;
/// How many pools a channel refers to at one time.
pub const MAX_POOLS: u32 = 64;
/// The largest window, in buffers.
pub const MAX_WINDOW: u32 = 1 << 16;

const VERSION: u8 = 1;

/// A message on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The first message of each side.
    Hello {
        /// How many buffers may be out at one time: a power of two, at most [`MAX_WINDOW`].
        window: u32,
    },
    /// Memory that descriptors will name.
    Pool {
        /// Its number. It takes the place of the pool whose number is the same modulo [`MAX_POOLS`].
        serial: u32,
    },
    /// Memory that no descriptor will name again.
    Retire {
        /// Its number.
        serial: u32,
    },
    /// Nothing follows.
    Finish,
    /// Something is in the ring.
    Wake,
}

impl Control {
    /// The message as it is sent.
    pub fn encode(self) -> [u8; CONTROL_BYTES] {
        let (kind, value) = match self {
            Self::Hello { window } => (1, window),
            Self::Pool { serial } => (2, serial),
            Self::Retire { serial } => (3, serial),
            Self::Finish => (4, 0),
            Self::Wake => (5, 0),
        };
        let mut bytes = [0; CONTROL_BYTES];
        bytes[0] = kind;
        bytes[1] = VERSION;
        bytes[4..8].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    /// The message that these bytes are.
    ///
    /// # Errors
    /// [`Violation::Malformed`] for anything that [`encode`](Self::encode) does not make, and
    /// [`Violation::Window`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Violation> {
        let bytes: &[u8; CONTROL_BYTES] = bytes.try_into().map_err(|_| Violation::Malformed)?;
        let value = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let message = match bytes[0] {
            1 => Self::Hello { window: value },
            2 => Self::Pool { serial: value },
            3 => Self::Retire { serial: value },
            4 => Self::Finish,
            5 => Self::Wake,
            _ => return Err(Violation::Malformed),
        };
        if message.encode() != *bytes {
            return Err(Violation::Malformed);
        }
        if let Self::Hello { window } = message
            && !(window.is_power_of_two() && window <= MAX_WINDOW)
        {
            return Err(Violation::Window { window });
        }
        Ok(message)
    }

    /// How many descriptors may come with it.
    pub const fn descriptors(self) -> Range<usize> {
        match self {
            Self::Hello { .. } => 1..2,
            Self::Pool { .. } => 2..MAX_LEASES + 2,
            Self::Retire { .. } | Self::Finish | Self::Wake => 0..1,
        }
    }
}

/// Names a buffer that is out, so that it can be given back once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Below the window.
    pub index: u32,
    /// How often the index was used before, modulo 2^32.
    pub generation: u32,
}

impl Ticket {
    /// The word of the ring of the receiver.
    pub const fn encode(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// Every word is a ticket, if mostly one that is not out.
    pub const fn decode(word: u64) -> Self {
        Self {
            index: word as u32,
            generation: (word >> 32) as u32,
        }
    }
}

/// A buffer that is handed over: where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The pool's number.
    pub pool: u32,
    /// What names it when it is given back.
    pub ticket: Ticket,
    /// Its first byte in the pool.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl Descriptor {
    /// The words of the ring of the sender.
    pub const fn encode(self) -> [u64; DESCRIPTOR_WORDS] {
        let pool = (self.pool as u64) << 32;
        [
            pool | self.ticket.index as u64,
            self.ticket.generation as u64,
            self.offset,
            self.len,
        ]
    }

    /// What these words say, which may be nonsense.
    ///
    /// # Errors
    /// [`Violation::Malformed`] for what [`encode`](Self::encode) does not make.
    pub fn decode(words: [u64; DESCRIPTOR_WORDS]) -> Result<Self, Violation> {
        let generation = u32::try_from(words[1]).map_err(|_| Violation::Malformed)?;
        Ok(Self {
            pool: (words[0] >> 32) as u32,
            ticket: Ticket {
                index: words[0] as u32,
                generation,
            },
            offset: words[2],
            len: words[3],
        })
    }

    /// Its bytes in a pool of so many.
    ///
    /// # Errors
    /// [`Violation::OutOfPool`].
    pub fn range(&self, pool_bytes: u64) -> Result<Range<u64>, Violation> {
        match self.offset.checked_add(self.len) {
            Some(end) if end <= pool_bytes => Ok(self.offset..end),
            _ => Err(Violation::OutOfPool {
                offset: self.offset,
                len: self.len,
                pool_bytes,
            }),
        }
    }
}

/// How many entries of a ring are new, if the counter that its writer shows is one that he can have.
///
/// # Errors
/// [`Violation::RingOverrun`] if there would be more than `most`.
pub fn new_entries(published: u32, taken: u32, most: u32) -> Result<u32, Violation> {
    let ahead = published.wrapping_sub(taken);
    if ahead > most {
        return Err(Violation::RingOverrun { ahead, most });
    }
    Ok(ahead)
}

/// What a peer did that it must not do. The channel ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A message or a descriptor that is none, or of another version.
    Malformed,
    /// A message that does not belong there.
    Unexpected(Control),
    /// More or fewer descriptors than the message has.
    Descriptors {
        /// How many came.
        came: usize,
    },
    /// A window that is no power of two, or larger than is accepted.
    Window {
        /// The window.
        window: u32,
    },
    /// Memory that could change under us in ways that it must not.
    Memory(MemfdRefusal),
    /// A ring shorter than its window.
    RingTooShort,
    /// A pool larger than is accepted.
    PoolTooLarge {
        /// Its bytes.
        bytes: u64,
    },
    /// A pool that its maker can write to, where only sealed ones are accepted.
    NotImmutable,
    /// A lease that is not a UNIX socket.
    Lease,
    /// A descriptor into a pool that was not announced.
    UnknownPool {
        /// The number.
        serial: u32,
    },
    /// A pool retired, or another in its place, while buffers of it are out.
    PoolInUse {
        /// The number that was to be taken.
        serial: u32,
    },
    /// A descriptor that reaches out of its pool.
    OutOfPool {
        /// Its first byte.
        offset: u64,
        /// Its bytes.
        len: u64,
        /// Those of the pool.
        pool_bytes: u64,
    },
    /// A counter that is ahead of what the window allows.
    RingOverrun {
        /// By how many entries.
        ahead: u32,
        /// How many it may be.
        most: u32,
    },
    /// A buffer given back that is not out: twice, or never sent.
    NotOut(Ticket),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "a message that cannot be understood"),
            Self::Unexpected(message) => write!(f, "{message:?} where it does not belong"),
            Self::Descriptors { came } => write!(f, "a message with {came} descriptors"),
            Self::Window { window } => write!(f, "a window of {window} buffers"),
            Self::Memory(MemfdRefusal::NotMemfd) => write!(f, "memory that is no memfd"),
            Self::Memory(MemfdRefusal::Unsealed) => {
                write!(f, "a memfd that can shrink or be written to by others")
            }
            Self::Memory(MemfdRefusal::Sparse) => write!(f, "a memfd with holes"),
            Self::RingTooShort => write!(f, "a ring shorter than its window"),
            Self::PoolTooLarge { bytes } => write!(f, "a pool of {bytes} bytes"),
            Self::NotImmutable => write!(f, "a pool that is not sealed against writing"),
            Self::Lease => write!(f, "a lease that is no UNIX socket"),
            Self::UnknownPool { serial } => write!(f, "a buffer of the unknown pool {serial}"),
            Self::PoolInUse { serial } => {
                write!(f, "pool {serial} in the place of one that is in use")
            }
            Self::OutOfPool {
                offset,
                len,
                pool_bytes,
            } => write!(
                f,
                "a buffer of {len} bytes at {offset} of a pool of {pool_bytes}"
            ),
            Self::RingOverrun { ahead, most } => {
                write!(f, "a ring {ahead} entries ahead where {most} are allowed")
            }
            Self::NotOut(ticket) => write!(
                f,
                "buffer {} of generation {} given back, which is not out",
                ticket.index, ticket.generation
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Control; 5] = [
        Control::Hello { window: 64 },
        Control::Pool { serial: u32::MAX },
        Control::Retire { serial: 7 },
        Control::Finish,
        Control::Wake,
    ];

    #[test]
    fn messages_come_back_as_they_were() {
        for message in ALL {
            assert_eq!(Control::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn any_other_byte_makes_another_message_or_none() {
        for message in ALL {
            let bytes = message.encode();
            for at in 0..CONTROL_BYTES {
                for bit in 0..8 {
                    let mut other = bytes;
                    other[at] ^= 1 << bit;
                    if let Ok(decoded) = Control::decode(&other) {
                        assert_eq!(decoded.encode(), other);
                        assert_ne!(decoded, message);
                    }
                }
            }
            assert_eq!(Control::decode(&bytes[1..]), Err(Violation::Malformed));
        }
    }

    #[test]
    fn a_window_is_a_power_of_two_within_bounds() {
        for window in [0, 3, MAX_WINDOW + 1, MAX_WINDOW * 2, u32::MAX] {
            let bytes = Control::Hello { window }.encode();
            assert_eq!(Control::decode(&bytes), Err(Violation::Window { window }));
        }
    }

    #[test]
    fn a_range_that_overflows_is_out_of_the_pool() {
        let mut descriptor = Descriptor {
            pool: 0,
            ticket: Ticket::decode(u64::MAX),
            offset: u64::MAX,
            len: 2,
        };
        assert!(descriptor.range(u64::MAX).is_err());
        descriptor.offset = 4095;
        assert!(descriptor.range(4096).is_err());
        assert_eq!(descriptor.range(4097), Ok(4095..4097));
    }

    #[test]
    fn counters_may_wrap_and_not_run_ahead() {
        assert_eq!(new_entries(2, u32::MAX, 8), Ok(3));
        assert!(new_entries(0, 1, 8).is_err());
        assert!(new_entries(9, 0, 8).is_err());
    }
}
