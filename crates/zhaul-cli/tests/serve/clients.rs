//! Programs that people use.

use std::fs;
use std::process::{Command, Output};

use crate::support::{Files, Server, has_program, pattern, skip};

fn curl(arguments: &[&str]) -> Output {
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "30", "--noproxy", "*"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "curl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[test]
fn curl_downloads_and_resumes() {
    if !has_program("curl") {
        skip!("curl_downloads_and_resumes", "curl is not installed");
    }
    let content = pattern(5_000_000);
    let files = Files::with(&[("video.mp4", &content)]);
    let server = Server::of(files.root(), &[]);
    let url = format!("http://{}/video.mp4", server.address());
    assert!(curl(&[&url]).stdout == content);

    let copy = files.outside().join("copy");
    fs::write(&copy, &content[..1_234_567]).unwrap();
    curl(&["-C", "-", "-o", copy.to_str().unwrap(), &url]);
    assert!(fs::read(&copy).unwrap() == content);
    // Seeking, as a player does.
    assert!(curl(&["-r", "4000000-4000999", &url]).stdout == content[4_000_000..4_001_000]);
    assert!(curl(&["--http1.0", &url]).stdout == content);
    // Twenty over one connection.
    let many = vec![url.as_str(); 20];
    assert_eq!(curl(&many).stdout.len(), 20 * content.len());
}

#[test]
fn curl_takes_the_compressed_sibling() {
    const NAME: &str = "curl_takes_the_compressed_sibling";
    if !has_program("curl") || !has_program("gzip") {
        skip!(NAME, "curl or gzip is not installed");
    }
    let text = "All work and no play makes a file compressible.\n".repeat(5000);
    let files = Files::new();
    let path = files.write("text.txt", &text);
    assert!(
        Command::new("gzip")
            .arg("--keep")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let server = Server::of(files.root(), &[]);
    let url = format!("http://{}/text.txt", server.address());
    let output = curl(&["--compressed", "-D", "-", &url]);
    let text_of = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text_of.split_once("\r\n\r\n").unwrap();
    if !head.to_ascii_lowercase().contains("content-encoding: gzip") {
        skip!(NAME, "this curl asks for other codings only:\n{head}");
    }
    assert_eq!(body, text);
    assert_eq!(curl(&[&url]).stdout, text.as_bytes());
}

#[test]
fn curl_asks_again_only_for_what_changed() {
    if !has_program("curl") {
        skip!(
            "curl_asks_again_only_for_what_changed",
            "curl is not installed"
        );
    }
    let files = Files::with(&[("page.html", b"first")]);
    let server = Server::of(files.root(), &[]);
    let url = format!("http://{}/page.html", server.address());
    let tag = files.outside().join("tag");
    let tag = tag.to_str().unwrap();
    let fetch = || {
        let arguments = [
            "--etag-save",
            tag,
            "--etag-compare",
            tag,
            "-w",
            "%{http_code}",
            &url,
        ];
        String::from_utf8(curl(&arguments).stdout).unwrap()
    };
    fs::write(tag, "").unwrap();
    assert_eq!(fetch(), "first200");
    assert_eq!(fetch(), "304");
    files.replace("page.html", "second");
    assert_eq!(fetch(), "second200");
}

#[test]
fn curl_waits_for_no_answer_to_an_expectation() {
    if !has_program("curl") {
        skip!(
            "curl_waits_for_no_answer_to_an_expectation",
            "curl is not installed"
        );
    }
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &[]);
    let url = format!("http://{}/a", server.address());
    let body = "x".repeat(2_000_000);
    let upload = files.outside().join("upload");
    fs::write(&upload, body).unwrap();
    let output = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-T",
        ])
        .arg(&upload)
        .arg(&url)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "405");
}
