//! What may be relied on in rooms.
//!
//! Occupants see the same lines in the same order, each once, and the archive has them so too. What an owner or admin was told to be
//! so is so after every restart. Nobody comes in who must not, nobody is kept out who may come in. Who was put out hears nothing
//! more. Who has sent something believing to be inside is told before that he is not.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::super::oracle::Oracle;
use super::super::registers::Key;
use super::ROOMS;

/// What is said of a room in its description, from which follows all the rest of its configuration.
pub mod description {
    pub const MEMBERS: &str = " members";
    pub const MODERATED: &str = " moderated";
    pub const PASSWORD: &str = " password";
    pub const ALL: [&str; 3] = [MEMBERS, MODERATED, PASSWORD];

    /// The password of a room with this description; empty for none.
    pub fn password(description: &str) -> String {
        if description.ends_with(PASSWORD) { description.replace(' ', "-") } else { String::new() }
    }
}

/// From a session's coming into a room to its leaving.
#[derive(Debug)]
struct Stay {
    session: usize,
    account: usize,
    from: Duration,
    /// Numbers of the lines, in the order in which they came.
    lines: Vec<usize>,
}

/// Something that was said in a room.
#[derive(Debug)]
struct Line {
    room: usize,
    said: Duration,
    is_acknowledged: bool,
    is_bounced: bool,
    /// The room has taken it, and asked the store to keep it.
    is_taken: bool,
    was_refused: bool,
    is_kept: bool,
    is_seen: bool,
}

/// An occupant was put out, as a moderator was told.
#[derive(Debug)]
struct Kick {
    nick: String,
    asked: Duration,
    done: Duration,
}

/// What happened in the rooms.
#[derive(Default)]
pub struct Rooms {
    lines: Vec<Line>,
    stays: [Vec<Stay>; ROOMS.len()],
    kicks: [Vec<Kick>; ROOMS.len()],
    /// Somebody has asked for its end.
    was_ended: [bool; ROOMS.len()],
    /// How often somebody was kept out, put out, or silenced, for the report.
    pub refusals: u64,
}

impl Rooms {
    /// Lines that were said, and how often they were seen.
    pub fn counts(&self) -> (usize, usize) {
        (self.lines.len(), self.stays.iter().flatten().map(|stay| stay.lines.len()).sum())
    }

    pub fn said_at(&self, line: usize) -> Option<Duration> {
        self.lines.get(line).map(|line| line.said)
    }

    pub fn has_seen(&self, room: usize, stay: usize, lines: &[usize]) -> bool {
        lines.iter().all(|line| self.stays[room][stay].lines.contains(line))
    }
}

/// What came of somebody's wish to come in.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub room: usize,
    pub account: usize,
    pub asked: Duration,
    pub password: &'a str,
}

impl Oracle {
    /// Whether the room is there for sure, and has been since then.
    pub fn has_room(&self, room: usize, since: Duration) -> bool {
        !self.possible(&Key::Description(room), since).iter().any(String::is_empty)
    }

    pub fn on_said(&mut self, room: usize, now: Duration) -> usize {
        self.rooms.lines.push(Line {
            room,
            said: now,
            is_acknowledged: false,
            is_bounced: false,
            is_taken: false,
            was_refused: false,
            is_kept: false,
            is_seen: false,
        });
        self.rooms.lines.len() - 1
    }

    pub fn on_line_acknowledged(&mut self, line: usize) {
        self.acknowledged += 1;
        self.rooms.lines[line].is_acknowledged = true;
    }

    pub fn on_line_bounced(&mut self, line: usize) {
        self.rooms.refusals += 1;
        self.rooms.lines[line].is_bounced = true;
    }

    /// The store is asked to keep it.
    pub fn on_line_taken(&mut self, line: usize) {
        if let Some(line) = self.rooms.lines.get_mut(line) {
            line.is_taken = true;
        }
    }

    /// The store did keep it, or did not.
    pub fn on_line_kept(&mut self, line: usize, is_done: bool) {
        if let Some(line) = self.rooms.lines.get_mut(line) {
            line.is_kept |= is_done;
            line.was_refused |= !is_done;
        }
    }

    pub fn on_kick(&mut self, room: usize, nick: &str, asked: Duration, done: Duration) {
        self.rooms.kicks[room].push(Kick { nick: nick.to_owned(), asked, done });
    }

    pub fn on_end_asked(&mut self, room: usize) {
        self.rooms.was_ended[room] = true;
    }

    /// A session has come in; the stay's number. Everybody may, whom nothing keeps out.
    pub fn on_entered(&mut self, entry: Entry<'_>, session: usize, is_new: bool, now: Duration) -> usize {
        let Entry { room, account, asked, password } = entry;
        let affiliations = self.possible(&Key::Affiliation(room, account), asked);
        let descriptions = self.possible(&Key::Description(room), asked);
        let wrong = |what: &str| format!("{entry:?} came in {what}: {affiliations:?} {descriptions:?}");
        if is_new && self.has_room(room, asked) {
            self.fail(|| wrong("as the first, as if the room was not there"));
        }
        if affiliations.iter().all(|affiliation| affiliation == "outcast") {
            self.fail(|| wrong("and is banned"));
        }
        let is_member = affiliations.iter().any(|affiliation| !matches!(&**affiliation, "outcast" | "none"));
        if !is_member && descriptions.iter().all(|description| description.contains(description::MEMBERS)) {
            self.fail(|| wrong("and is no member"));
        }
        let is_asked = |description: &String| description.ends_with(description::PASSWORD);
        let is_right = |description: &String| description::password(description) == password;
        if !descriptions.is_empty() && descriptions.iter().all(|one| is_asked(one) && !is_right(one)) {
            self.fail(|| wrong("with a wrong password"));
        }
        self.rooms.stays[room].push(Stay { session, account, from: now, lines: Vec::new() });
        self.rooms.stays[room].len() - 1
    }

