//! The page in headless Chromium. Skipped where there is none.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Pages, runs};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Chromium on a page, with these arguments: what it printed, and what it said about the page.
fn visit(page: &Path, arguments: &[&str]) -> Option<(String, String)> {
    let profile = tempfile::tempdir().unwrap();
    let mut child = NAMES.iter().find_map(|name| {
        Command::new(name)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args(["--enable-logging=stderr", "--v=0", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(arguments)
            .arg(format!("file://{}", page.display()))
            .env("HOME", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()
    })?;
    let (mut stdout, mut stderr) = (child.stdout.take()?, child.stderr.take()?);
    let output = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.read_to_end(&mut text);
        text
    });
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        text
    });
    let end = Instant::now() + Duration::from_secs(120);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let [output, errors] =
        [output, errors].map(|text| String::from_utf8_lossy(&text.join().unwrap()).into_owned());
    Some((output, errors))
}

const PHONE: u32 = 390;
const SCREEN: u32 = 1280;

/// A document that shows a page in frames of a phone's and a screen's width, with everything
/// unfolded, and writes down what it measured there: how wide the page became, and the size of the
/// smallest text in a drawing.
fn framed(page: &str) -> String {
    let source = page.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        r#"<!doctype html><meta charset="utf-8"><output></output>
<iframe width="{PHONE}" height="2000" frameborder="0" srcdoc="{source}"></iframe>
<iframe width="{SCREEN}" height="2000" frameborder="0" srcdoc="{source}"></iframe>
<script>
for (const frame of document.querySelectorAll("iframe")) frame.addEventListener("load", () => {{
  const page = frame.contentDocument;
  page.querySelectorAll("details").forEach((details) => details.open = true);
  const texts = [...page.querySelectorAll("svg.chart text, svg.path text")];
  const sizes = texts.map((text) =>
    parseFloat(frame.contentWindow.getComputedStyle(text).fontSize) * text.getScreenCTM().a);
  document.querySelector("output").textContent += `width-in-${{frame.width}} ${{page.documentElement.scrollWidth}} text-in-${{frame.width}} ${{Math.min(...sizes, 99)}} `;
}});
</script>"#
    )
}

/// The number behind a word of what [`framed`] wrote down.
fn measured(dom: &str, word: &str, width: u32) -> f64 {
    let (_, after) = dom.split_once(&format!("{word}-in-{width} ")).unwrap();
    let number = after
        .split(|c: char| c != '.' && !c.is_ascii_digit())
        .next();
    number.unwrap().parse().unwrap()
}

#[test]
fn pages_fit_a_phone_and_their_drawings_can_be_read_there() {
    let pages = Pages::new();
    for (name, results) in runs() {
        let page = zhaul_measure::report::page(&results);
        let file = pages.write(&format!("{name}-framed"), &framed(&page));
        let seen = visit(&file, &["--dump-dom", "--window-size=1300,2100"])
            .filter(|(dom, _)| dom.contains("<output>"));
        let Some((dom, _)) = seen else {
            zhaul_untested::skip(
                "pages_fit_a_phone_and_their_drawings_can_be_read_there",
                "no Chromium that runs",
            );
            return;
        };
        for width in [PHONE, SCREEN] {
            let page_width = measured(&dom, "width", width);
            assert!(
                page_width <= f64::from(width),
                "{name}: {page_width} of {width}"
            );
            let text = measured(&dom, "text", width);
            assert!(text >= 11.0, "{name} at {width}: text of {text} px");
        }
    }
}

#[test]
fn chromium_renders_every_page_without_a_complaint() {
    let pages = Pages::new();
    for (name, results) in runs() {
        let page = pages.write(name, &zhaul_measure::report::page(&results));
        let seen = visit(&page, &["--dump-dom"]).filter(|(dom, _)| dom.contains("<main>"));
        let Some((dom, errors)) = seen else {
            zhaul_untested::skip(
                "chromium_renders_every_page_without_a_complaint",
                "no Chromium that runs",
            );
            return;
        };
        let complaints: Vec<&str> = errors
            .lines()
            .filter(|line| line.contains("CONSOLE"))
            .collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
        for id in [
            "results-in-short",
            "copies",
            "curves",
            "split",
            "data-paths",
            "figures",
            "skipped",
            "methods",
            "reading",
            "machine",
            "raw",
            "results",
        ] {
            assert!(dom.contains(&format!("id=\"{id}\"")), "{name}: {id}");
        }
        // The script ran: the policy lets it, and it found the data.
        assert!(
            dom.contains("href=\"blob:"),
            "{name}: the script did not run"
        );
        assert!(
            !dom.contains("id=\"download\" download=\"zhaul-bench.json\" hidden"),
            "{name}"
        );
    }
}
