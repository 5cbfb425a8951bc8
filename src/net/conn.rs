//! One nonblocking socket: what it has read and not handed over, what it has to send, and how it ends.
//!
//! A connection is in the clear, waits for `<proceed/>` to be sent, or is under TLS; it is open, closing (nothing more is
//! handed over, output is flushed, then TLS and TCP are shut down for writing) or lingering (the peer's bytes are thrown away
//! until it closes too, because a socket closed over unread input resets the connection and takes our last words with it).
//! Idle, it owns no buffer.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::time::Duration;

use mio::net::TcpStream;

use super::scratch::{Filling, READ_BYTES, Scratch};
use super::tls::{Session, TlsEnd};
use crate::core::{CloseReason, ConnId, TlsFacts, Wire};

/// Unread bytes up to this are copied in front of what is read, so that the core sees one piece; more than this stays where it
/// is and what is read is appended.
const PREPEND_BYTES_MAX: usize = 4096;

/// A connection.
pub(super) struct Conn {
    socket: TcpStream,
    /// Where it comes from.
    pub(super) peer: IpAddr,
    layer: Layer,
    /// How far its end has come.
    pub(super) phase: Phase,
    /// Read, decrypted, offered and not consumed.
    pub(super) unread: Vec<u8>,
    /// When what is waited for is given up: a stalled write, the peer's close, the core's last look at what is unread.
    pub(super) deadline: Option<Duration>,
    /// When the timer that looks at `deadline` fires, if there is one.
    pub(super) timer: Option<Duration>,
    /// The socket may have something to read.
    pub(super) is_readable: bool,
    /// The poller says that the peer has closed, so that a short read is not the last.
    pub(super) is_hung_up: bool,
    /// The end of the peer's bytes was read.
    pub(super) is_ended: bool,
    /// Too much is unread: nothing is read until the core asks for it.
    pub(super) is_paused: bool,
    /// The core has asked to be offered the unread bytes again.
    pub(super) is_resumed: bool,
    /// On the list of those to be served.
    pub(super) is_queued: bool,
    /// Registered for writability.
    pub(super) is_blocked: bool,
    /// The core was told that it is gone.
    pub(super) is_told: bool,
    /// An [`crate::core::Input::Flushed`] is owed when TLS' records are sent.
    owes_flushed: bool,
}

/// What lies between the socket and the core.
enum Layer {
    Clear,
    /// What is unsent goes in the clear, nothing is read, then TLS begins for this domain.
    Proceed(Box<str>),
    Tls(Box<Tls>),
}

struct Tls {
    session: Session,
    /// Records that the socket did not take.
    unsent: Vec<u8>,
    is_close_sent: bool,
}

/// How far a connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Output is flushed, then it is shut down for writing. The core is told this reason.
    Closing(CloseReason),
    /// Shut down for writing; waits for the peer.
    Lingering,
}

/// What came of reading.
#[derive(Default)]
pub(super) struct Filled {
    /// The TLS handshake is done.
    pub(super) secured: Option<TlsFacts>,
    /// TLS failed.
    pub(super) failed: Option<rustls::Error>,
    /// TLS has something to send.
    pub(super) has_output: bool,
}

/// What came of writing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flush {
    pub(super) outcome: Outcome,
    /// The core waits to hear that all is sent.
    pub(super) is_owed: bool,
    /// The socket took something.
    pub(super) has_moved: bool,
}

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is left that could be sent now.
    Done,
    /// The socket takes no more.
    Blocked,
    /// All is sent, our side is shut down.
    ShutDown,
    /// The socket or TLS failed.
    Broken,
}

