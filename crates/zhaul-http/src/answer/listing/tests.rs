//! What a listing shows, what it links, and what hostile names cannot do to it.

use super::page::human_size;
use super::*;
use crate::message::target::TargetPath;
use proptest::prelude::*;

fn file(name: &[u8], size: u64, mtime_s: i64) -> Entry {
    Entry {
        name: name.to_vec(),
        is_dir: false,
        size,
        mtime_s,
    }
}

fn dir(name: &[u8], mtime_s: i64) -> Entry {
    Entry {
        name: name.to_vec(),
        is_dir: true,
        size: 4096,
        mtime_s,
    }
}

/// All that there is, or a part of something twice as long.
fn page(entries: &[Entry], truncated: bool) -> Page {
    let parts = if truncated { 2 } else { 1 };
    Page {
        total: parts * entries.len(),
        ..Page::default()
    }
}

fn html(path: &[u8], entries: Vec<Entry>, truncated: bool) -> String {
    let page = page(&entries, truncated);
    let listing = Listing::new(path, entries, Sort::default(), page);
    String::from_utf8(listing.render(Format::Html)).unwrap()
}

fn json(path: &[u8], entries: Vec<Entry>, truncated: bool) -> serde_json::Value {
    let page = page(&entries, truncated);
    let listing = Listing::new(path, entries, Sort::default(), page);
    serde_json::from_slice(&listing.render(Format::Json)).unwrap()
}

/// Every `href` of a page.
fn links(page: &str) -> Vec<&str> {
    page.split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect()
}

fn names_sorted(query: &str) -> Vec<String> {
    let entries = vec![
        file(b"b10", 1, 50),
        dir(b"z", 40),
        file(b"b9", 3, 10),
        file(b"A", 2, 30),
        dir(b"a", 20),
        file(b"b09", 3, 10),
    ];
    let listing = Listing::new(b"", entries, Sort::from_query(Some(query)), Page::default());
    let name = |entry: &Entry| String::from_utf8(entry.name.clone()).unwrap();
    listing.entries.iter().map(name).collect()
}

#[test]
fn directories_come_first_in_every_order() {
    for (query, expected) in [
        ("", "a z A b09 b9 b10"),
        ("sort=name&order=desc", "z a b10 b9 b09 A"),
        ("sort=size", "a z b10 A b09 b9"),
        ("sort=size&order=desc", "a z b9 b09 A b10"),
        ("sort=date", "a z b09 b9 A b10"),
        ("order=desc&sort=date", "z a b10 A b9 b09"),
        ("sort=colour&order=up&x", "a z A b09 b9 b10"),
    ] {
        assert_eq!(names_sorted(query).join(" "), expected, "{query}");
    }
}

#[test]
fn a_page_names_and_links_everything() {
    let entries = vec![dir(b"img", 0), file(b"a b.txt", 1536, 784_111_777)];
    let page = html(b"docs/x y", entries, false);
    assert!(page.contains("<title>/docs/x y/</title>"));
    assert!(page.contains("<a href=\"./a%20b.txt\">a b.txt</a>"));
    assert!(page.contains("<a href=\"./img/\">img/</a>"));
    assert!(page.contains("<td title=\"1536 bytes\">1.5 KiB</td>"));
    assert!(page.contains("1994-11-06 <b>08:49</b>"));
    assert!(page.contains("1 directory, 1 file, 1.5 KiB"));
    assert!(page.contains("<a href=\"/\">Files</a>"));
    assert!(page.contains("<a href=\"/docs/\">docs</a>"));
    assert!(page.contains("<span>x y</span>"));
    assert!(page.contains("name=\"viewport\""));
    assert!(links(&page).contains(&"../"));
}

#[test]
fn the_root_has_no_parent() {
    for entries in [vec![], vec![file(b"a", 1, 1)]] {
        assert!(!links(&html(b"", entries, false)).contains(&"../"));
    }
}

#[test]
fn an_empty_directory_says_so_and_leads_back() {
    let page = html(b"a", vec![], false);
    assert!(page.contains("This directory is empty."));
    assert!(links(&page).contains(&"../"));
    assert_eq!(json(b"", vec![], false)["entries"], serde_json::json!([]));
}

