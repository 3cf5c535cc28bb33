//! The precedence and comparison rules of RFC 9110 §13 and §8.8, row by row.

use super::*;
use crate::message::encoding::Coding;
use crate::message::etag::{ETag, FileStamp};
use crate::message::request::{Limits, Outcome, parse};
use proptest::prelude::*;

const MODIFIED_S: u64 = 784_111_777;
const NOW_S: u64 = MODIFIED_S + 1000;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

const PROCEED: Decision = Decision::Proceed {
    range_applies: false,
};
const WITH_RANGE: Decision = Decision::Proceed {
    range_applies: true,
};

fn stamp() -> FileStamp {
    FileStamp {
        dev: 1,
        ino: 2,
        size: 3,
        mtime_s: MODIFIED_S.cast_signed(),
        mtime_ns: 0,
        ctime_s: MODIFIED_S.cast_signed(),
        ctime_ns: 1,
        mount: 0,
    }
}

fn validators() -> Validators {
    let etag = ETag::of_stamp(&stamp(), Coding::Identity);
    Validators::new(Some(etag), &stamp(), NOW_S)
}

fn tag() -> String {
    let etag = ETag::of_stamp(&stamp(), Coding::Identity);
    String::from_utf8(etag.as_bytes().to_vec()).unwrap()
}

/// `TAG`, `DATE`, `EARLIER` and `LATER` in `lines` are replaced by the real ones.
fn decide_as(method: &str, lines: &str, validators: &Validators, now_s: u64) -> Decision {
    let lines = lines
        .replace("TAG", &tag())
        .replace("DATE", DATE)
        .replace("EARLIER", EARLIER)
        .replace("LATER", LATER);
    let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    match parse(bytes.as_bytes(), &Limits::default()) {
        Outcome::Complete { head, .. } => evaluate(&head, validators, now_s),
        other => panic!("{bytes:?}: {other:?}"),
    }
}

fn decide(lines: &str) -> Decision {
    decide_as("GET", lines, &validators(), NOW_S)
}

#[test]
fn single_preconditions() {
    use Decision::{NotModified, PreconditionFailed};
    for (lines, expected) in [
        ("", PROCEED),
        ("If-Match: *\r\n", PROCEED),
        ("If-Match: TAG\r\n", PROCEED),
        ("If-Match: \"x\", TAG\r\n", PROCEED),
        ("If-Match: \"x\"\r\n", PreconditionFailed),
        ("If-Match: W/TAG\r\n", PreconditionFailed),
        ("If-Match:\r\n", PreconditionFailed),
        ("If-Match: garbage\r\n", PreconditionFailed),
        ("If-None-Match: *\r\n", NotModified),
        ("If-None-Match: TAG\r\n", NotModified),
        ("If-None-Match: W/TAG\r\n", NotModified),
        ("If-None-Match: \"x\",TAG,\"y\"\r\n", NotModified),
        ("If-None-Match: ,, \"x\" , ,\tTAG ,\r\n", NotModified),
        ("If-None-Match: \"a,b\", TAG\r\n", NotModified),
        ("If-None-Match: \"a\\\", TAG\r\n", NotModified),
        (
            "If-None-Match: \"x\"\r\nIf-None-Match: TAG\r\n",
            NotModified,
        ),
        ("If-None-Match: \"x\"\r\n", PROCEED),
        ("If-None-Match: \"a,TAG,b\"\r\n", PROCEED),
        ("If-None-Match: w/TAG\r\n", PROCEED),
        ("If-None-Match: W/ TAG\r\n", PROCEED),
        ("If-None-Match: \"x TAG\r\n", PROCEED),
        ("If-None-Match: \"x\" TAG\r\n", PROCEED),
        ("If-None-Match: \"x y\", TAG\r\n", PROCEED),
        ("If-None-Match: \"\r\n", PROCEED),
        ("If-None-Match: \"x\", *\r\n", PROCEED),
        ("If-Modified-Since: DATE\r\n", NotModified),
        // It may be the date of a version that was taken back.
        ("If-Modified-Since: LATER\r\n", PROCEED),
        ("If-Modified-Since: EARLIER\r\n", PROCEED),
        ("If-Modified-Since: garbage\r\n", PROCEED),
        (
            "If-Modified-Since: DATE\r\nIf-Modified-Since: DATE\r\n",
            PROCEED,
        ),
        ("If-Unmodified-Since: DATE\r\n", PROCEED),
        ("If-Unmodified-Since: LATER\r\n", PROCEED),
        ("If-Unmodified-Since: EARLIER\r\n", PreconditionFailed),
        ("If-Unmodified-Since: garbage\r\n", PROCEED),
    ] {
        assert_eq!(decide(lines), expected, "{lines:?}");
        assert_eq!(
            decide_as("HEAD", lines, &validators(), NOW_S),
            expected,
            "HEAD {lines:?}"
        );
    }
}

