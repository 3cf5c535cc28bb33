//! Makes a soft-RoCE device, by the netlink message that `rdma link add` sends.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

/// Adds an RDMA device named `name` on the network device `network_device` of this name space.
///
/// # Errors
/// What the kernel answers: ENODEV without the network device, EEXIST, EOPNOTSUPP or EINVAL without
/// the module.
pub(crate) fn add(name: &str, network_device: &str) -> io::Result<()> {
    let mut attributes = Vec::new();
    for (kind, text) in [
        (RDMA_NLDEV_ATTR_DEV_NAME, name),
        (RDMA_NLDEV_ATTR_LINK_TYPE, "rxe"),
        (RDMA_NLDEV_ATTR_NDEV_NAME, network_device),
    ] {
        attributes.extend(attribute(kind, text));
    }
    let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::RDMA))?;
    send(&netlink, &request(&attributes), SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (filled, _) = recv(&netlink, &mut answer[..], RecvFlags::empty())?;
    // struct nlmsghdr, then in an NLMSG_ERROR the negative error number, 0 for done.
    let word = |at: usize| -> Option<i32> {
        let bytes = answer[..filled].get(at..at + 4)?;
        Some(i32::from_ne_bytes(bytes.try_into().ok()?))
    };
    match word(HEADER_BYTES) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn request(attributes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_BYTES + attributes.len()).unwrap();
    let kind = (RDMA_NL_NLDEV << 10) | RDMA_NLDEV_CMD_NEWLINK;
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    // Sequence number and port, neither of which matters to one question.
    message.extend([0; 8]);
    message.extend(attributes);
    message
}

/// A string as a netlink attribute, ended and padded.
fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let len = u16::try_from(4 + text.len() + 1).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(usize::from(len).next_multiple_of(4), 0);
    bytes
}

const HEADER_BYTES: usize = 16;
// linux/netlink.h, rdma/rdma_netlink.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const RDMA_NL_NLDEV: u16 = 5;
const RDMA_NLDEV_CMD_NEWLINK: u16 = 3;
const RDMA_NLDEV_ATTR_DEV_NAME: u16 = 2;
const RDMA_NLDEV_ATTR_NDEV_NAME: u16 = 51;
const RDMA_NLDEV_ATTR_LINK_TYPE: u16 = 65;
