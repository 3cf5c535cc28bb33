//! Negotiation of a content coding (RFC 9110 §8.4.1, §12.4.2, §12.5.3).
//!
//! Only what lies precompressed beside the file can be chosen. Among the codings that the client
//! accepts the one with the highest weight wins; at equal weight br, zstd, gzip, then identity.
//! Identity that is not mentioned has no weight of its own: it is what is left when nothing else
//! is acceptable.
//!
//! When the client refuses identity and nothing else fits, identity is sent all the same. RFC 9110
//! §12.5.3 only asks for 406 in that case as one of two ways; a client that gets bytes it can save
//! is better off than one that gets an error page (which it refused as well).
//!
//! A member with a malformed weight is dropped, the rest of the field still counts.

use crate::message::field_lines::{FieldLines, trim_ows};

/// A content coding that the server can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coding {
    /// The file itself.
    Identity,
    /// `gzip`, from a `.gz` sibling.
    Gzip,
    /// `zstd`, from a `.zst` sibling.
    Zstd,
    /// `br`, from a `.br` sibling.
    Brotli,
}

impl Coding {
    /// The compressing codings, best first.
    pub const COMPRESSED: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// The token for Content-Encoding; None for identity, which is never sent.
    #[must_use]
    pub fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Brotli => Some("br"),
        }
    }

    /// The suffix of the precompressed sibling; empty for identity.
    #[must_use]
    pub fn file_suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Brotli => ".br",
        }
    }
}

/// A set of codings; identity is always in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodingSet(u8);

impl CodingSet {
    /// Identity alone.
    pub const IDENTITY: Self = Self(0);
    /// Every coding.
    pub const ALL: Self = Self::IDENTITY
        .with(Coding::Gzip)
        .with(Coding::Zstd)
        .with(Coding::Brotli);

    /// The set with `coding` in it.
    #[must_use]
    pub const fn with(self, coding: Coding) -> Self {
        Self(self.0 | 1 << coding as u8)
    }

    /// Whether `coding` is in the set.
    #[must_use]
    pub const fn contains(self, coding: Coding) -> bool {
        matches!(coding, Coding::Identity) || self.0 & 1 << coding as u8 != 0
    }

    /// Whether there is no choice: the response then needs no `Vary: Accept-Encoding`.
    #[must_use]
    pub const fn is_identity_only(self) -> bool {
        self.0 & !(1 << Coding::Identity as u8) == 0
    }
}

/// Chooses the coding for an Accept-Encoding field. Without the field, which permits anything,
/// identity is the one that every client understands.
#[must_use]
pub fn negotiate(accept: FieldLines<'_>, available: CodingSet) -> Coding {
    if available.is_identity_only() {
        return Coding::Identity;
    }
    Accepted::read(accept).choose(available)
}

/// What an Accept-Encoding field says.
#[derive(Debug)]
pub struct Accepted(Option<Weights>);

impl Accepted {
    /// Reads the field.
    #[must_use]
    pub fn read(accept: FieldLines<'_>) -> Self {
        Self(accept.is_present().then(|| Weights::read(accept)))
    }

    /// The coding to send of those that are there.
    #[must_use]
    pub fn choose(&self, available: CodingSet) -> Coding {
        let Some(weights) = &self.0 else {
            return Coding::Identity;
        };
        let mut best = (Coding::Identity, weights.identity());
        for coding in [Coding::Gzip, Coding::Zstd, Coding::Brotli] {
            let weight = weights.of(coding);
            if weight > 0 && weight >= best.1 && available.contains(coding) {
                best = (coding, weight);
            }
        }
        best.0
    }

    /// Whether there could be a coding that is better than `chosen`, which was chosen.
    #[must_use]
    pub fn prefers_another(&self, chosen: Coding) -> bool {
        self.choose(CodingSet::ALL) != chosen
    }
}

/// Weights in thousandths.
#[derive(Debug, Default)]
struct Weights {
    listed: [Option<u16>; 4],
    any: Option<u16>,
}

