use super::super::{Init, LogFormat, ProxyVersion, Source};
use super::*;

const MINIMAL: &str = r#"
[listeners.web]
listen = "127.0.0.1:8443"
to = "web"

[pools.web]
servers = [{ address = "192.0.2.1:443" }]
"#;

fn problems(text: &str) -> String {
    parse("p.toml", text)
        .expect_err("it should be refused")
        .to_string()
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let config = parse("p.toml", MINIMAL).unwrap();
    let listener = &config.listeners["web"];
    assert_eq!(
        listener,
        &Listener {
            listen: vec!["127.0.0.1:8443".parse().unwrap()],
            to: Some("web".to_owned()),
            ..Listener::default()
        }
    );
    assert_eq!(
        config.pools["web"],
        Pool {
            servers: vec![Server {
                name: "192.0.2.1:443".to_owned(),
                address: "192.0.2.1:443".parse().unwrap(),
                weight: 1,
                backup: false,
                max_connections: 0,
                init: Init::Now,
            }],
            ..Pool::default()
        }
    );
}

#[test]
fn every_key_is_read() {
    let config = parse(
        "p.toml",
        r#"
workers = 2
max_connections = 10000
drain = "10s"
admin = "unix:/run/zhaul.sock"
metrics = "127.0.0.1:9100"
log = { path = "-", format = "json" }

[listeners.tls]
listen = ["127.0.0.1:443", "[::1]:443", "unix:/run/tls.sock"]
backlog = 100
to = "a"
hello_timeout = "2s"
hello_wait = "300ms"
allow = ["10.0.0.0/8", "192.0.2.7", "unix"]
deny = ["10.1.2.3/16"]
max_connections = 5
max_connections_per_source = 2
accept_rate = 100
bandwidth = "10MB/s"
proxy_from = ["10.0.0.1"]
keepalive = { idle = "30s", interval = "5s", count = 2 }
user_timeout = "20s"
fast_open = 16
reuse_port = true
transparent = true

[[listeners.tls.routes]]
sni = ["A.Example.com.", "*.example.org"]
alpn = "h2"
to = "b"

[pools.a]
balance = "least-connections"
servers = [
  { name = "one", address = "db.example.com:5432", weight = 3, max_connections = 7 },
  { name = "two", address = "unix:/run/db.sock", backup = true },
  { name = "three", address = "new.example.com:5432", init = "later" },
]
retries = 1
queue = 10
queue_timeout = "1s"
when_down = "queue"
connect_timeout = "500ms"
idle_timeout = "1h 30m"
fin_timeout = "5s"
session_timeout = "1day"
send_proxy = "v2"
source = "192.0.2.9"
keepalive = false
user_timeout = "9s"
fast_open = true
check = { kind = "exchange", send = "PING\r\n", expect = "+PONG", interval = "1s", timeout = "100ms", rise = 1, fall = 2 }
passive = { failures = 1, out_for = "3s" }
slow_start = "30s"
resolve_every = "5s"

[pools.b]
servers = [{ address = "[2001:db8::1]:443" }]
source = "client"
passive = false
check = { sni = "b.example.com" }
"#,
    )
    .unwrap();
    assert_eq!((config.workers, config.max_connections), (2, 10_000));
    assert_eq!(config.admin, "unix:/run/zhaul.sock".parse().ok());
    let expected = Some(Log {
        path: None,
        format: LogFormat::Json,
    });
    assert_eq!(config.log, expected);
    let tls = &config.listeners["tls"];
    assert_eq!(tls.listen.len(), 3);
    assert_eq!(tls.bandwidth, 10_000_000);
    assert_eq!(tls.deny[0].to_string(), "10.1.0.0/16");
    assert_eq!(tls.allow[1].to_string(), "192.0.2.7/32");
    assert_eq!(tls.routes[0].sni, ["a.example.com", "*.example.org"]);
    assert_eq!(tls.routes[0].alpn, ["h2"]);
    assert_eq!(tls.keepalive.unwrap().count, 2);
    let a = &config.pools["a"];
    assert_eq!(a.balance, Balance::LeastConnections);
    assert_eq!(a.idle_timeout, Duration::from_secs(5400));
    assert_eq!((a.keepalive, a.send_proxy), (None, Some(ProxyVersion::V2)));
    assert_eq!(a.source, Source::Address("192.0.2.9".parse().unwrap()));
    assert_eq!(a.when_full.queue, 10);
    assert_eq!(a.check.as_ref().unwrap().fall, 2);
    assert_eq!(a.servers[1].name, "two");
    assert_eq!(
        (a.servers[0].init, a.servers[2].init),
        (Init::Now, Init::Later)
    );
    let check = config.pools["b"].check.as_ref().unwrap();
    let sni = Some("b.example.com".to_owned());
    assert_eq!(check.kind, CheckKind::Tls { sni });
    let mapped = MINIMAL.replace("[pools.web]", "[pools.web]\nsource = \"::ffff:192.0.2.9\"");
    let mapped = parse("p.toml", &mapped).unwrap();
    assert_eq!(mapped.pools["web"].source, a.source);
    assert_eq!(tls.hello_wait, Duration::from_millis(300));
    assert_eq!(config.pools["b"].source, Source::Client);
    assert_eq!(config.pools["b"].passive, None);
}

