//! The validators of a representation and the dates in them (RFC 9110 §5.6.7, §8.8).
//!
//! # What a date is good for
//! HTTP dates count seconds, and anybody can set mtime. A store of packages gives all of its files
//! one date, archives and copies bring dates along, and a reproducible build writes the date of its
//! sources: the next version has the Last-Modified of the one before. So a date is told to whoever
//! wants to know it, and *validates* only where the kernel vouches for it: when ctime, which nobody
//! can set, is not later than the second of mtime. Then nothing has happened to the file since that
//! second, and as no Last-Modified is issued before its second has passed, whoever has received it
//! has received these bytes. That is the case of a file that was written in place, or made and then
//! renamed within the second; not of one whose date was set, or that got another mode later.
//!
//! A date that does not validate costs those clients who send no entity tag a transfer. Tags
//! ([`crate::message::etag`]) have no such limits, and all browsers, caches and download managers send them.
//!
//! What is left: two versions of a file whose bytes were both written within one second, and that
//! changed places by renaming a directory, switching a link or mounting.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::message::etag::{ETag, FileStamp};

/// ETag and Last-Modified of one representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validators {
    /// None while the file is racy.
    pub etag: Option<ETag>,
    /// Seconds since 1970; None while the second of the last change is not over, or when mtime is
    /// in the future or not expressible.
    pub last_modified_s: Option<u64>,
    /// The earliest date since which the bytes are known not to have changed; None if nobody knows.
    pub unchanged_since_s: Option<u64>,
}

impl Validators {
    /// The validators of a file at the time `now_s`.
    ///
    /// Without Last-Modified because the file has just changed, look again a second later.
    #[must_use]
    pub fn new(etag: Option<ETag>, stamp: &FileStamp, now_s: u64) -> Self {
        let expressible = |seconds: i64| u64::try_from(seconds).ok().filter(|&s| s <= MAX_S);
        let last_modified_s = expressible(stamp.mtime_s).filter(|&mtime_s| mtime_s < now_s);
        let unchanged_since_s = match last_modified_s {
            // Whole seconds: not a time that a kernel of today has set.
            _ if stamp.ctime_ns == 0 => None,
            Some(mtime_s) if stamp.ctime_s <= stamp.mtime_s => Some(mtime_s),
            // Within the second of ctime there may have been other bytes.
            _ => expressible(stamp.ctime_s).map(|ctime_s| ctime_s + 1),
        };
        Self {
            etag,
            last_modified_s,
            unchanged_since_s,
        }
    }

    /// Whether Last-Modified is `date` and identifies the bytes (RFC 9110 §8.8.2.2).
    #[must_use]
    pub fn are_identified_by(&self, date: u64) -> bool {
        self.last_modified_s == Some(date) && self.unchanged_since_s == Some(date)
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

    fn validators(mtime_s: i64, ctime_s: i64, ctime_ns: u32, now_s: u64) -> Validators {
        let stamp = FileStamp {
            dev: 1,
            ino: 1,
            size: 1,
            mtime_s,
            mtime_ns: 0,
            ctime_s,
            ctime_ns,
            mount: 0,
        };
        Validators::new(None, &stamp, now_s)
    }

    #[test]
    fn last_modified_waits_for_its_second_to_pass() {
        let last_modified = |mtime_s, now_s| validators(mtime_s, mtime_s, 1, now_s).last_modified_s;
        assert_eq!(last_modified(1000, 1000), None);
        assert_eq!(last_modified(1000, 1001), Some(1000));
        assert_eq!(last_modified(1001, 1000), None);
        assert_eq!(last_modified(-1, 1000), None);
        assert_eq!(last_modified(i64::MAX, u64::MAX), None);
    }

    #[test]
    fn a_date_identifies_what_has_not_changed_since() {
        // Written in place; or made ahead of time, which ends.
        assert!(validators(1000, 1000, 1, 2000).are_identified_by(1000));
        assert!(validators(1000, 900, 1, 2000).are_identified_by(1000));
        // Another date; its second not over; set by hand or by an archive; set by an image.
        assert!(!validators(1000, 1000, 1, 2000).are_identified_by(1001));
        assert!(!validators(1000, 1000, 1, 1000).are_identified_by(1000));
        assert!(!validators(1, 1000, 1, 2000).are_identified_by(1));
        assert!(!validators(999, 1000, 1, 2000).are_identified_by(999));
        assert!(!validators(1000, 1000, 0, 2000).are_identified_by(1000));
    }

    #[test]
    fn it_is_known_since_when_nothing_has_changed() {
        let since = |mtime_s, ctime_s, ctime_ns, now_s| {
            validators(mtime_s, ctime_s, ctime_ns, now_s).unchanged_since_s
        };
        assert_eq!(since(1000, 1000, 1, 2000), Some(1000));
        assert_eq!(since(1000, 1000, 1, 1000), Some(1001));
        assert_eq!(since(1, 1000, 1, 2000), Some(1001));
        assert_eq!(since(-1, 1000, 1, 2000), Some(1001));
        assert_eq!(since(1000, 1000, 0, 2000), None);
        assert_eq!(since(1, i64::MAX, 1, 2000), None);
        assert_eq!(since(1, -1, 1, 2000), Some(1));
    }

    proptest! {
        #[test]
        fn dates_survive_the_round_trip(unix_s in 0..=MAX_S) {
            prop_assert_eq!(parse_date(&format_date(unix_s)), Some(unix_s));
        }
    }
}
