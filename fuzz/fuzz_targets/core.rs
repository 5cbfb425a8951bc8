//! Arbitrary bytes on several connections, with the core's invariants checked after each step: no input panics, and nothing is
//! consumed that was not there. The store answers from memory.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use whinchat::config::Config;
use whinchat::core::{
    CloseReason, ConnId, ConnOrder, Core, Input, ListenerKind, Now, Outputs, Seeds, TlsFacts, UtcTime,
};
use whinchat::store::{MemoryStore, Store};

const CONNECTIONS: usize = 3;

struct World {
    core: Core,
    out: Outputs,
    store: MemoryStore,
    unread: [Vec<u8>; CONNECTIONS],
    open: [bool; CONNECTIONS],
    millis: u64,
}

fn conn(index: usize) -> ConnId {
    ConnId { slot: index as u32, generation: 1 }
}

impl World {
    fn step(&mut self, input: Input<'_>) -> usize {
        let now = Now { mono: Duration::from_millis(self.millis), utc: UtcTime(1_700_000_000_000 + self.millis) };
        let consumed = self.core.step(now, input, &mut self.out).consumed;
        let orders = std::mem::take(&mut self.out.conns);
        let requests = std::mem::take(&mut self.out.store);
        self.out.answers.clear();
        self.out.delivered.clear();
        for (ticket, request) in requests {
            if let Some(reply) = self.store.apply(&[request]).pop() {
                self.step(Input::Stored { ticket, reply });
            }
        }
        for order in orders {
            match order {
                ConnOrder::Resume(conn) => self.offer(conn.slot as usize),
                ConnOrder::StartTls { conn, .. } => {
                    self.unread[conn.slot as usize].clear();
                    self.step(Input::Secured { conn, tls: TlsFacts::default() });
                }
                ConnOrder::Close(conn) | ConnOrder::Abort(conn) => self.close(conn.slot as usize),
            }
        }
        consumed
    }

    fn offer(&mut self, index: usize) {
        if !self.open[index] {
            return;
        }
        let unread = std::mem::take(&mut self.unread[index]);
        let consumed = self.step(Input::Bytes { conn: conn(index), unread: &unread });
        assert!(consumed <= unread.len());
        let later = std::mem::take(&mut self.unread[index]);
        self.unread[index] = [&unread[consumed..], &later].concat();
    }

    fn close(&mut self, index: usize) {
        if std::mem::take(&mut self.open[index]) {
            self.unread[index].clear();
            self.step(Input::Closed { conn: conn(index), reason: CloseReason::Gone });
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut config = Config::try_out();
    config.limits.rates = false;
    let seeds = Seeds { random: [7; 32], installation: [8; 32] };
    let mut world = World {
        core: Core::new(&config, seeds, true),
        out: Outputs::default(),
        store: MemoryStore::new(&config, [9; 32]),
        unread: Default::default(),
        open: [true; CONNECTIONS],
        millis: 0,
    };
    for index in 0..CONNECTIONS {
        world.out.wire.open(conn(index));
        let listener = if index == 0 { ListenerKind::Plain } else { ListenerKind::Tls };
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        world.step(Input::Opened { conn: conn(index), listener, peer });
        if index > 0 {
            world.step(Input::Secured { conn: conn(index), tls: TlsFacts::default() });
        }
    }
    // Pieces end at a byte that UTF-8 does not have; it says which connection is next and whether time passes.
    for piece in data.split_inclusive(|byte| *byte >= 0xF8) {
        let (last, bytes) = piece.split_last().expect("a piece has a byte");
        let index = usize::from(*last) % CONNECTIONS;
        world.unread[index].extend_from_slice(if *last >= 0xF8 { bytes } else { piece });
        world.offer(index);
        if *last == 0xFF {
            world.millis += 30_000;
            world.step(Input::Deadline);
        }
        let mut dirty = Vec::new();
        world.out.wire.take_dirty(&mut dirty);
        for conn in dirty {
            let pending = world.out.wire.pending(conn);
            if world.out.wire.sent(conn, pending) {
                world.step(Input::Flushed { conn });
            }
        }
    }
});
