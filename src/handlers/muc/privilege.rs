//! Section 5: who may do what, as tables.
//!
//! Where the standard leaves something open: who moderates without being an admin cannot touch admins and owners, an admin cannot
//! touch another admin, and nobody puts out somebody of the same high rank but by taking the rank away first (PROTOCOL MU-24).

use crate::core::error::StanzaError;
use crate::core::rooms::{Affiliation, Role, RoomConfig};

/// What an occupant does (section 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Speak,
    Whisper,
    ChangeSubject,
    Invite,
    RequestVoice,
    Moderate,
}

impl Act {
    /// The least role that may.
    pub(super) fn least_role(self, config: &RoomConfig) -> Role {
        match self {
            Act::RequestVoice => Role::Visitor,
            Act::Speak => Role::Participant,
            Act::Moderate => Role::Moderator,
            // The rest is for the configuration to say.
            Act::Invite if config.moderated => Role::Participant,
            Act::Invite => Role::Visitor,
            Act::ChangeSubject if config.change_subject => Role::Participant,
            Act::ChangeSubject => Role::Moderator,
            Act::Whisper => config.private_messages,
        }
    }

    /// Whether an occupant of this role may.
    pub(super) fn is_allowed(self, role: Role, config: &RoomConfig) -> bool {
        let least = self.least_role(config);
        least > Role::None && role >= least
    }
}

/// Somebody who does something to somebody, or to whom it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    pub(super) affiliation: Affiliation,
    /// [`Role::None`] for who is not in the room.
    pub(super) role: Role,
}

const ADMIN: Affiliation = Affiliation::Admin;
const OWNER: Affiliation = Affiliation::Owner;
/// Any moderator, whatever its affiliation.
const ANY: Affiliation = Affiliation::None;

/// Section 5.1.3: the least affiliation of a moderator that changes a role (rows: of whom) to another (columns: none, visitor,
/// participant, moderator).
const ROLE_CHANGES: [[Affiliation; 4]; 4] = [
    [OWNER, OWNER, OWNER, OWNER], // Nobody in the room has none.
    [ANY, ANY, ANY, ADMIN],
    [ANY, ANY, ANY, ADMIN],
    [ADMIN, ADMIN, ADMIN, ADMIN],
];

/// Section 5.2.2: the least affiliation that changes an affiliation (rows: of whom) to another (columns: outcast, none, member,
/// admin, owner).
const AFFILIATION_CHANGES: [[Affiliation; 5]; 5] = [
    [ADMIN, ADMIN, ADMIN, OWNER, OWNER],
    [ADMIN, ADMIN, ADMIN, OWNER, OWNER],
    [ADMIN, ADMIN, ADMIN, OWNER, OWNER],
    [OWNER, OWNER, OWNER, OWNER, OWNER],
    [OWNER, OWNER, OWNER, OWNER, OWNER],
];

/// Whether `actor` may give an occupant another role; `none` puts it out.
pub(super) fn check_role_change(actor: Rank, target: Rank, to: Role) -> Result<(), StanzaError> {
    if actor.role < Role::Moderator {
        return Err(StanzaError::FORBIDDEN);
    }
    // Nobody silences or unmakes an admin or owner (8.4, 9.7); only who stands higher puts one out.
    let lowers = to < target.role;
    if target.affiliation >= ADMIN && lowers && (to > Role::None || actor.affiliation <= target.affiliation) {
        return Err(StanzaError::NOT_ALLOWED);
    }
    if actor.affiliation < target.affiliation && lowers {
        return Err(StanzaError::NOT_ALLOWED);
    }
    let least = ROLE_CHANGES[target.role as usize][to as usize];
    if actor.affiliation < least { Err(StanzaError::NOT_ALLOWED) } else { Ok(()) }
}

/// Whether an account with this affiliation may give another one another.
pub(super) fn check_affiliation_change(
    actor: Affiliation,
    target: Affiliation,
    to: Affiliation,
) -> Result<(), StanzaError> {
    if actor < ADMIN {
        return Err(StanzaError::FORBIDDEN);
    }
    let least = AFFILIATION_CHANGES[target as usize][to as usize];
    match actor >= least {
        true => Ok(()),
        false if target >= ADMIN => Err(StanzaError::NOT_ALLOWED),
        false => Err(StanzaError::FORBIDDEN),
    }
}

