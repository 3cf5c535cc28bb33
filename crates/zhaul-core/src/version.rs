//! What identifies the content of a file at one moment, as far as `stat(2)` can tell.
//!
//! Two equal versions do not prove equal bytes: an edit within one timestamp tick (a jiffy, 1 to
//! 10 ms, before the multigrain timestamps of Linux 6.13) is invisible, and so is a store through a
//! shared mapping whose page is dirty already. Two different versions do not prove different bytes
//! either, so the differences are named by [`Drift`] and the transfer decides which of them stop it.
//!
//! What tells an edit is mtime: every `write(2)`, truncation and allocation moves it. ctime moves
//! with it, and besides with whatever is done to the inode or its names: chmod, chown, setxattr,
//! relabelling, link, unlink, rename, setting times. Those happen daily to files that are being sent
//! and change no byte.

/// A point in time as `stat(2)` reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// The identity and the state of a file, from one `stat(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// Device that holds the file.
    pub dev: u64,
    /// Inode number on that device.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode, which programs cannot set back.
    pub ctime: Timestamp,
    /// Names that the inode has. Where ctime alone counts
    /// ([`Ask::ctime_is_edit`](crate::Ask::ctime_is_edit)), it tells a file that was renamed over,
    /// linked or unlinked from one whose mtime was set back after an edit.
    pub nlink: u64,
}

/// How a later version differs from an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drift {
    /// No difference, or only in the count of names: file systems change it a moment before or
    /// after ctime.
    Same,
    /// Only ctime and the count of names differ: linked, unlinked or renamed over. The content
    /// is the same, which is what deploying by rename relies on.
    Relinked,
    /// Only ctime differs: the mode, the owner, an attribute, a name or atime was changed, or
    /// somebody wrote and set mtime back to the nanosecond. `stat(2)` cannot tell these apart.
    Metadata,
    /// Longer than before. `stat(2)` cannot tell an append from an edit that also appends, so
    /// growth is always taken for an append.
    Grown,
    /// Shorter than before.
    Truncated,
    /// Same length, another mtime: written to, or touched.
    Edited,
    /// Another file.
    Replaced,
}

impl Version {
    /// Names the difference between this version and a later one.
    pub fn drift_to(&self, later: &Self) -> Drift {
        if (self.dev, self.ino) != (later.dev, later.ino) {
            return Drift::Replaced;
        }
        if later.size < self.size {
            return Drift::Truncated;
        }
        if later.size > self.size {
            return Drift::Grown;
        }
        match (
            self.mtime == later.mtime,
            self.ctime == later.ctime,
            self.nlink == later.nlink,
        ) {
            (true, true, _) => Drift::Same,
            (true, false, false) => Drift::Relinked,
            (true, false, true) => Drift::Metadata,
            (false, _, _) => Drift::Edited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> Version {
        let at = Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 5,
        };
        Version {
            dev: 1,
            ino: 2,
            size: 100,
            mtime: at,
            ctime: at,
            nlink: 1,
        }
    }

    fn later(at: Timestamp) -> Timestamp {
        Timestamp {
            nanoseconds: at.nanoseconds + 1,
            ..at
        }
    }

    #[test]
    fn each_difference_has_its_name() {
        let old = version();
        assert_eq!(old.drift_to(&old), Drift::Same);
        assert_eq!(old.drift_to(&Version { ino: 3, ..old }), Drift::Replaced);
        assert_eq!(old.drift_to(&Version { size: 99, ..old }), Drift::Truncated);
        assert_eq!(
            old.drift_to(&Version {
                size: 101,
                mtime: later(old.mtime),
                ..old
            }),
            Drift::Grown
        );
        let touched = Version {
            mtime: later(old.mtime),
            ctime: later(old.ctime),
            ..old
        };
        assert_eq!(old.drift_to(&touched), Drift::Edited);
    }

    #[test]
    fn a_file_renamed_over_is_not_an_edited_one() {
        let old = version();
        let unlinked = Version {
            ctime: later(old.ctime),
            nlink: 0,
            ..old
        };
        assert_eq!(old.drift_to(&unlinked), Drift::Relinked);
    }

    #[test]
    fn a_count_of_names_without_a_new_ctime_is_no_difference_yet() {
        let old = version();
        assert_eq!(old.drift_to(&Version { nlink: 0, ..old }), Drift::Same);
    }

    #[test]
    fn ctime_alone_is_metadata_and_mtime_alone_an_edit() {
        let old = version();
        let chmod = Version {
            ctime: later(old.ctime),
            ..old
        };
        assert_eq!(old.drift_to(&chmod), Drift::Metadata);
        let written = Version {
            mtime: later(old.mtime),
            ..old
        };
        assert_eq!(old.drift_to(&written), Drift::Edited);
    }
}
