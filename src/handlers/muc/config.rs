//! Section 10.1 and 10.2: what an owner says a room shall be.
//!
//! The form's fields are a table; each reads and writes the configuration. A field that is not submitted stays as it is, one that
//! is not known is ignored. The field `preset` sets at once all that makes a private group or a public channel, whatever the
//! other fields say of that; name, description, language and bounds stay those of the form.

use super::presence::{empty, put_all_out};
use super::room::{End, Notice, Room};
use super::{Change, Outcome, Refusal, Request, commit, entry};
use crate::core::Limits;
use crate::core::form::{self, Form, Input};
use crate::core::rooms::{Affiliation, Role, Roles, RoomConfig, Tombstone};
use crate::handlers::prelude::*;
use crate::jid::BareJid;

/// One field of the form.
struct Field {
    var: &'static str,
    label: &'static str,
    input: Input,
    read: fn(&RoomConfig) -> Vec<String>,
    /// `None` where the value cannot be.
    write: fn(&mut RoomConfig, &[String]) -> Option<()>,
}

const ROLES: &[(&str, &str)] = &[("moderator", "Moderators"), ("participant", "Participants"), ("visitor", "Visitors")];
const NO_BOUND: &str = "none";

macro_rules! switch {
    ($var:literal, $label:literal, $field:ident) => {
        Field {
            var: $var,
            label: $label,
            input: Input::Switch,
            read: |config| vec![u8::from(config.$field).to_string()],
            write: |config, values| {
                config.$field = parse_switch(values)?;
                Some(())
            },
        }
    };
}

macro_rules! text {
    ($var:literal, $label:literal, $input:expr, $field:ident) => {
        Field {
            var: $var,
            label: $label,
            input: $input,
            read: |config| vec![config.$field.clone()],
            write: |config, values| {
                config.$field = values.join("\n");
                Some(())
            },
        }
    };
}

const FIELDS: &[Field] = &[
    text!("muc#roomconfig_roomname", "Name", Input::Text, name),
    text!("muc#roomconfig_roomdesc", "Description", Input::Text, description),
    text!("muc#roomconfig_lang", "Language", Input::Text, lang),
    switch!("muc#roomconfig_persistentroom", "The room stays when nobody is in it", persistent),
    switch!("muc#roomconfig_publicroom", "Everybody may find the room", public),
    switch!("muc#roomconfig_membersonly", "Only members may enter", members_only),
    switch!("muc#roomconfig_allowinvites", "Members may invite others", member_invites),
    Field {
        var: "muc#roomconfig_whois",
        label: "Who sees the addresses of the occupants",
        input: Input::One(&[("moderators", "Moderators"), ("anyone", "Everybody")]),
        read: |config| vec![if config.non_anonymous { "anyone" } else { "moderators" }.to_owned()],
        write: |config, values| {
            config.non_anonymous = match one(values)? {
                "anyone" => true,
                "moderators" => false,
                _ => return None,
            };
            Some(())
        },
    },
    switch!("muc#roomconfig_moderatedroom", "Who is no member may only listen", moderated),
    switch!("muc#roomconfig_changesubject", "Participants may change the subject", change_subject),
    Field {
        var: "muc#roomconfig_allowpm",
        label: "Who may write to single occupants",
        input: Input::One(&[
            ("anyone", "Everybody"),
            ("participants", "Participants"),
            ("moderators", "Moderators"),
            ("none", "Nobody"),
        ]),
        read: |config| {
            let name = match config.private_messages {
                Role::None => "none",
                Role::Visitor => "anyone",
                Role::Participant => "participants",
                Role::Moderator => "moderators",
            };
            vec![name.to_owned()]
        },
        write: |config, values| {
            config.private_messages = match one(values)? {
                "anyone" => Role::Visitor,
                "participants" => Role::Participant,
                "moderators" => Role::Moderator,
                "none" => Role::None,
                _ => return None,
            };
            Some(())
        },
    },
    Field {
        var: "muc#roomconfig_presencebroadcast",
        label: "Whose presence everybody sees",
        input: Input::Some(ROLES),
        read: |config| {
            let shown = ROLES.iter().map(|(role, _)| *role);
            shown
                .filter(|role| Role::named(role).is_some_and(|role| config.presence.contains(role)))
                .map(str::to_owned)
                .collect()
        },
        write: |config, values| {
            let roles: Option<Vec<Role>> = values.iter().map(|value| Role::named(value)).collect();
            config.presence = Roles::of(roles?);
            Some(())
        },
    },
    switch!("muc#roomconfig_enablelogging", "What is said is kept", archived),
    Field {
        var: "muc#roomconfig_historylength",
        label: "Lines shown to who enters",
        input: Input::Text,
        read: |config| vec![config.history.to_string()],
        write: |config, values| {
            config.history = one(values)?.trim().parse::<u32>().ok()?.min(u16::MAX.into()) as u16;
            Some(())
        },
    },
    Field {
        var: "muc#roomconfig_maxusers",
        label: "Occupants at once",
        input: Input::One(&[("10", "10"), ("30", "30"), ("100", "100"), ("300", "300"), (NO_BOUND, "No bound")]),
        read: |config| {
            vec![match config.occupants_max {
                0 => NO_BOUND.to_owned(),
                bound => bound.to_string(),
            }]
        },
        write: |config, values| {
            config.occupants_max = match one(values)?.trim() {
                NO_BOUND | "" => 0,
                bound => bound.parse::<u32>().ok()?.min(u16::MAX.into()) as u16,
            };
            Some(())
        },
    },
    Field {
        var: PROTECTED,
        label: "A password is needed to enter",
        input: Input::Switch,
        read: |config| vec![u8::from(!config.password.is_empty()).to_string()],
        // Settled behind all fields: it goes with the next one.
        write: |_, values| parse_switch(values).map(drop),
    },
    text!("muc#roomconfig_roomsecret", "Password", Input::Secret, password),
];

