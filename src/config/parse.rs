//! TOML text to [`Config`]: every mistake in one run.
//!
//! Keys are taken out of their table one by one; what is left over is unknown. So the keys that exist are exactly those that
//! are read here, and both the hints for misspelt ones and the manual's test come from that. A wrong value is noted and replaced by
//! a default, so that reading goes on; the configuration is returned only if nothing was noted.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::limits::{LIMIT_KEYS, LIMIT_ORDERS, LimitKey, Slot};
use super::{CertificateFiles, Config, DomainConfig, ExternalService, Limits, Listen, RoomMakers};
use crate::auth::PasswordScheme;
use crate::jid::{self, BareJid};

/// Roles of XEP-0157; each is a field `<role>-addresses` of the form that service discovery shows.
const CONTACT_ROLES: [&str; 7] = ["abuse", "admin", "feedback", "sales", "security", "status", "support"];

/// A mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line of the text, from 1.
    pub line: usize,
    /// The key as it is named in the manual, e.g. `listen.c2s`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.reason, self.fix)
    }
}

pub(super) fn parse(text: &str, directory: &Path) -> Result<Config, Vec<Mistake>> {
    let (config, reader) = read(text, directory);
    let mut mistakes = reader.mistakes;
    mistakes.sort_by_key(|mistake| mistake.line);
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
}

/// Reads what can be read, notes the rest.
fn read<'t>(text: &'t str, directory: &'t Path) -> (Config, Reader<'t>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        text,
        directory,
        mistakes: Vec::new(),
        known: BTreeSet::new(),
        unknown: Vec::new(),
        broken: !errors.is_empty(),
    };
    let mut top = Section::new("", 0..0, document.into_inner());
    let config = Config {
        data: reader.path(&mut top, "data").unwrap_or_else(|| PathBuf::from("/var/lib/whinchat")),
        password_scheme: reader.password_scheme(&mut top),
        log: reader.log_level(&mut top),
        listen: reader.listen(&mut top),
        domains: reader.domains(&mut top),
        limits: reader.limits(&mut top),
    };
    reader.end(top);
    reader.note_unknown();
    reader.note_syntax(errors);
    (config, reader)
}

/// A table whose keys are being taken out.
struct Section<'t> {
    /// Its name, empty for the top of the file.
    name: &'static str,
    /// Where its header is.
    span: Range<usize>,
    rest: DeTable<'t>,
}

impl<'t> Section<'t> {
    fn new(name: &'static str, span: Range<usize>, rest: DeTable<'t>) -> Section<'t> {
        Section { name, span, rest }
    }
}

/// A value with its place.
struct Value<'t> {
    key: String,
    span: Range<usize>,
    value: DeValue<'t>,
}

struct Reader<'t> {
    text: &'t str,
    directory: &'t Path,
    mistakes: Vec<Mistake>,
    /// Section and name of every key that exists.
    known: BTreeSet<(&'static str, &'static str)>,
    /// Section, name and place of every key that does not.
    unknown: Vec<(&'static str, String, Range<usize>)>,
    /// Whether the text is no TOML, so that something may be missing only for that reason.
    broken: bool,
}

impl<'t> Reader<'t> {
    fn password_scheme(&mut self, top: &mut Section<'t>) -> PasswordScheme {
        let log_n = self.number(top, "scrypt_log_n", 12, 20).unwrap_or(14);
        let iterations = self.number(top, "scram_iterations", 4096, 10_000_000).unwrap_or(10_000);
        let scram = PasswordScheme::Scram { iterations: u32::try_from(iterations).unwrap_or(u32::MAX) };
        let scrypt = PasswordScheme::Scrypt { log_n: u8::try_from(log_n).unwrap_or(u8::MAX) };
        self.choice(top, "password_hash", &[("scram", scram), ("scrypt", scrypt)]).unwrap_or(scram)
    }

