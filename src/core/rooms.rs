//! What lasts of a group chat room (XEP-0045): its configuration, affiliations, subject, and the last lines said in it.
//!
//! The vocabulary of `handlers::muc` and the store. Who is in a room, and with which role, is not here: that lasts no longer than
//! the sessions do.

use std::collections::BTreeMap;

use crate::core::archive::ArchiveId;
use crate::core::clock::UtcTime;
use crate::jid::BareJid;

/// A lasting relation of an account to a room (XEP-0045 section 5.2), from the least to the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Affiliation {
    /// Banned.
    Outcast,
    /// No relation; never stored.
    #[default]
    None,
    /// May enter a members-only room.
    Member,
    /// May moderate, ban and edit the list of members.
    Admin,
    /// May do everything.
    Owner,
}

/// What an occupant may do while it is in the room (section 5.1), from the least to the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Not in the room.
    #[default]
    None,
    /// May listen.
    Visitor,
    /// May speak.
    Participant,
    /// May silence and kick others.
    Moderator,
}

impl Affiliation {
    /// All, from the least.
    pub const ALL: [Affiliation; 5] =
        [Affiliation::Outcast, Affiliation::None, Affiliation::Member, Affiliation::Admin, Affiliation::Owner];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Affiliation::Outcast => "outcast",
            Affiliation::None => "none",
            Affiliation::Member => "member",
            Affiliation::Admin => "admin",
            Affiliation::Owner => "owner",
        }
    }

    /// By how it is written.
    pub fn named(name: &str) -> Option<Affiliation> {
        Affiliation::ALL.into_iter().find(|affiliation| affiliation.name() == name)
    }
}

impl Role {
    /// All, from the least.
    pub const ALL: [Role; 4] = [Role::None, Role::Visitor, Role::Participant, Role::Moderator];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Role::None => "none",
            Role::Visitor => "visitor",
            Role::Participant => "participant",
            Role::Moderator => "moderator",
        }
    }

    /// By how it is written.
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(pub u8);

impl Roles {
    /// Whoever is in the room.
    pub const ALL: Roles = Roles(0b1110);

    /// These.
    pub fn of(roles: impl IntoIterator<Item = Role>) -> Roles {
        Roles(roles.into_iter().fold(0, |set, role| set | 1 << role as u8) & Roles::ALL.0)
    }

    /// Whether it is one of them.
    pub fn contains(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }
}

/// How a room behaves (section 10.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomConfig {
    /// For people; may be empty.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// Language of what is said, as in `xml:lang`; may be empty.
    pub lang: String,
    /// Asked from whoever enters; empty for none.
    pub password: String,
    /// It outlives its last occupant, and a restart.
    pub persistent: bool,
    /// It is listed, and who is in it may be asked.
    pub public: bool,
    /// Only members enter.
    pub members_only: bool,
    /// Who is no member enters as a visitor.
    pub moderated: bool,
    /// Everybody sees everybody's address, not only moderators.
    pub non_anonymous: bool,
    /// Participants may change the subject.
    pub change_subject: bool,
    /// Not only admins may invite into a members-only room.
    pub member_invites: bool,
    /// What is said is kept on the disk.
    pub archived: bool,
    /// Who may write to single occupants: this role and above; [`Role::None`] for nobody.
    pub private_messages: Role,
    /// Whose presence everybody sees; moderators see all.
    pub presence: Roles,
    /// Lines shown to who enters.
    pub history: u16,
    /// Occupants at once; 0 for no bound of its own.
    pub occupants_max: u16,
}

impl RoomConfig {
    /// For people who know each other: members only, everybody sees who the others are, it stays. What the form of a new room
    /// proposes.
    pub fn private_group() -> RoomConfig {
        RoomConfig {
            name: String::new(),
            description: String::new(),
            lang: String::new(),
            password: String::new(),
            persistent: true,
            public: false,
            members_only: true,
            moderated: false,
            non_anonymous: true,
            change_subject: true,
            member_invites: false,
            archived: true,
            private_messages: Role::Visitor,
            presence: Roles::ALL,
            history: 20,
            occupants_max: 0,
        }
    }

