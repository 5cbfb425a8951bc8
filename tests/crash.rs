//! The real program under load by real sockets, killed at any moment, started again: what it acknowledged is there.
//!
//! 50 kills by default, `WHINCHAT_KILLS=1000` for more. Each round of [`nothing_acknowledged_is_lost`] starts the program, lets
//! a few clients work, kills it with SIGKILL, starts it again and compares. What had been asked for and not been answered may
//! have happened or not; nothing else may be.

mod process;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::Duration;

use process::{Dice, Place, Process, number};
use sockets::{Client, PASSWORD, try_plain_session};

type Worked = io::Result<std::convert::Infallible>;

/// Somebody who has the server keep something, again and again until the connection breaks, and looks afterwards.
trait Worker: Send {
    fn work(&mut self, address: SocketAddr) -> Worked;
    fn verify(&mut self, address: SocketAddr);
    /// Whether it works in this round. Those who have the store hash passwords make everybody wait, so they take turns.
    fn takes_part(&self, _round: u64) -> bool {
        true
    }
    /// What it does, and how much of it was acknowledged so far.
    fn acknowledged(&self) -> (&'static str, u64);
}

/// A value that the server keeps: the one acknowledged, and the one that it was asked to put in its place.
#[derive(Debug, Default)]
struct Kept<T> {
    value: T,
    asked: Option<T>,
    acknowledged: u64,
}

impl<T: PartialEq + std::fmt::Debug> Kept<T> {
    fn ask(&mut self, value: T) {
        assert!(self.asked.is_none(), "one at a time");
        self.asked = Some(value);
    }

    fn acknowledge(&mut self) {
        self.value = self.asked.take().expect("asked for");
        self.acknowledged += 1;
    }

    /// It is found as one of the two, and no other from now on.
    fn verify(&mut self, found: T, what: &str) {
        assert!(found == self.value || Some(&found) == self.asked.as_ref(), "{what}: {found:?} instead of {self:?}");
        self.value = found;
        self.asked = None;
    }
}

/// The piece between two others, the first where they stand in this text.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    text.split_once(before)?.1.split_once(after).map(|(piece, _)| piece)
}

const ROSTER: &str = "roster@localhost";
const CONTACTS: u64 = 12;

/// Sets and removes roster items.
struct RosterKeeper {
    dice: Dice,
    names: BTreeMap<u64, Kept<Option<String>>>,
}

impl Worker for RosterKeeper {
    fn work(&mut self, address: SocketAddr) -> Worked {
        let mut client = try_plain_session(address, ROSTER, PASSWORD, "r")?;
        loop {
            let contact = self.dice.below(CONTACTS);
            let kept = self.names.entry(contact).or_default();
            let (name, rest) = match self.dice.below(4) {
                0 if kept.value.is_some() => (None, "subscription='remove'".to_owned()),
                _ => {
                    let name = format!("n{}", self.dice.next());
                    let rest = format!("name='{name}'");
                    (Some(name), rest)
                }
            };
            kept.ask(name);
            let item = format!("<item jid='c{contact}@localhost' {rest}/>");
            let set = format!("<iq type='set' id='r'><query xmlns='jabber:iq:roster'>{item}</query></iq>");
            let answer = client.try_ask(&set, "id='r'")?;
            assert!(answer.contains("type='result'"), "{answer}");
            kept.acknowledge();
        }
    }

    fn verify(&mut self, address: SocketAddr) {
        let mut client = try_plain_session(address, ROSTER, PASSWORD, "r").expect("a session");
        client.send("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>");
        let roster = client.until("id='g'");
        let mut found = 0;
        for (contact, kept) in &mut self.names {
            let item = roster.split("<item ").find(|item| item.contains(&format!("jid='c{contact}@localhost'")));
            found += usize::from(item.is_some());
            let name = item.and_then(|item| between(item, "name='", "'")).map(str::to_owned);
            kept.verify(name, &format!("c{contact}"));
        }
        assert_eq!(roster.matches("<item ").count(), found, "{roster}");
    }

    fn acknowledged(&self) -> (&'static str, u64) {
        ("roster sets and removals", self.names.values().map(|kept| kept.acknowledged).sum())
    }
}

