//! A file that somebody else has written into, or cut short: it opens and all that it answers is right, or it is refused.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::apply::{Engine, Tx};
use super::crash_tests::{self, Disk};
use super::tests::{Dice, any_request, config, dump, jid, show};
use super::{MemoryStore, OpenCause, OpenError, RedbStore, Store, sum};
use crate::core::effects::StoreRequest as R;

/// Of each kind of damage in the ordinary run; `WHINCHAT_DAMAGES` says otherwise.
const DAMAGES: u64 = 150;

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The rest is gone.
    Cut,
    /// Bits of one byte are others.
    Byte,
    /// A sector holds zeros.
    Zeros,
    /// A sector holds what was meant for another one.
    Misplaced,
    /// A page is an older or another one.
    Page,
}

impl Damage {
    const ALL: [Damage; 5] = [Damage::Cut, Damage::Byte, Damage::Zeros, Damage::Misplaced, Damage::Page];

    fn happen(self, image: &mut Vec<u8>, dice: &mut Dice) {
        let len = image.len() as u64;
        let mut move_block = |bytes: u64| {
            let (from, to) = (dice.below(len / bytes) * bytes, dice.below(len / bytes) * bytes);
            let block = image[from as usize..(from + bytes) as usize].to_vec();
            image[to as usize..(to + bytes) as usize].copy_from_slice(&block);
        };
        match self {
            Damage::Cut => image.truncate(1 + dice.below(len - 1) as usize),
            Damage::Byte => {
                // The head matters most, and is a small part.
                let at = if dice.below(4) == 0 { dice.below(512) } else { dice.below(len) };
                image[at as usize] ^= 1 + dice.below(255) as u8;
            }
            Damage::Zeros => {
                let at = dice.below(len / 512) as usize * 512;
                image[at..at + 512].fill(0);
            }
            Damage::Misplaced => move_block(512),
            Damage::Page => move_block(4096),
        }
    }
}

/// A file with something in every table, as it is after a stop or a kill, and what it holds.
fn filled(is_killed: bool) -> ([Vec<u8>; 2], MemoryStore) {
    let (disk, mut store, mut model) = crash_tests::begin();
    let mut dice = Dice::new(7);
    for _ in 0..40 {
        let batch = crash_tests::any_batch(&mut dice);
        store.apply(&batch);
        model.apply(&batch);
    }
    let images = || [disk.image(), disk.journal().image()];
    let killed = images();
    drop(store);
    (if is_killed { killed } else { images() }, model)
}

/// Requests that change nothing, about all there is.
fn questions() -> Vec<R> {
    let mut dice = Dice::new(11);
    let requests = std::iter::repeat_with(|| any_request(&mut dice));
    requests.filter(|request| !request.is_slow() && !request.may_write()).take(60).collect()
}

fn reopen(images: [Vec<u8>; 2], checked_bytes_max: u64) -> Result<RedbStore, OpenError> {
    crash_tests::open_checking(&Disk::holding_both(images), checked_bytes_max)
}

/// The error names the file and what to do.
fn check_sentence(error: &OpenError, what: &str) {
    let text = error.to_string();
    assert!(text.starts_with("a/file "), "{what}: {text}");
    let remedy = match error.cause() {
        OpenCause::Damaged(_) => "restore a backup",
        OpenCause::Foreign => "move it away",
        // The number of the format is not what it was.
        OpenCause::Newer { .. } => "run the newer version",
        OpenCause::Locked | OpenCause::Empty | OpenCause::WithoutJournal | OpenCause::Io(_) => "nothing of the kind",
    };
    assert!(text.contains(remedy), "{what}: {text}");
}

