//! Sections 7.2.13 to 7.2.15: what was said before one came, and the subject.
//!
//! The last lines of a room are kept in memory while it is in use; those of an archived room in the store as well. A line is
//! told at once and stored behind that, without anybody being parked; what acknowledges it to its sender (XEP-0198) waits.

use std::collections::VecDeque;

use super::room::{Room, Session, push_addressed};
use crate::core::parked::Waiting;
use crate::core::rooms::Line;
use crate::core::{Limits, UtcTime};
use crate::handlers::prelude::*;
use crate::handlers::sm;

const END: &[u8] = b"</message>";

/// The last lines of a room.
#[derive(Default)]
pub(super) struct History {
    lines: VecDeque<Line>,
    bytes: usize,
    last_seq: u64,
}

impl History {
    /// From the store, oldest first.
    pub(super) fn new(lines: Vec<Line>, limits: &Limits) -> History {
        let mut history = History::default();
        for line in lines {
            history.push(line, limits);
        }
        history
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A line by its `stanza-id`, if nobody has taken it back.
    pub(super) fn find(&self, id: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.id == id && !is_tombstone(line))
    }

    /// A line takes the place of the one with its number.
    pub(super) fn replace(&mut self, line: Line) {
        if let Some(place) = self.lines.iter_mut().find(|place| place.seq == line.seq) {
            self.bytes = (self.bytes + line.xml.len()).saturating_sub(place.xml.len());
            *place = line;
        }
    }

    fn push(&mut self, line: Line, limits: &Limits) {
        self.last_seq = line.seq;
        self.bytes += line.xml.len();
        self.lines.push_back(line);
        while self.lines.len() > limits.room_history_max || self.bytes > limits.room_history_bytes_max {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.xml.len();
        }
    }
}

fn is_tombstone(line: &Line) -> bool {
    line.by.is_empty()
}

/// One more line was told; its number is given here.
pub(super) fn keep(
    core: &mut Core,
    room: &mut Room,
    conn: ConnId,
    mut line: Line,
    out: &mut Outputs,
) {
    line.seq = room.history.last_seq + 1;
    if room.stored && room.config().archived {
        let request = StoreRequest::RoomLine { room: room.jid.clone(), line: line.clone() };
        let sender = sm::on_storing(core, conn).then_some(conn);
        core.ask(request, Waiting::Line { sender }, out);
    }
    room.history.push(line, &core.limits);
}

/// A room that was only in memory lasts from now on.
pub(super) fn keep_all(core: &mut Core, room: &Room, out: &mut Outputs) {
    if !room.config().archived {
        return;
    }
    for line in &room.history.lines {
        let request = StoreRequest::RoomLine { room: room.jid.clone(), line: line.clone() };
        core.ask(request, Waiting::Nobody, out);
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
        let young = self.seconds.is_none_or(|seconds| line.at.0 >= now.0.saturating_sub(seconds.saturating_mul(1000)));
        young && self.since.is_none_or(|since| line.at >= since)
    }
}

/// The last lines that are wanted, oldest first, each whole.
pub(super) fn replay(now: Now, room: &Room, session: &Session, wanted: Wanted, out: &mut Outputs) {
    let stanzas_max = wanted.stanzas_max.unwrap_or(usize::MAX).min(usize::from(room.config().history));
    let mut chars_left = wanted.chars_max.unwrap_or(usize::MAX);
    let mut chosen = Vec::new();
    for line in room.history.lines.iter().rev().filter(|line| !is_tombstone(line)).take(stanzas_max) {
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
        let xml = line.xml.strip_prefix(b"<message").and_then(|xml| xml.strip_suffix(END)).unwrap_or_default();
        rest.extend_from_slice(xml);
        write_delay(room, line.at, &mut rest);
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
