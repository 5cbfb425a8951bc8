//! Every bound of the server, and the keys of `[limits]` that set them.

use std::time::Duration;

use crate::xml::XmlLimits;

/// Every bound of the server. Full means that the producer waits or is refused with a condition of the standard.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What sessions may hold together, in bytes; beyond it new ones are refused with `resource-constraint`.
    pub memory_max: usize,
    /// Whether rate limits and log-in back-off are on.
    pub rates: bool,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address (IPv6: from one /64).
    pub connections_per_address_max: usize,
    /// Bound resources of one account.
    pub resources_per_account_max: usize,
    /// XML from a peer before it has logged in.
    pub xml_before_auth: XmlLimits,
    /// XML from a peer that has logged in.
    pub xml: XmlLimits,
    /// Time from the connection to a bound resource.
    pub login_time: Duration,
    /// How long a token by which a client logs in again is good if it is not used (XEP-0484); zero for no tokens.
    pub token_time: Duration,
    /// Clients of one account that have such tokens; who was away for longest is forgotten first.
    pub tokens_per_account_max: usize,
    /// SASL failures on one stream, then it is closed (RFC 6120 section 6.4.5: 2 to 5 retries).
    pub login_failures_max: u32,
    /// Resource binding failures on one stream (RFC 6120 section 7.7.3: 5 to 10 retries).
    pub bind_failures_max: u32,
    /// Silence of a peer after which it is asked whether it is there (RFC 6120 section 4.6.4: not below five minutes).
    pub idle_ping: Duration,
    /// Time a peer has for an answer to that, then it is taken for gone.
    pub ping_answer: Duration,
    /// How long a session whose connection was lost waits to be resumed (XEP-0198).
    pub resume_time: Duration,
    /// A peer that takes none of our bytes for so long is gone.
    pub write_stall: Duration,
    /// Time a peer has to close its side after ours is closed.
    pub close_time: Duration,
    /// Bytes of output waiting for one connection above which those who fill it are not read.
    pub output_pause: usize,
    /// Bytes of output waiting for one connection above which it is closed.
    pub output_max: usize,
    /// Bytes per second that one session may send for long.
    pub session_rate: usize,
    /// Bytes that one session may send at once after a silence.
    pub session_burst: usize,
    /// Bytes of one connection handled in one turn of the loop.
    pub turn_bytes: usize,
    /// Addresses that one account may block.
    pub blocklist_max: usize,
    /// Reports of spam and abuse that are kept for one domain.
    pub reports_max: usize,
    /// Items in a roster.
    pub roster_items_max: usize,
    /// Accounts of one domain that see each other as `DomainConfig::shared_contacts` says.
    pub shared_contacts_max: usize,
    /// Groups of one roster item.
    pub roster_groups_max: usize,
    /// A roster item's name or group, in bytes.
    pub roster_name_bytes_max: usize,
    /// Unanswered subscription requests kept for an account.
    pub requests_max: usize,
    /// A subscription request kept for an account, in bytes; what is longer is kept without its children.
    pub request_bytes_max: usize,
    /// Receivers of directed presence remembered for one session.
    pub directed_presence_max: usize,
    /// Bytes of the last presence kept for one session.
    pub presence_bytes_max: usize,
    /// Offline messages kept for one account.
    pub offline_messages_max: usize,
    /// Offline messages kept for one account, in bytes.
    pub offline_bytes_max: usize,
    /// How long a message stays in an account's archive.
    pub archive_time: Duration,
    /// An account's archive, in bytes.
    pub archive_bytes_max: usize,
    /// Messages on one page of an archive.
    pub archive_page_max: usize,
    /// Addresses in an account's preferences of what is archived.
    pub archive_prefs_max: usize,
    /// A vCard, in bytes.
    pub vcard_bytes_max: usize,
    /// One private XML element, in bytes.
    pub private_bytes_max: usize,
    /// All private XML of an account, in bytes.
    pub private_total_bytes_max: usize,
    /// Group chat rooms that one account may have made.
    pub rooms_per_account_max: usize,
    /// Occupants of one room at once; admins may come in above it.
    pub room_occupants_max: usize,
    /// Presences written in one turn of the loop for those who enter rooms.
    pub room_slice: usize,
    /// Messages that one occupant may send to a room and to others in it, in ten seconds; entering, another presence and another
    /// nick count as one.
    pub room_occupant_rate: usize,
    /// Messages said to all in one room in ten seconds; moderators may speak above it.
    pub room_rate: usize,
    /// Accounts with an affiliation to one room.
    pub room_members_max: usize,
    /// Lines kept of one room.
    pub room_history_max: usize,
    /// Lines kept of one room in memory, in bytes.
    pub room_history_bytes_max: usize,
    /// A room's name, description, password or subject, in bytes.
    pub room_text_bytes_max: usize,
    /// Nodes of one account (XEP-0163).
    pub pep_nodes_max: usize,
    /// Items of one node; the oldest go first.
    pub pep_items_max: usize,
    /// Payload of one item, in bytes.
    pub pep_payload_bytes_max: usize,
    /// All items of an account, in bytes.
    pub pep_total_bytes_max: usize,
    /// Kinds of clients whose capabilities are remembered (XEP-0115).
    pub caps_max: usize,
    /// Store requests waiting at once; beyond it what would add one is refused.
    pub store_queue_max: usize,
    /// Password hashes waiting at once; beyond it log-ins are refused with `temporary-auth-failure`.
    pub hash_queue_max: usize,
    /// Accounts that one address may register in an hour; asking for a name that is taken counts.
    pub registrations_per_hour: u32,
    /// Failed log-ins of an account or an address after which further ones wait.
    pub login_backoff_after: u32,
    /// The store's cache in bytes.
    pub store_cache_bytes: usize,
    /// Milliseconds for which messages on their way to the disk wait for others, to be written with them.
    pub store_gather_ms: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let xml = XmlLimits {
            stanza_bytes_max: 256 * 1024,
            depth_max: 64,
            attributes_max: 64,
            name_bytes_max: 256,
            header_bytes_max: 4096,
        };
        Limits {
            memory_max: 64 * 1024 * 1024,
            rates: true,
            connections_max: 4096,
            connections_per_address_max: 256,
            resources_per_account_max: 16,
            xml_before_auth: XmlLimits { stanza_bytes_max: 10_000, depth_max: 16, ..xml },
            xml,
            login_time: Duration::from_secs(60),
            token_time: Duration::from_secs(60 * 24 * 3600),
            tokens_per_account_max: 32,
            login_failures_max: 5,
            bind_failures_max: 6,
            idle_ping: Duration::from_secs(600),
            ping_answer: Duration::from_secs(60),
            resume_time: Duration::from_secs(600),
            write_stall: Duration::from_secs(60),
            close_time: Duration::from_secs(5),
            output_pause: 128 * 1024,
            output_max: 2 * 1024 * 1024,
            session_rate: 64 * 1024,
            session_burst: 512 * 1024,
            turn_bytes: 64 * 1024,
            blocklist_max: 1000,
            reports_max: 500,
            roster_items_max: 2000,
            shared_contacts_max: 500,
            roster_groups_max: 32,
            roster_name_bytes_max: 1023,
            requests_max: 100,
            request_bytes_max: 2048,
            directed_presence_max: 500,
            presence_bytes_max: 8192,
            offline_messages_max: 1000,
            offline_bytes_max: 4 * 1024 * 1024,
            archive_time: Duration::from_secs(365 * 24 * 3600),
            archive_bytes_max: 100 * 1024 * 1024,
            archive_page_max: 100,
            archive_prefs_max: 200,
            vcard_bytes_max: 128 * 1024,
            private_bytes_max: 128 * 1024,
            private_total_bytes_max: 512 * 1024,
            rooms_per_account_max: 50,
            room_occupants_max: 500,
            room_slice: 256,
            room_occupant_rate: 50,
            room_rate: 500,
            room_members_max: 2000,
            room_history_max: 50,
            room_history_bytes_max: 128 * 1024,
            room_text_bytes_max: 2048,
            pep_nodes_max: 1000,
            pep_items_max: 1000,
            pep_payload_bytes_max: 128 * 1024,
            pep_total_bytes_max: 8 * 1024 * 1024,
            caps_max: 500,
            store_queue_max: 4096,
            hash_queue_max: 32,
            registrations_per_hour: 10,
            login_backoff_after: 5,
            store_cache_bytes: 4 * 1024 * 1024,
            store_gather_ms: 0,
        }
    }
}

