//! Roster and items in memory; the subscription states of RFC 6121 Appendix A as data.
//!
//! Both the store (which carries a change out for both sides of a pair in one transaction) and the handlers use this table, so
//! there is one place where a subscription can change.

use std::collections::BTreeMap;
use std::fmt;

use crate::core::clock::UtcTime;
use crate::jid::BareJid;

/// Opaque to clients, another one for each change that a push would show (RFC 6121 section 2.6).
///
/// The epoch is drawn when the account is created or restored, so that a restored backup never reuses a version for other
/// content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RosterVersion {
    /// Random, fixed until a restore.
    pub epoch: u32,
    /// Counts changes.
    pub count: u64,
}

impl RosterVersion {
    /// The version after one more change.
    #[must_use]
    pub fn next(self) -> RosterVersion {
        RosterVersion { count: self.count + 1, ..self }
    }

    /// Whether `ver`, as a client sent it, names this version.
    pub fn matches(self, ver: &str) -> bool {
        self.to_string() == ver
    }
}

impl fmt::Display for RosterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}", self.epoch, self.count)
    }
}

/// The `subscription` attribute of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// Neither sees the other.
    #[default]
    None,
    /// The user sees the contact.
    To,
    /// The contact sees the user.
    From,
    /// Both.
    Both,
}

impl Subscription {
    /// From its two directions.
    pub fn new(to: bool, from: bool) -> Subscription {
        match (to, from) {
            (false, false) => Subscription::None,
            (true, false) => Subscription::To,
            (false, true) => Subscription::From,
            (true, true) => Subscription::Both,
        }
    }
    /// The user is subscribed to the contact.
    pub fn to(self) -> bool {
        matches!(self, Subscription::To | Subscription::Both)
    }
    /// The contact is subscribed to the user.
    pub fn from(self) -> bool {
        matches!(self, Subscription::From | Subscription::Both)
    }
    /// Value of the attribute.
    pub fn name(self) -> &'static str {
        match self {
            Subscription::None => "none",
            Subscription::To => "to",
            Subscription::From => "from",
            Subscription::Both => "both",
        }
    }
}

/// One contact in a roster. Name and groups belong to the client, the rest to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Empty for none.
    pub name: String,
    /// In the order given.
    pub groups: Vec<String>,
    /// Both directions.
    pub subscription: Subscription,
    /// A request of ours is unanswered (`ask='subscribe'`).
    pub ask: bool,
    /// A future request of theirs is granted (section 3.4).
    pub approved: bool,
}

/// A contact's request that the user has not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The presence stanza in routed form.
    pub stanza: Vec<u8>,
    /// When it came.
    pub at: UtcTime,
}

/// An account's contacts and the requests it has not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Current version.
    pub version: RosterVersion,
    /// By bare JID.
    pub items: BTreeMap<BareJid, Item>,
    /// By bare JID of who asks; may or may not have an item.
    pub requests: BTreeMap<BareJid, Request>,
}

impl Roster {
    /// State of the subscription with a contact, listed or not.
    pub fn state(&self, jid: &str) -> State {
        let item = self.items.get(jid);
        State {
            to: item.is_some_and(|item| item.subscription.to()),
            from: item.is_some_and(|item| item.subscription.from()),
            pending_out: item.is_some_and(|item| item.ask),
            pending_in: self.requests.contains_key(jid),
            approved: item.is_some_and(|item| item.approved),
        }
    }
}

/// A subscription event: the type of the presence stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Asks to see.
    Subscribe,
    /// Does not want to see any more.
    Unsubscribe,
    /// Lets the other see.
    Subscribed,
    /// Does not, or no longer.
    Unsubscribed,
}

impl Event {
    const ALL: [Event; 4] = [Event::Subscribe, Event::Unsubscribe, Event::Subscribed, Event::Unsubscribed];