#[test]
fn a_cut_list_says_so() {
    let one = || vec![file(b"a", 1, 1)];
    let page = html(b"", one(), true);
    assert!(page.contains("1 to 1 of 2."), "{page}");
    assert!(links(&page).contains(&"./?sort=name&amp;order=asc&amp;after=f.0.a"));
    assert!(!html(b"", one(), false).contains("Next page"));
    let cut = Page {
        total: 1,
        is_cut: true,
        ..Page::default()
    };
    let listing = Listing::new(b"", one(), Sort::default(), cut);
    let page = String::from_utf8(listing.to_html()).unwrap();
    assert!(page.contains("There are more entries"), "{page}");
    let object: serde_json::Value = serde_json::from_slice(&listing.to_json()).unwrap();
    assert_eq!(
        (&object["truncated"], &object["total"]),
        (&true.into(), &1.into())
    );
    let object = json(b"", one(), true);
    assert_eq!(
        object["next"],
        "./?format=json&sort=name&order=asc&after=f.0.a"
    );
    assert_eq!(object["truncated"], true);
    assert!(json(b"", one(), false)["next"].is_null());
}

proptest! {
    #[test]
    fn a_cursor_stands_where_its_entry_does(
        names in prop::collection::vec(prop::collection::vec(1_u8.., 1..12), 1..12),
        sizes in prop::collection::vec(0..3_u64, 12),
        query in prop::sample::select(vec!["", "sort=size&order=desc", "sort=date", "order=desc"]),
    ) {
        let sort = Sort::from_query(Some(query));
        let mut entries: Vec<Entry> = names
            .into_iter()
            .filter(|name| !name.contains(&b'/') && name != b"." && name != b"..")
            .zip(&sizes)
            .map(|(name, &size)| Entry { is_dir: size == 0, ..file(&name, size, -(size.cast_signed())) })
            .collect();
        entries.sort_by(|a, b| sort.compare(a, b));
        entries.dedup_by(|a, b| a.name == b.name);
        for (at, last) in entries.iter().enumerate() {
            let reference = Cursor::reference(last, sort, Format::Html);
            let query = String::from_utf8(reference[3..].to_vec()).unwrap();
            prop_assert_eq!(Sort::from_query(Some(&query)), sort);
            let cursor = Cursor::from_query(Some(&query), sort).unwrap();
            for (other, entry) in entries.iter().enumerate() {
                prop_assert_eq!(cursor.is_before(entry, sort), other > at, "{:?} {:?}", entry, query);
            }
        }
    }
}

#[test]
fn the_order_survives_a_step_into_a_directory() {
    let sort = Sort::from_query(Some("sort=size&order=desc"));
    let listing = Listing::new(
        b"p",
        vec![dir(b"d", 1), file(b"f", 1, 1)],
        sort,
        Page::default(),
    );
    let page = String::from_utf8(listing.to_html()).unwrap();
    let links = links(&page);
    assert!(
        links.contains(&"./d/?sort=size&amp;order=desc"),
        "{links:?}"
    );
    assert!(links.contains(&"../?sort=size&amp;order=desc"));
    assert!(links.contains(&"./f"));
    // The column in force turns round, the others start as people want them.
    for (key, order) in [("size", "asc"), ("name", "asc"), ("date", "desc")] {
        let form =
            format!("name=\"order\" value=\"{order}\"><button name=\"sort\" value=\"{key}\">");
        assert!(page.contains(&form), "{form}");
    }
    assert!(page.contains("aria-sort=\"descending\"><form"));
    // Crawlers follow links, and nothing else.
    assert!(links.iter().all(|link| !link.starts_with("./?")));
}

#[test]
fn hostile_names_stay_text() {
    for name in [
        &b"<script>alert(1)<script>"[..],
        b"\"><img src=x onerror=alert(1)>",
        b"' onmouseover='alert(1)",
        b"javascript:alert(1)",
        b"data:text,x",
        b"\\\\evil.example",
        b"?sort=x#y",
        b"%2e%2e%2f",
        b"&lt;b&gt;",
        b"a\r\nSet-Cookie: x",
        b"\xff\xfe<\xc0\xaf>",
        "\u{202e}gpj.exe".as_bytes(),
    ] {
        let page = html(name, vec![file(name, 1, 1), dir(name, 1)], false);
        for tag in ["<script", "<img", "<b>g", "onerror=alert(1)>\"", "' on"] {
            assert!(!page.contains(tag), "{tag} in {}", name.escape_ascii());
        }
        for link in links(&page) {
            let safe = ["./", "../", "/"]
                .iter()
                .any(|start| link.starts_with(start));
            assert!(safe && !link.starts_with("//"), "{link}");
            assert!(!link.contains([':', '\\', '<', '\'', '\n']), "{link}");
        }
        let value = json(b"", vec![file(name, 1, 1)], false);
        assert_eq!(value["entries"][0]["name"], *String::from_utf8_lossy(name));
    }
}

