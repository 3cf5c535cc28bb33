//! Precompressed siblings and their negotiation (RFC 9110 §12.5.3).

use std::collections::HashSet;

use crate::support::{Files, Server, pattern};

fn site() -> Files {
    let large = [pattern(90_000), pattern(80_000), pattern(70_000)];
    Files::with(&[
        ("all.html", b"identity"),
        ("all.html.br", b"brotli"),
        ("all.html.zst", b"zstandard"),
        ("all.html.gz", b"gzip"),
        ("gz.css", b"identity"),
        ("gz.css.gz", b"gzip"),
        ("none.js", b"identity"),
        ("large.json", &large[0]),
        ("large.json.gz", &large[1]),
        ("large.json.br", &large[2]),
        ("dir/index.html", b"identity"),
        ("dir/index.html.gz", b"gzip"),
        ("only.txt.gz", b"gzip"),
        ("odd.txt", b"identity"),
        ("odd.txt.gz/x", b"a directory"),
    ])
}

#[test]
fn the_best_acceptable_coding_is_sent() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for (target, accept, coding) in [
        ("/all.html", "br", "br"),
        ("/all.html", "gzip", "gzip"),
        ("/all.html", "zstd", "zstd"),
        ("/all.html", "gzip, deflate, br, zstd", "br"),
        ("/all.html", "gzip, zstd", "zstd"),
        ("/all.html", "GZIP", "gzip"),
        ("/all.html", "gzip;q=1.0, br;q=0.5", "gzip"),
        ("/all.html", "gzip;q=0.5, br;q=0.501", "br"),
        ("/all.html", "br;q=0, gzip", "gzip"),
        ("/all.html", "*", "br"),
        ("/all.html", "*;q=0.1, br;q=0", "zstd"),
        ("/all.html", "identity", ""),
        ("/all.html", "identity;q=1, br;q=0.5", ""),
        ("/all.html", "deflate", ""),
        ("/all.html", "", ""),
        ("/all.html", "gzip;q=0", ""),
        ("/all.html", "gzip;q=2", ""),
        ("/all.html", "gzip;q=abc", ""),
        ("/all.html", "xgzip", ""),
        ("/gz.css", "br, gzip", "gzip"),
        ("/gz.css", "br", ""),
        ("/none.js", "br, gzip", ""),
        ("/large.json", "gzip", "gzip"),
        ("/large.json", "gzip, br", "br"),
        ("/dir/", "gzip", "gzip"),
        ("/odd.txt", "gzip", ""),
    ] {
        let answer = client.get_with(target, &[("Accept-Encoding", accept)]);
        answer.assert_status(200);
        let what = format!("{target} {accept:?}");
        assert_eq!(
            answer.field("Content-Encoding").unwrap_or_default(),
            coding,
            "{what}"
        );
        let path = if target.ends_with('/') {
            "dir/index.html"
        } else {
            &target[1..]
        };
        let suffix = match coding {
            "" => "",
            "br" => ".br",
            "zstd" => ".zst",
            _ => ".gz",
        };
        let expected = std::fs::read(files.path(format!("{path}{suffix}"))).unwrap();
        answer.assert_body(&expected);
    }
    // No field at all: the plain file, which everybody understands.
    client.get("/all.html").assert_body(b"identity");
    // Two lines are one list.
    let lines = [("Accept-Encoding", "br;q=0.1"), ("Accept-Encoding", "gzip")];
    client.get_with("/all.html", &lines).assert_body(b"gzip");
}

#[test]
fn each_coding_is_a_representation_of_its_own() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for (target, media_type) in [
        ("/all.html", "text/html"),
        ("/large.json", "application/json"),
    ] {
        let mut tags = HashSet::<String>::new();
        for coding in ["identity", "gzip", "br"] {
            let accept = [("Accept-Encoding", coding)];
            let answer = client.get_with(target, &accept);
            assert_eq!(
                answer.list("Vary"),
                ["accept-encoding"],
                "{target} {coding}"
            );
            assert_eq!(answer.field("Content-Type"), Some(media_type));
            let tag = answer.etag().to_owned();
            let again = client.get_with(target, &[accept[0], ("If-None-Match", &tag)]);
            again.assert_status(304);
            assert_eq!(again.list("Vary"), ["accept-encoding"]);
            assert_eq!(again.etag(), tag);
            for other in &tags {
                client
                    .get_with(target, &[accept[0], ("If-None-Match", other)])
                    .assert_status(200);
            }
            assert!(tags.insert(tag), "{coding} shares a tag");
            let ranged = client.get_with(target, &[accept[0], ("Range", "bytes=1-3")]);
            ranged.assert_status(206).assert_body(&answer.body[1..=3]);
            assert_eq!(
                ranged.field("Content-Encoding"),
                answer.field("Content-Encoding")
            );
            let total = format!("bytes 1-3/{}", answer.body.len());
            assert_eq!(ranged.field("Content-Range"), Some(total.as_str()));
        }
    }
}

#[test]
fn what_has_no_siblings_does_not_vary() {
    let files = site();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let answer = client.get_with("/none.js", &[("Accept-Encoding", "br")]);
    assert_eq!(answer.field("Vary"), None);
    // The sibling itself is a file like any other.
    let answer = client.get("/only.txt.gz");
    answer.assert_status(200).assert_body(b"gzip");
    assert_eq!(answer.field("Content-Encoding"), None);
    assert_eq!(answer.field("Content-Type"), Some("application/gzip"));
    // A file that exists in compressed form only is not there.
    client
        .get_with("/only.txt", &[("Accept-Encoding", "gzip")])
        .assert_status(404);
}

#[test]
fn no_precompressed_sends_files_as_they_are() {
    let files = site();
    let server = Server::of(files.root(), &["--no-precompressed"]);
    let mut client = server.connect();
    let answer = client.get_with("/all.html", &[("Accept-Encoding", "br, gzip, zstd")]);
    answer.assert_status(200).assert_body(b"identity");
    assert_eq!(answer.field("Vary"), None);
    assert_eq!(answer.field("Content-Encoding"), None);
}

#[test]
fn a_sibling_that_cannot_be_read_is_as_good_as_none() {
    let files = Files::with(&[("x", b"plain")]);
    // Nothing is mapped at its beginning: to read that is an I/O error.
    files.symlink("/proc/self/mem", "x.br");
    let server = Server::of(files.root(), &["--symlinks", "anywhere"]);
    let mut client = server.connect();
    for _ in 0..2 {
        let answer = client.get_with("/x", &[("Accept-Encoding", "br")]);
        answer.assert_status(200).assert_body(b"plain");
        assert_eq!(answer.field("Content-Encoding"), None);
    }
}
