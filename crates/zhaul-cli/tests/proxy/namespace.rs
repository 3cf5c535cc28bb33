//! What takes a network of its own: TCP Fast Open, and addresses that are somebody else's.
//!
//! The proxy, its servers and its clients are in network namespaces that only root can make; their
//! sysctls and routes are nobody else's.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use zhaul_sys::setsockopt::{IntOption, set};

use crate::support::{PATIENCE, Servers, configured, echo, has_program, is_root};

/// A network namespace, which lives as long as a process in it.
struct Network {
    child: Child,
    namespace: File,
}

impl Network {
    /// A network after these commands, or what hinders.
    fn new(script: &str) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can have a network of its own".to_owned());
        }
        if !["unshare", "ip"].into_iter().all(has_program) {
            return Err("unshare or ip is not installed".to_owned());
        }
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-ec"])
            .arg(format!("{script}\necho ready\nexec cat"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut line = String::new();
        let _ = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
        if line != "ready\n" {
            let _ = child.wait();
            return Err("the network cannot be set up here".to_owned());
        }
        let namespace = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
        Ok(Self { child, namespace })
    }

    /// Does something in it; threads and processes that it starts are in it, too.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.namespace.as_fd(), kind).unwrap();
            work()
        };
        // A thread of its own, as nobody gets out again.
        std::thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// Connections of this network that began with data in their SYN: made, and taken.
fn fast_opens() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    ["TCPFastOpenActive", "TCPFastOpenPassive"].map(|wanted| {
        let place = names.split(' ').position(|name| name == wanted).unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    })
}

/// Connects with the first bytes in the SYN.
fn say_at_once(address: SocketAddr, words: &[u8]) -> TcpStream {
    let socket: OwnedFd =
        rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set(socket.as_fd(), IntOption::TcpFastOpenConnect, 1).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(words).unwrap();
    stream
}

#[test]
fn data_comes_and_goes_with_the_first_segment() {
    const NAME: &str = "data_comes_and_goes_with_the_first_segment";
    // Both ends, without cookies, only for sockets that ask for it.
    let script = "ip link set lo up; echo 519 > /proc/sys/net/ipv4/tcp_fastopen";
    let network = match Network::new(script) {
        Ok(network) => network,
        Err(why) => return zhaul_untested::skip(NAME, why),
    };
    network.inside(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set(listener.as_fd(), IntOption::TcpFastOpen, 16).unwrap();
        let server = Servers::start_on(listener, echo);
        for (length, towards_servers, expected) in [(0, false, 0), (16, true, 2)] {
            let proxy = configured(&format!(
                "[listeners.l]\nlisten = \"127.0.0.1:0\"\nto = \"p\"\nfast_open = {length}\n\
                 [pools.p]\nservers = [{{ address = \"{}\" }}]\nsend_proxy = \"v1\"\n\
                 fast_open = {towards_servers}\n",
                server.address
            ));
            let before = fast_opens();
            let mut client = say_at_once(proxy.address(), b"hello");
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = String::new();
            client.read_to_string(&mut back).unwrap();
            let own = client.local_addr().unwrap();
            let there = proxy.address();
            assert_eq!(
                back,
                format!(
                    "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello",
                    own.port(),
                    there.port()
                )
            );
            let taken = fast_opens()[1] - before[1];
            assert_eq!(taken, expected, "queue {length}, servers {towards_servers}");
        }
    });
}

/// The client is in a network of its own and wants an address that nobody has; routes bring it to
/// the proxy, which goes on to the server as the client.
#[test]
fn a_transparent_proxy_takes_any_address_and_has_the_clients() {
    const NAME: &str = "a_transparent_proxy_takes_any_address_and_has_the_clients";
    let set_up = || -> Result<[Network; 2], String> {
        let clients = Network::new("")?;
        let script = format!(
            "ip link set lo up
             for interface in all default lo; do
                 echo 0 > /proc/sys/net/ipv4/conf/$interface/rp_filter
             done
             ip link add near type veth peer name far netns {}
             ip addr add 10.9.0.1/24 dev near
             ip link set near up
             # Whatever comes from there, and what the server answers, is for this machine.
             ip rule add iif near lookup 100
             ip rule add ipproto tcp sport 9000 lookup 100
             ip route add local default dev lo table 100",
            clients.child.id()
        );
        Ok([clients, Network::new(&script)?])
    };
    let [clients, network] = match set_up() {
        Ok(networks) => networks,
        Err(why) => return zhaul_untested::skip(NAME, why),
    };
    clients.inside(|| {
        ip("addr add 10.9.0.2/24 dev far");
        ip("link set far up");
        ip("route add default via 10.9.0.1");
    });
    network.inside(|| {
        let listener = TcpListener::bind("10.9.0.1:9000").unwrap();
        let _server = Servers::start_on(listener, |mut stream| {
            let peer = stream.peer_addr().unwrap();
            let _ = write!(stream, "{}", peer.ip());
        });
        let proxy = configured(
            "[listeners.l]\nlisten = \"0.0.0.0:0\"\nto = \"p\"\ntransparent = true\n\
             [pools.p]\nservers = [{ address = \"10.9.0.1:9000\" }]\nsource = \"client\"\n",
        );
        let wanted = SocketAddr::from(([198, 51, 100, 9], proxy.address().port()));
        let answer = clients.inside(|| {
            let mut client = TcpStream::connect_timeout(&wanted, PATIENCE).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(client.peer_addr().unwrap(), wanted);
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        });
        assert_eq!(answer, "10.9.0.2");
        assert_eq!(proxy.log(1)[0]["cause"], "closed-by-server");
    });
}