    /// A session was kept out.
    pub fn on_kept_out(&mut self, entry: Entry<'_>, condition: &str) {
        let Entry { room, account, asked, password } = entry;
        self.rooms.refusals += 1;
        let affiliations = self.possible(&Key::Affiliation(room, account), asked);
        let descriptions = self.possible(&Key::Description(room), asked);
        let may_be_absent = descriptions.iter().any(String::is_empty);
        let is_told_right = match condition {
            "forbidden" => affiliations.iter().any(|affiliation| affiliation == "outcast"),
            "registration-required" => {
                let strange = affiliations.iter().any(|affiliation| affiliation == "none");
                strange && descriptions.iter().any(|description| description.contains(description::MEMBERS))
            }
            "not-authorized" => {
                descriptions.iter().any(|one| !one.is_empty() && description::password(one) != password)
            }
            "item-not-found" | "gone" | "not-allowed" => may_be_absent,
            "resource-constraint" | "internal-server-error" => true,
            _ => false,
        };
        if !is_told_right {
            self.fail(|| format!("{entry:?} was refused: {condition}, with {affiliations:?} {descriptions:?}"));
        }
    }

    /// An occupant under that nick gets to see a line.
    pub fn on_line(&mut self, room: usize, stay: usize, nick: &str, line: usize) {
        let Some(known) = self.rooms.lines.get_mut(line).filter(|line| line.room == room) else {
            return self.fail(|| format!("g{line} was not said in {}", ROOMS[room]));
        };
        known.is_seen = true;
        let said = known.said;
        let Stay { session, account, from, lines } = &mut self.rooms.stays[room][stay];
        let (session, account, from, again) = (*session, *account, *from, lines.contains(&line));
        lines.push(line);
        if again {
            self.fail(|| format!("g{line} has come twice to session {session} in {}", ROOMS[room]));
        }
        let is_gone = |kick: &&Kick| kick.nick == nick && kick.asked > from && kick.done < said;
        if let Some(kick) = self.rooms.kicks[room].iter().find(is_gone) {
            let what = format!("g{line} came to session {session} in {}, which was put out: {kick:?}", ROOMS[room]);
            self.fail(|| what);
        }
        self.check_hearer(room, account, line, said);
    }

    /// Who hears what was said then was not put out of the room for good before that.
    fn check_hearer(&mut self, room: usize, account: usize, line: usize, said: Duration) {
        let affiliations = self.possible(&Key::Affiliation(room, account), said);
        let is_outcast = affiliations.iter().all(|affiliation| affiliation == "outcast");
        let is_stranger = affiliations.iter().all(|affiliation| matches!(&**affiliation, "none" | "outcast"))
            && self.possible(&Key::Description(room), said).iter().all(|one| one.contains(description::MEMBERS));
        if is_outcast || is_stranger {
            self.fail(|| format!("g{line} came to account {account} in {}, which is {affiliations:?}", ROOMS[room]));
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

    /// The archive has each line once, in the order in which they were seen, and all that were kept.
    pub fn check_room_archive(&mut self, room: usize, archive: &[usize]) {
        let name = ROOMS[room];
        let places: HashMap<usize, usize> = archive.iter().enumerate().map(|(at, line)| (*line, at)).collect();
        if places.len() != archive.len() {
            return self.fail(|| format!("lines are more than once in the archive of {name}: {archive:?}"));
        }
        if let Some(line) =
            archive.iter().find(|line| self.rooms.lines.get(**line).is_none_or(|line| line.room != room))
        {
            return self.fail(|| format!("g{line} is in the archive of {name}"));
        }
        for stay in &self.rooms.stays[room] {
            let kept: Vec<(usize, usize)> =
                stay.lines.iter().filter_map(|line| Some((*line, *places.get(line)?))).collect();
            if let Some(pair) = kept.windows(2).find(|pair| pair[0].1 > pair[1].1) {
                let what = format!("{name}: g{} was seen before g{} and is behind it", pair[0].0, pair[1].0);
                return self.fail(|| what);
            }
        }
        // What was said before its end went with it.
        if self.rooms.was_ended[room] {
            return;
        }
        let last_cut = self.power_cuts.last().copied().unwrap_or_default();
        for line in 0..self.rooms.lines.len() {
            let Line { room: own, said, is_acknowledged, is_bounced, is_taken, was_refused, is_kept, is_seen } =
                self.rooms.lines[line];
            // Seen at once and kept behind that; what the sender is told waits. Whose room did not take it may have gone before he
            // was told.
            let is_promised = is_kept || (is_acknowledged && is_taken) || (is_seen && said > last_cut);
            let must_be = is_promised && !is_bounced && !was_refused && own == room && !places.contains_key(&line);
            if must_be && self.has_room(room, said) {
                let what = format!("g{line} is not in the archive of {name}: {:?}", self.rooms.lines[line]);
                return self.fail(|| what);
            }
        }
    }
}
