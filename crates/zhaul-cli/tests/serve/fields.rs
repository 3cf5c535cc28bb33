//! What the operator adds: media types, caching rules, header fields, CORS, pages.

use crate::support::{Files, Server, pattern};

#[test]
fn media_types_follow_extension_and_overrides() {
    let files = Files::with(&[
        ("a.html", b""),
        ("a.css", b""),
        ("a.js", b""),
        ("a.mjs", b""),
        ("a.json", b""),
        ("a.svg", b""),
        ("a.png", b""),
        ("a.wasm", b""),
        ("a.mp4", b""),
        ("a.woff2", b""),
        ("a.tar.gz", b""),
        ("A.HTML", b""),
        ("noextension", b""),
        ("a.log", b""),
        ("a.x-own", b""),
    ]);
    let server = Server::of(
        files.root(),
        &[
            "--mime",
            "log=text/x-log",
            "--mime",
            ".x-own=application/x-own",
        ],
    );
    let mut client = server.connect();
    for (target, expected) in [
        ("/a.html", "text/html"),
        ("/a.css", "text/css"),
        ("/a.js", "text/javascript"),
        ("/a.mjs", "text/javascript"),
        ("/a.json", "application/json"),
        ("/a.svg", "image/svg+xml"),
        ("/a.png", "image/png"),
        ("/a.wasm", "application/wasm"),
        ("/a.mp4", "video/mp4"),
        ("/a.woff2", "font/woff2"),
        ("/a.tar.gz", "application/gzip"),
        ("/A.HTML", "text/html"),
        ("/noextension", "application/octet-stream"),
        ("/a.log", "text/x-log"),
        ("/a.x-own", "application/x-own"),
    ] {
        let answer = client.get(target);
        assert_eq!(answer.field("Content-Type"), Some(expected), "{target}");
    }
}

#[test]
fn a_charset_is_declared_where_it_is_known_or_the_operator_says_so() {
    let utf8 = "<p>Grüße</p>\n".repeat(8000);
    let latin = b"<meta charset=iso-8859-1><p>Gr\xfc\xdfe</p>\n".repeat(2000);
    let files = Files::with(&[
        ("small.html", "Grüße".as_bytes()),
        ("small.html.gz", b"compressed"),
        ("large.html", utf8.as_bytes()),
        ("ascii.html", b"plain"),
        ("latin.html", b"Gr\xfc\xdfe"),
        ("large-latin.html", &latin),
        ("a.json", "\"ü\"".as_bytes()),
        ("own.txt", "ü".as_bytes()),
    ]);
    let types = |arguments: &[&str]| {
        let server = Server::of(files.root(), arguments);
        let mut client = server.connect();
        let names =
            ["small", "large", "ascii", "latin", "large-latin"].map(|n| n.to_owned() + ".html");
        let mut types = names
            .map(|name| {
                let answer = client.get(&format!("/{name}"));
                answer.field("Content-Type").unwrap().to_owned()
            })
            .to_vec();
        let fields = [("Accept-Encoding", "gzip")];
        for target in ["/small.html", "/a.json", "/own.txt"] {
            let answer = client.get_with(target, &fields);
            types.push(answer.field("Content-Type").unwrap().to_owned());
        }
        types
    };
    let (html, utf8) = ("text/html", "text/html; charset=utf-8");
    let json = "application/json";
    let own = ["--mime", "txt=text/plain; charset=koi8-r"];
    assert_eq!(
        types(&own),
        [
            utf8,
            utf8,
            html,
            html,
            html,
            utf8,
            json,
            "text/plain; charset=koi8-r"
        ]
    );
    assert_eq!(
        types(&["--charset", "none"]),
        [html, html, html, html, html, html, json, "text/plain"]
    );
    assert_eq!(
        types(&["--charset", "utf-8"]),
        [
            utf8,
            utf8,
            utf8,
            utf8,
            utf8,
            utf8,
            json,
            "text/plain; charset=utf-8"
        ]
    );
}

