//! What requests do, on both stores; random sequences of them, one store against the other.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::InMemoryBackend;

use super::apply::{Engine, Random};
use super::archive_tests;
use super::crash_tests;
use super::redb::Parts;
use super::schema::Table;
use super::{Authenticator, Faults, MemoryStore, OpenCause, RedbStore, Store};
use crate::auth::PasswordScheme;
use crate::auth::{Credentials, TokenMechanism};
use crate::config::{Config, DomainConfig};
use crate::core::archive::{ArchiveId, Keep};
use crate::core::blocklist::BlocklistChange;
use crate::core::clock::UtcTime;
use crate::core::effects::{DocumentKey, Half, StoreError, StoreReply, StoreRequest as R, Stored};
use crate::core::pubsub::{self, Operation, Wanted};
use crate::core::reports::{Reason, Report};
use crate::core::rooms::{Line, RoomConfig, RoomRecord, RoomState, Tombstone};
use crate::core::roster::{Event, Subscription};
use crate::core::tokens::{Token, TokenChange};
use crate::jid::{BareJid, Jid};

/// Small bounds, and passwords that cost nothing.
pub(super) fn config() -> Config {
    let mut config = Config::try_out();
    let domain = |name: &str| DomainConfig { name: name.to_owned(), ..DomainConfig::default() };
    config.domains = vec![domain("x"), domain("y")];
    config.password_scheme = PasswordScheme::Scrypt { log_n: 1 };
    let limits = &mut config.limits;
    limits.tokens_per_account_max = 2;
    limits.reports_max = 4;
    limits.roster_items_max = 4;
    limits.requests_max = 2;
    limits.request_bytes_max = 80;
    limits.offline_messages_max = 3;
    limits.offline_bytes_max = 20;
    limits.archive_bytes_max = 1600;
    limits.vcard_bytes_max = 10;
    limits.private_bytes_max = 8;
    limits.private_total_bytes_max = 12;
    limits.pep_nodes_max = 2;
    limits.pep_items_max = 3;
    limits.pep_total_bytes_max = 20;
    limits.rooms_per_account_max = 2;
    limits.room_history_max = 3;
    config
}

pub(super) const SEED: [u8; 32] = [7; 32];

pub(super) fn memory() -> MemoryStore {
    MemoryStore::new(&config(), SEED)
}

fn redb() -> RedbStore {
    let journal = |_| Ok(std::sync::Arc::new(InMemoryBackend::new()) as std::sync::Arc<dyn redb::StorageBackend>);
    let parts = Parts {
        journal: Some(Box::new(journal)),
        recent_bytes_max: crash_tests::RECENT_BYTES_MAX,
        ..Parts::given(|| Ok(InMemoryBackend::new()))
    };
    RedbStore::build(parts, &config(), Random::Seeded { seed: SEED, drawn: 0 }).expect("opens")
}

/// Everything that is stored.
pub(super) fn dump(engine: &mut impl Engine) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    engine
        .transact(false, &mut |tx| {
            for table in Table::ALL {
                // Which memory keeps elsewhere.
                if table != Table::Meta {
                    tx.scan(table, &[], &[0xff; 8], &mut |key, value| {
                        rows.push((table, key.to_vec(), value.to_vec()));
                        ControlFlow::Continue(())
                    })?;
                }
            }
            Ok(())
        })
        .expect("can be read");
    rows
}

pub(super) fn jid(text: &str) -> BareJid {
    // "a" is short for the account of that name in the first domain.
    BareJid::from_prepared(&if text.contains('@') { text.to_owned() } else { format!("{text}@x") })
}

pub(super) fn create(user: &str) -> R {
    R::AccountCreate { user: jid(user), password: "secret".to_owned().into(), at: UtcTime(1) }
}

fn verify(user: &str, password: &str) -> R {
    R::Verify { user: jid(user), password: password.to_owned().into() }
}

pub(super) fn event(user: &str, event: &str, contact: &str) -> R {
    R::Subscription {
        user: jid(user),
        contact: jid(contact),
        event: Event::from_name(event).expect("an event"),
        stanza: format!("<presence type='{event}'/>").into_bytes(),
        at: UtcTime(2),
    }
}

pub(super) fn put(user: &str, contact: &str, name: &str) -> R {
    R::RosterPut { user: jid(user), jid: jid(contact), name: name.to_owned(), groups: Vec::new() }
}

fn remove(user: &str, contact: &str) -> R {
    R::RosterRemove { user: jid(user), jid: jid(contact) }
}

pub(super) fn offline(user: &str, stanza: &str) -> R {
    R::OfflinePut {
        user: jid(user),
        from: crate::jid::Jid::from_prepared("sender@remote.test/r"),
        stanza: stanza.as_bytes().to_vec(),
        archived: None,
    }
}

pub(super) fn page(user: &str, delete_to: u64, after: u64, bytes_max: usize) -> R {
    R::OfflinePage { user: jid(user), delete_to, after, bytes_max }
}

fn private(name: &str) -> DocumentKey {
    DocumentKey::Private { name: name.to_owned(), ns: "n".to_owned() }
}

fn document(user: &str, key: &DocumentKey, content: &str) -> R {
    R::DocumentPut { user: jid(user), key: key.clone(), content: content.as_bytes().to_vec(), at: UtcTime(3) }
}

/// A half in a line: whose, before and after, version, what is delivered (`!`) and answered (`>`).
fn half(half: &Half) -> String {
    let item = |item: &Option<crate::core::roster::Item>, request| {
        let mut text = match item {
            None => "-".to_owned(),
            Some(item) => item.subscription.name().to_owned(),
        };
        let (ask, approved) = item.as_ref().map_or((false, false), |item| (item.ask, item.approved));
        for (yes, suffix) in [(ask, "+ask"), (request, "+in"), (approved, "+approved")] {
            text.push_str(if yes { suffix } else { "" });
        }
        text
    };
    let mut text = format!(
        "{} {} {}>{}",
        half.account.local().expect("an account"),
        half.version.count,
        item(&half.before, half.request_before),
        item(&half.item, half.request.is_some())
    );
    half.deliver.iter().for_each(|event| write!(text, " !{}", event.name()).expect("infallible"));
    half.answers.iter().for_each(|event| write!(text, " >{}", event.name()).expect("infallible"));
    text
}

