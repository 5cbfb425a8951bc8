//! One client connection: plain TCP or TLS, with just enough XML to find first-level elements.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::Outcome;

/// How long a peer may say nothing where something is expected.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What is not an element within this many bytes is not what we talk to.
const ELEMENT_BYTES_MAX: usize = 1 << 20;

/// A connection to the server.
pub struct Wire {
    pub socket: mio::net::TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Received, decrypted, not yet looked at.
    pub input: Vec<u8>,
}

impl Wire {
    /// Connects. Refuses whatever is not this machine, because no certificate is checked and no bound of others respected.
    pub fn connect(address: SocketAddr) -> Outcome<Wire> {
        if !address.ip().is_loopback() {
            return Err(format!("{address} is not a loopback address").into());
        }
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Wire { socket: mio::net::TcpStream::from_std(socket), tls: None, input: Vec::new() })
    }

    /// From here on TLS. The handshake is done with the first byte that is read or written.
    pub fn start_tls(&mut self, config: &Arc<ClientConfig>, domain: &str) -> Outcome<()> {
        let name = ServerName::try_from(domain.to_owned())?;
        self.tls = Some(Box::new(ClientConnection::new(config.clone(), name)?));
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.send(b"")?;
            self.receive()?;
        }
        self.send(b"")
    }

    /// Sends all of it, waiting where the socket is full.
    pub fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        let Some(tls) = &mut self.tls else { return write_all(&mut &self.socket, bytes) };
        let mut records = Vec::new();
        let mut rest = bytes;
        loop {
            let taken = tls.writer().write(rest)?;
            rest = &rest[taken..];
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
            if rest.is_empty() || taken == 0 {
                break;
            }
        }
        write_all(&mut &self.socket, &records)
    }

    /// Appends what has arrived to `input`. Never waits.
    pub fn poll(&mut self) -> Outcome<()> {
        let mut scratch = [0; 16 * 1024];
        loop {
            let count = match (&self.socket).read(&mut scratch) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let arrived = &scratch[..count];
            match &mut self.tls {
                None => self.input.extend_from_slice(arrived),
                Some(tls) => decrypt(tls, arrived, &mut self.input)?,
            }
            // A short read: nothing is left, and what comes later raises a new event.
            if count < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Waits until something has arrived.
    pub fn receive(&mut self) -> Outcome<()> {
        wait(&self.socket, Readiness::Read)?;
        self.poll()
    }

    /// Waits for the next first-level element (or stream header, whose end tag is yet to come) and takes it.
    pub fn element(&mut self) -> Outcome<String> {
        loop {
            if let Some(end) = element_end(&self.input) {
                return Ok(String::from_utf8(self.input.drain(..end).collect())?);
            }
            if self.input.len() > ELEMENT_BYTES_MAX {
                return Err("the server's element does not end".into());
            }
            self.receive()?;
        }
    }
}

enum Readiness {
    Read,
    Write,
}

/// Waits with a poll of its own: used while logging in and where a socket is full, never where speed is measured.
fn wait(socket: &mio::net::TcpStream, readiness: Readiness) -> Outcome<()> {
    use std::os::fd::AsRawFd;
    let mut poll = mio::Poll::new()?;
    let mut events = mio::Events::with_capacity(1);
    let interest = match readiness {
        Readiness::Read => mio::Interest::READABLE,
        Readiness::Write => mio::Interest::WRITABLE,
    };
    let fd = socket.as_raw_fd();
    poll.registry().register(&mut mio::unix::SourceFd(&fd), mio::Token(0), interest)?;
    poll.poll(&mut events, Some(PATIENCE))?;
    match events.is_empty() {
        true => Err("the server says nothing".into()),
        false => Ok(()),
    }
}

fn write_all(socket: &mut &mio::net::TcpStream, mut bytes: &[u8]) -> Outcome<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(socket, Readiness::Write)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn decrypt(tls: &mut ClientConnection, mut records: &[u8], input: &mut Vec<u8>) -> Outcome<()> {
    let mut plain = [0; 16 * 1024];
    while !records.is_empty() {
        tls.read_tls(&mut records)?;
        tls.process_new_packets()?;
        loop {
            match tls.reader().read(&mut plain) {
                Ok(0) => return Err("the server closed the TLS connection".into()),
                Ok(count) => input.extend_from_slice(&plain[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Where the first element ends. Trusts the server to send well-formed XML without `>` in attributes' values.
fn element_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0;
    let mut at = 0;
    loop {
        let open = at + memchr::memchr(b'<', &bytes[at..])?;
        let close = open + memchr::memchr(b'>', &bytes[open..])?;
        at = close + 1;
        let tag = &bytes[open + 1..close];
        match tag {
            [b'?', ..] => continue,
            [b'/', ..] => depth -= 1,
            [.., b'/'] => {}
            _ if tag.starts_with(b"stream:stream") => return Some(at),
            _ => depth += 1,
        }
        if depth <= 0 {
            return Some(at);
        }
    }
}