#[test]
fn what_is_compressed_by_nature_says_so() {
    let files = Files::with(&[("a.svgz", b"\x1f\x8b compressed"), ("a.svgz.br", b"twice")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    for fields in [&[][..], &[("Accept-Encoding", "br, gzip")]] {
        let answer = client.get_with("/a.svgz", fields);
        answer
            .assert_status(200)
            .assert_body(b"\x1f\x8b compressed");
        assert_eq!(answer.field("Content-Type"), Some("image/svg+xml"));
        assert_eq!(answer.field("Content-Encoding"), Some("gzip"));
        assert_eq!(answer.field("Vary"), None);
    }
}

#[test]
fn the_first_cache_rule_that_matches_wins() {
    let files = Files::with(&[
        ("assets/deep/app.js", b""),
        ("assets/app.css", b""),
        ("index.html", b""),
        ("sub/page.html", b""),
        ("other", b""),
    ]);
    let server = Server::of(
        files.root(),
        &[
            "--cache-control",
            "assets/**=public, max-age=31536000, immutable",
            "--cache-control",
            "/*.html=no-cache",
            "--cache-control",
            "*.html=max-age=60",
            "--cache-control",
            "*.js=no-store",
        ],
    );
    let mut client = server.connect();
    for (target, expected) in [
        (
            "/assets/deep/app.js",
            Some("public, max-age=31536000, immutable"),
        ),
        (
            "/assets/app.css",
            Some("public, max-age=31536000, immutable"),
        ),
        ("/index.html", Some("no-cache")),
        ("/", Some("no-cache")),
        ("/sub/page.html", Some("max-age=60")),
        ("/other", None),
    ] {
        assert_eq!(
            client.get(target).field("Cache-Control"),
            expected,
            "{target}"
        );
    }
}

#[test]
fn extra_headers_are_on_every_kind_of_answer() {
    let files = Files::with(&[
        ("small", b"1"),
        ("large", &pattern(100_000)),
        ("dir/x", b""),
    ]);
    let server = Server::of(
        files.root(),
        &[
            "--header",
            "X-Frame-Options: DENY",
            "--header",
            "X-Two:  b ",
        ],
    );
    let mut client = server.connect();
    let etag = client.get("/small").etag().to_owned();
    let mut check = |status: u16, method: &str, target: &str, fields: &[(&str, &str)]| {
        let answer = client.request(method, target, fields);
        answer.assert_status(status);
        assert_eq!(
            answer.field("X-Frame-Options"),
            Some("DENY"),
            "{method} {target} {fields:?}"
        );
        assert_eq!(answer.field("X-Two"), Some("b"));
    };
    check(200, "GET", "/small", &[]);
    check(200, "HEAD", "/small", &[]);
    check(200, "GET", "/large", &[]);
    check(206, "GET", "/small", &[("Range", "bytes=0-0")]);
    check(206, "GET", "/large", &[("Range", "bytes=0-0,5-5")]);
    check(304, "GET", "/small", &[("If-None-Match", &etag)]);
    check(200, "GET", "/dir/", &[]);
    check(301, "GET", "/dir", &[]);
    check(404, "GET", "/missing", &[]);
    check(204, "OPTIONS", "/small", &[]);
}

#[test]
fn cors_for_everybody_is_the_same_answer_for_everybody() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &["--cors", "*"]);
    let mut client = server.connect();
    let origin = [("Origin", "https://app.example")];
    for fields in [&origin[..], &[]] {
        for target in ["/a", "/missing", "/"] {
            let answer = client.get_with(target, fields);
            assert_eq!(
                answer.field("Access-Control-Allow-Origin"),
                Some("*"),
                "{target}"
            );
            assert!(
                answer
                    .list("Access-Control-Expose-Headers")
                    .contains(&"content-range".to_owned())
            );
            assert!(!answer.list("Vary").contains(&"origin".to_owned()));
        }
    }
    let preflight = [
        origin[0],
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "range"),
    ];
    let answer = client.request("OPTIONS", "/a", &preflight);
    answer.assert_status(204);
    assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(answer.list("Access-Control-Allow-Methods"), ["get", "head"]);
    assert!(
        answer
            .list("Access-Control-Allow-Headers")
            .contains(&"range".to_owned())
    );
}

#[test]
fn a_preflight_permits_the_header_fields_that_are_configured() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(
        files.root(),
        &[
            "--cors",
            "https://a.example",
            "--cors-header",
            "X-Trace",
            "--cors-header",
            "X-Client",
        ],
    );
    let preflight = [
        ("Origin", "https://a.example"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "x-client,x-trace"),
    ];
    let answer = server.connect().request("OPTIONS", "/a", &preflight);
    let allowed = answer.list("Access-Control-Allow-Headers");
    for name in ["range", "x-trace", "x-client"] {
        assert!(allowed.contains(&name.to_owned()), "{allowed:?}");
    }
}

#[test]
fn cors_for_some_names_them_and_varies() {
    let large = pattern(100_000);
    let files = Files::with(&[("a", b"a"), ("large", &large)]);
    let listed = "https://app.example";
    let server = Server::of(
        files.root(),
        &["--cors", listed, "--cors", "http://localhost:3000"],
    );
    let mut client = server.connect();
    let preflight = ("Access-Control-Request-Method", "GET");
    for target in ["/a", "/large", "/missing", "/"] {
        for (origin, allowed) in [
            (Some(listed), Some(listed)),
            (Some("http://localhost:3000"), Some("http://localhost:3000")),
            (Some("https://app.example.evil"), None),
            (Some("http://app.example"), None),
            (Some("null"), None),
            (None, None),
        ] {
            let fields: Vec<_> = origin
                .map(|origin| ("Origin", origin))
                .into_iter()
                .collect();
            let answer = client.get_with(target, &fields);
            assert_eq!(
                answer.field("Access-Control-Allow-Origin"),
                allowed,
                "{target} {origin:?}"
            );
            assert!(
                answer.list("Vary").contains(&"origin".to_owned()),
                "{target} {origin:?}"
            );
            let fields: Vec<_> = fields.into_iter().chain([preflight]).collect();
            let answer = client.request("OPTIONS", target, &fields);
            answer.assert_status(204);
            assert_eq!(
                answer.field("Access-Control-Allow-Origin"),
                allowed,
                "{origin:?}"
            );
            assert_eq!(
                answer.field("Access-Control-Allow-Methods").is_some(),
                allowed.is_some()
            );
            assert!(
                answer.list("Vary").contains(&"origin".to_owned()),
                "{origin:?}"
            );
        }
    }
}

