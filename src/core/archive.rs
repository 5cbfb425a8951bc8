//! What the handlers and the store say to each other about archives (XEP-0313): ids, preferences, queries, pages.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::core::clock::UtcTime;
use crate::core::ids::IdSource;
use crate::jid::Jid;

/// Bits below the time.
const RANDOM_BITS: u32 = 80;

/// Name of one archived message, the same in both archives that have it: milliseconds since 1970 in the upper 48 bits, then 80
/// that cannot be guessed. In the order of ids is in the order of receipt. Clients get it as 22 letters that mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveId(pub u128);

impl ArchiveId {
    /// The least id of a time; times beyond the year 10889 count as that.
    pub fn least_at(at: UtcTime) -> ArchiveId {
        ArchiveId(u128::from(at.0.min((1 << 48) - 1)) << RANDOM_BITS)
    }

    /// When the message was received.
    pub fn time(self) -> UtcTime {
        UtcTime((self.0 >> RANDOM_BITS) as u64)
    }

    fn letters(self) -> [u8; 22] {
        let mut letters = [0; 22];
        let length = URL_SAFE_NO_PAD.encode_slice(self.0.to_be_bytes(), &mut letters);
        debug_assert_eq!(length.ok(), Some(letters.len()), "sixteen bytes are 22 letters");
        letters
    }

    /// Appends what clients get.
    pub fn push(self, buf: &mut Vec<u8>) {
        buf.extend_from_slice(&self.letters());
    }

    /// What a client gives back; `None` if it never got it from here.
    pub fn parse(text: &str) -> Option<ArchiveId> {
        // The decoder wants room for what the letters could hold at most.
        let mut bytes = [0; 24];
        let length = URL_SAFE_NO_PAD.decode_slice(text.as_bytes().get(..22)?, &mut bytes).ok()?;
        let id = bytes.first_chunk().filter(|_| length == 16 && text.len() == 22)?;
        Some(ArchiveId(u128::from_be_bytes(*id)))
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.letters()).map_err(|_| fmt::Error)?)
    }
}

/// Makes ids, each above the one before, whatever the clock does.
#[derive(Default)]
pub(crate) struct ArchiveIds {
    last: ArchiveId,
    /// Random bytes drawn and not used yet.
    drawn: [u8; 32],
    used: usize,
}

impl ArchiveIds {
    const EACH: usize = 10;

    /// There is such an id already.
    pub(crate) fn seen(&mut self, id: ArchiveId) {
        self.last = self.last.max(id);
    }

    /// An id for a message that is received now.
    pub(crate) fn next(&mut self, now: UtcTime, source: &mut IdSource) -> ArchiveId {
        let random = self.random(source);
        let fresh = ArchiveId::least_at(now).0 | random;
        // Within a millisecond, or after the clock was set back, it goes on by steps that nobody can foresee.
        let step = 1 + (random & u128::from(u64::MAX));
        let in_order = now > self.last.time();
        self.last = ArchiveId(if in_order { fresh } else { self.last.0.saturating_add(step) });
        self.last
    }

    fn random(&mut self, source: &mut IdSource) -> u128 {
        if self.used == 0 || self.used + Self::EACH > self.drawn.len() {
            self.drawn = source.bytes();
            self.used = 0;
        }
        let bytes = self.drawn.iter().skip(self.used).take(Self::EACH);
        self.used += Self::EACH;
        bytes.fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

/// Whether an archive takes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// No.
    No,
    /// Yes.
    Yes,
    /// If the owner's preferences say so, which only the store knows.
    IfWanted,
}

/// What is archived where no list says otherwise (XEP-0441 section 2.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveDefault {
    /// All messages.
    #[default]
    Always,
    /// Those with contacts.
    Roster,
    /// None.
    Never,
}

impl ArchiveDefault {
    /// All.
    pub const ALL: [ArchiveDefault; 3] = [ArchiveDefault::Always, ArchiveDefault::Roster, ArchiveDefault::Never];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            ArchiveDefault::Always => "always",
            ArchiveDefault::Roster => "roster",
            ArchiveDefault::Never => "never",
        }
    }
}

/// What an account wants archived (XEP-0441).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivePrefs {
    /// For who is on neither list.
    pub default: ArchiveDefault,
    /// Whose messages are archived.
    pub always: Vec<Jid>,
    /// Whose messages are not.
    pub never: Vec<Jid>,
}

