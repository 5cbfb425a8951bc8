//! What holds a value: it is the last one whose writing was acknowledged, or a later one.
//!
//! A write is known by when it was asked for and by when it was done, if it was done at all. Two whose times overlap may have been
//! done in either order; what was never answered may have been done or not, but not after the server has forgotten it.

use std::time::Duration;

use super::PASSWORD;
use super::oracle::Oracle;

/// Something that holds a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The name that an account gave a contact.
    Name(usize, String),
    /// Its private element.
    Private(usize),
    Vcard(usize),
    Password(usize),
    /// What a room says it is; nothing if there is no such room.
    Description(usize),
    /// Of an account to a room.
    Affiliation(usize, usize),
    /// Of a room.
    Subject(usize),
    /// Whether an account has blocked another one.
    Blocked(usize, usize),
    /// What an account has published last.
    Tune(usize),
    /// Whether an account has registered that node for push.
    Push(usize, usize),
}

/// A write that somebody waits for.
pub type Ticket = (Key, usize);

/// A value on its way into a register.
#[derive(Clone, Debug)]
pub(super) struct Write {
    value: String,
    from: Duration,
    /// It was done before that, if ever; `None` as long as it may still be.
    until: Option<Duration>,
    /// It was done.
    is_certain: bool,
    is_refused: bool,
}

impl Write {
    pub(super) fn known(value: &str) -> Write {
        let value = value.to_owned();
        Write { value, from: Duration::ZERO, until: Some(Duration::ZERO), is_certain: true, is_refused: false }
    }
}

/// What a register holds when a life begins.
fn initial(key: &Key) -> Vec<Write> {
    match key {
        Key::Password(account) if *account < super::ACCOUNTS.len() => vec![Write::known(PASSWORD)],
        // Not registered yet.
        Key::Password(_) => Vec::new(),
        Key::Affiliation(..) => vec![Write::known("none")],
        _ => vec![Write::known("")],
    }
}

impl Oracle {
    fn writes(&mut self, key: &Key) -> &mut Vec<Write> {
        self.registers.entry(key.clone()).or_insert_with(|| initial(key))
    }

    /// A value that was never used before.
    pub fn new_value(&mut self) -> String {
        self.values += 1;
        format!("value {}", self.values)
    }

    /// A device asks for a value to be written; the number names this in the answer.
    pub fn begin_write(&mut self, key: &Key, value: &str, now: Duration) -> usize {
        let writes = self.writes(key);
        writes.push(Write { from: now, until: None, is_certain: false, ..Write::known(value) });
        writes.len() - 1
    }

    /// It was told that the value is there.
    pub fn acknowledge_write(&mut self, key: &Key, write: usize, now: Duration) {
        self.acknowledged += 1;
        let write = &mut self.writes(key)[write];
        write.until.get_or_insert(now);
        write.is_certain = true;
    }

    /// It was told that the value is not there. `for_sure` is false where the disk may know better after a restart.
    pub fn refuse_write(&mut self, key: &Key, write: usize, for_sure: bool) {
        self.writes(key)[write].is_refused = for_sure;
    }

    /// The server has forgotten all that it was asked and its clients: it was done by now, or never will be.
    pub fn on_forgotten(&mut self, now: Duration) {
        for write in self.registers.values_mut().flatten() {
            write.until.get_or_insert(now);
        }
    }

    /// Somebody was shown the value: from now on it is as good as acknowledged.
    pub fn on_shown(&mut self, key: &Key, value: &str, now: Duration) {
        let mut same = self.writes(key).iter_mut().filter(|write| write.value == value && !write.is_refused);
        // Which of several it was is not known.
        if let (Some(write), None) = (same.next(), same.next()) {
            write.until.get_or_insert(now);
            write.is_certain = true;
        }
    }

    /// The values that a question asked at `asked` may be answered with now.
    pub fn possible(&self, key: &Key, asked: Duration) -> Vec<String> {
        let Some(writes) = self.registers.get(key) else {
            return initial(key).into_iter().map(|write| write.value).collect();
        };
        let superseded = |write: &Write| {
            let later = |other: &Write| {
                other.is_certain
                    && other.until.is_some_and(|until| until <= asked)
                    && write.until.is_some_and(|until| until < other.from)
            };
            writes.iter().any(later)
        };
        let possible = writes.iter().filter(|write| !write.is_refused && !superseded(write));
        possible.map(|write| write.value.clone()).collect()
    }

    /// Whether it may have been written after that.
    pub fn may_have_changed(&self, key: &Key, since: Duration) -> bool {
        let writes = self.registers.get(key).into_iter().flatten();
        writes.filter(|write| !write.is_refused).any(|write| write.until.is_none_or(|until| until >= since))
    }

    /// Whether it was written in between for sure.
    pub fn has_changed(&self, key: &Key, since: Duration, until: Duration) -> bool {
        let is_between = |write: &Write| write.from > since && write.until.is_some_and(|done| done < until);
        let writes = self.registers.get(key).into_iter().flatten();
        writes.filter(|write| write.is_certain).any(is_between)
    }

    /// A question asked at `asked` was answered so.
    pub fn on_read(&mut self, key: &Key, value: &str, asked: Duration, now: Duration) {
        self.reads += 1;
        let possible = self.possible(key, asked);
        if !possible.iter().any(|possible| possible == value) {
            let writes = self.writes(key).clone();
            self.fail(|| format!("{key:?} is {value:?}, which it cannot be: {possible:?}\n{writes:#?}"));
        }
        self.on_shown(key, value, now);
    }
}
