//! A bare relay, to compare with: joins its connections in the order in which they come, the first with the second, the third
//! with the fourth, and copies bytes between them without looking at them.
//!
//! ```text
//! relay --listen 127.0.0.1:9000 [--tls | --fan-out]
//! ```
//!
//! With `--fan-out` it copies what comes over one connection to all others, which is the least that a room could cost.
//!
//! One mio loop, one read and one write for each event. TLS is rustls with its buffered API. What a server of this shape costs
//! above this is what it knows of XMPP. Absent is what a server cannot do without: a receiver that does not read is dropped.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The listener's token; a connection's is its index.
const LISTENER: Token = Token(usize::MAX);

/// Connections that are taken before the relay must be started anew.
const CONNECTIONS_MAX: usize = 10_000;

struct Connection {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

fn main() -> Outcome<()> {
    let mut arguments = pico_args::Arguments::from_env();
    let address: SocketAddr = arguments.value_from_str("--listen")?;
    let fan_out = arguments.contains("--fan-out");
    let tls = if arguments.contains("--tls") { Some(tls_config()?) } else { None };
    if !address.ip().is_loopback() {
        return Err("loopback addresses only".into());
    }
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut scratch = Scratch { raw: vec![0; 64 * 1024], plain: Vec::new(), out: Vec::new() };
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            match error.kind() {
                io::ErrorKind::Interrupted => continue,
                _ => return Err(error.into()),
            }
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut connections, tls.as_ref())?,
                Token(index) if fan_out => {
                    if copy_to_all(&mut connections, index, &mut scratch).is_err() {
                        connections[index] = None;
                    }
                }
                Token(index) => {
                    if copy(&mut connections, index, &mut scratch).is_err() {
                        drop_pair(&mut connections, index);
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
    tls: Option<&Arc<ServerConfig>>,
) -> Outcome<()> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if connections.len() == CONNECTIONS_MAX {
            return Err("too many connections".into());
        }
        socket.set_nodelay(true)?;
        poll.registry().register(&mut socket, Token(connections.len()), Interest::READABLE)?;
        let tls = tls.map(|config| ServerConnection::new(config.clone())).transpose()?.map(Box::new);
        connections.push(Some(Connection { socket, tls }));
        // The other end of the pair is not there yet: nothing is lost as long as the clients connect before they send.
    }
}

/// Who leaves before the other end has come gives up the place, so that those who come later are not joined wrongly.
fn drop_pair(connections: &mut Vec<Option<Connection>>, index: usize) {
    if index + 1 == connections.len() && index.is_multiple_of(2) {
        connections.pop();
        return;
    }
    for end in [index, index ^ 1] {
        if let Some(connection) = connections.get_mut(end) {
            *connection = None;
        }
    }
}

struct Scratch {
    raw: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
}

/// Reads until there is no more, and writes all of it to the other end at once.
fn copy(connections: &mut [Option<Connection>], index: usize, scratch: &mut Scratch) -> Outcome<()> {
    loop {
        let Some(connection) = connections.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        let count = match connection.socket.read(&mut scratch.raw) {
            Ok(0) => return Err("closed".into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        scratch.plain.clear();
        match &mut connection.tls {
            None => scratch.plain.extend_from_slice(&scratch.raw[..count]),
            Some(tls) => {
                decrypt(tls, &scratch.raw[..count], &mut scratch.plain)?;
                connection.write(b"", &mut scratch.out)?;
            }
        }
        if !scratch.plain.is_empty() {
            let peer = connections.get_mut(index ^ 1).and_then(Option::as_mut).ok_or("no other end")?;
            peer.write(&scratch.plain, &mut scratch.out)?;
        }
        // A short read: nothing is left, and what comes later raises a new event.
        if count < scratch.raw.len() {
            return Ok(());
        }
    }
}

/// Reads what is there and writes it to everybody else.
fn copy_to_all(connections: &mut [Option<Connection>], index: usize, scratch: &mut Scratch) -> Outcome<()> {
    loop {
        let Some(connection) = connections.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        let count = match connection.socket.read(&mut scratch.raw) {
            Ok(0) => return Err("closed".into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for (other, connection) in connections.iter_mut().enumerate() {
            if let Some(connection) = connection.as_mut().filter(|_| other != index) {
                write_all(&mut connection.socket, &scratch.raw[..count])?;
            }
        }
        if count < scratch.raw.len() {
            return Ok(());
        }
    }
}

impl Connection {
    fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Outcome<()> {
        let Some(tls) = &mut self.tls else { return write_all(&mut self.socket, bytes) };
        out.clear();
        tls.writer().write_all(bytes)?;
        while tls.wants_write() {
            tls.write_tls(out)?;
        }
        write_all(&mut self.socket, out)
    }
}

/// A full socket ends the pair.
fn write_all(socket: &mut TcpStream, bytes: &[u8]) -> Outcome<()> {
    match bytes.is_empty() || socket.write(bytes)? == bytes.len() {
        true => Ok(()),
        false => Err("the receiver does not read".into()),
    }
}

fn decrypt(tls: &mut ServerConnection, mut records: &[u8], plain: &mut Vec<u8>) -> Outcome<()> {
    while !records.is_empty() {
        tls.read_tls(&mut records)?;
        let state = tls.process_new_packets()?;
        let have = plain.len();
        plain.resize(have + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[have..])?;
    }
    Ok(())
}

fn tls_config() -> Outcome<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(Arc::new(config))
}
