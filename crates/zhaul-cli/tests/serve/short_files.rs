//! Files that give less than their file system states: FUSE and network file systems whose sizes are
//! stale. The connection ends where the file ends, and nobody is held.

use std::time::Duration;

use crate::fuse::ShortFile;
use crate::support::process::cpu_time;
use crate::support::{Server, pattern};

const STATED_TOO_MUCH: u64 = 5_000;

#[test]
fn a_file_that_ends_before_its_stated_size_ends_the_connection_there() {
    let content = pattern(3_000_003);
    // Past the page cache: the kernel would fill up the pages that it keeps with zeros.
    let short = match ShortFile::mount(&content, STATED_TOO_MUCH, true) {
        Ok(short) => short,
        Err(why) => return zhaul_untested::skip_this(why),
    };
    for mode in ["immutable", "lease", "copy"] {
        let server = Server::of(short.root(), &["--stability", mode]);
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
            // The reset may overtake the head.
            if let Ok(answer) = client.try_head_of_answer() {
                assert_eq!(answer.status, status, "{what}");
            }
            let (body, _) = client.rest();
            // It may overtake bytes as well, but nothing is added.
            assert!(expected.starts_with(&body), "{what}: {} bytes", body.len());
        }
        server.wait_for_warning(&["big", "ends before the size that its file system states"]);
        let before = cpu_time(server.pid());
        std::thread::sleep(Duration::from_secs(1));
        let used = cpu_time(server.pid()) - before;
        assert!(
            used < Duration::from_millis(150),
            "{mode}: {used:?} of CPU time in a second in which nobody asks"
        );
    }
}
