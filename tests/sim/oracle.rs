//! What a user may rely on, as a small model of its own: it sees what devices send and receive, and when the power failed.
//!
//! It knows several kinds of promise. A *register* (see `registers`) holds the last value whose writing was acknowledged, or a later
//! one. A *message* that was acknowledged to its sender by stream management
//! reaches a device of its receiver, each session once, in the order of its sender. A *request* is answered once. A *roster
//! version* stands for one content and never goes back. What the model cannot know it does not hold against the server; each
//! excuse is a line of [`Oracle::excuse`].

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use whinchat::config::Config;

use super::ACCOUNTS;
use super::registers::{Key, Write};
use super::rooms::Rooms;

#[derive(Clone, Debug)]
pub struct Message {
    sender: usize,
    pub receiver: usize,
    sent_at: Duration,
    is_acknowledged: bool,
    is_bounced: bool,
    is_kept: bool,
    /// A session had it and ended without having acknowledged it: it was kept then, after so many others.
    left_at: Option<u64>,
    was_refused: bool,
    received: Vec<usize>,
    is_copied: bool,
    /// How often each session has got it in each form.
    forms: HashMap<(usize, Form), u32>,
}

/// From a resource's binding to the end of its session, over all of its connections.
#[derive(Clone, Debug)]
pub struct Session {
    account: usize,
    ended_at: Option<Duration>,
    /// The last message of each sending session and one more, live and from the store.
    last: HashMap<usize, (usize, usize)>,
    /// The place of the last one that a dead session had left.
    left: u64,
}

/// A connection on which a session was asked for: how long one may have been there.
#[derive(Clone, Debug)]
pub struct Life {
    account: usize,
    from: Duration,
    pub conn: usize,
    /// Stanzas that are lost on the way come again.
    pub is_managed: bool,
    /// Both sides have closed the stream and everything has arrived.
    pub is_clean: bool,
}

/// What is known of an account's roster.
#[derive(Default)]
struct RosterModel {
    version: Option<(String, u64)>,
    /// What the roster said at a version that was seen.
    contents: HashMap<String, BTreeMap<String, String>>,
}

/// Why the store is asked to keep a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// For the archives alone.
    Archived,
    /// For them and for its receiver.
    Waiting,
    /// A session had it and did not acknowledge it.
    Left,
}

/// In which form a device gets to see a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    Itself,
    /// Copied from another device of its receiver.
    Received,
    /// Copied from another device of its sender.
    Sent,
}

pub struct Oracle {
    /// The first thing that was wrong.
    pub violation: Option<String>,
    pub(super) registers: BTreeMap<Key, Vec<Write>>,
    pub messages: Vec<Message>,
    /// How many dead sessions have left.
    left: u64,
    pub sessions: Vec<Session>,
    pub lives: Vec<Life>,
    rosters: Vec<RosterModel>,
    pub(super) power_cuts: Vec<Duration>,
    resume_time: Duration,
    pub(super) values: u64,
    pub rooms: Rooms,
    /// Receipts, for the report.
    pub received: u64,
    pub acknowledged: u64,
    pub reads: u64,
}

impl Oracle {
    pub fn new(config: &Config) -> Oracle {
        Oracle {
            violation: None,
            registers: BTreeMap::new(),
            messages: Vec::new(),
            left: 0,
            sessions: Vec::new(),
            lives: Vec::new(),
            rosters: ACCOUNTS.iter().map(|_| RosterModel::default()).chain([RosterModel::default()]).collect(),
            power_cuts: Vec::new(),
            resume_time: config.limits.resume_time,
            values: 0,
            rooms: Rooms::default(),
            received: 0,
            acknowledged: 0,
            reads: 0,
        }
    }

    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    // Messages.

    pub fn on_message_sent(&mut self, sender: usize, receiver: usize, now: Duration) -> usize {
        self.messages.push(Message {
            sender,
            receiver,
            sent_at: now,
            is_acknowledged: false,
            is_bounced: false,
            is_kept: false,
            left_at: None,
            was_refused: false,
            received: Vec::new(),
            is_copied: false,
            forms: HashMap::new(),
        });
        self.messages.len() - 1
    }

    pub fn on_message_acknowledged(&mut self, message: usize) {
        self.acknowledged += 1;
        self.messages[message].is_acknowledged = true;
    }

    pub fn on_bounced(&mut self, message: usize) {
        self.messages[message].is_bounced = true;
    }

