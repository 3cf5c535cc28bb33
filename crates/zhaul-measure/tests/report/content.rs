//! What the page says and how it is built, without a browser.

use zhaul_measure::Method;
use zhaul_measure::bench::results::{Contender, Path, Results};
use zhaul_measure::report::page;

use crate::markup::outline;
use crate::synthetic::{self, Plan};
use crate::{odd, runs};

/// The page as lines of text, entities left as they are.
fn text(results: &Results) -> String {
    let page = page(results);
    let (_, body) = page.split_once("<body>").unwrap();
    let mut text = String::new();
    let mut inside = false;
    for c in body.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            _ if !inside => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_page_is_well_formed_and_refers_to_what_it_has() {
    for (name, results) in runs() {
        let outline = outline(&page(&results));
        for reference in &outline.references {
            // The download's address is set by the script.
            assert!(outline.ids.contains(reference), "{name}: {reference}");
        }
    }
}

#[test]
fn no_page_shows_a_number_that_is_none() {
    for (name, results) in runs() {
        for words in outline(&page(&results)).words {
            for word in words.split(|c: char| !c.is_alphanumeric()) {
                assert!(
                    !["NaN", "inf", "Infinity"].contains(&word),
                    "{name}: {words}"
                );
            }
        }
    }
}

#[test]
fn pages_load_nothing_and_carry_no_style_or_handler_in_attributes() {
    for (name, results) in runs() {
        let outline = outline(&page(&results));
        for element in [
            "img", "link", "iframe", "object", "embed", "base", "form", "use", "image",
        ] {
            assert!(!outline.elements.contains(element), "{name}: {element}");
        }
        for attribute in &outline.attributes {
            let forbidden = ["style", "src", "srcset", "xlink:href"].contains(&attribute.as_str());
            assert!(
                !forbidden && !attribute.starts_with("on"),
                "{name}: {attribute}"
            );
        }
    }
}

#[test]
fn same_results_give_the_same_page() {
    assert_eq!(page(&synthetic::whole()), page(&synthetic::whole()));
}

#[test]
fn results_come_back_out_of_the_page() {
    for results in [synthetic::whole(), odd::hostile()] {
        let page = page(&results);
        let (_, after) = page
            .split_once("<script id=\"results\" type=\"application/json\">")
            .unwrap();
        let (json, _) = after.split_once("</script>").unwrap();
        assert!(!json.contains('<'));
        let back: Results = serde_json::from_str(json).unwrap();
        assert_eq!(back.host.cpu, results.host.cpu);
        assert_eq!(back.cells.len(), results.cells.len());
        assert_eq!(back.skipped[0].why, results.skipped[0].why);
        let of = |results: &Results| results.cells.last().unwrap().samples[0].bytes;
        assert_eq!(of(&back), of(&results));
    }
}

#[test]
fn headline_names_winner_cost_and_ratio() {
    let text = text(&synthetic::quiet());
    let sentence =
        "sendfile moved a gigabyte with 0.12 CPU-seconds, read+write with 0.30: 2.5 times as much";
    assert!(text.contains(sentence), "{text}");
    let near =
        "splice moved a gigabyte with 0.46 CPU-seconds, read+write with 0.47: 1.02 times as much";
    assert!(text.contains(near), "{text}");
}

#[test]
fn ranges_that_overlap_are_called_no_difference() {
    let noisy = synthetic::results(&Plan {
        models: synthetic::MODELS[10..12].to_vec(),
        noise: 0.3,
        ..Plan::whole()
    });
    let text = text(&noisy);
    assert!(text.contains("No difference between"), "{text}");
    assert!(!text.contains("moved a gigabyte with"), "{text}");
}

#[test]
fn too_few_rounds_are_said_beside_the_ratio() {
    let quick = synthetic::results(&Plan {
        rounds: 2,
        noise: 0.0,
        ..Plan::whole()
    });
    let text = text(&quick);
    assert!(
        text.contains("but in too few rounds to rule out noise"),
        "{text}"
    );
    assert!(text.contains("Only 2 rounds"), "{text}");
    assert!(!text.contains("cheaper at every size"), "{text}");
}

#[test]
fn interrupted_and_unverified_runs_say_so_at_the_top() {
    let text = text(&odd::interrupted());
    let head = text.split_once("In short").unwrap().0;
    for warning in [
        "The run was interrupted",
        "Not verified",
        "The machine was busy",
    ] {
        assert!(head.contains(warning), "{head}");
    }
    let text = self::text(&synthetic::whole());
    assert!(!text.contains("Warning"), "{text}");
}

#[test]
fn deviation_from_the_plan_is_marked_and_explained() {
    let text = text(&synthetic::whole());
    let (_, after) = text
        .split_once("Where the run differs from the plan")
        .unwrap();
    assert!(
        after.contains("TCP → TCP, splice: 12.8, expected 4"),
        "{after}"
    );
    assert!(!after.contains("file → TCP, sendfile: 2"), "{after}");
}

#[test]
fn mode_switches_are_those_of_the_bare_calls_with_the_librarys_beside() {
    let text = text(&synthetic::whole());
    assert!(
        text.contains("sendfile2= 2.00exact, bare callszhaul: 19.0"),
        "{text}"
    );
    assert!(
        text.contains("zhaul makes 8.5 of its own for each transfer"),
        "{text}"
    );
}

#[test]
fn figure_from_the_plan_never_stands_for_a_measurement() {
    let mut results = synthetic::whole();
    results
        .methods
        .values_mut()
        .for_each(|found| found.method = Method::Plan);
    let text = text(&results);
    assert!(!text.contains("CPU copies of each byte ("), "{text}");
    let (_, table) = text.split_once("copies for each byte").unwrap();
    let (table, _) = table
        .split_once("Neither calls nor copies were counted")
        .unwrap();
    assert_eq!(table.matches("not measured").count(), 3 * 18, "{table}");
}

#[test]
fn estimate_stands_beside_a_count_with_its_method_and_size() {
    let text = text(&synthetic::whole());
    let (_, table) = text.split_once("copies for each byte").unwrap();
    let (row, table) = table.split_once("mmap+write").unwrap();
    assert!(row.contains("2= 2.00by call= 1.9"), "{row}");
    assert!(row.contains("sampled, at 16 MiB"), "{row}");
    let (_, row) = table.split_once("sendfile").unwrap();
    let (row, _) = row.split_once("splice").unwrap();
    assert!(
        !row.contains("by call") && row.contains("sampled, at 16 MiB"),
        "{row}"
    );
}

#[test]
fn what_could_not_be_had_is_said_with_its_reason() {
    let text = text(&synthetic::whole());
    assert!(
        text.contains("the kernel refuses breakpoints on its own text"),
        "{text}"
    );
    assert!(text.contains("mover pinned to core 0"), "{text}");
}

#[test]
fn crossover_is_named_with_the_sizes_around_it() {
    let text = text(&synthetic::quiet());
    let finding = "At 4 KiB read+write is cheaper than sendfile, at 16 KiB the reverse, both clear \
                   of the noise";
    assert!(text.contains(finding), "{text}");
    let headline = "At 4 KiB, read+write is cheaper than sendfile; at 16 KiB the reverse.";
    assert!(text.contains(headline), "{text}");
}

#[test]
fn what_devices_and_interrupts_did_is_measured() {
    let text = text(&synthetic::whole());
    for heading in ["DMA, machine", "Interrupts, machine", "Softirqs, machine"] {
        assert!(text.contains(heading), "{heading}");
    }
    let (_, table) = text.split_once("copies for each byte").unwrap();
    let (table, _) = table.split_once("The literature").unwrap();
    assert!(!table.contains("not measured"), "{table}");
}

#[test]
fn every_cell_has_its_row_and_every_skip_its_reason() {
    let results = synthetic::whole();
    let page = page(&results);
    for path in Path::ALL {
        let rows = results
            .cells
            .iter()
            .filter(|cell| cell.path == path)
            .count();
        assert!(
            page.contains(&format!("<h3>{}</h3> {rows} rows", path.label())),
            "{path:?}"
        );
    }
    let bare = results
        .cells
        .iter()
        .filter(|cell| cell.contender == Contender::Floor);
    assert_eq!(page.matches("<tr class=\"floor\">").count(), bare.count());
    assert!(page.contains("the file system has 512 MiB left"));
}

#[test]
fn hostile_names_are_shown_as_text() {
    let page = page(&odd::hostile());
    assert!(!page.contains("<img"));
    assert!(!page.contains("<!--"));
    assert!(!page.contains("<script>alert"));
    assert!(page.contains("&lt;img src=x onerror=alert(2)&gt;"));
}

#[test]
fn no_name_turns_the_words_after_it_round() {
    let page = page(&odd::hostile());
    assert!(!page.contains(['\u{202e}', '\0']));
    assert!(page.contains("\\u202e"), "the raw data keep it");
}

#[test]
fn bare_loops_alone_are_named_as_the_subject() {
    let text = text(&synthetic::results(&Plan {
        contenders: vec![Contender::Floor],
        ..Plan::whole()
    }));
    assert!(text.contains("bare calls (zhaul was not timed)"), "{text}");
}
