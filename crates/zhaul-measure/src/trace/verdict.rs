//! The sentence on a flow: what it cost per byte, and what another way would cost.

use std::fmt::Write as _;

use super::fit::{By, Fit};
use super::object::Kind;

/// What a verdict is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) source: Kind,
    pub(crate) sink: Kind,
    pub(crate) calls: &'a [&'static str],
    /// `None`: nobody knows.
    pub(crate) copies_per_byte: Option<f64>,
    /// Completions of `MSG_ZEROCOPY` sends that were seen, and those that said: copied.
    pub(crate) completions: (u64, u64),
    /// The average length of what went at a time.
    pub(crate) portion_bytes: u64,
    pub(crate) inferred: bool,
    pub(crate) fit: Fit,
}

/// `file → socket: 2.00 CPU copies per byte (read, write); sendfile would make it 0`.
pub(crate) fn verdict(facts: &Facts<'_>) -> String {
    let mut text = format!(
        "{} → {}: {} CPU copies per byte ({}",
        facts.source,
        facts.sink,
        facts.copies_per_byte.map_or("?".to_owned(), figure),
        facts.calls.join(", "),
    );
    if facts.inferred {
        text.push_str("; inferred");
    }
    if let (completed, copied @ 1..) = facts.completions {
        let _ = write!(text, "; copied after all: {copied} of {completed} sends");
    }
    text.push(')');
    if let Some(advice) = advice(facts) {
        text.push_str("; ");
        text.push_str(&advice);
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

/// What would be better, if anything would, and if it can be had.
pub(crate) fn advice(facts: &Facts<'_>) -> Option<String> {
    let copies = facts.copies_per_byte?;
    if copies < WORTH_A_WORD {
        return None;
    }
    if facts.source.is_stored() && facts.sink.is_stored() {
        return between_files(facts, copies).map(str::to_owned);
    }
    match (without_memory(facts, copies), facts.fit.unchanged) {
        (Some(better), Some(true)) => Some(better.to_owned()),
        // What the program did with them in its memory was not seen.
        (Some(better), _) => Some(format!("{better} if the program does not change them")),
        (None, _) => from_memory(facts).map(str::to_owned),
    }
}

/// For bytes that need not pass through the program's memory.
fn without_memory(facts: &Facts<'_>, copies: f64) -> Option<&'static str> {
    use Kind::{BlockDevice, File, Memfd, Null, Pipe, Tcp, TlsTcp, Udp, Unix};
    let fit = facts.fit;
    let (by, better) = match (facts.source, facts.sink) {
        (File | Memfd | BlockDevice, Tcp | Unix | Udp | Null) => {
            (By::Sendfile, "sendfile would make it 0")
        }
        (File | Memfd | BlockDevice, TlsTcp) if copies > TWICE => {
            (By::Sendfile, "sendfile would make it 1")
        }
        (File | Memfd | BlockDevice, Pipe) => (By::Splice, "splice would make it 0"),
        (Tcp | Unix | Pipe, Tcp | Unix | Udp | Pipe) => (By::Splice, "splice would make it 0"),
        (Tcp | Unix | Pipe, TlsTcp) if copies > TWICE => (By::Splice, "splice would make it 1"),
        (Tcp | Unix | Pipe, File | Memfd | BlockDevice) if copies > TWICE && !fit.appends => {
            (By::Splice, "splice would make it 1")
        }
        _ => return None,
    };
    (!fit.is_refused(by)).then_some(better)
}

/// For bytes that go into the program or out of it.
fn from_memory(facts: &Facts<'_>) -> Option<&'static str> {
    use Kind::{DirectFile, File, Program, Tcp, Udp, Unknown, Zero};
    match (facts.source, facts.sink) {
        _ if facts.completions.1 > 0 => Some("without MSG_ZEROCOPY it would cost less"),
        (DirectFile, Tcp | Udp) => Some("MSG_ZEROCOPY would make it 0 (except on loopback)"),
        (File, Program) if facts.portion_bytes >= LARGE => Some("mmap would make it 0"),
        (Program | Unknown | Zero, Tcp | Udp) if facts.portion_bytes >= LARGE => {
            Some("MSG_ZEROCOPY would make it 0 (except on loopback)")
        }
        _ => None,
    }
}

/// Between two things that keep bytes, and only if the bytes are known to have been left as they
/// are: else the program is a transformation and no copy.
fn between_files(facts: &Facts<'_>, copies: f64) -> Option<&'static str> {
    let fit = facts.fit;
    if fit.same_file || fit.appends || fit.unchanged != Some(true) {
        return None;
    }
    let can_share = fit.shares_blocks && !fit.other_file_system && !fit.is_refused(By::Reflink);
    if (facts.source, facts.sink) == (Kind::File, Kind::File) {
        let can_copy = !fit.other_file_system && !fit.is_refused(By::CopyFileRange);
        match copies > TWICE {
            true if can_copy && can_share => {
                return Some(
                    "copy_file_range would make it 1, or 0 where the file system can share blocks",
                );
            }
            true if can_copy => return Some("copy_file_range would make it 1"),
            false => {
                return can_share.then_some(
                    "sharing blocks (reflink) would make it 0, where the file system can",
                );
            }
            true => {}
        }
    }
    let is_better = copies > TWICE && !fit.is_refused(By::Sendfile);
    is_better.then_some("sendfile would make it 1")
}

/// More than this are two copies of each byte.
const TWICE: f64 = 1.5;

/// Less than this is the header before a body.
const WORTH_A_WORD: f64 = 0.05;

/// Below this, arranging for no copy costs more than the copy. The kernel's documentation says of
/// MSG_ZEROCOPY: about 10 KB.
const LARGE: u64 = 10_240;

#[cfg(test)]
mod tests {
    use super::*;

    const UNCHANGED: Fit = Fit {
        unchanged: Some(true),
        ..NOTHING_KNOWN
    };
    const NOTHING_KNOWN: Fit = Fit::new();

    fn facts(source: Kind, sink: Kind, copies_per_byte: f64, fit: Fit) -> Facts<'static> {
        Facts {
            source,
            sink,
            calls: &["read", "write"],
            copies_per_byte: Some(copies_per_byte),
            completions: (0, 0),
            portion_bytes: 65_536,
            inferred: false,
            fit,
        }
    }

    fn advised(source: Kind, sink: Kind, copies_per_byte: f64, fit: Fit) -> Option<String> {
        advice(&facts(source, sink, copies_per_byte, fit))
    }

    #[test]
    fn the_classic_loop_is_told_of_sendfile_with_the_reservation_that_holds() {
        assert_eq!(
            verdict(&facts(Kind::File, Kind::Tcp, 2.0, NOTHING_KNOWN)),
            "file → socket: 2.00 CPU copies per byte (read, write); sendfile would make it 0 if the \
             program does not change them"
        );
    }

    #[test]
    fn what_is_good_is_said_without_advice() {
        assert_eq!(
            verdict(&Facts {
                calls: &["sendfile"],
                ..facts(Kind::File, Kind::Tcp, 0.0, UNCHANGED)
            }),
            "file → socket: 0 CPU copies per byte (sendfile)"
        );
        assert_eq!(advised(Kind::Tcp, Kind::Program, 1.0, NOTHING_KNOWN), None);
    }

    #[test]
    fn a_copy_is_told_of_what_works_between_its_files() {
        let between = |fit| advised(Kind::File, Kind::File, 2.0, fit);
        let sharing = Fit {
            shares_blocks: true,
            ..UNCHANGED
        };
        assert_eq!(
            between(sharing).as_deref(),
            Some("copy_file_range would make it 1, or 0 where the file system can share blocks")
        );
        assert_eq!(
            between(UNCHANGED).as_deref(),
            Some("copy_file_range would make it 1")
        );
        let apart = Fit {
            other_file_system: true,
            ..sharing
        };
        assert_eq!(between(apart).as_deref(), Some("sendfile would make it 1"));
        assert_eq!(
            between(UNCHANGED.refusing(By::CopyFileRange)).as_deref(),
            Some("sendfile would make it 1")
        );
        let all = UNCHANGED.refusing(By::CopyFileRange).refusing(By::Sendfile);
        assert_eq!(between(all), None);
        assert_eq!(
            advised(Kind::File, Kind::File, 1.0, sharing).as_deref(),
            Some("sharing blocks (reflink) would make it 0, where the file system can")
        );
        assert_eq!(
            advised(Kind::File, Kind::File, 1.0, sharing.refusing(By::Reflink)),
            None
        );
    }

    #[test]
    fn a_program_that_is_no_copy_is_told_nothing_of_copying() {
        let between = |fit| advised(Kind::File, Kind::File, 2.0, fit);
        assert_eq!(between(NOTHING_KNOWN), None, "nobody knows");
        let changed = Fit {
            unchanged: Some(false),
            ..NOTHING_KNOWN
        };
        assert_eq!(between(changed), None, "it transforms");
        let in_place = Fit {
            same_file: true,
            ..UNCHANGED
        };
        assert_eq!(between(in_place), None, "it rewrites its own file");
        let appends = Fit {
            appends: true,
            ..UNCHANGED
        };
        assert_eq!(between(appends), None, "refused with O_APPEND");
    }

    #[test]
    fn what_was_seen_to_fail_is_not_advised() {
        let refused = NOTHING_KNOWN.refusing(By::Splice);
        assert_eq!(advised(Kind::Tcp, Kind::Tcp, 2.0, refused), None);
        let other = NOTHING_KNOWN.refusing(By::Sendfile);
        assert!(advised(Kind::Tcp, Kind::Tcp, 2.0, other).is_some());
    }

    #[test]
    fn small_messages_are_not_told_to_avoid_their_copy() {
        let facts = Facts {
            portion_bytes: 238,
            ..facts(Kind::Program, Kind::Tcp, 1.0, NOTHING_KNOWN)
        };
        assert_eq!(advice(&facts), None);
    }
}
