//! Values as people write them in a file: `"5s"`, `"10MB"`, `"10.0.0.0/8"`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A value written as a string that its type can parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A length of time: `"500ms"`, `"5s"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// Times are added to the clock, and multiplied by small numbers; that must not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |e| format!("{text:?} is no length of time: {e} (write 500ms, 5s, 1h)");
        let time = humantime::parse_duration(text).map_err(wrong)?;
        match time <= LONGEST {
            true => Ok(Self(time)),
            false => Err(format!("{text:?} is too long (100 years are the most)")),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Expecting::<Time>::new(
            r#"a length of time ("500ms", "5s", "1h")"#,
        ))
    }
}

/// A number of bytes, a second or in all: `"10MB"`, `"10MiB/s"`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.strip_suffix("/s").unwrap_or(text);
        let wrong = |e| format!("{text:?} is no number of bytes: {e} (write 10MB or 10MiB)");
        ByteSize::from_str(size)
            .map(|size| Self(size.as_u64()))
            .map_err(wrong)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Expecting::<Bytes>::new(
            r#"a number of bytes ("10MB", 4096)"#,
        ))
    }
}

/// Takes a string, and for types that can be made from a number also that.
struct Expecting<T> {
    what: &'static str,
    of: PhantomData<T>,
}

impl<T> Expecting<T> {
    const fn new(what: &'static str) -> Self {
        Self {
            what,
            of: PhantomData,
        }
    }
}

impl Visitor<'_> for Expecting<Time> {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        text.parse().map_err(E::custom)
    }
}

impl Visitor<'_> for Expecting<Bytes> {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Bytes, E> {
        let bytes =
            u64::try_from(bytes).map_err(|_| E::custom("a number of bytes is not negative"))?;
        Ok(Bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_would_overflow_the_clock_are_refused() {
        assert_eq!("1h 30m".parse(), Ok(Time(Duration::from_secs(5400))));
        let error = "500000000000y".parse::<Time>().unwrap_err();
        assert!(error.contains("too long"), "{error}");
    }
}
