//! The whole server without sockets: what a stanza costs between the bytes of one connection and those of another.
//!
//! The core is driven as the loop drives it, on a store in memory. Input is offered a stanza at a time and all output is taken
//! after each, so nothing here is helped by batches.

mod house;

use std::hint::black_box;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use whinchat::core::{ConnId, Limits, StoreRequest};
use whinchat::jid::BareJid;
use whinchat::store::Store;

use house::{HEADER, House, PASSWORD, message};

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    let mut house = House::new(false);
    let sender = house.log_in("romeo", "orchard");
    house.log_in("juliet", "balcony");
    let mut run = |house: &mut House, name: &str, stanza: &str, least: usize| {
        group.bench_function(name, |b| {
            b.iter(|| {
                house.give(sender, black_box(stanza.as_bytes()));
                let bytes = house.flush();
                assert!(bytes >= least, "{bytes} bytes");
            });
        });
    };
    let stanza = message("juliet@localhost/balcony");
    run(&mut house, "message to a resource", &stanza, stanza.len());
    let stanza = message("juliet@localhost");
    run(&mut house, "message to an account with 1 resource", &stanza, stanza.len());
    for resource in ["chamber", "tomb", "ball"] {
        house.log_in("juliet", resource);
    }
    run(&mut house, "message to an account with 4 resources", &stanza, 4 * stanza.len());
    run(&mut house, "message to nobody", &message("tybalt@localhost/street"), 100);
    run(&mut house, "ping", "<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", 20);
    group.finish();

    hooks(c);

    let mut group = c.benchmark_group("route in bulk");
    let bulk = message("juliet@localhost/balcony").repeat(16);
    group.throughput(Throughput::Elements(16));
    group.bench_function("16 messages in one read", |b| {
        b.iter(|| {
            house.give(sender, black_box(bulk.as_bytes()));
            assert!(house.flush() >= bulk.len());
        });
    });
    group.finish();
}