/// A reply in a line.
pub(super) fn show(reply: &StoreReply) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Ok(Stored::Done) => "done".to_owned(),
        Ok(Stored::Credentials(credentials)) => if credentials.is_some() { "keys" } else { "no keys" }.to_owned(),
        Ok(Stored::Verified(verified)) => verified.to_string(),
        Ok(Stored::Disabled(credentials)) => {
            if credentials.is_some() { "keys, disabled" } else { "true, disabled" }.to_owned()
        }
        Ok(Stored::Census { accounts, disabled }) => format!("{accounts} ({disabled})"),
        Ok(Stored::Tokens(tokens)) => {
            let salt = |token: &Option<Token>| token.as_ref().map_or("-".to_owned(), |token| token.salt[0].to_string());
            format!("{} {}", salt(&tokens.current), salt(&tokens.fresh))
        }
        Ok(Stored::Handled(handled)) => handled.map_or("unknown".to_owned(), |handled| handled.to_string()),
        Ok(Stored::Clients(clients)) => {
            clients.iter().map(|client| format!("{}:{}", client.place[0], client.name)).collect::<Vec<_>>().join(" ")
        }
        Ok(Stored::Account(record)) => {
            let roster = &record.roster;
            let items = roster.items.iter().map(|(jid, item)| {
                let groups = item.groups.join(",");
                format!(" {}={}({}{groups})", jid.as_str(), item.subscription.name(), item.name)
            });
            let requests =
                roster.requests.iter().map(|(jid, request)| format!(" {}?{}", jid.as_str(), text(&request.stanza)));
            let waiting = if record.offline { " messages" } else { "" };
            format!("{}{}{}{waiting}", roster.version.count, items.collect::<String>(), requests.collect::<String>())
        }
        Ok(Stored::Accounts(accounts)) => accounts.iter().map(BareJid::as_str).collect::<Vec<_>>().join(" "),
        Ok(Stored::Halves { user, routed, contact }) => {
            let contact = contact.as_ref().map_or("-".to_owned(), |contact| half(contact));
            format!("{} | {} | {contact}", half(user), if *routed { "routed" } else { "kept" })
        }
        Ok(Stored::Removed { contacts }) => contacts.iter().map(half).collect::<Vec<_>>().join(" | "),
        Ok(Stored::Offline(messages)) => {
            let each = messages.iter().map(|message| {
                let at = message.at.map_or(String::new(), |at| format!("@{}", at.0));
                let mark = if message.archived.is_some() { "+" } else { "" };
                format!("{}:{}{at}{mark}", message.number, text(&message.stanza))
            });
            each.collect::<Vec<_>>().join(" ")
        }
        Ok(Stored::ArchivePage(page)) => {
            let each = page.messages.iter().map(|(_, stanza)| text(stanza));
            let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
            let end = if page.complete { "." } else { "" };
            format!("{}{end} {}/{}", each.collect::<Vec<_>>().join(" "), number(page.index), number(page.count))
        }
        Ok(Stored::ArchiveBounds(bounds)) => {
            bounds.map_or("empty".to_owned(), |(first, last)| format!("{}..{}", first.time().0, last.time().0))
        }
        Ok(Stored::Document(document)) => document.as_ref().map_or("none".to_owned(), |document| text(document)),
        Ok(Stored::SharedContacts(members)) => {
            members.iter().map(|(jid, name)| format!("{jid}={name}")).collect::<Vec<_>>().join(" ")
        }
        Ok(Stored::Reports(reports)) => reports
            .iter()
            .map(|(number, report)| format!("{number}:{}", report.about.as_str()))
            .collect::<Vec<_>>()
            .join(" "),
        Ok(Stored::Blocklist { before, after }) => format!("{}>{}", before.jids().len(), after.jids().len()),
        Ok(Stored::Relation { exists, sees_presence, last_seen }) => format!("{exists} {sees_presence} {last_seen:?}"),
        Ok(Stored::Room(RoomState::Absent)) => "absent".to_owned(),
        Ok(Stored::Room(RoomState::Destroyed(tombstone))) => format!("destroyed {}", tombstone.alternate),
        Ok(Stored::Room(RoomState::Present(record, lines))) => {
            let lines = lines.iter().map(|line| format!(" {}:{}", line.id.0, text(&line.xml)));
            format!("{}{}", record.config.name, lines.collect::<String>())
        }
        Ok(Stored::Rooms(rooms)) => {
            rooms.iter().map(|room| format!("{}({})", room.jid, room.name)).collect::<Vec<_>>().join(" ")
        }
        Ok(Stored::Pubsub(outcome)) => outcome_text(outcome),
        Ok(Stored::Told(events)) => events.iter().map(event_text).collect::<Vec<_>>().join(" | "),
        Ok(Stored::LastItems(items)) => {
            let text = |last: &pubsub::LastItem| format!("{} {} {}", last.owner, last.node, last.item.id);
            items.iter().map(text).collect::<Vec<_>>().join(" | ")
        }
        Err(error) => format!("{error:?}"),
    }
}

fn event_text(event: &pubsub::Event) -> String {
    let change = match &event.change {
        pubsub::Change::Published(item) => format!("published {}", item.id),
        change => format!("{change:?}").to_lowercase(),
    };
    let readers = event.readers.iter().map(|jid| format!(" {jid}"));
    let subscribers = event.subscribers.iter().map(|jid| format!(" +{jid}"));
    format!("{change}:{}{}", readers.collect::<String>(), subscribers.collect::<String>())
}

fn outcome_text(outcome: &pubsub::Outcome) -> String {
    use pubsub::Outcome as O;
    match outcome {
        O::Done => "done".to_owned(),
        O::Told(events) => events.iter().map(event_text).collect::<Vec<_>>().join(" | "),
        O::Items { items, count, index } => {
            let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
            format!("{} ({index} of {count})", ids.join(" "))
        }
        O::Config(config) => format!("{:?} {}", config.access, config.max_items),
        O::Affiliations(list) => format!("{list:?}"),
        O::Subscribed(last) => format!("subscribed {:?}", last.as_ref().map(|item| &item.id)),
        O::Nodes(nodes) => nodes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" "),
        O::Refused(refusal) => format!("{refusal:?}"),
    }
}

/// Each request with its reply, one by one, on both stores; then all of them as one batch, which must come to the same.
pub(super) fn check(rows: &[(R, &str)]) {
    let (mut memory, mut redb) = (memory(), redb());
    for store in [&mut memory as &mut dyn Store, &mut redb] {
        for (request, expected) in rows {
            let replies = store.apply(std::slice::from_ref(request));
            assert_eq!(replies.iter().map(show).collect::<Vec<_>>(), [*expected], "{request:?}");
        }
    }
    assert_eq!(dump(memory.engine()), dump(redb.engine()));
    let requests: Vec<R> = rows.iter().map(|(request, _)| again(request)).collect();
    let mut batched = self::memory();
    let replies: Vec<String> = batched.apply(&requests).iter().map(show).collect();
    let expected: Vec<&str> = rows.iter().map(|(_, expected)| *expected).collect();
    assert_eq!(replies, expected, "as one batch");
    assert_eq!(dump(batched.engine()), dump(memory.engine()));
}

