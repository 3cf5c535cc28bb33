//! Channels between threads of one process and between processes: what arrives, what comes back, what
//! happens at the end.

use std::future::Future as _;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use zhaul::channel::{self, ChannelError, Limits, Received, Receiver, SealedWriter, Sender};
use zhaul::{FBuf, Pool};

fn pool(slots: usize) -> Pool {
    Pool::new(8192, slots).expect("memory")
}

fn filled(pool: &Pool, byte: u8, len: usize) -> FBuf {
    let mut buffer = pool.allocate().expect("a free slot");
    buffer[..len].fill(byte);
    buffer.freeze(len)
}

fn later() -> Instant {
    Instant::now() + Duration::from_millis(20)
}

#[test]
fn bytes_arrive_in_order_and_slots_are_used_again() {
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    let pool = pool(8);
    let sending = thread::spawn(move || {
        for i in 0..10_000_u32 {
            let mut buffer = sender.allocate(&pool).unwrap().unwrap();
            buffer[..4].copy_from_slice(&i.to_ne_bytes());
            buffer[8000..8004].copy_from_slice(&i.to_ne_bytes());
            sender.send(buffer.freeze(8004)).unwrap();
        }
        sender.finish(None).unwrap();
        assert_eq!(pool.usage().in_use, 0);
    });
    let mut expected = 0_u32;
    while let Some(buffer) = receiver.receive().unwrap() {
        assert_eq!(buffer.len(), 8004);
        let mut word = [0; 4];
        buffer.read_at(0, &mut word).unwrap();
        assert_eq!(u32::from_ne_bytes(word), expected);
        buffer.slice(8000..).read_at(0, &mut word).unwrap();
        assert_eq!(u32::from_ne_bytes(word), expected);
        expected += 1;
    }
    assert_eq!(expected, 10_000);
    drop(receiver);
    sending.join().unwrap();
}

#[test]
fn a_window_is_not_exceeded_and_what_is_refused_comes_back() {
    let (mut sender, mut receiver) = channel::pair(2).unwrap();
    let pool = pool(3);
    let buffer = filled(&pool, 1, 10);
    assert!(sender.try_send(buffer.clone()).unwrap().is_none());
    assert!(sender.try_send(buffer.clone()).unwrap().is_none());
    assert!(sender.try_send(buffer.clone()).unwrap().is_some());
    assert!(matches!(
        sender.send_by(buffer.clone(), later()),
        Err(ChannelError::TimedOut)
    ));
    let first = receiver.receive().unwrap().unwrap();
    assert!(sender.try_send(buffer.clone()).unwrap().is_some());
    drop(first);
    assert!(sender.try_send(buffer).unwrap().is_none());
    assert_eq!(sender.reclaim().unwrap(), 2);
}

/// Buffers of one pool each, on a socket that has room for telling of a few.
fn of_many_pools() -> (Sender, Receiver, Vec<FBuf>) {
    let (near, far) = channel::socket_pair().expect("sockets");
    rustix::net::sockopt::set_socket_send_buffer_size(&near, 1).expect("a socket");
    let sender = Sender::new(near, 64).expect("a socket");
    let receiver = Receiver::new(far, Limits::default()).expect("a socket");
    let buffers = (0..40).map(|byte| filled(&pool(1), byte, 1));
    (sender, receiver, buffers.collect())
}

fn keeps_all(mut receiver: Receiver) {
    // Reads what fills the socket, and gives nothing back.
    let kept: Vec<_> = (0..40)
        .map(|_| receiver.receive().expect("it is good").expect("one"))
        .collect();
    for (byte, buffer) in kept.into_iter().enumerate() {
        assert_eq!(buffer.secure().expect("read").0[..], [byte as u8]);
    }
    assert!(receiver.receive().expect("the end").is_none());
}

#[test]
fn a_socket_full_of_pools_is_waited_for_whatever_comes_back() {
    let (mut sender, receiver, buffers) = of_many_pools();
    let sending = thread::spawn(move || {
        let patience = Instant::now() + Duration::from_secs(20);
        for buffer in buffers {
            sender.send_by(buffer, patience)?;
        }
        sender.finish(None)
    });
    thread::sleep(Duration::from_millis(50));
    let receiving = thread::spawn(move || keeps_all(receiver));
    sending.join().unwrap().unwrap();
    receiving.join().unwrap();
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_task_waits_for_a_socket_full_of_pools() {
    let (sender, receiver, buffers) = of_many_pools();
    let mut sender = channel::AsyncSender::new(sender).unwrap();
    let receiving = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        keeps_all(receiver);
    });
    let sending = async {
        for buffer in buffers {
            sender.send(buffer).await.unwrap();
        }
        sender.finish().await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), sending)
        .await
        .unwrap();
    receiving.join().unwrap();
}

