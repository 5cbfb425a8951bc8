//! Rooms entered in slices (PROTOCOL MU-43): no step of the core writes more than a slice of presences, and whatever chance does
//! meanwhile, every occupant sees the room as it is, and in an order that a client can follow.

#[path = "../benches/house/mod.rs"]
mod house;

use std::collections::{BTreeMap, BTreeSet};

use house::House;
use whinchat::core::ConnId;
use whinchat::xml::{Element, Tree, ns};

const ROOM: &str = "hall@conference.localhost";
const INSTANT: &str = "<iq type='set' id='i' to='hall@conference.localhost'><query xmlns='http://jabber.org/protocol/muc#owner'>\
                       <x xmlns='jabber:x:data' type='submit'/></query></iq>";

fn house(slice: usize) -> House {
    let mut config = House::config();
    config.limits.room_slice = slice;
    config.limits.resources_per_account_max = 1000;
    House::with(&config, false)
}

fn join(nick: &str) -> String {
    format!("<presence to='{ROOM}/{nick}'><x xmlns='{}'><history maxstanzas='0'/></x></presence>", ns::MUC)
}

#[test]
fn no_step_writes_more_than_a_slice() {
    const SLICE: usize = 16;
    const CROWD: usize = 100;
    let mut house = house(SLICE);
    let conns: Vec<ConnId> = (0..CROWD).map(|number| house.log_in(&format!("guest{number}"), "ball")).collect();
    house.ask(conns[0], &join("nick0"));
    assert!(house.ask(conns[0], INSTANT).contains("result"));
    let presences = |text: &str| text.matches("<presence").count();
    let mut steps = 0;
    // Five at a time.
    for five in conns[1..].chunks(5) {
        let mut told = 0;
        let before = house.steps();
        for (index, conn) in five.iter().enumerate() {
            let number = conns.iter().position(|other| other == conn).expect("one of them");
            house.give(*conn, join(&format!("nick{number}")).as_bytes());
            let written: usize = conns.iter().map(|conn| presences(&house.take(*conn))).sum();
            // Beside the slice, the own presence of who is let in.
            assert!(written <= SLICE + 1, "{written} presences in one step, {index}");
            told += written;
        }
        while house.turn() {
            let written: usize = conns.iter().map(|conn| presences(&house.take(*conn))).sum();
            assert!(written <= SLICE + five.len(), "{written} presences in one step");
            told += written;
        }
        steps += house.steps() - before;
        let inside = conns.iter().position(|conn| *conn == five[0]).expect("one of them");
        // Each is told of all before and of itself, and all before of each; among the five each pair is told both ways.
        let expected: usize = (0..five.len()).map(|index| 2 * (inside + index) + 1).sum();
        assert_eq!(told, expected, "five come to {inside}");
    }
    assert!(steps > CROWD * CROWD / SLICE, "{steps} steps, so it was not in slices");
}

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// A client that believes what it is told, and complains when that makes no sense.
#[derive(Default)]
struct Guest {
    conn: Option<ConnId>,
    /// Nick in the room, once it is in.
    nick: Option<String>,
    /// It has asked to be let in.
    asks: bool,
    /// It is in and was told so; the subject is still to come.
    awaits_subject: bool,
    /// Nicks of the others, as far as it was told.
    others: BTreeSet<String>,
    /// Lines, since it is in.
    lines: Vec<String>,
    log: String,
}

impl Guest {
    fn hear(&mut self, text: &str) -> Result<(), String> {
        self.log.push_str(text);
        let text = format!("<all xmlns='jabber:client'>{text}</all>");
        let tree = Tree::parse(&text, ns::CLIENT).map_err(|error| format!("{error:?}"))?;
        for stanza in tree.root().children() {
            self.understand(&stanza).map_err(|error| format!("{error}: {}", stanza.source()))?;
        }
        Ok(())
    }