/// Requests are not `Clone`, since no password should be copied by accident.
pub(super) fn again(request: &R) -> R {
    match request {
        R::Credentials { user } => R::Credentials { user: user.clone() },
        R::Verify { user, password } => R::Verify { user: user.clone(), password: password.clone() },
        R::AccountCreate { user, password, at } => {
            R::AccountCreate { user: user.clone(), password: password.clone(), at: *at }
        }
        R::PasswordSet { user, password } => R::PasswordSet { user: user.clone(), password: password.clone() },
        R::AccountRemove { user } => R::AccountRemove { user: user.clone() },
        R::AccountDisable { user, disabled } => R::AccountDisable { user: user.clone(), disabled: *disabled },
        R::Census { domain } => R::Census { domain: domain.clone() },
        R::DisabledAccounts { domain, after, max } => {
            R::DisabledAccounts { domain: domain.clone(), after: after.clone(), max: *max }
        }
        R::Accounts { domain, after, max } => R::Accounts { domain: domain.clone(), after: after.clone(), max: *max },
        R::Activate { user } => R::Activate { user: user.clone() },
        R::RosterPut { user, jid, name, groups } => {
            R::RosterPut { user: user.clone(), jid: jid.clone(), name: name.clone(), groups: groups.clone() }
        }
        R::RosterRemove { user, jid } => R::RosterRemove { user: user.clone(), jid: jid.clone() },
        R::Subscription { user, contact, event, stanza, at } => R::Subscription {
            user: user.clone(),
            contact: contact.clone(),
            event: *event,
            stanza: stanza.clone(),
            at: *at,
        },
        R::OfflinePut { user, from, stanza, archived } => {
            R::OfflinePut { user: user.clone(), from: from.clone(), stanza: stanza.clone(), archived: *archived }
        }
        R::ArchivePut { id, from, to, sender, receiver, offline, stanza } => R::ArchivePut {
            id: *id,
            from: from.clone(),
            to: to.clone(),
            sender: *sender,
            receiver: *receiver,
            offline: *offline,
            stanza: stanza.clone(),
        },
        R::ArchivePage { user, filter, paging } => {
            R::ArchivePage { user: user.clone(), filter: filter.clone(), paging: paging.clone() }
        }
        R::ArchiveBounds { user } => R::ArchiveBounds { user: user.clone() },
        R::ArchivePrefsPut { user, prefs } => R::ArchivePrefsPut { user: user.clone(), prefs: prefs.clone() },
        R::CredentialsReplace { user, before, after } => {
            R::CredentialsReplace { user: user.clone(), before: before.clone(), after: after.clone() }
        }
        R::Tokens { user, client } => R::Tokens { user: user.clone(), client: *client },
        R::TokenChange { user, client, at, change } => {
            R::TokenChange { user: user.clone(), client: *client, at: *at, change: change.clone() }
        }
        R::Clients { user } => R::Clients { user: user.clone() },
        R::ClientsForget { user, clients } => R::ClientsForget { user: user.clone(), clients: clients.clone() },
        R::TokensForget { user } => R::TokensForget { user: user.clone() },
        R::SessionEnded { user, id, handled } => {
            R::SessionEnded { user: user.clone(), id: id.clone(), handled: *handled }
        }
        R::SessionHandled { user, id } => R::SessionHandled { user: user.clone(), id: id.clone() },
        R::OfflineClear { user } => R::OfflineClear { user: user.clone() },
        R::OfflinePage { user, delete_to, after, bytes_max } => {
            R::OfflinePage { user: user.clone(), delete_to: *delete_to, after: *after, bytes_max: *bytes_max }
        }
        R::DocumentGet { user, key } => R::DocumentGet { user: user.clone(), key: key.clone() },
        R::DocumentPut { user, key, content, at } => {
            R::DocumentPut { user: user.clone(), key: key.clone(), content: content.clone(), at: *at }
        }
        R::SharedContacts { domain, max } => R::SharedContacts { domain: domain.clone(), max: *max },
        R::PushChange { user, change } => R::PushChange { user: user.clone(), change: change.clone() },
        R::BlocklistChange { user, change, reports } => {
            R::BlocklistChange { user: user.clone(), change: change.clone(), reports: reports.clone() }
        }
        R::Reports { domain, before, max } => R::Reports { domain: domain.clone(), before: *before, max: *max },
        R::LastSeen { user, at, status } => R::LastSeen { user: user.clone(), at: *at, status: status.clone() },
        R::Relation { user, peer } => R::Relation { user: user.clone(), peer: peer.clone() },
        R::Pubsub { owner, asker, node, operation, at } => R::Pubsub {
            owner: owner.clone(),
            asker: asker.clone(),
            node: node.clone(),
            operation: operation.clone(),
            at: *at,
        },
        R::LastItems { owners, reader, nodes } => {
            R::LastItems { owners: owners.clone(), reader: reader.clone(), nodes: nodes.clone() }
        }
        R::RoomLoad { room } => R::RoomLoad { room: room.clone() },
        R::RoomSave { room, record } => R::RoomSave { room: room.clone(), record: record.clone() },
        R::RoomLine { archive, from, line } => {
            R::RoomLine { archive: archive.clone(), from: from.clone(), line: line.clone() }
        }
        R::RoomRewrite { archive, line } => R::RoomRewrite { archive: archive.clone(), line: line.clone() },
        R::RoomDestroy { room, tombstone } => R::RoomDestroy { room: room.clone(), tombstone: tombstone.clone() },
        R::RoomList { domain, after, max, public_only } => {
            R::RoomList { domain: domain.clone(), after: after.clone(), max: *max, public_only: *public_only }
        }
        R::RoomCard { room, record, content } => {
            R::RoomCard { room: room.clone(), record: record.clone(), content: content.clone() }
        }
    }
}

/// A public room of the maker, by a name for people.
fn room_record(maker: &str, name: &str) -> Box<RoomRecord> {
    let mut record = Box::new(RoomRecord::new(jid(maker), UtcTime(1)));
    record.config = RoomConfig { name: name.to_owned(), ..RoomConfig::public_channel() };
    record
}

fn save_room(room: &str, maker: &str, name: &str) -> R {
    R::RoomSave { room: jid(room), record: room_record(maker, name) }
}

fn line_of(id: u128, text: &str) -> Line {
    Line { id: ArchiveId(id), xml: text.as_bytes().to_vec() }
}

fn archive_of(room: &str) -> BareJid {
    room_record("a", "").archive(&jid(room))
}

fn room_line(room: &str, id: u128, text: &str) -> R {
    R::RoomLine { archive: archive_of(room), from: Jid::from_prepared(&format!("{room}/n")), line: line_of(id, text) }
}

fn rewrite(room: &str, id: u128, text: &str) -> R {
    R::RoomRewrite { archive: archive_of(room), line: line_of(id, text) }
}

#[test]
fn nodes() {
    let on = |owner, asker, node: &str, operation| R::Pubsub {
        owner: jid(owner),
        asker: jid(asker),
        node: node.to_owned(),
        operation,
        at: UtcTime(1),
    };
    let option = |name: &str, value: &str| vec![(format!("pubsub#{name}"), vec![value.to_owned()])];
    let publish = |node, id: &str, payload: &str, options| {
        let item = pubsub::Item {
            id: id.to_owned(),
            publisher: "a@x".to_owned(),
            at: UtcTime(1),
            payload: payload.as_bytes().to_vec(),
        };
        on("a@x", "a@x", node, Operation::Publish { item, options })
    };
    let items = |asker, wanted, bytes_max| on("a@x", asker, "n", Operation::Items { wanted, bytes_max });
    let recent = |max| Wanted::Recent(max);
    let page = |after: &str, max| Wanted::Page { after: Some(after.to_owned()), before: None, max };
    let last = |reader| R::LastItems {
        owners: vec![jid("b@x"), jid("a@x")],
        reader: jid(reader),
        nodes: Arc::new(["n".into(), "o".into()]),
    };
    let max = || option("max_items", "max");
    check(&[
        (publish("n", "1", "p", max()), "NotFound"),
        (create("a@x"), "done"),
        (create("b@x"), "done"),
        (publish("n", "1", "p", max()), "published 1:"),
        (publish("n", "2", "p", max()), "published 2:"),
        (publish("n", "3", "p", option("max_items", "1")), "Precondition"),
        (publish("n", "3", "p", option("max_items", "none")), "Options"),
        (publish("n", "1", "q", max()), "published 1:"),
        (items("a@x", recent(9), 99), "2 1 (0 of 2)"),
        (items("a@x", recent(1), 99), "1 (1 of 2)"),
        (items("a@x", recent(9), 1), "1 (1 of 2)"),
        (items("a@x", page("2", 1), 99), "1 (1 of 2)"),
        (items("a@x", page("1", 9), 99), " (2 of 2)"),
        (items("a@x", page("9", 9), 99), "NotFound"),
        // The server's bound, then that of the account.
        (publish("n", "3", "p", max()), "published 3:"),
        (publish("n", "4", "p", max()), "published 4:"),
        (items("a@x", recent(9), 99), "1 3 4 (0 of 3)"),
        (publish("n", "5", "0123456789012345678", max()), "Full"),
        (items("a@x", recent(9), 99), "1 3 4 (0 of 3)"),
        (publish("o", "1", "p", Vec::new()), "published 1:"),
        (publish("o", "2", "p", Vec::new()), "published 2:"),
        (publish("p", "1", "p", Vec::new()), "NodesMax"),
        (
            on("a@x", "a@x", "n", Operation::Retract { ids: vec!["4".to_owned(), "9".to_owned()], notify: true }),
            "NotFound",
        ),
        (on("a@x", "a@x", "n", Operation::Retract { ids: vec!["4".to_owned()], notify: true }), "retracted([\"4\"]):"),
        (last("a@x"), "a@x n 3 | a@x o 2"),
        // Strangers, contacts, members.
        (items("b@x", recent(9), 99), "PresenceRequired"),
        (last("b@x"), ""),
        (on("a@x", "b@x", "", Operation::Nodes), ""),
        (on("a@x", "b@x", "n", Operation::Delete), "Forbidden"),
        (on("a@x", "b@x", "n", Operation::Subscribe { jid: jid("b@x").into() }), "PresenceRequired"),
        (
            on(
                "a@x",
                "a@x",
                "n",
                Operation::Affiliate { changes: vec![(jid("b@x"), Some(pubsub::Affiliation::Member))] },
            ),
            "done",
        ),
        (items("b@x", recent(9), 99), "1 3 (0 of 2)"),
        (last("b@x"), "a@x n 3"),
        (on("a@x", "b@x", "", Operation::Nodes), "n"),
        (on("a@x", "b@x", "n", Operation::Subscribe { jid: jid("b@x").into() }), "subscribed Some(\"3\")"),
        (publish("n", "3", "r", max()), "published 3: +b@x"),
        (
            on(
                "a@x",
                "a@x",
                "n",
                Operation::Affiliate { changes: vec![(jid("b@x"), Some(pubsub::Affiliation::Outcast))] },
            ),
            "done",
        ),
        (publish("n", "3", "r", max()), "published 3:"),
        (items("b@x", recent(9), 99), "Forbidden"),
        (on("a@x", "a@x", "n", Operation::Purge), "purged:"),
        (items("a@x", recent(9), 99), " (0 of 0)"),
        (on("a@x", "a@x", "n", Operation::Delete), "deleted:"),
        (publish("p", "1", "p", Vec::new()), "published 1:"),
        // All of it goes with the account.
        (R::AccountRemove { user: jid("a@x") }, ""),
        (last("a@x"), ""),
        (items("b@x", recent(9), 99), "NotFound"),
    ]);
}

