//! `--compare`.

use crate::support::{bench, dir, small_run};

#[test]
fn a_run_compared_with_itself_has_no_difference() {
    let dir = dir();
    small_run(&dir, "a.json", "3");
    let run = bench(&dir, &["--compare", "a.json", "a.json"]).assert_success();
    assert!(run.stdout.contains("no difference"), "{}", run.stdout);
    assert!(run.stdout.contains("×1.00"), "{}", run.stdout);
    assert!(
        run.stdout
            .contains("4 figures: 0 better, 0 worse, 4 without"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("Beware"), "{}", run.stdout);
}

#[test]
fn a_difference_another_kernel_and_a_missing_cell_are_told() {
    let dir = dir();
    let mut results = small_run(&dir, "a.json", "3");
    for cell in &mut results.cells {
        for sample in &mut cell.samples {
            sample.mover.system_s = sample.mover.system_s * 100.0 + 1.0;
        }
    }
    results.host.kernel = "7.0.0 x86_64".to_owned();
    results.cells[1].bytes = 2048;
    let changed = serde_json::to_vec(&results).unwrap();
    std::fs::write(dir.path().join("b.json"), changed).unwrap();
    let run = bench(&dir, &["--compare", "a.json", "b.json"]).assert_success();
    for words in [
        "Beware: the kernels differ",
        "7.0.0",
        "worse",
        "1 worse",
        "In the first only:",
    ] {
        assert!(
            run.stdout.contains(words),
            "{words:?} is missing in {}",
            run.stdout
        );
    }
    let run = bench(&dir, &["--compare", "a.json", "b.json", "--json", "-"]).assert_success();
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["compared"][0]["verdict"], "worse", "{json:#}");
    assert_eq!(json["only_a"].as_array().unwrap().len(), 1);
}

#[test]
fn one_round_is_too_few_to_tell() {
    let dir = dir();
    small_run(&dir, "a.json", "1");
    let run = bench(&dir, &["--compare", "a.json", "a.json"]).assert_success();
    assert!(
        run.stdout.contains("too few rounds to tell"),
        "{}",
        run.stdout
    );
}

#[test]
fn files_that_are_no_results_are_refused() {
    let dir = dir();
    std::fs::write(dir.path().join("empty.json"), "").unwrap();
    std::fs::write(dir.path().join("other.json"), "{\"a\": 1}").unwrap();
    std::fs::write(dir.path().join("later.json"), "{\"format\": 1000}").unwrap();
    for (name, words) in [
        ("missing.json", "No such file"),
        ("empty.json", "is no result of zhaul bench --json"),
        ("other.json", "is no result of zhaul bench --json"),
        ("later.json", "format 1000"),
    ] {
        let run = bench(&dir, &["--compare", name, name]);
        run.assert_refused(2, &[name, words, "name two files"]);
    }
}