const PROTECTED: &str = "muc#roomconfig_passwordprotectedroom";
const PRESET: &str = "preset";
/// Not an empty value: of an option that has one profanity 0.13 dies.
const AS_BELOW: &str = "custom";
const PRESETS: &[(&str, &str)] =
    &[(AS_BELOW, "As below"), ("private", "Private group of people who know each other"), ("public", "Public channel")];

fn one(values: &[String]) -> Option<&str> {
    match values {
        [value] => Some(value),
        _ => None,
    }
}

fn parse_switch(values: &[String]) -> Option<bool> {
    form::parse_switch(one(values)?)
}

fn check_owner(room: &Room, request: &Request<'_>) -> Result<(), StanzaError> {
    match room.record.affiliation(request.stanza.from.bare()) {
        Affiliation::Owner => Ok(()),
        _ => Err(StanzaError::FORBIDDEN),
    }
}

/// The form with what holds now.
pub(super) fn show(_: &mut Core, _: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    check_owner(room, request)?;
    out.reply(request.conn, &*request.stanza.parked(), |w| {
        w.open("query", ns::MUC_OWNER);
        form::open_titled(w, ns::MUC_ROOMCONFIG, format_args!("Configuration of {}", room.jid), "");
        form::field(w, PRESET, "What kind of room", Input::One(PRESETS), &[AS_BELOW]);
        for field in FIELDS {
            form::field(w, field.var, field.label, field.input, &(field.read)(room.config()));
        }
    });
    Ok(())
}

/// The form comes back, or the room shall end.
pub(super) fn set(core: &mut Core, now: Now, room: &mut Room, request: &Request<'_>, out: &mut Outputs) -> Outcome {
    check_owner(room, request)?;
    if let Some(destroy) = request.payload.child("destroy", ns::MUC_OWNER) {
        return end(core, now, room, request, &destroy, out);
    }
    let element = request.payload.child("x", ns::DATA_FORMS).ok_or(StanzaError::BAD_REQUEST)?;
    match element.attr("type") {
        Some("cancel") => {
            // A room that was never configured does not come to be (section 10.1.3).
            if room.locked {
                empty(core, room, &Notice { end: Some(&End::default()), ..Notice::default() }, out);
            }
            out.reply_empty(request.conn, &*request.stanza.parked());
            Ok(())
        }
        Some("submit") => configure(core, now, room, request, &Form::parse(&element)?, out),
        _ => Err(StanzaError::BAD_REQUEST.into()),
    }
}

