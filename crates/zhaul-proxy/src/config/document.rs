//! A TOML document that is taken apart key by key, so that everything that is wrong with it is found
//! at once: what somebody asks for and cannot be read is noted with its line and key and left out,
//! and what nobody asked for is unknown.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// The key, as a path: `pools.db.servers[1].address`.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// Everything that is wrong with a file; at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file's name.
    pub file: String,
    /// In the order of the file.
    pub list: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Problem { line, key, what }) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file)?;
            if let Some(line) = line {
                write!(f, ":{line}")?;
            }
            match key.as_str() {
                "" => write!(f, ": {what}")?,
                key => write!(f, ": {key}: {what}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A text, and what was found wrong in it so far.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            problems: RefCell::default(),
        }
    }

    /// The outermost table; `None` if so much of the text is no TOML that the rest says little.
    pub(super) fn root(&self) -> Option<Table<'_, 'a>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        let mut is_readable = true;
        for error in errors {
            let what = error.message().trim_end();
            // Whatever is there twice, the first can be read.
            is_readable &= what.starts_with("duplicate key");
            self.problem(error.span().map(|span| span.start), "", what);
        }
        let root = root.into_inner();
        is_readable.then(|| Table::new(self, String::new(), None, root))
    }

    /// Notes a problem at an offset into the text.
    pub(super) fn problem(&self, at: Option<usize>, key: &str, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            line: at.map(|at| self.line_of(at)),
            key: key.to_owned(),
            what: what.into(),
        });
    }

    fn line_of(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    /// What was wrong, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}

/// A value of the document, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Found<'d, 'a, T> {
    document: &'d Document<'a>,
    pub(super) value: T,
    pub(super) at: usize,
    pub(super) key: String,
}

impl<T> Found<'_, '_, T> {
    /// Something is wrong with it.
    pub(super) fn problem(&self, what: impl Into<String>) {
        self.document.problem(Some(self.at), &self.key, what);
    }
}

/// What could be read of a list.
#[derive(Debug)]
pub(super) struct List<'d, 'a, T> {
    document: &'d Document<'a>,
    pub(super) value: Vec<T>,
    /// There is nothing in it, not even something that cannot be read.
    pub(super) is_empty: bool,
    pub(super) at: usize,
    pub(super) key: String,
}

impl<T> List<'_, '_, T> {
    /// Something is wrong with it as a whole.
    pub(super) fn problem(&self, what: impl Into<String>) {
        self.document.problem(Some(self.at), &self.key, what);
    }
}

/// A table out of which keys are taken. What is left when it is dropped is unknown.
#[derive(Debug)]
pub(super) struct Table<'d, 'a> {
    document: &'d Document<'a>,
    key: String,
    /// Where it begins; the outermost begins nowhere.
    at: Option<usize>,
    entries: DeTable<'a>,
    /// What was asked for.
    known: Vec<&'static str>,
    /// What of that was there.
    taken: Vec<&'static str>,
}

