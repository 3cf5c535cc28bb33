//! Files that give less than their file system states: FUSE and network file systems whose sizes are
//! stale. The connection ends where the file ends, and nobody is held.

use std::time::Duration;

use crate::support::fuse::Fuse;
use crate::support::process::cpu_time;
use crate::support::{Files, Server, pattern};

#[test]
fn a_file_that_ends_before_its_stated_size_ends_the_connection_there() {
    let content = pattern(3_000_003);
    let files = Files::new();
    let root = files.path("mounted");
    let fuse = match Fuse::mount(&root, &[("big", &content)]) {
        Ok(fuse) => fuse,
        Err(why) => return zhaul_untested::skip_this(why),
    };
    fuse.overstate(5_000);
    for mode in ["immutable", "lease", "copy"] {
        let server = Server::of(&root, &["--stability", mode]);
        // All of it, the part behind its real end, and a part on both sides of that.
        for (range, status, expected) in [
            (None, 200, &content[..]),
            (Some("bytes=3000100-"), 206, &[][..]),
            (Some("bytes=2999999-3000200"), 206, &content[2_999_999..]),
        ] {
            let mut client = server.connect();
            let fields: Vec<_> = range.map(|range| ("Range", range)).into_iter().collect();
            client.ask("GET", "/big", &fields);
            let what = format!("{mode}, {range:?}");
            // The reset may overtake the head, and what is too short from the start is an error.
            let head = client.try_head_of_answer();
            let answered = head.map_or(status, |answer| answer.status);
            if answered == 503 && range.is_some() {
                continue;
            }
            assert_eq!(answered, status, "{what}");
            let (body, _) = client.rest();
            // It may overtake bytes as well, but nothing is added.
            assert!(expected.starts_with(&body), "{what}: {} bytes", body.len());
        }
        server.wait_for(&["WARN", "big"]);
        let before = cpu_time(server.pid());
        std::thread::sleep(Duration::from_secs(1));
        let used = cpu_time(server.pid()) - before;
        assert!(
            used < Duration::from_millis(150),
            "{mode}: {used:?} of CPU time in a second in which nobody asks"
        );
    }
}
