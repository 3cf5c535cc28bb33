//! Without `--run` the world stays as it was, whatever the ends are.

use std::fs;
use std::io::Seek;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Place, skip};

fn route(plan: &Value) -> &str {
    plan["plan"]["route"].as_str().unwrap()
}

#[test]
fn every_kind_of_source_is_planned() {
    let place = Place::new();
    place.file("file", 100_000);
    place.fifo("fifo");
    let _listener = UnixListener::bind(place.path("socket")).unwrap();
    for (source, kind, chosen) in [
        ("file", "regular", "sendfile"),
        ("fifo", "pipe", "splice"),
        ("/proc/self/status", "pseudo", "sendfile"),
        ("/dev/zero", "device", "sendfile"),
        ("unix:socket", "stream_socket", "splice"),
        ("tcp:127.0.0.1:9", "stream_socket", "splice"),
        ("-", "device", "sendfile"),
    ] {
        let plan = place.json([source, "null", "--stability", "immutable"]);
        assert_eq!(plan["source"]["kind"], kind, "{source}");
        assert_eq!(route(&plan), chosen, "{source}");
        assert!(plan["measured"].is_null());
    }
}

#[test]
fn every_kind_of_sink_is_planned() {
    let place = Place::new();
    place.file("file", 100_000);
    place.file("there", 3);
    place.fifo("fifo");
    let _listener = UnixListener::bind(place.path("socket")).unwrap();
    for (sink, kind, chosen) in [
        ("there", "regular", "copy_file_range"),
        ("new", "regular", "copy_file_range"),
        ("fifo", "pipe", "sendfile"),
        ("null", "null", "sendfile"),
        ("/dev/null", "null", "sendfile"),
        ("/dev/full", "device", "sendfile"),
        ("unix:socket", "stream_socket", "sendfile"),
        ("tcp:127.0.0.1:9", "stream_socket", "sendfile"),
        ("tcp:[::1]:9", "stream_socket", "sendfile"),
    ] {
        let arguments = ["file", sink, "--stability", "immutable", "--json"];
        let ended = place.explain(arguments).run();
        if sink.contains("::1") && ended.code != Some(0) {
            skip!("every_kind_of_sink_is_planned", "no IPv6 here");
        }
        let plan = ended.json();
        assert_eq!(plan["sink"]["kind"], kind, "{sink}");
        assert_eq!(route(&plan), chosen, "{sink}");
    }
}

#[test]
fn the_three_promises_lead_to_three_routes() {
    let place = Place::new();
    place.file("file", 100_000);
    for (promise, chosen, copies) in [
        ("immutable", "sendfile", 0),
        ("may-change", "read+write", 2),
        ("leased", "mmap+write", 1),
    ] {
        let plan = place.json(["file", "tcp:127.0.0.1:9", "--stability", promise]);
        assert_eq!(route(&plan), chosen, "{promise}");
        assert_eq!(plan["expected"]["cpu_copies_per_byte"], copies, "{promise}");
    }
    let default = place.json(["file", "tcp:127.0.0.1:9"]);
    assert_eq!(
        route(&default),
        "read+write",
        "files that may change are the default"
    );
}

#[test]
fn a_route_asked_for_is_the_one_explained() {
    let place = Place::new();
    place.file("file", 1 << 20);
    let arguments = ["file", "null", "--stability", "immutable", "--route"];
    for chosen in ["read+write", "splice", "sendfile"] {
        let plan = place.json(arguments.iter().copied().chain([chosen]));
        assert_eq!(route(&plan), chosen);
        assert_eq!(plan["plan"]["reason"], "asked");
        let passed_over = plan["plan"]["passed_over"].as_array().unwrap();
        assert!(
            passed_over
                .iter()
                .all(|other| other["reason"] == "not_asked")
        );
    }
}

#[test]
fn offset_length_and_chunk_are_taken_over() {
    let place = Place::new();
    place.file("file", 1_000_000);
    let plan = place.json([
        "file",
        "null",
        "--offset",
        "1000",
        "--length",
        "500K",
        "--chunk",
        "64K",
        "--stability",
        "immutable",
    ]);
    assert_eq!(plan["asked"]["offset"], 1000);
    assert_eq!(plan["asked"]["length"], 512_000);
    // From byte 1,000 to byte 513,000 in pieces that end at multiples of 65,536.
    assert_eq!(plan["expected"]["chunks"], 8);
    assert_eq!(plan["expected"]["calls"]["sendfile"], 8.0);
}

#[test]
fn an_empty_file_is_a_plan_to_move_nothing() {
    let place = Place::new();
    place.file("empty", 0);
    let plan = place.json(["empty", "out"]);
    assert_eq!(plan["expected"]["bytes"], 0);
    assert_eq!(plan["expected"]["chunks"], 0);
    let note = plan["notes"][0].as_str().unwrap();
    assert!(note.contains("empty") && note.contains("valid"), "{note}");
}

#[test]
fn no_sink_is_created_emptied_or_touched() {
    let place = Place::new();
    place.file("file", 1000);
    let content = place.file("there", 77);
    let before = fs::metadata(place.path("there")).unwrap();
    place.explain(["file", "new"]).run().succeeded();
    place.explain(["file", "there"]).run().succeeded();
    assert!(!place.path("new").exists());
    assert_eq!(place.read("there"), content);
    let after = fs::metadata(place.path("there")).unwrap();
    let times = |meta: &fs::Metadata| (meta.mtime_nsec(), meta.ctime_nsec(), meta.ino());
    assert_eq!(times(&after), times(&before));
}