#[test]
fn a_slot_is_not_used_again_while_a_slice_of_it_is_out() {
    let (mut sender, mut receiver) = channel::pair(2).unwrap();
    let pool = pool(1);
    sender.send(filled(&pool, 1, 100)).unwrap();
    let slice = receiver
        .receive()
        .unwrap()
        .unwrap()
        .slice(50..60)
        .slice(1..2);
    assert_eq!(sender.reclaim().unwrap(), 1);
    assert!(pool.allocate().is_none());
    drop(slice);
    assert!(sender.allocate(&pool).unwrap().is_some());
}

#[test]
fn finishing_is_an_end_and_dropping_is_not() {
    let pool = pool(4);
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    sender.send(filled(&pool, 7, 3)).unwrap();
    let finishing = thread::spawn(move || sender.finish(None));
    assert_eq!(
        &receiver.receive().unwrap().unwrap().secure().unwrap().0[..],
        [7; 3]
    );
    assert!(receiver.receive().unwrap().is_none());
    assert!(matches!(receiver.try_receive().unwrap(), Received::End));
    finishing.join().unwrap().unwrap();

    // The end is told as often as it is asked for, while the sender still waits for what is out.
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    sender.send(filled(&pool, 7, 3)).unwrap();
    let finishing = thread::spawn(move || sender.finish(None));
    let kept = receiver.receive().unwrap();
    assert!(receiver.receive().unwrap().is_none());
    assert!(receiver.receive().unwrap().is_none());
    assert!(!finishing.is_finished());
    drop(kept);
    finishing.join().unwrap().unwrap();

    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    sender.send(filled(&pool, 7, 3)).unwrap();
    drop(sender);
    // What was handed over is there all the same.
    assert!(receiver.receive().unwrap().is_some());
    assert!(matches!(receiver.receive(), Err(ChannelError::PeerGone)));
    assert!(matches!(receiver.receive(), Err(ChannelError::PeerGone)));
}

#[test]
fn a_receiver_that_is_gone_is_told_and_gives_everything_back() {
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    let pool = pool(4);
    for _ in 0..3 {
        sender.send(filled(&pool, 1, 1)).unwrap();
    }
    let kept = receiver.receive().unwrap().unwrap();
    drop(receiver);
    // What was not received is back; what is kept is out.
    assert_eq!(sender.reclaim().unwrap(), 1);
    let error = sender.send(filled(&pool, 1, 1)).unwrap_err();
    assert!(matches!(error, ChannelError::PeerGone));
    assert_eq!(pool.usage().in_use, 1);
    drop(kept);
    while pool.usage().in_use > 0 {
        thread::yield_now();
    }
}

#[test]
fn a_sender_that_is_dropped_does_not_use_again_what_is_out() {
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    let pool = pool(1);
    sender.send(filled(&pool, 9, 100)).unwrap();
    let buffer = receiver.receive().unwrap().unwrap();
    drop(sender);
    assert!(pool.allocate().is_none());
    drop(receiver);
    assert!(pool.allocate().is_none());
    assert_eq!(&buffer.secure().unwrap().0[..], [9; 100]);
    while pool.usage().in_use > 0 {
        thread::yield_now();
    }
}

#[test]
fn a_receiver_is_told_that_the_sender_was_dropped_whatever_is_out() {
    // All came back, unseen: the sender was awake at each return, and looked at none.
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    let pool = pool(2);
    for _ in 0..2 {
        sender.send(filled(&pool, 1, 1)).unwrap();
        drop(receiver.receive().unwrap().unwrap());
    }
    drop(sender);
    let patience = Instant::now() + Duration::from_secs(20);
    let told = receiver.receive_by(patience).unwrap_err();
    assert!(matches!(told, ChannelError::PeerGone));
    assert_eq!(pool.usage().in_use, 0);

    // One is kept.
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    sender.send(filled(&pool, 1, 1)).unwrap();
    let kept = receiver.receive().unwrap().unwrap();
    drop(sender);
    let patience = Instant::now() + Duration::from_secs(20);
    let told = receiver.receive_by(patience).unwrap_err();
    assert!(matches!(told, ChannelError::PeerGone));
    assert_eq!(pool.usage().in_use, 1);
    drop(kept);
    while pool.usage().in_use > 0 {
        thread::yield_now();
    }
}

