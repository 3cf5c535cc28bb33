//! `setsockopt(2)` TCP_ULP "tls", TLS_TX and TLS_RX: the kernel encrypts what is sent (kTLS).
//!
//! The handshake stays in user space; the keys it ends with are handed over here. TLS 1.2 with
//! AES-GCM-128 only, which every kernel with kTLS has.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// Which way keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// TLS_TX: what is sent is encrypted.
    Send,
    /// TLS_RX: what is received is decrypted.
    Receive,
}

/// The state of one direction: `struct tls12_crypto_info_aes_gcm_128` without its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aes128Gcm {
    /// Explicit part of the nonce.
    pub iv: [u8; 8],
    /// The key.
    pub key: [u8; 16],
    /// Implicit part of the nonce.
    pub salt: [u8; 4],
    /// Number of the next record, big-endian.
    pub sequence: [u8; 8],
}

/// True if a layer (kTLS, espintcp, smc) has been put on this TCP socket.
///
/// # Errors
/// ENOPROTOOPT before Linux 4.13 or for another kind of socket, ENOTSOCK.
pub fn has_layer(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut name = [0_u8; 16];
    let mut len = name.len() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel stores at most `len` bytes and
    // their number, both of which live on this stack until the call returns.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_TCP,
            libc::TCP_ULP,
            name.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(len > 0)
}

/// Puts the TLS layer on a connected TCP socket; without keys it changes nothing yet.
///
/// # Errors
/// ENOENT if the kernel has no kTLS or has not loaded the module `tls`, ENOTCONN for a socket that
/// is not connected, ENOPROTOOPT before Linux 4.13.
pub fn attach_tls(socket: BorrowedFd<'_>) -> io::Result<()> {
    let name = b"tls";
    // SAFETY: the descriptor is borrowed for the call; the option reads name.len() bytes of a
    // constant.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_TCP,
            libc::TCP_ULP,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Hands over the keys of one direction.
///
/// # Errors
/// ENOPROTOOPT without [`attach_tls`], EBUSY the second time, EINVAL or EOPNOTSUPP if the kernel
/// lacks the cipher.
pub fn set_keys(socket: BorrowedFd<'_>, direction: Direction, keys: &Aes128Gcm) -> io::Result<()> {
    let info = CryptoInfo {
        version: TLS_1_2_VERSION,
        cipher: TLS_CIPHER_AES_GCM_128,
        iv: keys.iv,
        key: keys.key,
        salt: keys.salt,
        sequence: keys.sequence,
    };
    let option = match direction {
        Direction::Send => TLS_TX,
        Direction::Receive => TLS_RX,
    };
    // SAFETY: the descriptor is borrowed for the call; the option reads a struct
    // tls12_crypto_info_aes_gcm_128, which lives on this stack.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_TLS,
            option,
            (&raw const info).cast(),
            size_of::<CryptoInfo>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// `struct tls12_crypto_info_aes_gcm_128` of `linux/tls.h`.
#[repr(C)]
struct CryptoInfo {
    version: u16,
    cipher: u16,
    iv: [u8; 8],
    key: [u8; 16],
    salt: [u8; 4],
    sequence: [u8; 8],
}

const _: () = assert!(size_of::<CryptoInfo>() == 40);
const TLS_TX: libc::c_int = 1;
const TLS_RX: libc::c_int = 2;
const TLS_1_2_VERSION: u16 = 0x0303;
const TLS_CIPHER_AES_GCM_128: u16 = 51;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    const KEYS: Aes128Gcm = Aes128Gcm {
        iv: [1; 8],
        key: [2; 16],
        salt: [3; 4],
        sequence: [0; 8],
    };

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_one_end_encrypts_the_other_decrypts() {
        let (mut near, mut far) = pair();
        if let Err(error) = attach_tls(near.as_fd()) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            zhaul_untested::skip("what_one_end_encrypts_the_other_decrypts", "no kTLS");
            return;
        }
        attach_tls(far.as_fd()).unwrap();
        set_keys(near.as_fd(), Direction::Send, &KEYS).unwrap();
        set_keys(far.as_fd(), Direction::Receive, &KEYS).unwrap();
        near.write_all(b"nobody reads this on the way").unwrap();
        let mut received = [0; 28];
        far.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"nobody reads this on the way");
    }

    #[test]
    fn keys_without_the_layer_are_an_error() {
        assert!(set_keys(pair().0.as_fd(), Direction::Send, &KEYS).is_err());
    }
}
