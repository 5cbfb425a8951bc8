//! The machine that a script's server runs on: connections, both clocks, the disk, and the loop between them and the core.
//!
//! It keeps to the contract of `whinchat::core` as the real loop does: what was not consumed is offered again, one `Flushed`
//! for each watch, store requests in order. What the real loop leaves to chance (how bytes are cut, when a commit is done, how
//! much a socket takes) is left to a seed here.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use whinchat::config::Config;
use whinchat::core::{
    Answer, CloseReason, Command, CommandId, ConnId, ConnOrder, Core, Input, ListenerKind, Now, Outputs, Seeds,
    StoreError, StoreReply, StoreRequest, Ticket, TlsFacts, UtcTime,
};
use whinchat::jid::BareJid;
use whinchat::store::{Authenticator, Faults, MemoryStore, RedbStore, Store};

/// How a script's bytes reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each line at once.
    Whole,
    /// Byte by byte.
    Bytes,
    /// In pieces, with delayed commits and half-full sockets, by this seed.
    Pieces(u64),
}

/// Where a script's server keeps what must last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Memory,
    Redb,
}

/// 2026-11-22T19:30:50Z, where every script begins.
const EPOCH_MILLIS: u64 = 1_795_375_850_000;
pub const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// The accounts that exist when a script begins.
const CAST: [&str; 4] = ["juliet@capulet.test", "nurse@capulet.test", "romeo@montague.test", "mercutio@montague.test"];
/// The password of an account, unless a script says otherwise.
pub const PASSWORD: &str = "secret";

/// The request that makes an account.
pub fn create(user: &str, password: &str, at: UtcTime) -> StoreRequest {
    let user = BareJid::parse(user).expect("an account's JID in a script");
    StoreRequest::AccountCreate { user, password: password.to_owned().into(), at }
}

/// A connection, seen from the machine.
pub struct Conn {
    id: ConnId,
    unread: Vec<u8>,
    /// What the server has sent and the client has not looked at.
    pub received: Vec<u8>,
    pub state: State,
    /// The client does not read.
    pub stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// TLS is due; what comes meanwhile is none of the core's.
    Handshake,
    /// Closed by the server once it is flushed.
    Closing,
    Closed,
}

/// The server and all around it.
pub struct Machine {
    config: Config,
    core: Core,
    outputs: Outputs,
    store: Faults<Disk>,
    now: Now,
    pace: Pace,
    random: SplitMix,
    conns: Vec<Conn>,
    slots: Vec<(bool, u32)>,
    waiting: VecDeque<(Ticket, StoreRequest)>,
    /// The store answers only what [`Machine::commit`] lets it.
    store_is_stalled: bool,
    /// What is due at once waits for [`Machine::turn`].
    turns_are_stalled: bool,
    resumed: VecDeque<ConnId>,
    commands: u64,
    /// Answers to commands, oldest first.
    pub answers: VecDeque<Answer>,
}

impl Machine {
    pub fn new(mut config: Config, medium: Medium, pace: Pace) -> Machine {
        // Whoever enters a room does it in the smallest slices, unless they are the script's subject.
        if pace != Pace::Whole && config.limits.room_slice == whinchat::config::Limits::default().room_slice {
            config.limits.room_slice = 1;
        }
        let seed = if let Pace::Pieces(seed) = pace { seed } else { 0 };
        let mut random = SplitMix(seed);
        let store = Faults::new(Disk::with_cast(&config, medium));
        Machine {
            core: born(&config, &store, &mut random),
            config,
            outputs: Outputs::default(),
            store,
            now: Now { mono: Duration::ZERO, utc: UtcTime(EPOCH_MILLIS) },
            pace,
            random,
            conns: Vec::new(),
            slots: Vec::new(),
            waiting: VecDeque::new(),
            store_is_stalled: false,
            turns_are_stalled: false,
            resumed: VecDeque::new(),
            commands: 0,
            answers: VecDeque::new(),
        }
    }

    /// Carries a request out past the core.
    pub fn store(&mut self, request: StoreRequest) -> StoreReply {
        self.store.apply(&[request]).remove(0)
    }

    pub fn utc(&self) -> UtcTime {
        self.now.utc
    }

