//! Pages that the operator wrote for errors, and what becomes of them.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Files, Serve, Server, eventually};

#[test]
fn an_edited_page_is_seen_whatever_codings_the_client_takes() {
    // Both in memory and sent from the file.
    for size in [1000, 100_000] {
        let (old, new) = (vec![b'o'; size], vec![b'n'; size]);
        let files = Files::with(&[("404.html", &old), ("404.html.br", b"compressed")]);
        let server = Server::of(files.root(), &["--error-page", "404=404.html"]);
        let brotli = [("Accept-Encoding", "br")];
        for expected in [&old, &new] {
            // The server looks at the file once more after the last byte, and an edit that comes
            // before that look ends the connection.
            let mut client = server.connect();
            for fields in [&brotli[..], &[]] {
                let answer = client.get_with("/missing", fields);
                answer.assert_status(404).assert_body(expected);
                assert_eq!(answer.field("Content-Encoding"), None);
            }
            // Kept by now; only the page itself changes, not the names around it.
            files.edit("404.html", &new);
        }
    }
}

#[test]
fn a_missing_page_is_reported_and_does_no_harm() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--error-page", "404=missing.html"]);
    let mut client = server.connect();
    for _ in 0..100 {
        let answer = client.get("/nothing");
        answer.assert_status(404);
        assert!(!answer.body.is_empty());
    }
    client.get("/a").assert_status(200).assert_body(b"a");
    server.wait_for(&["WARN", "error page", "404"]);
    // Clients do not fill the operator's disk.
    let lines = server.stderr().lines().count();
    assert!(lines < 40, "{lines} lines for 100 requests");
}

#[test]
fn reports_that_nobody_reads_do_not_hold_up_answers() {
    let files = Files::with(&[("a", b"a")]);
    for workers in ["1", "2"] {
        let mut server = Serve::new(files.root())
            .args(["--error-page", "404=missing.html", "--workers", workers])
            .hang_up_on_stderr()
            .start();
        for _ in 0..20 {
            let mut client = server.connect();
            client.get("/nothing").assert_status(404);
            client.get("/a").assert_status(200).assert_body(b"a");
        }
        // Time for what is written by another thread to fail.
        std::thread::sleep(Duration::from_millis(100));
        let mut client = server.connect();
        client.get("/nothing").assert_status(404);
        client.get("/a").assert_status(200).assert_body(b"a");
        drop(client);
        server.signal(Signal::TERM);
        eventually("the end", || server.wait(Duration::ZERO).is_some());
        assert_eq!(server.wait(Duration::ZERO).unwrap().code(), Some(0));
    }
}
