//! Figures are measured, each by a method that is named, or missing for a reason that is named.

use serde_json::Value;

use crate::support::{NOBODY, Place, is_root, nobody_can_run_it, skip, tcp_reader};

/// Each figure has a value with a method, or a reason why not; never both, never neither.
#[track_caller]
fn assert_honest(measured: &Value) {
    for name in [
        "calls_per_chunk",
        "mode_switches_per_chunk",
        "cpu_copies_per_byte",
        "copying_time",
        "disk_read_bytes",
        "disk_write_bytes",
    ] {
        let figure = &measured[name];
        let sampled = figure["method"] == "sampled" && name == "cpu_copies_per_byte";
        assert_eq!(
            figure["plus_minus"].is_number(),
            sampled,
            "{name}: {figure}"
        );
        let found = figure["value"].is_number()
            && figure["method"].is_string()
            && figure["how"].is_string();
        let missing = figure["missing"]
            .as_str()
            .is_some_and(|why| !why.is_empty());
        assert!(found != missing, "{name}: {figure}");
        assert!(found || figure["value"].is_null(), "{name}: {figure}");
        assert_ne!(figure["method"], "plan", "{name}: a plan is no measurement");
    }
}

/// The kernel's own counts, where this user may have them.
fn counted_by_kernel(measured: &Value) -> bool {
    !measured["calls"]["by_name"].is_null()
}

#[test]
fn calls_that_cannot_be_cut_short_are_as_many_as_planned() {
    const NAME: &str = "calls_that_cannot_be_cut_short_are_as_many_as_planned";
    let place = Place::new();
    place.file("file", 10 << 20);
    for (route, promise) in [
        ("sendfile", "immutable"),
        ("splice", "immutable"),
        ("copy_file_range", "immutable"),
        ("read+write", "may-change"),
        ("mmap+write", "leased"),
    ] {
        let sink = if route == "copy_file_range" {
            "out"
        } else {
            "null"
        };
        let run = place.json([
            "file",
            sink,
            "--run",
            "--stability",
            promise,
            "--route",
            route,
        ]);
        let (expected, measured) = (&run["expected"], &run["measured"]);
        assert_honest(measured);
        assert_eq!(
            measured["calls"]["operations"].as_f64(),
            expected["operations"].as_f64(),
            "{route}"
        );
        if !counted_by_kernel(measured) {
            skip!(NAME, "the kernel does not count for this user");
        }
        for (name, count) in expected["calls"].as_object().unwrap() {
            let counted = measured["calls"]["by_name"][name].as_f64().unwrap_or(0.0);
            assert_eq!(
                Some(counted),
                count.as_f64(),
                "{route}: {name} in {measured}"
            );
        }
        let figure = &measured["mode_switches_per_chunk"];
        assert_eq!(
            figure["value"], expected["mode_switches_per_chunk"],
            "{route}"
        );
        assert_eq!(figure["method"], "exact");
        assert_eq!(
            measured["calls"]["waiting"], 0,
            "{route}: a file and null are never waited for"
        );
    }
}

#[test]
fn copies_are_as_the_literature_has_them_where_they_can_be_counted() {
    const NAME: &str = "copies_are_as_the_literature_has_them_where_they_can_be_counted";
    let place = Place::new();
    place.file("file", 10 << 20);
    let mut counted = 0;
    for (route, promise, copies) in [
        ("read+write", "may-change", 2.0),
        ("mmap+write", "leased", 1.0),
        ("sendfile", "immutable", 0.0),
        ("splice", "immutable", 0.0),
    ] {
        let (peer, reader) = tcp_reader();
        let run = place.json([
            "file",
            &peer,
            "--run",
            "--stability",
            promise,
            "--route",
            route,
        ]);
        reader.join().unwrap();
        assert_eq!(
            run["expected"]["cpu_copies_per_byte"].as_f64(),
            Some(copies)
        );
        let measured = &run["measured"];
        assert_honest(measured);
        let figure = &measured["cpu_copies_per_byte"];
        match figure["method"].as_str() {
            Some("exact") => {
                let value = figure["value"].as_f64().unwrap();
                assert!((value - copies).abs() < 0.01, "{route}: {figure}");
                counted += 1;
            }
            Some("by_call") => {
                assert!(
                    copies > 0.0,
                    "{route}: no call promises that nothing is copied"
                );
                assert_eq!(figure["value"].as_f64(), Some(copies), "{route}: {figure}");
            }
            Some("sampled") => {
                let number = |name: &str| figure[name].as_f64().unwrap();
                let off = (number("value") - copies).abs();
                assert!(off < number("plus_minus") + 0.25, "{route}: {figure}");
            }
            _ => assert_eq!(
                copies, 0.0,
                "{route}: read, write and send say what they copy"
            ),
        }
    }
    if counted == 0 {
        skip!(
            NAME,
            "this kernel or user cannot watch the copy routines; checked by call only"
        );
    }
}

