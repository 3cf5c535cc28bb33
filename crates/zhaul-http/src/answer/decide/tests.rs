//! Decisions from scripted look-ups.

use super::*;
use crate::answer::response::{Complaint, Stored};
use crate::files::load::load;
use crate::files::lookup::{Catalog, Selected};
use crate::files::root::Walk;
use crate::files::tree::Tree;
use crate::host::config::Config;
use crate::message::field_lines::FieldLines;
use crate::message::range::ByteRange;
use crate::message::request::{Limits, Outcome, parse};
use std::cell::RefCell;
use std::sync::Arc;

/// What paths lead to, and which were asked for.
#[derive(Default)]
struct Script {
    known: Vec<(&'static str, Result<Looked, Missed>)>,
    asked: RefCell<Vec<String>>,
}

impl Script {
    fn with(mut self, path: &'static str, found: Result<Looked, Missed>) -> Self {
        self.known.push((path, found));
        self
    }
}

impl Files for Script {
    fn look_up(
        &self,
        path: &[u8],
        is_dir: bool,
        _accept: FieldLines<'_>,
    ) -> Result<Looked, Missed> {
        let slash = if is_dir { "/" } else { "" };
        let path = String::from_utf8(path.to_vec()).unwrap() + slash;
        let found = self.known.iter().find(|(known, _)| **known == path);
        self.asked.borrow_mut().push(path);
        found.map_or(Err(Missed::Miss(Miss::NotFound)), |(_, found)| {
            found.clone()
        })
    }
}

fn site(config: Config) -> Site {
    Site::new(config).unwrap()
}

fn decided(site: &Site, request: &str, files: &Script) -> Decision {
    let request = request.replace('\n', "\r\n");
    match parse(request.as_bytes(), &Limits::default()) {
        Outcome::Complete { head, .. } => decide(site, &head, files, 2_000_000_000),
        other => panic!("{other:?}"),
    }
}

fn response(site: &Site, request: &str, files: &Script) -> Response {
    match decided(site, request, files) {
        Decision::Respond(response) => response,
        other => panic!("{other:?}"),
    }
}

fn fields(response: &Response) -> String {
    let mut written = Vec::new();
    response.fields.write(&mut written);
    String::from_utf8(written).unwrap()
}

/// A file of so many bytes.
fn file(bytes: usize) -> (Arc<Tree>, Selected) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.txt"), vec![b'x'; bytes]).unwrap();
    let config = Config {
        root: dir.path().to_owned(),
        ..Config::default()
    };
    let tree = Arc::new(Tree::new(site(config)).unwrap());
    let catalog = Catalog::new(Arc::clone(&tree), 8, 1 << 20);
    let found = load(&tree, b"f.txt", false, Walk::Full).unwrap();
    match catalog
        .keep(b"f.txt", false, found)
        .select(FieldLines::default())
    {
        Looked::File(selected) => (tree, selected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_there_is_404_with_a_page() {
    let site = site(Config::default());
    for (accept, kind, begin) in [
        ("text/html", "text/html", "<!doctype html>"),
        ("application/json", "text/plain", "404 Not Found\n"),
    ] {
        let request = format!("GET /a HTTP/1.1\nHost: x\nAccept: {accept}\n\n");
        let response = response(&site, &request, &Script::default());
        assert_eq!(response.status, 404);
        assert!(fields(&response).contains(&format!("Content-Type: {kind}")));
        assert!(matches!(response.body, Body::Memory(page) if page.starts_with(begin.as_bytes())));
    }
}

#[test]
fn a_directory_without_its_slash_is_a_redirect() {
    let site = site(Config::default());
    let files = Script::default().with("a", Ok(Looked::Redirect));
    let response = response(&site, "GET /a?b HTTP/1.1\nHost: x\n\n", &files);
    assert_eq!(response.status, 301);
    assert!(fields(&response).contains("Location: /a/?b\r\n"));
}

#[test]
fn what_would_wait_is_to_be_loaded_first() {
    let site = site(Config::default());
    let files = Script::default().with("a/", Err(Missed::Elsewhere));
    let decision = decided(&site, "GET /a/ HTTP/1.1\nHost: x\n\n", &files);
    let load = Load {
        path: b"a".to_vec(),
        is_dir: true,
    };
    assert!(matches!(decision, Decision::Load(asked) if asked == load));
}

#[test]
fn an_error_page_that_would_wait_is_loaded_first_too() {
    let site = site(Config {
        error_pages: [(404, "404.html".to_owned())].into(),
        ..Config::default()
    });
    let files = Script::default().with("404.html", Err(Missed::Elsewhere));
    let decision = decided(&site, "GET /a HTTP/1.1\nHost: x\n\n", &files);
    assert!(matches!(decision, Decision::Load(load) if load.path == b"404.html"));
    assert_eq!(*files.asked.borrow(), ["a", "404.html"]);
}

#[test]
fn an_error_page_that_is_none_is_complained_about() {
    let site = site(Config {
        error_pages: [(404, "404.html".to_owned())].into(),
        ..Config::default()
    });
    let files = Script::default().with("404.html", Ok(Looked::Redirect));
    let response = response(&site, "GET /a HTTP/1.1\nHost: x\n\n", &files);
    assert_eq!(response.status, 404);
    let complaint = Complaint::PageIsNoFile { status: 404 };
    assert_eq!(response.complaints, [complaint]);
}

#[test]
fn what_the_machine_does_wrong_is_told_apart_from_what_clients_cause() {
    let site = site(Config::default());
    for (miss, status, is_of_machine) in [
        (Miss::TimedOut, 503, true),
        (Miss::Failed(rustix::io::Errno::IO), 500, true),
        (Miss::Leased, 503, false),
        (Miss::Exhausted(rustix::io::Errno::MFILE), 503, false),
    ] {
        let files = Script::default().with("a", Err(Missed::Miss(miss)));
        let response = response(&site, "GET /a HTTP/1.1\nHost: x\n\n", &files);
        assert_eq!(response.status, status, "{miss:?}");
        assert_eq!(response.complaints[0].is_of_machine(), is_of_machine);
    }
}

#[test]
fn the_page_of_an_app_answers_what_is_not_there() {
    let (_tree, selected) = file(10);
    let site = site(Config {
        spa: Some("app.html".to_owned()),
        ..Config::default()
    });
    let files = Script::default().with("app.html", Ok(Looked::File(selected)));
    let response = response(&site, "GET /any/where HTTP/1.1\nHost: x\n\n", &files);
    assert_eq!(response.status, 200);
    assert_eq!(response.body.length(), Some(10));
}

#[test]
fn names_with_a_dot_are_not_even_looked_up() {
    let site = site(Config::default());
    let files = Script::default();
    let response = response(&site, "GET /.git/config HTTP/1.1\nHost: x\n\n", &files);
    assert_eq!(response.status, 404);
    assert!(files.asked.borrow().is_empty());
}

#[test]
fn a_file_comes_whole_in_part_or_in_parts() {
    let (_tree, selected) = file(1000);
    let site = site(Config::default());
    let files = Script::default().with("f.txt", Ok(Looked::File(selected)));
    let get = |range: &str| {
        let request = format!("GET /f.txt HTTP/1.1\nHost: x\n{range}\n");
        response(&site, &request, &files)
    };
    let whole = get("");
    assert_eq!(whole.status, 200);
    assert!(matches!(whole.fields.of_file, Some((_, Stored::All))));
    assert!(whole.fields.own.is_empty(), "nothing is copied for it");
    let part = get("Range: bytes=10-19\n");
    assert_eq!(part.status, 206);
    let ten = ByteRange { start: 10, end: 20 };
    assert!(matches!(&part.body, Body::File(_, range) if *range == ten));
    assert!(fields(&part).contains("Content-Range: bytes 10-19/1000\r\n"));
    let parts = get("Range: bytes=0-0,-1\n");
    assert!(matches!(parts.body, Body::Parts(..)));
    assert!(fields(&parts).contains("Content-Type: multipart/byteranges"));
    assert_eq!(get("Range: bytes=1000-\n").status, 416);
}

#[test]
fn methods_that_change_files_are_told_which_do_not() {
    let site = site(Config::default());
    for (method, status) in [("PUT", 405), ("OPTIONS", 204)] {
        let request = format!("{method} /a HTTP/1.1\nHost: x\n\n");
        let response = response(&site, &request, &Script::default());
        assert_eq!(response.status, status);
        assert!(fields(&response).contains("Allow: GET, HEAD, OPTIONS\r\n"));
    }
}
