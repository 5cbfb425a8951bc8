//! One simulated life of a server: some minutes in which all goes wrong, then peace, then the reckoning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whinchat::auth::PasswordScheme;
use whinchat::config::{Config, DomainConfig, Limits};

use super::blocking::may_quarrel;
use super::device::Device;
use super::land::{Event, Land};
use super::oracle::Form;
use super::rooms::ROOMS;
use super::{Medium, NEWCOMER, Plant, account_name};

/// How long things go wrong: mostly not long, since most mistakes show early.
fn chaos(seed: u64) -> Duration {
    Duration::from_secs(if seed.is_multiple_of(10) { 600 } else { 120 + seed % 7 * 20 })
}

/// What happened in a run.
#[derive(Debug, Default)]
pub struct Report {
    pub events: u64,
    pub messages: usize,
    pub received: u64,
    /// Lines said in rooms, and how often they were seen.
    pub lines: usize,
    pub lines_seen: usize,
    /// How often somebody was kept out of a room, or not heard.
    pub refusals: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub batches: u64,
    pub store_failures: u64,
    pub logins: u64,
    /// With tokens.
    pub token_logins: u64,
    pub resumptions: u64,
    pub faults: BTreeMap<&'static str, Toll>,
}

/// What came of a fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Toll {
    /// How often it has struck.
    pub times: u64,
    /// In how many lives.
    pub lives: u64,
    /// What was acknowledged in these.
    pub acknowledged: u64,
    /// In how many of them a promise was broken.
    pub broken: u64,
}

impl Report {
    /// Adds another run's.
    pub fn add(&mut self, other: &Report) {
        self.events += other.events;
        self.messages += other.messages;
        self.received += other.received;
        self.lines += other.lines;
        self.lines_seen += other.lines_seen;
        self.refusals += other.refusals;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.batches += other.batches;
        self.store_failures += other.store_failures;
        self.logins += other.logins;
        self.token_logins += other.token_logins;
        self.resumptions += other.resumptions;
        for (fault, toll) in &other.faults {
            let sum = self.faults.entry(fault).or_default();
            sum.times += toll.times;
            sum.lives += toll.lives;
            sum.acknowledged += toll.acknowledged;
            sum.broken += toll.broken;
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:54} {:>8} {:>8} {:>13} {:>7}", "fault", "times", "lives", "acknowledged", "broken")?;
        for (fault, Toll { times, lives, acknowledged, broken }) in &self.faults {
            writeln!(f, "{fault:54} {times:>8} {lives:>8} {acknowledged:>13} {broken:>7}")?;
        }
        write!(
            f,
            "{} events, {} messages received {} times, {} lines in rooms seen {} times, {} times somebody kept out or silenced, {} writes and messages acknowledged, {} values read, {} commits with \
             {} requests failed, {} logins, {} by token, {} resumptions",
            self.events,
            self.messages,
            self.received,
            self.lines,
            self.lines_seen,
            self.refusals,
            self.acknowledged,
            self.reads,
            self.batches,
            self.store_failures,
            self.logins,
            self.token_logins,
            self.resumptions
        )
    }
}

pub struct World {
    pub devices: Vec<Device>,
    pub land: Land,
}

/// Lives through one seed: what happened, and what was promised and not kept.
pub fn run(seed: u64, medium: Medium, plant: Option<Plant>) -> (Report, Result<(), String>) {
    let mut world = World::new(seed, medium, plant);
    let result = world.live(seed);
    (world.report(result.is_err()), result)
}

impl World {
    fn live(&mut self, seed: u64) -> Result<(), String> {
        let begin = self.land.now;
        self.run_until(begin + chaos(seed));
        self.make_peace();
        self.check()?;
        self.unblock_all();
        self.come_again();
        self.check()?;
        self.talk_in_peace();
        self.meet();
        self.check()?;
        self.reckon();
        self.check()
    }
}

