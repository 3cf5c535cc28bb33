use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::thread;

use super::*;

#[test]
fn bytes_are_read_by_everybody_and_outlive_the_arena() {
    let arena = Arena::new(5000, 3, false).unwrap();
    assert_eq!(
        (arena.slot_bytes() % mapping::page_bytes(), arena.slots()),
        (0, 3)
    );
    let mut slot = arena.take().unwrap();
    assert!(slot.iter().all(|&byte| byte == 0), "new memory is zeroed");
    slot.fill(7);
    let shared = slot.share();
    let clone = shared.clone();
    drop(arena);
    thread::spawn(move || assert!(clone.iter().all(|&byte| byte == 7)))
        .join()
        .unwrap();
    assert!(shared.iter().all(|&byte| byte == 7));
    assert_eq!(shared.arena().in_use(), 1);
}

#[test]
fn each_slot_is_given_out_once_and_again_when_it_is_free() {
    for slots in [1, 63, 64, 65, 200] {
        let arena = Arena::new(1, slots, false).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| arena.take()).collect();
        let mut indices: Vec<_> = taken.iter().map(|slot| slot.0.index()).collect();
        indices.sort_unstable();
        assert!(indices.into_iter().eq(0..u32::try_from(slots).unwrap()));
        assert_eq!(arena.in_use(), slots);
        drop(taken);
        assert_eq!(arena.in_use(), 0);
        let again: Vec<_> = std::iter::from_fn(|| arena.take()).collect();
        assert_eq!(again.len(), slots);
    }
}

#[test]
fn only_the_last_reference_frees_and_only_the_only_one_writes() {
    let arena = Arena::new(1, 1, false).unwrap();
    let first = arena.take().unwrap().share();
    let generation = first.generation();
    let second = first.clone();
    let first = first.unique().unwrap_err();
    drop(first);
    assert!(arena.take().is_none(), "the second still reads");
    let mut unique = second.unique().unwrap();
    unique[0] = 9;
    assert_eq!(unique.0.generation(), generation, "it was never free");
    drop(unique);
    let again = arena.take().unwrap();
    assert_eq!(again[0], 9, "recycled without zeroing");
    assert_eq!(again.0.generation(), generation + 1);
}

#[test]
fn impossible_sizes_are_refused() {
    for (slot_bytes, slots) in [
        (0, 1),
        (1, 0),
        (usize::MAX, 1),
        (1, usize::MAX),
        (1 << 32, 1),
        (1, 1 << 32),
    ] {
        let error = Arena::new(slot_bytes, slots, false).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(libc::EINVAL),
            "{slot_bytes} {slots}"
        );
    }
}