#[test]
fn without_cors_nothing_is_said_of_origins() {
    let files = Files::with(&[("a", b"a")]);
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let fields = [
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "GET"),
    ];
    for method in ["GET", "OPTIONS"] {
        let answer = client.request(method, "/a", &fields);
        assert!(!answer.head.contains("Access-Control"), "{}", answer.head);
        assert_eq!(answer.field("Vary"), None);
    }
}

#[test]
fn a_single_page_app_answers_for_paths_that_do_not_exist() {
    let files = Files::with(&[
        ("app.html", b"app"),
        ("app.html.gz", b"gz"),
        ("real.txt", b"real"),
        ("dir/x", b""),
        (".secret", b"secret"),
    ]);
    let server = Server::of(files.root(), &["--spa", "app.html", "--no-listing"]);
    let mut client = server.connect();
    let (name, token, path) = ("x".repeat(255), "t".repeat(300), "p/".repeat(2100));
    let long = [&name, &token, &path].map(|long| format!("/verify/{long}"));
    let targets = [
        "/some/route",
        "/x?y=z",
        "/dir/",
        "/real.txt/more",
        "/",
        "/a%2Fb",
        "/file%2f",
        &long[0],
        &long[1],
        &long[2],
    ];
    for target in targets {
        let answer = client.get(target);
        answer.assert_status(200).assert_body(b"app");
        assert_eq!(answer.field("Content-Type"), Some("text/html"));
    }
    client.get("/real.txt").assert_body(b"real");
    client
        .get_with("/route", &[("Accept-Encoding", "gzip")])
        .assert_body(b"gz");
    client
        .get_with("/route", &[("Range", "bytes=1-")])
        .assert_status(206)
        .assert_body(b"pp");
    client.get("/.secret").assert_status(404);
    client.get("/x%2F.secret").assert_status(404);
    client.get("/../x").assert_status(400);
    client.get("/..%2fx").assert_status(400);
    client
        .request("POST", "/some/route", &[("Content-Length", "0")])
        .assert_status(405);
    files.replace("app.html", "new app");
    client
        .get("/some/route")
        .assert_status(200)
        .assert_body(b"new app");
}

#[test]
fn error_pages_keep_their_status() {
    let large = pattern(200_000);
    let files = Files::with(&[
        ("errors/404.html", b"<h1>nothing here</h1>"),
        ("errors/range.txt", &large),
        ("a", b"a"),
    ]);
    let server = Server::of(
        files.root(),
        &[
            "--error-page",
            "404=errors/404.html",
            "--error-page",
            "416=/errors/range.txt",
            "--error-page",
            "405=errors/missing.html",
        ],
    );
    let mut client = server.connect();
    let answer = client.get("/missing");
    answer
        .assert_status(404)
        .assert_body(b"<h1>nothing here</h1>");
    assert_eq!(answer.field("Content-Type"), Some("text/html"));
    // Its validators belong to the page, not to what was asked for.
    assert_eq!(answer.field("ETag"), None);
    let conditional = client.get_with(
        "/missing",
        &[("If-None-Match", "*"), ("Range", "bytes=0-0")],
    );
    conditional
        .assert_status(404)
        .assert_body(b"<h1>nothing here</h1>");
    let head = client.request("HEAD", "/missing", &[]);
    head.assert_status(404);
    assert_eq!(head.announced_length(), Some(21));
    let answer = client.get_with("/a", &[("Range", "bytes=9-")]);
    answer.assert_status(416).assert_body(&large);
    assert_eq!(answer.field("Content-Range"), Some("bytes */1"));
    let answer = client.request("PUT", "/a", &[("Content-Length", "0")]);
    answer.assert_status(405);
    assert!(answer.field("Allow").is_some());
    assert!(!answer.body.is_empty());
    files.replace("errors/404.html", "other");
    client
        .get("/missing")
        .assert_status(404)
        .assert_body(b"other");
    client
        .get("/errors/404.html")
        .assert_status(200)
        .assert_body(b"other");
}

#[test]
fn built_in_errors_suit_whoever_asks() {
    let files = Files::new();
    let server = Server::of(files.root(), &[]);
    let mut client = server.connect();
    let page = client.get_with("/<script>", &[("Accept", "text/html")]);
    page.assert_status(404);
    assert_eq!(page.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(!page.body.windows(8).any(|window| window == b"<script>"));
    let plain = client.get_with("/missing", &[("Accept", "application/json")]);
    assert_eq!(
        plain.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    for answer in [page, plain] {
        assert_eq!(answer.list("Vary"), ["accept"]);
    }
}
