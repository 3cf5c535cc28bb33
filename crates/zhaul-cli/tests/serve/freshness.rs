//! The open-file cache is never stale: whatever happens to a name, the very next request on the
//! same connection sees it.
//!
//! Each case is tried with files that have rested, which the server keeps, and with files that
//! change all the time, which share clock ticks.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::files::{make_old, settle};
use crate::support::{
    Client, EndsOnDrop, Files, Serve, Server, has_program, is_root, pattern, skip,
};

/// One that is kept in memory and one of which only the descriptor is kept.
const SIZES: [usize; 2] = [1000, 100_000];
const RESTED_ROUNDS: usize = 12;
const RESTLESS_ROUNDS: usize = 120;

/// The content of a round, of the same length in each.
fn content(size: usize, round: usize) -> Vec<u8> {
    let mut bytes = pattern(size);
    bytes[..8].copy_from_slice(&(round as u64).to_be_bytes());
    bytes
}

/// Asks for `/file`, and returns when the server is through with the answer. An edit that comes
/// between its last byte and the server's last look at the file would end the connection.
fn assert_is(client: &mut Client, expected: &[u8]) {
    client.get("/file").assert_status(200).assert_body(expected);
    client.request("OPTIONS", "*", &[]).assert_status(204);
}

/// Changes `file` by `change` again and again, and asks for it behind each change.
fn assert_seen(change: impl Fn(&Files, &str, &[u8])) {
    for size in SIZES {
        let files = Files::with(&[("file", &content(size, 0))]);
        let server = Server::of(files.root(), &["--workers", "1"]);
        let mut client = server.connect();
        assert_is(&mut client, &content(size, 0));
        for round in 1..RESTED_ROUNDS + RESTLESS_ROUNDS {
            if round < RESTED_ROUNDS {
                make_old(files.path("file"));
                settle();
                // Twice, so that the second one comes from the cache.
                assert_is(&mut client, &content(size, round - 1));
                assert_is(&mut client, &content(size, round - 1));
            }
            change(&files, "file", &content(size, round));
            assert_is(&mut client, &content(size, round));
        }
    }
}

#[test]
fn an_edit_in_place_is_seen() {
    assert_seen(|files, path, content| files.edit(path, content));
}

#[test]
fn an_edit_in_place_that_restores_mtime_is_seen() {
    assert_seen(|files, path, content| {
        files.edit(path, content);
        make_old(files.path(path));
    });
}

#[test]
fn a_truncation_and_rewrite_is_seen() {
    assert_seen(|files, path, content| {
        fs::write(files.path(path), content).unwrap();
        make_old(files.path(path));
    });
}

#[test]
fn a_rename_over_it_is_seen() {
    assert_seen(|files, path, content| files.replace(path, content));
}

#[test]
fn a_removal_and_a_new_file_are_seen() {
    assert_seen(|files, path, content| {
        files.remove(path);
        files.write(path, content);
    });
}

#[test]
fn a_switched_link_is_seen() {
    assert_seen(|files, path, content| {
        let target = format!("target-{}", content[7] % 4);
        files.write(&target, content);
        files.switch_symlink(target, path);
    });
}

#[test]
fn a_removed_file_is_gone_at_once() {
    for size in SIZES {
        let files = Files::with(&[]);
        let server = Server::of(files.root(), &[]);
        let mut client = server.connect();
        for round in 0..RESTED_ROUNDS + RESTLESS_ROUNDS {
            client.get("/file").assert_status(404);
            files.write("file", content(size, round));
            if round < RESTED_ROUNDS {
                settle();
                client.get("/file").assert_status(200);
            }
            client
                .get("/file")
                .assert_status(200)
                .assert_body(&content(size, round));
            files.remove("file");
        }
        client.get("/file").assert_status(404);
    }
}