#[test]
fn mistakes_name_file_line_and_key() {
    for (from, to, expected) in [
        (
            "to = \"web\"",
            "to = \"wbe\"",
            "p.toml:4: listeners.web.to: there is no pool \"wbe\"",
        ),
        (
            "to = \"web\"",
            "too = \"web\"",
            "p.toml:4: listeners.web.too: unknown field `too`",
        ),
        (
            "192.0.2.1:443",
            "192.0.2.1",
            "p.toml:7: pools.web.servers[0].address:",
        ),
        (
            "to = \"web\"",
            "to = \"web\"\nbandwidth = \"fast\"",
            "p.toml:5: listeners.web.bandwidth:",
        ),
        (
            "to = \"web\"",
            "to = \"web\"\nhello_timeout = 5",
            "p.toml:5: listeners.web.hello_timeout:",
        ),
        (
            "to = \"web\"",
            "to = \"web\"\nallow = [\"10.0.0.0/40\"]",
            "p.toml:5: listeners.web.allow[0]:",
        ),
        (
            "to = \"web\"",
            "to = \"web\"\ndeny = [\"unix:/run/x\"]",
            "p.toml:5: listeners.web.deny[0]:",
        ),
        (
            "192.0.2.1:443\"",
            "192.0.2.1:443\", init = \"never\"",
            "p.toml:7: pools.web.servers[0].init: unknown value",
        ),
        (
            "[pools.web]",
            "[pools.web]\ncheck = { kind = \"connect\", sni = \"a.example\" }",
            "p.toml:7: pools.web.check.sni: it belongs to",
        ),
        (
            "[pools.web]",
            "[pools.web]\ncheck = { sni = \"https://a.example\" }",
            "p.toml:7: pools.web.check.sni: \"https://a.example\" is not a host name",
        ),
        (
            "to = \"web\"",
            "to = \"web\"\nproxy_from = []",
            "p.toml:5: listeners.web.proxy_from: nobody",
        ),
        ("to = \"web\"", "to = \"web\"\nto = \"web\"", "p.toml:5:"),
        (
            "to = \"web\"",
            "",
            "p.toml:3: listeners.web.to: connections have nowhere to go",
        ),
        (
            "[pools.web]",
            "[pools.web]\nbalance = \"fair\"",
            "p.toml:7: pools.web.balance: unknown value",
        ),
        (
            "[pools.web]",
            "[pools.web]\nconnect_timeout = \"0s\"",
            "p.toml:7: pools.web.connect_timeout:",
        ),
        (
            "[pools.web]",
            "[pools.web]\ncheck = { rise = 0 }",
            "p.toml:7: pools.web.check.rise:",
        ),
        (
            "[pools.web]",
            "[pools.web]\ncheck = { send = \"x\" }",
            "p.toml:7: pools.web.check.expect:",
        ),
        (
            "[pools.web]",
            "admin = 3\n[pools.web]",
            "p.toml:6: listeners.web.admin: unknown field",
        ),
    ] {
        let text = MINIMAL.replace(from, to);
        let problems = problems(&text);
        assert!(
            problems.contains(expected),
            "{to}:\n{problems}\nlacks\n{expected}"
        );
    }
}

#[test]
fn servers_of_the_same_name_are_refused() {
    let text = MINIMAL.replace(
        "{ address = \"192.0.2.1:443\" }",
        "{ name = \"a\", address = \"192.0.2.1:443\" },\n  { name = \"a\", address = \"192.0.2.2:443\" }",
    );
    let problems = problems(&text);
    assert!(
        problems.contains("p.toml:8: pools.web.servers[1].name: there are two"),
        "{problems}"
    );
}

#[test]
fn all_wrong_references_are_reported_together() {
    let text = MINIMAL.replace(
        "to = \"web\"",
        "to = \"one\"\nroutes = [{ sni = \"*\", to = \"two\" }]",
    );
    let problems = problems(&text);
    assert_eq!(problems.lines().count(), 3, "{problems}");
}

