//! How it reads: the tree at 80 and at 40 columns, without colour in a pipe, and the help.

use crate::support::{Place, tcp_reader};

/// The lines that do not depend on the machine.
fn told(text: &str) -> String {
    let own = |line: &&str| !line.contains("─ host  ");
    let lines: Vec<_> = text.lines().filter(own).collect();
    lines.join("\n")
}

#[test]
fn a_plan_reads_as_a_tree() {
    let place = Place::new();
    place.file("file", 100_000);
    place.fifo("fifo");
    let text = place
        .explain(["/dev/zero", "fifo", "--length", "128K"])
        .columns(120)
        .run()
        .succeeded()
        .text();
    assert_eq!(
        told(&text),
        "\
sendfile  /dev/zero → fifo
├─ because  the kernel makes the bytes up, no page of them is shared
├─ source  character device
│  ├─ 128 KiB (131,072 bytes) of it
│  └─ nobody can edit what was not read yet
├─ sink  FIFO
│  └─ nobody can tell when pages queued in it are free
├─ expected, from the plan
│  ├─ chunks         1 of at most 1 MiB
│  ├─ mode switches  4 a chunk; 2 sendfile in all
│  ├─ CPU copies     1 of each byte
│  └─ DMA copies     none from a disk; none to a device
├─ passed over
│  ├─ copy_file_range  no: the source is not a file
│  ├─ splice           in reserve: a cheaper route does as well
│  ├─ mmap+write       no: the source cannot be mapped
│  └─ read+write       in reserve: a cheaper route does as well
└─ thresholds (built in)
   ├─ sendfile    worth it from the first byte
   └─ mmap+write  worth it from 64 KiB"
            .replace("└─ thresholds", "├─ thresholds")
            .replace("   ├─ sendfile    worth", "│  ├─ sendfile    worth")
            .replace("   └─ mmap+write  worth", "│  └─ mmap+write  worth")
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_none_has_colours_in_a_pipe() {
    let place = Place::new();
    place.file(
        "a-file-with-a-long-name-that-does-not-end-soon.bin",
        3 << 20,
    );
    for columns in [40, 80] {
        for (sink, promise) in [
            ("tcp", "immutable"),
            ("out", "may-change"),
            ("null", "leased"),
        ] {
            for run in [&[][..], &["--run", "--plain"]] {
                let peer = (sink == "tcp").then(tcp_reader);
                let name = peer.as_ref().map_or(sink, |(name, _)| name.as_str());
                let arguments = [
                    "a-file-with-a-long-name-that-does-not-end-soon.bin",
                    name,
                    "--stability",
                    promise,
                ];
                let arguments = arguments.into_iter().chain(run.iter().copied());
                let text = place
                    .explain(arguments)
                    .columns(columns)
                    .run()
                    .succeeded()
                    .text();
                for line in text.lines() {
                    assert!(line.chars().count() <= columns, "{columns}: {line}");
                    assert!(
                        !line.contains('\u{1b}') && line.trim_end() == line,
                        "{line:?}"
                    );
                }
                if let (Some((_, reader)), false) = (peer, run.is_empty()) {
                    reader.join().unwrap();
                }
            }
        }
        let _ = std::fs::remove_file(place.path("out"));
    }
}

#[test]
fn a_run_reads_as_a_table_of_planned_and_measured() {
    let place = Place::new();
    place.file("file", 3 << 20);
    let arguments = ["file", "null", "--run", "--stability", "immutable"];
    let wide = place.explain(arguments).run().succeeded().text();
    for words in [
        "done  3 MiB (3,145,728 bytes) moved",
        "planned   measured",
        "mode switches a chunk",
        "CPU copies of a byte",
        "read from a disk",
        "GB/s",
    ] {
        assert!(wide.contains(words), "{words:?} is missing in:\n{wide}");
    }
    let narrow = place
        .explain(arguments)
        .columns(40)
        .run()
        .succeeded()
        .text();
    assert!(
        narrow.contains("expected") && !narrow.contains("planned   measured"),
        "{narrow}"
    );
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let place = Place::new();
    place.file("a\u{1b}[31mb", 10);
    let text = place
        .explain(["a\u{1b}[31mb", "null"])
        .run()
        .succeeded()
        .text();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("a\\u{1b}[31mb"), "{text}");
}

#[test]
fn the_help_has_examples() {
    let place = Place::new();
    let help = place.explain(["--help"]).run().succeeded().text();
    for words in [
        "Examples:",
        "tcp:HOST:PORT",
        "--run",
        "--stability",
        "--overwrite",
    ] {
        assert!(help.contains(words), "{words:?} is missing in:\n{help}");
    }
}