#[test]
fn a_file_that_becomes_a_directory_and_back_is_seen() {
    let files = Files::with(&[("x", b"file")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for round in 0..10 {
        client.get("/x").assert_status(200).assert_body(b"file");
        client.get("/x/").assert_status(404);
        files.remove("x");
        files.write("x/index.html", "inside");
        if round % 2 == 0 {
            settle();
        }
        client.get("/x").assert_status(301);
        client.get("/x/").assert_status(200).assert_body(b"inside");
        fs::remove_dir_all(files.path("x")).unwrap();
        files.write("x", "file");
        if round % 2 == 0 {
            settle();
        }
    }
}

#[test]
fn a_switched_link_to_a_directory_is_seen() {
    for size in SIZES {
        let files = Files::new();
        for release in 0..4 {
            files.write(format!("releases/{release}/app.js"), content(size, release));
            files.write(
                format!("releases/{release}/index.html"),
                content(size, release + 10),
            );
        }
        files.symlink("releases/0", "current");
        let server = Server::of(files.root(), &[]);
        let mut client = server.connect();
        for round in 0..RESTED_ROUNDS + RESTLESS_ROUNDS {
            let release = round % 4;
            if round % 2 == 0 {
                files.switch_symlink(format!("releases/{release}"), "current");
            } else {
                files.switch_symlink(files.path(format!("releases/{release}")), "current");
            }
            for _ in 0..2 {
                let answer = client.get("/current/app.js");
                answer
                    .assert_status(200)
                    .assert_body(&content(size, release));
                let answer = client.get("/current/");
                answer
                    .assert_status(200)
                    .assert_body(&content(size, release + 10));
                if round >= RESTED_ROUNDS {
                    break;
                }
                settle();
            }
        }
    }
}

#[test]
fn a_directory_renamed_over_is_seen() {
    let files = Files::new();
    files.write("site/a", "0");
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for round in 1..40 {
        client
            .get("/site/a")
            .assert_body((round - 1).to_string().as_bytes());
        files.write("next/a", round.to_string());
        fs::rename(files.path("site"), files.path(format!("old-{round}"))).unwrap();
        fs::rename(files.path("next"), files.path("site")).unwrap();
        if round % 4 == 0 {
            settle();
        }
        client
            .get("/site/a")
            .assert_status(200)
            .assert_body(round.to_string().as_bytes());
    }
}

fn get_compressed(client: &mut Client, target: &str) -> String {
    let answer = client.get_with(target, &[("Accept-Encoding", "br, gzip")]);
    let body = String::from_utf8(answer.assert_status(200).body.clone()).unwrap();
    let coding = answer.field("Content-Encoding").unwrap_or("identity");
    assert_eq!(
        answer.list("Vary").is_empty(),
        !body.contains("varies"),
        "{body}"
    );
    format!("{coding} {body}")
}

#[test]
fn siblings_that_appear_and_vanish_are_seen() {
    for (target, path) in [("/f.css", "f.css"), ("/dir/", "dir/index.html")] {
        let files = Files::new();
        files.write(path, "plain");
        let sibling = |suffix: &str| format!("{path}{suffix}");
        let server = Server::of(files.root(), &[]);
        let mut client = server.connect();
        for round in 0..RESTED_ROUNDS + 30 {
            let pause = || {
                if round < RESTED_ROUNDS {
                    settle();
                }
            };
            files.replace(path, "plain");
            pause();
            assert_eq!(get_compressed(&mut client, target), "identity plain");
            files.replace(path, "plain, varies");
            files.write(sibling(".gz"), format!("varies {round}"));
            pause();
            assert_eq!(
                get_compressed(&mut client, target),
                format!("gzip varies {round}")
            );
            files.write(sibling(".br"), format!("br varies {round}"));
            assert_eq!(
                get_compressed(&mut client, target),
                format!("br br varies {round}")
            );
            pause();
            assert_eq!(
                get_compressed(&mut client, target),
                format!("br br varies {round}")
            );
            files.edit(sibling(".br"), "BR");
            assert_eq!(
                get_compressed(&mut client, target),
                format!("br BR varies {round}")
            );
            client.get(target).assert_body(b"plain, varies");
            files.remove(sibling(".br"));
            assert_eq!(
                get_compressed(&mut client, target),
                format!("gzip varies {round}")
            );
            pause();
            assert_eq!(
                get_compressed(&mut client, target),
                format!("gzip varies {round}")
            );
            files.remove(sibling(".gz"));
            let answer = client.get_with(target, &[("Accept-Encoding", "br, gzip")]);
            answer.assert_status(200).assert_body(b"plain, varies");
            assert_eq!(answer.field("Vary"), None);
        }
    }
}

#[test]
fn an_index_that_appears_or_vanishes_is_seen() {
    let files = Files::with(&[("dir/other", b"")]);
    let server = Server::of(
        files.root(),
        &["--index", "first.html", "--index", "second.html"],
    );
    let mut client = server.connect();
    let is_listing = |client: &mut Client| {
        let answer = client.get("/dir/");
        String::from_utf8(answer.assert_status(200).body.clone())
            .unwrap()
            .contains("other")
    };
    for round in 0..RESTED_ROUNDS + 40 {
        let pause = || {
            if round < RESTED_ROUNDS {
                settle();
            }
        };
        assert!(is_listing(&mut client));
        files.write("dir/second.html", "second");
        pause();
        client.get("/dir/").assert_body(b"second");
        client.get("/dir/").assert_body(b"second");
        files.write("dir/first.html", "first");
        client.get("/dir/").assert_body(b"first");
        pause();
        client.get("/dir/").assert_body(b"first");
        files.remove("dir/first.html");
        client.get("/dir/").assert_body(b"second");
        pause();
        client.get("/dir/").assert_body(b"second");
        files.remove("dir/second.html");
    }
}

#[test]
fn a_part_or_a_304_never_comes_from_an_older_version() {
    for size in SIZES {
        let files = Files::with(&[("file", &content(size, 0))]);
        let server = Server::of(files.root(), &[]);
        let mut client = server.connect();
        for round in 1..RESTED_ROUNDS + 30 {
            make_old(files.path("file"));
            if round < RESTED_ROUNDS {
                settle();
            }
            let old = client.get("/file");
            client.request("OPTIONS", "*", &[]).assert_status(204);
            files.edit("file", content(size, round));
            make_old(files.path("file"));
            let ranged = client.get_with("/file", &[("Range", "bytes=0-99")]);
            ranged
                .assert_status(206)
                .assert_body(&content(size, round)[..100]);
            client.request("OPTIONS", "*", &[]).assert_status(204);
            let Some(etag) = old.field("ETag") else {
                continue;
            };
            let fields = [("If-None-Match", etag)];
            client
                .get_with("/file", &fields)
                .assert_body(&content(size, round));
            let fields = [("Range", "bytes=0-99"), ("If-Range", etag)];
            client
                .get_with("/file", &fields)
                .assert_status(200)
                .assert_body(&content(size, round));
            client.request("OPTIONS", "*", &[]).assert_status(204);
        }
    }
}

#[test]
fn every_worker_sees_a_change() {
    let files = Files::with(&[("file", b"0")]);
    let server = Server::of(files.root(), &["--workers", "4"]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for round in 1..RESTED_ROUNDS {
        settle();
        for client in &mut clients {
            client
                .get("/file")
                .assert_body((round - 1).to_string().as_bytes());
        }
        files.replace("file", round.to_string());
        for client in &mut clients {
            client
                .get("/file")
                .assert_body(round.to_string().as_bytes());
        }
    }
}

#[test]
fn a_deleted_file_is_let_go_of() {
    // Its blocks are free only when nobody holds it open any more.
    let files = Files::with(&[("file", &pattern(1_000_000))]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    let mut client = server.connect();
    client.get("/file").assert_status(200);
    client.get("/file").assert_status(200);
    files.remove("file");
    client.get("/file").assert_status(404);
    assert_let_go(&server);
}

#[test]
fn a_deleted_file_is_let_go_of_before_the_body_of_its_request_is_there() {
    let files = Files::with(&[("file", &pattern(1_000_000))]);
    let limits = ["--workers", "1", "--header-timeout", "600"];
    let server = Server::of(files.root(), &limits);
    let mut client = server.connect();
    client.ask("GET", "/file", &[("Content-Length", "10")]);
    client.answer().assert_status(200);
    files.remove("file");
    server.connect().get("/file").assert_status(404);
    assert_let_go(&server);
    // The connection goes on where it was.
    client.send("0123456789");
    client.get("/file").assert_status(404);
}

fn assert_let_go(server: &Server) {
    crate::support::eventually("closing a deleted file", || {
        let dir = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
        let mut open = fs::read_dir(dir).unwrap();
        !open.any(|fd| {
            let target = fs::read_link(fd.unwrap().path());
            target.is_ok_and(|target| is_deleted(&target))
        })
    });
}

fn is_deleted(target: &Path) -> bool {
    target.to_string_lossy().ends_with("/www/file (deleted)")
}

#[test]
fn a_request_that_is_completed_after_an_edit_sees_it() {
    // The server may spare itself a second look at a file within one round of its event loop. A
    // request that began to arrive before such a round and ended after an edit must not be
    // answered from a look that lies between.
    let files = Files::with(&[("file", &content(1000, 0))]);
    let server = Server::of(files.root(), &["--workers", "1"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = EndsOnDrop(&over);
        for _ in 0..2 {
            let (server, over) = (&server, &over);
            scope.spawn(move || keep_busy(server, over));
        }
        let mut client = server.connect();
        for round in 1..60 {
            make_old(files.path("file"));
            settle();
            client.get("/file").assert_body(&content(1000, round - 1));
            client.send("GET /file HTTP/1.1\r\nHos");
            files.edit("file", (round as u64).to_be_bytes());
            client.send("t: h\r\n\r\n");
            client
                .answer()
                .assert_status(200)
                .assert_body(&content(1000, round));
        }
    });
}

/// Makes the rounds of the event loop long and full of requests for the same file.
fn keep_busy(server: &Server, over: &AtomicBool) {
    let mut clients: Vec<Client> = (0..60).map(|_| server.connect()).collect();
    while !over.load(Ordering::Relaxed) {
        for client in &mut clients {
            client.ask("GET", "/file", &[]);
        }
        for client in &mut clients {
            client.answer().assert_status(200);
        }
    }
}

/// The body that is sent to a client that takes brotli.
fn compressed(client: &mut Client, target: &str) -> Vec<u8> {
    client
        .get_with(target, &[("Accept-Encoding", "br")])
        .assert_status(200)
        .body
        .clone()
}

#[test]
fn a_sibling_that_is_older_than_its_file_is_not_sent() {
    for (target, path) in [("/f.css", "f.css"), ("/dir/", "dir/index.html")] {
        let files = Files::new();
        files.write(path, "plain");
        let sibling = format!("{path}.br");
        files.write(&sibling, "br");
        let server = Server::of(files.root(), &[]);
        let mut client = server.connect();
        settle();
        for _ in 0..3 {
            assert_eq!(compressed(&mut client, target), b"br");
        }
        // In place, which no directory tells.
        files.edit(path, "edits");
        for _ in 0..2 {
            assert_eq!(compressed(&mut client, target), b"edits");
        }
        settle();
        for _ in 0..2 {
            assert_eq!(compressed(&mut client, target), b"edits");
        }
        // Made anew, in place; and declared to be of now.
        files.edit(&sibling, "BR");
        assert_eq!(compressed(&mut client, target), b"BR");
        make_old(files.path(&sibling));
        settle();
        for _ in 0..2 {
            assert_eq!(compressed(&mut client, target), b"edits");
        }
        let now = fs::File::open(files.path(&sibling)).unwrap();
        now.set_modified(std::time::SystemTime::now()).unwrap();
        assert_eq!(compressed(&mut client, target), b"BR");
    }
}

#[test]
fn a_sibling_with_the_time_of_its_file_is_sent_also_when_that_was_cut() {
    let files = Files::with(&[("f", b"plain"), ("f.br", b"br")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let whole = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let at = |nanoseconds| whole + std::time::Duration::from_nanos(nanoseconds);
    let set = |path: &str, time| {
        let file = fs::File::open(files.path(path)).unwrap();
        file.set_modified(time).unwrap();
    };
    for (sibling, plain, expected) in [
        (123_456_789, 123_456_789, &b"br"[..]),
        (123_456_000, 123_456_789, b"br"),
        (0, 123_456_789, b"br"),
        (200_000_000, 123_456_789, b"br"),
        (123_456_788, 123_456_789, b"plain"),
        (100_000_000, 123_456_789, b"plain"),
    ] {
        set("f", at(plain));
        set("f.br", at(sibling));
        assert_eq!(compressed(&mut client, "/f"), expected, "{sibling} {plain}");
    }
}

#[test]
fn a_link_whose_target_appears_elsewhere_is_seen() {
    let files = Files::with(&[
        ("f.css", b"plain"),
        ("dir/other.html", b"other"),
        ("made/x", b""),
    ]);
    files.symlink("made/f.br", "f.css.br");
    files.symlink("../made/index", "dir/index.html");
    settle();
    let server = Server::of(
        files.root(),
        &["--index", "index.html", "--index", "other.html"],
    );
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(compressed(&mut client, "/f.css"), b"plain");
        client.get("/dir/").assert_body(b"other");
    }
    files.write("made/f.br", "br");
    files.write("made/index", "index");
    assert_eq!(compressed(&mut client, "/f.css"), b"br");
    client.get("/dir/").assert_body(b"index");
}

#[test]
fn an_index_in_another_directory_is_watched_there() {
    let files = Files::with(&[("dir/index.html", b"second"), ("dir/sub/x", b"")]);
    let server = Server::of(
        files.root(),
        &[
            "--index",
            "sub/deep/i.html",
            "--index",
            "sub/i.html",
            "--index",
            "index.html",
        ],
    );
    settle();
    let mut client = server.connect();
    let mut expect = |body: &[u8]| {
        for round in 0..3 {
            let answer = client.get("/dir/");
            answer.assert_status(200).assert_body(body);
            if round == 0 {
                settle();
            }
        }
    };
    expect(b"second");
    files.write("dir/sub/i.html", "first");
    expect(b"first");
    files.write("dir/sub/deep/i.html", "deepest");
    expect(b"deepest");
    fs::remove_dir_all(files.path("dir/sub/deep")).unwrap();
    expect(b"first");
    // Its siblings are beside it.
    assert_eq!(compressed(&mut client, "/dir/"), b"first");
    files.write("dir/sub/i.html.br", "br");
    assert_eq!(compressed(&mut client, "/dir/"), b"br");
}

/// Makes a root of its own of what a program needs, on a mount that its table will not list.
const CHROOT: &str = r#"
jail=$1; shift
for dir in bin lib lib64 usr proc; do
    if [ -L "/$dir" ]; then cp -P "/$dir" "$jail/$dir"
    elif [ -d "/$dir" ]; then mkdir "$jail/$dir" && mount --rbind "/$dir" "$jail/$dir" || exit
    fi
done
mkdir -p "$jail${1%/*}" && cp "$1" "$jail$1" && exec chroot "$jail" "$@"
"#;

#[test]
fn a_local_file_is_as_fresh_in_a_chroot() {
    let name = "a_local_file_is_as_fresh_in_a_chroot";
    if !is_root()
        || !["unshare", "mount", "chroot"]
            .iter()
            .all(|p| has_program(p))
    {
        skip!(name, "it takes root, unshare, mount and chroot");
    }
    let files = Files::with(&[("www/a", b"old")]);
    let jail = files.root().as_os_str();
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    let script = ["sh", "-c", CHROOT, "chroot"];
    let words = unshare.into_iter().chain(script).map(OsStr::new);
    let server = Serve::new("/www")
        .under(words.chain([jail]))
        .args(["--remote-freshness", "60s"]);
    let server = match server.try_start() {
        Ok(server) => server,
        Err(refusal) => skip!(name, "{}", refusal.stderr),
    };
    let mut client = server.connect();
    for _ in 0..3 {
        client.get("/a").assert_status(200).assert_body(b"old");
    }
    files.edit("www/a", "other");
    client.get("/a").assert_status(200).assert_body(b"other");
}
