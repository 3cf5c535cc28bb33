//! What it makes is gone afterwards, however it ends.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Doctor, NOBODY, Run, can_be_nobody, open_directory, set_mode, skip};

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn nothing_is_left_in_the_directory() {
    let dir = open_directory();
    std::fs::write(dir.path().join("mine"), "mine").unwrap();
    for _ in 0..2 {
        Doctor::on(dir.path()).report();
        assert_eq!(names(dir.path()), ["mine"]);
        assert_eq!(std::fs::read(dir.path().join("mine")).unwrap(), b"mine");
    }
}

#[test]
fn nothing_is_left_when_it_is_killed() {
    let dir = open_directory();
    for milliseconds in 0..40 {
        let mut child = Doctor::on(dir.path())
            .command()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(names(dir.path()).is_empty(), "after {milliseconds} ms");
    }
}

#[test]
fn nothing_is_left_by_an_ordinary_user() {
    const NAME: &str = "nothing_is_left_by_an_ordinary_user";
    if !can_be_nobody() {
        skip!(NAME, "it takes root and setpriv");
    }
    let dir = open_directory();
    set_mode(dir.path(), 0o777);
    Doctor::on(dir.path()).under(NOBODY).run().assert_success();
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_file_that_is_read_instead_is_left_as_it_was() {
    use std::os::unix::fs::MetadataExt;
    let dir = open_directory();
    let file = dir.path().join("file");
    std::fs::write(&file, vec![7; 10_000]).unwrap();
    set_mode(dir.path(), 0o555);
    let before = std::fs::metadata(&file).unwrap();
    let runs = [dir.path(), &file].map(|path| Doctor::on(path).run());
    set_mode(dir.path(), 0o755);
    runs.iter().for_each(Run::assert_success);
    let after = std::fs::metadata(&file).unwrap();
    let times = |stat: &std::fs::Metadata| (stat.mtime_nsec(), stat.ctime_nsec(), stat.nlink());
    assert_eq!(times(&before), times(&after));
    assert_eq!(std::fs::read(&file).unwrap(), vec![7; 10_000]);
}