    fn understand(&mut self, stanza: &Element<'_>) -> Result<(), String> {
        let Some(rest) = stanza.attr("from").and_then(|from| from.strip_prefix(ROOM)) else { return Ok(()) };
        let nick = rest.strip_prefix('/').unwrap_or_default().to_owned();
        let x = stanza.child("x", ns::MUC_USER);
        let has = |code| {
            x.as_ref()
                .is_some_and(|x| x.children().any(|child| child.name() == "status" && child.attr("code") == Some(code)))
        };
        match (stanza.name(), stanza.attr("type")) {
            // It is not in, or its nick stays as it was; it knows that, or will in a moment.
            ("presence", Some("error" | "unavailable")) if stanza.attr("id") == Some("nick") => {}
            ("presence", Some("error")) => {
                self.asks = false;
                self.others.clear();
            }
            ("presence", None) if has("110") => {
                if self.nick.is_none() && !self.asks {
                    return Err("it is in without asking".into());
                }
                self.awaits_subject = self.asks;
                self.asks = false;
                self.nick = Some(nick);
            }
            ("presence", Some("unavailable")) if has("110") => {
                if !has("303") {
                    let conn = self.conn;
                    let log = std::mem::take(&mut self.log);
                    *self = Guest { conn, log, ..Guest::default() };
                }
            }
            ("presence", None) if self.nick.is_some() || self.asks => drop(self.others.insert(nick)),
            ("presence", Some("unavailable")) if self.nick.is_some() || self.asks => {
                if !self.others.remove(&nick) {
                    return Err(format!("{nick} has gone, who was not there"));
                }
            }
            ("message", Some("groupchat")) => {
                let Some(own) = &self.nick else { return Err("a message to who is not in".into()) };
                if stanza.child("subject", ns::CLIENT).is_some() {
                    self.awaits_subject = false;
                } else if let Some(body) = stanza.child("body", ns::CLIENT) {
                    if self.awaits_subject {
                        return Err("a message before the subject".into());
                    }
                    if nick != *own && !self.others.contains(&nick) {
                        return Err(format!("{nick} speaks, who is not there"));
                    }
                    self.lines.push(body.text().into_owned());
                }
            }
            ("message" | "iq", _) => {}
            _ => return Err("nonsense".into()),
        }
        Ok(())
    }
}

const GUESTS: usize = 9;

