//! Mistakes made on purpose, to see that they are found: of the store, and in what devices are told.

use whinchat::core::blocklist::Blocklist;
use whinchat::core::pubsub::Operation;
use whinchat::core::rooms::{Affiliation, RoomState};
use whinchat::core::{StoreReply, StoreRequest, Stored};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The store says that a message is kept before it is.
    AcknowledgeBeforeCommit,
    /// Offline messages are delivered and stay.
    ForgetToDelete,
    /// Two offline messages change places.
    SwapTwo,
    /// What a room shall be, and who is what in it, is sometimes not stored.
    ForgetRooms,
    /// A line of a room is sometimes not stored.
    ForgetLines,
    /// Two lines of a room's archive change places.
    SwapLines,
    /// The bans and the password of a room are not read.
    AdmitAnybody,
    /// Occupants are not told that somebody has left.
    HideDepartures,
    /// A line comes twice.
    SayTwice,
    /// Two lines change places for one occupant.
    SayOtherwise,
    /// Who is put out is not told, and goes on to hear what is said.
    LetThemListen,
    /// A change of whom an account has blocked is sometimes not stored.
    ForgetBlocks,
    /// Nobody is blocked for who is not here.
    DeliverBlocked,
    /// What is published is sometimes not stored.
    ForgetItems,
    /// Readers are sometimes not told what is published.
    HideNews,
    /// Of two changes of the registrations for push one undoes the other.
    ForgetPush,
    /// A token that is given out is sometimes not stored.
    ForgetTokens,
    /// Tokens survive the password.
    KeepTokens,
    /// A count is good again and again.
    ForgetCounts,
    /// What a dead session has left comes in another order.
    SwapLeft,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 20] = [
        Plant::AcknowledgeBeforeCommit,
        Plant::ForgetToDelete,
        Plant::SwapTwo,
        Plant::ForgetRooms,
        Plant::ForgetLines,
        Plant::SwapLines,
        Plant::AdmitAnybody,
        Plant::HideDepartures,
        Plant::SayTwice,
        Plant::SayOtherwise,
        Plant::LetThemListen,
        Plant::ForgetBlocks,
        Plant::DeliverBlocked,
        Plant::ForgetItems,
        Plant::HideNews,
        Plant::ForgetPush,
        Plant::ForgetTokens,
        Plant::KeepTokens,
        Plant::ForgetCounts,
        Plant::SwapLeft,
    ];

    /// Whether the store says that such a request is carried out, and does not do so now and then.
    pub fn forgets(self, request: &StoreRequest) -> bool {
        match self {
            Plant::ForgetRooms => matches!(request, StoreRequest::RoomSave { .. }),
            Plant::ForgetLines => matches!(request, StoreRequest::RoomLine { .. }),
            Plant::ForgetBlocks => matches!(request, StoreRequest::BlocklistChange { .. }),
            Plant::ForgetPush => matches!(request, StoreRequest::PushChange { .. }),
            Plant::ForgetItems => {
                matches!(request, StoreRequest::Pubsub { operation: Operation::Publish { .. }, .. })
            }
            Plant::ForgetTokens => {
                matches!(request, StoreRequest::TokenChange { change, .. } if change.issue.is_some())
            }
            _ => false,
        }
    }

    /// Changes what the store is asked.
    pub fn spoil(self, request: &mut StoreRequest) {
        match (self, request) {
            (Plant::ForgetToDelete, StoreRequest::OfflinePage { delete_to, .. }) => *delete_to = 0,
            (Plant::ForgetCounts, StoreRequest::TokenChange { change, .. }) => {
                if let Some((_, count)) = &mut change.used {
                    *count = None;
                }
            }
            _ => {}
        }
    }

    /// Changes what it answers.
    pub fn twist(self, request: &StoreRequest, reply: &mut StoreReply) {
        match (self, request, reply) {
            (Plant::SwapTwo, _, Ok(Stored::Offline(messages))) if messages.len() > 1 => {
                let (first, second) = messages.split_at_mut(1);
                std::mem::swap(&mut first[0].stanza, &mut second[0].stanza);
            }
            (Plant::SwapLines, StoreRequest::ArchivePage { user, .. }, Ok(Stored::ArchivePage(page)))
                if user.domain().starts_with("conference.") && page.messages.len() > 1 =>
            {
                let (first, second) = page.messages.split_at_mut(1);
                std::mem::swap(&mut first[0].1, &mut second[0].1);
            }
            (Plant::AdmitAnybody, _, Ok(Stored::Room(RoomState::Present(record, _)))) => {
                record.members.retain(|_, member| member.affiliation > Affiliation::None);
                record.config.password.clear();
            }
            (Plant::DeliverBlocked, _, Ok(Stored::Account(record))) => record.blocked = Blocklist::default(),
            _ => {}
        }
    }
}