const DOCUMENTS: &str = "documents@localhost";

/// Publishes a vCard, private XML and an item of a node in turn.
#[derive(Default)]
struct DocumentKeeper {
    number: u64,
    vcard: Kept<u64>,
    private: Kept<u64>,
    item: Kept<u64>,
}

impl Worker for DocumentKeeper {
    fn work(&mut self, address: SocketAddr) -> Worked {
        let mut client = try_plain_session(address, DOCUMENTS, PASSWORD, "d")?;
        loop {
            self.number += 1;
            let number = self.number;
            let (kept, payload) = match number % 3 {
                0 => (&mut self.vcard, format!("<vCard xmlns='vcard-temp'><FN>n{number}.</FN></vCard>")),
                1 => (
                    &mut self.private,
                    format!("<query xmlns='jabber:iq:private'><a xmlns='urn:a'>n{number}.</a></query>"),
                ),
                _ => (
                    &mut self.item,
                    format!(
                        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:a'><item id='i'><a xmlns='urn:a'>\
                         n{number}.</a></item></publish></pubsub>"
                    ),
                ),
            };
            kept.ask(number);
            let answer = client.try_ask(&format!("<iq type='set' id='d'>{payload}</iq>"), "id='d'")?;
            assert!(answer.contains("type='result'"), "{answer}");
            kept.acknowledge();
        }
    }

    fn verify(&mut self, address: SocketAddr) {
        let mut client = try_plain_session(address, DOCUMENTS, PASSWORD, "d").expect("a session");
        let mut number = |payload: &str| {
            client.send(&format!("<iq type='get' id='g'>{payload}</iq>"));
            let answer = client.until("id='g'");
            between(&answer, ">n", ".<").map_or(0, |number| number.parse().expect("a number"))
        };
        self.vcard.verify(number("<vCard xmlns='vcard-temp'/>"), "vCard");
        self.private.verify(number("<query xmlns='jabber:iq:private'><a xmlns='urn:a'/></query>"), "private");
        let items = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:a'/></pubsub>";
        self.item.verify(number(items), "item");
    }

    fn acknowledged(&self) -> (&'static str, u64) {
        let kept = [&self.vcard, &self.private, &self.item];
        ("vCards, private XML, node items", kept.iter().map(|kept| kept.acknowledged).sum())
    }
}

const CHANGER: &str = "changer@localhost";

/// Changes its password.
struct PasswordChanger {
    dice: Dice,
    password: Kept<String>,
}

impl Worker for PasswordChanger {
    fn work(&mut self, address: SocketAddr) -> Worked {
        let mut client = try_plain_session(address, CHANGER, &self.password.value, "p")?;
        loop {
            let password = format!("correct horse {}", self.dice.next());
            let query = format!("<username>changer</username><password>{password}</password>");
            self.password.ask(password);
            let set = format!("<iq type='set' id='p'><query xmlns='jabber:iq:register'>{query}</query></iq>");
            let answer = client.try_ask(&set, "id='p'")?;
            assert!(answer.contains("type='result'"), "{answer}");
            self.password.acknowledge();
        }
    }

    fn verify(&mut self, address: SocketAddr) {
        let mut right = Vec::new();
        for password in [Some(&self.password.value), self.password.asked.as_ref()].into_iter().flatten() {
            match try_plain_session(address, CHANGER, password, "p") {
                Ok(_) => right.push(password.clone()),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
            }
        }
        assert_eq!(right.len(), 1, "{:?}", self.password);
        self.password.verify(right.remove(0), "password");
    }

    fn takes_part(&self, round: u64) -> bool {
        round.is_multiple_of(3)
    }

    fn acknowledged(&self) -> (&'static str, u64) {
        ("password changes", self.password.acknowledged)
    }
}

/// Registers accounts.
#[derive(Default)]
struct Registrar {
    number: u64,
    /// Those of this round.
    fresh: Vec<u64>,
    asked: Option<u64>,
    acknowledged: u64,
}

