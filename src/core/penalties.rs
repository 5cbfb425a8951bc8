//! Back-off for failed log-ins, by address and by account: who guesses waits longer and longer for the answer that he was wrong.
//! Who is right is answered at once, so no account is ever locked; but from an address that has just failed nothing is looked at
//! before the time is over, or who hangs up and comes again would not wait at all.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use crate::jid::BareJid;

/// Addresses and accounts remembered at once; beyond it the older half goes.
const ENTRIES_MAX: usize = 8192;
/// Longest time that anybody waits.
const PENALTY_MAX: Duration = Duration::from_secs(16);
/// A failure is forgotten after so long without another.
const MEMORY: Duration = Duration::from_secs(600);

/// What failures are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// An IPv6 address counts with its /64, which one subscriber has to himself.
    Address(IpAddr),
    /// A hash: a name that somebody guesses with may be long. It counts whether the account exists or not.
    Account([u8; 16]),
}

impl Key {
    fn account(user: &BareJid) -> Key {
        let hash: [u8; 32] = Sha256::digest(user.as_str()).into();
        Key::Account(std::array::from_fn(|at| hash[at]))
    }
}

/// Recent failures.
#[derive(Default)]
pub struct Penalties {
    failures: HashMap<Key, (u32, Duration)>,
}

impl Penalties {
    /// Counts a failure at `now` and tells how long its answer must wait: nothing for the first `free` ones, then 1 s and twice
    /// as much each time.
    pub fn wait(&mut self, peer: IpAddr, user: Option<&BareJid>, now: Duration, free: u32) -> Duration {
        let of_address = self.count(Key::Address(subscriber(peer)), now);
        let of_account = user.map_or(0, |user| self.count(Key::account(user), now));
        penalty(of_address.max(of_account), free)
    }

    /// How long an attempt from that address must wait before it is looked at: as long as the answer to its last failure would.
    pub fn due(&self, peer: IpAddr, now: Duration, free: u32) -> Duration {
        let Some((count, last)) = self.failures.get(&Key::Address(subscriber(peer))) else { return Duration::ZERO };
        (*last + penalty(*count, free)).saturating_sub(now)
    }

    fn count(&mut self, key: Key, now: Duration) -> u32 {
        if self.failures.len() >= ENTRIES_MAX {
            self.forget_older_half();
        }
        let (count, last) = self.failures.entry(key).or_insert((0, now));
        if now.saturating_sub(*last) >= MEMORY {
            *count = 0;
        }
        *count = count.saturating_add(1);
        *last = now;
        *count
    }

    fn forget_older_half(&mut self) {
        let mut times: Vec<Duration> = self.failures.values().map(|(_, last)| *last).collect();
        let (_, median, _) = times.select_nth_unstable(ENTRIES_MAX / 2);
        let median = *median;
        let before = self.failures.len();
        self.failures.retain(|_, (_, last)| *last > median);
        if self.failures.len() == before {
            self.failures.clear();
        }
    }

    /// The account has logged in from this address: its own failures there are forgiven, not those with other accounts nor from
    /// other addresses.
    pub fn forgive(&mut self, peer: IpAddr, user: &BareJid) {
        let keys = [Key::Address(subscriber(peer)), Key::account(user)];
        let common = keys.iter().map(|key| self.failures.get(key).map_or(0, |(count, _)| *count)).min().unwrap_or(0);
        for key in keys {
            if let Some((count, _)) = self.failures.get_mut(&key) {
                *count -= common;
                if *count == 0 {
                    self.failures.remove(&key);
                }
            }
        }
    }
}

/// For so many failures of which the first `free` cost nothing.
fn penalty(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free.saturating_add(1)) {
        Some(above) => Duration::from_secs(1 << above.min(16)).min(PENALTY_MAX),
        None => Duration::ZERO,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_wait_by_address_and_by_account() {
        let mut penalties = Penalties::default();
        let user = |name: &str| BareJid::from_parts(name, "x.test").expect("a name");
        let mut check = |peer: &str, name: &str, at: u64, seconds: u64| {
            let wait = penalties.wait(peer.parse().expect(peer), Some(&user(name)), Duration::from_secs(at), 2);
            assert_eq!(wait.as_secs(), seconds, "{peer} {name} {at}");
            let due = penalties.due(peer.parse().expect(peer), Duration::from_secs(at), 2);
            assert!(due <= wait, "an account's failures from elsewhere do not hold an address up");
        };
        check("192.0.2.1", "a", 0, 0);
        check("192.0.2.1", "b", 0, 0);
        check("::ffff:192.0.2.1", "c", 0, 1);
        check("2001:db8::1", "d", 0, 0);
        check("2001:db8::2", "e", 0, 0);
        check("2001:db8::3", "f", 0, 1);
        check("2001:db8:0:1::1", "a", 0, 0);
        check("192.0.2.2", "a", 0, 1);
        check("192.0.2.3", "a", 700, 0);
    }

    #[test]
    fn who_comes_again_waits_all_the_same() {
        let mut penalties = Penalties::default();
        let peer = "192.0.2.1".parse().expect("an address");
        let mut check = |failures: u32, after_millis: u64, millis: u128| {
            for _ in 0..failures {
                penalties.wait(peer, None, Duration::ZERO, 2);
            }
            let due = penalties.due(peer, Duration::from_millis(after_millis), 2);
            assert_eq!(due.as_millis(), millis, "{failures} more, after {after_millis} ms");
        };
        check(0, 0, 0);
        check(2, 0, 0);
        check(1, 0, 1000);
        check(0, 400, 600);
        check(0, 1000, 0);
        check(20, 0, 16_000);
        check(0, 16_000, 0);
    }

    #[test]
    fn an_account_of_ones_own_buys_no_guesses() {
        let mut penalties = Penalties::default();
        let peer = "192.0.2.1".parse().expect("an address");
        let [own, other] = ["own", "other"].map(|name| BareJid::from_parts(name, "x.test").expect("a name"));
        for guess in 0..4 {
            let wait = penalties.wait(peer, Some(&other), Duration::ZERO, 2);
            assert_eq!(wait.is_zero(), guess < 2);
            penalties.forgive(peer, &own);
        }
        penalties.forgive(peer, &other);
        assert!(penalties.failures.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut penalties = Penalties::default();
        for address in 0..20_000u32 {
            penalties.wait(IpAddr::V4(address.into()), None, Duration::from_millis(address.into()), 1);
            assert!(penalties.failures.len() <= ENTRIES_MAX);
        }
        assert!(penalties.wait(IpAddr::V4(19_999.into()), None, Duration::from_secs(20), 1) > Duration::ZERO);
        for address in 0..20_000u32 {
            penalties.wait(IpAddr::V4(address.into()), None, Duration::from_secs(20), 1);
            assert!(penalties.failures.len() <= ENTRIES_MAX);
        }
    }
}