    /// The presence type.
    pub fn name(self) -> &'static str {
        match self {
            Event::Subscribe => "subscribe",
            Event::Unsubscribe => "unsubscribe",
            Event::Subscribed => "subscribed",
            Event::Unsubscribed => "unsubscribed",
        }
    }
    /// From a presence type.
    pub fn from_name(name: &str) -> Option<Event> {
        Event::ALL.into_iter().find(|event| event.name() == name)
    }
}

/// One side's state of a subscription: the nine states of Appendix A.1 and pre-approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Sees the other.
    pub to: bool,
    /// Is seen by the other.
    pub from: bool,
    /// Has asked.
    pub pending_out: bool,
    /// Was asked.
    pub pending_in: bool,
    /// Has granted in advance.
    pub approved: bool,
}

/// What an inbound event leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// New state.
    pub state: State,
    /// Whether the stanza reaches the user's resources.
    pub deliver: bool,
    /// What the server answers for the user.
    pub answer: Option<Event>,
}

impl State {
    /// What the user's own stanza leads to: the new state, and whether it is routed to the contact (Appendix A.2).
    #[must_use]
    pub fn outbound(self, event: Event) -> (State, bool) {
        match event {
            Event::Subscribe => (State { pending_out: self.pending_out || !self.to, ..self }, true),
            Event::Unsubscribe => (State { to: false, pending_out: false, ..self }, true),
            Event::Subscribed if self.pending_in => (State { from: true, pending_in: false, ..self }, true),
            Event::Subscribed if self.from => (self, false),
            Event::Subscribed => (State { approved: true, ..self }, false),
            Event::Unsubscribed => {
                let routed = self.from || self.pending_in;
                (State { from: false, pending_in: false, approved: false, ..self }, routed)
            }
        }
    }

