//! Laying a tree out in a given width. Pure.

use std::fmt;

/// What a line is about, for colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing particular.
    #[default]
    Plain,
    /// The route taken.
    Chosen,
    /// Passed over, or of less weight.
    Quiet,
    /// To be noticed.
    Warning,
}

/// One line in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The branches of the tree.
    pub branches: String,
    /// What the line is called, padded to the width of its column.
    pub label: String,
    /// The rest.
    pub text: String,
    /// What it is about.
    pub tone: Tone,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!("{}{}{}", self.branches, self.label, self.text);
        f.write_str(line.trim_end())
    }
}

/// A node of the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) label: String,
    pub(super) text: String,
    pub(super) tone: Tone,
    pub(super) children: Vec<Node>,
    /// Children line up their texts behind the longest label, if there is room for that.
    pub(super) aligned: bool,
    /// Its spaces are columns, and it fits.
    pub(super) verbatim: bool,
}

impl Node {
    pub(super) fn new(label: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            text: text.into(),
            ..Self::default()
        }
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::new("", text)
    }

    pub(super) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    pub(super) fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    pub(super) fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    pub(super) fn aligned(mut self) -> Self {
        self.aligned = true;
        self
    }
}

pub(super) fn lay_out(root: &Node, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let columns = columns.max(NARROWEST);
    place(root, "", "", 0, columns, &mut lines);
    lines
}

/// `first` stands before the node's first line, `rest` before what follows of it and below it.
fn place(
    node: &Node,
    first: &str,
    rest: &str,
    label_width: usize,
    columns: usize,
    lines: &mut Vec<Line>,
) {
    let has_children = !node.children.is_empty();
    let label = match (node.label.is_empty(), node.text.is_empty()) {
        (true, _) => String::new(),
        (false, true) => node.label.clone(),
        (false, false) => {
            let width = label_width.max(width(&node.label));
            format!("{:width$}  ", node.label)
        }
    };
    let room = columns.saturating_sub(width(first) + width(&label));
    // What follows of a text stands under its beginning. Without room beside its label all of it
    // stands below, a little further in.
    let beside = label.is_empty() || room >= LEAST_ROOM || width(&node.text) <= room;
    let indent = match (beside, label.is_empty()) {
        (true, false) => width(&label),
        // Its branches begin below it, and need room beside what follows of it.
        (true, true) => 2 * usize::from(has_children),
        (false, _) => 2,
    };
    let room = columns.saturating_sub(width(first) + indent).max(1);
    let tone = node.tone;
    let mut head = Some((first.to_owned(), label));
    if !beside {
        let (branches, label) = head.take().unwrap_or_default();
        lines.push(Line {
            branches,
            label,
            tone,
            ..Line::default()
        });
    }
    let trunk = if has_children { "│" } else { "" };
    let gap = " ".repeat(indent.saturating_sub(width(trunk)));
    let texts = if node.verbatim {
        vec![node.text.clone()]
    } else {
        wrap(&node.text, room)
    };
    for text in texts {
        let (branches, label) = head
            .take()
            .unwrap_or_else(|| (format!("{rest}{trunk}{gap}"), String::new()));
        lines.push(Line {
            branches,
            label,
            text,
            tone,
        });
    }
    let below = node
        .children
        .iter()
        .map(|child| width(&child.label))
        .max()
        .unwrap_or(0);
    let fits = columns.saturating_sub(width(rest) + below) >= ALIGNED_ROOM;
    let label_width = if node.aligned && fits { below } else { 0 };
    for (place_of, child) in node.children.iter().enumerate() {
        let last = place_of + 1 == node.children.len();
        let (branch, trunk) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        place(
            child,
            &format!("{rest}{branch}"),
            &format!("{rest}{trunk}"),
            label_width,
            columns,
            lines,
        );
    }
}

/// Breaks at spaces; a word longer than a line is broken where it must be. Always one line at least.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is always a line");
            let used = width(line);
            let space = usize::from(used > 0);
            if used + space + word.len() <= room {
                if space > 0 {
                    line.push(' ');
                }
                line.extend(word);
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            let rest = word.split_off(room.min(word.len()));
            line.extend(word);
            word = rest;
            if word.is_empty() {
                break;
            }
            lines.push(String::new());
        }
    }
    lines
}

/// Columns of a terminal, near enough: wide characters in names are rare.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Below this nothing reads well, and lines may be too wide.
const NARROWEST: usize = 32;

/// A text in less room than this is put below its label.
const LEAST_ROOM: usize = 20;

/// Room for texts beside an aligned column of labels.
const ALIGNED_ROOM: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(node: &Node, columns: usize) -> String {
        let lines = lay_out(node, columns);
        let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn texts_hang_below_their_beginning_and_branches_go_on_beside_them() {
        let tree = Node::new("root", "a text that goes on and on here").children([
            Node::new("first", "one two three four five six"),
            Node::text("seven eight nine").child(Node::new("deep", "ten")),
        ]);
        assert_eq!(
            laid_out(&tree, 32),
            "\
root  a text that goes on and on
│     here
├─ first  one two three four
│         five six
└─ seven eight nine
   └─ deep  ten"
        );
    }

    #[test]
    fn a_text_without_room_beside_its_label_goes_below_it() {
        let tree = Node::text("top").child(Node::new("a long label here", "one two three four"));
        assert_eq!(
            laid_out(&tree, 32),
            "\
top
└─ a long label here
     one two three four"
        );
    }

    #[test]
    fn a_long_text_without_a_label_keeps_clear_of_its_branches() {
        let tree = Node::text("one two three four five six seven").child(Node::text("eight"));
        assert_eq!(
            laid_out(&tree, 32),
            "\
one two three four five six
│ seven
└─ eight"
        );
    }

    #[test]
    fn labels_line_up_where_there_is_room() {
        let tree = Node::text("top")
            .aligned()
            .children([Node::new("a", "1"), Node::new("long label", "2")]);
        assert_eq!(
            laid_out(&tree, 60),
            "top\n├─ a           1\n└─ long label  2"
        );
        assert_eq!(laid_out(&tree, 36), "top\n├─ a  1\n└─ long label  2");
    }

    #[test]
    fn no_line_is_too_wide_whatever_the_words() {
        let long = "x".repeat(100);
        let deep = Node::new("deep", format!("{long} b"));
        let tree =
            Node::new("label", format!("a {long} b")).child(Node::text("middle").child(deep));
        for columns in [32, 40, 80] {
            for line in lay_out(&tree, columns) {
                assert!(width(&line.to_string()) <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn an_empty_text_is_a_line_all_the_same() {
        assert_eq!(lay_out(&Node::text(""), 40).len(), 1);
    }
}
