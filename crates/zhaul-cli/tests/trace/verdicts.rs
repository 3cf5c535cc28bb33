//! What is said of programs whose ways are known.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Files, Report, Server, Trace, fetch, free_port, is_root, require, serve, skip, trace_command,
    trace_command_once,
};

const SIZE: usize = 16 << 20;
const BYTES: u64 = SIZE as u64;

#[test]
fn dd_copies_twice() {
    require!("dd_copies_twice", "dd");
    let files = Files::new();
    let (source, sink) = (files.with("source", SIZE), files.path("sink"));
    let (status, report) = trace_command(dd(&source, &sink, ""));
    assert!(status.success());
    assert_eq!(report.lost(), 0);
    let flow = report.flow("file", "file", &["read", "write"]);
    flow.assert(
        BYTES,
        2,
        &format!(
            "file → file: 2.00 CPU copies per byte (read, write); copy_file_range would make it 1{}",
            or_shared(&sink, ", or 0 where the file system can share blocks")
        ),
    );
    assert_eq!(flow.names("sources"), [source.to_str().unwrap()]);
    assert_eq!(flow.names("sinks"), [sink.to_str().unwrap()]);
    assert_eq!(fs::read(source).unwrap(), fs::read(sink).unwrap());
}

#[test]
fn direct_io_copies_only_at_its_buffered_end() {
    const NAME: &str = "direct_io_copies_only_at_its_buffered_end";
    require!(NAME, "dd");
    let files = Files::new();
    let (source, sink) = (files.with("source", SIZE), files.path("sink"));
    let (status, report) = trace_command(dd(&source, &sink, "oflag=direct"));
    if !status.success() || report.bytes("file", "direct_file") == 0 {
        skip!(NAME, "the file system has no direct I/O");
    }
    report
        .flow("file", "direct_file", &["read", "write"])
        .assert(
            BYTES,
            1,
            "file → file (O_DIRECT): 1.00 CPU copies per byte (read, write)",
        );
}

#[test]
fn dev_null_copies_nothing() {
    require!("dev_null_copies_nothing", "dd");
    let files = Files::new();
    let source = files.with("source", SIZE);
    let (_, report) = trace_command(dd(&source, Path::new("/dev/null"), ""));
    report.flow("file", "null", &["read", "write"]).assert(
        BYTES,
        1,
        "file → /dev/null: 1.00 CPU copies per byte (read, write); sendfile would make it 0 \
         if the program does not change them",
    );
}

/// What is said besides where blocks can be shared: on btrfs, XFS and bcachefs.
fn or_shared<'a>(path: &Path, said: &'a str) -> &'a str {
    let system = rustix::fs::statfs(path).unwrap().f_type as u64;
    let shares = [0x9123_683e, 0x5846_5342, 0xca45_1a4e].contains(&system);
    if shares { said } else { "" }
}

fn dd(source: &Path, sink: &Path, more: &str) -> Vec<String> {
    let mut words = vec![
        "dd".to_owned(),
        "bs=64k".to_owned(),
        "status=none".to_owned(),
        format!("if={}", source.display()),
        format!("of={}", sink.display()),
    ];
    words.extend((!more.is_empty()).then(|| more.to_owned()));
    words
}

#[test]
fn cp_leaves_the_copy_to_the_kernel() {
    const NAME: &str = "cp_leaves_the_copy_to_the_kernel";
    require!(NAME, "cp");
    let files = Files::new();
    let (source, sink) = (files.with("source", SIZE), files.path("sink"));
    let (status, report) =
        trace_command([Path::new("cp"), Path::new("--reflink=auto"), &source, &sink]);
    assert!(status.success());
    let calls = report.0["calls"].as_array().unwrap();
    if !calls.iter().any(|call| call["name"] == "copy_file_range") {
        skip!(NAME, "this cp does not know copy_file_range");
    }
    let flow = report.flow("file", "file", &["copy_file_range"]);
    assert_eq!(flow.bytes(), BYTES);
    // On a file system that shares blocks there is none.
    if flow.copied() > 0 {
        flow.assert(
            BYTES,
            1,
            "file → file: 1.00 CPU copies per byte (copy_file_range)",
        );
    }
}

#[test]
fn what_changes_bytes_is_told_nothing_of_copying_them() {
    require!(
        "what_changes_bytes_is_told_nothing_of_copying_them",
        "sh",
        "tr"
    );
    let files = Files::new();
    let (source, sink) = (files.with("source", SIZE), files.path("sink"));
    let script = format!(
        "tr '\\000-\\177' '\\200-\\377' < {} > {}",
        source.display(),
        sink.display()
    );
    let (status, report) = trace_command(["sh", "-c", &script]);
    assert!(status.success());
    let flows = report.0["flows"].as_array().unwrap();
    for flow in flows.iter().filter(|flow| flow["sink"] == "file") {
        assert!(flow["advice"].is_null(), "{flow:#}");
        assert_ne!(flow["unchanged"], true, "{flow:#}");
    }
}

