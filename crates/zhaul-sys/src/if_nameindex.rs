//! `if_nameindex(3)`: the network interfaces of this network namespace, with and without addresses.
//!
//! `/sys/class/net` shows the namespace of whoever mounted it, which may be another one.

use std::ffi::CStr;
use std::io;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name, such as `eth0`.
    pub name: String,
}

/// All interfaces of this network namespace.
///
/// # Errors
/// Whatever opening a netlink socket gives.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    // SAFETY: takes nothing; returns an array, freed below, or null.
    let first = unsafe { libc::if_nameindex() };
    if first.is_null() {
        return Err(io::Error::last_os_error());
    }
    let array = Array(first);
    let mut found = Vec::new();
    let mut next = array.0;
    loop {
        // SAFETY: next is an element of the array, which ends with one whose index is 0 and lives
        // until `array` is dropped.
        let entry = unsafe { next.read() };
        if entry.if_index == 0 || entry.if_name.is_null() {
            return Ok(found);
        }
        // SAFETY: if_name is a NUL-terminated string that belongs to the array.
        let name = unsafe { CStr::from_ptr(entry.if_name) };
        found.push(Interface {
            index: entry.if_index,
            name: name.to_string_lossy().into(),
        });
        // SAFETY: this was not the last element, so there is another one.
        next = unsafe { next.add(1) };
    }
}

/// Owns the array that if_nameindex allocated.
struct Array(*mut libc::if_nameindex);

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: the array came from if_nameindex and is freed only here.
        unsafe { libc::if_freenameindex(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_one_of_them() {
        let found = interfaces().unwrap();
        assert_eq!(found.iter().filter(|entry| entry.name == "lo").count(), 1);
        assert!(found.iter().all(|entry| entry.index > 0));
    }
}
