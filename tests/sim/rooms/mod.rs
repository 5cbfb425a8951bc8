//! What devices do in rooms (XEP-0045), and what they know of them. What is held against that is in `promises`; how it ends, in
//! `meeting`.

mod meeting;
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whinchat::xml::{Element, ns};

use super::device::{Device, Purpose, Sent};
use super::land::Land;
use super::registers::Key;
use super::{NEWCOMER, Plant, account_name};
use promises::description;
pub use promises::{Entry, Rooms};

/// The rooms of a life. The last one may be destroyed and made again.
pub const ROOMS: [&str; 3] = ["den@conference.a.test", "hall@conference.b.test", "attic@conference.a.test"];
const ATTIC: usize = 2;
const AFFILIATIONS: [&str; 4] = ["outcast", "member", "admin", "owner"];
const ROLES: [&str; 3] = ["visitor", "participant", "moderator"];

/// What an occupant is, as others were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    affiliation: String,
    role: String,
}

/// A presence that asks to be let in.
#[derive(Clone, Debug)]
struct Knock {
    id: String,
    asked: Duration,
    password: String,
}

/// A device in one room, or before it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    knock: Option<Knock>,
    /// While it is inside.
    stay: Option<usize>,
    since: Duration,
    nick: String,
    own: Seen,
    /// It was the first, and what the room shall be has not been stored yet.
    is_founder: bool,
    /// Who is inside, as far as it was told.
    view: BTreeMap<String, Seen>,
    /// Who is inside, as a moderator was told on request.
    listed: BTreeMap<String, Seen>,
    /// Of a mistake that is made on purpose.
    listens: Option<usize>,
    /// Numbers of the lines of the archive, as far as it was read.
    archive: Vec<usize>,
    pub has_archive: bool,
}

impl Place {
    pub fn is_inside(&self) -> bool {
        self.stay.is_some()
    }

    /// Since when it waits for an answer of the room.
    pub fn knocks_since(&self) -> Option<Duration> {
        self.knock.as_ref().map(|knock| knock.asked)
    }

    fn owns(&self) -> bool {
        self.is_inside() && self.own.affiliation == "owner"
    }

    fn moderates(&self) -> bool {
        self.is_inside() && self.own.role == "moderator"
    }

    fn governs(&self) -> bool {
        self.is_inside() && matches!(&*self.own.affiliation, "owner" | "admin")
    }
}

// What it does.

impl Device {
    pub fn go_to_a_room(&mut self, land: &mut Land) {
        let room = land.dice.below(ROOMS.len());
        self.do_something_in(land, room);
    }

    fn do_something_in(&mut self, land: &mut Land, room: usize) {
        let place = &self.places[room];
        let is_moderator = place.moderates();
        match land.dice.below(50) {
            _ if !place.is_inside() => self.enter(land, room),
            0 | 1 => self.leave_room(land, room),
            2..=4 => self.change_nick(land, room),
            5..=9 if place.owns() => self.configure(land, room),
            10 if place.owns() && room == ATTIC => self.end_room(land, room),
            // Now and then who may not.
            11..=18 if place.governs() || land.dice.percent(10) => self.affiliate(land, room),
            19..=23 if is_moderator || land.dice.percent(10) => self.change_role(land, room),
            24..=27 if is_moderator || land.dice.percent(10) => self.kick(land, room),
            28 | 29 => self.change_subject(land, room),
            30 | 31 => self.invite(land, room),
            32..=36 => self.ask_room(land, room),
            _ => {
                let lines = if land.dice.percent(30) { 10 } else { 1 };
                for _ in 0..lines {
                    self.say_to_all(land, room);
                }
            }
        }
    }

    /// Some accounts' devices share one nick.
    fn usual_nick(&self) -> String {
        match self.account % 3 {
            2 => format!("a{}", self.account),
            _ => format!("d{}", self.index()),
        }
    }

