//! From a path to what it leads to.
//!
//! [`load`] does all that needs the file system for one path: it opens the file below the root,
//! reads it if it is small, finds its precompressed siblings or, for a directory, its index file,
//! and prepares the header fields that every answer with this file has. It runs on an event loop
//! with [`Walk::Cached`], where it fails with [`Miss::NotCached`] rather than wait for a disk, and
//! on a thread that may block with [`Walk::Full`].

use std::cell::Cell;
use std::ffi::{CStr, CString};

use zhaul::Version;

use crate::files::entry::{CODINGS, FileSet, Representation, Watch};
use crate::files::open_file::OpenFile;
use crate::files::represent::{About, represent};
use crate::files::root::{Kind, Miss, Opened, Root, Walk};
use crate::files::tree::Tree;
use crate::host::clock::Clock;
use crate::host::mime::inherent_coding;
use crate::message::encoding::Coding;

/// What a path led to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A file, in all its codings.
    File(Box<FileSet>),
    /// A directory that was asked for without its slash.
    Redirect,
    /// A directory without an index file, to be listed.
    Listing(OpenFile),
}

/// Finds what `path` (decoded, relative, without a slash at its end) leads to.
pub(crate) fn load(tree: &Tree, path: &[u8], is_dir: bool, walk: Walk) -> Result<Found, Miss> {
    let now_ms = Clock::now_ms();
    let found = find(tree, path, is_dir, walk)?;
    if let Found::File(set) = &found {
        set.renew(now_ms);
    }
    Ok(found)
}

fn find(tree: &Tree, path: &[u8], is_dir: bool, walk: Walk) -> Result<Found, Miss> {
    let name = c_path(path)?;
    let opened = tree.root.open(&name, walk)?;
    match (opened.kind, is_dir) {
        (Kind::File, false) => load_file(tree, &name, opened, walk, Names::NONE).map(Found::file),
        // A slash behind a file's name asks for a directory of that name.
        (Kind::File, true) => Err(Miss::NotFound),
        (Kind::Directory, false) => Ok(Found::Redirect),
        (Kind::Directory, true) => load_index(tree, &name, &opened, walk),
    }
}

impl Found {
    fn file(set: FileSet) -> Self {
        Self::File(Box::new(set))
    }
}

fn load_index(tree: &Tree, dir: &CStr, opened: &Opened, walk: Walk) -> Result<Found, Miss> {
    // As it was before names in it were looked for.
    let directory = Watch {
        path: dir.to_owned(),
        version: Ok(opened.version),
    };
    let mut missing = Absences::default();
    for index in &tree.site.config.index {
        let name = join(dir, index.as_bytes())?;
        match tree.root.open(&name, walk) {
            Ok(file) if file.kind == Kind::File => {
                return load_file(tree, &name, file, walk, missing.within(directory))
                    .map(Found::file);
            }
            Ok(_) => missing.note_useless(tree, &name, walk)?,
            Err(Miss::NotFound) => missing.note(tree, &name, dir, walk)?,
            Err(miss) => return Err(miss),
        }
    }
    if tree.site.config.listing {
        Ok(Found::Listing(Root::open_directory(&opened.file)?))
    } else {
        Err(Miss::NotFound)
    }
}

/// Names that were looked for and not found, or found to be of no use.
#[derive(Debug, Default)]
struct Absences {
    /// Some were not there, which their directory tells.
    are_in_directory: bool,
    /// Of the others only their own paths tell.
    others: Vec<Watch>,
    /// Some are refused links. To look at what they lead to may wait for whoever has it.
    are_refused: bool,
}

impl Absences {
    /// Notes a name that led to nothing, looked for in `dir`.
    fn note(&mut self, tree: &Tree, name: &CStr, dir: &CStr, walk: Walk) -> Result<(), Miss> {
        if parent(name).as_c_str() == dir && !tree.root.has_name(name, walk) {
            self.are_in_directory = true;
            return Ok(());
        }
        if tree.root.refuses(name, walk)? {
            self.are_refused = true;
            return Ok(());
        }
        self.note_useless(tree, name, walk)
    }

    /// Notes a name that is there.
    fn note_useless(&mut self, tree: &Tree, name: &CStr, walk: Walk) -> Result<(), Miss> {
        self.others
            .push(Watch::of(&tree.root, name.to_owned(), walk)?);
        Ok(())
    }

    /// What is to be watched for them, `directory` being as it was before.
    fn within(self, directory: Watch) -> Names {
        let directory = Some(directory).filter(|_| self.are_in_directory);
        Names {
            watches: directory.into_iter().chain(self.others).collect(),
            are_all: !self.are_refused,
        }
    }
}