#[test]
fn what_failed_before_their_eyes_is_not_advised() {
    const NAME: &str = "what_failed_before_their_eyes_is_not_advised";
    require!(NAME, "cp");
    let files = Files::new();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        skip!(NAME, "no /dev/shm");
    };
    let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
    if device(elsewhere.path()) == device(&files.path("")) {
        skip!(
            NAME,
            "/dev/shm and the temporary directory are one file system"
        );
    }
    let (source, sink) = (files.with("source", SIZE), elsewhere.path().join("sink"));
    let (status, report) = trace_command([Path::new("cp"), &source, &sink]);
    assert!(status.success());
    let flows = report.0["flows"].as_array().unwrap();
    let copied = flows
        .iter()
        .filter(|flow| flow["source"] == "file" && flow["sink"] == "file");
    let mut bytes = 0;
    for flow in copied {
        bytes += flow["bytes"].as_u64().unwrap();
        let advice = flow["advice"].as_str().unwrap_or_default();
        assert!(!advice.contains("copy_file_range"), "{flow:#}");
        assert!(!advice.contains("reflink"), "{flow:#}");
    }
    assert_eq!(bytes, BYTES, "{:#}", report.0);
}

#[test]
fn a_file_that_was_never_written_is_never_named_as_a_sink() {
    const NAME: &str = "a_file_that_was_never_written_is_never_named_as_a_sink";
    require!(NAME, "sh", "cat");
    let files = Files::new();
    let (source, sink) = (files.with("source", 1 << 20), files.path("sink"));
    // The shell's descriptor 3 becomes 1, and then the loader's for its libraries.
    let script = format!("exec cat < {} > {}", source.display(), sink.display());
    for _ in 0..10 {
        let (_, report) = trace_command_once(&["sh", "-c", &script]);
        for flow in report.0["flows"].as_array().unwrap() {
            let names = flow["sinks"].as_array().unwrap();
            let is_right = |name: &serde_json::Value| name == sink.to_str().unwrap();
            assert!(names.iter().all(is_right), "{flow:#}");
        }
    }
}

#[test]
fn a_pipeline_is_two_flows() {
    require!("a_pipeline_is_two_flows", "sh", "cat");
    let files = Files::new();
    let (source, sink) = (files.with("source", SIZE), files.path("sink"));
    let script = format!("cat {} | cat > {}", source.display(), sink.display());
    let (status, report) = trace_command(["sh", "-c", &script]);
    assert!(status.success());
    assert_eq!(report.0["processes"], 3);
    report.flow("file", "pipe", &["read", "write"]).assert(
        BYTES,
        2,
        "file → pipe: 2.00 CPU copies per byte (read, write); splice would make it 0 \
         if the program does not change them",
    );
    report.flow("pipe", "file", &["read", "write"]).assert(
        BYTES,
        2,
        "pipe → file: 2.00 CPU copies per byte (read, write); splice would make it 1 \
         if the program does not change them",
    );
}

#[test]
fn nginx_with_sendfile_copies_nothing() {
    require!("nginx_with_sendfile_copies_nothing", "nginx");
    let report = nginx("on");
    report.flow("file", "tcp", &["sendfile"]).assert(
        BYTES,
        0,
        "file → socket: 0 CPU copies per byte (sendfile)",
    );
    assert!(
        report.0["net"]
            .as_array()
            .unwrap()
            .iter()
            .any(|d| d["name"] == "lo")
    );
}

#[test]
fn nginx_without_sendfile_copies_twice() {
    require!("nginx_without_sendfile_copies_twice", "nginx");
    let report = nginx("off");
    report.flow("file", "tcp", &["pread64", "writev"]).assert(
        BYTES,
        2,
        "file → socket: 2.00 CPU copies per byte (pread64, writev); sendfile would make it 0 \
         if the program does not change them",
    );
    assert_eq!(report.call("pread64")["bytes"], BYTES);
}

