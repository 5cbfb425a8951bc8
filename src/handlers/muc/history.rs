//! Sections 7.2.13 to 7.2.15: what was said before one came, and the subject.
//!
//! The last lines of a room are kept in memory while it is in use; those of an archived room in the store as well. A line is
//! told at once and stored behind that, without anybody being parked; what acknowledges it to its sender (XEP-0198) waits.

use std::borrow::Cow;
use std::collections::VecDeque;

use memchr::memmem;

use super::message::is_subject;
use super::room::{Occupant, Room, Session, push_addressed};
use crate::core::archive::ArchiveId;
use crate::core::parked::Waiting;
use crate::core::rooms::Line;
use crate::core::{Limits, UtcTime};
use crate::handlers::prelude::*;
use crate::handlers::sm;
use crate::jid::Jid;
use crate::xml::Tree;

const END: &[u8] = b"</message>";

/// The last lines of a room.
#[derive(Default)]
pub(super) struct History {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl History {
    /// From the store, oldest first.
    pub(super) fn new(lines: Vec<Line>, limits: &Limits) -> History {
        let mut history = History::default();
        for line in lines {
            let is_said = Said::of(&line).is_some_and(|said| said.is_shown);
            if is_said {
                history.push(line, limits);
            }
        }
        history
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A line that was said of late.
    pub(super) fn find(&self, id: ArchiveId) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.id == id)
    }

    /// A line is taken back.
    pub(super) fn forget(&mut self, id: ArchiveId) {
        if let Some(place) = self.lines.iter().position(|line| line.id == id) {
            let line = self.lines.remove(place);
            self.bytes -= line.map_or(0, |line| line.xml.len());
        }
    }

    /// One more line.
    pub(super) fn push(&mut self, line: Line, limits: &Limits) {
        self.bytes += line.xml.len();
        self.lines.push_back(line);
        while self.lines.len() > limits.room_history_max || self.bytes > limits.room_history_bytes_max {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.xml.len();
        }
    }
}

/// What a line is, read from its text.
pub(super) struct Said {
    /// `occupant-id` of who has said it.
    pub(super) by: String,
    /// It stands where a line was that was taken back.
    pub(super) is_tombstone: bool,
    /// It is shown to who comes later: not what only tells that somebody has read something, nor a tombstone, nor a subject.
    pub(super) is_shown: bool,
}

impl Said {
    pub(super) fn of(line: &Line) -> Option<Said> {
        let text = std::str::from_utf8(&line.xml).ok()?;
        let tree = Tree::parse(text, ns::CLIENT).ok()?;
        let root = tree.root();
        let by = root.child("occupant-id", ns::OCCUPANT_ID).and_then(|id| id.attr("id")).unwrap_or_default();
        let is_tombstone = root.child("retracted", ns::RETRACT).is_some();
        Some(Said { by: by.to_owned(), is_tombstone, is_shown: !is_tombstone && is_shown(&root) })
    }
}

/// Whether a message that is kept has something for people to read, and is not a subject, which they are shown anyhow.
pub(super) fn is_shown(root: &Element<'_>) -> bool {
    !is_subject(root)
        && root
            .children()
            .any(|child| !matches!(child.ns(), ns::MARKERS | ns::RECEIPTS) && crate::handlers::mam::is_lasting(&child))
}

/// What was told as it is kept: with the address of who has said it, if that is no secret. `rest` is what stands behind
/// `<message to='…'`.
pub(super) fn as_kept(room: &Room, who: &Occupant, rest: &[u8]) -> Vec<u8> {
    let mut xml = [b"<message", rest].concat();
    if let (true, Some(session)) = (room.config().non_anonymous, who.sessions.last()) {
        xml.truncate(xml.len() - END.len());
        let mut w = Writer::new(&mut xml);
        w.open("x", ns::MUC_USER).open("item", ns::MUC_USER).attr("affiliation", who.affiliation.name());
        w.attr("jid", &session.jid).attr("role", who.role.name());
        drop(w);
        xml.extend_from_slice(END);
    }
    xml
}

/// A kept line for who does not see addresses.
pub(super) fn without_address(xml: &[u8]) -> Cow<'_, [u8]> {
    const X: &[u8] = b"<x xmlns='http://jabber.org/protocol/muc#user'>";
    const X_END: &[u8] = b"</x></message>";
    // What `as_kept` adds stands at the end and holds one element; the like by an occupant would stand inside another one.
    match memmem::rfind(xml, X) {
        Some(at)
            if xml.ends_with(X_END) && memchr::memchr_iter(b'<', xml.get(at..).unwrap_or_default()).count() == 4 =>
        {
            Cow::Owned([xml.get(..at).unwrap_or_default(), END].concat())
        }
        _ => Cow::Borrowed(xml),
    }
}

/// An occupant's address in the room.
pub(super) fn address(room: &Room, occupant: &Occupant) -> Jid {
    Jid::from_prepared(&format!("{}/{}", room.jid, occupant.nick))
}

/// One more line was told: said by `from`, over `conn`.
pub(super) fn keep(
    core: &mut Core,
    room: &mut Room,
    conn: ConnId,
    from: Jid,
    line: Line,
    shown: bool,
    out: &mut Outputs,
) {
    if room.archives() {
        let request = StoreRequest::RoomLine { archive: room.record.archive(&room.jid), from, line: line.clone() };
        let sender = sm::on_storing(core, conn).then_some(conn);
        core.ask(request, Waiting::Line { sender }, out);
    }
    if shown {
        room.history.push(line, &core.limits);
    }
}

