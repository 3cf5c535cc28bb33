//! Which part of the kernel a function belongs to, by its name. Pure.
//!
//! A sample that was due while interrupts were off falls on the place where they come on again:
//! `_raw_spin_unlock_irqrestore` (of a wake-up), `handle_softirqs`, `finish_task_switch`. On
//! loopback these make up a fifth to a third of a sender's samples, and belong to
//! [`Part::Kernel`] whatever was done before.

use crate::bench::results::Part;

use super::Direction;

/// The part that a function of the kernel belongs to. What is not in the table is
/// [`Part::Kernel`]: entry and exit, scheduling, memory, locks.
///
/// The longest prefix decides. Suffixes of the compiler (`.isra.0`, `.cold`) and leading
/// underscores do not matter.
pub fn part_of(function: &str) -> Part {
    let plain = plain(function);
    if COPY_WHOLE
        .split_ascii_whitespace()
        .any(|whole| whole == plain)
    {
        return Part::Copy;
    }
    let tables = [
        (Part::Copy, COPY),
        (Part::Tcp, NETWORK),
        (Part::Vfs, FILES),
        (Part::Kernel, NEITHER),
    ];
    let mut found = (Part::Kernel, 0);
    for (part, prefixes) in tables {
        let longest = prefixes
            .split_ascii_whitespace()
            .filter(|prefix| plain.starts_with(prefix))
            .map(str::len)
            .max();
        if let Some(length) = longest.filter(|&length| length > found.1) {
            found = (part, length);
        }
    }
    found.0
}

/// Which way a copy routine copies, if its name says so.
pub(super) fn direction_of(function: &str) -> Option<Direction> {
    let plain = plain(function);
    let has = |words: &[&str]| words.iter().any(|word| plain.contains(word));
    if has(&["to_iter", "to_user", "copyout"]) {
        Some(Direction::ToUser)
    } else if has(&["from_iter", "from_user", "copyin"]) {
        Some(Direction::FromUser)
    } else {
        None
    }
}

/// `__x64_sys_read` and its like become `sys_read`.
fn plain(function: &str) -> &str {
    let name = function.split('.').next().unwrap_or(function);
    let name = name.trim_start_matches('_');
    let name = name
        .strip_prefix("pi_")
        .unwrap_or(name)
        .trim_start_matches('_');
    let shells = ["x64_sys_", "arm64_sys_", "se_sys_", "do_sys_", "ksys_"];
    for shell in shells {
        if name.starts_with(shell) {
            // Keeps `sys_`, the end of each of them.
            return &name[shell.len() - "sys_".len()..];
        }
    }
    name
}

/// Names that are prefixes of something else.
const COPY_WHOLE: &str = "
    copy_highpage copy_mc_enhanced_fast_string copy_mc_fragile copy_mc_to_kernel
    copy_mc_to_user copy_page copy_pages copyin copyout
";

/// What moves bytes from memory to memory. With a processor that has `fsrm` the copy itself is
/// inlined in the functions of `lib/iov_iter.c`; else it is in the routines they call.
const COPY: &str = "
    arch_copy_ copy_folio_from_iter_atomic copy_from_iter copy_from_user copy_in_user
    copy_mc_to_iter copy_page_from_iter_atomic copy_page_regs copy_to_iter copy_to_user
    copy_user_ copy_user_generic copy_user_highpage csum_and_copy_ csum_and_memcpy
    csum_partial_copy hash_and_copy_to_iter memcpy memmove raw_copy_ rep_movs
";

const NETWORK: &str = "
    alloc_skb arp_ backlog_ bbr_ bictcp_ bpf_skops br_ build_skb call_trace_sock_
    consume_skb copy_skb_ csum_ cubictcp_ datagram_ dev_ do_ip_ do_tcp_ dql_ dst_
    enqueue_to_backlog eth_ ether_ fib4_ fib6_ fib_ fq_ gro_ gso_ icmp inet6_ inet_ inet_csk
    ip6_ ip_ ip_rcv ipt_ ipv4_ ipv6_ is_skb_ kernel_recvmsg kernel_sendmsg kfree_skb
    kmalloc_reserve lock_sock loopback_ mptcp_ napi_ neigh_ net_ netdev_ netif_ nf_
    page_pool_ pfifo_ process_backlog pskb_ qdisc_ raw_local_deliver raw_sendmsg raw_v4_
    release_sock reqsk_ rt_ rtnl_ sch_ scm_ sctp_ security_sock simple_copy_to_iter sk_ skb
    sock splice_to_socket stream_ sys_accept sys_bind sys_connect sys_getsockopt sys_listen
    sys_recv sys_send sys_setsockopt sys_shutdown sys_socket tcp4_ tcp6_ tcp_ tcpv6_ tls_
    tun_ udp unix_ validate_xmit veth_ virtnet_ virtqueue_ vring_ vsock_ xfrm_ xmit_ xps_
";

