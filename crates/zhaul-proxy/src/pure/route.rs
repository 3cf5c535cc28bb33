//! Which route a connection takes by what its ClientHello says.

use super::client_hello::ClientHello;
use crate::config::Route;

/// Whether a connection that began with this ClientHello takes this route.
pub(crate) fn matches(route: &Route, hello: &ClientHello) -> bool {
    let name = hello.server_name.as_deref();
    let offers = |wanted: &String| hello.alpn.iter().any(|name| name == wanted.as_bytes());
    let named = |pattern: &String| name.is_some_and(|name| covers(pattern, name));
    (route.sni.is_empty() || route.sni.iter().any(named))
        && (route.alpn.is_empty() || route.alpn.iter().any(offers))
}

/// `*.example.com` covers every name below, however deep, and not `example.com` itself.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(below) => name.len() > below.len() && name.ends_with(below),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_protocols_both_have_to_match() {
        let route = |sni: &[&str], alpn: &[&str]| Route {
            sni: sni.iter().map(|&name| name.to_owned()).collect(),
            alpn: alpn.iter().map(|&name| name.to_owned()).collect(),
            to: "p".to_owned(),
        };
        let wildcard = route(&["*.b.example"], &["h2", "x"]);
        for (route, name, alpn, expected) in [
            (&route(&["a.example"], &[]), "a.example", &[][..], true),
            (&route(&["a.example"], &[]), "x.a.example", &[], false),
            (&wildcard, "x.b.example", &["x"], true),
            (&wildcard, "x.y.b.example", &["h2"], true),
            (&wildcard, "x.b.example", &["http/1.1"], false),
            (&wildcard, "b.example", &["h2"], false),
            (&route(&[], &["acme"]), "", &["acme"], true),
            (&route(&[], &["acme"]), "", &[], false),
        ] {
            let hello = ClientHello {
                server_name: (!name.is_empty()).then(|| name.to_owned()),
                alpn: alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            };
            assert_eq!(matches(route, &hello), expected, "{name} {alpn:?}");
        }
    }
}