/// One more line for the archive alone, for which nobody's acknowledgement waits.
pub(super) fn keep_quietly(core: &mut Core, room: &Room, from: Jid, line: Line, out: &mut Outputs) {
    if room.archives() {
        let request = StoreRequest::RoomLine { archive: room.record.archive(&room.jid), from, line };
        core.ask(request, Waiting::Line { sender: None }, out);
    }
}

/// A room that was only in memory lasts from now on.
pub(super) fn keep_all(core: &mut Core, room: &Room, out: &mut Outputs) {
    if !room.archives() {
        return;
    }
    for line in &room.history.lines {
        let text = String::from_utf8_lossy(&line.xml);
        let from = Tree::parse(&text, ns::CLIENT).ok().and_then(|tree| Jid::parse(tree.root().attr("from")?).ok());
        let from = from.unwrap_or_else(|| Jid::from(room.jid.clone()));
        let request = StoreRequest::RoomLine { archive: room.record.archive(&room.jid), from, line: line.clone() };
        core.ask(request, Waiting::Line { sender: None }, out);
    }
}

/// How much of what was said is wanted (section 7.2.14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    chars_max: Option<usize>,
    stanzas_max: Option<usize>,
    seconds: Option<u64>,
    since: Option<UtcTime>,
}

impl Wanted {
    /// What `<x/>` of who enters asks for; what cannot be read bounds nothing.
    pub(super) fn parse(x: &Element<'_>) -> Wanted {
        let Some(history) = x.child("history", ns::MUC) else { return Wanted::default() };
        Wanted {
            chars_max: history.attr("maxchars").and_then(|text| text.parse().ok()),
            stanzas_max: history.attr("maxstanzas").and_then(|text| text.parse().ok()),
            seconds: history.attr("seconds").and_then(|text| text.parse().ok()),
            since: history.attr("since").and_then(UtcTime::parse),
        }
    }

    fn takes(&self, line: &Line, now: UtcTime) -> bool {
        let young =
            self.seconds.is_none_or(|seconds| line.id.time().0 >= now.0.saturating_sub(seconds.saturating_mul(1000)));
        young && self.since.is_none_or(|since| line.id.time() >= since)
    }
}

/// The last lines that are wanted, oldest first, each whole.
pub(super) fn replay(now: Now, room: &Room, session: &Session, wanted: Wanted, out: &mut Outputs) {
    let stanzas_max = wanted.stanzas_max.unwrap_or(usize::MAX).min(usize::from(room.config().history));
    let mut chars_left = wanted.chars_max.unwrap_or(usize::MAX);
    let mut chosen = Vec::new();
    for line in room.history.lines.iter().rev().take(stanzas_max) {
        let bytes = line.xml.len() + session.to.len();
        if bytes > chars_left || !wanted.takes(line, now.utc) {
            break;
        }
        chars_left -= bytes;
        chosen.push(line);
    }
    let mut rest = Vec::new();
    for line in chosen.into_iter().rev() {
        rest.clear();
        let xml = without_address(&line.xml);
        let xml = xml.strip_prefix(b"<message").and_then(|xml| xml.strip_suffix(END)).unwrap_or_default();
        rest.extend_from_slice(xml);
        write_delay(room, line.id.time(), &mut rest);
        rest.extend_from_slice(END);
        out.wire.stanza(session.conn, |buf| push_addressed(buf, "message", &session.to, &rest));
    }
}

fn write_delay(room: &Room, at: UtcTime, buf: &mut Vec<u8>) {
    Writer::new(buf).open("delay", ns::DELAY).attr("from", &room.jid).attr("stamp", at);
}

/// The subject, even if there is none: clients wait for it (PROTOCOL CL-08).
pub(super) fn show_subject(room: &Room, session: &Session, out: &mut Outputs) {
    let subject = &room.record.subject;
    out.wire.stanza(session.conn, |buf| {
        let mut w = Writer::new(buf);
        w.open("message", ns::CLIENT).attr_escaped("to", &session.to);
        match subject.nick.as_str() {
            "" => w.attr("from", &room.jid),
            nick => w.attr("from", format_args!("{}/{nick}", room.jid)),
        };
        w.attr("type", "groupchat").text_element("subject", &subject.text);
        if !subject.nick.is_empty() {
            w.open("delay", ns::DELAY).attr("from", &room.jid).attr("stamp", subject.at).close();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go() {
        let limits = Limits { room_history_max: 3, room_history_bytes_max: 10, ..Limits::default() };
        let mut history = History::default();
        let mut check = |xml: &str, expected: &[&str], bytes: usize| {
            history.push(Line { id: ArchiveId::default(), xml: xml.as_bytes().to_vec() }, &limits);
            let lines: Vec<_> = history.lines.iter().map(|line| String::from_utf8_lossy(&line.xml)).collect();
            assert_eq!(
                (lines, history.bytes()),
                (expected.iter().map(|line| (*line).into()).collect::<Vec<_>>(), bytes)
            );
        };
        check("aa", &["aa"], 2);
        check("bbb", &["aa", "bbb"], 5);
        check("c", &["aa", "bbb", "c"], 6);
        check("d", &["bbb", "c", "d"], 5);
        check("eeeeeeee", &["c", "d", "eeeeeeee"], 10);
        check("ff", &["eeeeeeee", "ff"], 10);
        check("more than ten", &[], 0);
    }
}