impl Registrar {
    fn register(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut client = Client::try_connect(address)?;
        client.try_open("localhost")?;
        client.try_until("</stream:features>")?;
        self.number += 1;
        let number = self.number;
        self.asked = Some(number);
        let query = format!("<username>user{number}</username><password>{PASSWORD}</password>");
        let set = format!("<iq type='set' id='n'><query xmlns='jabber:iq:register'>{query}</query></iq>");
        let answer = client.try_ask(&set, "id='n'")?;
        assert!(answer.contains("type='result'"), "{answer}");
        self.asked = None;
        self.fresh.push(number);
        self.acknowledged += 1;
        Ok(())
    }
}

impl Worker for Registrar {
    fn work(&mut self, address: SocketAddr) -> Worked {
        loop {
            self.register(address)?;
        }
    }

    fn verify(&mut self, address: SocketAddr) {
        let is_there =
            |number: &u64| match try_plain_session(address, &format!("user{number}@localhost"), PASSWORD, "n") {
                Ok(_) => true,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
                Err(error) => panic!("{error}"),
            };
        // The last are those that a kill could take; a log-in costs a client more than the server.
        for number in self.fresh.drain(..).rev().take(8) {
            assert!(is_there(&number), "user{number} was registered and is gone");
        }
        if let Some(number) = self.asked.take() {
            // Half an account would be worse than none: it could neither be used nor made.
            if !is_there(&number) {
                self.number = number - 1;
                self.register(address).expect("the name is free");
            }
        }
    }

    fn takes_part(&self, round: u64) -> bool {
        round % 3 == 1
    }

    fn acknowledged(&self) -> (&'static str, u64) {
        ("registrations", self.acknowledged)
    }
}

/// Never there under load: all it gets comes from the store.
const SLEEPER: &str = "sleeper@localhost";
/// Comes and goes under load.
const WAKER: &str = "waker@localhost";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3'/>";

/// Sends messages and counts what the server says that it has handled (XEP-0198).
struct Sender {
    name: &'static str,
    to: &'static str,
    dice: Dice,
    sent: u64,
    handled: u64,
}

impl Sender {
    fn user(&self) -> String {
        format!("{}@localhost", self.name)
    }

    fn message(&self, number: u64) -> String {
        let (to, name) = (self.to, self.name);
        format!("<message to='{to}' type='chat'><body>{name}:{number}</body></message>")
    }
}

impl Worker for Sender {
    fn work(&mut self, address: SocketAddr) -> Worked {
        let mut client = try_plain_session(address, &self.user(), PASSWORD, "s")?;
        client.try_ask(ENABLE, "<enabled")?;
        let before = self.sent;
        loop {
            let mut batch = String::new();
            for _ in 0..=self.dice.below(12) {
                batch.push_str(&self.message(self.sent));
                self.sent += 1;
            }
            batch.push_str("<r xmlns='urn:xmpp:sm:3'/>");
            client.try_send(&batch)?;
            while self.handled < self.sent {
                let answer = client.try_until("<a xmlns='urn:xmpp:sm:3'")?;
                let h: u64 = between(&answer, "h='", "'").and_then(|h| h.parse().ok()).expect("a number");
                assert!(self.handled <= before + h && before + h <= self.sent, "{h}");
                self.handled = before + h;
            }
        }
    }

    /// [`Post`] looks.
    fn verify(&mut self, _: SocketAddr) {}

    fn acknowledged(&self) -> (&'static str, u64) {
        (if self.to == SLEEPER { "messages to who is away" } else { "messages to who comes and goes" }, self.handled)
    }
}

/// Who sent it, and which.
type Name = (String, u64);

fn name_of(stanza: &str) -> Option<Name> {
    let (sender, number) = between(stanza, "<body>", "</body>")?.split_once(':')?;
    Some((sender.to_owned(), number.parse().expect("a number")))
}

/// What a device has got and acknowledged, and the server has said that it knows.
#[derive(Default)]
struct Device {
    confirmed: BTreeSet<Name>,
    /// The archive up to where it was read, and the last of each sender in it.
    archived: String,
    last: BTreeMap<String, u64>,
}

/// Reads up to the answer to a ping; what came before are messages, in order.
fn read(client: &mut Client, handled: &mut u64, names: &mut Vec<Name>, until: impl Fn(&str) -> bool) -> io::Result<()> {
    loop {
        let Some(text) = client.next()? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        *handled += u64::from(["<message", "<iq", "<presence"].iter().any(|name| text.starts_with(name)));
        if text.starts_with("<message") && !text.contains("type='error'") {
            names.extend(name_of(&text));
        }
        if until(&text) {
            return Ok(());
        }
    }
}