/// One message to one resource, with one more thing to be looked at each time.
fn hooks(c: &mut Criterion) {
    let mut group = c.benchmark_group("route with");
    group.throughput(Throughput::Elements(1));
    let stanza = message("juliet@localhost/balcony");
    let blocked: String = (0..100).map(|number| format!("<item jid='guest{number}@example.org'/>")).collect();
    let block = format!("<iq type='set' id='k'><block xmlns='urn:xmpp:blocking'>{blocked}</block></iq>");
    let carbons = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>".to_owned();
    let resume = "<enable xmlns='urn:xmpp:sm:3'/>".to_owned();
    let mut run = |name: &str, archive: bool, resources: usize, request: Option<&String>| {
        let mut config = House::config();
        config.domains[0].archive = archive;
        let mut house = House::with(&config, false);
        let sender = house.log_in("romeo", "orchard");
        let receiver = house.log_in("juliet", "balcony");
        for number in 1..resources {
            let other = house.log_in("juliet", &format!("chamber{number}"));
            house.ask(other, request.map_or("", String::as_str));
        }
        house.ask(receiver, request.map_or("", String::as_str));
        let mut handled = 0u32;
        group.bench_function(name, |b| {
            b.iter(|| {
                house.give(sender, black_box(stanza.as_bytes()));
                assert!(house.flush() >= stanza.len());
                if request == Some(&resume) {
                    handled += 1;
                    house.give(receiver, format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>").as_bytes());
                }
            });
        });
    };
    run("nothing", false, 1, None);
    run("the archive", true, 1, None);
    run("a list of 100 who are blocked", false, 1, Some(&block));
    run("carbons to 3 more", false, 4, Some(&carbons));
    run("stream management, acknowledged each time", false, 1, Some(&resume));
    group.finish();
}

fn presence(c: &mut Criterion) {
    let mut group = c.benchmark_group("presence");
    for contacts in [10, 100, 1000] {
        let mut house = House::new(false);
        let publisher = house.log_in("juliet", "balcony");
        for number in 0..contacts {
            let user = format!("guest{number}");
            let contact = house.log_in(&user, "ball");
            house.ask(contact, "<presence type='subscribe' to='juliet@localhost'/>");
            house.ask(publisher, &format!("<presence type='subscribed' to='{user}@localhost'/>"));
        }
        let stanza = "<presence><show>away</show><status>at the ball</status></presence>";
        group.throughput(Throughput::Elements(contacts));
        group.bench_with_input(BenchmarkId::new("to contacts", contacts), stanza, |b, stanza| {
            b.iter(|| {
                house.give(publisher, black_box(stanza.as_bytes()));
                assert!(house.flush() >= contacts as usize * stanza.len());
            });
        });
    }
    group.finish();
}

/// An open room at the domain of rooms, with so many in it: who speaks, and the rest.
fn fill_room(house: &mut House, occupants: usize) -> ConnId {
    let join = |number| format!("<presence to='hall@conference.localhost/nick{number}'>{MUC}</presence>");
    let speaker = house.log_in("juliet", "balcony");
    house.ask(speaker, &join(0));
    let instant = "<iq type='set' id='i' to='hall@conference.localhost'><query xmlns='http://jabber.org/protocol/muc#owner'>\
                   <x xmlns='jabber:x:data' type='submit'/></query></iq>";
    assert!(house.ask(speaker, instant).contains("result"));
    for number in 1..occupants {
        let conn = house.log_in(&format!("guest{number}"), "ball");
        house.give(conn, join(number).as_bytes());
        // Itself and the others in several turns.
        assert!(house.flush() >= number * 300);
    }
    speaker
}

const MUC: &str = "<x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x>";
const CROWDS: [usize; 4] = [10, 100, 1000, 5000];

/// What is said in a room, per occupant that hears it; and somebody who leaves and comes back, per occupant that is told.
fn room(c: &mut Criterion) {
    let mut group = c.benchmark_group("room");
    for occupants in CROWDS {
        let mut house = House::new(false);
        let speaker = fill_room(&mut house, occupants);
        let stanza = message("hall@conference.localhost").replace("'chat'", "'groupchat'");
        group.throughput(Throughput::Elements(occupants as u64));
        group.bench_with_input(BenchmarkId::new("fan-out", occupants), &stanza, |b, stanza| {
            b.iter(|| {
                house.give(speaker, black_box(stanza.as_bytes()));
                assert!(house.flush() >= occupants * stanza.len());
            });
        });
    }
    for occupants in CROWDS {
        let mut house = House::new(false);
        fill_room(&mut house, occupants);
        let guest = house.log_in("romeo", "orchard");
        let join = format!("<presence to='hall@conference.localhost/Romeo'>{MUC}</presence>");
        group.throughput(Throughput::Elements(occupants as u64));
        group.bench_with_input(BenchmarkId::new("join and leave", occupants), &join, |b, join| {
            b.iter(|| {
                house.give(guest, black_box(join.as_bytes()));
                assert!(house.flush() >= occupants * 300);
                house.give(guest, LEAVE);
                assert!(house.flush() >= occupants * 200);
            });
        });
    }
    group.finish();
    longest_step(c);
}

const LEAVE: &[u8] = b"<presence to='hall@conference.localhost/Romeo' type='unavailable'/>";

/// For how long the others wait at most while somebody enters: in slices as they are by default, and in one.
fn longest_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("room/longest step of a join");
    for (name, slice) in [("in slices", Limits::default().room_slice), ("in one", usize::MAX)] {
        for occupants in CROWDS {
            let mut config = House::config();
            config.limits.room_slice = slice;
            let mut house = House::with(&config, false);
            fill_room(&mut house, occupants);
            let guest = house.log_in("romeo", "orchard");
            let join = format!("<presence to='hall@conference.localhost/Romeo'>{MUC}</presence>");
            group.bench_with_input(BenchmarkId::new(name, occupants), &join, |b, join| {
                b.iter_custom(|count| {
                    // The least of several: in the longest of many steps it shows at once when something else runs.
                    let mut least = Duration::MAX;
                    for _ in 0..count {
                        let mut longest = Duration::ZERO;
                        let mut is_due = true;
                        let mut start = Instant::now();
                        house.give(guest, black_box(join.as_bytes()));
                        while is_due {
                            longest = longest.max(start.elapsed());
                            house.send();
                            start = Instant::now();
                            is_due = house.turn();
                        }
                        least = least.min(longest);
                        house.give(guest, LEAVE);
                        assert!(house.flush() >= occupants * 200);
                    }
                    least * u32::try_from(count).unwrap_or(u32::MAX)
                });
            });
        }
    }
    group.finish();
}