impl Conn {
    /// A connection in the clear, or under TLS from its first byte.
    pub(super) fn new(socket: TcpStream, peer: IpAddr, session: Option<Session>) -> Conn {
        Conn {
            socket,
            peer,
            layer: session.map_or(Layer::Clear, Layer::secured_by),
            phase: Phase::Open,
            unread: Vec::new(),
            deadline: None,
            timer: None,
            is_readable: false,
            is_hung_up: false,
            is_ended: false,
            is_paused: false,
            is_resumed: false,
            is_queued: false,
            is_blocked: false,
            is_told: false,
            owes_flushed: false,
        }
    }

    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(&self.layer, Layer::Tls(tls) if tls.session.is_handshaking())
    }

    fn can_read(&self) -> bool {
        self.is_readable && !self.is_paused && !self.is_ended && !matches!(self.layer, Layer::Proceed(_))
    }

    /// Whether [`Conn::fill`] would give anything to offer.
    pub(super) fn has_work(&self) -> bool {
        self.is_resumed || self.can_read()
    }

    /// What waits in the clear goes out in the clear, then TLS begins (RFC 6120 section 5.4.3). Whatever the peer sent in clear
    /// behind its request could have been put in by anyone and is thrown away.
    pub(super) fn proceed(&mut self, domain: String) {
        self.unread = Vec::new();
        self.is_paused = false;
        self.layer = Layer::Proceed(domain.into_boxed_str());
    }

    /// The domain for which TLS is to begin now that all is flushed.
    pub(super) fn wants_tls(&self) -> Option<&str> {
        match &self.layer {
            Layer::Proceed(domain) => Some(domain),
            _ => None,
        }
    }

    /// TLS from the next byte.
    pub(super) fn start_tls(&mut self, session: Session) {
        self.layer = Layer::secured_by(session);
    }

    /// Puts into `scratch.plain` what is unread (unless that is long, then it stays in `unread` and goes before) and what the
    /// socket gives, `bytes_max` at most. What is put there must be offered.
    pub(super) fn fill(&mut self, scratch: &mut Scratch, bytes_max: usize) -> Filled {
        self.is_resumed = false;
        let mut filled = Filled::default();
        if self.unread.len() <= PREPEND_BYTES_MAX {
            scratch.plain.extend(&self.unread);
            self.unread.clear();
        }
        if !self.can_read() {
            return filled;
        }
        match &mut self.layer {
            Layer::Proceed(_) => {}
            Layer::Clear => self.read(&mut scratch.plain, bytes_max),
            Layer::Tls(tls) => {
                tls.session.begin(&mut scratch.cipher);
                self.read(&mut scratch.cipher, bytes_max);
                filled = self.decrypt(scratch);
            }
        }
        filled
    }

    fn decrypt(&mut self, scratch: &mut Scratch) -> Filled {
        let Layer::Tls(tls) = &mut self.layer else { return Filled::default() };
        let Scratch { cipher, plain, out } = scratch;
        let received = tls.session.receive(cipher, plain, out);
        tls.unsent.extend_from_slice(out.filled());
        let failed = match received.end {
            None => None,
            Some(TlsEnd::Closed) => {
                self.is_ended = true;
                None
            }
            Some(TlsEnd::Failed(error)) => {
                tls.is_close_sent = true;
                Some(error)
            }
        };
        Filled { secured: received.secured, failed, has_output: out.len() > 0 }
    }

    /// Reads until the socket is empty, `bytes_max` is reached or the peer's bytes end.
    fn read(&mut self, into: &mut Filling, bytes_max: usize) {
        let mut got = 0;
        while got < bytes_max {
            let wanted = READ_BYTES.min(bytes_max - got);
            match self.socket.read(&mut into.room(wanted)[..wanted]) {
                Ok(0) => {
                    self.is_ended = true;
                    self.is_readable = false;
                    return;
                }
                Ok(count) => {
                    into.advance(count);
                    got += count;
                    // The socket is empty and will be reported when it is not; only an end that is already there will not.
                    if count < wanted && !self.is_hung_up {
                        self.is_readable = false;
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_ended = error.kind() != io::ErrorKind::WouldBlock;
                    self.is_readable = false;
                    return;
                }
            }
        }
    }

    /// Throws away what the peer still sends.
    pub(super) fn discard(&mut self, scratch: &mut Scratch, bytes_max: usize) {
        if self.is_readable && !self.is_ended {
            self.read(&mut scratch.plain, bytes_max);
        }
    }

    /// Sends what waits, until nothing is left or the socket takes no more.
    pub(super) fn flush(&mut self, id: ConnId, wire: &mut Wire, scratch: &mut Scratch) -> Flush {
        let mut flush = Flush { outcome: Outcome::Done, is_owed: false, has_moved: false };
        flush.outcome = match &self.layer {
            Layer::Clear | Layer::Proceed(_) => self.flush_clear(id, wire, &mut flush),
            Layer::Tls(_) => self.flush_tls(id, wire, scratch, &mut flush),
        };
        if flush.outcome == Outcome::Done && matches!(self.phase, Phase::Closing(_)) {
            // An error here means that the peer has gone already.
            let _ = self.socket.shutdown(Shutdown::Write);
            self.layer = Layer::Clear;
            self.unread = Vec::new();
            flush.outcome = Outcome::ShutDown;
        }
        flush
    }

    fn flush_clear(&mut self, id: ConnId, wire: &mut Wire, flush: &mut Flush) -> Outcome {
        let unsent = wire.unsent(id);
        let len = unsent.len();
        let count = match unsent {
            [] => 0,
            unsent => match write(&mut self.socket, unsent) {
                Ok(count) => count,
                Err(_) => return Outcome::Broken,
            },
        };
        flush.has_moved = count > 0;
        // A watch is owed also when nothing was left to send.
        flush.is_owed = wire.sent(id, count);
        if count == len { Outcome::Done } else { Outcome::Blocked }
    }

    fn flush_tls(&mut self, id: ConnId, wire: &mut Wire, scratch: &mut Scratch, flush: &mut Flush) -> Outcome {
        let Layer::Tls(tls) = &mut self.layer else { return Outcome::Broken };
        loop {
            if !tls.unsent.is_empty() {
                match write(&mut self.socket, &tls.unsent) {
                    Ok(count) if count == tls.unsent.len() => tls.unsent = Vec::new(),
                    Ok(count) => {
                        flush.has_moved |= count > 0;
                        tls.unsent.drain(..count);
                        return Outcome::Blocked;
                    }
                    Err(_) => return Outcome::Broken,
                }
                flush.has_moved = true;
            }
            flush.is_owed |= std::mem::take(&mut self.owes_flushed);

            // In the handshake nothing of the core's can go out: neither in the clear nor encrypted (RFC 6120 section 5.4.3.2).
            let unsent = if tls.session.is_handshaking() { &[] } else { wire.unsent(id) };
            scratch.out.clear();
            if !unsent.is_empty() {
                let Ok(taken) = tls.session.encrypt(unsent, &mut scratch.out) else { return Outcome::Broken };
                self.owes_flushed |= wire.sent(id, taken);
            } else if matches!(self.phase, Phase::Closing(_)) && !tls.is_close_sent {
                tls.is_close_sent = true;
                tls.session.encrypt_close(&mut scratch.out);
            }
            if scratch.out.len() == 0 {
                self.owes_flushed |= !tls.session.is_handshaking() && wire.sent(id, 0);
                flush.is_owed |= std::mem::take(&mut self.owes_flushed);
                return Outcome::Done;
            }

            let records = scratch.out.filled();
            match write(&mut self.socket, records) {
                Ok(count) => {
                    flush.has_moved |= count > 0;
                    if count < records.len() {
                        tls.unsent.extend_from_slice(&records[count..]);
                        return Outcome::Blocked;
                    }
                }
                Err(_) => return Outcome::Broken,
            }
        }
    }
}

impl Layer {
    fn secured_by(session: Session) -> Layer {
        Layer::Tls(Box::new(Tls { session, unsent: Vec::new(), is_close_sent: false }))
    }
}

/// How much the socket took; 0 if it would block.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 144, "{} bytes", size_of::<Conn>());
    }
}