#[test]
fn rooms() {
    let load = |room| R::RoomLoad { room: jid(room) };
    let end = |room, alternate: Option<&str>| R::RoomDestroy {
        room: jid(room),
        tombstone: alternate.map(|jid| Tombstone { alternate: jid.to_owned(), ..Tombstone::default() }),
    };
    let list = |after: Option<&str>, max, public_only| R::RoomList {
        domain: "c.x".to_owned(),
        after: after.map(jid),
        max,
        public_only,
    };
    let mut hidden = room_record("a", "H");
    hidden.config.public = false;
    check(&[
        (load("r@c.x"), "absent"),
        (rewrite("r@c.x", 1, "lost"), "NotFound"),
        (save_room("r@c.x", "a", "R"), "done"),
        (R::RoomSave { room: jid("h@c.x"), record: hidden }, "done"),
        // Two are the bound of one account; a room that is there may change.
        (save_room("s@c.x", "a", "S"), "Full"),
        (save_room("r@c.x", "a", "RR"), "done"),
        (save_room("s@c.x", "b", "S"), "done"),
        (list(None, 9, true), "r@c.x(RR) s@c.x(S)"),
        (list(None, 9, false), "h@c.x(H) r@c.x(RR) s@c.x(S)"),
        (list(Some("r@c.x"), 9, true), "s@c.x(S)"),
        (list(None, 1, true), "r@c.x(RR)"),
        // Three lines are shown; one that is there can be rewritten.
        (room_line("r@c.x", 1, "one"), "done"),
        (room_line("r@c.x", 2, "two"), "done"),
        (room_line("r@c.x", 3, "three"), "done"),
        (room_line("r@c.x", 4, "four"), "done"),
        (room_line("r@c.x", 3, "again"), "Failed"),
        (rewrite("r@c.x", 3, "3"), "done"),
        (rewrite("s@c.x", 3, "3"), "NotFound"),
        (room_line("s@c.x", 5, "other"), "done"),
        (load("r@c.x"), "RR 2:two 3:3 4:four"),
        (R::RoomCard { room: jid("r@c.x"), record: room_record("a", "C"), content: b"<v/>".to_vec() }, "done"),
        (R::RoomCard { room: jid("r@c.x"), record: room_record("a", "D"), content: vec![b'x'; 11] }, "Full"),
        (R::DocumentGet { user: jid("r@c.x"), key: DocumentKey::Vcard }, "<v/>"),
        (end("r@c.x", Some("s@c.x")), "done"),
        (load("r@c.x"), "destroyed s@c.x"),
        (R::DocumentGet { user: jid("r@c.x"), key: DocumentKey::Vcard }, "none"),
        (list(None, 9, true), "s@c.x(S)"),
        // A destroyed room makes place for another, under its name too.
        (save_room("r@c.x", "a", "N"), "done"),
        (load("r@c.x"), "N"),
        (end("r@c.x", None), "done"),
        (load("r@c.x"), "absent"),
        (end("r@c.x", None), "done"),
        (load("s@c.x"), "S 5:other"),
    ]);
}

#[test]
fn keys_are_replaced_if_they_are_still_there() {
    let scrypt = |byte| Box::new(Credentials::Scrypt { log_n: 1, r: 8, p: 1, salt: vec![byte], hash: vec![byte; 16] });
    let mut store = memory();
    store.apply(&[create("a")]);
    let [Ok(Stored::Credentials(Some(first)))] = &store.apply(&[R::Credentials { user: jid("a") }])[..] else {
        panic!("no keys");
    };
    let mut replace = |user: &str, before: &Credentials, after: &Credentials, expected: &str| {
        let (before, after) = (Box::new(before.clone()), Box::new(after.clone()));
        let replies = store.apply(&[R::CredentialsReplace { user: jid(user), before, after }]);
        assert_eq!(replies.iter().map(show).collect::<Vec<_>>(), [expected]);
    };
    let (second, third) = (scrypt(2), scrypt(3));
    replace("b", first, &second, "NotFound");
    replace("a", &second, &third, "NotFound");
    replace("a", first, &second, "done");
    replace("a", first, &third, "NotFound");
    replace("a", &second, &third, "done");
}

#[test]
fn reports() {
    let report = |about: &str| Report {
        at: UtcTime(5),
        by: jid("a@x"),
        about: crate::jid::Jid::from_prepared(about),
        reason: Reason::Spam,
        text: "t".to_owned(),
        messages: vec!["1".to_owned(), "2".to_owned()],
    };
    assert!(report("b@y").to_string().ends_with("Z b@y: spam, reported by a@x, messages 1 2: \"t\""));
    let block = |about: &[&str]| R::BlocklistChange {
        user: jid("a@x"),
        change: BlocklistChange::Block(Vec::new()),
        reports: about.iter().map(|about| report(about)).collect(),
    };
    let list = |domain: &str, before, max| R::Reports { domain: domain.to_owned(), before, max };
    check(&[
        (create("a@x"), "done"),
        (list("x", None, 9), ""),
        (block(&["1@y", "2@y"]), "0>0"),
        (block(&["3@y"]), "0>0"),
        (list("x", None, 2), "3:3@y 2:2@y"),
        (list("x", Some(2), 2), "1:1@y"),
        (list("y", None, 9), ""),
        // The oldest make room.
        (block(&["4@y", "5@y", "6@y"]), "0>0"),
        (list("x", None, 9), "6:6@y 5:5@y 4:4@y 3:3@y"),
    ]);
}

#[test]
fn sessions() {
    let ended = |user, id: u32, handled| R::SessionEnded { user: jid(user), id: id.to_string().into(), handled };
    let handled = |user, id: u32| R::SessionHandled { user: jid(user), id: id.to_string().into() };
    let mut lines = vec![
        (ended("a", 1, 1), "NoAccount"),
        (create("a"), "done"),
        (create("b"), "done"),
        (handled("a", 1), "unknown"),
        (ended("a", 1, 70_000), "done"),
        (handled("a", 1), "70000"),
        (handled("a", 2), "unknown"),
        (handled("b", 1), "unknown"),
    ];
    // Eight of an account are kept, the last ones.
    lines.extend((2..=9).map(|id| (ended("a", id, id), "done")));
    lines.extend([
        (handled("a", 1), "unknown"),
        (handled("a", 2), "2"),
        (handled("a", 9), "9"),
        (R::AccountRemove { user: jid("a") }, ""),
        (handled("a", 9), "unknown"),
    ]);
    check(&lines);
}