const FILES: &str = "
    add_to_pipe anon_pipe_ atime_ balance_dirty bio_ blk_ block_ btrfs_ buffer_
    copy_folio_to_iter copy_page_from_iter copy_page_to_iter copy_splice_read
    create_empty_buffers current_time direct_splice do_iter_ do_sendfile do_splice do_tee
    dput dquot_ erofs_ es_ ext2_ ext4_ f2fs_ fadvise fault_in_ fdget fdput fget file_
    filemap_ find_get_ find_lock_ folio_ fput fscrypt_ fsnotify fuse_ generic_copy_file
    generic_file_ generic_perform_write generic_write_ iget_ import_ inode_ iomap_ iov_iter_
    iter_ iter_file_splice iter_to_pipe jbd2_ kiocb_ link_pipe mark_buffer mark_inode
    mark_page_accessed mnt_ mpage_ new_sync_ nfs_ noop_dirty ondemand_readahead opipe_
    page_cache_ page_cache_pipe_buf path_ pipe_ ra_ read_pages readahead_ remap_
    rw_verify_area security_file_ shmem_ simple_write splice_ submit_bh submit_bio
    sys_copy_file_range sys_fadvise sys_fallocate sys_ftruncate sys_lseek sys_pread
    sys_preadv sys_pwrite sys_pwritev sys_read sys_sendfile sys_splice sys_tee sys_vmsplice
    sys_write touch_atime truncate_ try_to_free_buffers user_page_pipe_buf vfs_ wb_
    writeback_ xa_ xas_ xfs_ zap_pipe
";

/// Longer names that only look like the above.
const NEITHER: &str = "
    dev_attr folio_add_lru folio_batch folio_lruvec iter_div_u64 net_rx_action_irq
    path_noexec remap_pfn rt_mutex rt_spin rtc_ sched_ sys_readlink vfs_caches_init
";

#[cfg(test)]
mod tests {
    use super::*;

    fn all_are(part: Part, functions: &[&str]) {
        for function in functions {
            assert_eq!(part_of(function), part, "{function}");
        }
    }

    #[test]
    fn copy_routines_of_many_kernels_are_copies() {
        all_are(
            Part::Copy,
            &[
                "_copy_to_iter",
                "_copy_from_iter",
                "_copy_from_iter_nocache",
                "copy_page_from_iter_atomic",
                "copy_folio_from_iter_atomic",
                "rep_movs_alternative",
                "copy_user_enhanced_fast_string",
                "copy_user_generic_unrolled",
                "_copy_to_user",
                "__arch_copy_to_user",
                "__pi_memcpy",
                "memcpy_orig",
                "__memcpy",
                "__memmove",
                "copyout",
                "copy_page",
                "csum_and_copy_from_iter_full",
                "csum_partial_copy_generic",
            ],
        );
    }

    #[test]
    fn routines_are_told_by_their_direction() {
        for name in ["_copy_to_iter", "__arch_copy_to_user", "copyout"] {
            assert_eq!(direction_of(name), Some(Direction::ToUser), "{name}");
        }
        for name in [
            "_copy_from_iter",
            "copy_folio_from_iter_atomic",
            "raw_copy_from_user",
        ] {
            assert_eq!(direction_of(name), Some(Direction::FromUser), "{name}");
        }
        for name in [
            "rep_movs_alternative",
            "memcpy",
            "copy_page",
            "copy_user_generic_unrolled",
        ] {
            assert_eq!(direction_of(name), None, "{name}");
        }
    }

    #[test]
    fn who_calls_copy_routines_is_no_copy() {
        all_are(
            Part::Vfs,
            &[
                "copy_page_to_iter",
                "copy_page_from_iter",
                "copy_splice_read",
            ],
        );
        all_are(
            Part::Tcp,
            &["skb_copy_datagram_iter", "simple_copy_to_iter"],
        );
        all_are(
            Part::Kernel,
            &[
                "copy_process",
                "copy_page_range",
                "copy_fpstate_to_sigframe",
            ],
        );
    }

    #[test]
    fn the_network_is_told_from_files() {
        all_are(
            Part::Tcp,
            &[
                "tcp_sendmsg_locked",
                "__tcp_transmit_skb",
                "tcp_v4_rcv",
                "ip_finish_output2",
                "__ip_queue_xmit",
                "__dev_queue_xmit",
                "__netif_receive_skb_core.constprop.0",
                "net_rx_action",
                "sock_sendmsg",
                "sk_stream_wait_memory",
                "skb_release_data",
                "__alloc_skb",
                "inet_sendmsg",
                "splice_to_socket",
                "__x64_sys_sendto",
                "__sys_recvfrom",
                "loopback_xmit",
                "unix_stream_sendmsg",
            ],
        );
        all_are(
            Part::Vfs,
            &[
                "filemap_read",
                "filemap_get_read_batch",
                "generic_file_splice_read",
                "vfs_read",
                "ksys_read",
                "__x64_sys_sendfile64",
                "__x64_sys_pread64",
                "do_splice_direct_actor",
                "splice_from_pipe_next.part.0",
                "pipe_write",
                "anon_pipe_write",
                "ext4_da_write_begin",
                "shmem_file_read_iter",
                "folio_mark_accessed",
                "xas_load",
                "__fdget_pos",
                "rw_verify_area",
                "security_file_",
                "touch_atime",
            ],
        );
    }

    #[test]
    fn the_rest_is_the_kernel() {
        all_are(
            Part::Kernel,
            &[
                "do_syscall_64",
                "entry_SYSCALL_64_after_hwframe",
                "_raw_spin_unlock_irqrestore",
                "schedule",
                "clear_page_erms",
                "kmem_cache_alloc_noprof",
                "finish_task_switch.isra.0",
                "exc_page_fault",
                "rt_mutex_lock",
                "",
                "___",
            ],
        );
    }
}
