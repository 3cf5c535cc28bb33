use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::*;
use crate::memory::{FileRange, Pool};

/// What would be sent.
fn content(aggregate: &Aggregate) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in aggregate.segments() {
        match segment {
            Segment::Memory(memory) => bytes.extend_from_slice(memory),
            Segment::File(range) => {
                let fd = range.file();
                let mut part = vec![0; range.len() as usize];
                let read = rustix::io::pread(fd, &mut part, range.range().start).unwrap();
                assert_eq!(read, part.len());
                bytes.extend(part);
            }
        }
    }
    assert_eq!(bytes.len() as u64, aggregate.len());
    bytes
}

#[test]
fn memory_and_files_are_one_row_of_bytes() {
    let pool = Pool::new(1, 1).unwrap();
    let mut buffer = pool.allocate().unwrap();
    buffer[..3].copy_from_slice(b"def");
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.write_all_at(b"0123456789", 0).unwrap();

    let mut aggregate = Aggregate::from(buffer.freeze(3));
    aggregate.push(FileRange::new(file.clone(), 2..5));
    aggregate.prepend("abc");
    aggregate.push(Vec::new());
    aggregate.push(FileRange::new(file, 7..7));
    aggregate.push(bytes::Bytes::from_static(b"ghi"));
    aggregate.prepend(String::from("->"));
    assert_eq!(content(&aggregate), b"->abcdef234ghi");
    assert_eq!(aggregate.segments().count(), 5, "empty ones are left out");

    assert_eq!(content(&aggregate.slice(3..10)), b"bcdef23");
    let mut tail = aggregate.split_off(9);
    assert_eq!(content(&tail), b"34ghi");
    tail.advance(1);
    let head = aggregate.split_to(4);
    assert_eq!(
        (content(&head), content(&aggregate)),
        (b"->ab".into(), b"cdef2".into())
    );
    tail.append(head);
    tail.append(aggregate);
    assert_eq!(content(&tail), b"4ghi->abcdef2");
    tail.truncate(5);
    tail.truncate(100);
    assert_eq!(content(&tail), b"4ghi-");
    tail.advance(5);
    assert!(tail.is_empty() && tail.segments().next().is_none());
    assert_eq!(pool.usage().in_use, 0, "what was cut off is free");
}

#[test]
#[should_panic(expected = "inside the aggregate")]
fn more_than_there_is_cannot_be_split() {
    let _ = Aggregate::from("abc").split_to(4);
}