impl Device {
    /// Comes online, takes what there is until `is_end`, acknowledges it, waits until the server knows, and goes.
    fn collect(&mut self, address: SocketAddr, user: &str, is_end: impl Fn(&[Name]) -> bool) -> io::Result<Vec<Name>> {
        let mut client = try_plain_session(address, user, PASSWORD, "phone")?;
        client.try_ask(ENABLE, "<enabled")?;
        client.try_send("<presence/>")?;
        let (mut handled, mut names) = (0, Vec::new());
        loop {
            client.try_send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")?;
            read(&mut client, &mut handled, &mut names, |text| text.contains("id='p'"))?;
            let taken = names.len();
            client.try_send(&format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>"))?;
            // Its answer comes from the store, behind the deletion of what was acknowledged.
            client.try_send("<iq type='get' id='v'><vCard xmlns='vcard-temp'/></iq>")?;
            read(&mut client, &mut handled, &mut names, |text| text.contains("id='v'"))?;
            let again: Vec<_> = names[..taken].iter().filter(|name| self.confirmed.contains(name)).collect();
            assert!(again.is_empty(), "{user} has acknowledged {again:?} before");
            if is_end(&names) && taken == names.len() {
                break;
            }
        }
        let unique: BTreeSet<Name> = names.iter().cloned().collect();
        assert_eq!(unique.len(), names.len(), "{user} got something twice in one session: {names:?}");
        self.confirmed.extend(unique);
        Ok(names)
    }

    /// Reads the archive on from where it was read; every message up to `handled` of each sender is there, in order, once.
    fn verify_archive(&mut self, address: SocketAddr, user: &str, handled: &BTreeMap<String, u64>) {
        let mut client = try_plain_session(address, user, PASSWORD, "archive").expect("a session");
        let mut pages = 0;
        loop {
            pages += 1;
            let after = match self.archived.as_str() {
                "" => String::new(),
                id => format!("<after>{id}</after>"),
            };
            let set = format!("<set xmlns='http://jabber.org/protocol/rsm'><max>100</max>{after}</set>");
            client.send(&format!("<iq type='set' id='m{pages}.'><query xmlns='urn:xmpp:mam:2'>{set}</query></iq>"));
            let fin = loop {
                let text = client.next().expect("a page").expect("no end");
                if text.contains(&format!("id='m{pages}.'")) {
                    break text;
                }
                let Some((sender, number)) = name_of(&text) else { continue };
                let last = self.last.get(&sender).copied();
                assert!(last.is_none_or(|last| last < number), "{user}: {sender}:{number} behind {last:?}");
                // Each number was sent once; one that was acknowledged may not be jumped over.
                let missing = last.map_or(0, |last| last + 1)..number;
                assert!(missing.is_empty(), "{user}: {missing:?} of {sender} are not in the archive");
                self.last.insert(sender, number);
            };
            assert!(fin.contains("type='result'"), "{fin}");
            if let Some(last) = between(&fin, "<last>", "</last>") {
                last.clone_into(&mut self.archived);
            }
            if fin.contains("complete='true'") {
                break;
            }
        }
        for (sender, handled) in handled {
            let last = self.last.get(sender).copied();
            assert!(*handled == 0 || last >= Some(handled - 1), "{user}: the archive ends with {last:?} of {handled}");
        }
    }
}

/// The device of who comes and goes.
#[derive(Default)]
struct Waker {
    device: Device,
    acknowledged: u64,
}

impl Worker for Waker {
    fn work(&mut self, address: SocketAddr) -> Worked {
        loop {
            self.acknowledged += self.device.collect(address, WAKER, |_| true)?.len() as u64;
        }
    }

    fn verify(&mut self, address: SocketAddr) {
        let got = self.device.collect(address, WAKER, |_| true).expect("a session");
        self.acknowledged += got.len() as u64;
    }

