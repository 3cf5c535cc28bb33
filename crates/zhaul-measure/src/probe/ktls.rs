//! kTLS: `setsockopt(2)` TCP_ULP "tls" with keys of our own on both ends.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;
use zhaul_sys::tcp_ulp::{Aes128Gcm, Direction, attach_tls, set_keys};

use super::context::Context;
use super::ends::Ends;
use super::pattern;
use super::report::{Cause, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble, errno_of};

pub(super) const KTLS: Mechanism = Mechanism {
    id: "ktls",
    name: "kTLS",
    call: "setsockopt (TCP_ULP \"tls\")",
    group: Group::ToSocket,
    since: (4, 17),
    since_text: "4.13, receiving 4.17",
};

/// Nothing secret travels under them.
const KEYS: Aes128Gcm = Aes128Gcm {
    iv: *b"zhauldoc",
    key: *b"zhaul doctor key",
    salt: *b"salt",
    sequence: [0; 8],
};

/// A file by sendfile into a socket that encrypts, out of one that decrypts.
pub(super) fn to_socket(context: &Context) -> Result<Seen, Trouble> {
    let ends = Ends::tcp()?;
    for end in [&ends.near, &ends.far] {
        attach_tls(end.as_fd()).map_err(|error| match errno_of(&error) {
            Errno::NOENT => no_module(context).into(),
            errno => Trouble::Call("setsockopt (TCP_ULP)", errno),
        })?;
    }
    set_keys(ends.near.as_fd(), Direction::Send, &KEYS).during("setsockopt (TLS_TX)")?;
    set_keys(ends.far.as_fd(), Direction::Receive, &KEYS).during("setsockopt (TLS_RX)")?;
    let content = pattern::bytes(pattern::FEW);
    let file = scratch::holding(content)?;
    ends.carry(content, "sendfile over kTLS", |at| {
        let mut offset = at as u64;
        let len = content.len() - at;
        Ok(rustix::fs::sendfile(
            &ends.near,
            &file,
            Some(&mut offset),
            len,
        )?)
    })?;
    Ok(Seen::works(format!(
        "{} bytes by sendfile were encrypted by one socket and decrypted by the other, unchanged",
        content.len()
    )))
}

/// ENOENT says that the module is not there, which has several reasons.
fn no_module(context: &Context) -> Seen {
    let evidence = "setsockopt (TCP_ULP) failed: No such file or directory (ENOENT)";
    let modules = Path::new("/lib/modules").join(&context.kernel.release);
    match std::fs::read_to_string(modules.join("modules.dep")) {
        Ok(list) if has_module(&list) => {
            Seen::missing(Cause::Configured, "the module tls is not loaded", evidence)
                .remedy("modprobe tls (as root)")
        }
        _ => Seen::missing(
            Cause::KernelLacks,
            "the kernel has no module tls (CONFIG_TLS)",
            evidence,
        )
        .remedy("a kernel with CONFIG_TLS; where it is a module: modprobe tls"),
    }
}

/// Lines are `kernel/net/tls/tls.ko.xz: other modules`.
fn has_module(list: &str) -> bool {
    list.lines()
        .filter_map(|line| line.split(':').next())
        .any(|path| path.contains("/net/tls/tls.ko"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_compressed_or_not_and_not_by_its_users() {
        assert!(has_module("a.ko: b.ko\nkernel/net/tls/tls.ko.zst:\n"));
        assert!(has_module("kernel/net/tls/tls.ko:"));
        assert!(!has_module("kernel/drivers/x.ko: kernel/net/tls/tls.ko\n"));
        assert!(!has_module(""));
    }
}