/// Whether the list of everybody with an affiliation may be read (section 5.2.1, third note).
pub(super) fn may_list(asker: Affiliation, listed: Affiliation, config: &RoomConfig) -> bool {
    let open = config.non_anonymous && listed > Affiliation::None;
    asker >= ADMIN || (open && asker >= Affiliation::Member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ranks() -> impl Iterator<Item = Rank> {
        Affiliation::ALL
            .into_iter()
            .flat_map(|affiliation| Role::ALL.into_iter().map(move |role| Rank { affiliation, role }))
    }

    /// The table of section 5.1.1, with the rooms' defaults: for none, visitor, participant, moderator.
    #[test]
    fn acts_of_roles() {
        let check = |act: Act, config: &RoomConfig, expected: [bool; 4]| {
            assert_eq!(Role::ALL.map(|role| act.is_allowed(role, config)), expected, "{act:?}");
        };
        let open = RoomConfig::instant();
        check(Act::Speak, &open, [false, false, true, true]);
        check(Act::Whisper, &open, [false, true, true, true]);
        check(Act::ChangeSubject, &open, [false, false, false, true]);
        check(Act::Invite, &open, [false, true, true, true]);
        check(Act::RequestVoice, &open, [false, true, true, true]);
        check(Act::Moderate, &open, [false, false, false, true]);
        let other = RoomConfig { change_subject: true, moderated: true, private_messages: Role::None, ..open };
        check(Act::ChangeSubject, &other, [false, false, true, true]);
        check(Act::Invite, &other, [false, false, true, true]);
        check(Act::Whisper, &other, [false; 4]);
    }

    #[test]
    fn roles_are_changed_by_moderators_and_never_upwards() {
        for actor in all_ranks() {
            for target in all_ranks().filter(|target| target.role > Role::None) {
                for to in Role::ALL {
                    let allowed = check_role_change(actor, target, to).is_ok();
                    let what = format!("{actor:?} {target:?} {to:?}");
                    assert!(!allowed || actor.role == Role::Moderator, "{what}");
                    // A moderator must not take voice from an admin or owner; nobody lowers a higher one.
                    let lowers = to < target.role;
                    assert!(!(allowed && lowers && target.affiliation > actor.affiliation), "{what}");
                    assert!(
                        !(allowed && lowers && target.affiliation >= ADMIN && actor.affiliation != OWNER),
                        "{what}"
                    );
                    // To make or unmake a moderator takes an admin.
                    let moderators = (to == Role::Moderator) != (target.role == Role::Moderator);
                    assert!(!(allowed && moderators && actor.affiliation < ADMIN), "{what}");
                    // Who stands higher may do all that who stands lower may.
                    let above = Affiliation::ALL.into_iter().filter(|higher| *higher > actor.affiliation);
                    for affiliation in above.filter(|_| allowed) {
                        check_role_change(Rank { affiliation, ..actor }, target, to).expect(&what);
                    }
                    // A moderator of any affiliation silences and kicks who has none.
                    let plain = target.affiliation <= Affiliation::None && target.role < Role::Moderator;
                    if actor.role == Role::Moderator && actor.affiliation >= ANY && plain && to < Role::Moderator {
                        assert!(allowed, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn affiliations_are_changed_as_the_standard_has_it() {
        for actor in Affiliation::ALL {
            for target in Affiliation::ALL {
                for to in Affiliation::ALL {
                    let allowed = check_affiliation_change(actor, target, to).is_ok();
                    let high = target >= ADMIN || to >= ADMIN;
                    let expected = actor == OWNER || (actor == ADMIN && !high);
                    assert_eq!(allowed, expected, "{actor:?} {target:?} {to:?}");
                }
            }
        }
    }

    #[test]
    fn lists_tell_no_addresses_that_are_hidden() {
        let (group, channel) = (RoomConfig::private_group(), RoomConfig::public_channel());
        for asker in Affiliation::ALL {
            for listed in Affiliation::ALL {
                assert_eq!(may_list(asker, listed, &channel), asker >= ADMIN);
                let member = asker == Affiliation::Member && listed > Affiliation::None;
                assert_eq!(may_list(asker, listed, &group), asker >= ADMIN || member);
            }
        }
    }
}
