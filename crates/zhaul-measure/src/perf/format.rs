//! Where the fields of a tracepoint's record lie: its `format` file in tracefs. Pure.

use std::ops::Range;

/// The fields of a tracepoint. Offsets are those of the record's raw part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// In the order of the file, the common ones first.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its declaration in C, without the name.
    pub declaration: String,
    /// Where it begins.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Its numbers may be negative.
    pub signed: bool,
    /// Numbers in an array; 1 for a plain field.
    pub count: usize,
    /// The field is a pointer to its content, later in the record: `__data_loc`, or `__rel_loc`,
    /// which counts from the end of the field.
    pub location: Option<Location>,
}

/// How a field of variable length points to its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// From the start of the record.
    Absolute,
    /// From the end of the field.
    Relative,
}

impl Format {
    /// Reads a `format` file. `None` if a field of it cannot be understood.
    pub fn parse(text: &str) -> Option<Self> {
        let fields = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("field:"))
            .map(Field::parse)
            .collect::<Option<Vec<_>>>()?;
        (!fields.is_empty()).then_some(Self { fields })
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    /// `unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;`
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(';').map(str::trim);
        let declared = parts.next()?;
        let (mut offset, mut size, mut signed) = (None, None, false);
        for part in parts.filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once(':')?;
            match key {
                "offset" => offset = Some(value.parse().ok()?),
                "size" => size = Some(value.parse().ok()?),
                "signed" => signed = value != "0",
                _ => {}
            }
        }
        let (declaration, name, count) = split_declaration(declared)?;
        let location = match declaration.split_whitespace().next() {
            Some("__data_loc") => Some(Location::Absolute),
            Some("__rel_loc") => Some(Location::Relative),
            _ => None,
        };
        Some(Self {
            name: name.into(),
            declaration: declaration.into(),
            offset: offset?,
            size: size?,
            signed,
            count,
            location,
        })
    }

    /// The number in this field, or in the first place of an array. `None` if the record is too
    /// short or the field is not 1, 2, 4 or 8 bytes wide. Negative numbers keep their bits.
    pub fn unsigned(&self, raw: &[u8]) -> Option<u64> {
        self.unsigned_at(raw, 0)
    }

    /// As [`unsigned`](Self::unsigned), at a place of an array.
    pub fn unsigned_at(&self, raw: &[u8], index: usize) -> Option<u64> {
        let bytes = self.place(raw, index)?;
        Some(match *bytes {
            [a] => u64::from(a),
            [a, b] => u16::from_ne_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
            [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            _ => return None,
        })
    }

    /// The number in this field, with the sign that its width gives it.
    pub fn signed(&self, raw: &[u8]) -> Option<i64> {
        let bytes = self.place(raw, 0)?;
        Some(match *bytes {
            [a] => i8::from_ne_bytes([a]).into(),
            [a, b] => i16::from_ne_bytes([a, b]).into(),
            [a, b, c, d] => i32::from_ne_bytes([a, b, c, d]).into(),
            [a, b, c, d, e, f, g, h] => i64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            _ => return None,
        })
    }

    /// The content: of a field of variable length what it points to, else the field itself.
    pub fn bytes<'a>(&self, raw: &'a [u8]) -> Option<&'a [u8]> {
        let own = self.offset..self.offset.checked_add(self.size)?;
        let Some(location) = self.location else {
            return raw.get(own);
        };
        let word: [u8; 4] = raw.get(own.clone())?.try_into().ok()?;
        raw.get(pointed_to(u32::from_ne_bytes(word), location, own.end))
    }

    /// The content as text, up to its first NUL.
    pub fn text<'a>(&self, raw: &'a [u8]) -> Option<std::borrow::Cow<'a, str>> {
        let bytes = self.bytes(raw)?;
        let end = bytes.iter().position(|&byte| byte == 0);
        Some(String::from_utf8_lossy(
            &bytes[..end.unwrap_or(bytes.len())],
        ))
    }

    fn place<'a>(&self, raw: &'a [u8], index: usize) -> Option<&'a [u8]> {
        if index >= self.count {
            return None;
        }
        let width = self.size / self.count;
        let start = self.offset.checked_add(index.checked_mul(width)?)?;
        raw.get(start..start.checked_add(width)?)
    }
}

/// The length is in the upper half of the word, the place in the lower.
fn pointed_to(word: u32, location: Location, end_of_field: usize) -> Range<usize> {
    let (length, place) = ((word >> 16) as usize, (word & 0xffff) as usize);
    let start = match location {
        Location::Absolute => place,
        Location::Relative => end_of_field + place,
    };
    start..start + length
}

/// Splits `unsigned long args[6]` into the type, the name and the length of the array.
fn split_declaration(declared: &str) -> Option<(&str, &str, usize)> {
    let (before, count) = match declared
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
    {
        // An array without a number, or with a name of the kernel for it, is taken as one piece.
        Some((before, number)) => (before, number.parse().unwrap_or(1)),
        None => (declared, 1),
    };
    let at = before.rfind(|c: char| c.is_whitespace() || c == '*')?;
    let (declaration, name) = before.split_at(at + 1);
    (!name.is_empty() && count > 0).then_some((declaration.trim(), name, count))
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