    fn log_level(&mut self, top: &mut Section<'t>) -> LevelFilter {
        let levels = [
            ("off", LevelFilter::Off),
            ("error", LevelFilter::Error),
            ("warn", LevelFilter::Warn),
            ("info", LevelFilter::Info),
            ("debug", LevelFilter::Debug),
            ("trace", LevelFilter::Trace),
        ];
        self.choice(top, "log", &levels).unwrap_or(LevelFilter::Info)
    }

    /// Without the section, the usual ports; with it, what it names and nothing else, so that nobody opens a port unawares.
    fn listen(&mut self, top: &mut Section<'t>) -> Listen {
        let is_given = top.rest.contains_key("listen");
        let noted = self.mistakes.len();
        let mut section = self.subsection(top, "listen");
        let mut seen = Vec::new();
        let c2s = self.addresses(&mut section, "c2s", 5222, &mut seen);
        let c2s_tls = self.addresses(&mut section, "c2s_tls", 5223, &mut seen);
        let c2s_plain = self.addresses(&mut section, "c2s_plain", 5224, &mut seen);
        // A wrong or misspelt key has its own note, and is why nothing is named.
        if is_given && seen.is_empty() && noted == self.mistakes.len() && section.rest.is_empty() && !self.broken {
            self.note(&section.span, "listen", "no client could connect anywhere", "give c2s or c2s_tls an address");
        }
        self.end(section);
        let usual = |port| if is_given { Vec::new() } else { vec![SocketAddr::new(IpAddr::from([0; 16]), port)] };
        Listen {
            c2s: c2s.unwrap_or_else(|| usual(5222)),
            c2s_tls: c2s_tls.unwrap_or_else(|| usual(5223)),
            c2s_plain: c2s_plain.unwrap_or_default(),
        }
    }

