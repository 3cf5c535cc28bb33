//! A disk that fails: 500 while nothing is said yet, a connection that ends short afterwards.
//!
//! The disk is a loop device whose backing file is cut off, in a mount namespace of the server's
//! own, so that nothing is left when it ends.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Files, Serve, Server, has_program, is_root, pattern, skip};

const NAME: &str = "a_disk_error_is_told_or_ends_the_connection";
const LARGE: usize = 16 << 20;
/// The file system's own structures lie below.
const KEPT_BYTES: u64 = 12 << 20;

const SCRIPT: &str = r#"
mount -o loop,noatime "$1" "$2" && mkdir -p "$2/www" && shift 2 && exec "$@"
"#;

/// A server whose root lies on the disk; `Err` says why there is none.
fn on_failing_disk(files: &Files) -> Result<(Server, PathBuf, PathBuf), String> {
    if !is_root()
        || !["unshare", "mount", "mkfs.ext4", "sh"]
            .iter()
            .all(|name| has_program(name))
    {
        return Err("it takes root, unshare, mount and mkfs.ext4".to_owned());
    }
    let image = files.outside().join("disk.img");
    let mount_point = files.outside().join("disk");
    fs::create_dir(&mount_point).unwrap();
    File::create(&image).unwrap().set_len(96 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F"])
        .arg(&image)
        .output()
        .unwrap();
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let unshare = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        SCRIPT,
        "disk",
    ];
    let words = unshare.into_iter().map(Into::into);
    let words = words.chain([
        image.clone().into_os_string(),
        mount_point.clone().into_os_string(),
    ]);
    let server = Serve::new(mount_point.join("www"))
        .under(words)
        .args(["--workers", "1"])
        .try_start();
    let server =
        server.map_err(|refusal| format!("cannot mount a loop device: {}", refusal.stderr))?;
    // The disk as the server sees it.
    let pid = server.pid().as_raw_nonzero();
    let disk = PathBuf::from(format!(
        "/proc/{pid}/root{}",
        mount_point.join("www").display()
    ));
    Ok((server, disk, image))
}

#[test]
fn a_disk_error_is_told_or_ends_the_connection() {
    let files = Files::new();
    let (server, disk, image) = match on_failing_disk(&files) {
        Ok(ready) => ready,
        Err(why) => skip!(NAME, "{why}"),
    };
    let content = pattern(LARGE);
    // The first one fills what is kept of the disk.
    let contents = [
        ("filler", &content[..]),
        ("hot", &content[..100]),
        ("large", &content),
        ("small", &content),
        ("half", &content),
    ];
    for (name, bytes) in contents {
        fs::write(disk.join(name), bytes).unwrap();
        File::open(disk.join(name)).unwrap().sync_all().unwrap();
    }
    // Written as a large file and cut: ext4 puts those that are small from the start elsewhere.
    let small = fs::OpenOptions::new()
        .write(true)
        .open(disk.join("small"))
        .unwrap();
    small.set_len(9000).unwrap();
    small.sync_all().unwrap();
    let mut client = server.connect();
    client.get("/hot").assert_status(200);
    evict(&disk.join("small"), 0);
    evict(&disk.join("large"), 0);
    evict(&disk.join("half"), LARGE as u64 / 2);
    fs::OpenOptions::new()
        .write(true)
        .open(image)
        .unwrap()
        .set_len(KEPT_BYTES)
        .unwrap();
    if fs::read(disk.join("large")).is_ok() {
        skip!(NAME, "the disk does not fail as it should");
    }
    evict(&disk.join("large"), 0);

    for target in ["/small", "/large"] {
        for _ in 0..2 {
            server.connect().get(target).assert_status(500);
        }
        server.wait_for(&["ERROR", &target[1..]]);
    }
    let mut cut = server.connect();
    cut.ask("GET", "/half", &[]);
    let answer = cut.head_of_answer();
    answer.assert_status(200);
    let (body, _) = cut.rest();
    assert!(
        body.len() < LARGE,
        "{} bytes of a file that cannot be read",
        body.len()
    );
    assert!(
        body[..] == content[..body.len()],
        "what was sent is not what was in the file"
    );
    server.wait_for(&["ERROR", "half"]);
    // Others go on as before.
    client
        .get("/hot")
        .assert_status(200)
        .assert_body(&content[..100]);
}

/// Makes the kernel forget the pages behind `from`.
fn evict(path: &PathBuf, from: u64) {
    let file = File::open(path).unwrap();
    rustix::fs::fadvise(&file, from, None, rustix::fs::Advice::DontNeed).unwrap();
}