    /// One of the passwords that the room may have.
    pub fn enter(&mut self, land: &mut Land, room: usize) {
        let possible = land.oracle.possible(&Key::Description(room), land.now);
        let description = land.dice.pick(&possible).cloned().unwrap_or_default();
        self.enter_with(land, room, description::password(&description));
    }

    fn enter_with(&mut self, land: &mut Land, room: usize, password: String) {
        if !self.is_available() || self.places[room].is_inside() || self.places[room].knock.is_some() {
            return;
        }
        let (id, nick) = (self.new_id(), self.usual_nick());
        let secret = if password.is_empty() { String::new() } else { format!("<password>{password}</password>") };
        let xml = format!(
            "<presence id='{id}' to='{}/{nick}'><x xmlns='{}'><history maxstanzas='0'/>{secret}</x></presence>",
            ROOMS[room],
            ns::MUC
        );
        self.places[room].knock = Some(Knock { id, asked: land.now, password });
        self.places[room].view.clear();
        self.stanza(land, xml, None);
    }

    fn leave_room(&mut self, land: &mut Land, room: usize) {
        if self.places[room].is_inside() {
            let xml = format!("<presence to='{}/{}' type='unavailable'/>", ROOMS[room], self.places[room].nick);
            self.stanza(land, xml, None);
        }
    }

    fn change_nick(&mut self, land: &mut Land, room: usize) {
        let usual = self.usual_nick();
        if usual.starts_with('d') {
            let nick = format!("{usual}{}", land.dice.pick(&["", "-x", "-y"]).expect("some"));
            self.stanza(land, format!("<presence to='{}/{nick}'/>", ROOMS[room]), None);
        }
    }

    /// Says something in a room; the line's number.
    pub fn say_to_all(&mut self, land: &mut Land, room: usize) -> usize {
        let line = land.oracle.on_said(room, land.now);
        let xml = format!("<message type='groupchat' id='g{line}' to='{}'><body>all</body></message>", ROOMS[room]);
        self.stanza(land, xml, Some(Sent::Line(line)));
        line
    }

    fn change_subject(&mut self, land: &mut Land, room: usize) {
        let (key, value) = (Key::Subject(room), land.oracle.new_value());
        let write = land.oracle.begin_write(&key, &value, land.now);
        let id = format!("s{write}");
        let xml =
            format!("<message type='groupchat' id='{id}' to='{}'><subject>{value}</subject></message>", ROOMS[room]);
        self.stanza(land, xml, None);
    }

    /// Where only members may enter, who is invited becomes one.
    fn invite(&mut self, land: &mut Land, room: usize) {
        let account = land.dice.below(NEWCOMER + 1);
        let key = Key::Affiliation(room, account);
        land.oracle.begin_write(&key, "member", land.now);
        let xml = format!(
            "<message to='{}'><x xmlns='{}'><invite to='{}'/></x></message>",
            ROOMS[room],
            ns::MUC_USER,
            account_name(account)
        );
        self.stanza(land, xml, None);
    }

    /// What the room shall be; its description tells all of it.
    fn configure(&mut self, land: &mut Land, room: usize) {
        let mut value = land.oracle.new_value();
        // A new room is open, or nobody would ever come.
        let odds = if self.places[room].is_founder { 0 } else { 12 };
        for switch in description::ALL {
            if land.dice.percent(odds) {
                value += switch;
            }
        }
        self.configure_as(land, room, &value);
    }

