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
