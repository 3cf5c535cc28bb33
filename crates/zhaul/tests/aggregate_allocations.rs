//! How often an aggregate asks the allocator: a server makes one for each request.

use allocation_counter::measure;
use bytes::Bytes;
use zhaul::memory::SharedFd;
use zhaul::{Aggregate, FileRange, Pool};

#[test]
fn a_header_and_a_body_allocate_nothing_but_themselves() {
    let pool = Pool::new(1, 2).unwrap();
    let header = |text: &str| {
        let mut buffer = pool.allocate().unwrap();
        buffer[..text.len()].copy_from_slice(text.as_bytes());
        buffer.freeze(text.len())
    };
    let body = pool.allocate().unwrap().freeze(1000);
    let bytes = Bytes::from(vec![1; 1000]);
    // Its first clone allocates the count that all share.
    let _shared = bytes.clone();
    let file = SharedFd::from(tempfile::tempfile().unwrap());
    let count = |work: &dyn Fn() -> Aggregate| measure(|| drop(work())).count_total;

    let of_pool = count(&|| {
        let mut answer = Aggregate::from(body.clone());
        answer.prepend(header("HTTP/1.1 200 OK\r\n\r\n"));
        answer
    });
    assert_eq!(of_pool, 0, "both of a pool");
    let of_file = count(&|| {
        let mut answer = Aggregate::from("HTTP/1.1 200 OK\r\n\r\n");
        answer.push(FileRange::new(file.clone(), 0..1000));
        answer
    });
    assert_eq!(of_file, 0, "a static header and a file");
    let of_heap = count(&|| {
        let mut answer = Aggregate::from(Vec::from(b"HTTP/1.1 200 OK\r\n\r\n"));
        answer.push(bytes.clone());
        answer
    });
    assert_eq!(of_heap, 1, "the header itself");

    let mut answer = Aggregate::from(body.clone());
    answer.prepend("header");
    let cut = measure(|| {
        let tail = answer.slice(3..500).split_off(10);
        answer.append(tail);
        answer.advance(answer.len());
    });
    assert!(cut.count_total <= 1, "the list of more than two: {cut:?}");
}