impl Weights {
    fn read(accept: FieldLines<'_>) -> Self {
        let mut weights = Self::default();
        for member in accept.members() {
            let (name, parameters) = split_at_byte(member, b';');
            let Some(weight) = parameters.map_or(Some(1000), parse_weight) else {
                continue;
            };
            let slot = match name {
                b"*" => &mut weights.any,
                _ => match coding_of(name) {
                    Some(coding) => &mut weights.listed[coding as usize],
                    None => continue,
                },
            };
            // Named twice: the more willing of the two.
            *slot = (*slot).max(Some(weight));
        }
        weights
    }

    fn of(&self, coding: Coding) -> u16 {
        self.listed[coding as usize].or(self.any).unwrap_or(0)
    }

    /// Unmentioned identity is acceptable, but below everything that was asked for.
    fn identity(&self) -> u16 {
        self.listed[Coding::Identity as usize]
            .or(self.any)
            .unwrap_or(0)
    }
}

fn coding_of(name: &[u8]) -> Option<Coding> {
    const NAMES: [(&str, Coding); 5] = [
        ("gzip", Coding::Gzip),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
        ("identity", Coding::Identity),
        ("x-gzip", Coding::Gzip),
    ];
    let found = NAMES
        .iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
    found.map(|&(_, coding)| coding)
}

/// `q=` 0 to 1 with at most three decimals, in thousandths. The grammar has no other parameter;
/// one that comes all the same is passed over.
pub(crate) fn parse_weight(parameters: &[u8]) -> Option<u16> {
    for parameter in parameters.split(|&b| b == b';') {
        let (name, value) = split_at_byte(parameter, b'=');
        if name.eq_ignore_ascii_case(b"q") {
            return parse_qvalue(value?);
        }
    }
    Some(1000)
}

fn parse_qvalue(value: &[u8]) -> Option<u16> {
    let (whole, decimals) = match value {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] => (*whole, decimals),
        _ => return None,
    };
    if decimals.len() > 3 || !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let weight = decimals
        .iter()
        .zip([100, 10, 1])
        .fold(u16::from(whole - b'0') * 1000, |sum, (digit, unit)| {
            sum + u16::from(digit - b'0') * unit
        });
    (weight <= 1000).then_some(weight)
}

