//! Where clients come in, and how many may.
//!
//! A listener is drained in slices, so that a crowd at the door does not stop those inside. Above the limits a connection is
//! accepted and closed at once: the peer learns it now, and the queue of the system is not filled by those who cannot come
//! in. When the process has no descriptor left, the listener rests for a moment and the queue holds the crowd.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::{Limits, Listen};
use crate::core::ListenerKind;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Connections accepted from one listener in one turn of the loop.
pub(super) const ACCEPTS_PER_TURN: usize = 64;
/// Rest of a listener after the system refused a connection.
const REST: Duration = Duration::from_millis(250);
/// Silence after which the system looks whether a peer is there, for peers that have nothing to say and are told nothing.
const KEEPALIVE_TIME: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_RETRIES: u32 = 4;

/// Why a listener cannot be opened; says what to do.
#[derive(Debug)]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What is wrong, and the remedy.
    pub problem: String,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.problem)
    }
}

impl std::error::Error for ListenError {}

/// One door.
pub(crate) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) kind: ListenerKind,
    /// Somebody may be waiting.
    pub(super) is_ready: bool,
    /// Not asked again before.
    pub(super) rests_until: Option<Duration>,
    /// That the system gives no connections was said since the last one.
    is_refusal_said: bool,
}

/// What accepting gave.
pub(super) enum Accepted {
    Conn(TcpStream, IpAddr),
    /// Somebody came and was gone.
    Nothing,
    /// Nobody is waiting, or the listener rests.
    Empty,
}

impl Listener {
    fn open(kind: ListenerKind, address: SocketAddr, is_alone: bool) -> Result<Listener, ListenError> {
        if kind == ListenerKind::Plain && !address.ip().is_loopback() {
            let problem =
                "clients without TLS are let in on loopback addresses only; use 127.0.0.1 or [::1]".to_owned();
            return Err(ListenError { address, problem });
        }
        let socket = bind(address, is_alone)
            .map_err(|error| ListenError { address, problem: remedy(&error, address.port()) })?;
        Ok(Listener { socket, kind, is_ready: true, rests_until: None, is_refusal_said: false })
    }

    /// Takes the next connection, ready for use.
    pub(super) fn accept(&mut self, now: Duration, limits: &Limits) -> Accepted {
        match self.socket.accept() {
            Ok((stream, peer)) => {
                self.is_refusal_said = false;
                if let Err(error) = tune(&stream, limits) {
                    log::debug!("a connection from {peer} was gone at once: {error}");
                    return Accepted::Nothing;
                }
                Accepted::Conn(stream, peer.ip().to_canonical())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.is_ready = false;
                    Accepted::Empty
                }
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => Accepted::Nothing,
                // No descriptor or memory left, or the network is down. The edge was taken and will not come again.
                _ => {
                    if !std::mem::replace(&mut self.is_refusal_said, true) {
                        log::warn!("connections wait, the system gives none: {error}; raise the limit of open files");
                    }
                    self.rests_until = Some(now + REST);
                    Accepted::Empty
                }
            },
        }
    }
}

/// Opens every listener of the configuration.
///
/// # Errors
/// The first that cannot be opened.
pub(crate) fn open_all(listen: &Listen) -> Result<Vec<Listener>, ListenError> {
    let kinds = [
        (ListenerKind::StartTls, &listen.c2s),
        (ListenerKind::Tls, &listen.c2s_tls),
        (ListenerKind::Plain, &listen.c2s_plain),
    ];
    let addresses = || kinds.iter().flat_map(|(_, addresses)| addresses.iter());
    let mut listeners = Vec::new();
    for (kind, list) in kinds {
        for address in list {
            // `[::]` also takes IPv4, unless that has a listener of its own on the same port.
            let is_alone = !addresses().any(|other| other.is_ipv4() && other.port() == address.port());
            listeners.push(Listener::open(kind, *address, is_alone)?);
        }
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, is_alone: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_alone)?;
    }
    // So that a restart need not wait for the connections of the last run to time out.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn remedy(error: &io::Error, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "another program listens there (`ss -ltnp sport = :{port}` names it); stop it or choose another port"
            )
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "not permitted; choose a port above 1023, or let the server bind lower ones (in its systemd unit: \
             AmbientCapabilities=CAP_NET_BIND_SERVICE)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn tune(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    // A peer that vanished while we had something for it (RFC 6120 section 4.6.1).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(limits.write_stall))?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = limits;
    Ok(())
}

/// How many are in, together and from each address.
pub(super) struct Admission {
    connections_max: usize,
    per_address_max: usize,
    connections: usize,
    addresses: HashMap<IpAddr, usize>,
}

/// Why somebody cannot come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Server,
    Address,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Admission {
        Admission {
            connections_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            connections: 0,
            addresses: HashMap::new(),
        }
    }

    /// Counts one in. One that was let in is counted out by [`Admission::leave`].
    pub(super) fn enter(&mut self, peer: IpAddr) -> Result<(), Full> {
        if self.connections >= self.connections_max {
            return Err(Full::Server);
        }
        let count = self.addresses.entry(network(peer)).or_default();
        if *count >= self.per_address_max {
            return Err(Full::Address);
        }
        *count += 1;
        self.connections += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self, peer: IpAddr) {
        let peer = network(peer);
        let Some(count) = self.addresses.get_mut(&peer) else { return };
        *count -= 1;
        if *count == 0 {
            self.addresses.remove(&peer);
        }
        self.connections -= 1;
    }
}

/// Whom an address is counted for: an IPv6 host has a whole /64 to itself.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn admission() {
        let limits = Limits { connections_max: 5, connections_per_address_max: 2, ..Limits::default() };
        let mut admission = Admission::new(&limits);
        let mut check = |peer: &str, expected| assert_eq!(admission.enter(peer.parse().unwrap()), expected, "{peer}");
        check("192.0.2.1", Ok(()));
        check("192.0.2.1", Ok(()));
        check("192.0.2.1", Err(Full::Address));
        check("2001:db8::1", Ok(()));
        check("2001:db8::ffff:2", Ok(()));
        check("2001:db8::3", Err(Full::Address));
        check("2001:db8:0:1::3", Ok(()));
        check("192.0.2.2", Err(Full::Server));
        for peer in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::3", "198.51.100.1"] {
            admission.leave(peer.parse().unwrap());
        }
        assert_eq!((admission.connections, admission.addresses.len()), (0, 0));
    }

    #[test]
    fn doors() {
        let check = |listen: Listen| {
            let opened = open_all(&listen).map(|listeners| listeners.iter().map(|l| l.kind).collect::<Vec<_>>());
            opened.map_err(|error| error.address)
        };
        let local = "127.0.0.1:0".parse().unwrap();
        let any = "0.0.0.0:0".parse().unwrap();
        let listen = Listen { c2s: vec![local, any], c2s_tls: vec![local], c2s_plain: vec![local] };
        let kinds = [ListenerKind::StartTls, ListenerKind::StartTls, ListenerKind::Tls, ListenerKind::Plain];
        assert_eq!(check(listen), Ok(kinds.to_vec()));
        assert_eq!(check(Listen { c2s_plain: vec![local, any], ..Listen::default() }), Err(any));
        let taken =
            std::net::TcpListener::bind(local).and_then(|listener| Ok((listener.local_addr()?, listener))).unwrap();
        assert_eq!(check(Listen { c2s: vec![taken.0], ..Listen::default() }), Err(taken.0));
    }
}