#[test]
fn a_task_that_panics_when_a_slot_comes_back_takes_no_other_channel_with_it() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: std::sync::Arc<Self>) {
            panic!("on purpose");
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Panics));
    let mut context = std::task::Context::from_waker(&waker);
    let abandoned = |pool: &Pool| {
        let (mut sender, mut receiver) = channel::pair(4).unwrap();
        sender.send(filled(pool, 1, 1)).unwrap();
        receiver.receive().unwrap()
    };
    let waited_for = pool(1);
    let buffer = abandoned(&waited_for);
    let mut allocating = Box::pin(waited_for.allocate_async());
    assert!(allocating.as_mut().poll(&mut context).is_pending());
    drop(buffer);

    let other = pool(1);
    drop(abandoned(&other));
    while other.usage().in_use > 0 {
        thread::yield_now();
    }
}

#[test]
fn a_buffer_goes_through_a_third_hand_without_a_copy() {
    let (mut first, mut middle_in) = channel::pair(4).unwrap();
    let (mut middle_out, mut last) = channel::pair(4).unwrap();
    let pool = pool(1);
    first.send(filled(&pool, 5, 6000)).unwrap();
    middle_out
        .send(middle_in.receive().unwrap().unwrap())
        .unwrap();
    let buffer = last.receive().unwrap().unwrap();
    assert_eq!(first.reclaim().unwrap(), 1);
    // The middle goes; the first still waits for the last.
    drop((middle_in, middle_out));
    assert!(pool.allocate().is_none());
    assert!(buffer.secure().unwrap().0.iter().all(|byte| *byte == 5));
    drop(last);
    while pool.usage().in_use > 0 {
        let _ = first.reclaim();
        thread::yield_now();
    }
}

