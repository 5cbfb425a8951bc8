//! A disk that is full, and one that is slow: what needs it waits or is refused, all else goes on, and it ends by itself.

mod process;
mod sockets;

use std::fs;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use process::{Place, Process};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use sockets::{Client, PASSWORD, PATIENCE, try_plain_session};
use whinchat::config::{Config, Listen};
use whinchat::server::Server;
use whinchat::store::RedbStore;

const JULIET: &str = "juliet@localhost";
const ROMEO: &str = "romeo@localhost";

fn roster_set(number: u64) -> String {
    let item = format!("<item jid='c{number}@localhost' name='{}'/>", "n".repeat(900));
    format!("<iq type='set' id='r{number}.'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
}

/// A message of one arrives at the other; returns how long that took.
fn chat(from: &mut Client, to: &mut Client, receiver: &str, number: u64) -> Duration {
    let start = Instant::now();
    let body = format!("<body>live {number}.</body>");
    from.send(&format!("<message to='{receiver}' type='chat' id='m{number}'>{body}</message>"));
    to.until(&body);
    start.elapsed()
}

/// Bounds every file that the process writes, or no longer.
fn bound_files(server: &Process, bytes: &str) {
    let done = Command::new("prlimit").args([format!("--pid={}", server.pid()), format!("--fsize={bytes}:")]).status();
    assert!(done.expect("prlimit, of util-linux").success());
}

fn lines(log: &str, piece: &str) -> usize {
    log.lines().filter(|line| line.contains(piece)).count()
}

/// The disk is full: a bound on the size of files, which the system answers with EFBIG where a full disk gives ENOSPC.
#[test]
fn a_full_disk_is_survived() {
    let place = Place::new("rates = false\nroster_items_max = 100000");
    for user in [JULIET, ROMEO] {
        place.add(user);
    }
    let check_full = |server: &Process, is_said: usize| {
        let mut juliet = try_plain_session(server.plain, JULIET, PASSWORD, "balcony").expect("a session");
        juliet.come();
        let mut romeo = try_plain_session(server.plain, ROMEO, PASSWORD, "orchard").expect("a session");
        romeo.come();
        let refused = (0..2000).find_map(|number| {
            juliet.send(&roster_set(number));
            let answer = juliet.until(&format!("id='r{number}.'"));
            answer.contains("type='error'").then_some(answer)
        });
        let refused = refused.expect("it gets full");
        assert!(refused.contains("type='wait'") && refused.contains("<resource-constraint"), "{refused}");
        for number in 0..20 {
            juliet.send(&roster_set(9000 + number));
            juliet.until(&format!("id='r{}.'", 9000 + number));
            chat(&mut juliet, &mut romeo, "romeo@localhost/orchard", number);
        }
        // Who is offline cannot be written to, and the sender learns it.
        drop(romeo);
        juliet
            .send(&format!("<message to='{ROMEO}' type='chat' id='off'><body>{}</body></message>", "x".repeat(50_000)));
        let refused = juliet.until("id='off'");
        assert!(refused.contains("type='error'") && refused.contains("type='wait'"), "{refused}");
        // Others can still log in.
        try_plain_session(server.plain, ROMEO, PASSWORD, "street").expect("a session");
        assert_eq!(place.status("store_failing"), 1);
        assert!(place.status("store_failures_total") > 20);
        assert!(place.run("status", "").1.contains("The disk does not take what is written"));
        let log = server.log();
        assert_eq!(lines(&log, "failed: "), is_said, "{log}");
        assert!(!log.contains("panicked"), "{log}");
        juliet
    };
    let server = Process::try_start(&place, "-c 0").expect("it serves");
    let bytes = fs::metadata(place.store()).expect("a store").len();
    bound_files(&server, &bytes.to_string());
    let mut juliet = check_full(&server, 1);

    bound_files(&server, "unlimited");
    let end = Instant::now() + PATIENCE;
    for number in 20_000.. {
        juliet.send(&roster_set(number));
        let answer = juliet.until(&format!("id='r{number}.'"));
        assert!(answer.contains("type='result'"), "{answer}");
        if lines(&server.log(), "works again") > 0 {
            break;
        }
        assert!(Instant::now() < end, "{}", server.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    place.wait_for_status("store_failing", |failing| failing == 0);
    assert_eq!(lines(&server.log(), "works again"), 1);
    drop(juliet);
    server.kill();

    // A server that starts on a full disk serves what it can. (`ulimit -f` counts blocks of 512 bytes, or of 1,024.)
    let blocks = fs::metadata(place.store()).expect("a store").len() / 1024;
    let server = Process::try_start(&place, &format!("-S -f {blocks}")).expect("it serves");
    check_full(&server, 1);
}

/// A file that takes its time.
#[derive(Debug)]
struct SlowDisk {
    inner: InMemoryBackend,
    /// Milliseconds for each sync.
    delay: Arc<AtomicU64>,
    syncs: Arc<AtomicUsize>,
}

impl StorageBackend for SlowDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed)));
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}

