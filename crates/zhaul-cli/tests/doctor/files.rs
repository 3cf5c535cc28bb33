//! What it says of file systems is what they do.

use serde_json::Value;

use crate::support::{
    Doctor, NOBODY, by, can_be_nobody, can_unshare, has_program, on_files, open_directory,
    set_mode, skip, verdict,
};

/// Mounts a file system of the type on an image, in a mount namespace of its own.
const ON_IMAGE: &str = r#"
    kind=$1 image=$2 point=$3; shift 3
    mount -o loop -t "$kind" "$image" "$point" || exit 77
    exec "$@"
"#;

/// The report of a fresh file system; `Err` says why there is none.
fn report_of(kind: &str, bytes: u64, make: &[&str]) -> Result<Value, String> {
    if !can_unshare(&["mount"]) || !has_program(make[0]) {
        return Err(format!("it takes root, mount and {}", make[0]));
    }
    let dir = open_directory();
    let (image, point) = (dir.path().join("image"), dir.path().join("point"));
    std::fs::create_dir(&point).unwrap();
    std::fs::File::create(&image)
        .unwrap()
        .set_len(bytes)
        .unwrap();
    let made = std::process::Command::new(make[0])
        .args(&make[1..])
        .arg(&image)
        .output()
        .unwrap();
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let (image, point) = (image.to_str().unwrap(), point.to_str().unwrap());
    let mut words = vec!["unshare", "--mount", "--propagation", "private"];
    words.extend(["sh", "-euc", ON_IMAGE, "sh", kind, image, point]);
    let run = Doctor::on(point).arg("--json").under(words).run();
    if run.status.code() == Some(77) {
        return Err(format!("cannot mount {kind}: {}", run.stderr));
    }
    run.assert_success();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["file_systems"][0]["kind"], kind);
    assert_eq!(report["file_systems"][0]["mount_point"], point);
    Ok(report)
}

#[test]
fn btrfs_shares_blocks_and_direct_is_not_promised() {
    const NAME: &str = "btrfs_shares_blocks_and_direct_is_not_promised";
    let report = match report_of("btrfs", 256 << 20, &["mkfs.btrfs", "-q"]) {
        Ok(report) => report,
        Err(why) => skip!(NAME, "{why}"),
    };
    assert_eq!(on_files(&report, "reflink")["status"], "available");
    assert_eq!(on_files(&report, "reflink")["facts"]["by_range"], true);
    assert_eq!(
        on_files(&report, "copy_file_range")["facts"]["shares_blocks"],
        true
    );
    // Linux 6.18 states no alignment for it.
    let direct = on_files(&report, "o_direct");
    assert_eq!(
        direct["status"] == "available",
        !direct["facts"]["offset_alignment"].is_null()
    );
}

#[test]
fn xfs_shares_blocks_and_is_direct() {
    const NAME: &str = "xfs_shares_blocks_and_is_direct";
    let report = match report_of("xfs", 400 << 20, &["mkfs.xfs", "-q"]) {
        Ok(report) => report,
        Err(why) => skip!(NAME, "{why}"),
    };
    assert_eq!(on_files(&report, "reflink")["status"], "available");
    assert_eq!(
        on_files(&report, "copy_file_range")["facts"]["shares_blocks"],
        true
    );
    let direct = on_files(&report, "o_direct");
    if direct["facts"]["offset_alignment"].is_null() {
        skip!(NAME, "the kernel states no alignment");
    }
    assert_eq!(direct["status"], "available");
}

#[test]
fn xfs_made_without_reflinks_has_none() {
    const NAME: &str = "xfs_made_without_reflinks_has_none";
    let make = ["mkfs.xfs", "-q", "-m", "reflink=0"];
    let report = match report_of("xfs", 400 << 20, &make) {
        Ok(report) => report,
        Err(why) => skip!(NAME, "{why}"),
    };
    assert_eq!(on_files(&report, "reflink")["status"], "missing");
    assert_eq!(
        on_files(&report, "copy_file_range")["facts"]["shares_blocks"],
        false
    );
}

#[test]
fn ext4_copies_and_has_no_reflinks() {
    const NAME: &str = "ext4_copies_and_has_no_reflinks";
    let report = match report_of("ext4", 64 << 20, &["mkfs.ext4", "-q", "-F"]) {
        Ok(report) => report,
        Err(why) => skip!(NAME, "{why}"),
    };
    let reflink = on_files(&report, "reflink");
    assert_eq!(
        (&reflink["status"], &reflink["cause"]),
        (&"missing".into(), &"file_system_lacks".into())
    );
    assert_eq!(
        on_files(&report, "copy_file_range")["facts"]["shares_blocks"],
        false
    );
    assert_eq!(on_files(&report, "lease")["status"], "available");
    let version = &report["kernel"]["version"];
    let version = (version[0].as_u64().unwrap(), version[1].as_u64().unwrap());
    for (id, since) in [
        ("rwf_nowait", (4, 14)),
        ("o_direct", (6, 1)),
        ("cachestat", (6, 5)),
        ("rwf_dontcache", (6, 14)),
    ] {
        if version >= since {
            let finding = on_files(&report, id);
            assert_eq!(finding["status"], "available", "{finding}");
        }
    }
    assert!(verdict(&report).contains("Not possible on ext4: reflink"));
}

