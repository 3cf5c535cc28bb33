//! Byte ranges (RFC 9110 §14), compared with the file byte by byte.

use std::ops::Range;

use crate::support::http::assert_same;
use crate::support::{Client, Files, Response, Server, pattern};

/// One that is kept in memory and one that is sent from its descriptor.
const SIZES: [usize; 2] = [1000, 200_003];

fn site() -> Files {
    let contents = SIZES.map(pattern);
    Files::with(&[
        ("1000", &contents[0]),
        ("200003", &contents[1]),
        ("empty", b""),
    ])
}

fn ask(client: &mut Client, size: usize, range: &str) -> Response {
    client.get_with(&format!("/{size}"), &[("Range", range)])
}

#[track_caller]
fn assert_single(client: &mut Client, size: usize, range: &str, expected: Range<usize>) {
    let answer = ask(client, size, range);
    answer
        .assert_status(206)
        .assert_body(&pattern(size)[expected.clone()]);
    let content_range = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
    assert_eq!(
        answer.field("Content-Range"),
        Some(content_range.as_str()),
        "{range}"
    );
    assert!(answer.field("ETag").is_some());
    assert!(answer.field("Content-Type").is_some());
}

#[test]
fn a_single_range_is_exactly_that_part() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for size in SIZES {
        for (range, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-9", 0..10),
            ("bytes=5-", 5..size),
            ("bytes=0-", 0..size),
            ("bytes=-1", size - 1..size),
            ("bytes=-17", size - 17..size),
            ("bytes=-99999999", 0..size),
            ("bytes=999-999", 999..1000),
            ("bytes=990-99999999", 990..size),
            ("bytes=7-18446744073709551615", 7..size),
            ("bytes=7-99999999999999999999999999", 7..size),
            ("Bytes=1-2", 1..3),
            ("bytes= 1-2 ", 1..3),
            ("bytes=1-2,", 1..3),
            // What touches or overlaps is one range, what is past the end is none.
            ("bytes=0-4,5-9", 0..10),
            ("bytes=0-9,5-20", 0..21),
            ("bytes=0-9,20-29,5-24", 0..30),
            ("bytes=0-9,99999999-", 0..10),
        ] {
            assert_single(&mut client, size, range, expected);
        }
        for first in (0..size).step_by(size / 97) {
            let last = (first + size / 7).min(size - 1);
            assert_single(
                &mut client,
                size,
                &format!("bytes={first}-{last}"),
                first..last + 1,
            );
        }
    }
}

#[test]
fn what_is_no_range_is_ignored() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for size in SIZES {
        for range in [
            "bytes=",
            "bytes=-",
            "bytes=5-3",
            "bytes=a-b",
            "bytes=1-2x",
            "bytes 0-1",
            "0-1",
            "items=0-1",
            "bytes=--1",
            "bytes=0-1;2-3",
            "bytes=0x0-0x5",
            "bytes=1 - 2",
        ] {
            let answer = ask(&mut client, size, range);
            answer.assert_status(200).assert_body(&pattern(size));
            assert_eq!(answer.field("Content-Range"), None);
        }
        let target = format!("/{size}");
        let twice = [("Range", "bytes=0-1"), ("Range", "bytes=2-3")];
        client.get_with(&target, &twice).assert_status(200);
        let head = client.request("HEAD", &target, &[("Range", "bytes=0-1")]);
        head.assert_status(200);
        assert_eq!(head.announced_length(), Some(size as u64));
    }
}

#[test]
fn a_range_past_the_end_gets_416_with_the_length() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for size in SIZES {
        let past = [
            format!("bytes={size}-"),
            format!("bytes={size}-{size},-0"),
            "bytes=-0".to_owned(),
        ];
        for range in past {
            let answer = ask(&mut client, size, &range);
            answer.assert_status(416);
            let expected = format!("bytes */{size}");
            assert_eq!(
                answer.field("Content-Range"),
                Some(expected.as_str()),
                "{range}"
            );
        }
    }
    client
        .get_with("/empty", &[("Range", "bytes=0-")])
        .assert_status(200)
        .assert_body(b"");
}

/// The parts of a multipart/byteranges body, each with where it says that it belongs.
fn parts(answer: &Response, size: usize) -> Vec<(Range<usize>, Vec<u8>)> {
    let content_type = answer.field("Content-Type").unwrap();
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let boundary = boundary.trim_matches('"');
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what);
    let delimiter = format!("--{boundary}");
    let mut rest = &answer.body[find(&answer.body, delimiter.as_bytes()).unwrap()..];
    assert!(answer.body.len() - rest.len() <= 2, "a preamble");
    let mut parts = Vec::new();
    loop {
        rest = rest
            .strip_prefix(delimiter.as_bytes())
            .expect("a delimiter");
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            assert!(epilogue.is_empty() || epilogue == b"\r\n", "an epilogue");
            return parts;
        }
        let head_end = find(rest, b"\r\n\r\n").unwrap() + 4;
        let head = std::str::from_utf8(&rest[..head_end]).unwrap();
        let (_, value) = head
            .split_once("Content-Range: bytes ")
            .expect("a Content-Range");
        let (place, total) = value.split_once("\r\n").unwrap().0.split_once('/').unwrap();
        assert_eq!(total, size.to_string());
        let (first, last) = place.split_once('-').unwrap();
        let range = first.parse::<usize>().unwrap()..last.parse::<usize>().unwrap() + 1;
        rest = &rest[head_end..];
        parts.push((range.clone(), rest[..range.len()].to_vec()));
        rest = rest[range.len()..]
            .strip_prefix(b"\r\n")
            .expect("a line end behind the part");
    }
}