fn configure(seed: u64) -> Config {
    let domain =
        |name: &str| DomainConfig { name: name.to_owned(), registration_open: true, ..DomainConfig::default() };
    Config {
        domains: vec![domain("a.test"), domain("b.test")],
        listen: Default::default(),
        // As few as are done at all: what the hashes cost is not what is looked at here.
        password_scheme: PasswordScheme::Scram { iterations: 1 },
        limits: Limits {
            rates: seed.is_multiple_of(3),
            registrations_per_hour: 1000,
            login_backoff_after: 1000,
            resume_time: Duration::from_secs(if seed.is_multiple_of(5) { 20 } else { 90 }),
            idle_ping: Duration::from_secs(300),
            output_pause: if seed.is_multiple_of(4) { 4 * 1024 } else { 128 * 1024 },
            output_max: if seed.is_multiple_of(4) { 300 * 1024 } else { 2 * 1024 * 1024 },
            // So that coming in takes several turns of the loop.
            room_slice: if seed.is_multiple_of(2) { 2 } else { Limits::default().room_slice },
            offline_messages_max: if seed.is_multiple_of(7) { 30 } else { 1000 },
            ..Limits::default()
        },
        ..Config::try_out()
    }
}

impl World {
    fn new(seed: u64, medium: Medium, plant: Option<Plant>) -> World {
        // Hashing a password takes longer than all the rest, so not everybody's life has new ones.
        let accounts = if seed % 4 == 1 { NEWCOMER + 1 } else { NEWCOMER };
        let places: Vec<(usize, usize)> =
            (0..accounts).flat_map(|account| (0..=account % 3).map(move |number| (account, number))).collect();
        let mut land = Land::new(seed, configure(seed), medium, plant, places.len());
        land.new_passwords = if seed % 4 == 1 { 3 } else { 0 };
        let mut devices: Vec<Device> = places
            .into_iter()
            .enumerate()
            .map(|(index, (account, number))| Device::new(index, account, number, &mut land))
            .collect();
        for device in &mut devices {
            let pause = land.dice.time(Duration::from_secs(5));
            device.act_in(&mut land, pause);
        }
        let mut world = World { devices, land };
        world.schedule_fault();
        world
    }

    fn schedule_fault(&mut self) {
        let at = self.land.now + self.land.dice.time(Duration::from_secs(45));
        self.land.schedule(at, Event::Fault);
    }

    fn run_until(&mut self, until: Duration) {
        while self.land.oracle.violation.is_none() {
            match self.land.next(until) {
                Some(Event::Act { device, turn }) => self.devices[device].act(&mut self.land, turn),
                Some(Event::Fault) => self.on_fault(),
                Some(event) => self.land.on_event(event),
                None if self.land.for_devices.is_empty() => break,
                None => {}
            }
            while let Some((conn, bytes)) = self.land.for_devices.pop_front() {
                let device = &mut self.devices[self.land.conns[conn].device];
                match bytes {
                    Some(bytes) => device.on_bytes(&mut self.land, conn, &bytes),
                    None => device.on_closed(&mut self.land, conn),
                }
            }
        }
        self.land.now = self.land.now.max(until);
    }

    fn on_fault(&mut self) {
        if self.land.is_calm {
            return;
        }
        self.schedule_fault();
        let land = &mut self.land;
        if !land.server_is_up() {
            return;
        }
        match land.dice.below(10) {
            0..=3 => {
                land.vault.fail(&mut land.dice);
                land.note(|| "== the store is about to fail".to_owned());
            }
            4 | 5 => land.vault.mend(),
            6 => land.cut_power(),
            7 | 8 => land.vault.cut_power_soon(&mut land.dice),
            _ => land.shut_down(),
        }
    }