#[test]
fn precedence_of_section_13_2_2() {
    use Decision::{NotModified, PreconditionFailed};
    for (lines, expected) in [
        // If-Match silences If-Unmodified-Since.
        ("If-Match: TAG\r\nIf-Unmodified-Since: EARLIER\r\n", PROCEED),
        (
            "If-Match: \"x\"\r\nIf-Unmodified-Since: LATER\r\n",
            PreconditionFailed,
        ),
        // 412 comes before 304.
        (
            "If-Match: \"x\"\r\nIf-None-Match: TAG\r\n",
            PreconditionFailed,
        ),
        (
            "If-Unmodified-Since: EARLIER\r\nIf-None-Match: TAG\r\n",
            PreconditionFailed,
        ),
        ("If-Match: TAG\r\nIf-None-Match: TAG\r\n", NotModified),
        // If-None-Match silences If-Modified-Since, be it false or unreadable.
        (
            "If-None-Match: \"x\"\r\nIf-Modified-Since: LATER\r\n",
            PROCEED,
        ),
        ("If-None-Match:\r\nIf-Modified-Since: LATER\r\n", PROCEED),
        (
            "If-None-Match: TAG\r\nIf-Modified-Since: EARLIER\r\n",
            NotModified,
        ),
        // 304 comes before Range.
        ("If-None-Match: TAG\r\nRange: bytes=0-1\r\n", NotModified),
        (
            "If-None-Match: TAG\r\nRange: bytes=0-1\r\nIf-Range: \"x\"\r\n",
            NotModified,
        ),
        ("If-Match: TAG\r\nRange: bytes=0-1\r\n", WITH_RANGE),
    ] {
        assert_eq!(decide(lines), expected, "{lines:?}");
    }
}

#[test]
fn if_range_guards_range() {
    for (value, applies) in [
        ("TAG", true),
        ("W/TAG", false),
        ("\"x\"", false),
        ("\"x\", TAG", false),
        ("TAG, \"x\"", false),
        ("*", false),
        ("", false),
        ("garbage", false),
        ("DATE", true),
        ("LATER", false),
        ("EARLIER", false),
    ] {
        let lines = format!("Range: bytes=0-1\r\nIf-Range: {value}\r\n");
        assert_eq!(
            decide(&lines),
            Decision::Proceed {
                range_applies: applies
            },
            "{value}"
        );
    }
    assert_eq!(decide("If-Range: TAG\r\n"), PROCEED);
    assert_eq!(decide("Range: bytes=0-1\r\n"), WITH_RANGE);
}

#[test]
fn a_date_as_young_as_the_answer_is_no_strong_validator() {
    let lines = "Range: bytes=0-1\r\nIf-Range: DATE\r\n";
    assert_eq!(decide_as("GET", lines, &validators(), MODIFIED_S), PROCEED);
    assert_eq!(
        decide_as("GET", lines, &validators(), MODIFIED_S + 1),
        WITH_RANGE
    );
}