    fn configure_as(&mut self, land: &mut Land, room: usize, value: &str) {
        let mut writes =
            vec![(Key::Description(room), land.oracle.begin_write(&Key::Description(room), value, land.now))];
        // Another device of the account may have made it.
        if !land.oracle.has_room(room, land.now) {
            let key = Key::Affiliation(room, self.account);
            writes.push((key.clone(), land.oracle.begin_write(&key, "owner", self.places[room].since)));
        }
        let field =
            |name: &str, value: &str| format!("<field var='muc#roomconfig_{name}'><value>{value}</value></field>");
        let switch = |name: &str, switch: &str| field(name, if value.contains(switch) { "1" } else { "0" });
        let payload = format!(
            "<query xmlns='{}'><x xmlns='{}' type='submit'>{}{}{}{}{}{}{}{}</x></query>",
            ns::MUC_OWNER,
            ns::DATA_FORMS,
            field("roomdesc", value),
            field("persistentroom", "1"),
            field("publicroom", "1"),
            field("whois", "moderators"),
            switch("membersonly", description::MEMBERS),
            switch("moderatedroom", description::MODERATED),
            switch("passwordprotectedroom", description::PASSWORD),
            field("roomsecret", &description::password(value)),
        );
        self.request(land, "set", Some(ROOMS[room]), &payload, Purpose::Write(writes));
    }

    /// All that it was is gone.
    fn end_room(&mut self, land: &mut Land, room: usize) {
        if !land.oracle.has_room(room, land.now) {
            return;
        }
        land.oracle.on_end_asked(room);
        let keys = [(Key::Description(room), ""), (Key::Subject(room), "")];
        let affiliations = (0..=NEWCOMER).map(|account| (Key::Affiliation(room, account), "none"));
        let writes = keys.into_iter().chain(affiliations).map(|(key, value)| {
            let write = land.oracle.begin_write(&key, value, land.now);
            (key, write)
        });
        let writes = writes.collect();
        let payload = format!("<query xmlns='{}'><destroy/></query>", ns::MUC_OWNER);
        self.request(land, "set", Some(ROOMS[room]), &payload, Purpose::Write(writes));
    }

    fn affiliate(&mut self, land: &mut Land, room: usize) {
        let account = land.dice.below(NEWCOMER + 1);
        let value = *land.dice.pick(&["none", "none", "outcast", "member", "admin", "owner"]).expect("some");
        self.affiliate_as(land, room, account, value);
    }

    fn affiliate_as(&mut self, land: &mut Land, room: usize, account: usize, value: &str) {
        // Who does not register in this life must not become the only owner.
        if account == NEWCOMER && value == "owner" {
            return;
        }
        // A room that is not stored yet may be gone tomorrow, and be somebody else's.
        if !land.oracle.has_room(room, land.now) {
            return;
        }
        let key = Key::Affiliation(room, account);
        let write = land.oracle.begin_write(&key, value, land.now);
        let item = format!("<item jid='{}' affiliation='{value}'/>", account_name(account));
        let payload = format!("<query xmlns='{}'>{item}</query>", ns::MUC_ADMIN);
        self.request(land, "set", Some(ROOMS[room]), &payload, Purpose::Write(vec![(key, write)]));
    }

    fn somebody_inside(&self, land: &mut Land, room: usize) -> Option<String> {
        let nicks: Vec<String> = self.places[room].view.keys().cloned().collect();
        land.dice.pick(&nicks).cloned()
    }

    fn change_role(&mut self, land: &mut Land, room: usize) {
        let Some(nick) = self.somebody_inside(land, room) else { return };
        let role = land.dice.pick(&ROLES).expect("some");
        let payload = format!("<query xmlns='{}'><item nick='{nick}' role='{role}'/></query>", ns::MUC_ADMIN);
        self.request(land, "set", Some(ROOMS[room]), &payload, Purpose::Peer);
    }

    fn kick(&mut self, land: &mut Land, room: usize) {
        let Some(nick) = self.somebody_inside(land, room) else { return };
        let payload = format!("<query xmlns='{}'><item nick='{nick}' role='none'/></query>", ns::MUC_ADMIN);
        self.request(land, "set", Some(ROOMS[room]), &payload, Purpose::Kick { room, nick });
    }

    /// Asks what the room is, and who is what in it.
    pub fn ask_room(&mut self, land: &mut Land, room: usize) {
        let payload = format!("<query xmlns='{}'/>", ns::DISCO_INFO);
        self.request(land, "get", Some(ROOMS[room]), &payload, Purpose::Description { room });
        if !self.places[room].governs() {
            return;
        }
        for affiliation in AFFILIATIONS {
            let payload = format!("<query xmlns='{}'><item affiliation='{affiliation}'/></query>", ns::MUC_ADMIN);
            self.request(land, "get", Some(ROOMS[room]), &payload, Purpose::Affiliated { room, affiliation });
        }
    }

