//! What devices do in rooms (XEP-0045), and what the oracle holds against that: occupants see the same lines in the same order, each
//! once; what an owner was told to be so is so after every restart.

use std::collections::{BTreeMap, HashMap};

use whinchat::xml::{Element, ns};

use super::device::{Device, Purpose};
use super::land::Land;
use super::oracle::{Key, Oracle};
use super::{NEWCOMER, account_name};

/// The rooms of a life.
pub const ROOMS: [&str; 2] = ["den@conference.a.test", "hall@conference.b.test"];

/// From a session's coming into a room to its leaving.
#[derive(Debug, Default)]
struct Stay {
    session: usize,
    /// Numbers of the lines, in the order in which they came.
    lines: Vec<usize>,
}

/// What happened in the rooms.
#[derive(Default)]
pub struct Rooms {
    /// In which room each line was said.
    said: Vec<usize>,
    stays: [Vec<Stay>; ROOMS.len()],
}

impl Rooms {
    /// Lines that were said, and how often they were seen.
    pub fn counts(&self) -> (usize, usize) {
        (self.said.len(), self.stays.iter().flatten().map(|stay| stay.lines.len()).sum())
    }
}

impl Oracle {
    fn on_line(&mut self, room: usize, stay: usize, line: usize) {
        if self.rooms.said.get(line) != Some(&room) {
            return self.fail(|| format!("g{line} was not said in {}", ROOMS[room]));
        }
        let Stay { session, lines } = &mut self.rooms.stays[room][stay];
        let (session, again) = (*session, lines.contains(&line));
        lines.push(line);
        if again {
            self.fail(|| format!("g{line} has come twice to session {session} in {}", ROOMS[room]));
        }
    }

    /// What one occupant saw one after the other, nobody saw otherwise.
    pub fn check_rooms(&mut self) {
        for (room, stays) in self.rooms.stays.iter().enumerate() {
            let mut places: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
            for (stay, Stay { lines, .. }) in stays.iter().enumerate() {
                lines.iter().enumerate().for_each(|(at, line)| places.entry(*line).or_default().push((stay, at)));
            }
            for stay in stays {
                for pair in stay.lines.windows(2) {
                    let others: BTreeMap<usize, usize> = places[&pair[1]].iter().copied().collect();
                    let differs = |(other, at): &&(usize, usize)| others.get(other).is_some_and(|next| *next != at + 1);
                    if let Some((other, _)) = places[&pair[0]].iter().find(differs) {
                        let (session, other) = (stay.session, &stays[*other]);
                        let what = format!(
                            "session {session} saw g{} and next g{} in {}, and another {other:?}",
                            pair[0], pair[1], ROOMS[room]
                        );
                        return self.fail(|| what);
                    }
                }
            }
        }
    }
}

impl Device {
    pub fn go_to_a_room(&mut self, land: &mut Land) {
        let room = land.dice.below(ROOMS.len());
        match (self.stays[room], land.dice.below(20)) {
            (None, _) => self.enter(land, room),
            (Some(_), 0) => self.stanza(
                land,
                format!("<presence to='{}/d{}' type='unavailable'/>", ROOMS[room], self.index()),
                None,
            ),
            (Some(_), 1) if self.owns[room] => self.configure(land, room),
            (Some(_), 2..=4) if self.owns[room] => self.affiliate(land, room),
            (Some(_), 5) => self.ask_room(land, room),
            (Some(_), _) => {
                let lines = if land.dice.percent(30) { 10 } else { 1 };
                for _ in 0..lines {
                    self.say_to_all(land, room);
                }
            }
        }
    }

    pub fn enter(&mut self, land: &mut Land, room: usize) {
        if self.is_available() {
            let to = format!("{}/d{}", ROOMS[room], self.index());
            let xml = format!("<presence to='{to}'><x xmlns='{}'><history maxstanzas='0'/></x></presence>", ns::MUC);
            self.stanza(land, xml, None);
        }
    }

    /// Says something in a room; the line's number.
    pub fn say_to_all(&mut self, land: &mut Land, room: usize) -> usize {
        land.oracle.rooms.said.push(room);
        let line = land.oracle.rooms.said.len() - 1;
        let xml = format!("<message type='groupchat' id='g{line}' to='{}'><body>all</body></message>", ROOMS[room]);
        self.stanza(land, xml, None);
        line
    }

    /// Whether it is inside and has seen all of these lines there.
    pub fn has_seen(&self, land: &Land, room: usize, lines: &[usize]) -> bool {
        let stay = self.stays[room].map(|stay| &land.oracle.rooms.stays[room][stay]);
        stay.is_some_and(|stay| lines.iter().all(|line| stay.lines.contains(line)))
    }

