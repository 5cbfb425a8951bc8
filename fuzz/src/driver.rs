//! Runs the targets with the stable toolchain: entries of the corpora, changed at random.
//!
//! `driver [TARGET…]`; `WHINCHAT_FUZZ_SECONDS` is how long in all (60), `WHINCHAT_FUZZ_SEED` what chance is made of (0: taken
//! from the clock). A failing input is saved in `artifacts/`, which cargo-fuzz uses too; `driver TARGET FILE` plays it again.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use whinchat_fuzz::{TARGETS, Target};

/// A single execution that takes longer hangs.
const HANG: Duration = Duration::from_secs(10);
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// What is put into inputs: words that matter to some target.
const WORDS: &[&str] = &[
    "<message to='romeo@montague.test' type='chat' id='m'><body>x</body></message>",
    "<presence/>",
    "<presence type='unavailable'/>",
    "<presence to='juliet@capulet.test' type='subscribe'/>",
    "<iq type='get' id='q'><query xmlns='jabber:iq:roster'/></iq>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='1'/>",
    "<inactive xmlns='urn:xmpp:csi:0'/>",
    "</stream:stream>",
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='capulet.test' version='1.0'>",
    "<![CDATA[",
    "]]>",
    "<!--",
    "<?",
    "&lt;",
    "&#x10FFFF;",
    "&#0;",
    "xmlns=''",
    "xmlns:p='u'",
    "p:a='1'",
    "xml:lang='de'",
    " to='room@conference.capulet.test/nick'",
    " from='nurse@capulet.test'",
    " type='error'",
    " type='groupchat'",
    "<x xmlns='http://jabber.org/protocol/muc'/>",
    "\u{FFFE}",
    "\u{0}",
    "ß",
    "İ",
    "\u{0301}",
    "@",
    "/",
    ".",
    "[::1]",
    "n,,n=juliet,r=x",
    "p=tls-exporter,,",
    "y,,",
    "c=biws,r=",
    ",m=x",
    "\0juliet\0secret",
    "[limits]",
    "[[domain]]",
    "name = \"a.test\"",
    "= true",
    "= 0",
    "= -1",
    "\"\"\"",
];

/// Sebastiano Vigna's generator: a seed, a sequence.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A place in something that long, and a part that begins there.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let bits = self.below(12);
        start..(start + 1 + self.below(1 << bits)).min(length)
    }
}

/// One change.
fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut SplitMix) {
    let at = random.below(input.len() + 1);
    match random.below(9) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            let byte = random.next() as u8;
            match input.get_mut(at) {
                Some(old) => *old = byte,
                None => input.push(byte),
            }
        }
        2 => input.insert(at, if random.below(4) == 0 { 0xF5 + random.below(11) as u8 } else { random.next() as u8 }),
        3 => drop(input.drain(random.part(input.len()))),
        4 => {
            let part = input[random.part(input.len())].to_vec();
            input.splice(at..at, part);
        }
        5 | 6 => {
            let other = &corpus[random.below(corpus.len())];
            let part = &other[random.part(other.len())];
            let replaced = if random.below(2) == 0 { at } else { (at + part.len()).min(input.len()) };
            input.splice(at..replaced, part.iter().copied());
        }
        7 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].bytes())),
        _ => {
            // Both ends of what numbers may be.
            if let Some(byte) = input.get_mut(at) {
                *byte = [0, 1, 0x7F, 0x80, 0xFF, b'0', b'9', b'<'][random.below(8)];
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = home().join("corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // In one order, so that a seed says all.
    files.sort();
    let entries: Vec<Vec<u8>> = files.iter().filter_map(|file| std::fs::read(file).ok()).collect();
    assert!(!entries.is_empty(), "{} has no entries", folder.display());
    entries
}

/// What runs now, and since when; for whoever finds that it hangs.
static NOW: Mutex<Option<(Target, Vec<u8>, Instant)>> = Mutex::new(None);

fn save(target: &str, kind: &str, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let folder = home().join("artifacts").join(target);
    let file = folder.join(format!("{kind}-{:016x}", hasher.finish()));
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input)).expect("the failing input is saved");
    file
}

fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(HANG / 10);
            let now = NOW.lock().expect("nobody panics with it");
            if let Some((target, input, since)) = &*now
                && since.elapsed() > HANG
            {
                let file = save(target.0, "hang", input);
                eprintln!("{}: HANGS. {}", target.0, file.display());
                std::process::exit(1);
            }
        }
    });
}

/// Whether the target takes the input.
fn execute(target: Target, input: &[u8]) -> bool {
    *NOW.lock().expect("nobody panics with it") = Some((target, input.to_vec(), Instant::now()));
    let result = catch_unwind(AssertUnwindSafe(|| target.1(input)));
    *NOW.lock().expect("nobody panics with it") = None;
    if result.is_err() {
        eprintln!("{}: FAILED. {}", target.0, save(target.0, "crash", input).display());
    }
    result.is_ok()
}

fn fuzz(target: Target, time: Duration, most: u64, seed: u64) -> bool {
    let corpus = corpus(target.0);
    let mut random = SplitMix(seed);
    let (begin, mut executions) = (Instant::now(), 0u64);
    let mut good = corpus.iter().all(|entry| {
        executions += 1;
        execute(target, entry)
    });
    while good && executions < most && begin.elapsed() < time {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..1 + random.below(6) {
            mutate(&mut input, &corpus, &mut random);
        }
        good = execute(target, &input);
        executions += 1;
    }
    println!("{}: {executions} executions in {:.1} s, seed {seed}", target.0, begin.elapsed().as_secs_f64());
    good
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (files, names): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| Path::new(word).is_file());
    let known = |name: &String| TARGETS.into_iter().find(|(known, _)| known == name);
    let wanted: Vec<Target> = match names.is_empty() {
        true => TARGETS.to_vec(),
        false => {
            names.into_iter().map(|name| known(name).unwrap_or_else(|| panic!("there is no target {name}"))).collect()
        }
    };
    watch();
    if !files.is_empty() {
        let play = |file: &&String| execute(wanted[0], &std::fs::read(file).expect("a file"));
        return ExitCode::from(u8::from(!files.iter().all(play)));
    }
    let seconds = number("WHINCHAT_FUZZ_SECONDS", 60);
    let seed = match number("WHINCHAT_FUZZ_SEED", 0) {
        0 => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64),
        seed => seed,
    };
    println!("seed {seed}");
    let each = Duration::from_secs(seconds) / wanted.len() as u32;
    let most = number("WHINCHAT_FUZZ_EXECUTIONS", u64::MAX);
    let good = wanted.into_iter().all(|target| fuzz(target, each, most, seed));
    ExitCode::from(u8::from(!good))
}