#[test]
fn no_peer_is_contacted() {
    let place = Place::new();
    place.file("file", 1000);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(place.path("socket")).unwrap();
    tcp.set_nonblocking(true).unwrap();
    unix.set_nonblocking(true).unwrap();
    let name = format!("tcp:{}", tcp.local_addr().unwrap());
    for peer in [name.as_str(), "unix:socket"] {
        place.explain(["file", peer]).run().succeeded();
        place.explain([peer, "null"]).run().succeeded();
    }
    let nobody = std::io::ErrorKind::WouldBlock;
    assert_eq!(tcp.accept().unwrap_err().kind(), nobody);
    assert_eq!(unix.accept().unwrap_err().kind(), nobody);
}

#[test]
fn whoever_waits_at_a_fifo_goes_on_waiting() {
    let place = Place::new();
    let path = place.fifo("fifo");
    let came_in = Arc::new(AtomicBool::new(false));
    let writer = {
        let (path, came_in) = (path.clone(), Arc::clone(&came_in));
        std::thread::spawn(move || {
            let fifo = fs::OpenOptions::new().write(true).open(path);
            came_in.store(true, Ordering::SeqCst);
            fifo.map(drop)
        })
    };
    for _ in 0..3 {
        place.explain(["fifo", "null"]).run().succeeded();
    }
    assert!(!came_in.load(Ordering::SeqCst), "the writer was let in");
    drop(fs::File::open(path).unwrap());
    writer.join().unwrap().unwrap();
}

#[test]
fn a_lease_that_somebody_holds_on_the_sink_stands() {
    let place = Place::new();
    place.file("file", 1000);
    place.file("leased", 1000);
    let held = fs::File::open(place.path("leased")).unwrap();
    let lease = match zhaul::Lease::acquire(&held) {
        Ok(lease) => lease,
        Err(error) => skip!("a_lease_that_somebody_holds_on_the_sink_stands", "{error}"),
    };
    place.explain(["file", "leased"]).run().succeeded();
    place.explain(["leased", "null"]).run().succeeded();
    assert!(!lease.is_broken(), "it was opened for writing");
}

#[test]
fn a_lease_that_cannot_be_had_is_told_before_the_run() {
    let place = Place::new();
    place.file("file", 100_000);
    let open = fs::OpenOptions::new()
        .write(true)
        .open(place.path("file"))
        .unwrap();
    let plan = place.json(["file", "null", "--stability", "leased"]);
    let notes = plan["notes"].as_array().unwrap();
    let told = notes
        .iter()
        .any(|note| note.as_str().unwrap().contains("a lease cannot be had"));
    assert!(told, "{notes:?}");
    drop(open);
    let plan = place.json(["file", "null", "--stability", "leased"]);
    let notes = plan["notes"].as_array().unwrap();
    assert!(
        !notes
            .iter()
            .any(|note| note.as_str().unwrap().contains("lease")),
        "{notes:?}"
    );
}

#[test]
fn standard_input_is_taken_from_where_it_stands() {
    let place = Place::new();
    place.file("file", 1000);
    let mut file = fs::File::open(place.path("file")).unwrap();
    file.seek(std::io::SeekFrom::Start(300)).unwrap();
    let plan = place
        .explain(["-", "null", "--json"])
        .stdin(file)
        .run()
        .json();
    assert_eq!(plan["source"]["name"], "standard input");
    assert_eq!(
        (&plan["asked"]["offset"], &plan["asked"]["length"]),
        (&json!(300), &json!(700))
    );
}

#[test]
fn a_sink_opened_for_appending_is_seen() {
    let place = Place::new();
    place.file("file", 1000);
    place.file("log", 5);
    let log = fs::OpenOptions::new()
        .append(true)
        .open(place.path("log"))
        .unwrap();
    let ended = place
        .explain(["file", "-", "--stability", "immutable", "--json"])
        .stdout(log)
        .run()
        .succeeded();
    // Standard output is the sink, so the report is on standard error.
    let plan: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(plan["sink"]["append"], true);
    assert_eq!(route(&plan), "read+write");
    assert_eq!(place.read("log").len(), 5, "nothing was written");
}

#[test]
fn calibrated_thresholds_are_in_force_and_named() {
    let place = Place::new();
    place.file("file", 100_000);
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let calibrate = |kernel: &str| {
        let text = format!(
            "format = 1\nkernel = \"{kernel}\"\nsendfile_min_bytes = 100001\nmmap_min_bytes = 7\n"
        );
        fs::write(place.path("thresholds.toml"), text).unwrap();
        let arguments = ["file", "null", "--stability", "immutable", "--json"];
        place
            .explain(arguments)
            .calibration(place.path("thresholds.toml"))
            .run()
            .json()
    };
    let plan = calibrate(&kernel);
    assert_eq!(plan["thresholds"]["sendfile_min_bytes"], 100_001);
    let origin = plan["thresholds"]["origin"].as_str().unwrap();
    assert!(
        origin.starts_with("from ") && origin.contains("thresholds.toml"),
        "{origin}"
    );
    assert_eq!(
        route(&plan),
        "read+write",
        "sendfile is not worth it for so little"
    );
    let passed_over = plan["plan"]["passed_over"].as_array().unwrap();
    let sendfile = passed_over
        .iter()
        .find(|other| other["route"] == "sendfile")
        .unwrap();
    assert_eq!(sendfile["reason"], "below_threshold");
    // Those of another kernel do not count, and it is said that there are some.
    let plan = calibrate("0.0.1-other");
    assert_eq!(plan["thresholds"]["sendfile_min_bytes"], 0);
    let origin = plan["thresholds"]["origin"].as_str().unwrap();
    assert!(
        origin.contains("does not count") && origin.contains("0.0.1-other"),
        "{origin}"
    );
}
