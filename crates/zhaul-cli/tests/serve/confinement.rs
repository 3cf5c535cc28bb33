//! What lies outside the root, or is no file, is never sent.

use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, EndsOnDrop, Files, PATIENCE, Server, is_root, pattern, skip};

const SECRET: &[u8] = b"TOP-SECRET-CONTENT";

fn site() -> Files {
    let files = Files::with(&[
        ("public.txt", b"public"),
        ("sub/public.txt", b"public"),
        ("deep/er/public.txt", b"deep"),
        (".env", SECRET),
        ("sub/.git/config", SECRET),
        (".well-known/acme", b"well-known"),
        (".well-known/.hidden", SECRET),
    ]);
    fs::write(files.outside().join("secret.txt"), SECRET).unwrap();
    fs::create_dir(files.outside().join("other")).unwrap();
    fs::write(files.outside().join("other/secret.txt"), SECRET).unwrap();
    // A sibling whose name begins like the root's.
    fs::create_dir(files.outside().join("www-private")).unwrap();
    fs::write(files.outside().join("www-private/secret.txt"), SECRET).unwrap();
    files
}

#[track_caller]
fn assert_withheld(client: &mut Client, target: &str) {
    let answer = client.get(target);
    let leaked = answer
        .body
        .windows(SECRET.len())
        .any(|window| window == SECRET);
    assert!(!leaked, "{target} leaked: {}", answer.head);
    assert!(
        matches!(answer.status, 400 | 404),
        "{target}: {}",
        answer.status
    );
    let head = client.request("HEAD", target, &[]);
    assert_eq!(head.status, answer.status, "{target}");
}

#[test]
fn no_spelling_of_a_path_leaves_the_root() {
    let files = site();
    for policy in ["inside", "never", "anywhere"] {
        let server = Server::of(files.root(), &["--symlinks", policy, "--dot-files"]);
        let mut client = server.connect();
        for target in [
            "/..",
            "/../",
            "/../secret.txt",
            "/sub/../../secret.txt",
            "/./../secret.txt",
            "//../secret.txt",
            "/sub//..//..//secret.txt",
            "/%2e%2e/secret.txt",
            "/.%2e/secret.txt",
            "/%2E./secret.txt",
            "/%2e%2e%2fsecret.txt",
            "/..%2fsecret.txt",
            "/%2e%2e%5csecret.txt",
            "/..\\secret.txt",
            "/..%5csecret.txt",
            "/%252e%252e/secret.txt",
            "/%252e%252e%252fsecret.txt",
            "/%c0%ae%c0%ae/secret.txt",
            "/%c0%ae%c0%ae%c0%afsecret.txt",
            "/%uff0e%uff0e/secret.txt",
            "/..%00/secret.txt",
            "/%00",
            "/public.txt%00",
            "/public.txt%00/../../secret.txt",
            "/..;/secret.txt",
            "/...//secret.txt",
            "/..../secret.txt",
            "/..%20/secret.txt",
            "/www-private/secret.txt",
            "/../www-private/secret.txt",
            "/../www/public.txt",
            "/sub/%2e%2e/%2e%2e/secret.txt",
            "http://h/../secret.txt",
            "http://h/%2e%2e/secret.txt",
            "/proc/self/environ",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/%2Fetc%2Fpasswd",
            "/sub/..",
            "/sub/../public.txt",
            "/public.txt/",
            "/public.txt/..",
            "/public.txt/x",
        ] {
            assert_withheld(&mut client, target);
        }
        let absolute = files.outside().join("secret.txt");
        assert_withheld(&mut client, absolute.to_str().unwrap());
        client
            .get("/public.txt")
            .assert_status(200)
            .assert_body(b"public");
    }
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let files = site();
    let outside = files.outside().join("secret.txt");
    files.symlink("public.txt", "inside-relative");
    files.symlink(files.path("public.txt"), "inside-absolute");
    files.symlink("../public.txt", "sub/up");
    files.symlink("inside-absolute", "chain");
    files.symlink(files.path("deep/er"), "inside-dir");
    files.symlink("deep", "relative-dir");
    files.symlink(files.path("inside-dir"), "dir-chain");
    files.symlink("../secret.txt", "outside-relative");
    files.symlink(&outside, "outside-absolute");
    files.symlink("../other", "outside-dir");
    files.symlink("outside-relative", "outside-chain");
    files.symlink("../www/public.txt", "out-and-in");
    files.symlink("../www-private/secret.txt", "neighbour");
    files.symlink("loop", "loop");
    files.symlink("b", "a");
    files.symlink("a", "b");
    files.symlink("nowhere", "dangling");
    files.symlink("/proc/self/root/etc/passwd", "magic-root");
    files.symlink("/proc/self/cwd", "magic-cwd");
    files.symlink(
        format!("/proc/self/root{}", outside.display()),
        "magic-secret",
    );

    let into: &[(&str, &[u8])] = &[
        ("/inside-relative", b"public"),
        ("/inside-absolute", b"public"),
        ("/sub/up", b"public"),
        ("/chain", b"public"),
        ("/inside-dir/public.txt", b"deep"),
        ("/relative-dir/er/public.txt", b"deep"),
        ("/dir-chain/public.txt", b"deep"),
    ];
    let out = [
        "/outside-relative",
        "/outside-absolute",
        "/outside-dir/secret.txt",
        "/outside-dir/",
        "/outside-chain",
        "/neighbour",
    ];
    let never = [
        "/loop",
        "/a",
        "/dangling",
        "/magic-root",
        "/magic-secret",
        "/magic-cwd/secret.txt",
    ];

    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for _ in 0..3 {
        for (target, content) in into {
            client.get(target).assert_status(200).assert_body(content);
        }
        for target in out.iter().chain(&never) {
            assert_withheld(&mut client, target);
        }
    }
    client.get("/inside-dir").assert_status(301);

    let server = Server::of(files.root(), &["--symlinks", "never"]);
    let mut client = server.connect();
    for target in into
        .iter()
        .map(|(target, _)| target)
        .chain(&out)
        .chain(&never)
    {
        assert_withheld(&mut client, target);
    }

    let server = Server::of(files.root(), &["--symlinks", "anywhere"]);
    let mut client = server.connect();
    for (target, content) in into {
        client.get(target).assert_status(200).assert_body(content);
    }
    for target in [
        "/outside-relative",
        "/outside-absolute",
        "/outside-dir/secret.txt",
        "/neighbour",
    ] {
        client.get(target).assert_status(200).assert_body(SECRET);
    }
    for target in never {
        assert_withheld(&mut client, target);
    }
}

