//! Heads that real clients send, and heads that attackers do.

use super::*;
use proptest::prelude::*;

const WRK: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER: &[u8] = b"GET /assets/app.3f9.js?v=1 HTTP/1.1\r\n\
    Host: files.example:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: http://files.example:8080/\r\n\
    Connection: keep-alive\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    If-None-Match: \"abc\", W/\"d,e\"\r\n\
    Range: bytes=0-99\r\n\
    If-Range: \"abc\"\r\n\r\n";

fn head(bytes: &[u8]) -> RequestHead<'_> {
    match parse(bytes, &Limits::default()) {
        Outcome::Complete { head, consumed } => {
            assert_eq!(consumed, bytes.len(), "{}", bytes.escape_ascii());
            head
        }
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

fn status(bytes: &[u8]) -> u16 {
    match parse(bytes, &Limits::default()) {
        Outcome::Reject(reject) => reject.status,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

/// A head with a valid request line and Host, and these further lines.
fn with(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[test]
fn every_slot_of_a_browser_request_is_filled() {
    let head = head(BROWSER);
    assert_eq!(head.method, Method::Get);
    assert_eq!(head.form, TargetForm::Origin);
    assert_eq!((head.path, head.query), ("/assets/app.3f9.js", Some("v=1")));
    assert_eq!(head.target, "/assets/app.3f9.js?v=1");
    assert_eq!((head.version_minor, head.keep_alive), (1, true));
    assert_eq!(head.body, BodyFraming::None);
    assert_eq!(head.host, Some("files.example:8080"));
    assert!(head.user_agent.unwrap().ends_with(b"Firefox/128.0"));
    assert_eq!(head.referer, Some(&b"http://files.example:8080/"[..]));
    assert_eq!(
        head.accept_encoding.single(),
        Some(&b"gzip, deflate, br, zstd"[..])
    );
    assert!(head.accept.single().unwrap().starts_with(b"text/html"));
    assert_eq!(
        head.if_none_match.single(),
        Some(&b"\"abc\", W/\"d,e\""[..])
    );
    assert_eq!(
        head.if_modified_since,
        Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..])
    );
    assert_eq!(head.range, Some(&b"bytes=0-99"[..]));
    assert_eq!(head.if_range, Some(&b"\"abc\""[..]));
    assert_eq!(head.if_match, FieldLines::Absent);
    assert_eq!((head.origin, head.if_unmodified_since), (None, None));
}

#[test]
fn cors_fields_and_empty_values_are_kept() {
    let head_bytes = with(
        "oRiGiN: http://b\r\nAccess-Control-Request-Method: PUT\r\n\
         Access-Control-Request-Headers: X-A\r\nAccess-Control-Request-Headers: X-B\r\n\
         If-Match: *\r\nIf-Unmodified-Since: x\r\nAccept-Encoding:\r\nUser-Agent:  \r\n",
    );
    let head = head(&head_bytes);
    assert_eq!(head.origin, Some(&b"http://b"[..]));
    assert_eq!(head.access_control_request_method, Some(&b"PUT"[..]));
    let names: Vec<_> = head.access_control_request_headers.members().collect();
    assert_eq!(names, [b"X-A", b"X-B"]);
    assert_eq!(head.if_match.single(), Some(&b"*"[..]));
    assert_eq!(head.if_unmodified_since, Some(&b"x"[..]));
    assert_eq!(head.accept_encoding.single(), Some(&b""[..]));
    assert_eq!(head.user_agent, Some(&b""[..]));
}

#[test]
fn methods_are_case_sensitive_tokens() {
    for (token, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("OPTIONS", Method::Options),
        ("get", Method::Other("get")),
        ("POST", Method::Other("POST")),
        ("X-FROB!", Method::Other("X-FROB!")),
    ] {
        let bytes = format!("{token} / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head(bytes.as_bytes()).method, method);
        assert_eq!(method.as_str(), token);
    }
    assert_eq!(status(b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn the_four_forms_of_a_target() {
    let of = |line: &str| format!("{line} HTTP/1.1\r\nHost: field\r\n\r\n").into_bytes();
    for (line, form, path, query, host) in [
        ("GET /", TargetForm::Origin, "/", None, "field"),
        ("GET /?", TargetForm::Origin, "/", Some(""), "field"),
        ("GET /a?b?c", TargetForm::Origin, "/a", Some("b?c"), "field"),
        ("GET //x/y", TargetForm::Origin, "//x/y", None, "field"),
        (
            "GET /http://x/",
            TargetForm::Origin,
            "/http://x/",
            None,
            "field",
        ),
        (
            "GET http://t:81/a?b",
            TargetForm::Absolute,
            "/a",
            Some("b"),
            "t:81",
        ),
        ("GET HTTPS://t", TargetForm::Absolute, "/", None, "t"),
        ("GET http://t?q", TargetForm::Absolute, "/", Some("q"), "t"),
        ("OPTIONS http://t", TargetForm::Absolute, "/", None, "t"),
        ("OPTIONS *", TargetForm::Asterisk, "*", None, "field"),
    ] {
        let bytes = of(line);
        let head = head(&bytes);
        let got = (head.form, head.path, head.query, head.host);
        assert_eq!(got, (form, path, query, Some(host)), "{line}");
    }
    for line in [
        "GET *",
        "GET a",
        "GET a:80",
        "GET http://",
        "GET http:///a",
        "GET http://u@t/",
        "GET http://t:x/",
        "GET ftp://t/",
        "GET /a#b",
        "GET http:/t",
        "OPTIONS *a",
        "GET \\",
        "GET http",
        "GET httpx://a/",
    ] {
        assert_eq!(status(&of(line)), 400, "{line}");
    }
    assert_eq!(status(&of("CONNECT t:443")), 405);
    assert_eq!(status(&of("CONNECT /")), 405);
}

#[test]
fn raw_utf8_in_a_target_is_tolerated_and_overlong_utf8_is_not() {
    assert_eq!(
        head("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes()).path,
        "/ä"
    );
    assert_eq!(
        status(b"GET /\xc0\xae\xc0\xae/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        400
    );
    assert_eq!(status(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    for control in [0_u8, 1, 9, 11, 12, 27, 127] {
        let mut bytes = b"GET /a".to_vec();
        bytes.push(control);
        bytes.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(status(&bytes), 400, "{control}");
    }
}

#[test]
fn malformed_request_lines_are_refused() {
    for (line, expected) in [
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/11", 400),
        ("GET / HTTP/1,1", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
    ] {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(status(bytes.as_bytes()), expected, "{line}");
    }
    // The version may arrive in two pieces, the second of which decides.
    assert_eq!(parse(b"PRI * HTTP/2", &Limits::default()), Outcome::Partial);
    let endless = [b"GET / HTTP/2".to_vec(), vec![b'x'; 9000]].concat();
    assert_eq!(status(&endless), 414);
}

#[test]
fn a_later_minor_version_is_the_latest_that_is_spoken() {
    let rest = "Host: a\r\nRange: bytes=0-1\r\n\r\n";
    for minor in '2'..='9' {
        let known = format!("GET /a?b HTTP/1.1\r\n{rest}");
        let later = format!("GET /a?b HTTP/1.{minor}\r\n{rest}");
        let behind = format!("\r\n{later}GET / HTTP/1.1");
        assert_eq!(head(later.as_bytes()), head(known.as_bytes()), "{minor}");
        let Outcome::Complete { consumed, .. } = parse(behind.as_bytes(), &Limits::default())
        else {
            panic!("{behind}");
        };
        assert_eq!(consumed, later.len() + 2);
        for cut in 0..later.len() {
            let outcome = parse(&later.as_bytes()[..cut], &Limits::default());
            assert_eq!(outcome, Outcome::Partial, "{}", &later[..cut]);
        }
    }
    for (request, expected) in [
        ("GET / HTTP/1.2\r\n\r\n", 400),
        ("GET / HTTP/1.2\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{7f} HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    ] {
        assert_eq!(status(request.as_bytes()), expected, "{request:?}");
    }
}

#[test]
fn line_ends_are_crlf_and_nothing_else() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a\n\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\rX",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x1bb\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(status(bytes), 400, "{}", bytes.escape_ascii());
    }
}

#[test]
fn one_empty_line_before_the_request_is_skipped() {
    let mut bytes = b"\r\n".to_vec();
    bytes.extend_from_slice(WRK);
    assert_eq!(head(&bytes).path, "/index.html");
    assert_eq!(first_line(&bytes, 100), b"GET /index.html HTTP/1.1");
    assert_eq!(first_line(&bytes, 3), b"GET");
}

#[test]
fn folded_spaced_and_nameless_header_lines_are_refused() {
    for lines in [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X:\r\n b\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X a\r\n",
        "X\u{0}: a\r\n",
        "Trans\u{e9}: a\r\n",
        "X@: a\r\n",
        "(X): a\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        assert_eq!(status(&with(lines)), 400, "{lines:?}");
    }
    assert_eq!(status(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400);
}

#[test]
fn host_is_there_once_and_valid() {
    let of = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    for lines in [
        "",
        "Host:\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a:99999\r\n",
        "Host: <script>\r\n",
    ] {
        assert_eq!(status(&of(lines)), 400, "{lines:?}");
    }
    assert_eq!(head(&of("Host:   a:1\t \r\n")).host, Some("a:1"));
    assert_eq!(head(b"GET / HTTP/1.0\r\n\r\n").host, None);
    assert_eq!(head(b"GET http://t/ HTTP/1.0\r\n\r\n").host, Some("t"));
    assert_eq!(status(b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/1.0\r\nHost: a/\r\n\r\n"), 400);
    // An absolute target does not excuse a missing or broken field.
    assert_eq!(status(b"GET http://t/ HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET http://t/ HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
}

#[test]
fn ambiguous_body_lengths_are_refused() {
    for (lines, expected) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: 5,6\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: -5\r\n", 400),
        ("Content-Length: 0x5\r\n", 400),
        ("Content-Length: 5 5\r\n", 400),
        ("Content-Length: 5.0\r\n", 400),
        ("Content-Length: \"5\"\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length: 99999999999999999999999999\r\n", 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            400,
        ),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 400),
        ("Transfer-Encoding: chunked;q=1\r\n", 400),
        ("Transfer-Encoding: \"chunked\"\r\n", 400),
        ("Transfer-Encoding: \u{b}chunked\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
    ] {
        assert_eq!(status(&with(lines)), expected, "{lines:?}");
    }
    assert_eq!(
        status(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        400
    );
    let both = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(status(both), 400);
}

#[test]
fn unambiguous_body_lengths_are_taken() {
    for (lines, body) in [
        ("", BodyFraming::None),
        ("Content-Length: 0\r\n", BodyFraming::None),
        ("Content-Length: 000\r\n", BodyFraming::None),
        ("Content-Length: \t5 \r\n", BodyFraming::Length(5)),
        (
            "Content-Length: 18446744073709551615\r\n",
            BodyFraming::Length(u64::MAX),
        ),
        ("Transfer-Encoding: chunked\r\n", BodyFraming::Chunked),
        ("transfer-encoding: CHUNKED\r\n", BodyFraming::Chunked),
    ] {
        assert_eq!(head(&with(lines)).body, body, "{lines:?}");
    }
}

#[test]
fn a_smuggled_request_is_never_taken_for_the_next_one() {
    // CL.TE and TE.CL: refused as a whole, so nothing after the head is looked at.
    for smuggle in [
        &b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n\
           0\r\n\r\nG"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n\
          5c\r\nGPOST / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n Content-Length: 4\r\n\r\n",
    ] {
        assert_eq!(status(smuggle), 400, "{}", smuggle.escape_ascii());
    }
}

#[test]
fn connection_options_decide_about_persistence() {
    for (minor, lines, keep) in [
        (1, "", true),
        (1, "Connection: close\r\n", false),
        (1, "Connection: Close\r\n", false),
        (1, "Connection: keep-alive\r\n", true),
        (1, "Connection: x, close , y\r\n", false),
        (1, "Connection: keep-alive\r\nConnection: close\r\n", false),
        (1, "Connection: closed\r\n", true),
        (0, "", false),
        (0, "Connection: keep-alive\r\n", true),
        (0, "Connection: Keep-Alive, close\r\n", false),
    ] {
        let bytes = format!("GET / HTTP/1.{minor}\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(
            head(bytes.as_bytes()).keep_alive,
            keep,
            "1.{minor} {lines:?}"
        );
    }
}

#[test]
fn expectations() {
    assert!(head(&with("Expect: 100-Continue\r\nContent-Length: 1\r\n")).expect_continue);
    assert!(!head(&with("")).expect_continue);
    assert_eq!(status(&with("Expect: 200-ok\r\n")), 417);
    assert!(!head(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
}

#[test]
fn repeated_singletons_lose_their_meaning_and_lists_are_joined() {
    let bytes = with(
        "Range: bytes=0-1\r\nRange: bytes=5-6\r\nIf-Modified-Since: a\r\nIf-Modified-Since: b\r\n\
         Origin: a\r\nOrigin: b\r\nIf-None-Match: \"a\"\r\nif-none-match: \"b\"\r\n\
         User-Agent: first\r\nUser-Agent: second\r\n",
    );
    let head = head(&bytes);
    assert_eq!(
        (head.range, head.if_modified_since, head.origin),
        (None, None, None)
    );
    let tags: Vec<_> = head.if_none_match.lines().collect();
    assert_eq!(tags, [b"\"a\"", b"\"b\""]);
    assert_eq!(head.user_agent, Some(&b"first"[..]));
}

#[test]
fn a_repeated_if_range_takes_the_range_with_it() {
    let bytes = with("Range: bytes=0-1\r\nIf-Range: \"a\"\r\nIf-Range: \"b\"\r\n");
    assert_eq!((head(&bytes).range, head(&bytes).if_range), (None, None));
}

#[test]
fn limits_are_exact_and_independent_of_what_follows() {
    let limits = Limits {
        request_line_bytes: 40,
        head_bytes: 100,
        headers: 2,
    };
    let outcome = |bytes: &[u8]| match parse(bytes, &limits) {
        Outcome::Complete { .. } => 200,
        Outcome::Partial => 0,
        Outcome::Reject(reject) => reject.status,
    };
    let line = |n: usize| format!("GET /{} HTTP/1.1", "a".repeat(n - 14));
    let fits = format!("{}\r\nHost: a\r\n\r\n", line(40));
    assert_eq!(outcome(fits.as_bytes()), 200);
    assert_eq!(outcome(&fits.as_bytes()[..41]), 0);
    assert_eq!(
        outcome(format!("{}\r\nHost: a\r\n\r\n", line(41)).as_bytes()),
        414
    );
    assert_eq!(outcome(&line(42).as_bytes()[..42]), 414);

    let sized = |n: usize| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "h".repeat(n - 26));
    assert_eq!(sized(100).len(), 100);
    let pipelined = sized(100) + &sized(100);
    assert_eq!(outcome(pipelined.as_bytes()), 200);
    assert_eq!(outcome(sized(101).as_bytes()), 431);
    assert_eq!(outcome(&sized(200).as_bytes()[..100]), 431);
    assert_eq!(outcome(&sized(200).as_bytes()[..99]), 0);

    assert_eq!(outcome(b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"), 200);
    assert_eq!(
        outcome(b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nD: e\r\n\r\n"),
        431
    );
}

#[test]
fn pipelined_requests_come_one_at_a_time() {
    let mut bytes = WRK.to_vec();
    bytes.extend_from_slice(BROWSER);
    let Outcome::Complete { consumed, .. } = parse(&bytes, &Limits::default()) else {
        panic!("first request");
    };
    assert_eq!(consumed, WRK.len());
    assert_eq!(head(&bytes[consumed..]).query, Some("v=1"));
}

#[test]
fn every_prefix_of_a_request_is_partial() {
    for bytes in [WRK, BROWSER, &[b"\r\n", WRK].concat()] {
        for end in 0..bytes.len() {
            let outcome = parse(&bytes[..end], &Limits::default());
            assert_eq!(outcome, Outcome::Partial, "{}", bytes[..end].escape_ascii());
        }
    }
}

prop_compose! {
    fn header_line()(
        name in "(Host|Range|If-Match|Accept|Connection|Content-Length|X-[a-z]{1,5})",
        value in "[ -~\\t]{0,20}",
    ) -> String {
        format!("{name}: {value}\r\n")
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, &Limits::default());
    }

    #[test]
    fn a_split_never_changes_the_outcome(
        path in "/[!-~]{0,20}",
        lines in prop::collection::vec(header_line(), 0..5),
        tail in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat());
        let mut bytes = head.clone().into_bytes();
        bytes.extend_from_slice(&tail);
        let whole = parse(&bytes, &Limits::default());
        if let Outcome::Complete { consumed, .. } = whole {
            prop_assert_eq!(consumed, head.len());
            for end in 0..consumed {
                prop_assert_eq!(parse(&bytes[..end], &Limits::default()), Outcome::Partial);
            }
            for end in consumed..bytes.len() {
                let at_end = parse(&bytes[..end], &Limits::default());
                let Outcome::Complete { head: got, consumed: n } = at_end else {
                    return Err(TestCaseError::fail("more bytes undid a complete head"));
                };
                prop_assert_eq!(n, consumed);
                let again = parse(&bytes[..consumed], &Limits::default());
                prop_assert_eq!(again, Outcome::Complete { head: got, consumed: n });
            }
        } else {
            prop_assert!(matches!(whole, Outcome::Reject(_)));
        }
    }
}