    fn acknowledged(&self) -> (&'static str, u64) {
        ("deliveries acknowledged by the device", self.acknowledged)
    }
}

/// After a restart: what the senders were told is handled is in the store and in the archives.
///
/// A number that a sender used and was not told of is left out from then on: the senders count on from what is found.
fn verify_post(address: SocketAddr, senders: &mut [Sender], sleeper: &mut Device, waker: &mut Device) {
    let to = |user: &str, senders: &[Sender]| -> BTreeMap<String, u64> {
        let senders = senders.iter().filter(|sender| sender.to == user);
        senders.map(|sender| (sender.name.to_owned(), sender.handled)).collect()
    };
    waker.verify_archive(address, WAKER, &to(WAKER, senders));
    sleeper.verify_archive(address, SLEEPER, &to(SLEEPER, senders));
    // A marker behind all that a sender has sent: when it is there, so is everything.
    let mut marks = Vec::new();
    for sender in senders.iter_mut() {
        let archive = if sender.to == SLEEPER { &*sleeper } else { &*waker };
        let next = archive.last.get(sender.name).map_or(0, |last| last + 1);
        assert!(sender.handled <= next && next <= sender.sent, "{}: {next}", sender.name);
        (sender.sent, sender.handled) = (next + 1, next + 1);
        let mut client = try_plain_session(address, &sender.user(), PASSWORD, "mark").expect("a session");
        client.try_ask(ENABLE, "<enabled").expect("enabled");
        client.send(&format!("{}<r xmlns='urn:xmpp:sm:3'/>", sender.message(next)));
        while !client.until("<a xmlns='urn:xmpp:sm:3'").contains("h='1'") {}
        marks.push((sender.name.to_owned(), next));
    }
    let marks: Vec<Name> = marks.into_iter().filter(|(name, _)| name.starts_with("away")).collect();
    let is_end = |names: &[Name]| marks.iter().all(|mark| names.contains(mark));
    let before: BTreeMap<String, u64> = sleeper.confirmed.iter().cloned().collect();
    let got = sleeper.collect(address, SLEEPER, is_end).expect("a session");
    for (sender, mark) in marks {
        let numbers: Vec<u64> = got.iter().filter(|(name, _)| *name == sender).map(|(_, number)| *number).collect();
        let expected: Vec<u64> = (before.get(&sender).map_or(0, |last| last + 1)..=mark).collect();
        assert_eq!(numbers, expected, "{sender}");
    }
}

struct Everybody {
    workers: Vec<Box<dyn Worker>>,
    senders: Vec<Sender>,
    sleeper: Device,
    waker: Waker,
}

impl Everybody {
    fn new(dice: &mut Dice) -> Everybody {
        let mut fresh = || Dice::seeded(dice.next());
        let password = Kept { value: PASSWORD.to_owned(), asked: None, acknowledged: 0 };
        let sender = |name, to, dice| Sender { name, to, dice, sent: 0, handled: 0 };
        Everybody {
            workers: vec![
                Box::new(RosterKeeper { dice: fresh(), names: BTreeMap::new() }),
                Box::new(DocumentKeeper::default()),
                Box::new(PasswordChanger { dice: fresh(), password }),
                Box::new(Registrar::default()),
            ],
            senders: vec![
                sender("away1", SLEEPER, fresh()),
                sender("away2", SLEEPER, fresh()),
                sender("live", WAKER, fresh()),
            ],
            sleeper: Device::default(),
            waker: Waker::default(),
        }
    }