#[test]
fn what_the_disk_gave_is_counted() {
    const NAME: &str = "what_the_disk_gave_is_counted";
    let place = Place::new();
    place.file("file", 4 << 20);
    let file = std::fs::File::open(place.path("file")).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let plan = place.json(["file", "null"]);
    let in_memory = plan["source"]["in_memory"]["fraction"].as_f64();
    if in_memory != Some(0.0) {
        skip!(
            NAME,
            "its pages cannot be dropped here: {in_memory:?} are in memory"
        );
    }
    assert_eq!(plan["expected"]["dma"]["source_bytes"], 4 << 20);
    let run = place.json(["file", "null", "--run", "--route", "read+write"]);
    let measured = &run["measured"];
    assert_eq!(measured["in_memory_before"]["fraction"], 0.0);
    let read = &measured["disk_read_bytes"];
    if read["value"].is_null() {
        skip!(NAME, "{}", read["missing"]);
    }
    let again = place.json(["file", "null", "--run", "--route", "read+write"]);
    if read["value"] == 0.0 {
        skip!(NAME, "what lies below this file system is not a disk");
    }
    assert!(read["value"].as_f64() >= Some(f64::from(4 << 20)), "{read}");
    // Now it is in memory; what else a thread reads, such as a page of its program, is little.
    let again = again["measured"]["disk_read_bytes"]["value"].as_f64();
    assert!(again < Some(f64::from(1 << 20)), "{again:?}");
}

#[test]
fn plain_runs_have_no_instruments_and_say_so() {
    let place = Place::new();
    place.file("file", 1 << 20);
    let run = place.json([
        "file",
        "null",
        "--run",
        "--plain",
        "--stability",
        "immutable",
    ]);
    let measured = &run["measured"];
    assert_honest(measured);
    assert_eq!(measured["instruments"].as_array().map(Vec::len), Some(0));
    assert!(!counted_by_kernel(measured) && measured["calls"]["total"].is_null());
    assert!(
        measured["cpu_copies_per_byte"]["missing"]
            .as_str()
            .unwrap()
            .contains("instruments")
    );
    // What the kernel keeps anyway is there.
    assert!(measured["cost"]["system_s"].is_number() && measured["wall_s"].is_number());
}

#[test]
fn an_ordinary_user_gets_reasons_and_no_invented_figures() {
    const NAME: &str = "an_ordinary_user_gets_reasons_and_no_invented_figures";
    let place = Place::new();
    place.file("file", 1 << 20);
    let wrapper = if is_root() { &NOBODY[..] } else { &[] };
    if is_root() && !nobody_can_run_it() {
        skip!(NAME, "no way to run it as another user");
    }
    for (route, by_call) in [("sendfile", false), ("splice", false), ("read+write", true)] {
        let arguments = [
            "file",
            "null",
            "--run",
            "--stability",
            "immutable",
            "--json",
            "--route",
            route,
        ];
        let run = place.explain(arguments).under(wrapper).run().json();
        let measured = &run["measured"];
        assert_honest(measured);
        assert_eq!(measured["bytes"], 1 << 20);
        if counted_by_kernel(measured) {
            skip!(NAME, "this kernel lets an ordinary user count");
        }
        assert!(measured["calls"]["total"].is_null(), "{measured}");
        // The library counts what it does itself, and says that this is all.
        let how = measured["calls_per_chunk"]["how"].as_str().unwrap();
        assert!(
            how.contains("by the library") && how.contains("missing"),
            "{how}"
        );
        let copies = &measured["cpu_copies_per_byte"];
        if by_call {
            assert_eq!(
                (&copies["method"], copies["value"].as_f64()),
                (&"by_call".into(), Some(1.0))
            );
        } else {
            assert!(copies["value"].is_null(), "{copies}");
        }
        let text = place
            .explain([
                "file",
                "null",
                "--run",
                "--stability",
                "immutable",
                "--route",
                route,
            ])
            .under(wrapper)
            .run()
            .succeeded()
            .text();
        assert_eq!(text.contains("missing"), !by_call, "{text}");
    }
}