#[test]
fn what_was_passed_on_comes_back_while_the_middle_sleeps() {
    // A window of one: the first can send again only when the middle has given back.
    let (mut first, mut middle_in) = channel::pair(1).unwrap();
    let (mut middle_out, mut last) = channel::pair(1).unwrap();
    let middle = thread::spawn(move || {
        while let Some(buffer) = middle_in.receive().unwrap() {
            middle_out.send(buffer).unwrap();
        }
        middle_out.finish(None).unwrap();
    });
    let pool = pool(2);
    let sending = thread::spawn(move || {
        for byte in 0..200 {
            let mut buffer = first.allocate(&pool).unwrap().unwrap();
            buffer[0] = byte;
            first.send(buffer.freeze(1)).unwrap();
        }
        first.finish(None).unwrap();
    });
    for byte in 0..200 {
        let buffer = last.receive().unwrap().unwrap();
        assert_eq!(buffer.secure().unwrap().0[..], [byte]);
    }
    assert!(last.receive().unwrap().is_none());
    middle.join().unwrap();
    sending.join().unwrap();
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn tasks_pass_on_what_they_receive() {
    use zhaul::channel::{AsyncReceiver, AsyncSender};
    let (first, middle_in) = channel::pair(1).unwrap();
    let (middle_out, last) = channel::pair(2).unwrap();
    let mut middle_in = AsyncReceiver::new(middle_in).unwrap();
    let mut middle_out = AsyncSender::new(middle_out).unwrap();
    let middle = tokio::spawn(async move {
        while let Some(buffer) = middle_in.receive().await.unwrap() {
            middle_out.send(buffer).await.unwrap();
        }
        middle_out.finish().await.unwrap();
    });
    let mut first = AsyncSender::new(first).unwrap();
    let sending = tokio::spawn(async move {
        let buffer = filled(&pool(1), 3, 3);
        for _ in 0..200 {
            first.send(buffer.clone()).await.unwrap();
        }
        first.finish().await.unwrap();
    });
    let mut last = AsyncReceiver::new(last).unwrap();
    for _ in 0..200 {
        let buffer = last.receive().await.unwrap().unwrap();
        assert_eq!(buffer.secure().unwrap().0[..], [3; 3]);
    }
    assert!(last.receive().await.unwrap().is_none());
    middle.await.unwrap();
    sending.await.unwrap();
}

#[test]
fn sealed_bytes_are_read_in_place_and_volatile_ones_are_not() {
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    let mut writer = SealedWriter::new().unwrap();
    writer.write_all(b"header|body").unwrap();
    let sealed = writer.seal().unwrap();
    assert_eq!(&sealed[..], b"header|body");
    let pool = pool(1);
    sender
        .send_all([sealed.slice(..6), sealed.slice(7..)])
        .unwrap();
    sender.send(filled(&pool, 1, 1)).unwrap();
    let batch = receiver.receive_batch(10).unwrap();
    assert_eq!(batch.len(), 3);
    let volatile = batch[2].clone();
    assert!(batch[0].is_immutable() && !volatile.is_immutable());
    let (bytes, copied) = batch[1].clone().secure().unwrap();
    assert_eq!((&bytes[..], copied), (&b"body"[..], false));
    assert!(volatile.clone().view().unwrap().is_err());
    assert!(volatile.secure().unwrap().1);
}

#[test]
fn many_sealed_memories_come_and_go_through_one_channel() {
    let (mut sender, mut receiver) = channel::pair(256).unwrap();
    let sending = thread::spawn(move || {
        for i in 0..500_u32 {
            let mut writer = SealedWriter::new().unwrap();
            writer.write_all(&i.to_ne_bytes()).unwrap();
            sender.send(writer.seal().unwrap()).unwrap();
        }
        sender.finish(None)
    });
    for i in 0..500_u32 {
        let view = receiver
            .receive()
            .unwrap()
            .unwrap()
            .view()
            .unwrap()
            .unwrap();
        assert_eq!(view[..], i.to_ne_bytes());
    }
    assert!(receiver.receive().unwrap().is_none());
    sending.join().unwrap().unwrap();
}

#[test]
fn a_receiver_that_wants_sealed_memory_refuses_a_pool() {
    let (near, far) = channel::socket_pair().unwrap();
    let mut sender = Sender::new(near, 4).unwrap();
    let mut receiver = Receiver::new(far, Limits::default().immutable_only(true)).unwrap();
    sender.send(filled(&pool(1), 1, 1)).unwrap();
    let error = receiver.receive().unwrap_err();
    let refused = channel::Violation::NotImmutable;
    assert!(matches!(error, ChannelError::Violation(violation) if violation == refused));
}

#[test]
fn only_a_seqpacket_socket_is_taken() {
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(matches!(
        Sender::new(near.try_clone().unwrap(), 1),
        Err(ChannelError::NotSeqpacket)
    ));
    assert!(matches!(
        Receiver::new(near, Limits::default()),
        Err(ChannelError::NotSeqpacket)
    ));
}

#[test]
fn waiting_ends_at_the_deadline_and_goes_on_later() {
    let (mut sender, mut receiver) = channel::pair(4).unwrap();
    assert!(matches!(
        receiver.receive_by(later()),
        Err(ChannelError::TimedOut)
    ));
    sender.send(filled(&pool(1), 1, 1)).unwrap();
    assert!(receiver.receive_by(later()).unwrap().is_some());
    assert!(matches!(
        receiver.receive_by(later()),
        Err(ChannelError::TimedOut)
    ));
}

#[test]
fn a_path_connects_two_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("channel");
    let listener = channel::Listener::bind(&path).unwrap();
    let mut sender = Sender::new(channel::connect(&path).unwrap(), 4).unwrap();
    let mut receiver = Receiver::new(listener.accept().unwrap(), Limits::default()).unwrap();
    sender.send(filled(&pool(1), 3, 3)).unwrap();
    let (bytes, _) = receiver.receive().unwrap().unwrap().secure().unwrap();
    assert_eq!(&bytes[..], [3; 3]);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn tasks_send_and_receive_and_learn_of_the_end() {
    use zhaul::channel::{AsyncReceiver, AsyncSender};
    let (sender, receiver) = channel::pair(4).unwrap();
    let mut sender = AsyncSender::new(sender).unwrap();
    let mut receiver = AsyncReceiver::new(receiver).unwrap();
    let pool = pool(6);
    let usage = pool.clone();
    let sending = tokio::spawn(async move {
        for i in 0..2000_u32 {
            let mut buffer = sender.allocate(&pool).await.unwrap().unwrap();
            buffer[..4].copy_from_slice(&i.to_ne_bytes());
            sender.send(buffer.freeze(4)).await.unwrap();
            if i % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        sender.finish().await.unwrap();
    });
    for i in 0..2000_u32 {
        let buffer = receiver.receive().await.unwrap().unwrap();
        assert_eq!(buffer.secure().unwrap().0[..], i.to_ne_bytes());
    }
    assert!(receiver.receive().await.unwrap().is_none());
    sending.await.unwrap();
    assert_eq!(usage.usage().in_use, 0);

    let (sender, receiver) = channel::pair(4).unwrap();
    let mut receiver = AsyncReceiver::new(receiver).unwrap();
    let waiting = tokio::spawn(async move { receiver.receive().await });
    tokio::task::yield_now().await;
    drop(sender);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, ChannelError::PeerGone));
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_task_and_a_thread_are_two_ends_of_one_channel() {
    use zhaul::channel::AsyncSender;
    let (sender, mut receiver) = channel::pair(2).unwrap();
    let receiving = thread::spawn(move || {
        let mut count = 0;
        while receiver.receive().unwrap().is_some() {
            count += 1;
        }
        count
    });
    let mut sender = AsyncSender::new(sender).unwrap();
    let buffer = filled(&pool(1), 1, 1);
    for _ in 0..2000 {
        sender.send(buffer.clone()).await.unwrap();
    }
    sender.finish().await.unwrap();
    assert_eq!(receiving.join().unwrap(), 2000);
}
