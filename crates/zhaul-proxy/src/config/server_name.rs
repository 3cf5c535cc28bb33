//! Server names as a ClientHello can have them.

/// The name of a route as it is compared, in lower case and without the dot at the end.
///
/// # Errors
/// Why no client can ever ask for it.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let below = name.strip_prefix("*.").unwrap_or(&name);
    let wrong = |why: &str| {
        Err(format!(
            "{text:?} is no name that a client can ask for: {why} (write a.example.com or \
             *.example.com)"
        ))
    };
    if below.is_empty() {
        return wrong("it is empty");
    }
    if below.contains("://") || below.contains('/') {
        return wrong("it is a URL or a path");
    }
    if below.contains('*') {
        return wrong("only a whole first label can be *");
    }
    if !below.is_ascii() {
        return wrong("names outside ASCII are asked for in punycode, as xn--...");
    }
    if let Some((_, port)) = below.split_once(':') {
        return match port.bytes().all(|byte| byte.is_ascii_digit()) {
            true => wrong("a name has no port"),
            false => wrong("an address is no name"),
        };
    }
    let labels = || below.split('.');
    if labels().any(str::is_empty) {
        return wrong("a part between two dots is empty");
    }
    if below.len() > 253 || labels().any(|label| label.len() > 63) {
        return wrong("a name has 253 bytes at most, and 63 between two dots");
    }
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match labels().all(|label| label.bytes().all(is_part)) {
        true => Ok(name),
        false => wrong("it is made of letters, digits, - and _"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_lower_case_and_without_the_last_dot() {
        for (text, name) in [
            ("A.Example.com.", "a.example.com"),
            ("*.Example.org", "*.example.org"),
            ("localhost", "localhost"),
            (
                "_dmarc.xn--bcher-kva.example",
                "_dmarc.xn--bcher-kva.example",
            ),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(name));
        }
    }

    #[test]
    fn names_that_never_match_say_why() {
        let long = format!("{}.example", "x".repeat(64));
        for (text, why) in [
            ("", "empty"),
            (".", "empty"),
            ("*.", "first label"),
            ("*", "first label"),
            ("a.*.example", "first label"),
            ("*a.example", "first label"),
            ("*.*.example", "first label"),
            ("example.com:443", "no port"),
            ("https://example.com", "URL"),
            ("example.com/path", "URL"),
            ("exa mple.com", "letters, digits"),
            ("b\u{fc}cher.example", "punycode"),
            ("a..example", "between two dots"),
            (".example", "between two dots"),
            ("2001:db8::1", "address"),
            (&long, "63"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
