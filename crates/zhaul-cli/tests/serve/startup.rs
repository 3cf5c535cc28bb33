//! What goes wrong at the start is said in one line: what, why, and what to do.

use std::ffi::OsString;
use std::net::TcpListener;

use crate::support::files::set_mode;
use crate::support::running::{Refusal, binary};
use crate::support::{Client, Files, Serve, Server, has_program, is_root, skip};

/// `zhaul: what: why (what to do)`, and nothing else.
#[track_caller]
fn assert_refused(refused: Result<Server, Refusal>, exit: i32, words: &[&str]) {
    let refusal = refused.err().expect("it must not start");
    let text = refusal.stderr.trim_end();
    assert_eq!(refusal.status.code(), Some(exit), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// The same, with the shape of our own messages.
#[track_caller]
fn assert_explained(refused: Result<Server, Refusal>, exit: i32, words: &[&str]) {
    if let Err(refusal) = &refused {
        let text = refusal.stderr.trim_end();
        let shaped = text.starts_with("zhaul: ") && text.contains(": ") && text.ends_with(')');
        assert!(
            shaped && text.lines().count() == 1,
            "not `zhaul: what: why (what to do)`: {text}"
        );
    }
    assert_refused(refused, exit, words);
}

#[test]
fn a_missing_directory_is_named() {
    let files = Files::new();
    let refused = Serve::new(files.path("missing")).try_start();
    assert_explained(refused, 1, &["missing", "No such file", "create it"]);
}

#[test]
fn a_file_as_directory_is_named() {
    let files = Files::with(&[("file", b"")]);
    let refused = Serve::new(files.path("file")).try_start();
    assert_explained(
        refused,
        1,
        &["file", "Not a directory", "name the directory"],
    );
}

#[test]
fn a_port_in_use_is_named() {
    let files = Files::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refused = Serve::new(files.root()).listen([address]).try_start();
    assert_explained(
        refused,
        1,
        &[&address.to_string(), "in use", "choose another port"],
    );
}

#[test]
fn two_servers_do_not_share_a_port() {
    let files = Files::new();
    let first = Serve::new(files.root()).start();
    let refused = Serve::new(files.root())
        .listen([first.address()])
        .try_start();
    assert_explained(refused, 1, &["in use"]);
}

#[test]
fn a_port_can_be_had_again_after_the_server_ended() {
    let files = Files::with(&[("a", b"a")]);
    let first = Serve::new(files.root()).start();
    let address = first.address();
    let mut client = first.connect();
    client.get("/a").assert_status(200);
    drop(first);
    let second = Serve::new(files.root()).listen([address]).start();
    second.connect().get("/a").assert_status(200);
}

#[test]
fn a_foreign_address_is_named() {
    let files = Files::new();
    let refused = Serve::new(files.root())
        .listen(["203.0.113.7:0"])
        .try_start();
    assert_explained(refused, 1, &["203.0.113.7", "address"]);
}

#[test]
fn a_privileged_port_is_explained() {
    const NAME: &str = "a_privileged_port_is_explained";
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u32>().unwrap() <= 80 {
        skip!(NAME, "here every user may listen on port 80");
    }
    let files = Files::new();
    let mut serve = Serve::new(files.root()).listen(["127.0.0.1:80"]);
    if is_root() {
        if !has_program("setpriv") || !binary_is_readable_by_all() {
            skip!(NAME, "no way to run the server as another user");
        }
        serve = serve.under(NOBODY);
    }
    assert_explained(
        serve.try_start(),
        1,
        &["127.0.0.1:80", "Permission denied", "1024"],
    );
}

const NOBODY: [&str; 6] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--",
];

/// Whether another user can start the binary where it lies.
fn binary_is_readable_by_all() -> bool {
    let status = std::process::Command::new("setpriv")
        .args(&NOBODY[1..])
        .args([binary(), "--version".into()])
        .stdout(std::process::Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn what_the_user_may_not_read_gets_403_and_what_vanished_404() {
    const NAME: &str = "what_the_user_may_not_read_gets_403_and_what_vanished_404";
    let files = Files::with(&[
        ("readable", b"r"),
        ("unreadable", b"u"),
        ("closed/a", b"a"),
        ("searched/a", b"a"),
        ("searched/site/index.html", b"home"),
        ("late", b"l"),
        ("z.css", b"plain"),
        ("z.css.br", b"br"),
    ]);
    set_mode(files.path("unreadable"), 0);
    set_mode(files.path("closed"), 0o700);
    set_mode(files.path("searched"), 0o711);
    set_mode(files.path("searched/site"), 0o711);
    set_mode(files.path("z.css.br"), 0);
    let mut serve = Serve::new(files.root());
    if is_root() {
        if !has_program("setpriv") || !binary_is_readable_by_all() {
            skip!(NAME, "no way to run the server as another user");
        }
        serve = serve.under(NOBODY);
    } else {
        set_mode(files.path("closed"), 0);
        set_mode(files.path("searched"), 0o311);
        set_mode(files.path("searched/site"), 0o311);
    }
    let server = serve.start();
    let mut client = server.connect();
    for _ in 0..2 {
        client.get("/readable").assert_status(200);
        client.get("/unreadable").assert_status(403);
        client.get("/closed/a").assert_status(403);
        client.get("/closed/").assert_status(403);
        // One that may be searched does for what is in it, and is not listed.
        client.get("/searched").assert_status(301);
        client.get("/searched/").assert_status(403);
        client.get("/searched/a").assert_status(200);
        client.get("/searched/site").assert_status(301);
        client
            .get("/searched/site/")
            .assert_status(200)
            .assert_body(b"home");
        // A sibling that cannot be read is none.
        client
            .get_with("/z.css", &[("Accept-Encoding", "br")])
            .assert_status(200)
            .assert_body(b"plain");
    }
    client.get("/late").assert_status(200);
    crate::support::files::settle();
    client.get("/late").assert_status(200);
    // Taking the right to read away counts from the next request on.
    set_mode(files.path("late"), 0);
    client.get("/late").assert_status(403);
    set_mode(files.path("late"), 0o644);
    client.get("/late").assert_status(200);
    files.remove("late");
    client.get("/late").assert_status(404);
    for path in ["closed", "searched", "searched/site"] {
        set_mode(files.path(path), 0o755);
    }
}

#[test]
fn a_root_that_may_be_searched_and_not_read_is_served() {
    const NAME: &str = "a_root_that_may_be_searched_and_not_read_is_served";
    let files = Files::with(&[("index.html", b"home"), ("a", b"a")]);
    let mut serve = Serve::new(files.root());
    if is_root() {
        if !has_program("setpriv") || !binary_is_readable_by_all() {
            skip!(NAME, "no way to run the server as another user");
        }
        serve = serve.under(NOBODY);
        set_mode(files.root(), 0o711);
    } else {
        set_mode(files.root(), 0o311);
    }
    let server = serve.start();
    let mut client = server.connect();
    client.get("/").assert_status(200).assert_body(b"home");
    client.get("/a").assert_status(200).assert_body(b"a");
    set_mode(files.root(), 0o755);
}

/// The coding that an answer has, and its body.
fn coded(client: &mut Client) -> (String, Vec<u8>) {
    let answer = client.get_with("/z.css", &[("Accept-Encoding", "br")]);
    let coding = answer.field("Content-Encoding").unwrap_or("none");
    (coding.to_owned(), answer.body)
}

#[test]
fn a_sibling_that_becomes_readable_is_sent_at_once() {
    const NAME: &str = "a_sibling_that_becomes_readable_is_sent_at_once";
    let files = Files::with(&[("z.css", b"plain"), ("z.css.br", b"br")]);
    set_mode(files.path("z.css.br"), 0);
    crate::support::files::settle();
    let mut serve = Serve::new(files.root());
    if is_root() {
        if !has_program("setpriv") || !binary_is_readable_by_all() {
            skip!(NAME, "no way to run the server as another user");
        }
        serve = serve.under(NOBODY);
    }
    let server = serve.start();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(coded(&mut client), ("none".to_owned(), b"plain".to_vec()));
    }
    set_mode(files.path("z.css.br"), 0o644);
    assert_eq!(coded(&mut client), ("br".to_owned(), b"br".to_vec()));
}

#[test]
fn an_unreadable_root_is_named() {
    const NAME: &str = "an_unreadable_root_is_named";
    let files = Files::new();
    let mut serve = Serve::new(files.root());
    set_mode(files.root(), 0);
    if is_root() {
        if !has_program("setpriv") || !binary_is_readable_by_all() {
            skip!(NAME, "no way to run the server as another user");
        }
        serve = serve.under(NOBODY);
    }
    assert_explained(serve.try_start(), 1, &["www", "Permission denied", "right"]);
    set_mode(files.root(), 0o755);
}

#[test]
fn bad_addresses_are_wrong_usage() {
    let files = Files::new();
    for (address, word) in [
        ("8080", "port"),
        ("localhost:http", "port"),
        ("127.0.0.1:70000", "port"),
        ("::1:8080", "brackets"),
        ("unix:", "path"),
        ("no.such.host.invalid:80", "no.such.host.invalid"),
        ("", "port"),
    ] {
        let refused = Serve::new(files.root()).listen([address]).try_start();
        assert_refused(refused, 2, &[word]);
    }
}

#[test]
fn bad_rules_are_wrong_usage() {
    let files = Files::new();
    for (arguments, word) in [
        (["--cache-control", "[=no-cache"], "["),
        (["--cache-control", "*.js"], "="),
        (["--cache-control", "*=a\nb"], "Cache-Control"),
        (["--header", "no colon"], ":"),
        (["--header", "Bad Name: x"], "Bad Name"),
        (["--header", "X: a\r\nb"], "X"),
        (["--header", "Content-Length: 5"], "Content-Length"),
        (
            ["--header", "Transfer-Encoding: chunked"],
            "Transfer-Encoding",
        ),
        (["--cors", "example.org"], "example.org"),
        (["--cors", "https://example.org/path"], "origin"),
        (["--mime", "log"], "="),
        (["--mime", "log=text"], "text"),
        (["--mime", "=text/plain"], "extension"),
        (["--error-page", "404"], "="),
        (["--error-page", "200=x.html"], "200"),
        (["--error-page", "404=../x.html"], "below"),
        (["--spa", "/../x.html"], "below"),
        (["--index", "a/../../b"], "below"),
        (["--stability", "sometimes"], "immutable"),
        (["--symlinks", "maybe"], "inside"),
        (["--log-format", "xml"], "json"),
        (["--max-headers", "1000"], "max-headers"),
        (["--workers", "many"], "many"),
        (["--no-such-option", "x"], "no-such-option"),
    ] {
        let refused = Serve::new(files.root()).args(arguments).try_start();
        assert_refused(refused, 2, &[word]);
    }
}

#[test]
fn a_rate_that_nobody_could_take_fast_enough_is_wrong_usage() {
    let files = Files::new();
    let with = |rate, minimum| {
        let arguments = ["--rate", rate, "--min-send-rate", minimum];
        Serve::new(files.root()).args(arguments).try_start()
    };
    assert_refused(
        with("1000", "1001"),
        2,
        &["1000", "1001", "--min-send-rate"],
    );
    // The default minimum counts, too.
    let refused = Serve::new(files.root()).args(["--rate", "1"]).try_start();
    assert_refused(refused, 2, &["--rate"]);
    assert!(with("1000", "1000").is_ok());
    assert!(with("1000", "0").is_ok());
    assert!(with("0", "1000").is_ok());
}

#[test]
fn a_name_of_which_one_address_cannot_be_had_is_listened_on_at_the_others() {
    let name = "a_name_of_which_one_address_cannot_be_had_is_listened_on_at_the_others";
    let needed = ["unshare", "mount", "sh"];
    if !is_root() || !needed.iter().all(|name| has_program(name)) {
        skip!(name, "it takes root, unshare and mount");
    }
    let files = Files::with(&[("a", b"a")]);
    let hosts = files.outside().join("hosts");
    // 198.51.100.0/24 is for documentation.
    std::fs::write(&hosts, "198.51.100.1 half.test\n127.0.0.1 half.test\n").unwrap();
    let script = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    let wrapper = unshare.into_iter().chain(["sh", "-c", script, "hosts"]);
    let start = |name: &str| {
        let words = wrapper.clone().map(OsString::from);
        Serve::new(files.root())
            .under(words.chain([hosts.clone().into_os_string()]))
            .listen([format!("{name}:0")])
            .try_start()
    };
    match start("half.test") {
        Ok(server) => {
            assert_eq!(server.urls().len(), 1);
            server.connect().get("/a").assert_status(200);
            server.wait_for(&["198.51.100.1"]);
        }
        Err(refusal) if refusal.stderr.contains("unshare") || refusal.stderr.contains("mount") => {
            skip!(name, "no mount namespace: {}", refusal.stderr);
        }
        Err(refusal) => panic!("{refusal:?}"),
    }
    std::fs::write(&hosts, "198.51.100.1 none.test\n198.51.100.2 none.test\n").unwrap();
    assert_explained(start("none.test"), 1, &["198.51.100."]);
}

#[test]
fn a_log_that_cannot_be_written_is_named() {
    let files = Files::new();
    let log = files.path("missing/access.log");
    let refused = Serve::new(files.root())
        .args(["--access-log".as_ref(), log.as_os_str()])
        .try_start();
    assert_explained(refused, 1, &["access.log", "No such file"]);
}

#[test]
fn several_addresses_are_announced_and_served() {
    let files = Files::with(&[("a", b"a")]);
    let server = Serve::new(files.root())
        .listen(["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"])
        .try_start();
    let server = match server {
        Ok(server) => server,
        Err(refusal) if refusal.stderr.contains("::1") => {
            skip!(
                "several_addresses_are_announced_and_served",
                "there is no IPv6 here"
            );
        }
        Err(refusal) => panic!("{refusal:?}"),
    };
    assert_eq!(server.urls().len(), 3);
    for url in server.urls() {
        let address = url
            .strip_prefix("http://")
            .unwrap()
            .strip_suffix('/')
            .unwrap();
        let mut client = Client::tcp(address.parse().unwrap());
        client.get("/a").assert_status(200).assert_body(b"a");
    }
}

#[test]
fn an_address_that_is_named_twice_is_blamed_on_the_command_line() {
    let files = Files::new();
    let path = format!("unix:{}", files.outside().join("s").display());
    // One that an ordinary user may have.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (one, every) = (format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"));
    for (listen, expected) in [
        ([&one, &one], "named twice"),
        ([&path, &path], "named twice"),
        ([&one, &every], "leave one out"),
    ] {
        let refusal = Serve::new(files.root()).listen(listen).try_start();
        let refusal = refusal.err().expect("it cannot be had twice");
        assert!(refusal.stderr.contains(expected), "{}", refusal.stderr);
    }
}

#[test]
fn both_families_may_be_listened_on_with_one_port() {
    const NAME: &str = "both_families_may_be_listened_on_with_one_port";
    let Ok(free) = TcpListener::bind("[::]:0") else {
        skip!(NAME, "there is no IPv6 here");
    };
    let port = free.local_addr().unwrap().port();
    drop(free);
    let files = Files::with(&[("a", b"a")]);
    for listen in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["", "127.0.0.1"]] {
        let listen = listen.map(|host| format!("{host}:{port}"));
        let _server = Serve::new(files.root()).listen(&listen).start();
        for host in ["127.0.0.1", "[::1]"] {
            let address = format!("{host}:{port}").parse().unwrap();
            let mut client = Client::tcp(address);
            client.get("/a").assert_status(200).assert_body(b"a");
        }
    }
}

#[test]
fn the_root_may_be_renamed_while_it_is_served() {
    let files = Files::with(&[("a", b"a")]);
    let server = Serve::new(files.root()).start();
    let moved = files.outside().join("moved");
    std::fs::rename(files.root(), &moved).unwrap();
    server
        .connect()
        .get("/a")
        .assert_status(200)
        .assert_body(b"a");
    std::fs::rename(&moved, files.root()).unwrap();
}

#[test]
fn files_whose_size_is_made_up_are_not_announced_longer_than_they_are() {
    // sysfs says 4096 for every attribute.
    let root = "/sys/class/net/lo";
    if !std::path::Path::new(root).join("mtu").exists() {
        skip!(
            "files_whose_size_is_made_up_are_not_announced_longer_than_they_are",
            "no {root}/mtu"
        );
    }
    let mtu = std::fs::read(format!("{root}/mtu")).unwrap();
    let server = Serve::new(root).start();
    for request in [
        "GET /mtu HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /mtu HTTP/1.0\r\n\r\n",
        "GET /mtu HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /mtu HTTP/1.1\r\nHost: h\r\nRange: bytes=0-\r\n\r\n",
        "GET /mtu HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"x\"\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send(request);
        client.answer().assert_body(&mtu);
    }
    let head = server.connect().request("HEAD", "/mtu", &[]);
    assert_eq!(head.announced_length(), Some(mtu.len() as u64));
}

#[test]
fn a_file_that_states_no_size_is_sent_whole_up_to_a_bound() {
    let name = "a_file_that_states_no_size_is_sent_whole_up_to_a_bound";
    // What stays the same from one read to the next.
    let long = "/proc/kallsyms";
    let Ok(content) = std::fs::read(long) else {
        skip!(name, "procfs has no such file for this user");
    };
    let files = Files::with(&[("a", b"a")]);
    files.symlink(long, "long");
    files.symlink("/proc/version", "short");
    let server = Server::of(files.root(), &["--symlinks", "anywhere"]);
    let version = std::fs::read("/proc/version").unwrap();
    let mut client = server.connect();
    client.get("/short").assert_body(&version);
    if content.len() <= 16 << 20 {
        let answer = client.get("/long");
        answer.assert_status(200);
        assert!(answer.body == content, "{} bytes", answer.body.len());
        let part = client.get_with("/long", &[("Range", "bytes=70000-70009")]);
        part.assert_status(206)
            .assert_body(&content[70_000..70_010]);
        // Slow clients do not fill the memory.
        let mut slow: Vec<_> = (0..8)
            .map(|_| Client::tcp_with_little_room(server.address()))
            .collect();
        for client in &mut slow {
            client.ask("GET", "/long", &[]);
        }
        let statuses: Vec<_> = slow.iter_mut().map(|c| c.head_of_answer().status).collect();
        assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 4);
        assert_eq!(statuses.iter().filter(|&&status| status == 503).count(), 4);
    } else {
        client.get("/long").assert_status(500);
    }
    client.get("/a").assert_status(200).assert_body(b"a");
}