/// nginx sends one file to one client.
fn nginx(sendfile: &str) -> Report {
    let files = Files::new();
    let file = files.with("www/large", SIZE);
    let port = free_port();
    let dir = files.path("");
    let user = if is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; worker_processes 1; {user} pid {0}/pid; error_log {0}/error.log;
         events {{ worker_connections 64; }}
         http {{
             access_log off; sendfile {sendfile};
             client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;
             fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
             server {{ listen 127.0.0.1:{port}; root {0}/www; }}
         }}",
        dir.display()
    );
    fs::write(files.path("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(&dir)
        .arg("-c")
        .arg(files.path("nginx.conf"));
    let server = Server::start(&mut command, port);
    // The master and its worker.
    attached(server.pid(), || fetch(port, "/large", &file))
}

/// A trace of a process that does some work meanwhile; see [`trace_command`] for why it may take
/// several.
fn attached(pid: u32, work: impl Fn()) -> Report {
    for _ in 0..20 {
        let trace = Trace::attach(pid, &["--json"]);
        work();
        let report = trace.report();
        assert_eq!(report.lost(), 0);
        if !report.has_guesses() {
            return report;
        }
    }
    panic!("what was opened was never seen");
}

#[test]
fn haproxy_without_splice_copies_twice() {
    require!("haproxy_without_splice_copies_twice", "haproxy");
    let (report, passed) = haproxy("");
    let flow = report.flow("tcp", "tcp", &["recvfrom", "sendto"]);
    // The request and the answer, both ways.
    flow.assert(
        passed,
        2,
        "socket → socket: 2.00 CPU copies per byte (recvfrom, sendto); splice would make it 0 \
         if the program does not change them",
    );
}

#[test]
fn haproxy_with_splice_copies_nothing() {
    require!("haproxy_with_splice_copies_nothing", "haproxy");
    let (report, passed) = haproxy("option splice-auto\n option splice-response");
    let spliced = report.flow("tcp", "tcp", &["splice"]);
    assert_eq!(
        spliced.verdict(),
        "socket → socket: 0 CPU copies per byte (splice)"
    );
    assert_eq!(spliced.copied(), 0);
    // It looks at the beginning of a stream before it lets go of it.
    assert!(spliced.bytes() > BYTES / 10 * 9, "{:#}", report.0);
    assert_eq!(report.bytes("tcp", "tcp"), passed, "{:#}", report.0);
}

/// HAProxy forwards one connection to `zhaul serve`, of which so many bytes passed.
fn haproxy(options: &str) -> (Report, u64) {
    let files = Files::new();
    let file = files.with("www/large", SIZE);
    let origin = serve(&files.path("www"), &[]);
    let port = free_port();
    let config = format!(
        "global\n maxconn 64\n nbthread 1\ndefaults\n mode tcp\n {options}\n timeout connect 10s\n \
         timeout client 30s\n timeout server 30s\nfrontend f\n bind 127.0.0.1:{port}\n \
         default_backend b\nbackend b\n server s 127.0.0.1:{}\n",
        origin.port
    );
    fs::write(files.path("haproxy.cfg"), config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(files.path("haproxy.cfg"));
    let server = Server::start(&mut command, port);
    let report = attached(server.pid(), || fetch(port, "/large", &file));
    let into = |name: &str| {
        let calls = report.0["calls"].as_array().unwrap();
        let call = calls.iter().find(|call| call["name"] == name);
        call.map_or(0, |call| call["bytes"].as_u64().unwrap())
    };
    // Each spliced byte went into the pipe and out of it.
    let passed = into("recvfrom") + into("splice") / 2;
    assert!(passed > BYTES, "{:#}", report.0);
    (report, passed)
}

#[test]
fn zhaul_serve_copies_nothing() {
    require!("zhaul_serve_copies_nothing");
    let report = zhaul_serve(&[]);
    report.flow("file", "tcp", &["sendfile"]).assert(
        BYTES,
        0,
        "file → socket: 0 CPU copies per byte (sendfile)",
    );
}

#[test]
fn zhaul_serve_told_to_copy_copies_twice() {
    require!("zhaul_serve_told_to_copy_copies_twice");
    let report = zhaul_serve(&["--stability", "copy"]);
    let copied: u64 = report.0["flows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|flow| flow["source"] == "file" && flow["sink"] == "tcp")
        .map(|flow| {
            assert!(
                flow["verdict"]
                    .as_str()
                    .unwrap()
                    .starts_with("file → socket: 2.00")
            );
            assert_eq!(flow["inferred_bytes"], 0);
            flow["bytes"].as_u64().unwrap()
        })
        .sum();
    assert_eq!(copied, BYTES, "{:#}", report.0);
}

fn zhaul_serve(arguments: &[&str]) -> Report {
    let files = Files::new();
    let file = files.with("large", SIZE);
    let server = serve(&files.path(""), arguments);
    attached(server.pid(), || fetch(server.port, "/large", &file))
}

#[test]
fn curl_takes_from_the_socket_and_writes_a_file() {
    require!("curl_takes_from_the_socket_and_writes_a_file", "curl");
    let files = Files::new();
    let file = files.with("www/large", SIZE);
    let server = serve(&files.path("www"), &[]);
    let sink = files.path("sink");
    let url = format!("http://127.0.0.1:{}/large", server.port);
    let (status, report) = trace_command(["curl", "-s", "-o", sink.to_str().unwrap(), &url]);
    assert!(status.success());
    assert_eq!(fs::read(&file).unwrap(), fs::read(&sink).unwrap());
    // What the C library gathers in a buffer of its own comes from there.
    let joined = report.bytes("tcp", "file");
    assert_eq!(
        joined + report.bytes("program", "file"),
        BYTES,
        "{:#}",
        report.0
    );
    assert!(joined > BYTES / 2, "{:#}", report.0);
    let flow = report.flow("tcp", "file", &["recvfrom", "write"]);
    assert!(
        flow.verdict()
            .starts_with("socket → file: 2.00 CPU copies per byte (recvfrom, write)"),
        "{}",
        flow.verdict()
    );
    if report.is_by_call() {
        assert_eq!(flow.copied(), 2 * flow.bytes());
    }
}
