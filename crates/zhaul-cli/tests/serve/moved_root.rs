//! Deploying by moving a link: the root is what its path leads to.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Client, Files, Serve, eventually, pattern};

/// More than both ends' kernels buffer.
const LARGE: usize = 48 << 20;

/// Two releases, and `current` that leads to the first.
fn releases(large: &[u8]) -> (Files, PathBuf) {
    let files = Files::with(&[
        ("1/page", b"first"),
        ("1/only-first", b"1"),
        ("1/large", large),
        ("2/page", b"second"),
        ("2/only-second", b"2"),
        ("2/large", b"small now"),
    ]);
    let current = files.outside().join("current");
    files.symlink(files.path("1"), &current);
    (files, current)
}

fn get(client: &mut Client, target: &str) -> (u16, Vec<u8>) {
    let answer = client.get(target);
    (answer.status, answer.body)
}

#[test]
fn a_root_that_is_a_link_follows_it_and_answers_in_flight_are_finished() {
    for workers in ["1", "2"] {
        let content = pattern(LARGE);
        let (files, current) = releases(&content);
        let server = Serve::new(&current).args(["--workers", workers]).start();
        let mut kept = server.connect();
        assert_eq!(get(&mut kept, "/page"), (200, b"first".to_vec()));
        assert_eq!(get(&mut kept, "/only-second").0, 404);
        let mut downloading = server.connect();
        downloading.ask("GET", "/large", &[]);
        downloading.head_of_answer().assert_status(200);

        files.switch_symlink(files.path("2"), &current);
        let switched = Instant::now();
        eventually("the second release", || kept.get("/page").body == b"second");
        let took = switched.elapsed();
        assert!(took < Duration::from_secs(2), "it took {took:?}");
        for client in [&mut kept, &mut server.connect()] {
            assert_eq!(get(client, "/page"), (200, b"second".to_vec()));
            assert_eq!(get(client, "/only-second"), (200, b"2".to_vec()));
            assert_eq!(get(client, "/large"), (200, b"small now".to_vec()));
            assert_eq!(get(client, "/only-first").0, 404);
        }

        // The old release is cleared away while somebody still takes it.
        fs::remove_dir_all(files.path("1")).unwrap();
        assert!(downloading.take(LARGE) == content, "{workers} workers");
        downloading
            .get("/page")
            .assert_status(200)
            .assert_body(b"second");
    }
}

#[test]
fn while_the_link_is_gone_the_last_release_is_served() {
    let (files, current) = releases(b"large");
    let server = Serve::new(&current).start();
    let mut client = server.connect();
    client.get("/page").assert_body(b"first");
    fs::remove_file(&current).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    client.get("/page").assert_status(200).assert_body(b"first");
    files.symlink(files.path("2"), &current);
    eventually("the second release", || {
        client.get("/page").body == b"second"
    });
}

#[test]
fn a_root_that_is_removed_and_made_anew_is_followed() {
    for as_working_directory in [false, true] {
        let files = Files::with(&[("dist/page", b"first")]);
        let dist = files.path("dist");
        let mut serve = Serve::new(if as_working_directory {
            ".".into()
        } else {
            dist.clone()
        });
        if as_working_directory {
            let dir = dist.display().to_string();
            serve = serve.under(["env", "-C", &dir]);
        }
        let server = serve.start();
        let mut client = server.connect();
        client.get("/page").assert_status(200).assert_body(b"first");
        for round in 0..5 {
            fs::remove_dir_all(&dist).unwrap();
            // There is nothing to be said of what is in it.
            for target in ["/", "/page", "/other"] {
                client.get(target).assert_status(503);
            }
            files.write("dist/page", format!("round {round}"));
            client
                .get("/page")
                .assert_status(200)
                .assert_body(format!("round {round}").as_bytes());
            client.get("/").assert_status(200);
        }
    }
}