    /// A list of addresses; `seen` are those of earlier lists.
    fn addresses(
        &mut self,
        section: &mut Section<'t>,
        key: &'static str,
        port: u16,
        seen: &mut Vec<SocketAddr>,
    ) -> Option<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        for (text, value) in self.texts(section, key)? {
            let Ok(address) = text.parse::<SocketAddr>() else {
                self.refuse(&value, format!("{text:?} is no address with a port"), address_fix(&text, port));
                continue;
            };
            if address.port() != 0 && seen.contains(&address) {
                self.refuse(&value, format!("{address} is listed twice"), "write it once");
            } else if key == "c2s_plain" && !address.ip().is_loopback() {
                let fix = format!("write \"127.0.0.1:{}\", or move it to c2s, where TLS is required", address.port());
                self.refuse(&value, format!("{address} can be reached from other machines without TLS"), fix);
            }
            seen.push(address);
            addresses.push(address);
        }
        Some(addresses)
    }

    fn domains(&mut self, top: &mut Section<'t>) -> Vec<DomainConfig> {
        let mut domains: Vec<(DomainConfig, usize)> = Vec::new();
        for (span, table) in self.domain_tables(top) {
            let line = self.line(span.start);
            let domain = self.domain(Section::new("domain", span.clone(), table));
            if let Some((_, first)) =
                domains.iter().find(|(other, _)| !other.name.is_empty() && other.name == domain.name)
            {
                let reason = format!("{} is already served by the [[domain]] of line {first}", domain.name);
                self.note(&span, "domain.name", reason, "remove one of the two");
            }
            domains.push((domain, line));
        }
        for (domain, line) in &domains {
            let rooms = domain.rooms_domain();
            if let Some((_, first)) = domains.iter().find(|(other, _)| other.name == rooms) {
                let reason =
                    format!("the rooms of {} would have the name of the [[domain]] of line {first}", domain.name);
                let fix = "give rooms_name another value".to_owned();
                self.mistakes.push(Mistake { line: *line, key: "domain.rooms_name".to_owned(), reason, fix });
            }
        }
        if domains.is_empty() {
            let noted = self.mistakes.len();
            self.domain(Section::new("domain", 0..0, DeTable::new()));
            self.mistakes.truncate(noted);
            if !self.broken {
                let fix =
                    "add a line [[domain]] and below it name = \"example.org\" with the name that addresses end in";
                self.note(&(0..0), "domain", "no domain is served", fix);
            }
        }
        domains.into_iter().map(|(domain, _)| domain).collect()
    }

    /// The tables of `[[domain]]`; a single `[domain]` is refused, but read.
    fn domain_tables(&mut self, top: &mut Section<'t>) -> Vec<(Range<usize>, DeTable<'t>)> {
        let Some(value) = self.take(top, "domain") else { return Vec::new() };
        let fix = "write [[domain]] with two brackets on each side, once for each domain";
        let key = value.key.clone();
        let items = match value.value {
            DeValue::Array(items) => items.into_iter().collect(),
            table @ DeValue::Table(_) => {
                self.note(&value.span, &key, "domains are a list", fix);
                vec![Spanned::new(value.span, table)]
            }
            other => vec![Spanned::new(value.span, other)],
        };
        let mut tables = Vec::new();
        for item in items {
            let span = item.span();
            match item.into_inner() {
                DeValue::Table(table) => tables.push((span, table)),
                other => {
                    self.note(&span, &key, format!("expected a section, found {}", kind(&other)), fix);
                    // One that is not there would only be reported a second time.
                    self.broken = true;
                }
            }
        }
        tables
    }

    fn domain(&mut self, mut section: Section<'t>) -> DomainConfig {
        let name = self.domain_name(&mut section);
        let chain = self.path(&mut section, "certificate");
        let key = self.path(&mut section, "key");
        let certificate = match (chain, key) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            (None, None) => None,
            (Some(_), None) => {
                let fix = "add key = \"…\" with the file of its private key (certbot: privkey.pem)";
                self.note(&section.span, "domain.certificate", "a certificate without its key", fix);
                None
            }
            (None, Some(_)) => {
                let fix = "add certificate = \"…\" with the file of the whole chain (certbot: fullchain.pem)";
                self.note(&section.span, "domain.key", "a key without its certificate", fix);
                None
            }
        };
        let registration_open =
            self.choice(&mut section, "registration", &[("closed", false), ("open", true)]).unwrap_or(false);
        let makers = [("users", RoomMakers::Users), ("nobody", RoomMakers::Nobody)];
        let rooms = self.choice(&mut section, "rooms", &makers).unwrap_or_default();
        let rooms_name = self.rooms_name(&mut section);
        let archive = self.switch(&mut section, "archive").unwrap_or(true);
        let shared_contacts = self.shared_contacts(&mut section);
        let contacts = self.contacts(&mut section);
        let admins = self.admins(&mut section);
        let services = self.services(&mut section);
        let services_secret = self.text(&mut section, "services_secret").unwrap_or_default();
        let services_time = self.time(&mut section, "services_time", 60, 30 * 86_400).unwrap_or(86_400);
        self.end(section);
        DomainConfig {
            name,
            certificate,
            registration_open,
            rooms,
            rooms_name,
            archive,
            shared_contacts,
            contacts,
            admins,
            services,
            services_secret,
            services_time: Duration::from_secs(services_time),
        }
    }

    fn shared_contacts(&mut self, section: &mut Section<'t>) -> String {
        const GROUP_BYTES_MAX: usize = 256;
        let Some(value) = self.take(section, "shared_contacts") else { return String::new() };
        let group = self.text_of(&value).unwrap_or_default();
        if group.len() > GROUP_BYTES_MAX || group.chars().any(char::is_control) {
            self.refuse(&value, "this is no name of a group".to_owned(), "write a short name in one line");
            return String::new();
        }
        group
    }

    fn services(&mut self, section: &mut Section<'t>) -> Vec<ExternalService> {
        let mut services = Vec::new();
        for (text, value) in self.texts(section, "services").unwrap_or_default() {
            match service(&text) {
                Some(service) => services.push(service),
                None => {
                    let fix = "write \"turn:turn.example.org:3478?transport=udp\" or \"stun:stun.example.org\"";
                    self.refuse(&value, format!("{text:?} is no URI of a STUN or TURN server"), fix);
                }
            }
        }
        services
    }

    fn text(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<String> {
        let value = self.take(section, key)?;
        self.text_of(&value)
    }

    /// A duration in seconds.
    fn time(&mut self, section: &mut Section<'t>, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let value = self.take(section, key)?;
        let Some(seconds) = duration(&value.value) else {
            let fix = format!("write a value from {} to {}", show_duration(least), show_duration(most));
            let found = format!("expected a duration such as \"60s\" or \"1d\", found {}", shown(&value.value));
            self.refuse(&value, found, fix);
            return None;
        };
        self.in_range(&value, seconds, (least, most), show_duration).then_some(seconds)
    }

    fn admins(&mut self, section: &mut Section<'t>) -> Vec<BareJid> {
        let mut admins = Vec::new();
        for (text, value) in self.texts(section, "admins").unwrap_or_default() {
            match BareJid::parse(&text) {
                Ok(admin) if admin.local().is_some() => admins.push(admin),
                _ => self.refuse(&value, format!("{text:?} is no account"), "write \"user@example.org\""),
            }
        }
        admins
    }

    /// One label of a domain name.
    fn rooms_name(&mut self, section: &mut Section<'t>) -> String {
        let Some(value) = self.take(section, "rooms_name") else { return String::new() };
        let Some(text) = self.text_of(&value) else { return String::new() };
        match jid::prepare_domain(&text) {
            Ok(name) if !name.contains(['.', '[', ':']) => name.into_owned(),
            _ => {
                self.refuse(&value, format!("{text:?} is not one part of a domain name"), "write \"conference\"");
                String::new()
            }
        }
    }

    fn domain_name(&mut self, section: &mut Section<'t>) -> String {
        let fix = "write the name that addresses end in, such as \"example.org\"";
        let Some(value) = self.take(section, "name") else {
            if !self.broken {
                self.note(&section.span, "domain.name", "it is missing", fix);
            }
            return String::new();
        };
        let Some(text) = self.text_of(&value) else { return String::new() };
        match jid::prepare_domain(&text) {
            Ok(name) => name.into_owned(),
            Err(error) => {
                self.refuse(&value, format!("{text:?} is no domain name: {}", error.0), fix);
                String::new()
            }
        }
    }

    fn contacts(&mut self, domain: &mut Section<'t>) -> Vec<(String, String)> {
        let mut section = self.subsection(domain, "contacts");
        section.name = "domain.contacts";
        let mut contacts = Vec::new();
        for role in CONTACT_ROLES {
            for (uri, value) in self.texts(&mut section, role).unwrap_or_default() {
                if is_uri(&uri) {
                    contacts.push((role.to_owned(), uri));
                    continue;
                }
                let scheme = if uri.contains('@') { "mailto:" } else { "https://" };
                let fix = format!("write \"{scheme}{uri}\"; mailto:, xmpp: and https: are usual");
                self.refuse(&value, format!("{uri:?} is no URI"), fix);
            }
        }
        self.end(section);
        contacts
    }

    fn limits(&mut self, top: &mut Section<'t>) -> Limits {
        let mut section = self.subsection(top, "limits");
        let mut limits = Limits::default();
        let mut written: Vec<(&str, Range<usize>)> = Vec::new();
        for key in LIMIT_KEYS {
            let Some(value) = self.take(&mut section, key.name) else { continue };
            let slot = (key.slot)(&mut limits);
            if let Some(number) = self.limit(key, &slot, &value) {
                slot.set(number);
                written.push((key.name, value.span));
            }
        }
        for (low, high, reason) in LIMIT_ORDERS {
            let mut number = |name: &str| {
                LIMIT_KEYS.iter().find(|key| key.name == name).map_or(0, |key| (key.slot)(&mut limits).value())
            };
            let (least, most) = (number(low), number(high));
            let place = written.iter().find(|(name, _)| name == low || name == high);
            if let (true, Some((name, span))) = (least > most, place) {
                let reason = format!("{low} ({least}) is above {high} ({most}), so that {reason}");
                self.note(span, &format!("limits.{name}"), reason, "make them equal or swap them");
            }
        }
        self.end(section);
        limits
    }

    /// `true` or `false`.
    fn switch(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<bool> {
        let value = self.take(section, key)?;
        self.switch_of(&value)
    }

    fn switch_of(&mut self, value: &Value<'t>) -> Option<bool> {
        if let DeValue::Boolean(on) = value.value {
            return Some(on);
        }
        let found = format!("expected true or false, found {}", kind(&value.value));
        self.refuse(value, found, "write true or false");
        None
    }

    /// A limit's value within its range, in the units of its slot.
    fn limit(&mut self, key: &LimitKey, slot: &Slot<'_>, value: &Value<'t>) -> Option<u64> {
        let (number, show): (_, fn(u64) -> String) = match slot {
            Slot::Switch(_) => {
                return self.switch_of(value).map(u64::from);
            }
            Slot::Count(_) | Slot::CountTwice(..) | Slot::Tries(_) => (integer(&value.value), |n| n.to_string()),
            Slot::Bytes(_) | Slot::BytesTwice(..) => (size(&value.value), show_size),
            Slot::Time(_) => (duration(&value.value), show_duration),
        };
        let fix = format!("write a value from {} to {}", show(key.least), show(key.most));
        let Some(number) = number else {
            let expected = match slot {
                Slot::Bytes(_) | Slot::BytesTwice(..) => "a size such as 65536, \"64K\" or \"64M\"",
                Slot::Time(_) => "a duration such as \"60s\", \"10m\" or \"1h\"",
                _ => "a whole number",
            };
            self.refuse(value, format!("expected {expected}, found {}", shown(&value.value)), fix);
            return None;
        };
        self.in_range(value, number, (key.least, key.most), show).then_some(number)
    }

    /// Whether a number is within its bounds; notes it if not.
    fn in_range(&mut self, value: &Value<'t>, number: u64, (least, most): (u64, u64), show: fn(u64) -> String) -> bool {
        let bound = match number {
            n if n < least => format!("below {}, the least allowed", show(least)),
            n if n > most => format!("above {}, the most allowed", show(most)),
            _ => return true,
        };
        let fix = format!("write a value from {} to {}", show(least), show(most));
        self.refuse(value, format!("{} is {bound}", show(number)), fix);
        false
    }

    fn number(&mut self, section: &mut Section<'t>, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let value = self.take(section, key)?;
        let Some(number) = integer(&value.value) else {
            let fix = format!("write a value from {least} to {most}");
            self.refuse(&value, format!("expected a whole number, found {}", shown(&value.value)), fix);
            return None;
        };
        self.in_range(&value, number, (least, most), |n| n.to_string()).then_some(number)
    }

    fn choice<T: Copy>(&mut self, section: &mut Section<'t>, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.take(section, key)?;
        let text = self.text_of(&value)?;
        if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*chosen);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.refuse(&value, format!("{text:?} is not one of its values"), format!("write {}", names.join(" or ")));
        None
    }

    fn path(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<PathBuf> {
        let value = self.take(section, key)?;
        let text = self.text_of(&value)?;
        if text.is_empty() || text.contains('\0') {
            self.refuse(&value, "it names no file", "write a path, or leave the line out");
        }
        Some(self.directory.join(text))
    }

    /// A list of strings with their places.
    fn texts(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Vec<(String, Value<'t>)>> {
        let value = self.take(section, key)?;
        let DeValue::Array(items) = value.value else {
            let reason = format!("expected a list, found {}", kind(&value.value));
            let fix = match &value.value {
                DeValue::String(text) => format!("put it in brackets: {key} = [{text:?}]"),
                _ => format!("write {key} = [\"…\", \"…\"]"),
            };
            self.note(&value.span, &value.key, reason, fix);
            return None;
        };
        let items = items.into_iter().filter_map(|item| {
            let item = Value { key: value.key.clone(), span: item.span(), value: item.into_inner() };
            Some((self.text_of(&item)?, item))
        });
        Some(items.collect())
    }

    fn text_of(&mut self, value: &Value<'t>) -> Option<String> {
        if let DeValue::String(text) = &value.value {
            return Some(text.clone().into_owned());
        }
        self.refuse(value, format!("expected text, found {}", kind(&value.value)), "put it in double quotes");
        None
    }

    /// A table inside a table; empty if it is absent.
    fn subsection(&mut self, section: &mut Section<'t>, key: &'static str) -> Section<'t> {
        match self.take(section, key) {
            None => Section::new(key, section.span.clone(), DeTable::new()),
            Some(Value { span, value: DeValue::Table(table), .. }) => Section::new(key, span, table),
            Some(value) => {
                let fix = match section.name {
                    "" => format!("write [{key}] on a line of its own and its keys below"),
                    _ => format!("write {key} = {{ … }}"),
                };
                self.refuse(&value, format!("expected a section, found {}", kind(&value.value)), fix);
                Section::new(key, value.span, DeTable::new())
            }
        }
    }

    /// Takes a key out of a section; `None` if it is absent.
    fn take(&mut self, section: &mut Section<'t>, key: &'static str) -> Option<Value<'t>> {
        self.known.insert((section.name, key));
        let value = section.rest.remove(key)?;
        Some(Value { key: full_name(section.name, key), span: value.span(), value: value.into_inner() })
    }

    /// What was not taken out of a section is unknown.
    fn end(&mut self, section: Section<'t>) {
        for (key, _) in section.rest {
            let span = key.span();
            self.unknown.push((section.name, key.into_inner().into_owned(), span));
        }
    }

    fn note_unknown(&mut self) {
        for (section, key, span) in std::mem::take(&mut self.unknown) {
            let fix = self.unknown_fix(section, &key);
            self.note(&span, &full_name(section, &key), "there is no such key", fix);
        }
    }

    /// What an unknown key was probably meant to be: the same name elsewhere, else the nearest name in its own section.
    fn unknown_fix(&self, section: &str, key: &str) -> String {
        let elsewhere = |(_, name): &&(&str, &str)| *name == key;
        if let Some((owner, _)) = self.known.iter().find(elsewhere) {
            return match *owner {
                "" => "it belongs at the top of the file, above the first line in brackets".to_owned(),
                "domain" => "it belongs below a line [[domain]]".to_owned(),
                "domain.contacts" => "it belongs into contacts = { … } below a line [[domain]]".to_owned(),
                owner => format!("it belongs below a line [{owner}]"),
            };
        }
        let here = self.known.iter().filter(|(owner, _)| *owner == section).map(|(_, name)| *name);
        match here.min_by_key(|name| distance(key, name)) {
            Some(nearest) => format!("the nearest is {nearest}"),
            None => "remove it".to_owned(),
        }
    }

    /// Notes where the text is no TOML. Of one line only that is told: what else is wrong with it follows from it.
    fn note_syntax(&mut self, errors: Vec<toml::de::Error>) {
        let mut lines = BTreeSet::new();
        for error in errors {
            let line = self.line(error.span().map_or(self.text.len(), |span| span.start));
            if !lines.insert(line) {
                continue;
            }
            self.mistakes.retain(|mistake| mistake.line != line);
            let fix = syntax_fix(self.text.lines().nth(line - 1).unwrap_or_default(), error.message());
            self.mistakes.push(Mistake { line, key: String::new(), reason: error.message().to_owned(), fix });
        }
    }

    fn refuse(&mut self, value: &Value<'t>, reason: impl Into<String>, fix: impl Into<String>) {
        self.note(&value.span, &value.key, reason, fix);
    }

    fn note(&mut self, span: &Range<usize>, key: &str, reason: impl Into<String>, fix: impl Into<String>) {
        let line = self.line(span.start);
        self.mistakes.push(Mistake { line, key: key.to_owned(), reason: reason.into(), fix: fix.into() });
    }

    /// The line of an offset, from 1.
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
    }
}