    /// Something below `bound`, by the seed.
    pub fn chance(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// The next batch fails.
    pub fn fail_store(&mut self, error: StoreError) {
        self.store.fail_nth(1, error);
    }

    /// Whether the store answers nothing of itself.
    pub fn stall_store(&mut self, on: bool) {
        self.store_is_stalled = on;
        self.settle();
    }

    /// A store that is stalled answers so many requests.
    pub fn commit(&mut self, count: usize) -> Result<(), String> {
        if count > self.waiting.len() {
            return Err(format!("the store has {} requests: {:?}", self.waiting.len(), self.waiting));
        }
        self.answer(count);
        self.settle();
        Ok(())
    }

    /// Whether what is due at once waits, as if the loop had other things to do.
    pub fn stall_turns(&mut self, on: bool) {
        self.turns_are_stalled = on;
        self.settle();
    }

    /// So many turns of a loop that is stalled; there must be something to do in each.
    pub fn turn(&mut self, count: usize) -> Result<(), String> {
        for turn in 0..count {
            if !self.is_due() {
                return Err(format!("there was something to do in {turn} turns only"));
            }
            self.step(Input::Deadline);
            self.settle();
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.core.next_deadline().is_some_and(|due| due <= self.now.mono)
    }

    /// Whether a failure that was asked for has not come yet.
    pub fn failure_is_due(&self) -> bool {
        self.store.is_due()
    }

    /// Everything but the store is gone; the connections with it.
    pub fn restart(self, rounds: Option<u32>) -> Machine {
        let Machine { mut config, store, now, pace, mut random, .. } = self;
        if let Some(iterations) = rounds {
            config.password_scheme = whinchat::auth::PasswordScheme::Scram { iterations };
        }
        let store = Faults::new(store.into_inner().reopened(&config));
        Machine {
            core: born(&config, &store, &mut random),
            config,
            outputs: Outputs::default(),
            store,
            now,
            pace,
            random,
            conns: Vec::new(),
            slots: Vec::new(),
            waiting: VecDeque::new(),
            store_is_stalled: false,
            turns_are_stalled: false,
            resumed: VecDeque::new(),
            commands: 0,
            answers: VecDeque::new(),
        }
    }

    /// A new connection; with `secured` its TLS handshake is done already.
    pub fn open(&mut self, listener: ListenerKind, secured: bool) -> usize {
        let slot = self.slots.iter().position(|(used, _)| !used).unwrap_or_else(|| {
            self.slots.push((false, 0));
            self.slots.len() - 1
        });
        self.slots[slot] = (true, self.slots[slot].1 + 1);
        let id = ConnId { slot: slot as u32, generation: self.slots[slot].1 };
        let state = if listener == ListenerKind::Tls { State::Handshake } else { State::Open };
        self.conns.push(Conn { id, unread: Vec::new(), received: Vec::new(), state, stalled: false });
        self.outputs.wire.open(id);
        self.step(Input::Opened { conn: id, listener, peer: PEER });
        let index = self.conns.len() - 1;
        if secured {
            self.secure(index);
        }
        index
    }

    pub fn conn(&mut self, index: usize) -> &mut Conn {
        &mut self.conns[index]
    }

    /// The TLS handshake is done. Channels can be bound: the end point is 32 times 0x17, the exporter 32 times 0x42.
    pub fn secure(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.state = State::Open;
        conn.unread.clear();
        let mut tls = TlsFacts { version: "TLSv1.3", ..TlsFacts::default() };
        tls.bindings.exporter = Some(EXPORTER);
        tls.bindings.server_end_point = Some(SERVER_END_POINT.to_vec());
        let id = conn.id;
        self.step(Input::Secured { conn: id, tls });
        self.settle();
    }

    /// Bytes from a client, cut as the pace has it.
    pub fn deliver(&mut self, index: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = match self.pace {
                Pace::Whole => rest.len(),
                Pace::Bytes => 1,
                Pace::Pieces(_) => self.random.piece().min(rest.len()),
            };
            let (piece, behind) = rest.split_at(count);
            rest = behind;
            if self.conns[index].state == State::Open {
                self.conns[index].unread.extend_from_slice(piece);
                self.offer(index);
            }
            match self.pace {
                Pace::Pieces(_) => self.dawdle(),
                Pace::Whole | Pace::Bytes => self.settle(),
            }
        }
        self.settle();
    }

    /// The socket is gone.
    pub fn hang_up(&mut self, index: usize) {
        if self.conns[index].state != State::Closed {
            self.closed(index, CloseReason::Gone);
            self.settle();
        }
    }

    /// Both clocks go on; deadlines fire when they are due.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now.mono + by;
        while let Some(due) = self.core.next_deadline().filter(|due| *due <= until) {
            self.set_clock(due.max(self.now.mono));
            self.step(Input::Deadline);
            self.settle();
        }
        self.set_clock(until);
        self.settle();
    }

