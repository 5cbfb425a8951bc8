//! Simulated lives of a server, each from one seed; see `sim/` for what happens in one and what is held against it.
//!
//! `WHINCHAT_SEEDS=5000` lives through so many (from `WHINCHAT_FROM` on), `WHINCHAT_SEED=7` through that one, `WHINCHAT_TRACE=1` shows
//! what the devices send and get.
//!
//! # Mistakes that were planted
//!
//! Those of [`Plant`] are planted again in every run, so that an oracle that has gone blind is found too; most are found with the
//! first seed. In the server itself were planted, and found:
//!
//! | mistake | where | found with |
//! |---|---|---|
//! | a message is acknowledged before it is stored | `handlers/sm`: `h` is what was received | 13 of 30 seeds |
//! | offline messages are delivered and not deleted | `handlers/offline`: nothing is deleted | each of 30 seeds |
//! | two messages change places | `handlers/offline`: a page is written backwards | each of 30 seeds |
//! | a ban leaves who is in the room inside | `handlers/muc/admin`: no code for outcasts | 3 of 30 seeds |
//! | who loses his session leaves the room in silence | `handlers/muc/presence`: not announced if it is over | each of 20 seeds |
//! | he stays in the room | `handlers/muc`: one of his rooms is left out | 19 of 20 seeds |
//! | nobody is told who lost his voice | `handlers/muc/admin`: not announced for visitors | 6 of 20 seeds |
//! | one session of who is put out stays behind | `handlers/muc/room`: only the first is taken out | 13 of 40 seeds |

#[path = "sim/mod.rs"]
mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::{Medium, Plant, Report, run};

const SEEDS: u64 = 80;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Every eighth life is on a disk with redb's own code on top.
fn medium(seed: u64) -> Medium {
    if seed.is_multiple_of(8) { Medium::Redb } else { Medium::Memory }
}

fn live(seed: u64, plant: Option<Plant>) -> (Report, Result<(), String>) {
    catch_unwind(AssertUnwindSafe(|| run(seed, medium(seed), plant))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        (Report::default(), Err(format!("panic: {}", message.unwrap_or("without a message"))))
    })
}

#[test]
fn promises_are_kept() {
    let seeds: Vec<u64> = match number("WHINCHAT_SEED") {
        Some(seed) => vec![seed],
        None => {
            let from = number("WHINCHAT_FROM").unwrap_or(1);
            (from..from + number("WHINCHAT_SEEDS").unwrap_or(SEEDS)).collect()
        }
    };
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let total = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let (report, result) = live(*seed, None);
                    total.lock().expect("no panic here").add(&report);
                    if let Err(what) = result {
                        eprintln!("WHINCHAT_SEED={seed}: {what}");
                        failures.lock().expect("no panic here").push((*seed, what));
                    }
                }
            });
        }
    });
    println!("{} lives\n{}", seeds.len(), total.into_inner().expect("no panic there"));
    let mut failures = failures.into_inner().expect("no panic there");
    failures.sort();
    let shown: Vec<String> =
        failures.iter().take(10).map(|(seed, what)| format!("WHINCHAT_SEED={seed}\n{what}")).collect();
    assert!(failures.is_empty(), "{} of {} seeds failed\n\n{}\n", failures.len(), seeds.len(), shown.join("\n\n"));
}

/// How many seeds it takes to find a mistake that was planted.
fn seeds_to_find(plant: Plant) -> Option<(u64, String)> {
    let broken = |seed| Some((seed, live(seed, Some(plant)).1.err()?));
    (1..=25).find_map(broken).map(|(seed, what)| (seed, what.chars().take(120).collect()))
}

#[test]
fn planted_mistakes_are_found() {
    for plant in Plant::ALL {
        let found = seeds_to_find(plant);
        println!("{plant:?}: {found:?}");
        assert!(found.is_some(), "{plant:?} was not found");
    }
}