fn full_name(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// What a value is, for a sentence.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// A value as written, if it is short enough for a sentence.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() < 40 => format!("{text:?}"),
        DeValue::Integer(number) if number.as_str().len() < 40 => number.to_string(),
        DeValue::Float(number) if number.as_str().len() < 40 => number.as_str().to_owned(),
        other => kind(other).to_owned(),
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Plain bytes, or a number with K, M or G (powers of 1024), also written KB or KiB.
fn size(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::String(text) = value else { return integer(value) };
    let (number, unit) = split_unit(text)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// A number with s, m, h or d. A bare number is refused: nobody should have to guess its unit.
fn duration(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::String(text) = value else { return None };
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn show_size(bytes: u64) -> String {
    let units = [(30, 'G'), (20, 'M'), (10, 'K')];
    match units.iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift)) {
        Some((shift, unit)) => format!("\"{}{unit}\"", bytes >> shift),
        None => bytes.to_string(),
    }
}

fn show_duration(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    let units = [(3600, 'h'), (60, 'm')];
    match units.iter().find(|&&(unit, _)| seconds > 0 && seconds.is_multiple_of(unit)) {
        // A day is a number of hours that everybody knows.
        Some(_) if seconds > DAY && seconds.is_multiple_of(DAY) => format!("\"{}d\"", seconds / DAY),
        Some((unit, name)) => format!("\"{}{name}\"", seconds / unit),
        None => format!("\"{seconds}s\""),
    }
}

/// What the writer of a wrong address probably meant.
fn address_fix(text: &str, port: u16) -> String {
    if let Ok(port) = text.strip_prefix("*:").or(text.strip_prefix(':')).unwrap_or(text).parse::<u16>() {
        return format!(
            "write \"[::]:{port}\" for every address of this machine, or \"127.0.0.1:{port}\" for itself only"
        );
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return format!("add the port: \"{}\"", SocketAddr::new(ip, port));
    }
    match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("names are not looked up here, write \"127.0.0.1:{port}\""),
        _ => format!("write an address of this machine, such as \"[::]:{port}\" or \"192.0.2.1:{port}\""),
    }
}