    /// The store was asked to keep it, and did or did not.
    pub fn on_kept(&mut self, message: usize, keeping: Keeping, is_done: bool) {
        if let Some(message) = self.messages.get_mut(message) {
            if keeping == Keeping::Left {
                self.left += 1;
                message.left_at = Some(self.left);
            }
            message.is_kept |= is_done && keeping != Keeping::Archived;
            message.was_refused |= !is_done;
        }
    }

    /// Whether a session had it and ended without having acknowledged it.
    pub fn is_left(&self, message: usize) -> bool {
        self.messages.get(message).is_some_and(|message| message.left_at.is_some())
    }

    /// A session has got a message; `stamped` is one that was late.
    pub fn on_received(&mut self, session: usize, message: usize, stamped: bool) {
        self.received += 1;
        let Some(known) = self.messages.get_mut(message) else {
            return self.fail(|| format!("m{message} was never sent"));
        };
        let (sender, receiver, sent_at) = (known.sender, known.receiver, known.sent_at);
        // What an ended session had not acknowledged comes when its end is known. Others may have overtaken it, or still wait in
        // the store.
        let was_left = stamped && (known.left_at.is_some() || !known.is_kept);
        let again = known.received.contains(&session);
        known.received.push(session);
        *known.forms.entry((session, Form::Itself)).or_default() += 1;
        // A device that takes no messages may be copied what waits, and gets that when it takes messages.
        if !stamped && known.forms.contains_key(&(session, Form::Received)) {
            self.fail(|| format!("m{message} has come to session {session} behind a copy of it"));
        }
        if again {
            self.fail(|| format!("m{message} has come twice to session {session}"));
        }
        let account = self.sessions[session].account;
        if account != receiver {
            return self.fail(|| format!("m{message} is for {receiver} and came to {account}"));
        }
        self.check_not_blocked(receiver, self.sessions[sender].account, sent_at, &format!("m{message}"));
        if let (true, Some(place)) = (stamped, self.messages[message].left_at) {
            let before = std::mem::replace(&mut self.sessions[session].left, place);
            if before > place {
                self.fail(|| {
                    format!("m{message}, which was left, came to session {session} behind what was left later")
                });
            }
        }
        if was_left {
            return;
        }
        let (live, late) = self.sessions[session].last.entry(sender).or_default();
        let before = if stamped { late } else { live };
        let previous = std::mem::replace(before, (*before).max(message + 1));
        if previous > message + 1 {
            self.fail(|| format!("m{message} came to session {session} behind m{}, of the same sender", previous - 1));
        }
    }

    /// A device was copied what another one got or sent.
    pub fn on_copied(&mut self, session: usize, message: usize, form: Form) {
        let Some(known) = self.messages.get_mut(message) else {
            return self.fail(|| format!("m{message} was never sent"));
        };
        let account = self.sessions[session].account;
        let owner = if form == Form::Sent { self.sessions[known.sender].account } else { known.receiver };
        known.is_copied |= form == Form::Received;
        let times = known.forms.entry((session, form)).or_default();
        *times += 1;
        let (times, again) = (*times, known.received.contains(&session));
        if account != owner {
            self.fail(|| format!("m{message} of {owner} was copied to {account}"));
        }
        if times > 1 || again {
            self.fail(|| format!("m{message} was copied to session {session}, which had it"));
        }
    }

    /// Who must have got a message, and in which form; nobody else may have.
    pub fn check_forms(&mut self, message: usize, expected: &[(usize, Form)]) {
        let forms = &self.messages[message].forms;
        let all = expected.iter().all(|who| forms.get(who) == Some(&1));
        if !all || forms.len() != expected.len() {
            let forms = forms.clone();
            self.fail(|| format!("m{message} has come to {forms:?}, not to {expected:?}"));
        }
    }

    // Sessions.

    pub fn on_bound(&mut self, account: usize) -> usize {
        self.sessions.push(Session { account, ended_at: None, last: HashMap::new(), left: 0 });
        self.sessions.len() - 1
    }

    /// The device has given the session up.
    pub fn on_ended(&mut self, session: usize, now: Duration) {
        self.sessions[session].ended_at.get_or_insert(now);
    }

    pub fn on_life(&mut self, account: usize, conn: usize, now: Duration) -> usize {
        self.lives.push(Life { account, from: now, conn, is_managed: false, is_clean: false });
        self.lives.len() - 1
    }

    pub fn on_power_cut(&mut self, now: Duration) {
        self.power_cuts.push(now);
    }

    // Rosters.