#[test]
fn range_is_defined_for_get_only_and_conditions_for_get_and_head() {
    let range = "Range: bytes=0-1\r\n";
    assert_eq!(decide_as("HEAD", range, &validators(), NOW_S), PROCEED);
    for method in ["OPTIONS", "POST"] {
        let lines = "If-None-Match: TAG\r\nIf-Match: \"x\"\r\n";
        assert_eq!(decide_as(method, lines, &validators(), NOW_S), PROCEED);
    }
}

#[test]
fn a_racy_file_matches_nothing_but_the_star() {
    let racy = Validators::new(None, &stamp(), MODIFIED_S);
    assert_eq!(racy.last_modified_s, None);
    let decide = |lines| decide_as("GET", lines, &racy, NOW_S);
    assert_eq!(decide("If-None-Match: TAG\r\n"), PROCEED);
    assert_eq!(decide("If-None-Match: *\r\n"), Decision::NotModified);
    assert_eq!(decide("If-Match: *\r\n"), PROCEED);
    assert_eq!(decide("If-Match: TAG\r\n"), Decision::PreconditionFailed);
    assert_eq!(decide("If-Modified-Since: LATER\r\n"), PROCEED);
    for lines in [
        "If-Unmodified-Since: DATE\r\n",
        "If-Unmodified-Since: EARLIER\r\n",
    ] {
        assert_eq!(decide(lines), Decision::PreconditionFailed, "{lines:?}");
    }
    assert_eq!(decide("Range: bytes=0-1\r\nIf-Range: DATE\r\n"), PROCEED);
    assert_eq!(decide("Range: bytes=0-1\r\nIf-Range: TAG\r\n"), PROCEED);
}

#[test]
fn a_date_that_was_set_validates_nothing() {
    let set = FileStamp {
        ctime_s: NOW_S.cast_signed() - 100,
        ..stamp()
    };
    let image = FileStamp {
        ctime_ns: 0,
        ..stamp()
    };
    for stamp in [set, image] {
        let validators = Validators::new(None, &stamp, NOW_S);
        assert_eq!(validators.last_modified_s, Some(MODIFIED_S));
        for date in ["EARLIER", "DATE", "LATER"] {
            for (lines, expected) in [
                (format!("If-Modified-Since: {date}\r\n"), PROCEED),
                (format!("Range: bytes=0-1\r\nIf-Range: {date}\r\n"), PROCEED),
                (
                    format!("Range: bytes=0-1\r\nIf-Unmodified-Since: {date}\r\n"),
                    Decision::PreconditionFailed,
                ),
            ] {
                let decision = decide_as("GET", &lines, &validators, NOW_S);
                assert_eq!(decision, expected, "{stamp:?} {lines:?}");
            }
        }
    }
    // Nothing has happened since it was set.
    let lines = "If-Unmodified-Since: Mon, 07 Nov 1994 08:49:37 GMT\r\n";
    let validators = Validators::new(None, &set, NOW_S);
    assert_eq!(decide_as("GET", lines, &validators, NOW_S), PROCEED);
}

#[test]
fn another_coding_of_the_file_is_another_representation() {
    let etag = ETag::of_stamp(&stamp(), Coding::Gzip);
    let gzip = Validators::new(Some(etag), &stamp(), NOW_S);
    assert_eq!(
        decide_as("GET", "If-None-Match: TAG\r\n", &gzip, NOW_S),
        PROCEED
    );
}

proptest! {
    #[test]
    fn a_tag_is_found_in_any_list(
        others in prop::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..5),
        at in 0_usize..6,
    ) {
        let mut tags = others;
        tags.insert(at.min(tags.len()), "TAG".to_owned());
        let field = format!("If-None-Match: {}\r\n", tags.join(" ,"));
        prop_assert_eq!(decide(&field), Decision::NotModified);
    }

    #[test]
    fn arbitrary_values_never_panic(value in "[ -~]{0,40}") {
        for name in ["If-Match", "If-None-Match", "If-Range", "If-Modified-Since"] {
            let _ = decide(&format!("Range: bytes=0-\r\n{name}: {value}\r\n"));
        }
    }
}