    fn set_clock(&mut self, mono: Duration) {
        let passed = mono - self.now.mono;
        self.now = Now { mono, utc: UtcTime(self.now.utc.0 + passed.as_millis() as u64) };
    }

    pub fn command(&mut self, command: Command) {
        self.commands += 1;
        let id = CommandId(self.commands);
        self.step(Input::Command { id, command });
        self.settle();
    }

    pub fn shut_down(&mut self) {
        self.step(Input::Shutdown);
        self.settle();
    }

    /// Goes on until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            self.flush(true);
            if let Some(conn) = self.resumed.pop_front() {
                self.resume(conn);
            } else if !self.waiting.is_empty() && !self.store_is_stalled {
                self.answer(self.waiting.len());
            } else if self.is_due() && !self.turns_are_stalled {
                self.step(Input::Deadline);
            } else if !self.outputs_are_due() {
                return;
            }
        }
    }

    fn outputs_are_due(&self) -> bool {
        self.conns.iter().any(|conn| {
            conn.state != State::Closed
                && !conn.stalled
                && (self.outputs.wire.pending(conn.id) > 0 || conn.state == State::Closing)
        })
    }

    /// Does some of what is to be done, or none.
    fn dawdle(&mut self) {
        if self.random.below(2) == 0 {
            self.flush(false);
        }
        if self.random.below(3) == 0 && !self.waiting.is_empty() && !self.store_is_stalled {
            let count = 1 + self.random.below(self.waiting.len() as u64) as usize;
            self.answer(count);
        }
        if self.random.below(2) == 0
            && let Some(conn) = self.resumed.pop_front()
        {
            self.resume(conn);
        }
        if self.random.below(2) == 0 && self.is_due() && !self.turns_are_stalled {
            self.step(Input::Deadline);
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(index) = self.index(conn)
            && !self.conns[index].unread.is_empty()
        {
            self.offer(index);
        }
    }

    fn index(&self, conn: ConnId) -> Option<usize> {
        self.conns.iter().position(|known| known.id == conn && known.state != State::Closed)
    }

    fn offer(&mut self, index: usize) {
        if self.conns[index].state != State::Open {
            return;
        }
        let unread = std::mem::take(&mut self.conns[index].unread);
        let consumed = self.step(Input::Bytes { conn: self.conns[index].id, unread: &unread });
        assert!(consumed <= unread.len(), "consumed more than there was");
        let conn = &mut self.conns[index];
        if conn.state == State::Open {
            conn.unread = unread;
            conn.unread.drain(..consumed);
        }
    }

    fn step(&mut self, input: Input<'_>) -> usize {
        let consumed = self.core.step(self.now, input, &mut self.outputs).consumed;
        self.waiting.extend(self.outputs.store.drain(..));
        self.answers.extend(self.outputs.answers.drain(..).map(|(_, answer)| answer));
        self.outputs.delivered.clear();
        if std::mem::take(&mut self.outputs.stop) {
            self.step(Input::Shutdown);
        }
        for order in std::mem::take(&mut self.outputs.conns) {
            self.carry_out(order);
        }
        consumed
    }

    fn carry_out(&mut self, order: ConnOrder) {
        match order {
            ConnOrder::Resume(conn) => self.resumed.push_back(conn),
            ConnOrder::StartTls { conn, domain } => {
                assert!(!domain.is_empty(), "no domain to choose a certificate by");
                if let Some(index) = self.index(conn) {
                    self.conns[index].state = State::Handshake;
                    self.conns[index].unread.clear();
                }
            }
            ConnOrder::Close(conn) => {
                if let Some(index) = self.index(conn) {
                    self.conns[index].state = State::Closing;
                    self.conns[index].unread.clear();
                }
            }
            ConnOrder::Abort(conn) => {
                if let Some(index) = self.index(conn) {
                    self.closed(index, CloseReason::Ordered);
                }
            }
        }
    }

    fn closed(&mut self, index: usize, reason: CloseReason) {
        let conn = &mut self.conns[index];
        conn.state = State::Closed;
        let id = conn.id;
        self.slots[id.slot as usize].0 = false;
        self.step(Input::Closed { conn: id, reason });
    }

    /// Hands output to the sockets that take it: all, or as much as chance wants.
    fn flush(&mut self, all: bool) {
        self.outputs.wire.take_dirty(&mut Vec::new());
        for index in 0..self.conns.len() {
            let Conn { id, state, stalled, .. } = self.conns[index];
            if stalled || state == State::Closed {
                continue;
            }
            let unsent = self.outputs.wire.unsent(id);
            let count = if all { unsent.len() } else { self.random.below(unsent.len() as u64 + 1) as usize };
            self.conns[index].received.extend_from_slice(&unsent[..count]);
            if self.outputs.wire.sent(id, count) {
                self.step(Input::Flushed { conn: id });
            }
            if state == State::Closing && self.outputs.wire.pending(id) == 0 {
                self.closed(index, CloseReason::Ordered);
            }
        }
    }

    /// One commit of the first `count` requests.
    fn answer(&mut self, count: usize) {
        let (tickets, batch): (Vec<Ticket>, Vec<StoreRequest>) = self.waiting.drain(..count).unzip();
        let replies = self.store.apply(&batch);
        assert_eq!(replies.len(), tickets.len(), "one reply for each request");
        for (ticket, reply) in tickets.into_iter().zip(replies) {
            self.step(Input::Stored { ticket, reply });
        }
    }
}