/// Whether a text begins with a scheme and has something behind it (RFC 3986 section 3), without white space or controls.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(letters)
        && !rest.is_empty()
        && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// `scheme:host[:port][?transport=…]` (RFC 7064 section 3.1, RFC 7065 section 3.1).
fn service(uri: &str) -> Option<ExternalService> {
    const KINDS: [(&str, u16, &str); 4] =
        [("stun", 3478, "udp"), ("stuns", 5349, "tcp"), ("turn", 3478, "udp"), ("turns", 5349, "tcp")];
    let (scheme, rest) = uri.split_once(':')?;
    let (kind, port, transport) = KINDS.into_iter().find(|(kind, ..)| *kind == scheme)?;
    let (address, transport) = match rest.split_once("?transport=") {
        Some((address, "udp")) => (address, "udp"),
        Some((address, "tcp")) => (address, "tcp"),
        Some(_) => return None,
        None => (rest, transport),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') && host.ends_with(']') => {
            (host, port.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) | None => (address, port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty() && jid::prepare_domain(host).is_ok() || host.parse::<IpAddr>().is_ok()).then(|| ExternalService {
        kind,
        host: host.to_owned(),
        port,
        transport,
    })
}

fn syntax_fix(line: &str, message: &str) -> String {
    if message.contains("duplicate key") {
        return "it is written twice, remove one of the two".to_owned();
    }
    match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
        Some((key, value)) if value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '.') => {
            format!("put text in double quotes: {key} = {value:?}")
        }
        Some((key, value)) if value.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("put a value with a unit in double quotes: {key} = {value:?}")
        }
        _ => "a line is key = value, [section], [[domain]] or # and a comment; text stands in double quotes".to_owned(),
    }
}

/// Edits (insert, delete, replace, swap neighbours) that turn one name into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swapped = if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    rows[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                replaced.min(swapped).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;