/// Section 10.9. The name is kept from strangers for a while, and points to where the owner says (PROTOCOL MU-31).
fn end(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    request: &Request<'_>,
    destroy: &Element<'_>,
    out: &mut Outputs,
) -> Outcome {
    let text = |name| destroy.child(name, ns::MUC_OWNER).map(|child| child.text().into_owned()).unwrap_or_default();
    let alternate = match destroy.attr("jid").filter(|jid| !jid.is_empty()).map(BareJid::parse) {
        None => String::new(),
        Some(Ok(jid)) => jid.as_str().to_owned(),
        Some(Err(_)) => return Err(StanzaError::JID_MALFORMED.into()),
    };
    let end = End { alternate, reason: text("reason"), password: text("password") };
    if [&end.reason, &end.password].iter().any(|text| text.len() > core.limits.room_text_bytes_max) {
        return Err(StanzaError::NOT_ACCEPTABLE.text("The reason is too long.").into());
    }
    let iq = request.stanza.parked();
    let told = move |conn: ConnId, result: Result<(), StanzaError>, out: &mut Outputs| match result {
        Ok(()) => out.reply_empty(conn, &*iq),
        Err(error) => out.reply_error(conn, &*iq, error),
    };
    destroy_room(core, now, request.conn, room, end, told, out)
}

/// Ends a room; `told` is called with the result before those who are in it hear of it.
pub(super) fn destroy_room(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    room: &mut Room,
    end: End,
    told: impl FnOnce(ConnId, Result<(), StanzaError>, &mut Outputs) + 'static,
    out: &mut Outputs,
) -> Outcome {
    if room.saving {
        return Err(Refusal::Busy);
    }
    let owners = room.record.members.iter().filter(|(_, member)| member.affiliation == Affiliation::Owner);
    let tombstone = Tombstone {
        alternate: end.alternate.clone(),
        reason: end.reason.clone(),
        at: now.utc,
        owners: owners.map(|(owner, _)| owner.clone()).collect(),
    };
    let tombstone = room.stored.then_some(tombstone);
    let then = move |core: &mut Core,
                     _: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        told(conn, result, out);
        if result.is_ok() {
            empty(core, room, &Notice { end: Some(&end), ..Notice::default() }, out);
        }
    };
    commit(core, now, conn, room, Change::Destroy(tombstone), then, out);
    Ok(())
}

fn configure(
    core: &mut Core,
    now: Now,
    room: &mut Room,
    request: &Request<'_>,
    form: &Form,
    out: &mut Outputs,
) -> Outcome {
    let says_nothing = form.fields.is_empty();
    let config = match says_nothing && room.locked {
        true => RoomConfig::instant(),
        false => submitted(room.config(), form, &core.limits)?,
    };
    if room.saving {
        return Err(Refusal::Busy);
    }
    let mut record = Box::new(room.record.clone());
    record.config = config;
    let (before, was_locked) = (room.record.config.clone(), room.locked);
    let iq = request.stanza.parked();
    let then = move |core: &mut Core,
                     _: Now,
                     conn: ConnId,
                     room: &mut Room,
                     result: Result<(), StanzaError>,
                     out: &mut Outputs| {
        match result {
            Ok(()) => {
                out.reply_empty(conn, &*iq);
                if !was_locked {
                    settle(core, room, &before, out);
                }
            }
            Err(error) => out.reply_error(conn, &*iq, error),
        }
    };
    let change = if was_locked { Change::Open(record) } else { Change::Save(record) };
    commit(core, now, request.conn, room, change, then, out);
    Ok(())
}

