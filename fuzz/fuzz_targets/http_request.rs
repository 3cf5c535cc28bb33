//! A request head, and everything that is decided from the head alone. The first byte chooses how
//! much of a head is given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_http::conditional::evaluate;
use zhaul_http::encoding::Coding;
use zhaul_http::etag::{ETag, FileStamp};
use zhaul_http::listing::{Format, Sort};
use zhaul_http::request::{Limits, Outcome, RequestHead, TargetForm, first_line, parse};
use zhaul_http::target::TargetPath;
use zhaul_http::validators::Validators;

/// Small, so that the fuzzer reaches them.
const LIMITS: Limits = Limits {
    request_line_bytes: 200,
    head_bytes: 1000,
    headers: 10,
};

/// Heads that are complete but for one place: a fuzzer does not find its way to a valid Host by
/// itself. The empty one leaves everything to it.
const FRAMES: [(&str, &str); 9] = [
    ("", ""),
    ("GET ", " HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("OPTIONS ", " HTTP/1.0\r\n\r\n"),
    ("GET / HTTP/1.1\r\nHost: ", "\r\n\r\n"),
    ("GET / HTTP/1.1\r\nHost: a\r\n", "\r\n\r\n"),
    ("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: ", "\r\n\r\n"),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-\r\nIf-Range: ",
        "\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ",
        "\r\n\r\n",
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: ", "\r\n\r\n"),
];

fuzz_target!(|input: (u8, &[u8])| {
    let (frame, bytes) = input;
    let (before, after) = FRAMES[usize::from(frame) % FRAMES.len()];
    check(&[before.as_bytes(), bytes, after.as_bytes()].concat());
});

fn check(bytes: &[u8]) {
    let line = first_line(bytes, 50);
    assert!(line.len() <= 50 && !line.contains(&b'\n'));
    match parse(bytes, &LIMITS) {
        Outcome::Complete { head, consumed } => {
            check_boundaries(bytes, &head, consumed);
            check_head(&head);
        }
        Outcome::Partial => assert!(bytes.len() < LIMITS.head_bytes + 2),
        Outcome::Reject(reject) => assert!((400..=505).contains(&reject.status)),
    }
}

fn check_boundaries(bytes: &[u8], head: &RequestHead<'_>, consumed: usize) {
    assert!(bytes[..consumed].ends_with(b"\r\n\r\n"));
    for end in 0..consumed {
        assert_eq!(parse(&bytes[..end], &LIMITS), Outcome::Partial);
    }
    let Outcome::Complete { head: alone, .. } = parse(&bytes[..consumed], &LIMITS) else {
        panic!("what follows a head changed it");
    };
    assert_eq!(alone.target, head.target);
    assert_eq!(alone.body, head.body);
}

fn check_head(head: &RequestHead<'_>) {
    assert!(head.path.starts_with('/') || head.form == TargetForm::Asterisk);
    assert!(head.host.is_some_and(|host| !host.is_empty()) || head.version_minor == 0);
    let _ = TargetPath::decode(head.path);
    let _ = Format::choose(head.query, head.accept);
    let _ = Sort::from_query(head.query);
    let stamp = FileStamp {
        dev: 1,
        ino: 2,
        size: 3,
        mtime_s: 784_111_777,
        mtime_ns: 0,
        ctime_s: 784_111_777,
        ctime_ns: 1,
        mount: 0,
    };
    let etag = ETag::of_stamp(&stamp, Coding::Identity);
    let validators = Validators::new(Some(etag), &stamp, 800_000_000);
    let _ = evaluate(head, &validators, 800_000_000);
}
