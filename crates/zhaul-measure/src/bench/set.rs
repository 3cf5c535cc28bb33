//! Everything that samples are taken with: content, files, ends, contenders.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use zhaul::{Pool, Route};

use super::cells::from_memory;
use super::content::{Content, ENDLESS};
use super::cores::{Cores, pin};
use super::ends::{Ends, Sink};
use super::error::BenchError;
use super::files::{self, SourceFile};
use super::matrix;
use super::mover::{Mover, Promise, Source};
use super::receiver::RECEIVE_BYTES;
use super::results::{Contender, Path};
use super::room::Room;
use super::sample::{Mode, Stage, Taken, take};
use super::way::Way;

/// What samples are taken with. Belongs to the thread that moves the bytes.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) dir: PathBuf,
    pub(super) room: Room,
    pub(super) notes: Vec<String>,
    content: Content,
    stage: Stage,
    files: BTreeMap<u64, SourceFile>,
    /// What is sent from memory, on page borders.
    memory: BTreeMap<u64, Bytes>,
    /// Bare sends by reference have sockets of their own: the library numbers the calls on its.
    ends: BTreeMap<(Path, bool), Ends>,
    movers: BTreeMap<MoverKey, Mover>,
}

/// Which sample to take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Take {
    pub(super) path: Path,
    pub(super) route: Way,
    pub(super) contender: Contender,
    pub(super) bytes: u64,
    pub(super) repeats: u64,
    pub(super) copying: Copying,
}

/// What the library is told about a file that it copies with read + write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Copying {
    /// Nothing, and nothing is needed.
    #[default]
    Plainly,
    /// That nobody changes it, as for a route that sends pages.
    Immutable,
    /// That a lease is held, as for a route that maps the file.
    Leased,
}

/// Which way, whose, and, as a sender belongs to a socket, to datagrams or not.
type MoverKey = (usize, bool, bool);

impl Take {
    fn mover(&self) -> MoverKey {
        let is_bare = self.contender == Contender::Floor;
        (self.route.index(), is_bare, self.path == Path::MemoryToUdp)
    }

    fn ends(&self) -> (Path, bool) {
        let is_bare = from_memory(self.path) && self.contender == Contender::Floor;
        (self.path, is_bare)
    }
}

impl Set {
    /// Pins the calling thread, and looks at the directory.
    pub(super) fn new(dir: PathBuf) -> Result<Self, BenchError> {
        let cores = Cores::pick();
        pin(cores.mover);
        let unusable = |source| BenchError::Dir {
            dir: dir.clone(),
            source,
        };
        let room = Room::around(files::nameless(&dir).map_err(unusable)?);
        let mut notes = vec![cores.note()];
        if let Some(refusal) = files::lease_refusal(&dir).map_err(unusable)? {
            notes.push(format!(
                "mmap+write reads a sealed copy in memory: no lease on files in {} ({refusal})",
                dir.display()
            ));
        }
        let stage = Stage {
            cores,
            buffer: vec![1; RECEIVE_BYTES],
        };
        Ok(Self {
            dir,
            room,
            notes,
            content: Content::new(),
            stage,
            files: BTreeMap::new(),
            memory: BTreeMap::new(),
            ends: BTreeMap::new(),
            movers: BTreeMap::new(),
        })
    }

    /// Makes a file to be sent.
    pub(super) fn add_file(&mut self, bytes: u64) -> io::Result<()> {
        let file = SourceFile::create(&self.dir, &self.content, bytes)?;
        self.files.insert(bytes, file);
        Ok(())
    }

    /// Connects the ends of a path.
    pub(super) fn open(&mut self, path: Path) -> io::Result<()> {
        for is_bare in [false, true] {
            if !is_bare || from_memory(path) {
                let ends = Ends::open(path, &self.dir)?;
                self.ends.insert((path, is_bare), ends);
            }
        }
        Ok(())
    }

    /// Makes memory to be sent.
    fn add_memory(&mut self, bytes: u64) -> io::Result<()> {
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let pool = Pool::new(len, 1).map_err(io::Error::other)?;
        let mut buffer = pool.allocate().expect("it has one");
        self.content.write_to(&mut buffer[..], bytes)?;
        self.memory.insert(bytes, buffer.freeze(len).into());
        Ok(())
    }

    /// What the planner says about the route, for a transfer of that size.
    pub(super) fn lane(
        &self,
        path: Path,
        route: Way,
        bytes: u64,
    ) -> io::Result<Result<matrix::Lane, String>> {
        if from_memory(path) {
            return Ok(Ok(matrix::from_memory(path, route)));
        }
        let ends = &self.ends[&(path, false)];
        let job = matrix::job(ends, (self.files.get(&bytes), None), route, bytes);
        matrix::lane(path, route, &job)
    }

    /// Takes a sample. After an error the ends are new ones.
    pub(super) fn sample(&mut self, what: Take, mode: Mode<'_>) -> io::Result<Taken> {
        if from_memory(what.path) && !self.memory.contains_key(&what.bytes) {
            self.add_memory(what.bytes)?;
        }
        let key = what.mover();
        let mover = match self.movers.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Mover::new(what.contender, what.route)?),
        };
        let ends = self.ends.get_mut(&what.ends()).expect("its ends are open");
        if let Sink::File(file) = &mut ends.sink {
            match mode {
                // Nothing but what arrives is to be in it.
                Mode::Hashed => file.empty()?,
                _ => file.fill(&self.content, what.bytes * what.repeats)?,
            }
        }
        let file = self.files.get(&what.bytes);
        if let Some(file) = file
            && !file.is_cached()
        {
            return Err(io::Error::other("the file does not stay in the page cache"));
        }
        let sources = (file, self.memory.get(&what.bytes));
        let mut job = matrix::job(ends, sources, what.route, what.bytes);
        if let (Way::Route(Route::ReadWrite), Some(file)) = (what.route, file) {
            match what.copying {
                Copying::Plainly => {}
                Copying::Immutable => job.promise = Promise::Immutable,
                Copying::Leased => {
                    let (source, lease) = file.mappable();
                    job.source = Source::File(source);
                    job.promise = lease.map_or(Promise::None, Promise::Lease);
                }
            }
        }
        let work = (mover, &job, what.repeats);
        let taken = take(&mut self.stage, ends, &self.content, work, mode);
        if taken.is_err() {
            // They may hold bytes of the sample that failed; so may the floor's pipe.
            self.movers.remove(&key);
            self.open(what.path)?;
        }
        taken
    }

    /// Moves with every received byte hashed. Says what is wrong with them, if anything is.
    pub(super) fn verify(&mut self, what: Take) -> io::Result<Result<Taken, String>> {
        let mut taken = match self.sample(what, Mode::Hashed) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Err(error.to_string()));
            }
            taken => taken?,
        };
        let total = what.bytes * what.repeats;
        let ends = &self.ends[&what.ends()];
        if let Sink::File(file) = &ends.sink {
            let file = file.file();
            let size = file.metadata()?.len();
            if size != total {
                return Ok(Err(format!("{size} bytes are in the file, not {total}")));
            }
            taken.digest = Some(files::digest(file)?);
        }
        if let Some(far) = ends.sink.far() {
            let more = rustix::io::ioctl_fionread(far)?;
            if more > 0 {
                return Ok(Err(format!("{more} bytes more came than {total}")));
            }
        }
        let period = match ends.source.stream() {
            Some(_) => ENDLESS,
            None => what.bytes,
        };
        let expected = self.content.digest(period, total);
        Ok(if taken.digest == Some(expected) {
            Ok(taken)
        } else {
            Err(format!("{total} bytes came, and they are others"))
        })
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