    /// Asks who is inside.
    fn ask_occupants(&mut self, land: &mut Land, room: usize) {
        self.places[room].listed.clear();
        for role in ROLES {
            let payload = format!("<query xmlns='{}'><item role='{role}'/></query>", ns::MUC_ADMIN);
            self.request(land, "get", Some(ROOMS[room]), &payload, Purpose::Occupants { room });
        }
    }
}

// What it is told.

fn child_of<'t>(stanza: &Element<'t>, name: &str) -> Option<Element<'t>> {
    stanza.children().find(|child| child.name() == name)
}

/// The condition of an error.
fn condition_of(stanza: &Element<'_>) -> String {
    let condition =
        child_of(stanza, "error").and_then(|error| error.children().next().map(|child| child.name().to_owned()));
    condition.unwrap_or_default()
}

impl Device {
    /// A stanza of a room, but for answers to requests.
    pub fn on_room(&mut self, land: &mut Land, stanza: &Element<'_>) {
        let from = stanza.attr("from").unwrap_or_default();
        let (bare, nick) = from.split_once('/').unwrap_or((from, ""));
        let Some(room) = ROOMS.iter().position(|room| bare == *room) else { return };
        match (stanza.name(), stanza.attr("type")) {
            ("message", Some("groupchat")) => self.on_groupchat(land, room, stanza),
            ("message", Some("error")) => self.on_bounce(land, room, stanza),
            ("message", None) => self.on_archived(room, stanza),
            ("presence", Some("error")) => self.on_kept_out(land, room, stanza),
            ("presence", kind) => self.on_occupant(land, room, nick, kind, stanza),
            _ => {}
        }
    }

    fn on_groupchat(&mut self, land: &mut Land, room: usize, message: &Element<'_>) {
        let place = &self.places[room];
        let Some(stay) = place.stay else {
            return land
                .oracle
                .fail(|| format!("device {} hears in {}: {}", self.index(), ROOMS[room], message.source()));
        };
        if let Some(subject) = child_of(message, "subject") {
            // It may be what was so when the device came.
            if land.oracle.has_room(room, place.since) {
                land.oracle.on_read(&Key::Subject(room), &subject.text(), place.since, land.now);
            }
        }
        let Some(line) = message.attr("id").and_then(|id| id.strip_prefix('g')?.parse().ok()) else { return };
        match land.plant {
            Some(Plant::SayOtherwise) if self.index() == 0 && self.held.is_none() => self.held = Some((room, line)),
            Some(Plant::SayTwice) if self.index() == 0 => {
                land.oracle.on_line(room, stay, &place.nick, line);
                land.oracle.on_line(room, stay, &place.nick, line);
            }
            _ => land.oracle.on_line(room, stay, &place.nick, line),
        }
        if let Some((_, held)) = self.held.take_if(|held| held.0 == room && held.1 != line) {
            land.oracle.on_line(room, stay, &place.nick, held);
        }
        if land.plant == Some(Plant::LetThemListen) {
            land.overheard.push((room, line));
        }
    }

    /// It was put out, was not told, and goes on to hear what is said.
    pub fn overhear(&mut self, land: &mut Land) {
        for (room, place) in self.places.iter_mut().enumerate() {
            let (Some(heard), Some(stay)) = (&mut place.listens, place.stay) else { continue };
            for (_, line) in land.overheard.iter().skip(*heard).filter(|(other, _)| *other == room) {
                if !land.oracle.rooms.has_seen(room, stay, &[*line]) {
                    land.oracle.on_line(room, stay, &place.nick, *line);
                }
            }
            *heard = land.overheard.len();
        }
    }

