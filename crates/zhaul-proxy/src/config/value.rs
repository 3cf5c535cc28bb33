//! Values as people write them in a file: `"5s"`, `"10MB"`, `"round-robin"`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use toml::de::DeValue;

use super::document::FromValue;
use super::{Balance, Init, LogFormat, ProxyVersion, Source, WhenDown};

/// A value written as a string that its type can parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<T>(pub(super) T);

impl<T: FromStr<Err: fmt::Display>> FromValue for Text<T> {
    fn expected() -> Cow<'static, str> {
        "a string".into()
    }

    fn from_value(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let parsed = value.as_str()?.parse().map(Self);
        Some(parsed.map_err(|why: T::Err| why.to_string()))
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

impl FromValue for Time {
    fn expected() -> Cow<'static, str> {
        r#"a length of time ("500ms", "5s", "1h")"#.into()
    }

    fn from_value(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        value.as_str().map(str::parse)
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

impl FromValue for Bytes {
    fn expected() -> Cow<'static, str> {
        r#"a number of bytes ("10MB", 4096)"#.into()
    }

    fn from_value(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        match value.as_str() {
            Some(text) => Some(text.parse()),
            None => u64::from_value(value).map(|number| number.map(Self)),
        }
    }
}

/// What a check does, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckWord {
    Connect,
    Tls,
    Exchange,
}

/// A type whose values have names.
trait Named: Sized {
    const NAMES: &'static str;
    fn named(word: &str) -> Option<Self>;
}

impl Named for LogFormat {
    const NAMES: &'static str = "text or json";
    fn named(word: &str) -> Option<Self> {
        match word {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Named for Balance {
    const NAMES: &'static str = "round-robin, least-connections, random-of-two or source-hash";
    fn named(word: &str) -> Option<Self> {
        match word {
            "round-robin" => Some(Self::RoundRobin),
            "least-connections" => Some(Self::LeastConnections),
            "random-of-two" => Some(Self::RandomOfTwo),
            "source-hash" => Some(Self::SourceHash),
            _ => None,
        }
    }
}

impl Named for WhenDown {
    const NAMES: &'static str = "close or queue";
    fn named(word: &str) -> Option<Self> {
        match word {
            "close" => Some(Self::Close),
            "queue" => Some(Self::Queue),
            _ => None,
        }
    }
}

impl Named for Init {
    const NAMES: &'static str = "now or later";
    fn named(word: &str) -> Option<Self> {
        match word {
            "now" => Some(Self::Now),
            "later" => Some(Self::Later),
            _ => None,
        }
    }
}

impl Named for ProxyVersion {
    const NAMES: &'static str = "v1 or v2";
    fn named(word: &str) -> Option<Self> {
        match word {
            "v1" => Some(Self::V1),
            "v2" => Some(Self::V2),
            _ => None,
        }
    }
}

impl Named for Source {
    const NAMES: &'static str = "an address of this machine, or client";
    fn named(word: &str) -> Option<Self> {
        match word {
            "client" => Some(Self::Client),
            address => {
                let address = address.parse::<IpAddr>().ok()?;
                Some(Self::Address(address.to_canonical()))
            }
        }
    }
}

impl Named for CheckWord {
    const NAMES: &'static str = "connect, tls or exchange";
    fn named(word: &str) -> Option<Self> {
        match word {
            "connect" => Some(Self::Connect),
            "tls" => Some(Self::Tls),
            "exchange" => Some(Self::Exchange),
            _ => None,
        }
    }
}

macro_rules! words {
    ($($type:ty),*) => {$(
        // The command line takes the same words.
        impl FromStr for $type {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                Self::named(word)
                    .ok_or_else(|| format!("unknown value {word:?} (use {})", Self::NAMES))
            }
        }
    )*};
}

words!(
    LogFormat,
    Balance,
    WhenDown,
    Init,
    ProxyVersion,
    Source,
    CheckWord
);

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
