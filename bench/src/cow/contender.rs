//! Ways to keep a state while writing on.

use std::io::Write as _;
use std::net::TcpStream;
use std::ops::DerefMut;

use anyhow::{Context as _, ensure};
use zhaul::CowRegion;

use super::forked::Forked;
use super::protected::Protected;
use super::{Contender, Cycle, Times, timed};
use crate::affinity::{self, Cores};

/// Everything else is compared with this one.
pub(crate) const COPY: &str = "copy";
pub(crate) const NAMES: [&str; 6] = [COPY, "copy-fresh", "fork", "userfaultfd", "cow", "cow-auto"];

/// `None` for one that cannot do it here.
pub(crate) fn make(
    name: &str,
    pages: usize,
    sends: bool,
) -> anyhow::Result<Option<Box<dyn Contender>>> {
    let bytes = pages * rustix::param::page_size();
    Ok(Some(match name {
        COPY => Box::new(Copied {
            memory: filled(bytes),
            copy: Some(filled(bytes)),
            keep: true,
        }),
        "copy-fresh" => Box::new(Copied {
            memory: filled(bytes),
            copy: None,
            keep: false,
        }),
        "fork" => Box::new(Forked::new(bytes)?),
        // It has no view of the state of before that could be sent.
        "userfaultfd" if sends => return Ok(None),
        "userfaultfd" => match Protected::new(pages) {
            Ok(protected) => Box::new(protected),
            Err(_) => return Ok(None),
        },
        "cow" => Box::new(Cow(region(bytes, 1.0)?)),
        "cow-auto" => Box::new(Cow(region(bytes, f64::NAN)?)),
        _ => anyhow::bail!("{name}"),
    }))
}

fn filled(bytes: usize) -> Vec<u8> {
    vec![1; bytes]
}

fn region(bytes: usize, copy_above: f64) -> anyhow::Result<CowRegion> {
    let builder = CowRegion::builder(bytes);
    let mut region = match copy_above.is_nan() {
        true => builder.build()?,
        false => builder.copy_above(copy_above).build()?,
    };
    region.fill(1);
    Ok(region)
}

/// Copies everything, into a new allocation or the one of before.
struct Copied {
    memory: Vec<u8>,
    copy: Option<Vec<u8>>,
    keep: bool,
}

impl Contender for Copied {
    fn cycle(&mut self, cycle: &Cycle<'_>) -> anyhow::Result<Times> {
        let (snapshot_us, copy) = timed(|| match self.copy.take() {
            Some(mut copy) => {
                copy.copy_from_slice(&self.memory);
                copy
            }
            None => self.memory.clone(),
        });
        let write_us = write_and_send(&mut self.memory, &copy, cycle)?;
        let (release_us, ()) = timed(|| self.copy = self.keep.then_some(copy));
        Ok(Times {
            snapshot_us,
            write_us,
            release_us,
        })
    }
}

struct Cow(CowRegion);

impl Contender for Cow {
    fn cycle(&mut self, cycle: &Cycle<'_>) -> anyhow::Result<Times> {
        let (snapshot_us, snapshot) = timed(|| self.0.snapshot());
        let snapshot = snapshot?;
        let write_us = write_and_send(&mut self.0, &snapshot, cycle)?;
        // The first mutable access puts written pages where they belong.
        let (release_us, _) = timed(|| {
            drop(snapshot);
            self.0.deref_mut();
        });
        Ok(Times {
            snapshot_us,
            write_us,
            release_us,
        })
    }
}

/// Stores to each page while another thread sends; checks the snapshot.
fn write_and_send(
    memory: &mut (impl DerefMut<Target = [u8]> + ?Sized),
    snapshot: &[u8],
    cycle: &Cycle<'_>,
) -> anyhow::Result<f64> {
    let page_bytes = rustix::param::page_size();
    let (write_us, sent) = timed(|| {
        std::thread::scope(|scope| {
            let sending = cycle.sink.map(|sink| scope.spawn(|| send(sink, snapshot)));
            let memory = &mut **memory;
            for page in cycle.pages {
                memory[page * page_bytes] = cycle.byte;
            }
            sending.map_or(Ok(()), |sending| sending.join().expect("it does not panic"))
        })
    });
    sent.context("cannot send")?;
    let mut pages = cycle.pages.iter().zip(cycle.before);
    let as_before = pages.all(|(page, &byte)| snapshot[page * page_bytes] == byte);
    ensure!(as_before, "the snapshot has changed");
    Ok(write_us)
}

fn send(mut sink: &TcpStream, snapshot: &[u8]) -> std::io::Result<()> {
    affinity::pin(Cores::pick()?.client)?;
    snapshot
        .chunks(1 << 20)
        .try_for_each(|piece| sink.write_all(piece))
}
