//! Plays every `tests/scripts/*.xmpp`: whole, byte by byte and in seeded pieces, in memory and on redb.
//!
//! `WHINCHAT_SCRIPT=roster` plays only that one, `WHINCHAT_SEED=7` cuts pieces by that seed only.

mod player;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use player::{Medium, Pace, announced, play, trouble};

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let wanted = std::env::var("WHINCHAT_SCRIPT").ok();
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of scripts")
        .map(|entry| entry.expect("an entry of it").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xmpp"))
        .filter(|path| wanted.as_deref().is_none_or(|wanted| path.file_stem().is_some_and(|stem| stem == wanted)))
        .collect();
    assert!(!scripts.is_empty(), "no script {wanted:?}");
    scripts.sort();
    scripts
}

fn check(medium: Medium, pace: Pace) {
    let failures: Vec<String> = scripts().iter().filter_map(|path| play(path, medium, pace).err()).collect();
    assert!(failures.is_empty(), "{} failed\n\n{}\n", failures.len(), failures.join("\n\n"));
}

fn seed() -> Option<u64> {
    std::env::var("WHINCHAT_SEED").ok().map(|seed| seed.parse().expect("WHINCHAT_SEED is a number"))
}

/// By `WHINCHAT_SEED` alone, or by as many seeds as are asked for.
fn check_pieces(medium: Medium, seeds: u64) {
    match seed() {
        Some(seed) => check(medium, Pace::Pieces(seed)),
        None => (1..=seeds).for_each(|seed| check(medium, Pace::Pieces(seed))),
    }
}

#[test]
fn whole_in_memory() {
    check(Medium::Memory, Pace::Whole);
}

#[test]
fn whole_on_redb() {
    check(Medium::Redb, Pace::Whole);
}

#[test]
fn byte_by_byte_in_memory() {
    check(Medium::Memory, Pace::Bytes);
}

#[test]
fn byte_by_byte_on_redb() {
    check(Medium::Redb, Pace::Bytes);
}

#[test]
fn in_pieces_in_memory() {
    check_pieces(Medium::Memory, 4);
}

#[test]
fn in_pieces_on_redb() {
    check_pieces(Medium::Redb, 2);
}

/// Failing commits and lost sockets, wherever chance puts them into a script.
#[test]
fn in_trouble() {
    let seeds = match seed() {
        Some(seed) => seed..=seed,
        None => 1..=6,
    };
    let failures: Vec<String> =
        seeds.flat_map(|seed| scripts().into_iter().filter_map(move |path| trouble(&path, seed).err())).collect();
    assert!(failures.is_empty(), "{} failed\n\n{}\n", failures.len(), failures.join("\n\n"));
}

/// What `tests/scripts/features.xmpp` calls, and what is announced, are the same; each is called, and none is refused as unknown.
#[test]
fn what_is_announced_is_called() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/features.xmpp");
    let places = [
        ("host", "capulet.test"),
        ("account", "juliet@capulet.test"),
        ("node", "juliet@capulet.test?urn:example:tune"),
        ("rooms", "conference.capulet.test"),
        ("room", "hall@conference.capulet.test"),
        ("commands", "capulet.test?http://jabber.org/protocol/admin#add-user"),
    ];
    let announced = announced(&path, &places).unwrap_or_else(|error| panic!("{error}"));
    let text = std::fs::read_to_string(&path).expect("the script");
    let mut called = BTreeSet::new();
    for section in text.split("\n== ").skip(1) {
        let (title, steps) = section.split_once('\n').unwrap_or((section, ""));
        let (place, names) = title.split_once(": ").expect("a place");
        called.extend(names.split(", ").map(|name| format!("{place}: {name}")));
        let called_here = steps.lines().any(|line| line.starts_with("C") || line.starts_with("client"));
        assert!(called_here, "{title}: nothing is sent");
        for condition in ["service-unavailable", "feature-not-implemented"] {
            assert!(!steps.contains(condition), "{title}: {condition}");
        }
    }
    let missing: Vec<_> = announced.difference(&called).collect();
    let silent: Vec<_> = called.difference(&announced).collect();
    assert!(
        missing.is_empty() && silent.is_empty(),
        "announced and not called: {missing:#?}\ncalled and not announced: {silent:#?}"
    );
}