    /// A roster version that was seen, with the whole content where that was shown. A version is an epoch and a count.
    pub fn on_roster(
        &mut self,
        account: usize,
        version: &str,
        asked: Option<&str>,
        content: Option<BTreeMap<String, String>>,
    ) {
        let Some(parsed) = parse_version(version) else {
            return self.fail(|| format!("a roster version: {version:?}"));
        };
        if let Some(least) = asked.and_then(parse_version)
            && (least.0 != parsed.0 || least.1 > parsed.1)
        {
            return self.fail(|| format!("the roster of {account} went back to {version} from {asked:?}"));
        }
        if let Some(content) = content {
            let known = self.rosters[account].contents.entry(version.to_owned()).or_insert_with(|| content.clone());
            if *known != content {
                let known = known.clone();
                self.fail(|| format!("the roster of {account} at {version} was\n{known:#?}\nand is\n{content:#?}"));
            }
        }
        let newest = &mut self.rosters[account].version;
        if newest.as_ref().is_none_or(|(_, count)| *count < parsed.1) {
            *newest = Some((version.to_owned(), parsed.1));
        }
    }

    /// The newest version that anybody has seen.
    pub fn roster_version(&self, account: usize) -> Option<String> {
        self.rosters[account].version.as_ref().map(|(version, _)| version.clone())
    }

    // The end.

    /// Every message that was acknowledged has reached somebody, or why it need not have.
    pub fn check_messages(&mut self, closed_at: impl Fn(usize) -> Option<Duration>) {
        for (index, message) in self.messages.iter().enumerate() {
            let is_settled = message.is_bounced || message.is_copied || !message.received.is_empty();
            if !message.is_acknowledged || is_settled || self.excuse(message, &closed_at).is_some() {
                continue;
            }
            let what = format!(
                "m{index} for {} was acknowledged and never came: {message:?}\npower cuts {:?}",
                message.receiver, self.power_cuts
            );
            return self.fail(|| what);
        }
    }

    /// Every message that was acknowledged is in the archives of both sides, each once.
    pub fn check_archive(&mut self, account: usize, archive: &[usize]) {
        let mut sorted = archive.to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return self.fail(|| format!("m{} is in the archive of {account} twice", pair[0]));
        }
        let mut last: HashMap<usize, usize> = HashMap::new();
        for message in archive {
            let sender = self.messages[*message].sender;
            if let Some(before) = last.insert(sender, *message).filter(|before| before > message) {
                return self.fail(|| format!("m{message} is behind m{before} in the archive of {account}"));
            }
        }
        for (index, message) in self.messages.iter().enumerate() {
            let is_own = message.receiver == account || self.sessions[message.sender].account == account;
            let is_there = sorted.binary_search(&index).is_ok();
            if is_there && !is_own {
                return self.fail(|| format!("m{index} is in the archive of {account}"));
            }
            // It could not be kept, and who should be told was gone.
            let is_lost = self.was_told_nobody(message);
            if is_own && message.is_acknowledged && !message.is_bounced && !is_there && !is_lost {
                let what = format!("m{index} was acknowledged and is not in the archive of {account}: {message:?}");
                return self.fail(|| what);
            }
        }
    }

    /// Why an acknowledged message may be lost.
    fn excuse(&self, message: &Message, closed_at: &impl Fn(usize) -> Option<Duration>) -> Option<&'static str> {
        if self.sessions[message.sender].account == message.receiver {
            return Some("its sender's own device has it");
        }
        let ends_at = |life: &Life| match closed_at(life.conn) {
            Some(at) if life.is_managed => at + self.resume_time + Duration::from_secs(10),
            Some(at) => at,
            None => Duration::MAX,
        };
        let lives = || self.lives.iter().filter(|life| life.account == message.receiver);
        let lost = |life: &Life| !life.is_managed && !life.is_clean && ends_at(life) >= message.sent_at;
        if lives().any(lost) {
            return Some("it may have gone to a device without stream management, whose socket was lost");
        }
        let live_at = |cut: Duration| lives().any(|life| life.from < cut && ends_at(life) >= message.sent_at);
        if !message.is_kept && self.power_cuts.iter().any(|cut| *cut >= message.sent_at && live_at(*cut)) {
            return Some("it may have been handed to a device, and the power failed before that had it");
        }
        if self.was_told_nobody(message) {
            return Some("it could not be kept, or was blocked, and who should be told was gone");
        }
        None
    }

    fn was_told_nobody(&self, message: &Message) -> bool {
        let sender = &self.sessions[message.sender];
        let may_be_refused =
            message.was_refused || self.may_be_blocked(message.receiver, sender.account, message.sent_at);
        may_be_refused && sender.ended_at.is_some()
    }
}

fn parse_version(version: &str) -> Option<(&str, u64)> {
    let (epoch, count) = version.split_once('-')?;
    Some((epoch, u64::from_str_radix(count, 16).ok()?))
}
