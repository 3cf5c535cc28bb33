//! The report as people and programs read it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Files, Trace, fetch, require, serve, zhaul};

fn report_of_dd(columns: &str, more: &[&str]) -> String {
    let files = Files::new();
    let source = files.with("source", 4 << 20);
    let output = zhaul(["trace"])
        .args(more)
        .args(["--", "dd", "bs=64k", "status=none", "of=/dev/null"])
        .arg(format!("if={}", source.display()))
        .env("COLUMNS", columns)
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn lines_fit_wide_and_narrow_screens() {
    require!("lines_fit_wide_and_narrow_screens", "dd");
    for (columns, width) in [("80", 80), ("40", 40)] {
        for more in [&[][..], &["--count"]] {
            let report = report_of_dd(columns, more);
            for line in report.lines() {
                // A path is not broken.
                let path = line.split(' ').any(|word| word.starts_with('/'));
                assert!(
                    path || line.chars().count() <= width,
                    "{line:?} in\n{report}"
                );
            }
        }
    }
}

#[test]
fn every_figure_says_how_it_was_found() {
    require!("every_figure_says_how_it_was_found", "dd");
    let report = report_of_dd("80", &[]);
    let cost = report.split("\nCost\n").nth(1).unwrap();
    let figures = cost.split("\n\n").next().unwrap();
    let mut rows = 0;
    for row in figures.lines().filter(|line| !line.starts_with("    ")) {
        assert!(row.contains("exact") || row.contains("by call"), "{row:?}");
        rows += 1;
    }
    assert!(rows >= 6, "{figures}");
    assert!(report.contains("No record was lost."));
}

#[test]
fn there_is_no_colour_in_a_pipe() {
    require!("there_is_no_colour_in_a_pipe", "dd");
    assert!(!report_of_dd("80", &[]).contains('\u{1b}'));
}

#[test]
fn json_is_one_object_and_lines_for_intervals() {
    require!("json_is_one_object_and_lines_for_intervals");
    let files = Files::new();
    let file = files.with("large", 1 << 20);
    let server = serve(&files.path(""), &[]);
    for count in [&[][..], &["--count"]] {
        let mut arguments = vec!["--json", "--interval", "0.1", "--seconds", "1"];
        arguments.extend(count);
        let trace = Trace::attach(server.pid(), &arguments);
        fetch(server.port, "/large", &file);
        let (status, text) = trace.wait();
        assert!(status.success());
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let (last, intervals) = lines.split_last().unwrap();
        assert!(intervals.len() >= 2, "{text}");
        assert!(
            intervals
                .iter()
                .all(|line| line["interval"]["seconds"].is_number()),
            "{text}"
        );
        assert_eq!(last["format"], 2);
        assert!(last["calls"].is_array(), "{text}");
    }
}

#[test]
fn lines_are_printed_as_it_goes_on() {
    require!("lines_are_printed_as_it_goes_on");
    let files = Files::new();
    let file = files.with("large", 1 << 20);
    let server = serve(&files.path(""), &[]);
    let trace = Trace::attach(server.pid(), &["--interval", "0.1", "--seconds", "1"]);
    fetch(server.port, "/large", &file);
    let (_, text) = trace.wait();
    let heading = text.lines().next().unwrap();
    assert!(
        heading.contains("moved/s") && heading.contains("lost"),
        "{text}"
    );
    assert!(
        text.contains("file → socket: 0 CPU copies per byte (sendfile)"),
        "{text}"
    );
}

#[test]
fn a_reader_that_leaves_ends_the_trace() {
    require!("a_reader_that_leaves_ends_the_trace", "sh", "head");
    let files = Files::new();
    files.with("large", 10);
    let server = serve(&files.path(""), &[]);
    let script = format!(
        "\"$0\" trace -p {} --interval 0.05 2>/dev/null | head -n 2",
        server.pid()
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(crate::support::binary())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
}

#[test]
fn help_has_examples() {
    let output = zhaul(["trace", "--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for words in ["zhaul trace -p 1234", "zhaul trace -- cp", "127", "--count"] {
        assert!(text.contains(words), "{text}");
    }
}
