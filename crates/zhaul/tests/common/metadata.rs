//! Changes of metadata that happen daily to files that are being sent.
#![allow(dead_code, unreachable_pub)]

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

pub type Change = fn(&Path);

/// Each moves ctime and no byte, and leaves the file under its name. Files beside it may stay.
pub const METADATA: [(&str, Change); 8] = [
    ("chmod", |path| {
        std::fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    }),
    ("chown to the same owner", |path| {
        let owner = path.metadata().unwrap().uid();
        std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    }),
    ("setxattr", |path| {
        let set = rustix::fs::setxattr(path, "user.note", b"x", rustix::fs::XattrFlags::empty());
        if let Err(errno) = set {
            zhaul_untested::skip_this(format_args!("setxattr: {errno}"));
        }
    }),
    ("mv aside and back", |path| {
        let aside = path.with_extension("1");
        std::fs::rename(path, &aside).unwrap();
        std::fs::write(path, "the next one").unwrap();
        std::fs::rename(&aside, path).unwrap();
    }),
    ("exchange of names", |path| {
        let other = path.with_extension("2");
        std::fs::write(&other, "the other one").unwrap();
        let cwd = rustix::fs::CWD;
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(cwd, path, cwd, &other, exchange).unwrap();
        std::fs::rename(&other, path).unwrap();
    }),
    ("hard link", |path| {
        let link = path.with_extension("3");
        std::fs::hard_link(path, &link).unwrap();
        std::fs::remove_file(link).unwrap();
    }),
    ("hard link that stays", |path| {
        std::fs::hard_link(path, path.with_extension("4")).unwrap();
    }),
    ("atime put back", |path| {
        let file = File::options().append(true).open(path).unwrap();
        let mtime = file.metadata().unwrap().modified().unwrap();
        let times = std::fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        file.set_times(times.set_modified(mtime)).unwrap();
    }),
];
