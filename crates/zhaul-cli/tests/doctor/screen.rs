//! What it looks like.

use crate::support::{Doctor, open_directory};

fn assert_fits(text: &str, columns: usize) {
    for line in text.lines() {
        let width = line.chars().count();
        assert!(
            width <= columns,
            "{width} columns instead of {columns}: {line}"
        );
        assert_eq!(line, line.trim_end(), "blanks at the end of a line");
    }
}

#[test]
fn no_line_is_wider_than_the_screen() {
    let dir = open_directory();
    let long = dir
        .path()
        .join("a-directory-with-a-name-that-is-longer-than-a-narrow-screen-is-wide");
    std::fs::create_dir(&long).unwrap();
    for columns in [20, 40, 61, 80] {
        for more in [vec![], vec!["-v"]] {
            let mut doctor = Doctor::on(&long).columns(columns);
            for argument in more {
                doctor = doctor.arg(argument);
            }
            let run = doctor.run();
            run.assert_success();
            assert_fits(&run.stdout, columns);
        }
    }
}

#[test]
fn without_a_terminal_it_is_80_columns_without_escapes() {
    let run = Doctor::on("/").run();
    run.assert_success();
    assert_fits(&run.stdout, 80);
    let widest = run.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest > Some(60), "{widest:?}");
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!run.stdout.contains(control), "{}", run.stdout);
}

#[test]
fn colours_are_there_when_forced_and_not_when_unwanted() {
    let forced = Doctor::on("/").variable("CLICOLOR_FORCE", "1").run();
    assert!(forced.stdout.contains("\x1b[32m"), "green marks");
    let unwanted = Doctor::on("/").variable("NO_COLOR", "1").run();
    assert!(!unwanted.stdout.contains('\x1b'));
}

#[test]
fn the_status_is_a_word_and_not_only_a_colour() {
    let run = Doctor::on("/").run();
    assert!(run.stdout.contains("+ available"), "{}", run.stdout);
    // RDMA or kTLS, reflinks or huge pages: something is always amiss.
    let words = ["~ limited", "- missing", "? unknown"];
    assert!(
        words.iter().any(|word| run.stdout.contains(word)),
        "{}",
        run.stdout
    );
}

#[test]
fn the_summary_comes_first_and_the_details_on_demand() {
    let short = Doctor::on("/").run().stdout;
    let verdict = short.lines().nth(1).unwrap();
    assert!(
        verdict.starts_with("This machine can send") || verdict.starts_with("Files reach"),
        "{short}"
    );
    assert!(!short.contains("  seen: "), "{short}");
    let long = Doctor::on("/").arg("--verbose").run().stdout;
    assert!(long.contains("seen: 16384 bytes from a file to"), "{long}");
    assert!(long.lines().count() > short.lines().count());
}

#[test]
fn a_path_cannot_move_the_cursor() {
    let dir = open_directory();
    let odd = dir.path().join("a\x1b[2Jb\rc");
    std::fs::create_dir(&odd).unwrap();
    let run = Doctor::on(&odd).run();
    run.assert_success();
    assert!(!run.stdout.contains(['\x1b', '\r']), "{}", run.stdout);
}

#[test]
fn nonsense_in_columns_is_ignored() {
    for columns in ["0", "-3", "many", ""] {
        let run = Doctor::on("/").variable("COLUMNS", columns).run();
        run.assert_success();
        assert_fits(&run.stdout, 80);
    }
}
