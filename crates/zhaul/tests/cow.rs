//! Snapshots of a region that is written to: what they show, what is copied for them, and what a
//! process sees that has their descriptor.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::process::{Command, Stdio};

use bytes::Bytes;
use zhaul::cow::{How, WhyCopied};
use zhaul::{CowRegion, Snapshot};

fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// A region that never copies up front, of so many pages, each filled with its number.
fn numbered(pages: usize) -> CowRegion {
    let builder = CowRegion::builder(pages * page_bytes()).copy_above(1.0);
    let mut region = builder.build().unwrap();
    for (number, page) in region.chunks_mut(page_bytes()).enumerate() {
        page.fill(number as u8);
    }
    region
}

fn write_pages(region: &mut CowRegion, pages: Range<usize>, byte: u8) {
    region[pages.start * page_bytes()..pages.end * page_bytes()].fill(byte);
}

#[test]
fn a_snapshot_shows_the_moment_and_copies_nothing() {
    let mut region = numbered(16);
    let before = region.to_vec();
    let snapshot = region.snapshot().unwrap();
    assert_eq!(
        (snapshot.how(), snapshot.copied_bytes()),
        (How::CopyOnWrite, 0)
    );
    write_pages(&mut region, 3..5, 0xff);
    assert!(snapshot[..] == before[..]);
    assert_eq!(region[3 * page_bytes()], 0xff);
    drop(snapshot);
    region[0] = 1;
    let usage = region.usage();
    assert_eq!(usage.written_bytes as usize, 2 * page_bytes());
    assert_eq!(usage.write_rate, Some(2.0 / 16.0));
    assert_eq!((region[0], region[3 * page_bytes()]), (1, 0xff));
}

#[test]
fn several_snapshots_live_at_once_and_go_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let mut region = numbered(8);
        let mut moments: Vec<Option<(Snapshot, Vec<u8>)>> = Vec::new();
        for round in 0..3_usize {
            let snapshot = region.snapshot().unwrap();
            assert_eq!(snapshot.how(), How::CopyOnWrite);
            assert_eq!(snapshot.copied_bytes(), round * page_bytes());
            moments.push(Some((snapshot, region.to_vec())));
            write_pages(&mut region, round..round + 1, 0xf0 + round as u8);
        }
        for index in order {
            for (snapshot, expected) in moments.iter().flatten() {
                assert!(snapshot[..] == expected[..]);
            }
            moments[index] = None;
            let last = region.len() - 1;
            region[last] = index as u8;
        }
        let snapshot = region.snapshot().unwrap();
        assert_eq!(snapshot.copied_bytes(), 0, "there is no older one any more");
        assert_eq!(snapshot[2 * page_bytes()], 0xf2);
    }
}