    /// For strangers: listed, open, only moderators see who the others are, it stays.
    pub fn public_channel() -> RoomConfig {
        RoomConfig {
            public: true,
            members_only: false,
            non_anonymous: false,
            change_subject: false,
            ..RoomConfig::private_group()
        }
    }

    /// What a client gets that asks for no form (section 10.1.2): open, listed, semi-anonymous, gone with its last occupant.
    pub fn instant() -> RoomConfig {
        RoomConfig { persistent: false, archived: false, ..RoomConfig::public_channel() }
    }
}

/// An account's relation to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Never [`Affiliation::None`].
    pub affiliation: Affiliation,
    /// The nick that is kept for it (section 7.10); empty for none.
    pub nick: String,
}

/// What is talked about (section 8.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// May be empty.
    pub text: String,
    /// Nick of who has set it; empty if nobody has.
    pub nick: String,
    /// When.
    pub at: UtcTime,
}

/// All that lasts of a room but for its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomRecord {
    /// How it behaves.
    pub config: RoomConfig,
    /// Against whose bound it counts.
    pub creator: BareJid,
    /// Since when.
    pub created: UtcTime,
    /// What is talked about.
    pub subject: Subject,
    /// Everybody with an affiliation.
    pub members: BTreeMap<BareJid, Member>,
    /// SHA-1 of the room's picture in hexadecimal digits (XEP-0486); empty for none.
    pub avatar: String,
}

impl RoomRecord {
    /// A room that was just made.
    pub fn new(creator: BareJid, created: UtcTime) -> RoomRecord {
        let owner = Member { affiliation: Affiliation::Owner, nick: String::new() };
        RoomRecord {
            config: RoomConfig::private_group(),
            members: BTreeMap::from([(creator.clone(), owner)]),
            creator,
            created,
            subject: Subject::default(),
            avatar: String::new(),
        }
    }

    /// An account's relation to the room, by bare JID.
    pub fn affiliation(&self, user: &str) -> Affiliation {
        self.members.get(user).map_or(Affiliation::None, |member| member.affiliation)
    }

    /// Changes it; without one the account and its nick are forgotten.
    pub fn set_affiliation(&mut self, user: &BareJid, affiliation: Affiliation) {
        match (affiliation, self.members.get_mut(user.as_str())) {
            (Affiliation::None, _) => drop(self.members.remove(user.as_str())),
            (_, Some(member)) => member.affiliation = affiliation,
            (_, None) => drop(self.members.insert(user.clone(), Member { affiliation, nick: String::new() })),
        }
    }

    /// By which name the store keeps the room's lines. It is no address, so that it is not that of an earlier room with the same
    /// name, whose lines may not be gone yet.
    pub fn archive(&self, room: &BareJid) -> BareJid {
        let local = room.local().unwrap_or_default();
        BareJid::from_prepared(&format!("{local}\u{1}{:x}@{}", self.created.0, room.domain()))
    }

    /// How many owners there are.
    pub fn owners(&self) -> usize {
        self.members.values().filter(|member| member.affiliation == Affiliation::Owner).count()
    }
}

/// One line said in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its `stanza-id` (XEP-0359) and its name in the room's archive.
    pub id: ArchiveId,
    /// From the occupant, without `to`.
    pub xml: Vec<u8>,
}

/// What is left of a destroyed room (section 10.9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstone {
    /// Where to go instead; empty for nowhere.
    pub alternate: String,
    /// For people; may be empty.
    pub reason: String,
    /// When it was destroyed.
    pub at: UtcTime,
    /// Who may take the name again; empty for whoever may make rooms.
    pub owners: Vec<BareJid>,
}

/// What the store has under a room's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomState {
    /// Nothing.
    Absent,
    /// It was destroyed.
    Destroyed(Tombstone),
    /// A room, and its last lines, oldest first.
    Present(Box<RoomRecord>, Vec<Line>),
}

/// A room in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomItem {
    /// Its address.
    pub jid: BareJid,
    /// For people; may be empty.
    pub name: String,
    /// Whether everybody may know of it.
    pub public: bool,
}