    /// Nothing goes wrong any more: everybody comes, everything that must time out does.
    fn make_peace(&mut self) {
        self.land.is_calm = true;
        self.land.note(|| "== peace".to_owned());
        if self.land.server_is_up() {
            // A disk that could not be synced needs a restart.
            self.land.shut_down();
        }
        self.land.vault.mend();
        for device in self.devices.iter_mut().filter(|device| device.is_away()) {
            let pause = self.land.dice.time(Duration::from_secs(5));
            device.act_in(&mut self.land, pause);
        }
        let limits = &self.land.config.limits;
        let longest = limits.idle_ping + limits.ping_answer + limits.write_stall + limits.resume_time;
        self.settle(longest * 2);
    }

    pub fn settle(&mut self, time: Duration) {
        let until = self.land.now + time;
        self.run_until(until);
        if self.land.oracle.violation.is_some() {
            return;
        }
        for device in &self.devices {
            if !device.is_online() {
                let what = format!("device {} of {} is not back", device.index(), account_name(device.account));
                self.land.oracle.fail(|| what);
            }
        }
    }

    /// Who was blocked is heard again, and seen.
    fn unblock_all(&mut self) {
        for device in self.devices.iter_mut().filter(|device| device.is_first) {
            device.ask_blocklist(&mut self.land);
            device.unblock_all(&mut self.land);
        }
        self.settle(Duration::from_secs(120));
    }

    /// All log out and in again: what they had got does not come again.
    fn come_again(&mut self) {
        for device in &mut self.devices {
            device.leave(&mut self.land);
        }
        self.settle(Duration::from_secs(300));
        for device in &self.devices {
            if device.stamped > 0 {
                let what = format!("device {} got {} old messages again", device.index(), device.stamped);
                self.land.oracle.fail(|| what);
            }
        }
    }

    /// Each message reaches each device once, in the form that it should.
    fn talk_in_peace(&mut self) {
        for device in self.devices.iter_mut().filter(|device| device.is_first) {
            device.publish(&mut self.land);
        }
        let mut said = Vec::new();
        for speaker in (0..self.devices.len()).filter(|index| index % 3 == 0) {
            let hearer = self.land.dice.below(self.devices.len());
            let (account, jid) = (self.devices[hearer].account, self.devices[hearer].jid().to_owned());
            if self.devices[speaker].account == account {
                continue;
            }
            for (to, only) in [(jid.as_str(), Some(hearer)), (account_name(account), None)] {
                if let Some(message) = self.devices[speaker].say(&mut self.land, account, to) {
                    said.push((message, speaker, account, only));
                }
            }
        }
        self.settle(Duration::from_secs(120));
        for (message, speaker, account, only) in said {
            let form = |device: &Device| match device.account {
                own if own == account && only.is_none_or(|only| only == device.index()) => Some(Form::Itself),
                own if own == account && device.wants_copies() => Some(Form::Received),
                own if own == self.devices[speaker].account && device.wants_copies() => {
                    (device.index() != speaker).then_some(Form::Sent)
                }
                _ => None,
            };
            let expected: Vec<(usize, Form)> =
                self.devices.iter().filter_map(|device| Some((device.session()?, form(device)?))).collect();
            self.land.oracle.check_forms(message, &expected);
        }
    }

    /// What was promised must be there.
    fn reckon(&mut self) {
        for device in &mut self.devices {
            device.become_available(&mut self.land, 1);
            device.ask_roster(&mut self.land);
            device.ask_private(&mut self.land);
            device.ask_vcard(&mut self.land);
            device.ask_tune(&mut self.land);
            for room in 0..ROOMS.len() {
                device.ask_room(&mut self.land, room);
            }
            if device.is_first {
                device.ask_archive(&mut self.land, None, None);
            }
        }
        self.settle(Duration::from_secs(240));
        let conns = &self.land.conns;
        self.land.oracle.check_messages(|conn| conns[conn].server_closed_at);
        if let Some(what) = self.devices.iter().find_map(Device::outstanding) {
            self.land.oracle.fail(|| format!("never answered: {what}"));
        }
        for device in self.devices.iter().filter(|device| device.is_first) {
            match device.has_archive {
                true => self.land.oracle.check_archive(device.account, &device.archive),
                false => self.land.oracle.fail(|| format!("device {} has not got its archive", device.index())),
            }
        }
        self.land.oracle.check_rooms();
        self.check_pairs();
        self.check_presence();
        self.check_news();
        self.land.check_push();
    }

