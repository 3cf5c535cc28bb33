use std::collections::HashMap;
use std::fs;

use super::*;

const TEXT: &str = "\
# Measured by zhaul bench --calibrate.
format = 1
kernel = \"6.12.9\"  # uname -r
measured = \"2026-01-31T12:00:00Z\"

sendfile_min_bytes = 4_096
mmap_min_bytes = 131072 # two windows
later_min_bytes = 7
";

fn places(variables: &[(&str, &str)]) -> Vec<String> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let found = candidates(&|name| variables.get(name).map(OsString::from));
    found
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn a_file_is_read_with_its_comments_and_unknown_names() {
    let found = Calibration::parse(TEXT).unwrap();
    assert_eq!(found.thresholds.sendfile_min_bytes, 4096);
    assert_eq!(found.thresholds.mmap_min_bytes, 131_072);
    assert_eq!(found.kernel, "6.12.9");
    assert_eq!(found.measured, "2026-01-31T12:00:00Z");
}

#[test]
fn what_is_written_is_read_back() {
    let mut calibration = Calibration::parse(TEXT).unwrap();
    calibration.thresholds.sendfile_min_bytes = u64::MAX;
    let text = format!("# said first\n{calibration}# and last\n");
    assert_eq!(Calibration::parse(&text), Ok(calibration));
}

#[test]
fn a_threshold_that_is_missing_keeps_its_default() {
    let found = Calibration::parse("format = 1\nkernel = \"6\"\nsendfile_min_bytes = 9").unwrap();
    assert_eq!(found.thresholds.sendfile_min_bytes, 9);
    assert_eq!(
        found.thresholds.mmap_min_bytes,
        Thresholds::default().mmap_min_bytes
    );
}

#[test]
fn what_is_not_understood_is_named_with_its_line() {
    for (text, line, words) in [
        ("", 0, "format"),
        ("format = 1", 0, "kernel"),
        ("format = 2\nkernel = \"6\"", 0, "format 2"),
        ("format = 1\nkernel = 6", 2, "no text"),
        ("format = 1\nkernel = \"6", 2, "name = value"),
        ("format = 1\n[thresholds]", 2, "name = value"),
        (
            "format = 1\nkernel = \"6\"\nmmap_min_bytes = \"much\"",
            3,
            "no number",
        ),
        (
            "format = 1\nkernel = \"6\"\nmmap_min_bytes = -1",
            3,
            "name = value",
        ),
        (
            "format = 1\nkernel = \"6\"\nmmap_min_bytes = 1 2",
            3,
            "name = value",
        ),
        ("format = 1\nkernel = \"6\\n\"", 2, "escapes"),
        ("\u{0}\u{1}", 1, "name = value"),
    ] {
        let error = Calibration::parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.what.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn the_places_are_those_of_the_environment() {
    let home = ("HOME", "/home/a");
    let own = "/home/a/.config/zhaul/calibration.toml";
    assert_eq!(places(&[home]), [own, SYSTEM_PATH]);
    let config = ("XDG_CONFIG_HOME", "/c");
    assert_eq!(
        places(&[home, config]),
        ["/c/zhaul/calibration.toml", SYSTEM_PATH]
    );
    let relative = ("XDG_CONFIG_HOME", "c");
    assert_eq!(places(&[home, relative]), [own, SYSTEM_PATH]);
    assert_eq!(places(&[]), [SYSTEM_PATH]);
    assert_eq!(places(&[home, ("ZHAUL_CALIBRATION", "/x")]), ["/x"]);
    assert_eq!(places(&[home, ("ZHAUL_CALIBRATION", "")]), [""; 0]);
}

#[test]
fn the_first_file_that_is_there_counts() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/calibration.toml");
    let first = dir.path().join("first");
    let second = dir.path().join("second");
    fs::write(&second, TEXT).unwrap();
    let places = [missing, first.clone(), second.clone()];
    let (thresholds, origin) = load(&places, "6.12.9");
    assert_eq!(thresholds.sendfile_min_bytes, 4096);
    assert!(matches!(origin, Origin::File { path, .. } if path == second));

    fs::write(&first, TEXT.replace("4_096", "1")).unwrap();
    assert_eq!(load(&places, "6.12.9").0.sendfile_min_bytes, 1);
    assert_eq!(
        load(&[], "6.12.9"),
        (Thresholds::default(), Origin::Default)
    );
}

#[test]
fn a_file_that_does_not_count_leaves_the_defaults_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    fs::write(&good, TEXT).unwrap();
    let bad = dir.path().join("bad");
    fs::write(&bad, "format: 1").unwrap();
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    for (path, release, words) in [
        (
            good.clone(),
            "6.18.0",
            "measured under Linux 6.12.9, this is 6.18.0",
        ),
        (bad, "6.12.9", "line 1"),
        (binary, "6.12.9", "UTF-8"),
        (dir.path().to_path_buf(), "6.12.9", "no regular file"),
        (PathBuf::from("/dev/zero"), "6.12.9", "no regular file"),
    ] {
        // A later place is no better: somebody meant the first.
        let (thresholds, origin) = load(&[path, good.clone()], release);
        assert_eq!(thresholds, Thresholds::default());
        assert!(matches!(origin, Origin::Ignored { .. }), "{origin:?}");
        assert!(origin.to_string().contains(words), "{origin}");
    }
}