#[test]
fn dot_files_are_served_on_request_only() {
    let files = site();
    let hidden = [
        "/.env",
        "/%2eenv",
        "/sub/.git/config",
        "/.well-known/.hidden",
        "/./.env",
    ];
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for target in hidden {
        assert_withheld(&mut client, target);
    }
    client.get("/sub/.git/").assert_status(404);
    client.get("/sub/.git").assert_status(404);
    client
        .get("/.well-known/acme")
        .assert_status(200)
        .assert_body(b"well-known");

    let server = Server::of(files.root(), &["--dot-files"]);
    let mut client = server.connect();
    for target in hidden {
        client.get(target).assert_status(200).assert_body(SECRET);
    }
}

#[test]
fn what_is_no_file_is_not_served_and_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let files = site();
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, files.path("fifo"), FileType::Fifo, mode, 0).unwrap();
    let _listener = UnixListener::bind(files.path("socket")).unwrap();
    files.symlink("/dev/zero", "zero");
    files.symlink("/dev/tty", "tty");
    files.symlink("fifo", "to-fifo");
    let mut targets = vec!["/fifo", "/socket", "/zero", "/tty", "/to-fifo"];
    let zero = rustix::fs::makedev(1, 5);
    if mknodat(
        CWD,
        files.path("device"),
        FileType::CharacterDevice,
        mode,
        zero,
    )
    .is_ok()
    {
        targets.push("/device");
    }
    for policy in ["inside", "anywhere"] {
        let server = Server::of(files.root(), &["--symlinks", policy]);
        let mut client = server.connect();
        let began = Instant::now();
        for target in &targets {
            assert_withheld(&mut client, target);
            client.get(&format!("{target}/")).assert_status(404);
        }
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_file_swapped_for_a_link_to_the_outside_is_gone() {
    let files = site();
    let secret = files.outside().join("secret.txt");
    let large = pattern(100_000);
    let large_secret = files.outside().join("large-secret");
    fs::write(&large_secret, SECRET.repeat(10_000)).unwrap();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for round in 0..30 {
        for (name, content, outside) in [
            ("swap", &b"harmless"[..], &secret),
            ("large", &large, &large_secret),
        ] {
            files.replace(name, content);
            if round % 2 == 0 {
                crate::support::files::settle();
            }
            let target = format!("/{name}");
            client.get(&target).assert_status(200).assert_body(content);
            client.get(&target).assert_status(200).assert_body(content);
            files.switch_symlink(outside, name);
            assert_withheld(&mut client, &target);
        }
    }
}

#[test]
fn a_race_between_file_and_link_is_never_won() {
    let files = site();
    let secret = files.outside().join("secret.txt");
    let secret_dir = files.outside().join("other");
    fs::create_dir(files.path("real")).unwrap();
    fs::write(files.path("real/secret.txt"), "harmless").unwrap();
    files.write("swap", "harmless");
    let server = Server::of(files.root(), &["--workers", "2"]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                files.switch_symlink(&secret, "swap");
                files.switch_symlink("real", "dir");
                files.replace("swap", "harmless");
                // With a single core nobody would see this: a file system may start to write a
                // file that replaces another, and lets go of the core then, before the rename.
                std::thread::yield_now();
                files.switch_symlink(&secret_dir, "dir");
            }
        });
        let _ends = EndsOnDrop(&over);
        let mut statuses = [0_u32; 2];
        let mut client = server.connect();
        let began = Instant::now();
        let raced = |statuses: [u32; 2]| statuses.iter().all(|&count| count > 10);
        while began.elapsed() < Duration::from_millis(1500)
            || !raced(statuses) && began.elapsed() < PATIENCE
        {
            for target in ["/swap", "/dir/secret.txt"] {
                let answer = client.get(target);
                if answer.status == 200 {
                    answer.assert_body(b"harmless");
                    statuses[0] += 1;
                } else {
                    answer.assert_status(404);
                    statuses[1] += 1;
                }
            }
        }
        assert!(raced(statuses), "nothing raced: {statuses:?}");
    });
}

#[test]
fn what_this_user_may_not_read_gets_403() {
    if is_root() {
        skip!(
            "what_this_user_may_not_read_gets_403",
            "root may read everything; see startup"
        );
    }
    let files = site();
    crate::support::files::set_mode(files.path("public.txt"), 0);
    let server = Server::of(files.root(), &[]);
    server.connect().get("/public.txt").assert_status(403);
}