#[test]
fn json_has_the_documented_shape() {
    let value = json(
        b"a/b",
        vec![file(b"f", 5, 784_111_777), dir(b"d", -1)],
        false,
    );
    let expected = serde_json::json!({
        "path": "/a/b/",
        "entries": [
            {"name": "d", "type": "directory", "size": null, "mtime": null, "href": "./d/"},
            {"name": "f", "type": "file", "size": 5, "mtime": "1994-11-06T08:49:37Z",
             "href": "./f"},
        ],
        "total": 2,
        "next": null,
        "truncated": false,
    });
    assert_eq!(value, expected);
}

#[test]
fn the_format_follows_query_then_accept() {
    use Format::{Html, Json};
    let choose = |query, accept: &str| {
        let lines = if accept.is_empty() {
            FieldLines::Absent
        } else {
            FieldLines::One(accept.as_bytes())
        };
        Format::choose(query, lines)
    };
    for (accept, expected) in [
        ("", Html),
        ("*/*", Html),
        ("application/json", Json),
        ("Application/JSON; q=0.5", Json),
        ("application/*", Json),
        ("application/json, text/html", Html),
        ("application/json;q=0.9, text/html;q=0.8", Json),
        ("application/json, */*;q=0.1", Json),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            Html,
        ),
        ("application/json;q=0", Html),
        ("application/json;q=x", Html),
        ("text/html;q=0, */*", Json),
    ] {
        assert_eq!(choose(None, accept), expected, "{accept}");
    }
    assert_eq!(choose(Some("format=json"), "text/html"), Json);
    assert_eq!(
        choose(Some("sort=name&format=html"), "application/json"),
        Html
    );
    assert_eq!(choose(Some("format=xml"), ""), Html);
}

#[test]
fn sizes_have_three_digits() {
    for (bytes, expected) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102_348, "99.9 KiB"),
        (102_400, "100 KiB"),
        (1_048_575, "1.0 MiB"),
        (1_048_576, "1.0 MiB"),
        (734_003_200, "700 MiB"),
        (u64::MAX, "16.0 EiB"),
    ] {
        assert_eq!(human_size(bytes), expected, "{bytes}");
    }
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[aAbB019/.]{0,6}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 1..12),
    ]
    .prop_map(|name| name.into_iter().filter(|&b| b != b'/' && b != 0).collect())
}

proptest! {
    #[test]
    fn names_are_in_a_total_order(a in names(), b in names(), c in names()) {
        prop_assert_eq!(compare_names(&a, &b), compare_names(&b, &a).reverse());
        prop_assert_eq!(compare_names(&a, &b).is_eq(), a == b);
        let mut all = [a, b, c];
        all.sort_by(|x, y| compare_names(x, y));
        prop_assert!(compare_names(&all[0], &all[2]).is_le());
    }

    #[test]
    fn links_lead_to_the_exact_name(name in names(), is_dir in any::<bool>()) {
        prop_assume!(!name.is_empty() && name != b"." && name != b"..");
        let entry = Entry { name: name.clone(), is_dir, size: 0, mtime_s: 0 };
        let mut href = Vec::new();
        entry.write_href(&mut href);
        let url = String::from_utf8(href).unwrap().replacen('.', "", 1);
        let target = TargetPath::decode(&url).unwrap();
        prop_assert_eq!(&*target.relative, &name[..]);
        prop_assert_eq!(target.is_dir, is_dir);
    }

    #[test]
    fn json_is_valid_for_any_name(name in prop::collection::vec(any::<u8>(), 0..30)) {
        let value = json(&name, vec![file(&name, 1, 1)], false);
        let lossy = String::from_utf8_lossy(&name);
        prop_assert_eq!(value["entries"][0]["name"].as_str(), Some(lossy.as_ref()));
    }
}