    /// What the contact's stanza leads to (Appendix A.3, with section 3.4.2 for pre-approval).
    #[must_use]
    pub fn inbound(self, event: Event) -> Inbound {
        let same = Inbound { state: self, deliver: false, answer: None };
        match event {
            Event::Subscribe if self.from => Inbound { answer: Some(Event::Subscribed), ..same },
            Event::Subscribe if self.approved => Inbound {
                state: State { from: true, pending_in: false, ..self },
                answer: Some(Event::Subscribed),
                ..same
            },
            Event::Subscribe if self.pending_in => same,
            Event::Subscribe => Inbound { state: State { pending_in: true, ..self }, deliver: true, ..same },
            Event::Unsubscribe if self.from || self.pending_in => Inbound {
                state: State { from: false, pending_in: false, ..self },
                deliver: true,
                answer: Some(Event::Unsubscribed),
            },
            Event::Subscribed if self.pending_out => {
                Inbound { state: State { to: true, pending_out: false, ..self }, deliver: true, ..same }
            }
            Event::Unsubscribed if self.to || self.pending_out => {
                Inbound { state: State { to: false, pending_out: false, ..self }, deliver: true, ..same }
            }
            Event::Unsubscribe | Event::Subscribed | Event::Unsubscribed => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nine states of Appendix A.1, in the order of the columns below.
    const STATES: [&str; 9] = ["None", "None+PO", "None+PI", "None+PO/I", "To", "To+PI", "From", "From+PO", "Both"];

    fn state(name: &str) -> State {
        let (subscription, pending) = name.split_once('+').unwrap_or((name, ""));
        State {
            to: matches!(subscription, "To" | "Both"),
            from: matches!(subscription, "From" | "Both"),
            pending_out: matches!(pending, "PO" | "PO/I"),
            pending_in: matches!(pending, "PI" | "PO/I"),
            approved: false,
        }
    }

    /// A cell of a table: whether, and to which state; `=` for the same, `+A` for the pre-approval.
    fn cell(cell: &str, before: State) -> (bool, State) {
        let (yes, new) = cell.split_once(' ').expect("two words");
        let new = match new {
            "=" => before,
            "+A" => State { approved: true, ..before },
            new => State { approved: before.approved, ..state(new) },
        };
        (yes == "yes", new)
    }

    fn check_outbound(event: Event, row: &str) {
        for (name, text) in STATES.into_iter().zip(row.split('|').map(str::trim)) {
            let before = state(name);
            let (routed, after) = cell(text, before);
            assert_eq!(before.outbound(event), (after, routed), "{event:?} in {name}");
            // A pre-approval is only taken back by its opposite, which is not routed for its sake (section 3.2.2).
            let before = State { approved: true, ..before };
            let after = State { approved: event != Event::Unsubscribed, ..after };
            assert_eq!(before.outbound(event), (after, routed), "{event:?} in {name}, approved");
        }
        assert_eq!(row.split('|').count(), STATES.len());
    }

    #[test]
    #[rustfmt::skip]
    fn outbound() {
        //  None        | None+PO  | None+PI       | None+PO/I    | To       | To+PI       | From        | From+PO     | Both
        check_outbound(Event::Subscribe,
           "yes None+PO | yes =    | yes None+PO/I | yes =        | yes =    | yes =       | yes From+PO | yes =       | yes =");
        check_outbound(Event::Unsubscribe,
           "yes =       | yes None | yes =         | yes None+PI  | yes None | yes None+PI | yes =       | yes From    | yes From");
        check_outbound(Event::Subscribed,
           "no +A       | no +A    | yes From      | yes From+PO  | no +A    | yes Both    | no =        | no =        | no =");
        check_outbound(Event::Unsubscribed,
           "no =        | no =     | yes None      | yes None+PO  | no =     | yes To      | yes None    | yes None+PO | yes To");
    }

    fn check_inbound(event: Event, row: &str) {
        for (name, text) in STATES.into_iter().zip(row.split('|').map(str::trim)) {
            let before = state(name);
            let (text, answer) = match text.split_once(" > ") {
                Some((text, answer)) => (text, Event::from_name(answer)),
                None => (text, None),
            };
            let (deliver, after) = cell(text, before);
            assert_eq!(before.inbound(event), Inbound { state: after, deliver, answer }, "{event:?} in {name}");
            let before = State { approved: true, ..before };
            let expected = match event {
                // Section 3.4.2: nobody is asked, the server answers.
                Event::Subscribe => Inbound {
                    state: State { from: true, pending_in: false, ..before },
                    deliver: false,
                    answer: Some(Event::Subscribed),
                },
                _ => Inbound { state: State { approved: true, ..after }, deliver, answer },
            };
            // Pre-approval and a request cannot be there both: the one is granted as soon as the other comes.
            if !before.pending_in {
                assert_eq!(before.inbound(event), expected, "{event:?} in {name}, approved");
            }
        }
        assert_eq!(row.split('|').count(), STATES.len());
    }

    #[test]
    #[rustfmt::skip]
    fn inbound() {
        //  None        | None+PO       | None+PI                  | None+PO/I                   | To        | To+PI                  | From                     | From+PO                     | Both
        check_inbound(Event::Subscribe,
           "yes None+PI | yes None+PO/I | no =                     | no =                        | yes To+PI | no =                   | no = > subscribed        | no = > subscribed           | no = > subscribed");
        check_inbound(Event::Unsubscribe,
           "no =        | no =          | yes None > unsubscribed  | yes None+PO > unsubscribed  | no =      | yes To > unsubscribed  | yes None > unsubscribed  | yes None+PO > unsubscribed  | yes To > unsubscribed");
        check_inbound(Event::Subscribed,
           "no =        | yes To        | no =                     | yes To+PI                   | no =      | no =                   | no =                     | yes Both                    | no =");
        check_inbound(Event::Unsubscribed,
           "no =        | yes None      | no =                     | yes None+PI                 | yes None  | yes None+PI            | no =                     | yes From                    | yes From");
    }

    #[test]
    fn versions() {
        let version = RosterVersion { epoch: 0xbeef, count: 26 };
        assert_eq!(version.to_string(), "0000beef-1a");
        assert!(version.matches("0000beef-1a"));
        assert!(!version.next().matches("0000beef-1a"));
        assert!(!version.matches(""));
    }
}
