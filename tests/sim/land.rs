//! What lies around the devices: time, the network, and the server with its store.
//!
//! The server's side keeps to the contract of `whinchat::core` as the real loop does. What the real loop and the world leave to
//! chance is drawn from the dice: how bytes are cut and how long they travel, how much a socket takes, how long a commit takes,
//! which connection is cut, and whether both ends, one, or none of them learn of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use whinchat::config::Config;
use whinchat::core::{
    CloseReason, ConnId, ConnOrder, Core, Input, ListenerKind, Now, Outputs, Seeds, StoreReply, StoreRequest, Ticket,
    TlsFacts, UtcTime,
};

use super::dice::Dice;
use super::disk::{Faulted, Outcome, Vault};
use super::oracle::{Keeping, Oracle};
use super::{Medium, Plant};

const EPOCH_MILLIS: u64 = 1_795_375_850_000;
/// Bytes that a socket takes of the server before the peer has taken any.
const SOCKET_BYTES: usize = 16 * 1024;
/// Requests that the storage thread takes at once.
const BATCH_MAX: usize = 4096;

/// What is to happen.
pub enum Event {
    /// Bytes of a client have arrived.
    ToServer {
        conn: usize,
        bytes: Vec<u8>,
    },
    /// The next bytes of the server have arrived.
    ToClient {
        conn: usize,
    },
    /// The server's system says that the connection is gone.
    ServerSees {
        conn: usize,
    },
    /// The client's system says so.
    ClientSees {
        conn: usize,
    },
    /// The server closes the socket, whether all was taken or not.
    ServerCloses {
        conn: usize,
    },
    /// A socket that took something in part takes more.
    Writable {
        conn: usize,
    },
    /// Whether a socket has taken anything since.
    StallCheck {
        conn: usize,
        taken: u64,
    },
    /// The storage thread takes what has queued.
    Commit {
        incarnation: u32,
    },
    /// It has answered.
    Replies {
        incarnation: u32,
        replies: Vec<(Ticket, StoreReply)>,
    },
    /// A device does something.
    Act {
        device: usize,
        turn: u32,
    },
    PowerOn,
    Fault,
}

/// A connection, seen from both sides.
pub struct Conn {
    id: ConnId,
    pub device: usize,
    side: Side,
    /// The client has not closed it and does not know that it is gone.
    pub client_open: bool,
    unread: Vec<u8>,
    /// Nothing passes any more.
    is_lost: bool,
    to_server_at: Duration,
    to_client_at: Duration,
    /// What is on its way to the client.
    to_client: VecDeque<Vec<u8>>,
    /// Bytes in the server's socket and on their way.
    in_socket: usize,
    /// Bytes that the socket has taken so far.
    taken: u64,
    is_stalled: bool,
    /// When the server was done with it.
    pub server_closed_at: Option<Duration>,
    /// Bytes that the client has sent, and those that the server has read while the stream was open.
    pub sent: usize,
    pub heard: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    Closing,
    Closed,
}

pub struct Land {
    pub dice: Dice,
    pub now: Duration,
    pub config: Config,
    pub oracle: Oracle,
    pub conns: Vec<Conn>,
    /// Nothing goes wrong any more, and nobody starts anything.
    pub is_calm: bool,
    pub is_traced: bool,
    /// Passwords that may still be changed.
    pub new_passwords: usize,
    /// Bytes that arrived at clients, and closed connections, for the devices.
    pub for_devices: VecDeque<(usize, Option<Vec<u8>>)>,
    /// What was put out by events so far, for the report.
    pub events_count: u64,
    /// What went wrong beside the store.
    pub faults: Faulted,
    pub vault: Vault,
    /// A mistake that is made on purpose.
    pub plant: Option<Plant>,
    /// What was said in rooms, for those who should not hear it.
    pub overheard: Vec<(usize, usize)>,
    core: Option<Core>,
    out: Outputs,
    by_id: HashMap<ConnId, usize>,
    slots: Vec<(bool, u32)>,
    resumed: VecDeque<ConnId>,
    quick: VecDeque<(Ticket, StoreRequest)>,
    slow: VecDeque<(Ticket, StoreRequest)>,
    is_committing: bool,
    incarnation: u32,
    events: BTreeMap<(Duration, u64), Event>,
    events_total: u64,
    /// Devices whose network is slow or who do not read until then.
    pub reads_at: Vec<Duration>,
    commit_time: Duration,
}

