//! Index files, redirects and listings.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use crate::support::{Client, Files, Response, Server};

fn listing(client: &mut Client, target: &str) -> Value {
    let answer = client.get_with(target, &[("Accept", "application/json")]);
    answer.assert_status(200);
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    serde_json::from_slice(&answer.body).unwrap()
}

fn names(listing: &Value) -> Vec<&str> {
    let entries = listing["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect()
}

fn text(answer: &Response) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

#[test]
fn an_index_file_answers_for_its_directory() {
    let files = Files::with(&[
        ("index.html", b"top"),
        ("first/a.htm", b"a"),
        ("second/b.htm", b"b"),
        ("both/a.htm", b"a"),
        ("both/b.htm", b"b"),
        ("odd/index.html/x", b"the index is a directory"),
    ]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let answer = client.get("/");
    answer.assert_status(200).assert_body(b"top");
    assert_eq!(answer.field("Content-Type"), Some("text/html"));
    assert_eq!(names(&listing(&mut client, "/odd/")), ["index.html"]);

    let server = Server::of(files.root(), &["--index", "a.htm", "--index", "b.htm"]);
    let mut client = server.connect();
    client.get("/first/").assert_status(200).assert_body(b"a");
    client.get("/second/").assert_status(200).assert_body(b"b");
    client.get("/both/").assert_status(200).assert_body(b"a");
    assert!(text(&client.get("/")).contains("index.html"));
}

#[test]
fn a_directory_without_its_slash_is_redirected_and_keeps_the_query() {
    let files = Files::with(&[("dir/sub/x", b""), ("a b/x", b"")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for (target, location) in [
        ("/dir", "/dir/"),
        ("/dir?a=1&b=%2F", "/dir/?a=1&b=%2F"),
        ("/dir?", "/dir/?"),
        ("/dir/sub", "/dir/sub/"),
        ("/dir//sub", "/dir/sub/"),
        ("/./dir/./sub", "/dir/sub/"),
        ("/a%20b", "/a%20b/"),
        ("http://other.example/dir", "/dir/"),
    ] {
        let answer = client.get(target);
        answer.assert_status(301);
        assert_eq!(answer.field("Location"), Some(location), "{target}");
    }
    client.get("/dir/sub/x/").assert_status(404);
}

#[test]
fn a_redirect_never_leads_to_another_host_or_header() {
    let files = Files::new();
    for name in [
        "evil.example",
        "\\evil.example",
        "\\\\evil.example",
        "x\r\nSet-Cookie: a=b",
        "http:",
    ] {
        files.write(format!("{name}/x"), "");
    }
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for (target, location) in [
        ("//evil.example", "/evil.example/"),
        ("///evil.example", "/evil.example/"),
        ("/.//evil.example", "/evil.example/"),
        ("//evil.example?x", "/evil.example/?x"),
        ("/%5cevil.example", "/%5Cevil.example/"),
        ("/%5c%5cevil.example", "/%5C%5Cevil.example/"),
        ("/x%0d%0aSet-Cookie:%20a=b", "/x%0D%0ASet-Cookie%3A%20a=b/"),
        ("/http:", "/http%3A/"),
    ] {
        let answer = client.get(target);
        answer.assert_status(301);
        assert_eq!(answer.field("Location"), Some(location), "{target}");
        assert_eq!(answer.field("Set-Cookie"), None);
    }
}

#[test]
fn a_listing_names_what_is_served_and_nothing_else() {
    let files = Files::with(&[
        ("dir/b.txt", b"12345"),
        ("dir/a10.txt", b"1"),
        ("dir/a2.txt", b"12"),
        ("dir/sub/x", b""),
        ("dir/.hidden", b"x"),
        ("dir/.git/config", b"x"),
    ]);
    files.symlink("b.txt", "dir/link.txt");
    files.symlink("sub", "dir/linked");
    files.symlink("/etc/passwd", "dir/outside");
    files.symlink("nowhere", "dir/dangling");
    mkfifo(&files, "dir/pipe");
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let shown = listing(&mut client, "/dir/");
    assert_eq!(
        names(&shown),
        ["linked", "sub", "a2.txt", "a10.txt", "b.txt", "link.txt"]
    );
    assert_eq!(shown["path"], "/dir/");
    assert_eq!(shown["truncated"], false);
    let entries = shown["entries"].as_array().unwrap();
    let types: Vec<_> = entries
        .iter()
        .map(|entry| entry["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        ["directory", "directory", "file", "file", "file", "file"]
    );
    assert_eq!(entries[4]["size"], 5);
    assert_eq!(entries[5]["size"], 5, "the size of what the link leads to");
    assert!(entries[0]["size"].is_null());
    assert_eq!(entries[4]["mtime"], "2023-11-14T22:13:20Z");

    let page = text(&client.get("/dir/"));
    for name in ["a2.txt", "b.txt", "link.txt", "sub/"] {
        assert!(page.contains(name), "{name}");
    }
    for name in [".hidden", ".git", "outside", "dangling", "pipe"] {
        assert!(!page.contains(name), "{name}");
    }
    let server = Server::of(files.root(), &["--dot-files", "--symlinks", "never"]);
    let shown = listing(&mut server.connect(), "/dir/");
    assert_eq!(
        names(&shown),
        [".git", "sub", ".hidden", "a2.txt", "a10.txt", "b.txt"]
    );
}

fn mkfifo(files: &Files, path: &str) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(
        CWD,
        files.path(path),
        FileType::Fifo,
        Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
}

#[test]
fn a_listing_is_sorted_as_asked() {
    let files = Files::with(&[("b", b"1"), ("a", b"333"), ("c", b"22"), ("z/x", b"")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for (query, expected) in [
        ("", ["z", "a", "b", "c"]),
        ("?sort=name&order=desc", ["z", "c", "b", "a"]),
        ("?sort=size", ["z", "b", "c", "a"]),
        ("?order=desc&sort=size", ["z", "a", "c", "b"]),
        ("?sort=nonsense", ["z", "a", "b", "c"]),
    ] {
        assert_eq!(
            names(&listing(&mut client, &format!("/{query}"))),
            expected,
            "{query}"
        );
    }
}

#[test]
fn the_format_follows_query_and_accept() {
    let files = Files::with(&[("a", b"")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for (target, accept, is_json) in [
        ("/", "text/html,application/xhtml+xml,*/*;q=0.8", false),
        ("/", "*/*", false),
        ("/", "application/json", true),
        ("/", "text/html;q=0.5, application/json", true),
        ("/?format=json", "text/html", true),
        ("/?format=html", "application/json", false),
    ] {
        let answer = client.get_with(target, &[("Accept", accept)]);
        let json = answer.field("Content-Type") == Some("application/json");
        assert_eq!(json, is_json, "{target} {accept}");
        assert!(answer.list("Vary").contains(&"accept".to_owned()));
        assert_eq!(answer.field("Cache-Control"), Some("no-cache"));
    }
}

/// Names that an uploader may have chosen to hurt whoever looks.
const HOSTILE: &[&[u8]] = &[
    b"<script src=x>alert(1)",
    b"\"><img src=x onerror=alert(1)>.txt",
    b"'onmouseover='alert(1)",
    b"javascript:alert(1)",
    b"&amp;&lt;",
    b"a\nb\r\nc",
    b"\x1b[31m",
    b"\xff\xfe not utf-8",
    b"\xc2\x9b\xe2\x80\xaereversed",
    b"100%",
    b"%2e%2e",
    b"a?b#c",
    b"back\\slash",
    b" leading and trailing ",
    b"...",
];

#[test]
fn hostile_names_stay_names() {
    let files = Files::new();
    for name in HOSTILE {
        files.write(
            std::path::Path::new("d").join(OsStr::from_bytes(name)),
            name,
        );
    }
    let server = Server::of(files.root(), &["--dot-files"]);
    let mut client = server.connect();
    let answer = client.get("/d/");
    let page = text(&answer);
    for raw in [
        "<script",
        "<img",
        "'onmouseover='",
        "href=\"javascript:",
        "\r\nc",
        "\x1b",
    ] {
        assert!(!page.contains(raw), "{raw:?} in {page}");
    }
    let policy = answer.field("Content-Security-Policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert_eq!(page.matches("<script").count(), 0);

    let shown = listing(&mut client, "/d/");
    let entries = shown["entries"].as_array().unwrap();
    assert_eq!(entries.len(), HOSTILE.len());
    let mut reached: Vec<Vec<u8>> = Vec::new();
    for entry in entries {
        let href = entry["href"].as_str().unwrap();
        let relative = href.strip_prefix("./").unwrap_or_else(|| panic!("{href}"));
        assert!(
            href.bytes()
                .all(|b| b.is_ascii_graphic() && !b"\"<>\\:".contains(&b)),
            "{href}"
        );
        assert!(
            page.contains(&format!("href=\"{}\"", href.replace('&', "&amp;"))),
            "{href}"
        );
        // Each file holds its own name.
        reached.push(
            client
                .get(&format!("/d/{relative}"))
                .assert_status(200)
                .body
                .clone(),
        );
    }
    reached.sort();
    let mut expected: Vec<Vec<u8>> = HOSTILE.iter().map(|name| name.to_vec()).collect();
    expected.sort();
    assert_eq!(reached, expected);
}

#[test]
fn head_of_a_listing_has_the_fields_and_no_body() {
    let files = Files::with(&[("a", b"a"), ("b", b"b")]);
    let server = Server::of(files.root(), &[]);
    for target in ["/", "/?format=json"] {
        let mut client = server.connect();
        let whole = client.get(target);
        // A body would be taken for the next answer.
        let head = client.request("HEAD", target, &[]);
        assert_eq!(head.lasting_head(), whole.lasting_head());
        assert_eq!(head.announced_length(), Some(whole.body.len() as u64));
        client.get("/a").assert_status(200).assert_body(b"a");
        client.ask("HEAD", target, &[("Connection", "close")]);
        client.answer_to("HEAD").assert_status(200);
        client.assert_ended();
    }
}

#[test]
fn no_listing_answers_404() {
    let files = Files::with(&[("dir/x", b"x"), ("site/index.html", b"home")]);
    let server = Server::of(files.root(), &["--no-listing"]);
    let mut client = server.connect();
    client.get("/").assert_status(404);
    client.get("/dir/").assert_status(404);
    client.get("/dir/x").assert_status(200);
    client.get("/site/").assert_status(200).assert_body(b"home");
}

#[test]
fn a_listing_shows_what_is_there_now() {
    let files = Files::with(&[("dir/a", b"")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for round in 0..50 {
        let name = format!("n{round}");
        files.write(format!("dir/{name}"), "");
        assert!(names(&listing(&mut client, "/dir/")).contains(&name.as_str()));
        files.remove(format!("dir/{name}"));
        assert_eq!(names(&listing(&mut client, "/dir/")), ["a"]);
    }
}

#[test]
fn a_huge_directory_is_sorted_as_a_whole_and_paged() {
    let files = Files::new();
    const COUNT: usize = 21_000;
    // Neither the order in which they are made nor that of the file system.
    for n in (0..COUNT).map(|n| n * 7919 % COUNT) {
        let file = std::fs::File::create(files.path(format!("{n}"))).unwrap();
        if n % 1000 == 0 {
            file.set_len(1 + n as u64).unwrap();
        }
    }
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let mut target = "/".to_owned();
    let mut all = Vec::new();
    for page in 0..3 {
        let shown = listing(&mut client, &target);
        assert_eq!(shown["total"], COUNT);
        assert_eq!(shown["truncated"], page < 2);
        all.extend(names(&shown).into_iter().map(str::to_owned));
        match shown["next"].as_str() {
            Some(next) => target = format!("/{}", next.strip_prefix("./").unwrap()),
            None => assert_eq!(page, 2),
        }
        // What was there when the page was made may be gone.
        if page == 0 {
            files.remove(all.last().unwrap());
            std::fs::File::create(files.path("9999a")).unwrap();
        }
    }
    let mut expected: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    expected.insert(10_000, "9999a".to_owned());
    assert_eq!(all, expected);
    // The largest of all, wherever the directory has it.
    let shown = listing(&mut client, "/?sort=size&order=desc");
    assert_eq!(names(&shown)[..3], ["20000", "19000", "18000"]);
    let page = client.get("/");
    assert_eq!(page.announced_length(), Some(page.body.len() as u64));
    let page = text(&page);
    assert!(page.contains("1 to 10000 of 21000."));
    assert!(
        page.contains("rel=\"next\" href=\"./?"),
        "{}",
        &page[page.len() - 900..]
    );
}

#[test]
fn a_fifo_is_not_opened_for_a_request() {
    use rustix::fs::{Mode, OFlags, open};
    let files = Files::with(&[("a", b"a"), ("f.css", b"plain")]);
    let pipes = ["pipe", "f.css.br"].map(|path| {
        mkfifo(&files, path);
        files.path(path)
    });
    let server = Server::of(files.root(), &["--workers", "1"]);
    let (got_in, who_got_in) = std::sync::mpsc::channel();
    // A writer waits for somebody to open it for reading, however shortly.
    let writers = pipes.clone().map(|path| {
        let got_in = got_in.clone();
        std::thread::spawn(move || {
            open(&path, OFlags::WRONLY, Mode::empty()).unwrap();
            got_in.send(path).unwrap();
        })
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut client = server.connect();
    for _ in 0..3 {
        client.get("/pipe").assert_status(404);
        client
            .get_with("/f.css", &[("Accept-Encoding", "br")])
            .assert_body(b"plain");
        client.get("/").assert_status(200);
    }
    let opened = who_got_in.recv_timeout(std::time::Duration::from_millis(100));
    for path in &pipes {
        open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(opened.is_err(), "the server opened {opened:?}");
}

#[test]
fn many_listings_at_once_wait_for_each_other() {
    let names = ["a", "b", "c", "d", "e"];
    let files = Files::with(&names.map(|name| (name, &b"x"[..])));
    let server = Server::of(files.root(), &[]);
    for _ in 0..5 {
        let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.ask("GET", "/", &[]);
        }
        for client in &mut clients {
            client.answer().assert_status(200);
        }
    }
}