#[test]
fn unwritten_regions_share_one_state() {
    let mut region = numbered(4);
    let first = region.snapshot().unwrap();
    let second = region.snapshot().unwrap();
    assert_eq!(second.copied_bytes(), 0);
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn an_old_snapshot_does_not_make_the_later_ones_dearer_for_ever() {
    let mut region = numbered(8);
    let oldest = region.snapshot().unwrap();
    let mut copied_up_front = 0;
    for round in 0..40_u8 {
        write_pages(
            &mut region,
            usize::from(round % 8)..usize::from(round % 8) + 1,
            round,
        );
        let snapshot = region.snapshot().unwrap();
        assert!(snapshot[..] == region[..]);
        if snapshot.how() == How::CopiedUpFront(WhyCopied::OlderSnapshots) {
            copied_up_front += 1;
        }
    }
    assert!((1..10).contains(&copied_up_front), "{copied_up_front}");
    assert!(
        oldest
            .chunks(page_bytes())
            .enumerate()
            .all(|(n, page)| page[0] == n as u8)
    );
}

#[test]
fn a_snapshot_outlives_its_region() {
    let mut region = numbered(4);
    let snapshot = region.snapshot().unwrap();
    write_pages(&mut region, 0..4, 0xff);
    let beside = region.snapshot().unwrap();
    drop(region);
    assert_eq!((snapshot[page_bytes()], beside[page_bytes()]), (1, 0xff));
    let bytes = Bytes::from(snapshot);
    let part = bytes.slice(2 * page_bytes()..2 * page_bytes() + 3);
    drop(bytes);
    assert_eq!(part[..], [2, 2, 2]);
}

#[test]
fn where_much_is_written_everything_is_copied_up_front() {
    let mut region = CowRegion::new(64 * page_bytes()).unwrap();
    let mut hows = Vec::new();
    for round in 1..40_u8 {
        let snapshot = region.snapshot().unwrap();
        region.fill(round);
        assert!(snapshot.iter().all(|&byte| byte == round - 1));
        hows.push(snapshot.how());
    }
    let copied = How::CopiedUpFront(WhyCopied::ManyWrites);
    assert_eq!((hows[0], hows[1]), (How::CopyOnWrite, copied));
    let shared = hows.iter().filter(|&&how| how == How::CopyOnWrite).count();
    assert_eq!(shared, 3, "the first and every sixteenth: {hows:?}");
    assert_eq!(region.usage().copied_up_front, 36);
}

#[test]
fn copies_made_up_front_live_at_once() {
    let builder = CowRegion::builder(2 * page_bytes()).copy_above(-1.0);
    let mut region = builder.build().unwrap();
    let mut snapshots = Vec::new();
    for round in 0..6 {
        region.fill(round);
        snapshots.push((round, region.snapshot().unwrap()));
        if round % 2 == 1 {
            snapshots.remove(0);
        }
        for (round, snapshot) in &snapshots {
            assert!(snapshot.iter().all(|byte| byte == round));
        }
    }
}

#[test]
fn lengths_need_not_be_whole_pages() {
    let mut region = CowRegion::new(page_bytes() + 1).unwrap();
    region[page_bytes()] = 7;
    let snapshot = region.snapshot().unwrap();
    assert_eq!(
        (region.len(), snapshot.len()),
        (page_bytes() + 1, page_bytes() + 1)
    );
    assert_eq!(
        snapshot.to_sealed_memfd().map(size_of_file).unwrap(),
        snapshot.len() as u64
    );
    for len in [0, usize::MAX] {
        assert!(CowRegion::new(len).is_err());
    }
}

fn size_of_file(file: impl Into<File>) -> u64 {
    file.into().metadata().unwrap().len()
}

#[test]
fn another_process_reads_the_snapshot_while_it_is_written_on() {
    let mut region = numbered(512);
    let before = region.to_vec();
    let snapshot = region.snapshot().unwrap();
    let memfd = snapshot.memfd().unwrap().try_clone_to_owned().unwrap();
    let mut child = Command::new("cat")
        .stdin(memfd)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // More than the pipe has room for, so the child reads while this goes on.
    write_pages(&mut region, 0..512, 0xee);
    let mut read = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut read).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(read == before);
}

#[test]
fn a_sealed_copy_stays_when_the_snapshot_is_gone() {
    use rustix::fs::{SealFlags, fcntl_get_seals};
    let mut region = numbered(4);
    let first = region.snapshot().unwrap();
    write_pages(&mut region, 1..2, 0xaa);
    let beside = region.snapshot().unwrap();
    assert!(beside.memfd().is_none() && first.memfd().is_some());
    let copy = beside.to_sealed_memfd().unwrap();
    let expected = beside.to_vec();
    drop((first, beside));
    region.fill(0);
    let sealed = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    assert!(fcntl_get_seals(&copy).unwrap().contains(sealed));
    let mut read = vec![0; expected.len()];
    std::os::unix::fs::FileExt::read_exact_at(&File::from(copy), &mut read, 0).unwrap();
    assert!(read == expected);
}

#[test]
fn one_percent_of_a_gibibyte_written_is_one_percent_copied() {
    const NAME: &str = "one_percent_of_a_gibibyte_written_is_one_percent_copied";
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = memory.lines().find_map(|line| {
        let rest = line.strip_prefix("MemAvailable:")?;
        rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    if available.is_none_or(|kib| kib < 3 << 20) {
        return zhaul_untested::skip(NAME, "less than 3 GiB of memory are free");
    }
    let mut region = match CowRegion::new(1 << 30) {
        Ok(region) => region,
        Err(error) => return zhaul_untested::skip(NAME, error),
    };
    let pages = region.len() / page_bytes();
    for page in 0..pages {
        region[page * page_bytes()..][..4].copy_from_slice(&(page as u32).to_ne_bytes());
    }
    let snapshot = region.snapshot().unwrap();
    // 97 divides no power of two.
    let written = pages / 100;
    for index in 0..written {
        region[index * 97 % pages * page_bytes()] ^= 0xff;
    }
    for page in 0..pages {
        assert_eq!(
            snapshot[page * page_bytes()..][..4],
            (page as u32).to_ne_bytes()
        );
    }
    drop(snapshot);
    let next = region.snapshot().unwrap();
    assert_eq!((next.how(), next.copied_bytes()), (How::CopyOnWrite, 0));
    assert_eq!(
        region.usage().written_bytes as usize,
        written * page_bytes()
    );
    for index in 0..written {
        let page = index * 97 % pages;
        assert_eq!(next[page * page_bytes()], page as u8 ^ 0xff);
    }
}