#[test]
fn every_mistake_is_reported_in_one_go_with_its_line() {
    let text = r#"worker = 3
drain = 5
[listeners.l]
listen = ["127.0.0.1:80", "nowhere", "127.0.0.1:80"]
to = "nowhere"
alow = ["10.0.0.0/8"]
deny = ["10.0.0.0/40", "10.0.0.0/8", 7]
routes = [{ sni = ["example.com:443", "a.example", "b..c"], alpn = "", to = "p" }]
[pools.p]
servers = [{ address = "192.0.2.1" }, { adress = "192.0.2.1:1" }, 5]
conect_timeout = "5s"
retries = "two"
idle_timeout = "5 parsecs"
balance = "fair"
backlog = -1
keepalive = { idle = true, cnt = 3 }
passive = "yes"
check = { kind = "ping", rise = 0 }
"#;
    let said = problems(text);
    let expected = [
        "1: worker: unknown field `worker` (did you mean `workers`?)",
        "2: drain: expected a length of time (\"500ms\", \"5s\", \"1h\"), found the number 5",
        "4: listeners.l.listen[1]: \"nowhere\" has no port",
        "4: listeners.l.listen[2]: 127.0.0.1:80 is in listeners.l.listen[0] already",
        "5: listeners.l.to: there is no pool \"nowhere\"",
        "6: listeners.l.alow: unknown field `alow` (did you mean `allow`?)",
        "7: listeners.l.deny[0]: \"10.0.0.0/40\" is no network",
        "7: listeners.l.deny[2]: expected a string, found the number 7",
        "8: listeners.l.routes[0].sni[0]: \"example.com:443\" is no name",
        "8: listeners.l.routes[0].sni[2]: \"b..c\" is no name",
        "8: listeners.l.routes[0].alpn: the name of a protocol",
        "10: pools.p.servers[0].address: \"192.0.2.1\" has no port",
        "10: pools.p.servers[1].address: missing field `address`",
        "10: pools.p.servers[1].adress: unknown field `adress`",
        "10: pools.p.servers[2]: expected a table, found the number 5",
        "11: pools.p.conect_timeout: unknown field",
        "12: pools.p.retries: expected a whole number, found the string \"two\"",
        "13: pools.p.idle_timeout: \"5 parsecs\" is no length of time",
        "14: pools.p.balance: unknown value \"fair\"",
        "15: pools.p.backlog: unknown field `backlog`",
        "16: pools.p.keepalive.idle: expected a length of time",
        "16: pools.p.keepalive.cnt: unknown field `cnt`",
        "17: pools.p.passive: expected false, or a table",
        "18: pools.p.check.kind: unknown value \"ping\"",
        "18: pools.p.check.rise: it must be at least 1",
    ];
    for line in expected {
        let line = format!("p.toml:{line}");
        assert!(said.contains(&line), "{said}\nlacks\n{line}");
    }
    assert_eq!(said.lines().count(), expected.len(), "{said}");
}

#[test]
fn what_is_no_toml_is_reported_alone_and_what_is_there_twice_is_not() {
    let text = MINIMAL.replace("to = \"web\"", "to = \"web\"\nto = \"web\"\ntoo = 1");
    let said = problems(&text);
    assert!(said.contains("p.toml:5: duplicate key"), "{said}");
    assert!(said.contains("p.toml:6: listeners.web.too"), "{said}");
    let said = problems("[listeners.l\nlisten = \n[pools.p]\nservers = [\n");
    assert!(said.lines().count() >= 2, "{said}");
    assert!(!said.contains("listeners.l.to"), "{said}");
}

#[test]
fn an_address_that_is_named_twice_is_named_with_both_places() {
    let twice = MINIMAL.replace(
        "[pools.web]",
        "[listeners.copy]\nlisten = [\"127.0.0.1:8443\"]\nto = \"web\"\n[pools.web]",
    );
    for (text, line) in [
        (
            twice,
            "p.toml:7: listeners.copy.listen[0]: 127.0.0.1:8443 is in listeners.web.listen already",
        ),
        (
            format!("metrics = \"127.0.0.1:8443\"{MINIMAL}"),
            "p.toml:3: listeners.web.listen: 127.0.0.1:8443 is in metrics already",
        ),
        (
            format!("admin = \"unix:/a\"\nmetrics = \"unix:/a\"{MINIMAL}"),
            "p.toml:2: metrics: unix:/a is in admin already",
        ),
    ] {
        let said = problems(&text);
        assert!(said.contains(line), "{said}\nlacks\n{line}");
    }
}

#[test]
fn an_empty_file_says_what_to_write() {
    assert!(problems("").contains("write [listeners.NAME]"));
}

/// Something of everything that a file can have.
const PIECES: &[&str] = &[
    "[listeners.l]\n",
    "[pools.p]\n",
    "[[listeners.l.routes]]\n",
    "listen",
    "to",
    "sni",
    "servers",
    "check",
    "passive",
    "keepalive",
    "weight",
    "address",
    " = ",
    "\"127.0.0.1:1\"",
    "\"unix:@a\"",
    "\"p\"",
    "\"5s\"",
    "\"\"",
    "{ ",
    " }",
    "[",
    "]",
    ", ",
    "\n",
    "-1",
    "0xffffffffffffffffffff",
    "1e999",
    "false",
    "1979-05-27",
    "\"\"\"",
    "#",
    "\u{fc}",
];

proptest::proptest! {
    #[test]
    fn nothing_makes_it_panic_and_what_is_wrong_is_said(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40),
        noise in ".{0,8}",
        at in 0..41_usize,
    ) {
        let mut text: Vec<&str> = pieces;
        text.insert(at.min(text.len()), &noise);
        if let Err(problems) = parse("p.toml", &text.concat()) {
            proptest::prop_assert!(!problems.list.is_empty());
        }
    }
}
