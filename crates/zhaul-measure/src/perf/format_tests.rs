//! Format files as kernels print them, and records that are too short.

use proptest::prelude::*;

use super::*;

const SYS_ENTER: &str = "name: sys_enter
ID: 443
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;
\tfield:unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;

print fmt: \"NR %ld (%lx)\", REC->id, REC->args[0]
";

const EXEC: &str = "name: sched_process_exec
ID: 365
format:
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;
\tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;
\tfield:const void * skbaddr;\toffset:16;\tsize:8;\tsigned:0;
";

#[test]
fn fields_and_arrays_of_a_format_are_found() {
    let format = Format::parse(SYS_ENTER).unwrap();
    assert_eq!(format.fields.len(), 6);
    let id = format.field("id").unwrap();
    assert_eq!((id.offset, id.size, id.signed, id.count), (8, 8, true, 1));
    assert_eq!(id.declaration, "long");
    let args = format.field("args").unwrap();
    assert_eq!((args.offset, args.size, args.count), (16, 48, 6));
    assert_eq!(format.field("absent"), None);
}

#[test]
fn numbers_are_read_where_the_format_says() {
    let format = Format::parse(SYS_ENTER).unwrap();
    let mut raw = vec![0_u8; 64];
    raw[4..8].copy_from_slice(&(-2_i32).to_ne_bytes());
    raw[8..16].copy_from_slice(&40_i64.to_ne_bytes());
    raw[56..64].copy_from_slice(&0xdead_beef_u64.to_ne_bytes());
    assert_eq!(format.field("common_pid").unwrap().signed(&raw), Some(-2));
    assert_eq!(
        format.field("common_pid").unwrap().unsigned(&raw),
        Some(0xffff_fffe)
    );
    assert_eq!(format.field("id").unwrap().unsigned(&raw), Some(40));
    let args = format.field("args").unwrap();
    assert_eq!(args.unsigned_at(&raw, 5), Some(0xdead_beef));
    assert_eq!(args.unsigned_at(&raw, 6), None);
    assert_eq!(args.unsigned_at(&raw[..63], 5), None);
}

#[test]
fn content_of_variable_length_is_found_where_it_is_pointed_to() {
    let format = Format::parse(EXEC).unwrap();
    let field = format.field("filename").unwrap();
    assert_eq!(field.location, Some(Location::Absolute));
    let mut raw = vec![0_u8; 24];
    raw[8..12].copy_from_slice(&((5_u32 << 16) | 24).to_ne_bytes());
    raw.extend_from_slice(b"/x/y\0");
    assert_eq!(field.text(&raw).unwrap(), "/x/y");
    assert_eq!(field.bytes(&raw).unwrap(), b"/x/y\0");
    assert_eq!(field.text(&raw[..27]), None, "points past the end");
    assert_eq!(format.field("skbaddr").unwrap().declaration, "const void *");
}

#[test]
fn a_relative_location_counts_from_the_end_of_the_field() {
    let text = "\tfield:__rel_loc char[] name;\toffset:8;\tsize:4;\tsigned:0;\n";
    let format = Format::parse(text).unwrap();
    let mut raw = vec![0_u8; 8];
    raw.extend_from_slice(&((3_u32 << 16) | 4).to_ne_bytes());
    raw.extend_from_slice(&[0; 4]);
    raw.extend_from_slice(b"abc");
    assert_eq!(format.fields[0].text(&raw).unwrap(), "abc");
}

#[test]
fn what_is_no_format_is_refused() {
    assert_eq!(Format::parse(""), None);
    assert_eq!(Format::parse("\tfield:int x;\toffset:a;\tsize:4;\n"), None);
    assert_eq!(Format::parse("\tfield:int x;\tsize:4;\n"), None);
    assert_eq!(Format::parse("\tfield:x;\toffset:0;\tsize:4;\n"), None);
}

proptest! {
    #[test]
    fn no_text_and_no_record_panics(text in "\\PC*|(\tfield:[a-z_ *]{0,12}(\\[[0-9]{0,3}\\])?;\toffset:[0-9]{1,20};\tsize:[0-9]{1,20};\tsigned:[01];\n){1,4}",
                                    raw in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Some(format) = Format::parse(&text) {
            for field in &format.fields {
                let _ = (field.unsigned(&raw), field.signed(&raw), field.bytes(&raw), field.text(&raw));
            }
        }
    }
}