/// The configuration that a form asks for.
fn submitted(before: &RoomConfig, form: &Form, limits: &Limits) -> Result<RoomConfig, StanzaError> {
    const WRONG: StanzaError = StanzaError::NOT_ACCEPTABLE.text("A field of the form has a value that cannot be.");
    let mut config = before.clone();
    for field in FIELDS {
        if let Some(values) = form.values(field.var) {
            (field.write)(&mut config, values).ok_or(WRONG)?;
        }
    }
    match form.values(PROTECTED).and_then(parse_switch) {
        Some(false) => config.password.clear(),
        Some(true) if config.password.is_empty() => {
            return Err(StanzaError::NOT_ACCEPTABLE.text("A room that asks for a password needs one."));
        }
        _ => {}
    }
    let preset = match form.values(PRESET).and_then(one) {
        None | Some("" | AS_BELOW) => None,
        Some("private") => Some(RoomConfig::private_group()),
        Some("public") => Some(RoomConfig::public_channel()),
        Some(_) => return Err(WRONG),
    };
    if let Some(preset) = preset {
        let RoomConfig { name, description, lang, history, occupants_max, .. } = config;
        config = RoomConfig { name, description, lang, history, occupants_max, ..preset };
    }
    let texts = [&config.name, &config.description, &config.lang, &config.password];
    if texts.iter().any(|text| text.len() > limits.room_text_bytes_max) {
        return Err(StanzaError::NOT_ACCEPTABLE.text("A text of the form is too long."));
    }
    Ok(config)
}

/// What a new configuration does to who is in the room (section 10.2.1).
fn settle(core: &mut Core, room: &mut Room, before: &RoomConfig, out: &mut Outputs) {
    let after = room.config().clone();
    let mut codes = Vec::new();
    if after.archived != before.archived {
        codes.push(if after.archived { 170 } else { 171 });
    }
    if after.non_anonymous != before.non_anonymous {
        codes.push(if after.non_anonymous { 172 } else { 173 });
    }
    let rest = RoomConfig { archived: after.archived, non_anonymous: after.non_anonymous, ..before.clone() };
    if rest != after {
        codes.push(104);
    }
    if !codes.is_empty() {
        room.tell_codes(&codes, out);
    }
    if after.presence != before.presence {
        entry::show_more(core, room, out);
    }
    if after.members_only && !before.members_only {
        let strangers = room.occupants().filter(|(_, occupant)| occupant.affiliation < Affiliation::Member);
        let strangers: Vec<usize> = strangers.map(|(key, _)| key).collect();
        put_all_out(core, room, &strangers, &Notice { codes: &[322], ..Notice::default() }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_that_comes_back_as_it_was_changes_nothing() {
        let secret =
            RoomConfig { password: "open sesame".to_owned(), occupants_max: 7, ..RoomConfig::public_channel() };
        for config in [RoomConfig::private_group(), RoomConfig::public_channel(), RoomConfig::instant(), secret] {
            let fields = FIELDS.iter().map(|field| (field.var.to_owned(), (field.read)(&config))).collect();
            let form = Form { fields, ..Form::default() };
            assert_eq!(submitted(&RoomConfig::private_group(), &form, &Limits::default()), Ok(config));
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_and_the_rest_is_ignored() {
        let check = |var: &'static str, values: &[&str], expected: Result<RoomConfig, &str>| {
            let fields = vec![(var.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())];
            let form = Form { fields, ..Form::default() };
            let came = submitted(&RoomConfig::private_group(), &form, &Limits::default());
            assert_eq!(came.map_err(|error| error.condition), expected, "{var} {values:?}");
        };
        let as_it_was = RoomConfig::private_group();
        check("muc#roomconfig_whois", &["nobody"], Err("not-acceptable"));
        check("muc#roomconfig_whois", &["anyone", "moderators"], Err("not-acceptable"));
        check("muc#roomconfig_publicroom", &["yes"], Err("not-acceptable"));
        check("muc#roomconfig_publicroom", &[], Err("not-acceptable"));
        check("muc#roomconfig_historylength", &["-1"], Err("not-acceptable"));
        check("muc#roomconfig_historylength", &["70000"], Ok(RoomConfig { history: u16::MAX, ..as_it_was.clone() }));
        check("muc#roomconfig_presencebroadcast", &["king"], Err("not-acceptable"));
        check("muc#roomconfig_presencebroadcast", &[], Ok(RoomConfig { presence: Roles(0), ..as_it_was.clone() }));
        check("muc#roomconfig_passwordprotectedroom", &["1"], Err("not-acceptable"));
        check("muc#roomconfig_roomname", &[&"x".repeat(5000)], Err("not-acceptable"));
        check("preset", &["house"], Err("not-acceptable"));
        check("preset", &["public"], Ok(RoomConfig::public_channel()));
        check("muc#roomconfig_unheard_of", &["?"], Ok(as_it_was));
    }
}