/// Calls `check` with each store that opens in spite of its damage; returns how many did and how many were refused.
fn damaged(mut check: impl FnMut(&mut RedbStore, &mut MemoryStore, &str)) -> (u64, u64) {
    let count = std::env::var("WHINCHAT_DAMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(DAMAGES);
    let (mut opened, mut refused) = (0, 0);
    for is_killed in [false, true] {
        let (images, model) = filled(is_killed);
        for (kind, damage) in (1..).zip(Damage::ALL) {
            for seed in 0..count {
                let what = format!("{damage:?} {seed}, killed: {is_killed}");
                let mut images = images.clone();
                damage.happen(&mut images[0], &mut Dice::new((kind << 32) + seed + 1));
                let store = catch_unwind(AssertUnwindSafe(|| reopen(images, u64::MAX)));
                match store.unwrap_or_else(|_| panic!("{what}: a panic")) {
                    Err(error) => {
                        refused += 1;
                        check_sentence(&error, &what);
                    }
                    Ok(mut store) => {
                        opened += 1;
                        check(&mut store, &mut model.reopened(&config()), &what);
                        let closed = catch_unwind(AssertUnwindSafe(|| drop(store)));
                        assert!(closed.is_ok(), "{what}: a panic while it is closed");
                    }
                }
            }
        }
    }
    (opened, refused)
}

#[test]
fn a_damaged_file_is_refused_or_right() {
    let questions = questions();
    let (opened, refused) = damaged(|store, model, what| {
        for round in 0..2 {
            let (got, expected) = (store.apply(&questions), model.apply(&questions));
            for ((got, expected), question) in got.iter().zip(&expected).zip(&questions) {
                assert_eq!(show(got), show(expected), "{what}, round {round}, {question:?}");
            }
            // What is written from now on damages nothing else.
            let change = [R::LastSeen { user: jid("a"), at: Default::default(), status: "x".repeat(3000) }];
            assert_eq!(show(&store.apply(&change)[0]), show(&model.apply(&change)[0]), "{what}");
        }
        assert_eq!(dump(store.engine()), dump(model.engine()), "{what}");
    });
    assert!(opened > 100 && refused > 100, "{opened} opened, {refused} refused");
}

/// A file that is too large to be checked whole: a row that is not what was stored is refused, all others are right.
#[test]
fn a_damaged_row_is_not_used() {
    let ([image, journal], mut model) = filled(false);
    let truth = dump(model.engine());
    let (mut refused, mut dice) = (0, Dice::new(3));
    for (table, key, value) in &truth {
        let row = sum::add(*table, key, value);
        for at in memchr::memmem::find_iter(&image, &row) {
            let mut image = image.clone();
            image[at + dice.below(row.len() as u64) as usize] ^= 1 + dice.below(255) as u8;
            let mut store = reopen([image, journal.clone()], 0).expect("opens");
            let mut found = Vec::new();
            let mut read = |tx: &mut dyn Tx| {
                let got = tx.get(*table, key);
                // Where it was found may be a page that is no longer used.
                assert!(got.as_ref().is_ok_and(|got| got.as_deref() == Some(value)) || got.is_err(), "{got:?}");
                refused += u32::from(got.is_err());
                tx.scan(*table, &[], &[0xff; 8], &mut |key, value| {
                    found.push((*table, key.to_vec(), value.to_vec()));
                    ControlFlow::Continue(())
                })
            };
            let result = store.engine().transact(false, &mut read);
            assert!(found.iter().all(|row| truth.contains(row)), "{table:?} {key:?}: {result:?}");
            // Who looks over all of it finds the same, and goes on after it has closed the file in between.
            let seen = store.engine().transact(false, &mut |tx| tx.get(*table, key).map(drop));
            let looked = std::iter::repeat_with(|| store.look_over()).find(|looked| looked.is_done);
            let looked = looked.expect("an end");
            assert_eq!(looked.damaged > 0, seen.is_err(), "{table:?} {key:?}: {looked:?}");
            assert!(looked.rows as usize > truth.len(), "the rows of meta too");
        }
    }
    assert!(refused as usize >= truth.len(), "{refused} of {} rows", truth.len());
}
