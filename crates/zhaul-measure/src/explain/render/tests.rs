//! What an explanation looks like, to the letter.

use super::*;
use crate::explain::analysis::Figure;
use crate::explain::sample;
use crate::figure::Method;

#[test]
fn a_plan_at_80_columns() {
    assert_eq!(
        text(&sample::sendfile(), 80),
        "\
sendfile  /srv/video.mp4 → tcp:127.0.0.1:9000
├─ because  pages go out by reference and nobody edits them meanwhile
├─ source  regular file on ext4, 3 MiB (3,145,728 bytes)
│  ├─ in memory: 100 % (exact)
│  └─ immutable: nobody edits it in place, it was said
├─ sink  TCP connection with 127.0.0.1:9000 over lo
│  └─ nobody can tell when pages queued in it are free
├─ expected, from the plan
│  ├─ chunks         3 of at most 1 MiB
│  ├─ mode switches  4.67 a chunk; 4 fstat, 3 sendfile in all
│  ├─ CPU copies     0 of each byte
│  └─ DMA copies     none from the disk: all of it is in memory; none to a
│                    device
├─ passed over
│  ├─ copy_file_range  no: the sink is not a regular file
│  └─ splice           in reserve: a cheaper route does as well
├─ thresholds (built in)
│  ├─ sendfile    worth it from the first byte
│  └─ mmap+write  worth it from 64 KiB
├─ host  Linux 6.12.0 x86_64, 2 cores of a processor, load 0.10
└─ notes
   └─ nobody was contacted: --run shows whether a peer answers
"
    );
}

#[test]
fn a_plan_at_40_columns() {
    assert_eq!(
        text(&sample::sendfile(), 40),
        "\
sendfile  /srv/video.mp4 →
│         tcp:127.0.0.1:9000
├─ because  pages go out by reference
│           and nobody edits them
│           meanwhile
├─ source  regular file on ext4, 3 MiB
│  │       (3,145,728 bytes)
│  ├─ in memory: 100 % (exact)
│  └─ immutable: nobody edits it in
│     place, it was said
├─ sink  TCP connection with
│  │     127.0.0.1:9000 over lo
│  └─ nobody can tell when pages queued
│     in it are free
├─ expected, from the plan
│  ├─ chunks  3 of at most 1 MiB
│  ├─ mode switches
│  │    4.67 a chunk; 4 fstat, 3
│  │    sendfile in all
│  ├─ CPU copies  0 of each byte
│  └─ DMA copies  none from the disk:
│                 all of it is in
│                 memory; none to a
│                 device
├─ passed over
│  ├─ copy_file_range
│  │    no: the sink is not a regular
│  │    file
│  └─ splice  in reserve: a cheaper
│             route does as well
├─ thresholds (built in)
│  ├─ sendfile  worth it from the first
│  │            byte
│  └─ mmap+write  worth it from 64 KiB
├─ host  Linux 6.12.0 x86_64, 2 cores of
│        a processor, load 0.10
└─ notes
   └─ nobody was contacted: --run shows
      whether a peer answers
"
    );
}

fn analysed() -> Explanation {
    let mut explanation = sample::sendfile();
    explanation.notes.clear();
    let mut analysis = sample::analysis();
    analysis.cpu_copies_per_byte = Figure::missing("this kernel takes no breakpoints");
    analysis.copying_time = Figure::found(0.012, Method::Sampled, "samples");
    analysis.deviations = vec!["the source grew meanwhile".to_owned()];
    explanation.measured = Some(analysis);
    explanation
}

#[test]
fn a_run_at_80_columns_has_a_table() {
    assert_eq!(
        text(&analysed(), 80),
        "\
sendfile  /srv/video.mp4 → tcp:127.0.0.1:9000
├─ because  pages go out by reference and nobody edits them meanwhile
├─ source  regular file on ext4, 3 MiB (3,145,728 bytes)
│  ├─ in memory: 100 % (exact)
│  └─ immutable: nobody edits it in place, it was said
├─ sink  TCP connection with 127.0.0.1:9000 over lo
│  └─ nobody can tell when pages queued in it are free
├─ done  3 MiB (3,145,728 bytes) moved; ended by: the length asked for
│  ├─ time  3.15 ms, 1 GB/s, slowed down by counters of its calls
│  ├─ CPU  100 us user, 1.5 ms kernel, 0.509 s/GB; 2 voluntary and 0 involuntary
│  │       context switches; 0 minor and 0 major faults (exact)
│  ├─ chunks  3 of at most 1 MiB
│  ├─                            planned   measured
│  ├─ mode switches a chunk         4.67       4.67  exact
│  ├─ - fstat                          4          4  exact
│  ├─ - sendfile                       3          3  exact
│  ├─ - before, to set up              -         20  exact
│  ├─ CPU copies of a byte             0    missing
│  │  └─ this kernel takes no breakpoints
│  ├─ CPU time in copies               -      1.2 %  sampled
│  ├─ read from a disk           0 bytes    0 bytes  exact
│  └─ differs from the plan
│     └─ the source grew meanwhile
├─ passed over
│  ├─ copy_file_range  no: the sink is not a regular file
│  └─ splice           in reserve: a cheaper route does as well
├─ thresholds (built in)
│  ├─ sendfile    worth it from the first byte
│  └─ mmap+write  worth it from 64 KiB
└─ host  Linux 6.12.0 x86_64, 2 cores of a processor, load 0.10
"
    );
}