impl Land {
    pub fn new(seed: u64, config: Config, medium: Medium, plant: Option<Plant>, devices: usize) -> Land {
        let mut dice = Dice(seed);
        let vault = Vault::new(&config, medium, plant);
        let core = born(&config, &vault, &mut dice);
        let commit_time = Duration::from_millis(if dice.percent(20) { 2000 } else { 5 });
        Land {
            dice,
            now: Duration::from_secs(1000),
            oracle: Oracle::new(&config),
            config,
            conns: Vec::new(),
            is_calm: false,
            new_passwords: 0,
            is_traced: std::env::var_os("WHINCHAT_TRACE").is_some(),
            for_devices: VecDeque::new(),
            events_count: 0,
            faults: Faulted::new(),
            vault,
            plant,
            overheard: Vec::new(),
            core: Some(core),
            out: Outputs::default(),
            by_id: HashMap::new(),
            slots: Vec::new(),
            resumed: VecDeque::new(),
            quick: VecDeque::new(),
            slow: VecDeque::new(),
            is_committing: false,
            incarnation: 0,
            events: BTreeMap::new(),
            events_total: 0,
            reads_at: vec![Duration::ZERO; devices],
            commit_time,
        }
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            eprintln!("{:>10.3} {}", self.now.as_secs_f64(), what());
        }
    }

    /// Something goes wrong.
    pub fn strike(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn schedule(&mut self, at: Duration, event: Event) {
        self.events_total += 1;
        self.events.insert((at.max(self.now), self.events_total), event);
    }

    /// The next thing to happen, not later than `until`; the server's deadlines are seen to here.
    pub fn next(&mut self, until: Duration) -> Option<Event> {
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.core.as_ref().and_then(Core::next_deadline).map(|at| at.max(self.now));
            let due = match (event, deadline) {
                (Some(event), Some(deadline)) => event.min(deadline),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => return None,
            };
            if due > until {
                return None;
            }
            self.now = due;
            self.events_count += 1;
            if deadline == Some(due) {
                self.step(Input::Deadline);
                self.pump();
                if !self.for_devices.is_empty() || self.oracle.violation.is_some() {
                    return None;
                }
                continue;
            }
            return self.events.pop_first().map(|(_, event)| event);
        }
    }

    /// What concerns network and server; the rest is for the devices.
    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::ToServer { conn, bytes } => self.on_to_server(conn, &bytes),
            Event::ToClient { conn } => self.on_to_client(conn),
            Event::ServerSees { conn } => {
                if self.conns[conn].side != Side::Closed {
                    self.server_closed(conn, CloseReason::Gone);
                }
            }
            Event::ServerCloses { conn } => {
                if self.conns[conn].side != Side::Closed {
                    self.server_closed(conn, CloseReason::Ordered);
                    let at = self.conns[conn].to_client_at.max(self.now);
                    self.schedule(at, Event::ClientSees { conn });
                }
            }
            Event::ClientSees { conn } => {
                if std::mem::take(&mut self.conns[conn].client_open) {
                    self.for_devices.push_back((conn, None));
                }
            }
            Event::Writable { conn } => {
                self.conns[conn].is_stalled = false;
                self.flush(conn);
            }
            Event::StallCheck { conn, taken } => self.on_stall_check(conn, taken),
            Event::Commit { incarnation } if incarnation == self.incarnation => self.commit(),
            Event::Replies { incarnation, replies } if incarnation == self.incarnation => self.on_replies(replies),
            Event::Commit { .. } | Event::Replies { .. } => {}
            Event::PowerOn => self.power_on(),
            Event::Fault | Event::Act { .. } => unreachable!("not for the land"),
        }
        self.pump();
    }

    fn delay(&mut self) -> Duration {
        let mean = match self.dice.below(40) {
            0 => Duration::from_secs(4),
            1..=5 => Duration::from_millis(400),
            _ => Duration::from_millis(20),
        };
        self.dice.time(mean)
    }

    // The network.

    /// A device connects; TLS is done at once.
    pub fn connect(&mut self, device: usize) -> usize {
        let index = self.conns.len();
        let mut conn = Conn {
            id: ConnId { slot: u32::MAX >> 1, generation: 0 },
            device,
            side: Side::Closed,
            client_open: true,
            unread: Vec::new(),
            is_lost: false,
            to_server_at: self.now,
            to_client_at: self.now,
            to_client: VecDeque::new(),
            in_socket: 0,
            taken: 0,
            is_stalled: false,
            server_closed_at: None,
            sent: 0,
            heard: 0,
        };
        if self.core.is_none() {
            conn.server_closed_at = Some(self.now);
            conn.is_lost = true;
            self.conns.push(conn);
            let at = self.now + self.delay();
            self.schedule(at, Event::ClientSees { conn: index });
            return index;
        }
        let slot = self.slots.iter().position(|(used, _)| !used).unwrap_or_else(|| {
            self.slots.push((false, 0));
            self.slots.len() - 1
        });
        self.slots[slot] = (true, self.slots[slot].1 + 1);
        conn.id = ConnId { slot: slot as u32, generation: self.slots[slot].1 };
        conn.side = Side::Open;
        let id = conn.id;
        self.by_id.insert(id, index);
        self.conns.push(conn);
        self.out.wire.open(id);
        let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, device as u8));
        self.step(Input::Opened { conn: id, listener: ListenerKind::Tls, peer });
        self.step(Input::Secured { conn: id, tls: TlsFacts { version: "TLSv1.3", ..TlsFacts::default() } });
        self.pump();
        index
    }

    /// Bytes of a client, on their way in pieces.
    pub fn send(&mut self, conn: usize, bytes: &[u8]) {
        self.conns[conn].sent += bytes.len();
        if self.conns[conn].is_lost || !self.conns[conn].client_open {
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let whole = self.dice.percent(70);
            let count = if whole { rest.len() } else { 1 + self.dice.below(rest.len()) };
            let (piece, behind) = rest.split_at(count);
            rest = behind;
            let at = self.conns[conn].to_server_at.max(self.now + self.delay());
            self.conns[conn].to_server_at = at;
            self.schedule(at, Event::ToServer { conn, bytes: piece.to_vec() });
        }
    }

    /// The client closes its side behind what it has sent; it reads nothing more.
    pub fn hang_up(&mut self, conn: usize) {
        self.conns[conn].client_open = false;
        let at = self.conns[conn].to_server_at.max(self.now);
        self.schedule(at, Event::ServerSees { conn });
    }

    /// The connection is cut: what is on its way is lost, and both ends learn of it.
    pub fn reset(&mut self, conn: usize) {
        self.strike("network: connection cut, both ends told");
        self.conns[conn].is_lost = true;
        let (server, client) = (self.now + self.delay(), self.now + self.delay());
        self.schedule(server, Event::ServerSees { conn });
        self.schedule(client, Event::ClientSees { conn });
    }

    /// The client is out of reach; nobody tells the server.
    pub fn vanish(&mut self, conn: usize) {
        self.strike("network: client gone, server not told");
        self.conns[conn].is_lost = true;
        self.conns[conn].client_open = false;
    }

    /// The connection is dead and nobody knows.
    pub fn half_open(&mut self, conn: usize) {
        self.strike("network: connection dead, nobody told");
        self.conns[conn].is_lost = true;
        let at = self.now + self.dice.time(Duration::from_secs(120));
        self.schedule(at, Event::ClientSees { conn });
    }

    fn on_to_server(&mut self, conn: usize, bytes: &[u8]) {
        let known = &mut self.conns[conn];
        if !known.is_lost && known.side == Side::Open {
            known.unread.extend_from_slice(bytes);
            self.offer(conn);
        }
    }

    fn on_to_client(&mut self, conn: usize) {
        let known = &mut self.conns[conn];
        let reads_at = self.reads_at[known.device];
        if !known.is_lost && known.client_open && reads_at > self.now {
            known.to_client_at = known.to_client_at.max(reads_at);
            return self.schedule(reads_at, Event::ToClient { conn });
        }
        if known.is_lost {
            return;
        }
        let Some(bytes) = known.to_client.pop_front() else { return };
        known.in_socket -= bytes.len();
        if known.client_open {
            self.for_devices.push_back((conn, Some(bytes)));
        }
        self.flush(conn);
    }

    fn on_stall_check(&mut self, conn: usize, taken: u64) {
        let known = &mut self.conns[conn];
        if known.side == Side::Closed || !known.is_stalled {
            return;
        }
        if known.taken == taken {
            self.strike("network: reader stalled until it was dropped");
            self.server_closed(conn, CloseReason::Stalled);
            self.conns[conn].is_lost = true;
            let at = self.now + self.delay();
            return self.schedule(at, Event::ClientSees { conn });
        }
        known.is_stalled = false;
        self.flush(conn);
    }

    // The server.

    pub fn server_is_up(&self) -> bool {
        self.core.is_some()
    }

    fn step(&mut self, input: Input<'_>) -> usize {
        let Some(core) = &mut self.core else { return 0 };
        let now = Now { mono: self.now, utc: UtcTime(EPOCH_MILLIS + self.now.as_millis() as u64) };
        let consumed = core.step(now, input, &mut self.out).consumed;
        for request in self.out.store.drain(..) {
            if let Some(line) = kept_line(&request.1) {
                self.oracle.on_line_taken(line);
            }
            if request.1.is_slow() { self.slow.push_back(request) } else { self.quick.push_back(request) }
        }
        self.out.answers.clear();
        self.out.delivered.clear();
        for order in std::mem::take(&mut self.out.conns) {
            self.carry_out(order);
        }
        consumed
    }

    fn carry_out(&mut self, order: ConnOrder) {
        match order {
            ConnOrder::Resume(id) => self.resumed.push_back(id),
            ConnOrder::StartTls { .. } => self.oracle.fail(|| "STARTTLS was ordered and never asked for".to_owned()),
            ConnOrder::Close(id) => {
                let Some(&conn) = self.by_id.get(&id) else { return };
                self.conns[conn].side = Side::Closing;
                self.conns[conn].unread.clear();
                let at = self.now + self.config.limits.close_time;
                self.schedule(at, Event::ServerCloses { conn });
            }
            ConnOrder::Abort(id) => {
                let Some(&conn) = self.by_id.get(&id) else { return };
                self.conns[conn].is_lost = true;
                self.server_closed(conn, CloseReason::Ordered);
                let at = self.now + self.delay();
                self.schedule(at, Event::ClientSees { conn });
            }
        }
    }

    fn server_closed(&mut self, conn: usize, reason: CloseReason) {
        let known = &mut self.conns[conn];
        known.side = Side::Closed;
        known.unread = Vec::new();
        known.server_closed_at = Some(self.now);
        let id = known.id;
        self.by_id.remove(&id);
        self.slots[id.slot as usize].0 = false;
        self.step(Input::Closed { conn: id, reason });
    }

    fn offer(&mut self, conn: usize) {
        if self.conns[conn].side != Side::Open || self.conns[conn].unread.is_empty() {
            return;
        }
        let unread = std::mem::take(&mut self.conns[conn].unread);
        let consumed = self.step(Input::Bytes { conn: self.conns[conn].id, unread: &unread });
        assert!(consumed <= unread.len(), "consumed more than there was");
        let known = &mut self.conns[conn];
        if known.side == Side::Open {
            known.heard += consumed;
            known.unread = unread;
            known.unread.drain(..consumed);
        }
    }

    /// What the loop does until nothing is left to do at once.
    fn pump(&mut self) {
        let mut dirty = Vec::new();
        while self.core.is_some() {
            if let Some(id) = self.resumed.pop_front() {
                if let Some(&conn) = self.by_id.get(&id) {
                    self.offer(conn);
                }
                continue;
            }
            self.out.wire.take_dirty(&mut dirty);
            if dirty.is_empty() {
                break;
            }
            for id in &dirty {
                if let Some(&conn) = self.by_id.get(id) {
                    self.flush(conn);
                }
            }
        }
        let is_idle = self.is_committing || self.quick.is_empty() && self.slow.is_empty();
        if !is_idle && self.core.is_some() {
            self.is_committing = true;
            let at = self.now + self.dice.time(Duration::from_millis(1));
            self.schedule(at, Event::Commit { incarnation: self.incarnation });
        }
    }

    /// Hands a socket what it takes.
    fn flush(&mut self, conn: usize) {
        let Conn { id, side, is_lost, in_socket, .. } = &self.conns[conn];
        let (id, side, is_lost, in_socket) = (*id, *side, *is_lost, *in_socket);
        if side == Side::Closed || self.core.is_none() {
            return;
        }
        let room = SOCKET_BYTES.saturating_sub(in_socket);
        let unsent = self.out.wire.unsent(id);
        let pending = unsent.len();
        let mut count = pending.min(room);
        if count > 1 && self.dice.percent(20) {
            count = 1 + self.dice.below(count);
        }
        if count > 0 {
            let bytes = unsent[..count].to_vec();
            self.conns[conn].in_socket += count;
            self.conns[conn].taken += count as u64;
            if !is_lost {
                let at = self.conns[conn].to_client_at.max(self.now + self.delay());
                self.conns[conn].to_client_at = at;
                self.conns[conn].to_client.push_back(bytes);
                self.schedule(at, Event::ToClient { conn });
            }
        }
        if self.out.wire.sent(id, count) {
            self.step(Input::Flushed { conn: id });
        }
        if self.conns[conn].side == Side::Closed {
            return;
        }
        if self.out.wire.pending(id) > 0 {
            self.note_stall(conn);
        } else if self.conns[conn].side == Side::Closing {
            self.server_closed(conn, CloseReason::Ordered);
            let at = self.conns[conn].to_client_at.max(self.now);
            self.schedule(at, Event::ClientSees { conn });
        }
    }

    fn note_stall(&mut self, conn: usize) {
        let known = &mut self.conns[conn];
        if !known.is_stalled {
            known.is_stalled = true;
            let taken = known.taken;
            match known.in_socket >= SOCKET_BYTES {
                true => self.schedule(self.now + self.config.limits.write_stall, Event::StallCheck { conn, taken }),
                false => self.schedule(self.now + Duration::from_millis(1), Event::Writable { conn }),
            }
        }
    }

    fn commit(&mut self) {
        match self.carry_out_batch() {
            None => self.cut_power(),
            Some(replies) => {
                let at = self.now + self.dice.time(self.commit_time);
                self.schedule(at, Event::Replies { incarnation: self.incarnation, replies });
            }
        }
    }

    /// What the storage thread does in one round; `None` if the power failed meanwhile.
    fn carry_out_batch(&mut self) -> Option<Vec<(Ticket, StoreReply)>> {
        let taken = self.quick.len().min(BATCH_MAX);
        let quick: Vec<(Ticket, StoreRequest)> = self.quick.drain(..taken).collect();
        let slow: Vec<(Ticket, StoreRequest)> = self.slow.pop_front().into_iter().collect();
        let mut replies = Vec::new();
        for part in [quick, slow].into_iter().filter(|part| !part.is_empty()) {
            let (tickets, batch): (Vec<Ticket>, Vec<StoreRequest>) = part.into_iter().unzip();
            for request in batch.iter().filter(|_| self.is_traced) {
                self.note(|| format!("   asked: {}", shortened(request)));
            }
            let kept: Vec<Option<(usize, Keeping)>> = batch.iter().map(kept_message).collect();
            let lines: Vec<Option<usize>> = batch.iter().map(kept_line).collect();
            let Outcome::Replies(answers) = self.vault.apply(batch, &self.config) else { return None };
            assert_eq!(answers.len(), tickets.len(), "one reply for each request");
            for (message, answer) in kept.into_iter().zip(&answers) {
                if let Some((message, keeping)) = message {
                    self.oracle.on_kept(message, keeping, answer.is_ok());
                }
            }
            for (line, answer) in lines.into_iter().zip(&answers) {
                if let Some(line) = line {
                    self.oracle.on_line_kept(line, answer.is_ok());
                }
            }
            for answer in answers.iter().filter(|_| self.is_traced) {
                self.note(|| format!("   answered: {}", shortened(answer)));
            }
            replies.extend(tickets.into_iter().zip(answers));
        }
        Some(replies)
    }

    fn on_replies(&mut self, replies: Vec<(Ticket, StoreReply)>) {
        self.is_committing = false;
        for (ticket, reply) in replies {
            self.step(Input::Stored { ticket, reply });
        }
    }

    // What goes wrong as a whole.

    /// The machine stops between two instructions.
    pub fn cut_power(&mut self) {
        if self.core.is_none() {
            return;
        }
        self.strike("power cut, of all kinds");
        self.note(|| "== the power fails".to_owned());
        self.oracle.on_power_cut(self.now);
        self.stop();
    }

    /// The server is told to stop, and does so when it is done.
    pub fn shut_down(&mut self) {
        if self.core.is_none() {
            return;
        }
        self.strike("restart in good order");
        self.note(|| "== the server is shut down".to_owned());
        self.step(Input::Shutdown);
        self.pump();
        // The storage thread carries out all that is queued before it ends.
        while !(self.quick.is_empty() && self.slow.is_empty()) {
            match self.carry_out_batch() {
                None => return self.cut_power(),
                Some(replies) => self.on_replies(replies),
            }
            self.pump();
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.core = None;
        self.oracle.on_forgotten(self.now);
        self.out = Outputs::default();
        self.incarnation += 1;
        self.is_committing = false;
        self.quick.clear();
        self.slow.clear();
        self.resumed.clear();
        self.by_id.clear();
        self.slots.clear();
        for conn in 0..self.conns.len() {
            if self.conns[conn].side == Side::Closed {
                continue;
            }
            self.conns[conn].side = Side::Closed;
            self.conns[conn].server_closed_at = Some(self.now);
            self.conns[conn].is_lost = true;
            let at = self.now + self.dice.time(Duration::from_secs(5));
            self.schedule(at, Event::ClientSees { conn });
        }
        let at = self.now + self.dice.time(Duration::from_secs(10));
        self.schedule(at, Event::PowerOn);
    }

    fn power_on(&mut self) {
        self.note(|| "== the server starts".to_owned());
        self.vault.power_on(&self.config, &mut self.dice);
        self.check_push();
        // Neither does what was sent meanwhile arrive.
        self.oracle.on_forgotten(self.now);
        self.core = Some(born(&self.config, &self.vault, &mut self.dice));
    }
}