    /// Works until the server is killed, `time` after all have begun.
    fn work(&mut self, server: Process, time: Duration, round: u64) {
        let address = server.plain;
        let workers = self.workers.iter_mut().map(|worker| &mut **worker as &mut dyn Worker);
        let workers = workers.filter(|worker| worker.takes_part(round));
        let senders = self.senders.iter_mut().map(|sender| sender as &mut dyn Worker);
        let all: Vec<_> = workers.chain(senders).chain([&mut self.waker as &mut dyn Worker]).collect();
        let start = Barrier::new(all.len() + 1);
        std::thread::scope(|scope| {
            for worker in all {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let Err(error) = worker.work(address);
                    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
                    let is_broken =
                        matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof);
                    assert!(is_broken, "{}: {error}", worker.acknowledged().0);
                });
            }
            start.wait();
            std::thread::sleep(time);
            server.kill();
        });
    }

    fn verify(&mut self, address: SocketAddr) {
        for worker in &mut self.workers {
            worker.verify(address);
        }
        verify_post(address, &mut self.senders, &mut self.sleeper, &mut self.waker.device);
        self.waker.verify(address);
    }

    fn tell(&self, rounds: u64) {
        let workers = self.workers.iter().map(|worker| worker.acknowledged());
        let senders = self.senders.iter().map(|sender| sender.acknowledged());
        println!("{rounds} kills; acknowledged, all found again:");
        for (what, count) in workers.chain(senders).chain([self.waker.acknowledged()]) {
            println!("{count:10}  {what}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost() {
    let kills = number("WHINCHAT_KILLS", 50);
    let mut dice = Dice::thrown();
    let place = Place::new(
        "rates = false\noffline_messages_max = 1000000\noffline_bytes_max = \"1G\"\narchive_bytes_max = \"10G\"\n\
         registrations_per_hour = 1000000",
    );
    for user in [ROSTER, DOCUMENTS, CHANGER, SLEEPER, WAKER, "away1@localhost", "away2@localhost", "live@localhost"] {
        place.add(user);
    }
    let mut everybody = Everybody::new(&mut dice);
    for round in 0..kills {
        let time = Duration::from_millis(20 + dice.below(200));
        everybody.work(Process::start(&place), time, round);
        // Some die again while they start.
        if dice.below(4) == 0 {
            let time = Duration::from_millis(dice.below(60));
            Process::kill_early(&place, time);
        }
        let server = Process::start(&place);
        everybody.verify(server.plain);
        let log = server.log();
        assert!(!log.contains("panicked") && !log.contains(" error "), "round {round}: {log}");
        server.kill();
    }
    everybody.tell(kills);
}

/// What becomes of the file while the server does not run.
#[test]
fn a_damaged_store_is_refused_with_a_sentence_or_right() {
    let mut dice = Dice::thrown();
    let place = Place::new("rates = false");
    let users: Vec<String> = (0..20).map(|number| format!("user{number}@localhost")).collect();
    for user in &users {
        place.add(user);
    }
    let server = Process::start(&place);
    for user in users.iter().step_by(4) {
        let mut client = try_plain_session(server.plain, user, PASSWORD, "r").expect("a session");
        let item = format!("<item jid='c@localhost' name='{}'/>", "n".repeat(900));
        client.send(&format!("<iq type='set' id='r'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
        client.until("id='r'");
    }
    server.kill();
    let whole = fs::read(place.store()).expect("a store");
    let expected = place.run("user list", "").1;
    let (mut opened, mut refused) = (0, 0);
    for round in 0..number("WHINCHAT_DAMAGES", 40) {
        let mut image = whole.clone();
        let at = dice.below(image.len() as u64) as usize;
        match round % 4 {
            0 => image.truncate(at),
            1 => image[at] ^= 1 + dice.below(255) as u8,
            2 => image[at % 1024] ^= 1 + dice.below(255) as u8,
            _ => image[at..].iter_mut().take(4096).for_each(|byte| *byte = dice.next() as u8),
        }
        fs::write(place.store(), &image).expect("written");
        let what = format!("round {round}, {at} of {}", whole.len());
        // Standard error has what a panic prints too.
        let said = match Process::try_start(&place, "") {
            Ok(server) => {
                opened += 1;
                let (went_well, said) = place.run("user list", "");
                assert!(went_well && said == expected, "{what}: {said}");
                let name = &users[dice.below(20) as usize];
                try_plain_session(server.plain, name, PASSWORD, "r").expect("a session");
                server.log()
            }
            Err(said) => {
                refused += 1;
                let is_named = said.contains("data/whinchat.redb ");
                let remedies = ["restore a backup", "move it away", "run the newer version"];
                assert!(is_named && remedies.iter().any(|remedy| said.contains(remedy)), "{what}: {said}");
                assert!(said.contains("(code Some(1))"), "{what}: {said}");
                said
            }
        };
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
    println!("{opened} opened and were right, {refused} were refused");
    assert!(opened > 0 && refused > 0);
}