    fn on_archived(&mut self, room: usize, message: &Element<'_>) {
        let result = message.child("result", ns::MAM);
        let forwarded = result.and_then(|result| child_of(&result, "forwarded"));
        let inner = forwarded.and_then(|forwarded| child_of(&forwarded, "message"));
        let line: Option<usize> = inner.and_then(|inner| inner.attr("id")?.strip_prefix('g')?.parse().ok());
        self.places[room].archive.extend(line);
    }

    fn on_bounce(&mut self, land: &mut Land, room: usize, message: &Element<'_>) {
        let condition = condition_of(message);
        let id = message.attr("id").unwrap_or_default();
        if let Some(write) = id.strip_prefix('s').and_then(|write| write.parse().ok()) {
            let is_for_sure = matches!(&*condition, "forbidden" | "not-acceptable");
            land.oracle.refuse_write(&Key::Subject(room), write, is_for_sure);
        }
        let Some(line) = id.strip_prefix('g').and_then(|line| line.parse().ok()) else { return };
        land.oracle.on_line_bounced(line);
        let place = &self.places[room];
        let is_sure = place.is_inside() && land.oracle.rooms.said_at(line).is_some_and(|said| said > place.since);
        if condition == "not-acceptable" && is_sure {
            land.oracle.fail(|| format!("device {} is out of {} and was not told", self.index(), ROOMS[room]));
        }
    }

    fn on_kept_out(&mut self, land: &mut Land, room: usize, presence: &Element<'_>) {
        // Another nick was not to be had, or it was not inside any more.
        let Some(knock) = self.places[room].knock.take_if(|knock| Some(&*knock.id) == presence.attr("id")) else {
            return;
        };
        let entry = Entry { room, account: self.account, asked: knock.asked, password: &knock.password };
        land.oracle.on_kept_out(entry, &condition_of(presence));
    }

    fn on_occupant(&mut self, land: &mut Land, room: usize, nick: &str, kind: Option<&str>, presence: &Element<'_>) {
        let Some(x) = presence.child("x", ns::MUC_USER) else { return };
        let codes: BTreeSet<&str> =
            x.children().filter(|child| child.name() == "status").filter_map(|status| status.attr("code")).collect();
        let item = child_of(&x, "item");
        let attribute = |name| item.as_ref().and_then(|item| item.attr(name)).unwrap_or_default().to_owned();
        let seen = Seen { affiliation: attribute("affiliation"), role: attribute("role") };
        let is_own = codes.contains("110");
        match land.plant {
            Some(Plant::HideDepartures) if kind.is_some() && !is_own => return,
            Some(Plant::LetThemListen) if is_own && (codes.contains("301") || codes.contains("307")) => {
                self.places[room].listens = Some(land.overheard.len());
                return;
            }
            _ => {}
        }
        let place = &mut self.places[room];
        if !is_own && !attribute("jid").is_empty() && place.is_inside() && place.own.role != "moderator" {
            land.oracle.fail(|| format!("device {} sees the address of {nick}: {}", self.index(), presence.source()));
            return;
        }
        if !place.is_inside() && place.knock.is_none() && !(is_own && kind.is_some()) {
            land.oracle.fail(|| format!("device {} sees {nick} in {}, and is not there", self.index(), ROOMS[room]));
            return;
        }
        match (kind, is_own) {
            (None, false) => drop(place.view.insert(nick.to_owned(), seen)),
            (None, true) => self.on_self(land, room, nick, seen, presence.attr("id"), codes.contains("201")),
            (Some(_), _) if codes.contains("303") => drop(place.view.remove(nick)),
            (Some(_), false) => drop(place.view.remove(nick)),
            // The answer to a presence that came too late is not about one that came after; the rest is, if it is on its way in.
            (Some(_), true) => {
                let knock = place.knock.take().filter(|_| codes.contains("333"));
                *place = Place { knock, ..Place::default() };
            }
        }
    }