struct World {
    house: House,
    dice: Dice,
    guests: Vec<Guest>,
    unread: BTreeMap<ConnId, Vec<u8>>,
    said: usize,
    /// Sessions of each guest that it has not used yet.
    spare: Vec<Vec<ConnId>>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed);
        let mut house = house(1 + dice.below(3));
        let guests = (0..GUESTS).map(|_| Guest::default()).collect();
        let boss = house.log_in("boss", "desk");
        assert!(house.ask(boss, &join("boss")).contains("<subject"));
        assert!(house.ask(boss, INSTANT).contains("result"));
        let spare =
            |guest| (0..6).map(|number| house.log_in(&format!("guest{guest}"), &format!("r{number}"))).collect();
        let spare = (0..GUESTS).map(spare).collect();
        let mut world = World { house, dice, guests, unread: BTreeMap::new(), said: 0, spare };
        world.guests[0] = Guest { conn: Some(boss), nick: Some("boss".into()), ..Guest::default() };
        world
    }

    /// Sends; what the core does not take yet is offered again later.
    fn send(&mut self, guest: usize, xml: &str) {
        let Some(conn) = self.guests[guest].conn else { return };
        self.unread.entry(conn).or_default().extend_from_slice(xml.as_bytes());
        self.offer(conn);
    }

    fn offer(&mut self, conn: ConnId) {
        let Some(unread) = self.unread.get_mut(&conn) else { return };
        let consumed = self.house.offer(conn, unread);
        unread.drain(..consumed);
    }

    fn listen(&mut self, guest: usize) -> Result<(), String> {
        let Some(conn) = self.guests[guest].conn else { return Ok(()) };
        let text = self.house.take(conn);
        self.guests[guest].hear(&text).map_err(|error| format!("guest {guest}: {error}"))
    }

    fn turn(&mut self) -> bool {
        let went_on = self.house.turn();
        let conns: Vec<ConnId> =
            self.unread.iter().filter(|(_, unread)| !unread.is_empty()).map(|(conn, _)| *conn).collect();
        conns.iter().for_each(|conn| self.offer(*conn));
        went_on
    }

    fn act(&mut self) -> Result<(), String> {
        let guest = 1 + self.dice.below(GUESTS - 1);
        let nick = format!("nick{}", self.dice.below(GUESTS + 2));
        match self.dice.below(40) {
            0..6 => self.listen(guest)?,
            6 => self.listen(0)?,
            7..16 => drop(self.turn()),
            16..24 => self.come(guest, &nick),
            24..28 => {
                let speaker = self.dice.below(GUESTS);
                if self.guests[speaker].nick.is_some() || self.guests[speaker].asks {
                    self.said += 1;
                    let line = format!("<message type='groupchat' to='{ROOM}'><body>g{}</body></message>", self.said);
                    self.send(speaker, &line);
                }
            }
            28..30 => self.send(guest, &format!("<presence type='unavailable' to='{ROOM}/x'/>")),
            30 if self.guests[guest].nick.is_some() => {
                self.send(guest, &format!("<presence id='nick' to='{ROOM}/{nick}'/>"))
            }
            31 => self.cut(guest),
            32..34 => self.moderate(&format!("<item nick='{nick}' role='none'/>")),
            34 => self.moderate(&format!("<item nick='{nick}' role='visitor'/>")),
            35 => {
                let to = ["outcast", "none", "none", "admin"][self.dice.below(4)];
                self.moderate(&format!("<item jid='guest{guest}@localhost' affiliation='{to}'/>"));
            }
            36 => self.configure(),
            37 => self.send(0, &format!("<presence to='{ROOM}/boss'><show>away</show></presence>")),
            _ => {}
        }
        Ok(())
    }

    fn come(&mut self, guest: usize, nick: &str) {
        if self.guests[guest].conn.is_none() {
            self.guests[guest] = Guest { conn: self.spare[guest].pop(), ..Guest::default() };
        } else if self.guests[guest].nick.is_none() && !self.guests[guest].asks {
            self.guests[guest].asks = true;
            self.guests[guest].others.clear();
            self.send(guest, &join(nick));
        }
    }

    fn cut(&mut self, guest: usize) {
        if let Some(conn) = self.guests[guest].conn.take() {
            self.unread.remove(&conn);
            self.house.close(conn);
            self.guests[guest] = Guest::default();
        }
    }

    fn moderate(&mut self, item: &str) {
        let query = format!("<query xmlns='{}'>{item}</query>", ns::MUC_ADMIN);
        self.send(0, &format!("<iq type='set' id='a' to='{ROOM}'>{query}</iq>"));
    }

    fn configure(&mut self) {
        let value = ["anyone", "moderators"][self.dice.below(2)];
        let field = format!("<field var='muc#roomconfig_whois'><value>{value}</value></field>");
        let form =
            format!("<query xmlns='{}'><x xmlns='jabber:x:data' type='submit'>{field}</x></query>", ns::MUC_OWNER);
        self.send(0, &format!("<iq type='set' id='c' to='{ROOM}'>{form}</iq>"));
    }

    /// Everybody hears all there is; then each sees who is in, and all have heard the same.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            for guest in 0..GUESTS {
                self.listen(guest)?;
            }
            if !self.turn() && self.guests.iter().all(|guest| guest.conn.is_none_or(|conn| self.house.is_quiet(conn))) {
                break;
            }
        }
        let inside: BTreeSet<String> = self.guests.iter().filter_map(|guest| guest.nick.clone()).collect();
        for (number, guest) in self.guests.iter().enumerate() {
            if guest.asks {
                return Err(format!("guest {number} was never answered"));
            }
            if let Some(nick) = &guest.nick {
                let seen: BTreeSet<String> = guest.others.iter().cloned().chain([nick.clone()]).collect();
                if seen != inside {
                    return Err(format!("guest {number} ({nick}) sees {seen:?}, there are {inside:?}"));
                }
                let boss = &self.guests[0].lines;
                if !boss.ends_with(&guest.lines) {
                    return Err(format!("guest {number} has heard {:?}, the boss {boss:?}", guest.lines));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn everybody_sees_the_room_as_it_is() {
    let seeds = match std::env::var("WHINCHAT_SEED") {
        Ok(seed) => seed.parse::<u64>().map(|seed| seed..seed + 1).expect("a number"),
        Err(_) => 1..121,
    };
    let mut inside = 0;
    for seed in seeds {
        let mut world = World::new(seed);
        for round in 0..6 {
            let lived = (0..80).try_for_each(|_| world.act()).and_then(|()| world.settle());
            if let Err(error) = lived {
                let logs: Vec<&str> = world.guests.iter().map(|guest| guest.log.as_str()).collect();
                panic!("WHINCHAT_SEED={seed}, round {round}: {error}\n{}", logs.join("\n\n"));
            }
            inside += world.guests.iter().filter(|guest| guest.nick.is_some()).count();
        }
    }
    assert!(inside > 6 * 2, "nobody is ever in");
}