#[test]
fn direct_reads_are_not_claimed_on_tmpfs() {
    const NAME: &str = "direct_reads_are_not_claimed_on_tmpfs";
    let report = Doctor::on("/dev/shm").report();
    let file_system = &report["file_systems"][0];
    if file_system["kind"] != "tmpfs" {
        skip!(NAME, "/dev/shm is {}", file_system["kind"]);
    }
    assert_ne!(on_files(&report, "o_direct")["status"], "available");
    assert_eq!(on_files(&report, "reflink")["status"], "missing");
    assert_eq!(on_files(&report, "sendfile")["status"], "available");
}

#[test]
fn on_a_full_disk_what_reads_is_tried_and_what_writes_is_not() {
    const NAME: &str = "on_a_full_disk_what_reads_is_tried_and_what_writes_is_not";
    const SCRIPT: &str = r#"
        point=$1; shift
        mount -t tmpfs -o size=64k full "$point" || exit 77
        head -c 20000 /dev/zero > "$point/there"
        cat /dev/zero > "$point/filler" 2>/dev/null || true
        exec "$@"
    "#;
    if !can_unshare(&["mount"]) {
        skip!(NAME, "it takes root and mount");
    }
    let dir = open_directory();
    let point = dir.path().to_str().unwrap();
    let mut words = vec!["unshare", "--mount", "--propagation", "private"];
    words.extend(["sh", "-euc", SCRIPT, "sh", point]);
    let run = Doctor::on(point).arg("--json").under(words).run();
    if run.status.code() == Some(77) {
        skip!(NAME, "cannot mount tmpfs: {}", run.stderr);
    }
    run.assert_success();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let why = report["file_systems"][0]["not_writable"].as_str().unwrap();
    assert!(why.contains("ENOSPC"), "{why}");
    assert_eq!(on_files(&report, "sendfile")["status"], "available");
    assert_eq!(on_files(&report, "copy_file_range")["status"], "unknown");
    assert_eq!(on_files(&report, "reflink")["cause"], "not_tried");
}

#[test]
fn on_a_read_only_file_system_what_reads_is_tried() {
    const NAME: &str = "on_a_read_only_file_system_what_reads_is_tried";
    const SCRIPT: &str = r#"
        point=$1; shift
        mount --bind "$point" "$point" && mount -o remount,ro,bind "$point" || exit 77
        exec "$@"
    "#;
    if !can_unshare(&["mount"]) {
        skip!(NAME, "it takes root and mount");
    }
    let dir = open_directory();
    std::fs::write(dir.path().join("there"), vec![7; 20_000]).unwrap();
    let point = dir.path().to_str().unwrap();
    let mut words = vec!["unshare", "--mount", "--propagation", "private"];
    words.extend(["sh", "-euc", SCRIPT, "sh", point]);
    let report = Doctor::on(point).under(words).report();
    let file_system = &report["file_systems"][0];
    assert!(
        file_system["not_writable"]
            .as_str()
            .unwrap()
            .contains("EROFS")
    );
    assert_eq!(file_system["read_from"], "there");
    assert_eq!(on_files(&report, "sendfile")["status"], "available");
    let reflink = on_files(&report, "reflink");
    assert_eq!(reflink["status"], "unknown");
    assert!(
        reflink["remedy"]
            .as_str()
            .unwrap()
            .contains("can be written"),
        "{reflink}"
    );
}

#[test]
fn a_directory_of_somebody_else_is_read_and_an_empty_one_is_unknown() {
    const NAME: &str = "a_directory_of_somebody_else_is_read_and_an_empty_one_is_unknown";
    let dir = open_directory();
    let mut doctor = Doctor::on(dir.path());
    if can_be_nobody() {
        doctor = doctor.under(NOBODY);
    } else if crate::support::is_root() {
        skip!(NAME, "it takes setpriv");
    } else {
        set_mode(dir.path(), 0o555);
    }
    let report = doctor.report();
    let findings = report["file_systems"][0]["findings"].as_array().unwrap();
    for finding in findings {
        assert_eq!(finding["status"], "unknown", "{finding}");
    }
    assert!(
        !verdict(&report).contains("Not possible on"),
        "unknown is not missing"
    );
}

#[test]
fn files_that_the_kernel_makes_up_are_not_read() {
    for path in ["/proc", "/sys", "/proc/self/status"] {
        let report = Doctor::on(path).report();
        let file_system = &report["file_systems"][0];
        if file_system["not_writable"].is_null() {
            // A sandbox may have put an ordinary file system there.
            zhaul_untested::skip(
                "files_that_the_kernel_makes_up_are_not_read",
                format_args!("{path} can be written"),
            );
            continue;
        }
        assert!(file_system["read_from"].is_null(), "{file_system}");
        assert_eq!(on_files(&report, "sendfile")["status"], "unknown");
    }
}

#[test]
fn a_file_stands_for_the_directory_it_lies_in() {
    let dir = open_directory();
    let file = dir.path().join("file");
    std::fs::write(&file, "content").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let report = Doctor::on(path).report();
        let file_system = by(&report["file_systems"], "path", path.to_str().unwrap());
        let real = std::fs::canonicalize(dir.path()).unwrap();
        assert_eq!(file_system["directory"], real.to_str().unwrap());
        assert!(
            file_system["read_from"].is_null(),
            "a file of its own was made"
        );
    }
}
