//! Validators and preconditions (RFC 9110 §8.8, §13).

use std::collections::HashSet;
use std::fs::{self, File};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::files::{make_old, set_mode, settle, wait_for_the_next_second};
use crate::support::{Files, Server, eventually, pattern};

const BEFORE: &str = "Tue, 14 Nov 2023 22:13:19 GMT";
const AFTER: &str = "Thu, 31 Dec 2099 23:59:59 GMT";

#[test]
fn preconditions_are_evaluated_in_the_order_of_the_rfc() {
    let files = Files::written(&[("small", b"content"), ("large", &pattern(100_000))]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for target in ["/small", "/large"] {
        let plain = client.get(target);
        let modified = plain.field("Last-Modified").unwrap();
        let etag = plain.etag().to_owned();
        let weak = format!("W/{etag}");
        let list = format!("\"x\", {weak}, \"y\"");
        let strong_list = format!("\"x\",{etag}");
        let other = "\"other\"";
        let cases: &[(&[(&str, &str)], u16)] = &[
            (&[("If-None-Match", &etag)], 304),
            (&[("If-None-Match", &weak)], 304),
            (&[("If-None-Match", &list)], 304),
            (&[("If-None-Match", "*")], 304),
            (&[("If-None-Match", other), ("If-None-Match", &etag)], 304),
            (&[("If-None-Match", other)], 200),
            (&[("If-None-Match", "not-a-tag")], 200),
            (&[("If-Modified-Since", modified)], 304),
            // Perhaps the date of a version that was taken back.
            (&[("If-Modified-Since", AFTER)], 200),
            (&[("If-Modified-Since", BEFORE)], 200),
            (&[("If-Modified-Since", "yesterday")], 200),
            // A tag outranks a date.
            (
                &[("If-None-Match", other), ("If-Modified-Since", modified)],
                200,
            ),
            (
                &[("If-None-Match", &etag), ("If-Modified-Since", BEFORE)],
                304,
            ),
            (&[("If-Match", &etag)], 200),
            (&[("If-Match", "*")], 200),
            (&[("If-Match", &strong_list)], 200),
            (&[("If-Match", &weak)], 412),
            (&[("If-Match", other)], 412),
            (&[("If-Unmodified-Since", modified)], 200),
            (&[("If-Unmodified-Since", AFTER)], 200),
            (&[("If-Unmodified-Since", BEFORE)], 412),
            (&[("If-Unmodified-Since", "yesterday")], 200),
            (&[("If-Match", &etag), ("If-Unmodified-Since", BEFORE)], 200),
            (&[("If-Match", other), ("If-Unmodified-Since", AFTER)], 412),
            // What must not happen outranks what need not be sent.
            (&[("If-Match", other), ("If-None-Match", &etag)], 412),
            (&[("If-Match", &etag), ("If-None-Match", &etag)], 304),
            (
                &[("If-Unmodified-Since", BEFORE), ("If-None-Match", &etag)],
                412,
            ),
            (
                &[
                    ("If-Unmodified-Since", AFTER),
                    ("If-Modified-Since", modified),
                ],
                304,
            ),
            // Both outrank a range.
            (&[("If-None-Match", &etag), ("Range", "bytes=0-1")], 304),
            (&[("If-Match", other), ("Range", "bytes=0-1")], 412),
            (&[("If-None-Match", other), ("Range", "bytes=0-1")], 206),
        ];
        for (fields, status) in cases {
            for method in ["GET", "HEAD"] {
                let status = if method == "HEAD" && *status == 206 {
                    200
                } else {
                    *status
                };
                let answer = client.request(method, target, fields);
                assert_eq!(answer.status, status, "{method} {target} {fields:?}");
            }
        }
    }
}

#[test]
fn not_modified_repeats_what_caches_store() {
    let files = Files::with(&[("a.txt", b"a"), ("a.txt.gz", b"gz")]);
    let server = Server::of(
        files.root(),
        &["--cache-control", "*=max-age=60", "--header", "X-Y: z"],
    );
    let mut client = server.connect();
    let full = client.get("/a.txt");
    let answer = client.get_with("/a.txt", &[("If-None-Match", full.etag())]);
    answer.assert_status(304).assert_body(b"");
    for field in ["ETag", "Cache-Control", "Vary", "X-Y", "Last-Modified"] {
        assert!(full.field(field).is_some(), "{field}: {}", full.head);
        assert_eq!(answer.field(field), full.field(field), "{field}");
    }
    assert!(
        answer
            .announced_length()
            .is_none_or(|length| length == full.body.len() as u64)
    );
    assert_eq!(answer.field("Content-Type"), None);
    // It says of the body how it is coded, and there is none.
    let gzip = ("Accept-Encoding", "gzip");
    let full = client.get_with("/a.txt", &[gzip]);
    assert_eq!(full.field("Content-Encoding"), Some("gzip"));
    let answer = client.get_with("/a.txt", &[gzip, ("If-None-Match", full.etag())]);
    answer.assert_status(304);
    assert_eq!(answer.field("Content-Encoding"), None);
}

#[test]
fn preconditions_do_not_matter_to_what_is_not_there() {
    let files = Files::with(&[("dir/x", b"")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for (field, value) in [
        ("If-Match", "\"x\""),
        ("If-None-Match", "*"),
        ("If-Unmodified-Since", BEFORE),
    ] {
        client
            .get_with("/missing", &[(field, value)])
            .assert_status(404);
        client
            .get_with("/dir", &[(field, value)])
            .assert_status(301);
    }
}

#[test]
fn every_way_to_change_a_file_changes_its_tag() {
    let files = Files::with(&[("f", b"0000")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let mut seen = HashSet::new();
    let mut check = |what: &str, content: &[u8]| {
        settle();
        let answer = client.get("/f");
        answer.assert_status(200).assert_body(content);
        assert!(seen.insert(answer.etag().to_owned()), "{what} kept the tag");
        // And it is stable as long as nothing happens.
        assert_eq!(client.get("/f").etag(), answer.etag(), "{what}");
    };
    check("nothing", b"0000");
    files.edit("f", "1111");
    make_old(files.path("f"));
    check("an edit in place that restores size and mtime", b"1111");
    files.replace("f", "2222");
    check("a rename over it with the same size and mtime", b"2222");
    fs::write(files.path("f"), "3333").unwrap();
    check("a truncation and rewrite", b"3333");
    files.remove("f");
    files.write("f", "4444");
    check("removal and creation", b"4444");
    files.write("f", "44445");
    check("an append", b"44445");
}

/// A new version of the same size, with a date that somebody has set.
fn deploy(files: &Files, path: &str, content: &[u8], date_s: u64) {
    let new = files.outside().join(".new");
    fs::write(&new, content).unwrap();
    let date = UNIX_EPOCH + std::time::Duration::from_secs(date_s);
    File::open(&new).unwrap().set_modified(date).unwrap();
    fs::rename(new, files.path(path)).unwrap();
}

#[test]
fn a_date_that_both_versions_have_validates_neither() {
    for size in [3000, 100_000] {
        for date_s in [1, 499_162_500] {
            let (old, new) = (vec![b'A'; size], vec![b'B'; size]);
            let files = Files::new();
            deploy(&files, "app", &old, date_s);
            wait_for_the_next_second();
            let server = Server::of(files.root(), &[]);
            let mut client = server.connect();
            let first = client.get("/app");
            first.assert_status(200).assert_body(&old);
            let date = first.field("Last-Modified").unwrap().to_owned();
            for version in [&old, &new] {
                deploy(&files, "app", version, date_s);
                wait_for_the_next_second();
                let since = client.get_with("/app", &[("If-Modified-Since", &date)]);
                since.assert_status(200).assert_body(version);
                assert_eq!(since.field("Last-Modified"), Some(&*date), "it is told");
                let rest = ("Range", "bytes=1500-");
                let fields = [rest, ("If-Range", &*date)];
                let answer = client.get_with("/app", &fields);
                answer.assert_status(200).assert_body(version);
                let fields = [rest, ("If-Unmodified-Since", &*date)];
                client.get_with("/app", &fields).assert_status(412);
            }
            // The tag tells them apart, and the first one from the second.
            let answer = client.get_with("/app", &[("If-None-Match", first.etag())]);
            answer.assert_status(200).assert_body(&new);
        }
    }
}

#[test]
fn a_version_that_is_put_back_is_not_taken_for_the_one_it_replaces() {
    let files = Files::written(&[("1/f", &[b'1'; 100])]);
    fs::create_dir(files.path("2")).unwrap();
    fs::write(files.path("2/f"), [b'2'; 100]).unwrap();
    wait_for_the_next_second();
    files.symlink("2", "current");
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let second = client.get("/current/f");
    second.assert_body(&[b'2'; 100]);
    let date = second.field("Last-Modified").unwrap();
    files.switch_symlink("1", "current");
    let answer = client.get_with("/current/f", &[("If-Modified-Since", date)]);
    answer.assert_status(200).assert_body(&[b'1'; 100]);
}

#[test]
fn a_tag_of_bytes_in_memory_stays_while_they_do() {
    let files = Files::with(&[("f", b"the bytes"), ("copy/f", b"the bytes")]);
    let etag = |server: &Server, target| {
        let answer = server.connect().get(target);
        answer.assert_status(200).assert_body(b"the bytes");
        answer.etag().to_owned()
    };
    let server = Server::of(files.root(), &["--workers", "2"]);
    let first = etag(&server, "/f");
    let same = |what: &str| {
        settle();
        for _ in 0..2 {
            assert_eq!(etag(&server, "/f"), first, "{what}");
        }
        let answer = server
            .connect()
            .get_with("/f", &[("If-None-Match", &first)]);
        answer.assert_status(304);
    };
    set_mode(files.path("f"), 0o664);
    same("another mode");
    std::os::unix::fs::chown(
        files.path("f"),
        Some(rustix::process::getuid().as_raw()),
        None,
    )
    .unwrap();
    same("an owner set");
    fs::hard_link(files.path("f"), files.outside().join("snapshot")).unwrap();
    same("a hard link");
    fs::rename(files.path("f"), files.path("g")).unwrap();
    fs::rename(files.path("g"), files.path("f")).unwrap();
    same("a rename");
    files.replace("f", "the bytes");
    same("a new file with the same bytes");
    fs::write(files.path("f"), "the bytes").unwrap();
    assert_eq!(etag(&server, "/f"), first, "they are known at once");
    assert_eq!(
        etag(&server, "/copy/f"),
        first,
        "a copy, as on another machine"
    );
    let restarted = Server::of(files.root(), &[]);
    assert_eq!(etag(&restarted, "/f"), first, "after a restart");
}

#[test]
fn a_file_that_just_changed_gets_its_validators_a_moment_later() {
    let files = Files::with(&[]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    // Within one clock tick two contents can have the same time stamps, so a tag that was made of
    // these for the first would also fit the second.
    for round in 0..60_u32 {
        let size = if round % 2 == 0 { 4 } else { 100_000 };
        let content = format!("{round:04}").repeat(size / 4);
        fs::write(files.path("f"), &content).unwrap();
        let answer = client.get("/f");
        answer.assert_body(content.as_bytes());
        // The server is through with it: a change would end an answer under way.
        client.request("OPTIONS", "*", &[]).assert_status(204);
        let second = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let written = fs::metadata(files.path("f")).unwrap().modified().unwrap();
        if second(written) == second(SystemTime::now()) {
            let modified = answer.field("Last-Modified");
            assert_eq!(modified, None, "its second is not over");
        }
        let Some(tag) = answer.field("ETag").map(str::to_owned) else {
            continue;
        };
        let next = format!("{:04}", round + 1000).repeat(size / 4);
        fs::write(files.path("f"), &next).unwrap();
        let changed = client.get_with("/f", &[("If-None-Match", &tag)]);
        changed.assert_status(200).assert_body(next.as_bytes());
        client.request("OPTIONS", "*", &[]).assert_status(204);
    }
    eventually("both validators of a file that rests", || {
        let answer = client.get("/f");
        answer.field("ETag").is_some() && answer.field("Last-Modified").is_some()
    });
}