    /// It is inside, or has another nick or rank.
    fn on_self(&mut self, land: &mut Land, room: usize, nick: &str, seen: Seen, id: Option<&str>, is_new: bool) {
        let (index, account) = (self.index(), self.account);
        let Some(session) = self.session() else { return };
        let place = &mut self.places[room];
        place.view.insert(nick.to_owned(), seen.clone());
        place.own = seen;
        place.nick = nick.to_owned();
        let Some(knock) = place.knock.take_if(|knock| Some(&*knock.id) == id) else {
            if !place.is_inside() {
                land.oracle.fail(|| format!("device {index} is in {} and has not asked for it", ROOMS[room]));
            }
            return;
        };
        let entry = Entry { room, account, asked: knock.asked, password: &knock.password };
        place.stay = Some(land.oracle.on_entered(entry, session, is_new, land.now));
        place.since = knock.asked;
        if is_new {
            place.is_founder = true;
            self.configure(land, room);
        } else if land.oracle.has_room(room, knock.asked) {
            let key = Key::Affiliation(room, account);
            land.oracle.on_read(&key, &self.places[room].own.affiliation, knock.asked, land.now);
        }
    }

    pub fn on_room_written(&mut self, land: &mut Land, writes: &[(Key, usize)]) {
        for (key, _) in writes {
            if let Key::Description(room) = key
                && std::mem::take(&mut self.places[*room].is_founder)
            {
                // Who alone may do anything will not be there all the time.
                for affiliation in ["owner", "admin", "admin"] {
                    let account = land.dice.below(NEWCOMER + 1);
                    if account != self.account {
                        self.affiliate_as(land, *room, account, affiliation);
                    }
                }
            }
        }
    }

    pub fn on_description(&mut self, land: &mut Land, iq: &Element<'_>, room: usize, asked: Duration) {
        let Some(query) = iq.child("query", ns::DISCO_INFO) else {
            if condition_of(iq) == "item-not-found" && land.oracle.has_room(room, asked) {
                land.oracle.fail(|| format!("{} is lost", ROOMS[room]));
            }
            return;
        };
        let Some(form) = query.child("x", ns::DATA_FORMS) else { return };
        let field = form.children().find(|field| field.attr("var") == Some("muc#roominfo_description"));
        let value = field.and_then(|field| field.children().next().map(|value| value.text().into_owned()));
        let value = value.unwrap_or_default();
        land.oracle.on_read(&Key::Description(room), &value, asked, land.now);
        let has = |feature: &str| query.children().any(|child| child.attr("var") == Some(feature));
        let is_so = has("muc_membersonly") == value.contains(description::MEMBERS)
            && has("muc_moderated") == value.contains(description::MODERATED)
            && has("muc_passwordprotected") == value.contains(description::PASSWORD);
        if !is_so && !value.is_empty() {
            land.oracle.fail(|| format!("{} is not what it says: {}", ROOMS[room], iq.source()));
        }
    }

    pub fn on_affiliated(
        &mut self,
        land: &mut Land,
        iq: &Element<'_>,
        (room, affiliation): (usize, &str),
        asked: Duration,
    ) {
        let Some(query) = iq.child("query", ns::MUC_ADMIN).filter(|_| land.oracle.has_room(room, asked)) else {
            return;
        };
        for account in 0..=NEWCOMER {
            let key = Key::Affiliation(room, account);
            if query.children().any(|item| item.attr("jid") == Some(account_name(account))) {
                land.oracle.on_read(&key, affiliation, asked, land.now);
            } else if land.oracle.possible(&key, asked).iter().all(|possible| possible == affiliation) {
                land.oracle.fail(|| format!("{key:?} is not {affiliation}, as it must be"));
            }
        }
    }

    pub fn on_occupants(&mut self, iq: &Element<'_>, room: usize) {
        let Some(query) = iq.child("query", ns::MUC_ADMIN) else { return };
        for item in query.children() {
            let attribute = |name| item.attr(name).unwrap_or_default().to_owned();
            let seen = Seen { affiliation: attribute("affiliation"), role: attribute("role") };
            self.places[room].listed.insert(attribute("nick"), seen);
        }
    }
}
