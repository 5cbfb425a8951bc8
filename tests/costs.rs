//! What does not depend on the machine and must not grow: counted here, compared with `benches/baseline.toml`. What only the
//! real process shows is counted by `benches/ratchet.py`.

#[path = "../benches/house/mod.rs"]
mod house;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use whinchat::auth::{ITERATIONS_MIN, PasswordScheme};
use whinchat::config::Config;
use whinchat::core::archive::{ArchiveId, Keep};
use whinchat::core::{StoreRequest, UtcTime};
use whinchat::jid::BareJid;
use whinchat::store::{RedbStore, Store};

use house::{House, message};

/// Compares with the baseline: 5 % more is refused.
fn check(name: &str, measured: f64) {
    let entry = include_str!("../benches/baseline.toml").split_once(&format!("\n[{name}]\n"));
    let line = entry.and_then(|(_, entry)| entry.lines().find_map(|line| line.strip_prefix("value = ")));
    let value: Option<f64> = line.and_then(|value| value.parse().ok());
    let value = value.unwrap_or_else(|| panic!("benches/baseline.toml has no {name}; it is {measured:.3}"));
    println!("{name}: {measured:.3}, baseline {value:.3}");
    assert!(
        measured <= value * 1.05,
        "{name} was {value:.3} and is {measured:.3}; if that is the price of something, say of what in benches/baseline.toml"
    );
}

/// Allocations for each of 1,000 stanzas, once buffers have grown to what they need.
fn allocations(house: &mut House, mut run: impl FnMut(&mut House)) -> f64 {
    (0..100).for_each(|_| run(house));
    let info = allocation_counter::measure(|| (0..1000).for_each(|_| run(house)));
    info.count_total as f64 / 1000.0
}

#[test]
fn allocations_per_stanza() {
    let mut config = House::config();
    config.domains[0].archive = false;
    let mut house = House::with(&config, false);
    let sender = house.log_in("romeo", "orchard");
    house.log_in("juliet", "balcony");
    let stanza = message("juliet@localhost/balcony");
    let routed = allocations(&mut house, |house| {
        house.give(sender, stanza.as_bytes());
        assert!(house.flush() >= stanza.len());
    });
    check("allocations_per_message", routed);

    let contacts = 20;
    for number in 0..contacts {
        let user = format!("guest{number}");
        let contact = house.log_in(&user, "ball");
        house.ask(contact, "<presence type='subscribe' to='romeo@localhost'/>");
        house.ask(sender, &format!("<presence type='subscribed' to='{user}@localhost'/>"));
    }
    let stanza = "<presence><show>away</show><status>at the ball</status></presence>";
    let told = allocations(&mut house, |house| {
        house.give(sender, stanza.as_bytes());
        assert!(house.flush() >= contacts * stanza.len());
    });
    check("allocations_per_presence_to_20", told);
}

/// What a contact takes in the memory of who is here: a name and one of a few groups each, as people have.
#[test]
fn bytes_per_roster_item() {
    const ITEMS: usize = 1000;
    let mut house = House::with(&House::config(), false);
    for number in 0..ITEMS {
        let put = StoreRequest::RosterPut {
            user: BareJid::from_prepared("romeo@localhost"),
            jid: BareJid::from_prepared(&format!("contact{number}@localhost")),
            name: format!("Contact {number}"),
            groups: vec![["Montague", "Capulet", "Verona"][number % 3].to_owned()],
        };
        let account = BareJid::from_prepared("romeo@localhost");
        let create = StoreRequest::AccountCreate { user: account, password: String::new().into(), at: UtcTime(0) };
        assert!(house.store.apply(&[create, put])[1].is_ok());
    }
    // What grows with the first who comes is not of the items.
    for user in ["tybalt", "paris"] {
        house.log_in(user, "street");
    }
    let [without, with] = ["juliet", "romeo"].map(|user| {
        allocation_counter::measure(|| {
            let conn = house.log_in(user, "orchard");
            assert!(house.is_quiet(conn));
        })
    });
    check("roster_item_bytes", (with.bytes_current - without.bytes_current) as f64 / ITEMS as f64);
}

/// What a store asked of its files.
#[derive(Default)]
struct Asked {
    syncs: AtomicU64,
    written: AtomicU64,
}

#[derive(Clone)]
struct Counted(Arc<InMemoryBackend>, Arc<Asked>);

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::Relaxed);
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.0.write(offset, data)
    }
}

const ACCOUNTS: u64 = 50;

fn account(number: u64) -> BareJid {
    BareJid::from_prepared(&format!("user{}@localhost", number % ACCOUNTS))
}

/// The `number`-th message, between two of the accounts in an order without a pattern.
fn archived(number: u64) -> StoreRequest {
    StoreRequest::ArchivePut {
        id: ArchiveId::least_at(UtcTime(number)),
        from: account(number * 7919).into(),
        to: account(number * 104_729 + 1).into(),
        sender: Keep::Yes,
        receiver: Keep::Yes,
        offline: false,
        stanza: message("juliet@localhost").into_bytes(),
    }
}

#[test]
fn what_a_stored_message_costs_the_disk() {
    let config = Config { password_scheme: PasswordScheme::Scram { iterations: ITERATIONS_MIN }, ..House::config() };
    let asked = Arc::<Asked>::default();
    let [given, journal] = [(); 2].map(|()| Counted(Arc::default(), asked.clone()));
    let mut store = RedbStore::with_journal(move || Ok(given.clone()), journal, &config).expect("a new store");
    let create = |number| StoreRequest::AccountCreate {
        user: account(number),
        password: house::PASSWORD.to_owned().into(),
        at: UtcTime(0),
    };
    assert!(store.apply(&(0..ACCOUNTS).map(create).collect::<Vec<_>>()).iter().all(Result::is_ok));
    let mut next = 0;
    let mut put = |batch: u64| {
        let requests: Vec<_> = (next + 1..=next + batch).map(archived).collect();
        next += batch;
        assert!(store.apply(&requests).iter().all(Result::is_ok));
    };
    (0..10).for_each(|_| put(200));
    // So many commits that what the journal has gathered is written out some times.
    for (batch, commits) in [(1u64, 1000u64), (16, 100), (256, 12)] {
        let (syncs, written) = (asked.syncs.load(Ordering::Relaxed), asked.written.load(Ordering::Relaxed));
        (0..commits).for_each(|_| put(batch));
        let syncs = (asked.syncs.load(Ordering::Relaxed) - syncs) as f64;
        let written = (asked.written.load(Ordering::Relaxed) - written) as f64;
        check(&format!("syncs_per_commit_of_{batch}"), syncs / commits as f64);
        check(&format!("written_bytes_per_message_of_{batch}"), written / (batch * commits) as f64);
    }
}
