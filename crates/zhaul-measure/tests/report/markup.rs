//! A strict reader of markup: stricter than a browser, which mends what it can.

use std::collections::BTreeSet;

/// What a document refers to and what it consists of.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub(crate) ids: BTreeSet<String>,
    /// Ids that some attribute points to.
    pub(crate) references: BTreeSet<String>,
    pub(crate) elements: BTreeSet<String>,
    pub(crate) attributes: BTreeSet<String>,
    /// Text and attribute values, without the content of style and script.
    pub(crate) words: Vec<String>,
}

const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];

/// # Panics
/// Where the document is not well formed: an element left open, an attribute without quotes, an id
/// used twice.
pub(crate) fn outline(document: &str) -> Outline {
    let mut outline = Outline::default();
    let mut open: Vec<String> = Vec::new();
    let mut rest = document;
    while let Some(start) = rest.find('<') {
        outline.words.push(rest[..start].to_owned());
        rest = &rest[start + 1..];
        if let Some(closing) = rest.strip_prefix('/') {
            let (name, after) = closing.split_once('>').expect("a closing tag ends");
            assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
            rest = after;
            continue;
        }
        let (name, after) = tag(rest, &mut outline);
        rest = after;
        if name == "style" || name == "script" {
            let end = format!("</{name}>");
            let position = rest.find(&end).expect("the element ends");
            rest = &rest[position + end.len()..];
        } else if !VOID.contains(&name.as_str()) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
    assert!(!rest.contains('>'), "a bare >: {rest}");
    outline
}

/// Reads a tag behind its `<`; the name, and what follows its `>`.
fn tag<'a>(text: &'a str, outline: &mut Outline) -> (String, &'a str) {
    let end = text
        .find(|c: char| c.is_whitespace() || c == '>')
        .expect("the name ends");
    let name = text[..end].to_owned();
    assert!(
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '!'),
        "no name of an element: {name}"
    );
    outline.elements.insert(name.clone());
    let mut rest = &text[end..];
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('>') {
            return (name, after);
        }
        let end = rest
            .find(|c: char| c.is_whitespace() || c == '>' || c == '=')
            .expect("the attribute ends");
        let attribute = &rest[..end];
        assert!(
            attribute
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-'),
            "no name of an attribute: {attribute}"
        );
        rest = &rest[end..];
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let quoted = after.strip_prefix('"').expect("values are quoted");
            (value, rest) = quoted.split_once('"').expect("the value ends");
        }
        assert!(!value.contains('<'), "markup in {attribute}: {value}");
        note(attribute, value, outline);
    }
}

fn note(attribute: &str, value: &str, outline: &mut Outline) {
    outline.attributes.insert(attribute.to_owned());
    outline.words.push(value.to_owned());
    match attribute {
        "id" => assert!(outline.ids.insert(value.to_owned()), "twice: {value}"),
        "aria-labelledby" => {
            outline
                .references
                .extend(value.split_whitespace().map(str::to_owned));
        }
        "href" => {
            let id = value.strip_prefix('#').expect("links stay in the page");
            outline.references.insert(id.to_owned());
        }
        "fill" => {
            let id = value
                .strip_prefix("url(#")
                .and_then(|id| id.strip_suffix(')'));
            outline.references.extend(id.map(str::to_owned));
        }
        _ => {}
    }
}
