//! What is written is what RFC 9112 asks for, and the prepared answer is what would be written.

use super::*;
use crate::answer::response::Fields;
use crate::files::load::load;
use crate::files::lookup::{Catalog, Looked};
use crate::files::root::Walk;
use crate::files::tree::Tree;
use crate::host::config::Config;
use crate::host::site::Site;
use crate::message::field_lines::FieldLines;
use std::sync::Arc;

const PLAIN: Framing = Framing {
    keep_alive: true,
    version_minor: 1,
    head_only: false,
};

fn file(bytes: usize) -> Selected {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.txt"), vec![b'x'; bytes]).unwrap();
    let site = Site::new(Config {
        root: dir.path().to_owned(),
        ..Config::default()
    });
    let tree = Arc::new(Tree::new(site.unwrap()).unwrap());
    let catalog = Catalog::new(Arc::clone(&tree), 8, 1 << 20);
    let found = load(&tree, b"f.txt", false, Walk::Full).unwrap();
    match catalog
        .keep(b"f.txt", false, found)
        .select(FieldLines::default())
    {
        Looked::File(selected) => selected,
        other => panic!("{other:?}"),
    }
}

fn whole(selected: &Selected) -> Response {
    Response {
        status: 200,
        fields: Fields {
            of_file: Some((selected.clone(), Stored::All)),
            own: Vec::new(),
        },
        body: Body::whole(selected.clone()),
        complaints: Vec::new(),
    }
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.bytes).unwrap()
}

#[test]
fn the_prepared_answer_is_what_would_be_written() {
    let clock = Clock::new();
    for bytes in [0, 1, 16 * 1024] {
        let selected = file(bytes);
        let prepared = write(whole(&selected), PLAIN, &clock);
        let composed = compose(whole(&selected), PLAIN, &clock);
        assert_eq!(text(&prepared), text(&composed));
        assert_eq!(prepared.body_at, composed.body_at);
        assert_eq!(prepared.bytes.len() - prepared.body_at, bytes);
        assert!(prepared.rest.len() + composed.rest.len() == 0);
    }
}

#[test]
fn what_differs_from_the_plain_answer_is_written_anew() {
    let (clock, selected) = (Clock::new(), file(10));
    let last = Framing {
        keep_alive: false,
        ..PLAIN
    };
    assert!(text(&write(whole(&selected), last, &clock)).contains("\r\nConnection: close\r\n\r\n"));
    let old = Framing {
        version_minor: 0,
        ..PLAIN
    };
    assert!(text(&write(whole(&selected), old, &clock)).contains("\r\nConnection: keep-alive\r\n"));
    let mut own = whole(&selected);
    own.fields.own.extend_from_slice(b"Vary: Origin\r\n");
    assert!(text(&write(own, PLAIN, &clock)).contains("\r\nVary: Origin\r\n"));
}

#[test]
fn head_gets_the_length_and_nothing_else() {
    let clock = Clock::new();
    let framing = Framing {
        head_only: true,
        ..PLAIN
    };
    for bytes in [10, 1 << 20] {
        let message = write(whole(&file(bytes)), framing, &clock);
        assert!(text(&message).contains(&format!("\r\nContent-Length: {bytes}\r\n\r\n")));
        assert_eq!(message.body_at, message.bytes.len());
        assert_eq!(message.rest.len(), 0);
    }
}

#[test]
fn a_body_that_cannot_be_has_no_length() {
    let response = Response {
        status: 304,
        fields: Fields::default(),
        body: Body::Absent,
        complaints: Vec::new(),
    };
    let message = write(response, PLAIN, &Clock::new());
    assert!(text(&message).starts_with("HTTP/1.1 304 Not Modified\r\nDate: "));
    assert!(!text(&message).contains("Content-Length"));
}

#[test]
fn what_is_large_stays_where_it_is() {
    let clock = Clock::new();
    let message = write(whole(&file(1 << 20)), PLAIN, &clock);
    assert!(matches!(&message.rest, Rest::File(_, range) if range.len() == 1 << 20));
    let page = Response {
        status: 200,
        fields: Fields::default(),
        body: Body::Memory(vec![b'x'; COPY_BEHIND_HEAD + 1]),
        complaints: Vec::new(),
    };
    let message = write(page, PLAIN, &clock);
    assert!(matches!(&message.rest, Rest::Memory(page) if page.len() == COPY_BEHIND_HEAD + 1));
    assert_eq!(message.body_at, message.bytes.len());
}
