//! Back-off for failed log-ins, by address: who guesses waits longer and longer, the account itself is never locked.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;

/// Addresses remembered at once; beyond it the oldest entries go.
const ADDRESSES_MAX: usize = 4096;
/// A failure is forgotten after so long without another.
const MEMORY: Duration = Duration::from_secs(600);

/// Recent failures by address. An IPv6 address counts with its /64, which one subscriber has to himself.
#[derive(Default)]
pub struct Penalties {
    failures: HashMap<IpAddr, (u32, Duration)>,
}

impl Penalties {
    /// Counts a failure at `now` and tells how long its answer must wait: nothing for the first `free` ones, then 1 s and twice
    /// as much each time.
    pub fn wait(&mut self, peer: IpAddr, now: Duration, free: u32) -> Duration {
        if self.failures.len() >= ADDRESSES_MAX {
            self.failures.retain(|_, (_, last)| now.saturating_sub(*last) < MEMORY);
        }
        if self.failures.len() >= ADDRESSES_MAX {
            self.failures.clear();
        }
        let (count, last) = self.failures.entry(subscriber(peer)).or_insert((0, now));
        if now.saturating_sub(*last) >= MEMORY {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *last = now;
        match count.checked_sub(free + 1) {
            Some(above) => Duration::from_secs(1 << above.min(16)),
            None => Duration::ZERO,
        }
    }

    /// A log-in from this address has succeeded.
    pub fn forgive(&mut self, peer: IpAddr) {
        self.failures.remove(&subscriber(peer));
    }
}

/// The address as far as it tells subscribers apart.
pub fn subscriber(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
        v4 => v4,
    }
}