#[cfg(not(miri))]
#[test]
fn nobody_else_can_write_or_resize() {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;

    let arena = Arena::new(1, 2, false).unwrap();
    let mut slot = arena.take().unwrap();
    slot[..3].copy_from_slice(b"abc");
    let memfd = arena.memfd();
    let mut seen = [0; 3];
    assert_eq!(rustix::io::pread(memfd, &mut seen, 0), Ok(3));
    assert_eq!(&seen, b"abc", "the file is the memory");
    assert_eq!(rustix::io::pwrite(memfd, b"x", 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(memfd, 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(memfd, 1 << 30), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(
        rustix::fs::fallocate(memfd, punch, 0, 4096),
        Err(Errno::PERM)
    );
    assert_eq!(&slot[..3], b"abc");
}

/// Every thread writes a slot, shares it with the next one, and both compare it until they drop it.
#[test]
fn a_slot_is_never_overwritten_while_somebody_reads_it() {
    const THREADS: u8 = 4;
    let rounds: u32 = if cfg!(miri) { 30 } else { 20_000 };
    let arena = Arena::new(1, 5, false).unwrap();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS)
        .map(|_| std::sync::mpsc::channel::<(u8, SharedSlot)>())
        .unzip();
    thread::scope(|scope| {
        for (thread, receiver) in receivers.into_iter().enumerate() {
            let next = senders[(thread + 1) % usize::from(THREADS)].clone();
            let arena = arena.clone();
            scope.spawn(move || {
                let mut value = u8::try_from(thread).unwrap();
                for _ in 0..rounds {
                    if let Some(mut slot) = arena.take() {
                        value = value.wrapping_add(THREADS);
                        slot[..64].fill(value);
                        let slot = slot.share();
                        let _ = next.send((value, slot.clone()));
                        assert!(slot[..64].iter().all(|&byte| byte == value));
                    }
                    if let Ok((sent, slot)) = receiver.try_recv() {
                        assert!(slot[..64].iter().all(|&byte| byte == sent));
                        if let Ok(mut slot) = slot.unique() {
                            slot[..64].fill(0xff);
                        }
                    }
                }
            });
        }
        drop(senders);
    });
    assert_eq!(arena.in_use(), 0);
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Somebody who waits.
struct Waiter {
    taking: Taking,
    woken: Arc<Woken>,
}

impl Waiter {
    fn of(arena: &Arena) -> Self {
        Self {
            taking: arena.taking(),
            woken: Arc::default(),
        }
    }

    fn poll(&mut self) -> Option<UniqueSlot> {
        let waker = Waker::from(Arc::clone(&self.woken));
        match Pin::new(&mut self.taking).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_free_slot_goes_to_whoever_waits_longest() {
    let arena = Arena::new(1, 1, false).unwrap();
    let slot = arena.take().unwrap();
    let (mut first, mut second) = (Waiter::of(&arena), Waiter::of(&arena));
    assert!(first.poll().is_none() && second.poll().is_none());
    assert!(first.poll().is_none(), "polled again, it keeps its place");
    assert_eq!(arena.waiting(), 2);
    drop(slot);
    assert_eq!((first.woken(), second.woken()), (1, 0));
    assert!(arena.take().is_none(), "it is given away already");
    assert!(second.poll().is_none());
    let slot = first.poll().unwrap();
    assert_eq!((arena.waiting(), arena.in_use()), (1, 1));
    drop(slot);
    assert_eq!(second.woken(), 1);
    drop(second.poll().unwrap());
    assert_eq!(arena.in_use(), 0);
    assert!(Waiter::of(&arena).poll().is_some(), "nobody else waits");
}

#[test]
fn whoever_waits_no_longer_leaves_the_slot_to_the_next() {
    let arena = Arena::new(1, 1, false).unwrap();
    let slot = arena.take().unwrap();
    let mut waiters: Vec<_> = (0..3).map(|_| Waiter::of(&arena)).collect();
    assert!(waiters.iter_mut().all(|waiter| waiter.poll().is_none()));
    drop(waiters.remove(1));
    drop(slot);
    assert_eq!(waiters[0].woken(), 1);
    drop(waiters.remove(0));
    assert_eq!(waiters[0].woken(), 1, "the slot was passed on");
    drop(waiters.remove(0));
    assert_eq!((arena.in_use(), arena.waiting()), (0, 0));
}

/// More threads than slots, each of which waits in turns: one wake-up lost, and this never ends.
#[test]
fn everybody_who_waits_gets_a_slot() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let rounds = if cfg!(miri) { 20 } else { 5000 };
    let arena = Arena::new(1, 2, false).unwrap();
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                let mut context = Context::from_waker(&waker);
                for _ in 0..rounds {
                    let mut taking = arena.taking();
                    let slot = loop {
                        match Pin::new(&mut taking).poll(&mut context) {
                            Poll::Ready(slot) => break slot,
                            Poll::Pending => thread::park(),
                        }
                    };
                    drop(slot.share().clone());
                }
            });
        }
    });
    assert_eq!((arena.in_use(), arena.waiting()), (0, 0));
}

#[cfg(all(feature = "io-uring", not(miri)))]
#[test]
fn pieces_are_of_whole_slots_and_cover_all_of_them() {
    let page = mapping::page_bytes();
    let arena = Arena::new(page, 5, false).unwrap();
    let (pieces, slots_of_piece) = arena.pieces(3 * page - 1).unwrap();
    assert_eq!(slots_of_piece, 2);
    let lens: Vec<_> = pieces.iter().map(|piece| piece.iov_len).collect();
    assert_eq!(lens, [2 * page, 2 * page, page]);
    let slots: Vec<_> = std::iter::from_fn(|| arena.take()).collect();
    for slot in slots.into_iter().map(UniqueSlot::share) {
        let piece = pieces[(slot.index() / slots_of_piece) as usize];
        let offset = slot.as_ptr().addr() - piece.iov_base.addr();
        assert!(offset + page <= piece.iov_len);
    }
    assert!(arena.pieces(page - 1).is_none());
}
