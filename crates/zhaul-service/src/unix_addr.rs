//! UNIX sockets: their names, and who may connect to those that have one in the file system.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use nix::unistd::{Group, User};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

/// `sockaddr_un` holds 108 bytes, of which one is the NUL behind a path, or before an abstract name.
const MAX_BYTES: usize = 107;

/// The name of a UNIX stream socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnixAddr {
    /// A file.
    Path(PathBuf),
    /// A name in the abstract namespace, which is that of the network namespace: there is no file,
    /// nothing is left behind, and everybody who knows the name may connect (see `unix(7)`). Written
    /// with an `@` before it.
    Abstract(Vec<u8>),
}

impl UnixAddr {
    /// As the kernel takes it.
    ///
    /// # Errors
    /// ENAMETOOLONG for a name that was not made by parsing and is too long.
    pub fn to_kernel(&self) -> Result<SocketAddrUnix, Errno> {
        match self {
            Self::Path(path) => SocketAddrUnix::new(path),
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
        }
    }

    /// From the kernel; `None` for a socket without a name.
    pub fn from_kernel(address: &SocketAddrUnix) -> Option<Self> {
        if let Some(name) = address.abstract_name() {
            return Some(Self::Abstract(name.to_vec()));
        }
        let path = address.path_bytes().filter(|path| !path.is_empty())?;
        Some(Self::Path(OsStr::from_bytes(path).into()))
    }

    /// As runtimes take it that know paths only: an abstract name is behind a NUL.
    pub fn to_path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Abstract(name) => {
                let bytes = [b"\0", name.as_slice()].concat();
                std::ffi::OsString::from_vec(bytes).into()
            }
        }
    }
}

/// What stands behind `unix:`.
impl FromStr for UnixAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, what) = match text.strip_prefix('@') {
            Some(name) => (name, "name"),
            None => (text, "path"),
        };
        match name.len() {
            0 => Err("unix: needs a path or a name (write unix:/path or unix:@name)".to_owned()),
            1..=MAX_BYTES if what == "name" => Ok(Self::Abstract(name.into())),
            1..=MAX_BYTES => Ok(Self::Path(name.into())),
            n => Err(format!(
                "the socket's {what} has {n} bytes ({MAX_BYTES} is the most that Linux takes)"
            )),
        }
    }
}

impl fmt::Display for UnixAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
        }
    }
}

/// Who may connect to a socket that has a name in the file system: the mode and the owner of its
/// file. What is not said is as the process makes files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The mode, exactly: the process's umask takes nothing away.
    pub mode: Option<u32>,
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Access {
    /// Splits `NAME,mode=660,owner=USER:GROUP` into the name and what is said about it.
    pub(crate) fn split(text: &str) -> Result<(&str, Self), String> {
        let mut access = Self::default();
        let mut name = text;
        while let Some((rest, last)) = name.rsplit_once(',') {
            if let Some(mode) = last.strip_prefix("mode=") {
                access.mode = Some(parse_mode(mode)?);
            } else if let Some(owner) = last.strip_prefix("owner=") {
                (access.uid, access.gid) = parse_owner(owner)?;
            } else {
                break;
            }
            name = rest;
        }
        Ok((name, access))
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o777);
    mode.ok_or_else(|| format!("mode={text} is no mode (write three octal digits, as mode=660)"))
}

fn parse_owner(text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && group.is_empty() {
        return Err("owner= names nobody (write USER, USER:GROUP or :GROUP)".to_owned());
    }
    let id = |name: &str, what: &str, find: &dyn Fn(&str) -> Option<u32>| match name {
        "" => Ok(None),
        name => match name.parse().ok().or_else(|| find(name)) {
            None => Err(format!("owner={text}: there is no {what} {name:?}")),
            id => Ok(id),
        },
    };
    let find_user = |name: &str| Some(User::from_name(name).ok()??.uid.as_raw());
    let find_group = |name: &str| Some(Group::from_name(name).ok()??.gid.as_raw());
    Ok((
        id(user, "user", &find_user)?,
        id(group, "group", &find_group)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_behind_an_at_sign_is_abstract() {
        let parse = |text: &str| text.parse::<UnixAddr>();
        assert_eq!(parse("@a"), Ok(UnixAddr::Abstract(b"a".to_vec())));
        assert_eq!(parse("./@a"), Ok(UnixAddr::Path("./@a".into())));
        assert_eq!(parse("@a").unwrap().to_string(), "unix:@a");
        for (text, why) in [("", "unix:/path"), ("@", "unix:@name")] {
            assert!(parse(text).unwrap_err().contains(why), "{text:?}");
        }
        for prefix in ["", "@"] {
            let long = |n| format!("{prefix}{}", "x".repeat(n));
            assert!(parse(&long(107)).is_ok_and(|addr| addr.to_kernel().is_ok()));
            assert!(parse(&long(108)).unwrap_err().contains("107"));
        }
        let addr = parse("@a").unwrap();
        let back = UnixAddr::from_kernel(&addr.to_kernel().unwrap());
        assert_eq!(back, Some(addr));
    }

    #[test]
    fn mode_and_owner_stand_behind_the_path() {
        let all = Access {
            mode: Some(0o660),
            uid: Some(0),
            gid: Some(7),
        };
        for (text, expected) in [
            ("/a", ("/a", Access::default())),
            ("/a,mode=660,owner=root:7", ("/a", all)),
            ("/a,owner=0:7,mode=0660", ("/a", all)),
            ("/a,b", ("/a,b", Access::default())),
        ] {
            assert_eq!(Access::split(text), Ok(expected), "{text}");
        }
        let group = Access::split("/a,owner=:3").unwrap().1;
        assert_eq!((group.uid, group.gid), (None, Some(3)));
        for (text, why) in [
            ("/a,mode=", "octal"),
            ("/a,mode=9", "octal"),
            ("/a,mode=4755", "octal"),
            ("/a,owner=", "names nobody"),
            ("/a,owner=no-such-user", "no user \"no-such-user\""),
            ("/a,owner=:no-such-group", "no group \"no-such-group\""),
        ] {
            let error = Access::split(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
