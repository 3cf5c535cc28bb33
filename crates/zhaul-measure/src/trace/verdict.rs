//! The sentence on a flow: what it cost per byte, and what another way would cost.

use super::object::Kind;

/// What a verdict is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) source: Kind,
    pub(crate) sink: Kind,
    pub(crate) calls: &'a [&'static str],
    pub(crate) copies_per_byte: f64,
    /// The average length of what went at a time.
    pub(crate) portion_bytes: u64,
    /// A file that lies on a file system without shared blocks, or nothing is known.
    pub(crate) inferred: bool,
}

/// `file → socket: 2.00 CPU copies per byte (read, write); sendfile would make it 0`.
pub(crate) fn verdict(facts: &Facts<'_>) -> String {
    let mut text = format!(
        "{} → {}: {} CPU copies per byte ({}",
        facts.source,
        facts.sink,
        figure(facts.copies_per_byte),
        facts.calls.join(", "),
    );
    if facts.inferred {
        text.push_str("; inferred");
    }
    text.push(')');
    if let Some(advice) = advice(facts) {
        text.push_str("; ");
        text.push_str(advice);
    }
    text
}

/// Whole numbers of no copies are printed as such: `0.00` looks like a rounded something.
pub(crate) fn figure(copies_per_byte: f64) -> String {
    if copies_per_byte == 0.0 {
        "0".to_owned()
    } else {
        format!("{copies_per_byte:.2}")
    }
}

/// What would be better, if anything would.
pub(crate) fn advice(facts: &Facts<'_>) -> Option<&'static str> {
    use Kind::{
        BlockDevice, DirectFile, File, Memfd, Null, Pipe, Program, Tcp, TlsTcp, Udp, Unix, Zero,
    };
    let copies = facts.copies_per_byte;
    if copies < WORTH_A_WORD {
        return None;
    }
    Some(match (facts.source, facts.sink) {
        (File | Memfd | BlockDevice, Tcp | Unix | Udp) => "sendfile would make it 0",
        (DirectFile, Tcp | Udp) => "MSG_ZEROCOPY would make it 0 (except on loopback)",
        (File | Memfd | BlockDevice, TlsTcp) if copies > 1.5 => "sendfile would make it 1",
        (File | Memfd | BlockDevice, Pipe) => "splice would make it 0",
        (Tcp | Unix | Pipe, Tcp | Unix | Udp | Pipe) => "splice would make it 0",
        (Tcp | Unix | Pipe, TlsTcp) if copies > 1.5 => "splice would make it 1",
        (Tcp | Unix | Pipe, File | Memfd | BlockDevice) if copies > 1.5 => "splice would make it 1",
        (File, File) if copies > 1.5 => {
            "copy_file_range would make it 1, or 0 where the file system can share blocks"
        }
        (File, File) => "sharing blocks (reflink) would make it 0, where the file system can",
        (File | Memfd | BlockDevice, Null) => "sendfile would make it 0",
        (source, sink) if source.is_stored() && sink.is_stored() && copies > 1.5 => {
            "splice through a pipe would make it 1"
        }
        (File, Program) if facts.portion_bytes >= LARGE => "mmap would make it 0",
        (Program | Zero, Tcp | Udp) if facts.portion_bytes >= LARGE => {
            "MSG_ZEROCOPY would make it 0 (except on loopback)"
        }
        _ => return None,
    })
}

/// Less than this is the header before a body.
const WORTH_A_WORD: f64 = 0.05;

/// Below this, arranging for no copy costs more than the copy. The kernel's documentation says of
/// MSG_ZEROCOPY: about 10 KB.
const LARGE: u64 = 10_240;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: Kind, sink: Kind, calls: &[&'static str], copies_per_byte: f64) -> String {
        verdict(&Facts {
            source,
            sink,
            calls,
            copies_per_byte,
            portion_bytes: 65_536,
            inferred: false,
        })
    }

    #[test]
    fn the_classic_loop_is_told_of_sendfile() {
        assert_eq!(
            of(Kind::File, Kind::Tcp, &["read", "write"], 2.0),
            "file → socket: 2.00 CPU copies per byte (read, write); sendfile would make it 0"
        );
    }

    #[test]
    fn what_is_good_is_said_without_advice() {
        assert_eq!(
            of(Kind::File, Kind::Tcp, &["sendfile"], 0.0),
            "file → socket: 0 CPU copies per byte (sendfile)"
        );
        assert_eq!(
            of(Kind::Tcp, Kind::Program, &["recvfrom"], 1.0),
            "socket → program: 1.00 CPU copies per byte (recvfrom)"
        );
    }

    #[test]
    fn a_relay_is_told_of_splice_and_a_copy_of_copy_file_range() {
        assert_eq!(
            of(Kind::Tcp, Kind::Tcp, &["recvfrom", "sendto"], 2.0),
            "socket → socket: 2.00 CPU copies per byte (recvfrom, sendto); \
             splice would make it 0"
        );
        assert_eq!(
            of(Kind::File, Kind::File, &["read", "write"], 2.0),
            "file → file: 2.00 CPU copies per byte (read, write); copy_file_range would make it 1, \
             or 0 where the file system can share blocks"
        );
        assert_eq!(
            of(Kind::File, Kind::File, &["copy_file_range"], 1.0),
            "file → file: 1.00 CPU copies per byte (copy_file_range); sharing blocks (reflink) \
             would make it 0, where the file system can"
        );
    }

    #[test]
    fn small_messages_are_not_told_to_avoid_their_copy() {
        let facts = Facts {
            source: Kind::Program,
            sink: Kind::Tcp,
            calls: &["sendto"],
            copies_per_byte: 1.0,
            portion_bytes: 238,
            inferred: false,
        };
        assert_eq!(advice(&facts), None);
    }
}