#[test]
fn tokens() {
    let read = |user, client: u8| R::Tokens { user: jid(user), client: [client; 16] };
    let change = |user, client: u8, at, used: Option<u8>, issue: Option<u8>| {
        let issue = issue.map(|salt| Token {
            mechanism: TokenMechanism::Exporter,
            salt: [salt; 16],
            issued: UtcTime(at),
            expires: UtcTime(at + 100),
            count: 0,
        });
        let used = used.map(|salt| ([salt; 16], None));
        let change = Box::new(TokenChange { used, issue, ..TokenChange::default() });
        R::TokenChange { user: jid(user), client: [client; 16], at: UtcTime(at), change }
    };
    let invalidate = |user, client: u8, used: u8| {
        let change =
            Box::new(TokenChange { used: Some(([used; 16], None)), invalidate: true, ..TokenChange::default() });
        R::TokenChange { user: jid(user), client: [client; 16], at: UtcTime(9), change }
    };
    let named = |user, client, name: &str| match change(user, client, 7, None, Some(7)) {
        R::TokenChange { user, client, at, change } => {
            R::TokenChange { user, client, at, change: Box::new(TokenChange { name: name.to_owned(), ..*change }) }
        }
        other => other,
    };
    let set = |user| R::PasswordSet { user: jid(user), password: "other".to_owned().into() };
    check(&[
        (change("a", 1, 1, None, Some(1)), "NoAccount"),
        (create("a"), "done"),
        (create("b"), "done"),
        (read("a", 1), "- -"),
        (change("a", 1, 1, Some(1), None), "NotFound"),
        (change("a", 1, 1, None, Some(1)), "done"),
        (read("a", 1), "- 1"),
        (read("a", 2), "- -"),
        (read("b", 1), "- -"),
        (change("a", 1, 2, Some(1), Some(2)), "done"),
        (read("a", 1), "1 2"),
        (change("a", 2, 3, None, Some(3)), "done"),
        // Another client's token.
        (change("a", 1, 3, Some(3), None), "NotFound"),
        // The bound is two clients: who has been away for longest is forgotten.
        (change("a", 1, 4, Some(2), None), "done"),
        (change("a", 3, 5, None, Some(4)), "done"),
        (read("a", 1), "2 -"),
        (read("a", 2), "- -"),
        (read("a", 3), "- 4"),
        (invalidate("a", 3, 4), "done"),
        (read("a", 3), "- -"),
        // FA-08: they die with the password, all of that account and no other's, and with the account.
        (change("b", 1, 6, None, Some(5)), "done"),
        (set("a"), "done"),
        (read("a", 1), "- -"),
        (read("b", 1), "- 5"),
        (R::TokensForget { user: jid("b") }, "done"),
        (read("b", 1), "- -"),
        (change("b", 1, 7, None, Some(6)), "done"),
        (named("b", 2, "Phone"), "done"),
        // What a client that does not say its name again is called stays.
        (change("b", 2, 7, None, Some(8)), "done"),
        (R::Clients { user: jid("b") }, "1: 2:Phone"),
        (R::ClientsForget { user: jid("b"), clients: vec![[2; 16], [3; 16]] }, "done"),
        (R::Clients { user: jid("b") }, "1:"),
        (R::Clients { user: jid("nobody") }, ""),
        (R::AccountDisable { user: jid("b"), disabled: true }, "done"),
        (read("b", 1), "- -"),
        (change("b", 1, 7, None, Some(6)), "NoAccount"),
        (R::AccountDisable { user: jid("b"), disabled: false }, "done"),
        (read("b", 1), "- -"),
        (change("b", 1, 7, None, Some(6)), "done"),
        (R::AccountRemove { user: jid("b") }, ""),
        (read("b", 1), "- -"),
        (change("b", 1, 8, Some(6), None), "NoAccount"),
    ]);
}

#[test]
fn accounts() {
    let set = |user, password: &str| R::PasswordSet { user: jid(user), password: password.to_owned().into() };
    let list =
        |domain: &str, after: Option<&str>, max| R::Accounts { domain: domain.to_owned(), after: after.map(jid), max };
    let disable = |user, disabled| R::AccountDisable { user: jid(user), disabled };
    let disabled = |after: Option<&str>| R::DisabledAccounts { domain: "x".to_owned(), after: after.map(jid), max: 9 };
    check(&[
        (verify("a", "secret"), "false"),
        (R::Credentials { user: jid("a") }, "no keys"),
        (R::Activate { user: jid("a") }, "NoAccount"),
        (set("a", "other"), "NoAccount"),
        (create("a"), "done"),
        (create("a"), "Conflict"),
        (R::Credentials { user: jid("a") }, "keys"),
        (R::Activate { user: jid("a") }, "0"),
        (verify("a", "secret"), "true"),
        (verify("a", "Secret"), "false"),
        (set("a", "other"), "done"),
        (verify("a", "secret"), "false"),
        (verify("a", "other"), "true"),
        // Too short: whoever asks has checked it before.
        (set("a", "abc"), "Failed"),
        (verify("a", "other"), "true"),
        (create("b"), "done"),
        (create("a.b"), "done"),
        (create("a@y"), "done"),
        (list("x", None, 9), "a@x a.b@x b@x"),
        (list("x", None, 2), "a@x a.b@x"),
        (list("x", Some("a.b@x"), 2), "b@x"),
        (list("x", Some("b"), 2), ""),
        (list("x", None, 0), ""),
        // Behind a name that is not there, and behind another domain's.
        (list("x", Some("aa@x"), 9), "b@x"),
        (list("y", Some("b"), 9), "a@y"),
        (list("x", Some("b@y"), 9), ""),
        (list("z", None, 9), ""),
        (disable("a", true), "done"),
        (disable("z", true), "NoAccount"),
        (R::Credentials { user: jid("a") }, "keys, disabled"),
        (verify("a", "other"), "true, disabled"),
        (verify("a", "wrong"), "false"),
        (R::Activate { user: jid("a") }, "NoAccount"),
        (R::Census { domain: "x".to_owned() }, "3 (1)"),
        (disabled(None), "a@x"),
        (disabled(Some("a")), ""),
        // It stays so with another password.
        (set("a", "more"), "done"),
        (verify("a", "more"), "true, disabled"),
        (disable("a", false), "done"),
        (R::Activate { user: jid("a") }, "0"),
        (verify("a", "more"), "true"),
        (R::Census { domain: "x".to_owned() }, "3 (0)"),
        (R::AccountRemove { user: jid("a") }, ""),
        (R::AccountRemove { user: jid("a") }, "NoAccount"),
        (verify("a", "more"), "false"),
        // Reserved (tombstone).
        (create("a"), "Conflict"),
        (list("x", None, 9), "a.b@x b@x"),
    ]);
}

#[test]
fn rosters() {
    let grouped = R::RosterPut {
        user: jid("a"),
        jid: jid("b"),
        name: "B".to_owned(),
        groups: vec!["g".to_owned(), "h".to_owned()],
    };
    check(&[
        (put("a", "b", "B"), "NoAccount"),
        (remove("a", "b"), "NoAccount"),
        (create("a"), "done"),
        (create("b"), "done"),
        (remove("a", "b"), "NotFound"),
        (put("a", "b", ""), "a 1 ->none | kept | -"),
        (put("a", "b", ""), "a 1 none>none | kept | -"),
        (put("a", "b", "B"), "a 2 none>none | kept | -"),
        (event("a", "subscribe", "b"), "a 3 none>none+ask | routed | b 0 ->-+in !subscribe"),
        // RO-16: name and groups come later and leave the rest.
        (grouped, "a 4 none+ask>none+ask | kept | -"),
        (R::Activate { user: jid("a") }, "4 b@x=none(Bg,h)"),
        (R::Activate { user: jid("b") }, "0 a@x?<presence type='subscribe'/>"),
        // RO-18: listing somebody whose request is open keeps it open.
        (put("b", "a", ""), "b 1 -+in>none+in | kept | -"),
        (put("a", "c", ""), "a 5 ->none | kept | -"),
        (put("a", "d", ""), "a 6 ->none | kept | -"),
        (put("a", "a", "me"), "a 7 ->none | kept | -"),
        (put("a", "e", ""), "Full"),
        (event("a", "subscribe", "e"), "Full"),
        (event("a", "subscribed", "e"), "Full"),
        // Nothing to list, so nothing is over the bound.
        (event("a", "unsubscribe", "e"), "a 7 ->- | routed | -"),
        (put("a", "d", "D"), "a 8 none>none | kept | -"),
        (remove("a", "a"), "a 9 none>- | kept | -"),
        (remove("a", "d"), "a 10 none>- | kept | -"),
        // RO-12, RO-13: ask and request are taken back too.
        (remove("a", "b"), "a 11 none+ask>- | routed | b 1 none+in>none !unsubscribe >unsubscribed"),
        (R::Activate { user: jid("a") }, "11 c@x=none()"),
    ]);
}