    /// Makes it a public channel with another description.
    fn configure(&mut self, land: &mut Land, room: usize) {
        let (key, value) = (Key::Description(room), land.oracle.new_value());
        let write = land.oracle.begin_write(&key, &value, land.now);
        let payload = format!(
            "<query xmlns='{}'><x xmlns='{}' type='submit'><field var='preset'><value>public</value></field>\
             <field var='muc#roomconfig_roomdesc'><value>{value}</value></field></x></query>",
            ns::MUC_OWNER,
            ns::DATA_FORMS
        );
        self.request(land, "set", Some(ROOMS[room]), &payload, Purpose::Write { key, write });
    }

    fn affiliate(&mut self, land: &mut Land, room: usize) {
        let account = land.dice.below(NEWCOMER + 1);
        // A room that is not stored yet may be gone tomorrow, and be somebody else's.
        if account == self.account || !land.oracle.is_written(&Key::Description(room)) {
            return;
        }
        let key = Key::Affiliation(room, account);
        let value = *land.dice.pick(&["none", "member", "admin"]).expect("some");
        let write = land.oracle.begin_write(&key, value, land.now);
        let item = format!("<item jid='{}' affiliation='{value}'/>", account_name(account));
        let payload = format!("<query xmlns='{}'>{item}</query>", ns::MUC_ADMIN);
        self.request(land, "set", Some(ROOMS[room]), &payload, Purpose::Write { key, write });
    }

    /// Asks what the room is, and who is what in it.
    pub fn ask_room(&mut self, land: &mut Land, room: usize) {
        let payload = format!("<query xmlns='{}'/>", ns::DISCO_INFO);
        self.request(land, "get", Some(ROOMS[room]), &payload, Purpose::Description { room });
        for affiliation in ["member", "admin"] {
            if self.owns[room] {
                let payload = format!("<query xmlns='{}'><item affiliation='{affiliation}'/></query>", ns::MUC_ADMIN);
                self.request(land, "get", Some(ROOMS[room]), &payload, Purpose::Affiliated { room, affiliation });
            }
        }
    }

    /// A stanza of a room, but for answers to requests.
    pub fn on_room(&mut self, land: &mut Land, stanza: &Element<'_>) {
        let from = stanza.attr("from").unwrap_or_default();
        let Some(room) = ROOMS.iter().position(|room| from.split('/').next() == Some(room)) else { return };
        match (stanza.name(), stanza.attr("type")) {
            ("message", Some("groupchat")) => {
                let line = stanza.attr("id").and_then(|id| id.strip_prefix('g')?.parse().ok());
                if let (Some(stay), Some(line)) = (self.stays[room], line) {
                    land.oracle.on_line(room, stay, line);
                }
            }
            ("presence", kind) => {
                let Some(x) = stanza.child("x", ns::MUC_USER) else { return };
                let has =
                    |code: &str| x.children().any(|child| child.name() == "status" && child.attr("code") == Some(code));
                if !has("110") {
                    return;
                }
                self.stays[room] = None;
                self.owns[room] = x.children().any(|item| item.attr("affiliation") == Some("owner"));
                if let (None, Some(session)) = (kind, self.session()) {
                    let stays = &mut land.oracle.rooms.stays[room];
                    stays.push(Stay { session, lines: Vec::new() });
                    self.stays[room] = Some(stays.len() - 1);
                    if has("201") {
                        self.configure(land, room);
                    }
                }
            }
            // It has forgotten who was inside.
            ("message", Some("error")) if stanza.source().contains("not-acceptable") => self.stays[room] = None,
            _ => {}
        }
    }

    pub fn on_description(&mut self, land: &mut Land, iq: &Element<'_>, room: usize, asked: std::time::Duration) {
        let form = iq.child("query", ns::DISCO_INFO).and_then(|query| query.child("x", ns::DATA_FORMS));
        let Some(form) = form else { return };
        let field = form.children().find(|field| field.attr("var") == Some("muc#roominfo_description"));
        let value = field.and_then(|field| field.children().next().map(|value| value.text().into_owned()));
        let value = value.unwrap_or_default();
        land.oracle.on_read(&Key::Description(room), &value, asked, land.now);
    }

    pub fn on_affiliated(
        &mut self,
        land: &mut Land,
        iq: &Element<'_>,
        (room, affiliation): (usize, &str),
        asked: std::time::Duration,
    ) {
        let Some(query) = iq.child("query", ns::MUC_ADMIN) else { return };
        for account in 0..=NEWCOMER {
            let key = Key::Affiliation(room, account);
            if query.children().any(|item| item.attr("jid") == Some(account_name(account))) {
                land.oracle.on_read(&key, affiliation, asked, land.now);
            } else if land.oracle.possible(&key, asked).iter().all(|possible| possible == affiliation) {
                land.oracle.fail(|| format!("{key:?} is not {affiliation}, as it must be"));
            }
        }
    }
}