fn roster(c: &mut Criterion) {
    let mut house = House::new(false);
    let conn = house.log_in("juliet", "balcony");
    for number in 0..1000 {
        let user = BareJid::from_prepared("juliet@localhost");
        let jid = BareJid::from_prepared(&format!("guest{number}@example.org"));
        let groups = vec!["Verona".to_owned()];
        let put = StoreRequest::RosterPut { user, jid, name: format!("Guest {number}"), groups };
        assert!(house.store.apply(&[put])[0].is_ok());
    }
    // The account was active before; what it has is read when it is activated again.
    house.close(conn);
    let conn = house.log_in("juliet", "balcony");
    let request = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
    let mut group = c.benchmark_group("roster");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("get of 1000 items", |b| {
        b.iter(|| {
            house.give(conn, black_box(request.as_bytes()));
            assert!(house.flush() > 50_000);
        });
    });
    group.finish();
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// Client-final message for a challenge; some microseconds of what is measured are the client's.
fn answer(challenge: &str, salted: &mut Vec<u8>) -> String {
    let start = challenge.find('>').map_or(0, |at| at + 1);
    let end = challenge.rfind("</").unwrap_or(challenge.len());
    let server_first = String::from_utf8(STANDARD.decode(&challenge[start..end]).expect("base64")).expect("text");
    let field = |name: &str| server_first.split(',').find_map(|field| field.strip_prefix(name)).expect("a field");
    if salted.is_empty() {
        let salt = STANDARD.decode(field("s=")).expect("base64");
        salted.resize(32, 0);
        pbkdf2::pbkdf2_hmac::<Sha256>(PASSWORD.as_bytes(), &salt, field("i=").parse().expect("a number"), salted);
    }
    let bare = format!("c=biws,r={}", field("r="));
    let client_key = hmac(salted, b"Client Key");
    let signature = hmac(&Sha256::digest(&client_key), format!("n=juliet,r=cnonce,{server_first},{bare}").as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
    STANDARD.encode(format!("{bare},p={}", STANDARD.encode(proof)))
}

fn login(c: &mut Criterion) {
    let mut house = House::new(true);
    let user = BareJid::from_prepared("juliet@localhost");
    let create = StoreRequest::AccountCreate { user, password: PASSWORD.to_owned().into(), at: house.now.utc };
    assert!(house.store.apply(&[create])[0].is_ok());
    let first = STANDARD.encode("n,,n=juliet,r=cnonce");
    let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>");
    let mut salted = Vec::new();
    let mut generation = 0;
    c.bench_function("login/SCRAM-SHA-256, bind, close", |b| {
        b.iter(|| {
            generation += 1;
            let conn = ConnId { slot: 0, generation };
            house.connect(conn);
            house.ask(conn, HEADER);
            let response = answer(&house.ask(conn, &auth), &mut salted);
            let response = format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{response}</response>");
            assert!(house.ask(conn, &response).contains("<success"));
            house.bind(conn, "balcony");
            house.close(conn);
        });
    });
}

criterion_group!(benches, route, presence, room, roster, login);
criterion_main!(benches);