/// Both sides trimmed; the right one is None when `byte` does not occur.
fn split_at_byte(bytes: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(byte, bytes) {
        Some(at) => (trim_ows(&bytes[..at]), Some(trim_ows(&bytes[at + 1..]))),
        None => (trim_ows(bytes), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::field_lines::ListField;
    use proptest::prelude::*;

    const ALL: CodingSet = CodingSet::ALL;
    const GZIP: CodingSet = CodingSet::IDENTITY.with(Coding::Gzip);

    fn choose(field: &str, available: CodingSet) -> Coding {
        negotiate(FieldLines::One(field.as_bytes()), available)
    }

    #[test]
    fn equal_weights_go_to_br_then_zstd_then_gzip() {
        assert_eq!(choose("gzip, deflate, br, zstd", ALL), Coding::Brotli);
        assert_eq!(
            choose("gzip, deflate, br, zstd", GZIP.with(Coding::Zstd)),
            Coding::Zstd
        );
        assert_eq!(choose("gzip, deflate, br, zstd", GZIP), Coding::Gzip);
        assert_eq!(
            choose("gzip, deflate, br, zstd", CodingSet::IDENTITY),
            Coding::Identity
        );
    }

    #[test]
    fn weights_decide() {
        for (field, expected) in [
            ("br;q=0.5, gzip;q=0.8", Coding::Gzip),
            ("br;q=0.501, zstd;q=0.5", Coding::Brotli),
            ("br;q=0.001", Coding::Brotli),
            ("br; q=1.0 , gzip", Coding::Brotli),
            ("gzip;q=0.5, identity", Coding::Identity),
            ("gzip, identity", Coding::Gzip),
            ("gzip;q=0.5, identity;q=0.5", Coding::Gzip),
            ("*", Coding::Brotli),
            ("*;q=0.1", Coding::Brotli),
            ("br;q=0, *", Coding::Zstd),
            ("gzip, *;q=0", Coding::Gzip),
            ("GZIP", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("gzip;Q=1", Coding::Gzip),
            ("gzip;level=9;q=1", Coding::Gzip),
            ("gzip;q=0, gzip;q=0.3", Coding::Gzip),
        ] {
            assert_eq!(choose(field, ALL), expected, "{field}");
        }
        assert_eq!(choose("gzip;q=0.5, *;q=1", GZIP), Coding::Identity);
    }

    #[test]
    fn refused_codings_are_not_sent() {
        for field in [
            "",
            ",",
            "identity",
            "deflate",
            "compress, bzip2",
            "br;q=0",
            "br;q=0.000",
            "*;q=0",
            "br;q=0.0, gzip;q=0, zstd;q=0.00",
            "identity;q=0",
            "identity;q=0, *;q=0",
            "gzipx",
            "gzi",
            "brr",
        ] {
            assert_eq!(choose(field, ALL), Coding::Identity, "{field}");
        }
        assert_eq!(negotiate(FieldLines::Absent, ALL), Coding::Identity);
        assert_eq!(choose("identity;q=0, gzip;q=0.1", ALL), Coding::Gzip);
    }

    #[test]
    fn malformed_members_are_dropped_and_the_rest_counts() {
        for field in [
            "br;q=1.1, gzip;q=0.001",
            "br;q=2, gzip;q=0.001",
            "br;q=, gzip;q=0.001",
            "br;q, gzip;q=0.001",
            "br;q=0.1234, gzip;q=0.001",
            "br;q=-1, gzip;q=0.001",
            "br;q=+1, gzip;q=0.001",
            "br;q=.5, gzip;q=0.001",
            "br;q=1.001, gzip;q=0.001",
            "br;q=a, gzip;q=0.001",
            "b r, gzip;q=0.001",
            ";q=1, gzip;q=0.001",
            "\"br\", gzip;q=0.001",
            "br;q=0.5.5, gzip;q=0.001",
            "br;q=\"1\", gzip;q=0.001",
            "\u{fc}, gzip;q=0.001",
        ] {
            assert_eq!(choose(field, ALL), Coding::Gzip, "{field}");
        }
    }

    #[test]
    fn it_is_known_whether_another_coding_would_be_better() {
        let prefers = |field: &str, chosen| {
            Accepted::read(FieldLines::One(field.as_bytes())).prefers_another(chosen)
        };
        assert!(prefers("gzip, br", Coding::Gzip));
        assert!(prefers("gzip, br", Coding::Identity));
        assert!(!prefers("gzip, br", Coding::Brotli));
        assert!(!prefers("gzip", Coding::Gzip));
        assert!(!prefers("identity", Coding::Identity));
        assert!(!Accepted::read(FieldLines::Absent).prefers_another(Coding::Identity));
    }

    #[test]
    fn lines_are_joined() {
        let head =
            b"GET / HTTP/1.1\r\nAccept-Encoding: gzip;q=0.5\r\nAccept-Encoding: zstd\r\n\r\n";
        let lines = FieldLines::Many {
            field: ListField::AcceptEncoding,
            head,
        };
        assert_eq!(negotiate(lines, ALL), Coding::Zstd);
    }

    #[test]
    fn a_set_without_siblings_needs_no_vary() {
        assert!(
            CodingSet::IDENTITY
                .with(Coding::Identity)
                .is_identity_only()
        );
        assert!(!GZIP.is_identity_only());
        assert!(!GZIP.contains(Coding::Brotli) && GZIP.contains(Coding::Identity));
    }

    proptest! {
        #[test]
        fn only_what_is_there_is_chosen(field in prop::collection::vec(any::<u8>(), 0..60)) {
            let chosen = negotiate(FieldLines::One(&field), GZIP);
            prop_assert!(GZIP.contains(chosen));
        }

        #[test]
        fn the_chosen_coding_has_the_highest_weight(q in prop::array::uniform4(0_u16..=1000)) {
            let field = format!(
                "identity;q={}, gzip;q={}, zstd;q={}, br;q={}",
                qvalue(q[0]), qvalue(q[1]), qvalue(q[2]), qvalue(q[3])
            );
            let chosen = choose(&field, ALL);
            prop_assert_eq!(q[chosen as usize], *q.iter().max().unwrap());
        }
    }

    fn qvalue(thousandths: u16) -> String {
        format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
    }
}