#[test]
fn a_run_at_40_columns_says_it_in_words() {
    assert_eq!(
        text(&analysed(), 40),
        "\
sendfile  /srv/video.mp4 →
│         tcp:127.0.0.1:9000
├─ because  pages go out by reference
│           and nobody edits them
│           meanwhile
├─ source  regular file on ext4, 3 MiB
│  │       (3,145,728 bytes)
│  ├─ in memory: 100 % (exact)
│  └─ immutable: nobody edits it in
│     place, it was said
├─ sink  TCP connection with
│  │     127.0.0.1:9000 over lo
│  └─ nobody can tell when pages queued
│     in it are free
├─ done  3 MiB (3,145,728 bytes) moved;
│  │     ended by: the length asked for
│  ├─ time  3.15 ms, 1 GB/s, slowed down
│  │        by counters of its calls
│  ├─ CPU  100 us user, 1.5 ms kernel,
│  │       0.509 s/GB; 2 voluntary and 0
│  │       involuntary context switches;
│  │       0 minor and 0 major faults
│  │       (exact)
│  ├─ chunks  3 of at most 1 MiB
│  ├─ mode switches a chunk
│  │    4.67, expected 4.67 (exact)
│  ├─ - fstat  4, expected 4 (exact)
│  ├─ - sendfile  3, expected 3 (exact)
│  ├─ - before, to set up  20 (exact)
│  ├─ CPU copies of a byte
│  │  │ missing, expected 0
│  │  └─ this kernel takes no
│  │     breakpoints
│  ├─ CPU time in copies
│  │    1.2 % (sampled)
│  ├─ read from a disk
│  │    0 bytes, expected 0 bytes
│  │    (exact)
│  └─ differs from the plan
│     └─ the source grew meanwhile
├─ passed over
│  ├─ copy_file_range
│  │    no: the sink is not a regular
│  │    file
│  └─ splice  in reserve: a cheaper
│             route does as well
├─ thresholds (built in)
│  ├─ sendfile  worth it from the first
│  │            byte
│  └─ mmap+write  worth it from 64 KiB
└─ host  Linux 6.12.0 x86_64, 2 cores of
         a processor, load 0.10
"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut explanation = analysed();
    explanation.source.name = "/a/very/long/path/".repeat(9);
    for columns in 32..100 {
        for line in tree(&explanation, columns) {
            let width = line.to_string().chars().count();
            assert!(width <= columns, "{columns}: {line}");
        }
    }
}

#[test]
fn a_stream_has_no_totals_and_an_empty_file_says_so() {
    let mut stream = sample::sendfile();
    stream.source.size_bytes = None;
    stream.source.in_memory = None;
    stream.asked.length = None;
    stream.expected.bytes = None;
    stream.expected.chunks = None;
    let said = text(&stream, 80);
    assert!(
        said.contains("of at most 1 MiB, until the source ends"),
        "{said}"
    );
    assert!(said.contains("a chunk, if it comes whole"), "{said}");
    let mut empty = sample::sendfile();
    empty.source.size_bytes = Some(0);
    empty.asked.length = Some(0);
    empty.expected.bytes = Some(0);
    empty.expected.chunks = Some(0);
    empty.expected.calls.clear();
    let said = text(&empty, 80);
    assert!(said.contains("regular file on ext4, empty"), "{said}");
    assert!(said.contains("none: there is nothing to move"), "{said}");
}

#[test]
fn a_stopped_run_says_what_stopped_it_and_what_was_lost() {
    let mut explanation = analysed();
    let analysis = explanation.measured.as_mut().unwrap();
    analysis.finished = false;
    analysis.ending = "write: broken pipe (EPIPE)".to_owned();
    analysis.stranded_bytes = 17;
    let said = text(&explanation, 120);
    assert!(
        said.contains("stopped  3 MiB (3,145,728 bytes) moved, 17 bytes lost on the way; ended by: write: broken pipe (EPIPE)"),
        "{said}"
    );
}

#[test]
fn a_threshold_that_is_never_reached_is_told_in_words() {
    let mut explanation = sample::sendfile();
    explanation.thresholds.mmap_min_bytes = u64::MAX;
    explanation.thresholds.origin = "from /etc/zhaul/calibration.toml".to_owned();
    let said = text(&explanation, 80);
    assert!(
        said.contains("thresholds (from /etc/zhaul/calibration.toml)"),
        "{said}"
    );
    assert!(said.contains("mmap+write  never worth it here"), "{said}");
}