/// A disk that needs two seconds for each sync: who chats does not notice, archive or not; who wants something kept waits.
#[test]
fn a_slow_disk_delays_only_what_must_last() {
    const QUEUE_MAX: u64 = 64;
    let (delay, syncs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let place = Place::new("");
    let mut config = Config::try_out();
    config.data = place.0.clone();
    config.listen = Listen { c2s_plain: vec!["127.0.0.1:0".parse().expect("an address")], ..Listen::default() };
    config.password_scheme = whinchat::auth::PasswordScheme::Scram { iterations: 4096 };
    config.limits.rates = false;
    config.limits.store_queue_max = QUEUE_MAX as usize;
    let (to, from) = std::sync::mpsc::channel();
    let (slow, counted) = (delay.clone(), syncs.clone());
    let thread = std::thread::spawn(move || {
        let open = move || Ok(SlowDisk { inner: InMemoryBackend::new(), delay: slow.clone(), syncs: counted.clone() });
        let store = RedbStore::with_backend(open, &config).expect("a store");
        let mut server = Server::builder().config(config).store(Box::new(store)).build().expect("a server");
        to.send((server.handle(), server.local_addrs()[0].1)).expect("somebody waits for it");
        server.run().expect("no error");
    });
    let (handle, address) = from.recv().expect("a server");
    for user in [JULIET, ROMEO] {
        handle.user_add(user, PASSWORD).expect("an account");
    }
    let session = |user, resource| {
        let mut client = try_plain_session(address, user, PASSWORD, resource).expect("a session");
        client.come();
        client
    };
    let (mut juliet, mut romeo) = (session(JULIET, "balcony"), session(ROMEO, "orchard"));
    let mut keeper = session(JULIET, "desk");

    delay.store(2000, Ordering::Relaxed);
    keeper.send(&roster_set(1));
    let (start, before) = (Instant::now(), syncs.load(Ordering::Relaxed));
    let mut times: Vec<Duration> = Vec::new();
    // All of these are archived, too. Half of the queue stops those who fill it, so there are fewer of them.
    for number in 0..QUEUE_MAX / 4 {
        times.push(chat(&mut juliet, &mut romeo, "romeo@localhost/orchard", number));
    }
    // None of them is archived: as many as there is time for.
    while syncs.load(Ordering::Relaxed) == before && times.len() < 2000 {
        let number = times.len() as u64;
        let start = Instant::now();
        juliet
            .send(&format!("<message to='romeo@localhost/orchard' type='headline'><body>h{number}.</body></message>"));
        romeo.until(&format!("<body>h{number}.</body>"));
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} messages while one sync took its time: median {median:?}, most {most:?}", times.len());
    assert!(times.len() > 50 && median < Duration::from_millis(100) && most < Duration::from_millis(1500));
    keeper.until("id='r1.'");
    assert!(start.elapsed() > Duration::from_millis(1900), "what must last waits: {:?}", start.elapsed());

    // A flood to who is offline fills the queue to its bound, and no further.
    let mut flood = session(ROMEO, "flood");
    flood.socket.set_write_timeout(Some(Duration::from_millis(300))).expect("a deadline");
    drop((juliet, keeper));
    for number in 0..10 * QUEUE_MAX {
        let to = if number % 2 == 0 { JULIET } else { "nobody@localhost" };
        let _ = flood.try_send(&format!("<message to='{to}' type='chat'><body>{number}</body></message>"));
        if number % QUEUE_MAX == 0 {
            let status = handle.status().expect("counters");
            let waiting = status.iter().find(|(name, _)| *name == "store_requests_waiting").expect("a counter").1;
            assert!(waiting <= QUEUE_MAX, "{waiting} requests wait");
        }
    }
    delay.store(0, Ordering::Relaxed);
    chat(&mut flood, &mut romeo, "romeo@localhost/orchard", 1);
    handle.stop();
    thread.join().expect("no panic");
}