impl ArchivePrefs {
    /// Whether a message to or from `with` is archived. What is said of a resource comes before what is said of its bare JID,
    /// *never* before *always* (section 2.3 says neither).
    pub fn wants(&self, with: &str, in_roster: impl FnOnce(&str) -> bool) -> bool {
        let bare = with.split('/').next().unwrap_or_default();
        let lists = |jid: &str| {
            let on = |list: &[Jid]| list.iter().any(|listed| listed.as_str() == jid);
            if on(&self.never) { Some(false) } else { on(&self.always).then_some(true) }
        };
        lists(with).or_else(|| lists(bare)).unwrap_or_else(|| match self.default {
            ArchiveDefault::Always => true,
            ArchiveDefault::Never => false,
            ArchiveDefault::Roster => in_roster(bare),
        })
    }
}

/// Which messages of an archive (section 4.1); each condition narrows it down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveFilter {
    /// To or from this address; a bare JID stands for all its resources.
    pub with: Option<Jid>,
    /// Not before this time.
    pub start: Option<UtcTime>,
    /// Not after this time.
    pub end: Option<UtcTime>,
    /// Behind this message.
    pub after: Option<ArchiveId>,
    /// Before this message.
    pub before: Option<ArchiveId>,
    /// Only these.
    pub ids: Option<Vec<ArchiveId>>,
}

/// Which part of them (section 4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivePaging {
    /// At most so many.
    pub max: usize,
    /// At most about so many bytes, but at least one message.
    pub bytes_max: usize,
    /// Behind this message.
    pub after: Option<ArchiveId>,
    /// Before this message.
    pub before: Option<ArchiveId>,
    /// The last ones of those, not the first.
    pub backwards: bool,
    /// The newest comes first on the wire.
    pub flip: bool,
}

/// A page of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivePage {
    /// As they are sent.
    pub messages: Vec<(ArchiveId, Vec<u8>)>,
    /// The oldest and the newest of them.
    pub bounds: Option<(ArchiveId, ArchiveId)>,
    /// Nothing lies beyond in the direction of paging.
    pub complete: bool,
    /// How many there are on all pages, where that costs little.
    pub count: Option<u64>,
    /// How many of those come before the oldest one here; not of pages that are read backwards.
    pub index: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_whatever_the_clock_does() {
        let mut source = IdSource::new([3; 32]);
        let mut ids = ArchiveIds::default();
        let mut last = ArchiveId(0);
        for now in [5, 5, 5, 6, 1_795_375_850_000, 1_795_375_850_000, 7, 0, 1_795_375_850_000, 1_795_375_850_001] {
            let id = ids.next(UtcTime(now), &mut source);
            assert!(id > last && id.time() >= UtcTime(now), "{id:?} at {now}");
            assert_eq!(ArchiveId::parse(&id.to_string()), Some(id));
            last = id;
        }
        assert_eq!(last.time(), UtcTime(1_795_375_850_001));
        ids.seen(ArchiveId(u128::MAX - 1));
        assert_eq!(ids.next(UtcTime(9), &mut source), ArchiveId(u128::MAX));
        assert_eq!(ArchiveId::least_at(UtcTime(u64::MAX)).time(), UtcTime((1 << 48) - 1));
    }

    #[test]
    fn only_our_letters_are_ids() {
        assert_eq!(ArchiveId(1).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        // Wrong letter, left-over bits, too short, too long, a border inside a character.
        for text in
            ["", "AAAAAAAAAAAAAAAAAAAA=Q", "AAAAAAAAAAAAAAAAAAAAAR", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAQA"]
        {
            assert_eq!(ArchiveId::parse(text), None, "{text}");
        }
        assert_eq!(ArchiveId::parse("AAAAAAAAAAAAAAAAAAAAAé"), None);
    }

    #[test]
    fn preferences() {
        let jid = Jid::from_prepared;
        let check = |default, always: &[&str], never: &[&str], with: &str, expected| {
            let list = |list: &[&str]| list.iter().map(|text| jid(text)).collect();
            let prefs = ArchivePrefs { default, always: list(always), never: list(never) };
            assert_eq!(prefs.wants(with, |bare| bare == "r@x"), expected, "{prefs:?} {with}");
        };
        use ArchiveDefault::{Always, Never, Roster};
        check(Always, &[], &[], "a@x/1", true);
        check(Never, &[], &[], "a@x/1", false);
        check(Roster, &[], &[], "a@x/1", false);
        check(Roster, &[], &[], "r@x/1", true);
        check(Never, &["a@x"], &[], "a@x/1", true);
        check(Always, &[], &["a@x"], "a@x", false);
        check(Always, &[], &["a@x/1"], "a@x/1", false);
        check(Always, &[], &["a@x/1"], "a@x", true);
        check(Always, &["a@x/1"], &["a@x"], "a@x/1", true);
        check(Always, &["a@x"], &["a@x"], "a@x/1", false);
        check(Roster, &[], &["r@x"], "r@x/1", false);
    }
}