#[test]
fn subscriptions() {
    check(&[
        (event("a", "subscribe", "b"), "NoAccount"),
        (create("a"), "done"),
        // SU-11: nobody there, and the sender does not learn it.
        (event("a", "subscribe", "b"), "a 1 ->none+ask | routed | -"),
        (event("a", "subscribe", "b@elsewhere.example"), "a 2 ->none+ask | routed | -"),
        (create("b"), "done"),
        (create("c@y"), "done"),
        (event("a", "subscribe", "b"), "a 2 none+ask>none+ask | routed | b 0 ->-+in !subscribe"),
        // Repeated: neither delivered nor changed.
        (event("a", "subscribe", "b"), "a 2 none+ask>none+ask | routed | b 0 -+in>-+in"),
        // SU-21: approving somebody unlisted lists them.
        (event("b", "subscribed", "a"), "b 1 -+in>from | routed | a 3 none+ask>to !subscribed"),
        (event("b", "subscribed", "a"), "b 1 from>from | kept | -"),
        // SU-18: a repeated request is answered.
        (event("a", "subscribe", "b"), "a 3 to>to | routed | b 1 from>from >subscribed"),
        (event("b", "subscribe", "a"), "b 2 from>from+ask | routed | a 3 to>to+in !subscribe"),
        (event("a", "subscribed", "b"), "a 4 to+in>both | routed | b 3 from+ask>both !subscribed"),
        (R::Relation { user: jid("a"), peer: jid("b") }, "true true None"),
        (R::Relation { user: jid("a"), peer: jid("c@y") }, "true false None"),
        (R::Relation { user: jid("z"), peer: jid("b") }, "false false None"),
        (event("a", "unsubscribe", "b"), "a 5 both>from | routed | b 4 both>to !unsubscribe >unsubscribed"),
        (event("b", "unsubscribe", "a"), "b 5 to>none | routed | a 6 from>none !unsubscribe >unsubscribed"),
        // SU-09: pre-approval, between two domains; then the request is granted without a question, in one step.
        (event("c@y", "subscribed", "a"), "c 1 ->none+approved | kept | -"),
        (event("c@y", "subscribed", "a"), "c 1 none+approved>none+approved | kept | -"),
        (event("a", "subscribe", "c@y"), "a 7 ->to !subscribed | routed | c 2 none+approved>from+approved >subscribed"),
        (event("c@y", "unsubscribed", "a"), "c 3 from+approved>none | routed | a 8 to>none !unsubscribed"),
        (event("c@y", "subscribed", "a"), "c 4 none>none+approved | kept | -"),
        (event("c@y", "unsubscribed", "a"), "c 5 none+approved>none | kept | -"),
        // Denied, and taken back.
        (event("a", "subscribe", "c@y"), "a 9 none>none+ask | routed | c 5 none>none+in !subscribe"),
        (event("c@y", "unsubscribed", "a"), "c 5 none+in>none | routed | a 10 none+ask>none !unsubscribed"),
        (event("a", "subscribe", "c@y"), "a 11 none>none+ask | routed | c 5 none>none+in !subscribe"),
        (event("a", "unsubscribe", "c@y"), "a 12 none+ask>none | routed | c 5 none+in>none !unsubscribe >unsubscribed"),
        // To oneself: nothing.
        (event("a", "subscribe", "a"), "a 12 ->- | kept | -"),
        (event("a", "subscribed", "a"), "a 12 ->- | kept | -"),
    ]);
}

#[test]
fn requests_are_bounded() {
    let long = |user| R::Subscription {
        user: jid(user),
        contact: jid("v"),
        event: Event::Subscribe,
        stanza: format!("<presence>{}</presence>", "x".repeat(70)).into_bytes(),
        at: UtcTime(2),
    };
    let odd = "o'&<p@x";
    check(&[
        (create("v"), "done"),
        (create("a"), "done"),
        (create(odd), "done"),
        (create("c"), "done"),
        (long("a"), "a 1 ->none+ask | routed | v 0 ->-+in !subscribe"),
        (event("c", "subscribe", "v"), "c 1 ->none+ask | routed | v 0 ->-+in !subscribe"),
        // Over the bound of two: nothing reaches the contact.
        (long(odd), "o'&<p 1 ->none+ask | routed | v 0 ->-"),
        (
            R::Activate { user: jid("v") },
            "0 a@x?<presence from='a@x' to='v@x' type='subscribe'/> c@x?<presence type='subscribe'/>",
        ),
        (event("v", "subscribed", "a"), "v 1 -+in>from | routed | a 2 none+ask>to !subscribed"),
        (long(odd), "o'&<p 1 none+ask>none+ask | routed | v 1 ->-+in !subscribe"),
        (
            R::Activate { user: jid("v") },
            "1 a@x=from() c@x?<presence type='subscribe'/> \
             o'&<p@x?<presence from='o&apos;&amp;&lt;p@x' to='v@x' type='subscribe'/>",
        ),
    ]);
}

