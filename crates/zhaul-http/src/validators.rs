//! The validators of a representation and the dates in them (RFC 9110 §5.6.7, §8.8).
//!
//! HTTP dates count seconds. A file that is changed twice in one second would have one
//! Last-Modified for two contents, so none is issued before the second of the last change has
//! passed; from then on the date can be trusted as far as the clock and nobody setting mtime back
//! can be. Together with [`crate::etag`]'s rule for racy files this means: a validator that a
//! client ever received identifies the bytes that came with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::encoding::Coding;
use crate::etag::{ETag, FileStamp};

/// ETag and Last-Modified of one representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validators {
    /// None while the file is racy.
    pub etag: Option<ETag>,
    /// Seconds since 1970; None while the second of the last change is not over, or when mtime is
    /// in the future or not expressible.
    pub last_modified_s: Option<u64>,
}

impl Validators {
    /// The validators of a file at the time `now_s`; for `racy` see [`crate::etag`].
    ///
    /// Either may be missing for a file that has just changed: look again a second later.
    #[must_use]
    pub fn of_file(stamp: &FileStamp, coding: Coding, racy: bool, now_s: u64) -> Self {
        let last_modified_s = u64::try_from(stamp.mtime_s)
            .ok()
            .filter(|&mtime_s| mtime_s < now_s && mtime_s <= MAX_S);
        Self {
            etag: ETag::of_file(stamp, coding, racy),
            last_modified_s,
        }
    }
}

/// An IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

/// Formats seconds since 1970; times after the year 9999 are given as its last second.
#[must_use]
pub fn format_date(unix_s: u64) -> [u8; DATE_BYTES] {
    let time = UNIX_EPOCH + Duration::from_secs(unix_s.min(MAX_S));
    let mut date = [0; DATE_BYTES];
    let mut room = &mut date[..];
    // The room fits exactly; a failure would leave NULs for the tests to find.
    let written = std::io::Write::write_fmt(
        &mut room,
        format_args!("{}", httpdate::HttpDate::from(time)),
    );
    debug_assert!(written.is_ok() && room.is_empty());
    date
}

/// Parses any of the three formats of RFC 9110 §5.6.7 to seconds since 1970. None if it is not a
/// date, which for every conditional field means that the field is ignored.
#[must_use]
pub fn parse_date(value: &[u8]) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    time.duration_since(UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

/// 9999-12-31 23:59:59, the last time with a four-digit year.
const MAX_S: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_formats_of_the_rfc() {
        for date in [
            &b"Sun, 06 Nov 1994 08:49:37 GMT"[..],
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                parse_date(date),
                Some(784_111_777),
                "{}",
                date.escape_ascii()
            );
        }
        assert_eq!(&format_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format_date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn what_is_no_date_is_none() {
        for value in [
            &b""[..],
            b"0",
            b"-1",
            b"yesterday",
            b"Sun, 06 Nov 1994 08:49:37 PST",
            b"\xff",
            b"Sun, 31 Feb 1994 08:49:37 GMT",
            b"1994-11-06T08:49:37Z",
            b"Sun, 06 Nov 1994 25:49:37 GMT",
        ] {
            assert_eq!(parse_date(value), None, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn far_future_is_clamped_instead_of_panicking() {
        assert_eq!(&format_date(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&format_date(MAX_S), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    fn last_modified(mtime_s: i64, now_s: u64) -> Option<u64> {
        let stamp = FileStamp {
            dev: 1,
            ino: 1,
            size: 1,
            mtime_s,
            mtime_ns: 0,
            ctime_s: mtime_s,
            ctime_ns: 0,
        };
        Validators::of_file(&stamp, Coding::Identity, false, now_s).last_modified_s
    }

    #[test]
    fn last_modified_waits_for_its_second_to_pass() {
        assert_eq!(last_modified(1000, 1000), None);
        assert_eq!(last_modified(1000, 1001), Some(1000));
        assert_eq!(last_modified(1001, 1000), None);
        assert_eq!(last_modified(-1, 1000), None);
        assert_eq!(last_modified(i64::MAX, u64::MAX), None);
    }

    proptest! {
        #[test]
        fn dates_survive_the_round_trip(unix_s in 0..=MAX_S) {
            prop_assert_eq!(parse_date(&format_date(unix_s)), Some(unix_s));
        }
    }
}