    fn state(&self, user: usize, contact: usize) -> &str {
        let device = self.devices.iter().find(|device| device.account == user);
        device.and_then(|device| device.roster.get(account_name(contact))).map_or("\"\" none   []", String::as_str)
    }

    /// Both halves of every subscription say the same.
    fn check_pairs(&mut self) {
        let accounts: BTreeSet<usize> = self.devices.iter().map(|device| device.account).collect();
        for &user in &accounts {
            for &contact in accounts.iter().filter(|contact| **contact != user && !may_quarrel(user, **contact)) {
                let (hears, is_heard) = self.subscription(user, contact);
                if hears != is_heard {
                    let (own, other) = (self.state(user, contact), self.state(contact, user));
                    let (user, contact) = (account_name(user), account_name(contact));
                    let what = format!("{user} has {contact} as {own}, which has it as {other}");
                    self.land.oracle.fail(|| what);
                }
            }
        }
    }

    /// Whether a user hears of a contact, and whether the contact means so.
    fn subscription(&self, user: usize, contact: usize) -> (bool, bool) {
        let has = |state: &str, names: [&str; 2]| names.iter().any(|name| state.contains(&format!(" {name} ")));
        let hears = has(self.state(user, contact), ["to", "both"]);
        (user == contact || hears, user == contact || has(self.state(contact, user), ["from", "both"]))
    }

    /// The accounts whose presence and news a device gets.
    pub fn heard_by(&self, device: &Device) -> BTreeSet<usize> {
        let hears = |other: &usize| self.subscription(device.account, *other) == (true, true);
        self.devices.iter().map(|other| other.account).filter(hears).collect()
    }

    /// Everybody sees exactly whom he may see.
    fn check_presence(&mut self) {
        for device in &self.devices {
            let heard = self.heard_by(device);
            let others = self.devices.iter().filter(|other| heard.contains(&other.account));
            let mut expected: Vec<&str> = others.map(Device::jid).collect();
            expected.sort_unstable();
            // What two have of each other who have quarrelled may differ.
            let is_agreed = |jid: &&str| {
                let other = self.devices.iter().find(|other| other.jid() == *jid);
                other.is_none_or(|other| {
                    let (hears, is_heard) = self.subscription(device.account, other.account);
                    hears == is_heard
                })
            };
            let seen: Vec<&str> = device.seen.iter().map(String::as_str).filter(is_agreed).collect();
            if expected != seen {
                let what = format!("device {} sees {seen:?}, not {expected:?}", device.index());
                self.land.oracle.fail(|| what);
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.land.oracle.violation.take().map_or(Ok(()), Err)
    }

    fn report(&self, is_broken: bool) -> Report {
        let oracle = &self.land.oracle;
        let mut faults = self.land.vault.faults();
        faults.extend(&self.land.faults);
        let toll = |times| Toll { times, lives: 1, acknowledged: oracle.acknowledged, broken: u64::from(is_broken) };
        Report {
            events: self.land.events_count,
            messages: oracle.messages.len(),
            received: oracle.received,
            lines: oracle.rooms.counts().0,
            lines_seen: oracle.rooms.counts().1,
            refusals: oracle.rooms.refusals,
            acknowledged: oracle.acknowledged,
            reads: oracle.reads,
            batches: self.land.vault.batches,
            store_failures: self.land.vault.failures,
            logins: self.devices.iter().map(|device| device.logins).sum(),
            token_logins: self.devices.iter().map(|device| device.wallet.logins).sum(),
            resumptions: self.devices.iter().map(|device| device.resumptions).sum(),
            faults: faults.into_iter().map(|(fault, times)| (fault, toll(times))).collect(),
        }
    }
}