/// Where a key of `[limits]` puts its value, and how that is written.
pub(super) enum Slot<'a> {
    /// A size: plain bytes or `"64M"`.
    Bytes(&'a mut usize),
    /// A size that holds before log-in and after.
    BytesTwice(&'a mut usize, &'a mut usize),
    /// A number.
    Count(&'a mut usize),
    /// A number that holds before log-in and after.
    CountTwice(&'a mut usize, &'a mut usize),
    /// A number.
    Tries(&'a mut u32),
    /// A duration: `"60s"`.
    Time(&'a mut Duration),
    /// `true` or `false`.
    Switch(&'a mut bool),
}

/// A key of `[limits]`.
pub(super) struct LimitKey {
    /// As written.
    pub name: &'static str,
    /// Least value allowed: bytes, a number, or seconds.
    pub least: u64,
    /// Greatest value allowed.
    pub most: u64,
    /// The field.
    pub slot: for<'a> fn(&'a mut Limits) -> Slot<'a>,
}

const K: u64 = 1024;
const M: u64 = 1024 * K;
const G: u64 = 1024 * M;
const HOUR: u64 = 3600;

const fn key(name: &'static str, least: u64, most: u64, slot: for<'a> fn(&'a mut Limits) -> Slot<'a>) -> LimitKey {
    LimitKey { name, least, most, slot }
}

/// Every key of `[limits]`. The least values are those with which a server still works as the standards ask: a stanza of
/// 10,000 bytes must pass (RFC 6120 section 13.12), retries are bounded from below by sections 6.4.5 and 7.7.3, and nobody is
/// asked whether he is there more often than every five minutes (section 4.6.4).
#[rustfmt::skip]
pub(super) const LIMIT_KEYS: &[LimitKey] = &[
    key("memory_max", 4 * M, 1024 * G, |l| Slot::Bytes(&mut l.memory_max)),
    key("rates", 0, 1, |l| Slot::Switch(&mut l.rates)),
    key("connections_max", 1, 1_000_000, |l| Slot::Count(&mut l.connections_max)),
    key("connections_per_address_max", 1, 1_000_000, |l| Slot::Count(&mut l.connections_per_address_max)),
    key("resources_per_account_max", 1, 1000, |l| Slot::Count(&mut l.resources_per_account_max)),
    key("stanza_bytes_max", 10_000, 16 * M, |l| Slot::Bytes(&mut l.xml.stanza_bytes_max)),
    key("stanza_bytes_max_before_auth", 10_000, 16 * M, |l| Slot::Bytes(&mut l.xml_before_auth.stanza_bytes_max)),
    key("depth_max", 8, 1000, |l| Slot::Count(&mut l.xml.depth_max)),
    key("depth_max_before_auth", 8, 1000, |l| Slot::Count(&mut l.xml_before_auth.depth_max)),
    key("attributes_max", 8, 1000, |l| Slot::CountTwice(&mut l.xml.attributes_max, &mut l.xml_before_auth.attributes_max)),
    key("name_bytes_max", 64, 4 * K, |l| Slot::BytesTwice(&mut l.xml.name_bytes_max, &mut l.xml_before_auth.name_bytes_max)),
    key("header_bytes_max", K, 64 * K, |l| Slot::BytesTwice(&mut l.xml.header_bytes_max, &mut l.xml_before_auth.header_bytes_max)),
    key("login_time", 5, HOUR, |l| Slot::Time(&mut l.login_time)),
    key("token_time", 0, 3650 * 24 * HOUR, |l| Slot::Time(&mut l.token_time)),
    key("tokens_per_account_max", 1, 1000, |l| Slot::Count(&mut l.tokens_per_account_max)),
    key("login_failures_max", 2, 6, |l| Slot::Tries(&mut l.login_failures_max)),
    key("bind_failures_max", 5, 11, |l| Slot::Tries(&mut l.bind_failures_max)),
    key("idle_ping", 300, 24 * HOUR, |l| Slot::Time(&mut l.idle_ping)),
    key("ping_answer", 5, HOUR, |l| Slot::Time(&mut l.ping_answer)),
    key("resume_time", 0, 24 * HOUR, |l| Slot::Time(&mut l.resume_time)),
    key("write_stall", 5, HOUR, |l| Slot::Time(&mut l.write_stall)),
    key("close_time", 1, 60, |l| Slot::Time(&mut l.close_time)),
    key("output_pause", 4 * K, G, |l| Slot::Bytes(&mut l.output_pause)),
    key("output_max", 64 * K, G, |l| Slot::Bytes(&mut l.output_max)),
    key("session_rate", K, G, |l| Slot::Bytes(&mut l.session_rate)),
    key("session_burst", 16 * K, G, |l| Slot::Bytes(&mut l.session_burst)),
    key("turn_bytes", 4 * K, 16 * M, |l| Slot::Bytes(&mut l.turn_bytes)),
    key("blocklist_max", 1, 100_000, |l| Slot::Count(&mut l.blocklist_max)),
    key("reports_max", 0, 100_000, |l| Slot::Count(&mut l.reports_max)),
    key("roster_items_max", 1, 100_000, |l| Slot::Count(&mut l.roster_items_max)),
    key("shared_contacts_max", 2, 10_000, |l| Slot::Count(&mut l.shared_contacts_max)),
    key("roster_groups_max", 1, 1000, |l| Slot::Count(&mut l.roster_groups_max)),
    key("roster_name_bytes_max", 16, 64 * K, |l| Slot::Bytes(&mut l.roster_name_bytes_max)),
    key("requests_max", 1, 10_000, |l| Slot::Count(&mut l.requests_max)),
    key("request_bytes_max", 256, 64 * K, |l| Slot::Bytes(&mut l.request_bytes_max)),
    key("directed_presence_max", 1, 100_000, |l| Slot::Count(&mut l.directed_presence_max)),
    key("presence_bytes_max", 512, M, |l| Slot::Bytes(&mut l.presence_bytes_max)),
    key("offline_messages_max", 0, 1_000_000, |l| Slot::Count(&mut l.offline_messages_max)),
    key("offline_bytes_max", 0, G, |l| Slot::Bytes(&mut l.offline_bytes_max)),
    key("archive_time", 24 * HOUR, 36_500 * 24 * HOUR, |l| Slot::Time(&mut l.archive_time)),
    key("archive_bytes_max", 64 * K, 1024 * G, |l| Slot::Bytes(&mut l.archive_bytes_max)),
    key("archive_page_max", 10, 1000, |l| Slot::Count(&mut l.archive_page_max)),
    key("archive_prefs_max", 1, 10_000, |l| Slot::Count(&mut l.archive_prefs_max)),
    key("vcard_bytes_max", K, 16 * M, |l| Slot::Bytes(&mut l.vcard_bytes_max)),
    key("private_bytes_max", K, 16 * M, |l| Slot::Bytes(&mut l.private_bytes_max)),
    key("private_total_bytes_max", K, G, |l| Slot::Bytes(&mut l.private_total_bytes_max)),
    key("rooms_per_account_max", 0, 1_000_000, |l| Slot::Count(&mut l.rooms_per_account_max)),
    key("room_occupants_max", 2, 100_000, |l| Slot::Count(&mut l.room_occupants_max)),
    key("room_slice", 1, 100_000, |l| Slot::Count(&mut l.room_slice)),
    key("room_occupant_rate", 1, 1_000_000, |l| Slot::Count(&mut l.room_occupant_rate)),
    key("room_rate", 1, 1_000_000, |l| Slot::Count(&mut l.room_rate)),
    key("room_members_max", 2, 100_000, |l| Slot::Count(&mut l.room_members_max)),
    key("room_history_max", 0, 10_000, |l| Slot::Count(&mut l.room_history_max)),
    key("room_history_bytes_max", 0, G, |l| Slot::Bytes(&mut l.room_history_bytes_max)),
    key("room_text_bytes_max", 64, 64 * K, |l| Slot::Bytes(&mut l.room_text_bytes_max)),
    key("pep_nodes_max", 1, 1_000_000, |l| Slot::Count(&mut l.pep_nodes_max)),
    key("pep_items_max", 1, 1_000_000, |l| Slot::Count(&mut l.pep_items_max)),
    key("pep_payload_bytes_max", K, 16 * M, |l| Slot::Bytes(&mut l.pep_payload_bytes_max)),
    key("pep_total_bytes_max", K, 16 * G, |l| Slot::Bytes(&mut l.pep_total_bytes_max)),
    key("caps_max", 1, 100_000, |l| Slot::Count(&mut l.caps_max)),
    key("store_queue_max", 16, 1_000_000, |l| Slot::Count(&mut l.store_queue_max)),
    key("hash_queue_max", 1, 10_000, |l| Slot::Count(&mut l.hash_queue_max)),
    key("registrations_per_hour", 0, 1_000_000, |l| Slot::Tries(&mut l.registrations_per_hour)),
    key("login_backoff_after", 1, 1000, |l| Slot::Tries(&mut l.login_backoff_after)),
    key("store_cache_bytes", 256 * K, 16 * G, |l| Slot::Bytes(&mut l.store_cache_bytes)),
    key("store_gather_ms", 0, 1000, |l| Slot::Count(&mut l.store_gather_ms)),
];

/// Pairs of keys of which the first must not be above the second, and why.
pub(super) const LIMIT_ORDERS: &[(&str, &str, &str)] = &[
    ("output_pause", "output_max", "a connection would be closed before those who fill it are slowed down"),
    ("stanza_bytes_max", "output_max", "the longest stanza would close the connection of whoever receives it"),
    ("stanza_bytes_max_before_auth", "stanza_bytes_max", "strangers would be allowed more than users"),
    ("depth_max_before_auth", "depth_max", "strangers would be allowed more than users"),
    ("private_bytes_max", "private_total_bytes_max", "one element could not be stored although it is allowed"),
    ("pep_payload_bytes_max", "pep_total_bytes_max", "one item could not be stored although it is allowed"),
];

impl Slot<'_> {
    /// The value: bytes, a number, seconds, or 0 and 1.
    pub(super) fn value(&self) -> u64 {
        match self {
            Slot::Bytes(n) | Slot::Count(n) | Slot::BytesTwice(n, _) | Slot::CountTwice(n, _) => **n as u64,
            Slot::Tries(n) => u64::from(**n),
            Slot::Time(time) => time.as_secs(),
            Slot::Switch(on) => u64::from(**on),
        }
    }

    /// Sets the value, in the same units. What this machine cannot count (4 GiB and more with 32 bits) becomes its greatest.
    pub(super) fn set(self, value: u64) {
        let size = usize::try_from(value).unwrap_or(usize::MAX);
        match self {
            Slot::Bytes(n) | Slot::Count(n) => *n = size,
            Slot::BytesTwice(n, also) | Slot::CountTwice(n, also) => (*n, *also) = (size, size),
            Slot::Tries(n) => *n = u32::try_from(value).unwrap_or(u32::MAX),
            Slot::Time(time) => *time = Duration::from_secs(value),
            Slot::Switch(on) => *on = value != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_key_and_a_default_within_its_range() {
        let mut limits = Limits::default();
        for key in LIMIT_KEYS {
            let value = (key.slot)(&mut limits).value();
            assert!(key.least <= value && value <= key.most, "{} = {value}", key.name);
        }
        for (low, high, _) in LIMIT_ORDERS {
            let mut value = |name: &str| {
                let key = LIMIT_KEYS.iter().find(|key| key.name == name).expect(name);
                (key.slot)(&mut limits).value()
            };
            assert!(value(low) <= value(high), "{low} is above {high}");
        }
        // The field names as `Debug` prints them: one that has no key is found here, not by an operator.
        for line in format!("{limits:#?}").lines() {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            let Some((field, value)) = rest.split_once(": ") else { continue };
            let known = LIMIT_KEYS.iter().any(|key| key.name == field);
            assert!(known || indent.len() > 4 || value.starts_with("XmlLimits"), "no key for {field}");
        }
    }

    #[test]
    fn each_key_sets_fields_of_its_own() {
        let values =
            |limits: &mut Limits| -> Vec<u64> { LIMIT_KEYS.iter().map(|key| (key.slot)(limits).value()).collect() };
        for (index, key) in LIMIT_KEYS.iter().enumerate() {
            for value in [key.least, key.most.min(u64::from(u32::MAX))] {
                let mut limits = Limits::default();
                let mut expected = values(&mut limits);
                expected[index] = value;
                (key.slot)(&mut limits).set(value);
                assert_eq!(values(&mut limits), expected, "{} = {value}", key.name);
            }
        }
    }
}
