//! UNIX sockets in the abstract namespace (`unix(7)`): there is no file to be looked at, so whether
//! somebody listens is read from `/proc/net/unix`, which connects to nobody.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use rustix::io::Errno as Raw;

/// Connects to the stream socket of this name, without the `@`.
pub(super) fn connect(name: &[u8]) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Whether somebody listens there, with the errno that connecting would give. Where the table cannot
/// be read, or not show such a name, that is left to connecting.
pub(super) fn examine(name: &[u8]) -> Result<(), Raw> {
    let Ok(table) = std::fs::read("/proc/net/unix") else {
        return Ok(());
    };
    match name.contains(&b'\n') || listens(&table, name) {
        true => Ok(()),
        false => Err(Raw::CONNREFUSED),
    }
}

/// The table has a line for each socket: address, references, protocol, flags, type, state, inode and
/// name; the kernel writes each NUL of an abstract name, the first one among them, as `@`.
fn listens(table: &[u8], name: &[u8]) -> bool {
    let shown: Vec<u8> = std::iter::once(b'@')
        .chain(name.iter().map(|&byte| if byte == 0 { b'@' } else { byte }))
        .collect();
    table.split(|&byte| byte == b'\n').any(|line| {
        let mut fields = line.splitn(7, |&byte| byte == b' ').skip(3);
        let listens = fields.next() == Some(b"00010000") && fields.next() == Some(b"0001");
        // Behind the state: the inode, padded on its left, and the name, in which there may be spaces.
        let inode_and_name = fields.nth(1).unwrap_or_default().trim_ascii_start();
        let space = inode_and_name.iter().position(|&byte| byte == b' ');
        listens && space.is_some_and(|space| inode_and_name[space + 1..] == shown)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn whoever_listens_is_found_and_nobody_is_connected_to() {
        let name = format!("zhaul test of {}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        assert_eq!(examine(name.as_bytes()), Err(Raw::CONNREFUSED));
        let datagrams = UnixDatagram::bind_addr(&address).unwrap();
        assert_eq!(examine(name.as_bytes()), Err(Raw::CONNREFUSED));
        drop(datagrams);
        let listener = UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(examine(name.as_bytes()), Ok(()));
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let _stream = connect(name.as_bytes()).unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn a_nul_in_a_name_is_shown_as_an_at_sign() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01   345 @a@b\n";
        assert!(listens(table, b"a\0b") && !listens(table, b"a"));
    }
}
