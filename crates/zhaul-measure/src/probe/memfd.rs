//! `memfd_create(2)` and `fcntl(2)` F_ADD_SEALS: memory that nobody can change any more.

use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate};
use rustix::io::Errno;

use super::context::Context;
use super::pattern;
use super::report::{Cause, Group};
use super::scratch;
use super::seen::{Mechanism, Seen};
use super::trouble::{During, Trouble};

pub(super) const MEMFD: Mechanism = Mechanism {
    id: "memfd",
    name: "memfd+seals",
    call: "memfd_create, fcntl (F_ADD_SEALS)",
    group: Group::Memory,
    since: (3, 17),
    since_text: "3.17",
};

pub(super) fn try_it(_: &Context) -> Result<Seen, Trouble> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("zhaul-doctor", flags).during("memfd_create")?;
    let content = pattern::bytes(pattern::FEW);
    scratch::write_all(file.as_fd(), content).preparing("write to a memfd")?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).during("fcntl (F_ADD_SEALS)")?;
    let held = fcntl_get_seals(&file)
        .during("fcntl (F_GET_SEALS)")?
        .contains(seals);
    let refused = [
        rustix::io::pwrite(&file, b"x", 0).map(drop),
        ftruncate(&file, 0),
    ];
    let kept = scratch::content_of(file.as_fd(), content.len()).preparing("read a memfd")?;
    if !held || refused != [Err(Errno::PERM); 2] || kept != content {
        return Err(Seen::missing(
            Cause::Misbehaves,
            "a sealed memfd could be changed",
            "after F_ADD_SEALS, write and ftruncate were not both refused",
        )
        .into());
    }
    Ok(Seen::works(format!(
        "a memfd of {} bytes was sealed; write and ftruncate were then refused (EPERM)",
        content.len()
    )))
}
