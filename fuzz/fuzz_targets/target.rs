//! The path of a target.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zhaul_http::target::{
    MAX_PATH_BYTES, MAX_SEGMENT_BYTES, TargetPath, directory_location, encode_path,
};

fuzz_target!(|path: &str| {
    let Ok(target) = TargetPath::decode(path) else {
        return;
    };
    if target.names_nothing.is_some() {
        return;
    }
    assert!(target.relative.len() <= MAX_PATH_BYTES);
    assert!(!target.relative.contains(&0));
    assert!(target.is_dir || !target.relative.is_empty());
    for segment in target.relative.split(|&b| b == b'/') {
        assert!(!matches!(segment, b"." | b".."));
        assert!(!segment.is_empty() || target.relative.is_empty());
        assert!(segment.len() <= MAX_SEGMENT_BYTES);
    }

    let mut again = b"/".to_vec();
    encode_path(&target.relative, &mut again);
    if target.is_dir && !target.relative.is_empty() {
        again.push(b'/');
    }
    let again = String::from_utf8(again).expect("encoded paths are ASCII");
    assert_eq!(TargetPath::decode(&again).as_ref(), Ok(&target));

    let location = directory_location(&target.relative, Some(path));
    assert!(location.starts_with(b"/") && !location.starts_with(b"//"));
    assert!(location.iter().all(|b| (b'!'..=b'~').contains(b)));
});