/// Which message a request keeps, and how. All accounts have archives, so what waits for its receiver for the first time goes there
/// too.
fn kept_message(request: &StoreRequest) -> Option<(usize, Keeping)> {
    let (stanza, keeping) = match request {
        StoreRequest::OfflinePut { stanza, .. } => (stanza, Keeping::Left),
        StoreRequest::ArchivePut { offline: true, stanza, .. } => (stanza, Keeping::Waiting),
        StoreRequest::ArchivePut { stanza, .. } => (stanza, Keeping::Archived),
        _ => return None,
    };
    Some((number_in(stanza, "id='m")?, keeping))
}

/// Which line of a room a request keeps.
fn kept_line(request: &StoreRequest) -> Option<usize> {
    match request {
        StoreRequest::RoomLine { line, .. } => number_in(&line.xml, "id='g"),
        _ => None,
    }
}

fn number_in(stanza: &[u8], before: &str) -> Option<usize> {
    let (_, rest) = std::str::from_utf8(stanza).ok()?.split_once(before)?;
    rest.split('\'').next()?.parse().ok()
}

/// As much of it as is worth a line.
fn shortened(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take(200).collect()
}

fn born(config: &Config, vault: &Vault, dice: &mut Dice) -> Core {
    Core::new(config, Seeds { random: dice.bytes(), installation: vault.secret() }, true)
}