impl<'d, 'a> Table<'d, 'a> {
    fn new(
        document: &'d Document<'a>,
        key: String,
        at: Option<usize>,
        entries: DeTable<'a>,
    ) -> Self {
        Self {
            document,
            key,
            at,
            entries,
            known: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Notes that something is wrong with a key of this table, or that it is missing.
    pub(super) fn problem(&self, name: &str, what: impl Into<String>) {
        self.document.problem(self.at, &self.path(name), what);
    }

    /// The same at another place in the text, or where the table begins.
    pub(super) fn problem_at(&self, at: Option<usize>, key: &str, what: impl Into<String>) {
        self.document.problem(at.or(self.at), key, what);
    }

    /// Notes that a key is missing that has to be there, unless it was only not to be read.
    pub(super) fn missing(&self, name: &str, remedy: &str) {
        if !self.had(name) {
            self.problem(name, format!("missing field `{name}` ({remedy})"));
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        match self.key.as_str() {
            "" => name.to_owned(),
            key => format!("{key}.{name}"),
        }
    }

    /// Whether there was such a key, and somebody has taken it.
    pub(super) fn had(&self, name: &str) -> bool {
        self.taken.contains(&name)
    }

    fn remove(&mut self, name: &'static str) -> Option<Found<'d, 'a, DeValue<'a>>> {
        self.known.push(name);
        let (key, value) = self.entries.remove_entry(name)?;
        self.taken.push(name);
        // A table's header is where its key is; the value of a key in a line is in that line too.
        let at = key.span().start;
        Some(Found {
            document: self.document,
            at: match value.get_ref() {
                DeValue::Table(_) => at,
                _ => value.span().start,
            },
            value: value.into_inner(),
            key: self.path(name),
        })
    }

    /// The value of a key, if it is there and can be read.
    pub(super) fn take<T: FromValue>(&mut self, name: &'static str) -> Option<Found<'d, 'a, T>> {
        self.remove(name).and_then(read)
    }

    /// The same without its place.
    pub(super) fn value<T: FromValue>(&mut self, name: &'static str) -> Option<T> {
        self.take(name).map(|found| found.value)
    }

    /// The values of a key that may be written alone or in a list; `None` if it is not there.
    pub(super) fn list<T: FromValue>(
        &mut self,
        name: &'static str,
    ) -> Option<List<'d, 'a, Found<'d, 'a, T>>> {
        let found = self.remove(name)?;
        let (at, key) = (found.at, found.key.clone());
        let items = match found.value {
            DeValue::Array(_) => items(found),
            _ => vec![found],
        };
        Some(List {
            document: self.document,
            is_empty: items.is_empty(),
            value: items.into_iter().filter_map(read).collect(),
            at,
            key,
        })
    }

    /// The table of a key.
    pub(super) fn table(&mut self, name: &'static str) -> Option<Self> {
        self.remove(name).and_then(as_table)
    }

    /// The tables in the table of a key, by name.
    pub(super) fn named_tables(&mut self, name: &'static str) -> Vec<(String, Self)> {
        let Some(mut outer) = self.table(name) else {
            return Vec::new();
        };
        let entries = std::mem::take(&mut outer.entries);
        let inner = entries.into_iter().filter_map(|(name, value)| {
            let found = Found {
                document: outer.document,
                at: name.span().start,
                key: outer.path(name.get_ref()),
                value: value.into_inner(),
            };
            Some((name.into_inner().into_owned(), as_table(found)?))
        });
        inner.collect()
    }

    /// The tables in the list of a key, and where it is.
    pub(super) fn tables(&mut self, name: &'static str) -> Option<List<'d, 'a, Self>> {
        let found = self.remove(name)?;
        let (at, key) = (found.at, found.key.clone());
        let items = match found.value {
            DeValue::Array(_) => items(found),
            _ => {
                mismatch(&found, "a list of tables");
                return None;
            }
        };
        Some(List {
            document: self.document,
            is_empty: items.is_empty(),
            value: items.into_iter().filter_map(as_table).collect(),
            at,
            key,
        })
    }

    /// The table of a key that may also be `false`, which switches it off, or `true`.
    pub(super) fn table_or_switch(&mut self, name: &'static str) -> Option<Switch<Self>> {
        let found = self.remove(name)?;
        match found.value {
            DeValue::Boolean(true) => Some(Switch::On),
            DeValue::Boolean(false) => Some(Switch::Off),
            DeValue::Table(_) => as_table(found).map(Switch::Values),
            _ => {
                mismatch(&found, "false, or a table");
                None
            }
        }
    }
}

/// Something that is switched on or off, or said in detail.
#[derive(Debug)]
pub(super) enum Switch<T> {
    On,
    Off,
    Values(T),
}

impl Drop for Table<'_, '_> {
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        for (name, _) in entries {
            let name_at = Some(name.span().start);
            let near = self.known.iter().map(|&known| {
                let likeness = strsim::jaro_winkler(known, name.get_ref());
                (known, likeness)
            });
            let nearest = near.max_by(|(_, a), (_, b)| a.total_cmp(b));
            let hint = match nearest {
                Some((known, likeness)) if likeness > ALIKE => format!("did you mean `{known}`?"),
                _ => format!("known are {}", self.known.join(", ")),
            };
            let what = format!("unknown field `{}` ({hint})", name.get_ref());
            let key = self.path(name.get_ref());
            self.document.problem(name_at, &key, what);
        }
    }
}

/// From this likeness on, of 1, a name is taken for another that was misspelt.
const ALIKE: f64 = 0.85;

fn items<'d, 'a>(list: Found<'d, 'a, DeValue<'a>>) -> Vec<Found<'d, 'a, DeValue<'a>>> {
    let Found {
        document,
        value,
        key,
        ..
    } = list;
    let items: Vec<Spanned<DeValue<'a>>> = match value {
        DeValue::Array(items) => items.into_iter().collect(),
        _ => Vec::new(),
    };
    let items = items.into_iter().enumerate().map(|(i, item)| Found {
        document,
        at: item.span().start,
        key: format!("{key}[{i}]"),
        value: item.into_inner(),
    });
    items.collect()
}

fn as_table<'d, 'a>(found: Found<'d, 'a, DeValue<'a>>) -> Option<Table<'d, 'a>> {
    match found.value {
        DeValue::Table(entries) => Some(Table::new(
            found.document,
            found.key,
            Some(found.at),
            entries,
        )),
        _ => {
            mismatch(&found, "a table");
            None
        }
    }
}

fn read<'d, 'a, T: FromValue>(found: Found<'d, 'a, DeValue<'a>>) -> Option<Found<'d, 'a, T>> {
    match T::from_value(&found.value) {
        Some(Ok(value)) => Some(Found {
            document: found.document,
            value,
            at: found.at,
            key: found.key,
        }),
        Some(Err(what)) => {
            found.problem(what);
            None
        }
        None => {
            mismatch(&found, &T::expected());
            None
        }
    }
}

fn mismatch(found: &Found<'_, '_, DeValue<'_>>, expected: &str) {
    let there = match &found.value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    found.problem(format!("expected {expected}, found {there}"));
}

/// What a value of the file can be read as.
pub(super) trait FromValue: Sized {
    /// What has to be there, for whoever wrote something of another type.
    fn expected() -> Cow<'static, str>;

    /// The value; `None` if it is of another type.
    fn from_value(value: &DeValue<'_>) -> Option<Result<Self, String>>;
}

impl FromValue for String {
    fn expected() -> Cow<'static, str> {
        "a string".into()
    }

    fn from_value(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(|text| Ok(text.to_owned()))
    }
}

impl FromValue for bool {
    fn expected() -> Cow<'static, str> {
        "true or false".into()
    }

    fn from_value(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_bool().map(Ok)
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl FromValue for $type {
            fn expected() -> Cow<'static, str> {
                "a whole number".into()
            }

            fn from_value(value: &DeValue<'_>) -> Option<Result<Self, String>> {
                let number = value.as_integer()?;
                let read = <$type>::from_str_radix(number.as_str(), number.radix());
                Some(read.map_err(|_| format!("it must be from 0 to {}", <$type>::MAX)))
            }
        }
    )*};
}

whole_numbers!(u32, u64, usize);