/// Channel-binding data of every TLS connection here.
pub const EXPORTER: [u8; 32] = [0x42; 32];
pub const SERVER_END_POINT: [u8; 32] = [0x17; 32];

fn born(config: &Config, store: &impl Store, random: &mut SplitMix) -> Core {
    let scram = matches!(config.password_scheme, whinchat::auth::PasswordScheme::Scram { .. });
    Core::new(config, Seeds { random: random.bytes(), installation: store.secret() }, scram)
}

/// A store of either kind.
enum Disk {
    Memory(MemoryStore),
    Redb(RedbStore, Directory),
}

/// For one store; removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("whinchat-scripts-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the store");
        Directory(directory)
    }

    fn file(&self) -> PathBuf {
        self.0.join("whinchat.redb")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Disk {
    /// A store that holds the accounts of [`CAST`] and nothing else. Hashing their passwords takes longer than most scripts, so it
    /// is done once.
    fn with_cast(config: &Config, medium: Medium) -> Disk {
        static MEMORY: OnceLock<Mutex<MemoryStore>> = OnceLock::new();
        static FILE: OnceLock<Vec<u8>> = OnceLock::new();
        let fill = |store: &mut dyn Store| {
            for user in CAST {
                let made = store.apply(&[create(user, PASSWORD, UtcTime(EPOCH_MILLIS))]);
                assert!(matches!(made.as_slice(), [Ok(_)]), "{made:?}");
            }
        };
        let directory = Directory::new();
        match medium {
            Medium::Memory => {
                let template = MEMORY.get_or_init(|| {
                    let mut store = MemoryStore::new(config, [7; 32]);
                    fill(&mut store);
                    Mutex::new(store)
                });
                Disk::Memory(template.lock().expect("nobody panics with it").reopened(config))
            }
            Medium::Redb => {
                let file = FILE.get_or_init(|| {
                    fill(&mut open_redb(&directory, config));
                    std::fs::read(directory.file()).expect("the store's file")
                });
                std::fs::write(directory.file(), file).expect("a copy of the store's file");
                Disk::Redb(open_redb(&directory, config), directory)
            }
        }
    }

    fn reopened(self, config: &Config) -> Disk {
        match self {
            Disk::Memory(store) => Disk::Memory(store.reopened(config)),
            Disk::Redb(store, directory) => {
                drop(store);
                Disk::Redb(open_redb(&directory, config), directory)
            }
        }
    }
}

fn open_redb(directory: &Directory, config: &Config) -> RedbStore {
    RedbStore::open(&directory.file(), config).unwrap_or_else(|error| panic!("{error}"))
}

impl Store for Disk {
    fn apply(&mut self, batch: &[StoreRequest]) -> Vec<StoreReply> {
        match self {
            Disk::Memory(store) => store.apply(batch),
            Disk::Redb(store, _) => store.apply(batch),
        }
    }
    fn secret(&self) -> [u8; 32] {
        match self {
            Disk::Memory(store) => store.secret(),
            Disk::Redb(store, _) => store.secret(),
        }
    }
    fn set_authenticator(&mut self, authenticator: Box<dyn Authenticator>) {
        match self {
            Disk::Memory(store) => store.set_authenticator(authenticator),
            Disk::Redb(store, _) => store.set_authenticator(authenticator),
        }
    }
}

/// Sebastiano Vigna's generator: a seed, a sequence.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Often a few bytes, sometimes many.
    fn piece(&mut self) -> usize {
        let bits = self.below(14);
        1 + self.below(1 << bits) as usize
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()));
        bytes
    }
}