#[test]
fn removed_accounts_leave_nothing() {
    let seen = |user| R::LastSeen { user: jid(user), at: UtcTime(9), status: "bye".to_owned() };
    check(&[
        (create("a"), "done"),
        (create("b"), "done"),
        (create("c@y"), "done"),
        (create("d"), "done"),
        (event("a", "subscribe", "b"), "a 1 ->none+ask | routed | b 0 ->-+in !subscribe"),
        (event("b", "subscribed", "a"), "b 1 -+in>from | routed | a 2 none+ask>to !subscribed"),
        (event("a", "subscribe", "c@y"), "a 3 ->none+ask | routed | c 0 ->-+in !subscribe"),
        (event("d", "subscribe", "a"), "d 1 ->none+ask | routed | a 3 ->-+in !subscribe"),
        (put("a", "e@elsewhere.example", ""), "a 4 ->none | kept | -"),
        (offline("a", "m"), "done"),
        (document("a", &DocumentKey::Vcard, "v"), "done"),
        (document("a", &private("p"), "p"), "done"),
        (seen("a"), "done"),
        (R::Relation { user: jid("a"), peer: jid("b") }, r#"true false Some((UtcTime(9), "bye"))"#),
        (
            R::AccountRemove { user: jid("a") },
            "b 2 from>none !unsubscribe >unsubscribed | c 0 -+in>- !unsubscribe >unsubscribed | \
             d 2 none+ask>none !unsubscribed",
        ),
        (R::Relation { user: jid("a"), peer: jid("b") }, "false false None"),
        (offline("a", "m"), "NoAccount"),
        (page("a", 0, 0, 99), ""),
        (R::DocumentGet { user: jid("a"), key: DocumentKey::Vcard }, "none"),
        (document("a", &DocumentKey::Vcard, "v"), "NoAccount"),
        // Its last session leaves after it has gone.
        (seen("a"), "done"),
        (R::Relation { user: jid("a"), peer: jid("b") }, "false false None"),
        (R::Activate { user: jid("b") }, "2 a@x=none()"),
    ]);
    let mut store = memory();
    store.apply(&[create("a"), offline("a", "m"), document("a", &private("p"), "p"), seen("a")]);
    store.apply(&[R::AccountRemove { user: jid("a") }]);
    assert_eq!(dump(store.engine()), [(Table::Tombstones, b"x\0a".to_vec(), vec![1])]);
}

#[test]
fn offline_messages() {
    check(&[
        (offline("a", "m"), "NoAccount"),
        (create("a"), "done"),
        (create("a2"), "done"),
        (offline("a2", "other"), "done"),
        (page("a", 0, 0, 99), ""),
        (R::Activate { user: jid("a") }, "0"),
        (offline("a", "one"), "done"),
        (R::Activate { user: jid("a") }, "0 messages"),
        (offline("a", "two"), "done"),
        (offline("a", "three"), "done"),
        (offline("a", "four"), "Full"),
        (page("a", 0, 0, 99), "1:one 2:two 3:three"),
        (page("a", 0, 0, 6), "1:one 2:two"),
        (page("a", 0, 2, 1), "3:three"),
        (page("a", 0, 3, 99), ""),
        (page("a", 0, u64::MAX, 99), ""),
        (page("a", 0, 0, 0), ""),
        (page("a", 1, 0, 4), "2:two"),
        (page("a", 1, 0, 99), "2:two 3:three"),
        (offline("a", "four"), "done"),
        // 5 + 3 + 4 bytes so far, 20 allowed.
        (page("a", 2, 0, 0), ""),
        (offline("a", "twelve bytes"), "Full"),
        (offline("a", "eleven byte"), "done"),
        (page("a", u64::MAX, 0, 99), ""),
        (R::Activate { user: jid("a") }, "0"),
        // Numbers are not used again.
        (offline("a", "five"), "done"),
        (page("a", 0, 0, 99), "6:five"),
        (page("a2", 0, 0, 99), "1:other"),
        (page("b", 5, 0, 99), ""),
    ]);
}

#[test]
fn documents() {
    let get = |key: &DocumentKey| R::DocumentGet { user: jid("a"), key: key.clone() };
    let (card, p, q) = (DocumentKey::Vcard, private("p"), private("q"));
    let endless = private(&"x".repeat(70_000));
    check(&[
        (document("a", &card, "v"), "NoAccount"),
        (get(&card), "none"),
        (create("a"), "done"),
        (document("a", &card, "0123456789"), "done"),
        (document("a", &card, "0123456789a"), "Full"),
        (get(&card), "0123456789"),
        (document("a", &p, "012345678"), "Full"),
        (document("a", &p, "01234567"), "done"),
        (document("a", &q, "01234"), "Full"),
        (document("a", &q, "0123"), "done"),
        (document("a", &q, "4567"), "done"),
        (get(&q), "4567"),
        (document("a", &p, ""), "done"),
        (document("a", &p, ""), "done"),
        (get(&p), "none"),
        (document("a", &q, "01234567"), "done"),
        (document("a", &p, "0123"), "done"),
        (document("a", &private("r"), "0"), "Full"),
        (document("a", &card, ""), "done"),
        (get(&card), "none"),
        (document("a", &endless, "0"), "Full"),
        (get(&endless), "none"),
    ]);
}

struct Host;

impl Authenticator for Host {
    fn verify(&mut self, user: &str, password: &str) -> bool {
        user == "h@x" && password == "theirs"
    }
}

#[test]
fn users_of_a_host() {
    let mut store = memory();
    store.apply(&[create("a"), create("h")]);
    store.apply(&[R::AccountRemove { user: jid("h") }]);
    store.set_authenticator(Box::new(Host));
    for (request, expected) in [
        (verify("h", "wrong"), "false"),
        (R::Activate { user: jid("h") }, "NoAccount"),
        (verify("h", "theirs"), "true"),
        (R::Activate { user: jid("h") }, "0"),
        (verify("h", "theirs"), "true"),
        (verify("a", "secret"), "false"),
        (R::Credentials { user: jid("a") }, "no keys"),
        (R::PasswordSet { user: jid("a"), password: "other".to_owned().into() }, "NoAccount"),
        (create("b"), "done"),
    ] {
        assert_eq!(show(&store.apply(std::slice::from_ref(&request))[0]), expected, "{request:?}");
    }
    // The keys of who had some are neither used nor lost; nobody gets new ones.
    let mut store = store.reopened(&config());
    assert_eq!(
        store.apply(&[verify("a", "secret"), verify("b", "secret")]).iter().map(show).collect::<String>(),
        "truefalse"
    );
}

#[test]
fn damaged_records_are_refused() {
    let mut store = memory();
    store.apply(&[create("a"), create("b"), event("a", "subscribe", "b"), event("b", "subscribed", "a")]);
    store.engine().transact(true, &mut |tx| tx.put(Table::Rosters, b"x\0b", &[9])).expect("memory");
    let before = dump(store.engine());
    let requests =
        [R::Activate { user: jid("b") }, remove("a", "b"), R::AccountRemove { user: jid("a") }, put("a", "c", "")];
    let replies: Vec<String> = store.apply(&requests[..3]).iter().map(show).collect();
    // What would have changed the other half too leaves both alone.
    assert_eq!(replies, ["Failed", "Failed", "Failed"]);
    assert_eq!(dump(store.engine()), before);
    assert_eq!(show(&store.apply(&requests[3..])[0]), "a 3 ->none | kept | -");
}

#[test]
fn faults() {
    let mut store = Faults::new(memory());
    let mut run = |n, error| {
        store.fail_nth_write(n, error);
        let mut results = Vec::new();
        while store.is_due() {
            assert_eq!(show(&store.apply(&[page("a", 0, 0, 99)])[0]), "", "reads are not counted");
            results.push(store.apply(&[create("a"), create("a")]).iter().map(show).collect::<Vec<_>>().join(" "));
        }
        results
    };
    assert_eq!(run(1, StoreError::DiskFull), ["DiskFull DiskFull"]);
    assert_eq!(run(3, StoreError::Failed), ["done Conflict", "Conflict Conflict", "Failed Failed"]);
    store.fail_nth(1, StoreError::Failed);
    assert_eq!(show(&store.apply(&[page("a", 0, 0, 99)])[0]), "Failed");
    assert_eq!(store.into_inner().apply(&[verify("a", "secret")]).iter().map(show).collect::<String>(), "true");
}

/// xorshift64*; seeds must not be 0.
pub(super) struct Dice {
    state: u64,
    /// When the last message was received.
    clock: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice { state: seed, clock: 0 }
    }
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Any request, about few enough names that they meet.
pub(super) fn any_request(dice: &mut Dice) -> R {
    const USERS: [&str; 6] = ["a", "b", "c", "d@y", "e@y", "f@elsewhere.example"];
    const EVENTS: [&str; 4] = ["subscribe", "subscribed", "unsubscribe", "unsubscribed"];
    let (user, other) = (dice.pick(&USERS), dice.pick(&USERS));
    let text = dice.pick(&["", "x", "text", "a longer one"]);
    let number = dice.below(6);
    let key = if number < 2 { DocumentKey::Vcard } else { private(dice.pick(&["p", "q"])) };
    let room = dice.pick(&["r@c.x", "s@c.x"]);
    match dice.below(72) {
        0..=5 => create(user),
        6 => R::AccountRemove { user: jid(user) },
        7 => verify(user, dice.pick(&["secret", "wrong"])),
        8 => R::PasswordSet { user: jid(user), password: "secret".to_owned().into() },
        9 => R::Accounts { domain: "x".to_owned(), after: Some(jid(other)), max: number as usize },
        10 if number == 0 => R::AccountDisable { user: jid(user), disabled: text.is_empty() },
        10 => R::Credentials { user: jid(user) },
        11..=14 => R::Activate { user: jid(user) },
        15..=18 => put(user, other, text),
        19..=21 => remove(user, other),
        22..=45 => event(user, dice.pick(&EVENTS), other),
        46..=48 => offline(user, text),
        49 => archive_tests::all(user),
        50..=52 => {
            const KEEPS: [Keep; 3] = [Keep::No, Keep::Yes, Keep::IfWanted];
            dice.clock += 1 + dice.below(3);
            let keep = (KEEPS[dice.below(3) as usize], KEEPS[dice.below(3) as usize]);
            archive_tests::message(dice.clock, user, other, keep, number < 3, text)
        }
        53..=54 => page(user, dice.below(8), number, 6 * number as usize),
        55..=58 => document(user, &key, text),
        59..=60 => R::DocumentGet { user: jid(user), key },
        61 => R::LastSeen { user: jid(user), at: UtcTime(number), status: text.to_owned() },
        62..=63 => R::Relation { user: jid(user), peer: jid(other) },
        64..=65 => save_room(room, user, text),
        66..=67 => room_line(room, (1 << 90) + u128::from(dice.below(1 << 30)), text),
        68 => rewrite(room, (1 << 90) + u128::from(number), text),
        69 => R::RoomDestroy { room: jid(room), tombstone: (number > 2).then(Tombstone::default) },
        70 => R::RoomList { domain: "c.x".to_owned(), after: None, max: number as usize, public_only: true },
        _ => R::RoomLoad { room: jid(room) },
    }
}

/// What must hold between two accounts of ours at all times.
fn check_pairs(store: &mut dyn Store) {
    let names = ["a@x", "b@x", "c@x", "d@y", "e@y"];
    let mut rosters = Vec::new();
    for name in names {
        if let Ok(Stored::Account(record)) = store.apply(&[R::Activate { user: jid(name) }]).remove(0) {
            rosters.push((jid(name), record.roster));
        }
    }
    for (user, mine) in &rosters {
        for (contact, theirs) in rosters.iter().filter(|(contact, _)| contact != user) {
            let item = mine.items.get(contact).cloned().unwrap_or_default();
            let other = theirs.items.get(user).cloned().unwrap_or_default();
            assert_eq!(item.subscription.to(), other.subscription.from(), "{user} and {contact}");
            assert!(!theirs.requests.contains_key(user) || item.ask, "{contact} was asked and {user} did not ask");
            assert!(!item.ask || !item.subscription.to(), "{user} asks for what is granted");
            assert!(!theirs.requests.contains_key(user) || other.subscription != Subscription::From);
        }
    }
}

#[test]
fn random_sequences_agree() {
    for seed in 1..=16 {
        let mut dice = Dice::new(seed * 0x9e37_79b9);
        let (mut memory, mut redb) = (memory(), redb());
        for _ in 0..60 {
            let batch: Vec<R> = (0..=dice.below(12)).map(|_| any_request(&mut dice)).collect();
            let expected: Vec<String> = memory.apply(&batch).iter().map(show).collect();
            let got: Vec<String> = redb.apply(&batch).iter().map(show).collect();
            assert_eq!(got, expected, "seed {seed}, {batch:?}");
        }
        check_pairs(&mut redb);
        assert_eq!(dump(redb.engine()), dump(memory.engine()), "seed {seed}");
        assert_eq!(dump(memory.reopened(&config()).engine()), dump(memory.engine()));
    }
}

/// A directory that goes when the test does.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("whinchat-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Scratch(path)
    }
    pub(super) fn file(&self) -> PathBuf {
        self.0.join("whinchat.redb")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open_error(path: &Path) -> String {
    RedbStore::open(path, &config()).map(drop).expect_err("must not open").to_string()
}

/// What a stop leaves needs no check and no journal, what a kill leaves needs both, and one is not taken for the other.
#[test]
fn stops_and_kills() {
    let scratch = Scratch::new("stops");
    let [path, elsewhere] = ["whinchat.redb", "copy.redb"].map(|name| scratch.0.join(name));
    let beside = |path: &Path, what: &str| PathBuf::from(format!("{}.{what}", path.display()));
    let mut expected = Vec::new();
    let mut open = |batches: &[&[R]]| {
        let mut store = RedbStore::open(&path, &config()).expect("opens");
        assert!(!beside(&path, "clean").exists(), "in use");
        assert_eq!(dump(store.engine()), expected);
        assert!(batches.iter().all(|batch| store.apply(batch).iter().all(Result::is_ok)));
        expected = dump(store.engine());
        store
    };
    let copy = |journal_too: bool| {
        std::fs::copy(&path, &elsewhere).expect("copied");
        let _ = std::fs::remove_file(beside(&elsewhere, "clean"));
        let _ = std::fs::remove_file(beside(&elsewhere, "journal"));
        if journal_too {
            std::fs::copy(beside(&path, "journal"), beside(&elsewhere, "journal")).expect("copied");
        }
        RedbStore::open(&elsewhere, &config())
    };
    drop(open(&[&[create("a"), put("a", "b", "B")]]));
    assert!(beside(&path, "clean").exists());
    // The file alone is all.
    let found = dump(copy(false).expect("opens").engine());
    // Only the journal has the second of these.
    let mut store = open(&[&[put("a", "c", "C")], &[offline("a", "one")]]);
    let error = copy(false).map(drop).expect_err("not complete").to_string();
    assert!(error.contains("copy.redb.journal, which is missing"), "{error}");
    // Its owner says that he can do without.
    std::fs::write(beside(&elsewhere, "journal"), "").expect("written");
    let before = dump(RedbStore::open(&elsewhere, &config()).expect("opens").engine());
    assert!(before != found && before != dump(store.engine()));
    assert_eq!(dump(copy(true).expect("opens").engine()), dump(store.engine()));
    // The journal of another time is not this file's.
    let backup = std::fs::read(&path).expect("read");
    drop(store);
    let mut store = open(&[&[put("a", "c", "D")], &[offline("a", "two")]]);
    let after = dump(store.engine());
    std::fs::write(&elsewhere, &backup).expect("written");
    std::fs::copy(beside(&path, "journal"), beside(&elsewhere, "journal")).expect("copied");
    let mut restored = RedbStore::open(&elsewhere, &config()).expect("opens");
    assert_eq!(dump(restored.engine()), before);
    drop((store, restored));
    // A file that is not as it was left is checked whole, and refused.
    let mut damaged = std::fs::read(&path).expect("read");
    let last =
        damaged.windows(4).rposition(|bytes| bytes == b"a@x\0").or(damaged.windows(3).rposition(|b| b == b"b@x"));
    damaged[last.expect("a contact")] ^= 1;
    let mark = std::fs::read(beside(&path, "clean")).expect("a mark");
    std::fs::write(&path, &damaged).expect("written");
    match RedbStore::open(&path, &config()) {
        Err(error) => assert!(error.to_string().contains("is damaged"), "{error}"),
        // It was a page that is not used.
        Ok(mut store) => assert_eq!(dump(store.engine()), after),
    }
    assert!(!mark.is_empty());
}

#[test]
fn files() {
    let scratch = Scratch::new("files");
    let path = scratch.file();
    let mut store = RedbStore::open(&path, &config()).expect("a new file");
    let secret = store.secret();
    assert_eq!(store.apply(&[create("a"), put("a", "b", "B")]).iter().filter(|reply| reply.is_ok()).count(), 2);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only its owner may read it");
    }
    let error = RedbStore::open(&path, &config()).map(drop).expect_err("locked");
    assert!(matches!(error.cause(), OpenCause::Locked), "{error:?}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    let before = dump(store.engine());
    drop(store);
    let mut store = RedbStore::open(&path, &config()).expect("opens again");
    assert_eq!(store.secret(), secret);
    assert_eq!(dump(store.engine()), before);
    let put_format = |tx: &mut dyn super::apply::Tx| tx.put(Table::Meta, b"format", &[1, 9]);
    store.engine().transact(true, &mut { put_format }).expect("writes");
    drop(store);
    let newer = open_error(&path);
    assert!(newer.contains("newer version (format 9, this one knows 1)"), "{newer}");
    assert!(!scratch.0.join("whinchat.redb.new.journal").exists());

    let empty = scratch.0.join("empty");
    std::fs::write(&empty, "").expect("writes");
    assert!(open_error(&empty).contains("restore a backup, or remove it"), "{}", open_error(&empty));
    assert!(!scratch.0.join("whinchat.redb.new").exists());

    let text = scratch.0.join("text");
    std::fs::write(&text, "It was the nightingale, and not the lark.".repeat(1000)).expect("writes");
    assert!(open_error(&text).contains("not a database of this server"), "{}", open_error(&text));
    let other = scratch.0.join("other");
    let database = redb::Database::create(&other).expect("creates");
    let txn = database.begin_write().expect("begins");
    txn.open_table(redb::TableDefinition::<u64, u64>::new("numbers")).expect("opens");
    txn.commit().expect("commits");
    drop(database);
    assert!(open_error(&other).contains("not a database of this server"), "{}", open_error(&other));
    let missing = open_error(&scratch.0.join("no/such/directory"));
    assert!(missing.contains("cannot be opened") && missing.contains("directory exists"), "{missing}");
}