/// What a choice depends on.
#[derive(Debug)]
struct Names {
    watches: Vec<Watch>,
    /// Whether there is nothing else that it depends on.
    are_all: bool,
}

impl Names {
    const NONE: Self = Self {
        watches: Vec::new(),
        are_all: true,
    };
}

/// `index` is what the choice of this file depends on.
fn load_file(
    tree: &Tree,
    name: &CStr,
    opened: Opened,
    walk: Walk,
    index: Names,
) -> Result<FileSet, Miss> {
    // The directory is looked at before its names are, so that a name that appears in between
    // changes a version that we remember.
    let dir = parent(name);
    let directory = Watch::of(&tree.root, dir.clone(), walk)?;
    let plain = opened.version;
    let mut missing = Absences::default();
    let mut settled = true;
    let mut files: [Option<(CString, Opened)>; CODINGS] = Default::default();
    // What is compressed already gains nothing by it.
    if tree.site.config.precompressed && inherent_coding(name.to_bytes()).is_none() {
        for coding in Coding::COMPRESSED {
            let sibling = c_path(&[name.to_bytes(), coding.file_suffix().as_bytes()].concat())?;
            match tree.root.open(&sibling, walk) {
                Ok(file) if file.kind == Kind::File && !is_stale(&file.version, &plain) => {
                    files[coding as usize] = Some((sibling, file));
                }
                Err(miss) if is_temporary(miss) => return Err(miss),
                Err(Miss::NotFound | Miss::Forbidden) => {
                    missing.note(tree, &sibling, &dir, walk)?;
                }
                // Stale or of another kind.
                Ok(_) => missing.note_useless(tree, &sibling, walk)?,
                // Nothing tells when that ends.
                Err(_) => settled = false,
            }
        }
    }
    let varies = files.iter().any(Option::is_some);
    files[Coding::Identity as usize] = Some((name.to_owned(), opened));
    let mut representations: [Option<Representation>; CODINGS] = Default::default();
    for coding in [Coding::Identity].into_iter().chain(Coding::COMPRESSED) {
        let Some((path, file)) = files[coding as usize].take() else {
            continue;
        };
        let plain = representations[Coding::Identity as usize].as_ref();
        let about = About {
            named: name,
            coding,
            varies,
            content_type: plain.map(|plain| plain.content_type.clone()),
        };
        match represent(tree, &about, path, file, walk) {
            Ok(representation) => representations[coding as usize] = Some(representation),
            // A sibling that cannot be read is as good as none, and nothing tells when that ends.
            Err(miss) if coding != Coding::Identity && !is_temporary(miss) => settled = false,
            Err(miss) => return Err(miss),
        }
    }
    let siblings = missing.within(directory);
    settled &= siblings.are_all && index.are_all;
    let (index, mut siblings) = (index.watches, siblings.watches);
    // What is looked at for every answer is not looked at twice.
    siblings.retain(|sibling| index.iter().all(|watch| watch.path != sibling.path));
    settled &= index.iter().chain(&siblings).all(Watch::is_settled)
        && representations
            .iter()
            .flatten()
            .all(|representation| representation.settled);
    Ok(FileSet {
        representations,
        index,
        siblings,
        settled,
        checked: Cell::new(None),
        known_ms: Cell::new(0),
    })
}

/// Whether to try again, elsewhere or with more descriptors, may help.
fn is_temporary(miss: Miss) -> bool {
    matches!(miss, Miss::NotCached | Miss::Exhausted(_))
}

/// Whether a sibling was made of an earlier state of its file. Compressors give their output the
/// time of their input, some of them cut to whole seconds or to microseconds.
fn is_stale(sibling: &Version, plain: &Version) -> bool {
    let (sibling, plain) = (sibling.mtime, plain.mtime);
    if sibling.seconds != plain.seconds {
        return sibling.seconds < plain.seconds;
    }
    let is_cut = sibling.nanoseconds == 0
        || sibling.nanoseconds == plain.nanoseconds - plain.nanoseconds % 1000;
    sibling.nanoseconds < plain.nanoseconds && !is_cut
}

fn c_path(path: &[u8]) -> Result<CString, Miss> {
    CString::new(path).map_err(|_| Miss::NotFound)
}

fn join(dir: &CStr, name: &[u8]) -> Result<CString, Miss> {
    let dir = dir.to_bytes();
    let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
    c_path(&[dir, slash, name].concat())
}

/// The directory part of a relative path; empty for the root.
fn parent(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let end = memchr::memrchr(b'/', bytes).unwrap_or(0);
    CString::new(&bytes[..end]).unwrap_or_default()
}