#[test]
fn several_ranges_come_as_parts_in_the_order_asked_for() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for size in SIZES {
        let end = size - 10..size;
        for (range, expected) in [
            ("bytes=0-0,2-2", vec![0..1, 2..3]),
            (
                "bytes=-10, 0-9 ,,500-599",
                vec![end.clone(), 0..10, 500..600],
            ),
            ("bytes=900-,100-199", vec![900..size, 100..200]),
            (
                "bytes=300-310,1-2,99999999-,40-50",
                vec![300..311, 1..3, 40..51],
            ),
        ] {
            let answer = ask(&mut client, size, range);
            answer.assert_status(206);
            assert_eq!(answer.field("Content-Range"), None, "{range}");
            let parts = parts(&answer, size);
            let places: Vec<_> = parts.iter().map(|(place, _)| place.clone()).collect();
            assert_eq!(places, expected, "{range}");
            for (place, bytes) in parts {
                assert_same(&bytes, &pattern(size)[place], range);
            }
        }
        // Several large parts, and the connection goes on behind them.
        let range = format!("bytes=0-{},{}-", size / 3, size / 2);
        assert_eq!(parts(&ask(&mut client, size, &range), size).len(), 2);
        client
            .get("/1000")
            .assert_status(200)
            .assert_body(&pattern(1000));
    }
}

#[test]
fn no_request_costs_more_than_the_file() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for size in SIZES {
        let whole = pattern(size);
        let many: Vec<_> = (0..33).map(|i| format!("{}-{}", i * 3, i * 3)).collect();
        let all: Vec<_> = (0..1300).map(|i| format!("{i}-")).collect();
        for specifiers in [many.join(","), all.join(","), vec!["0-"; 20].join(",")] {
            let answer = ask(&mut client, size, &format!("bytes={specifiers}"));
            match answer.status {
                200 => drop(answer.assert_body(&whole)),
                _ => assert!(
                    answer.body.len() <= size + 32 * 300,
                    "{}",
                    answer.body.len()
                ),
            }
        }
        let most: Vec<_> = (0..32).map(|i| format!("{}-{}", i * 3, i * 3)).collect();
        let answer = ask(&mut client, size, &format!("bytes={}", most.join(",")));
        assert_eq!(parts(&answer, size).len(), 32);
    }
}

#[test]
fn if_range_guards_a_part_against_another_version() {
    let contents = SIZES.map(|size| (size.to_string(), pattern(size)));
    let named = contents
        .each_ref()
        .map(|(name, content)| (&**name, &**content));
    let files = Files::written(&named);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for size in SIZES {
        let target = format!("/{size}");
        let whole = client.get(&target);
        let (etag, date) = (whole.etag(), whole.field("Last-Modified").unwrap());
        let weak = format!("W/{etag}");
        for (validator, status) in [
            (etag, 206),
            (date, 206),
            (weak.as_str(), 200),
            ("\"other\"", 200),
            ("Thu, 31 Dec 2099 23:59:59 GMT", 200),
            ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
            ("nonsense", 200),
        ] {
            let fields = [("Range", "bytes=3-7"), ("If-Range", validator)];
            let answer = client.get_with(&target, &fields);
            answer.assert_status(status);
            let expected = if status == 206 {
                &pattern(size)[3..8]
            } else {
                &pattern(size)[..]
            };
            answer.assert_body(expected);
        }
        let fields = [("Range", "bytes=99999999-"), ("If-Range", "\"other\"")];
        client.get_with(&target, &fields).assert_status(200);
        let twice = [
            ("Range", "bytes=0-1"),
            ("If-Range", etag),
            ("If-Range", "\"other\""),
        ];
        client.get_with(&target, &twice).assert_status(200);
    }
}

#[test]
fn a_download_put_together_from_parts_is_the_file() {
    let content = pattern(3_000_000);
    let files = Files::with(&[("file", &content)]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let mut got = Vec::new();
    let mut step = 1;
    while got.len() < content.len() {
        let range = format!("bytes={}-{}", got.len(), got.len() + step - 1);
        let answer = client.get_with("/file", &[("Range", &range)]);
        got.extend_from_slice(&answer.assert_status(206).body);
        step = step * 3 % 400_009 + 1;
    }
    assert_same(&got, &content, "");
}
