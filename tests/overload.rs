//! The real program against those who want its memory: it stays below `memory_max`, and honest clients chat all the while.

mod process;
mod sockets;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use process::{Place, Process};
use sockets::{Client, PASSWORD, PATIENCE, try_plain_session};

const MEMORY_MAX: u64 = 32 << 20;

/// A server with 32 MB, and two who chat.
struct Besieged {
    place: Place,
    server: Process,
    juliet: Client,
    romeo: Client,
    count: u64,
    most: u64,
}

impl Besieged {
    fn new(accounts: usize, limits: &str) -> Besieged {
        let place = Place::new(&format!(
            "memory_max = \"32M\"\nconnections_per_address_max = 5000\nstore_cache_bytes = \"1M\"\n{limits}"
        ));
        for user in ["juliet@localhost", "romeo@localhost"] {
            place.add(user);
        }
        let server = Process::start(&place);
        for number in 0..accounts {
            register(server.plain, &format!("user{number}"));
        }
        let chatter = |user: &str| {
            let mut client = try_plain_session(server.plain, user, PASSWORD, "honest").expect("a session");
            client.come();
            client
        };
        let (juliet, romeo) = (chatter("juliet@localhost"), chatter("romeo@localhost"));
        Besieged { juliet, romeo, place, server, count: 0, most: 0 }
    }

    /// A message from one to the other arrives, and the server is as small as it promises to be.
    fn check(&mut self) {
        self.count += 1;
        let body = format!("<body>wherefore {}</body>", self.count);
        self.juliet.send(&format!("<message to='romeo@localhost/honest' type='chat'>{body}</message>"));
        let start = Instant::now();
        self.romeo.until(&body);
        assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
        let held = self.server.anonymous();
        self.most = self.most.max(held);
        assert!(held < MEMORY_MAX, "{held} bytes, {}", self.place.run("status", "").1);
    }

    fn tell(&self, what: &str) {
        println!(
            "{what}: {} KB at most, {} KB with the program's own pages",
            self.most / 1024,
            self.server.resident().1 / 1024
        );
    }
}

fn register(address: SocketAddr, user: &str) {
    let mut client = Client::connect(address);
    client.open("localhost");
    client.until("</stream:features>");
    let query = format!("<username>{user}</username><password>{PASSWORD}</password>");
    client.send(&format!("<iq type='set' id='n'><query xmlns='jabber:iq:register'>{query}</query></iq>"));
    assert!(client.until("id='n'").contains("type='result'"));
}

const QUICK: &str = "rates = false\nregistrations_per_hour = 1000\nresume_time = \"1h\"";

#[test]
fn those_who_never_read() {
    let mut besieged = Besieged::new(4, QUICK);
    let address = besieged.server.plain;
    let mut sessions = Vec::new();
    // Each asks again and again for the 100 KB that its account has put there, and takes none of it.
    for round in 0..60 {
        let user = format!("user{}@localhost", round % 4);
        let Ok(mut client) = try_plain_session(address, &user, PASSWORD, &format!("r{round}")) else { continue };
        if round < 4 {
            let card = format!("<vCard xmlns='vcard-temp'><NOTE>{}</NOTE></vCard>", "x".repeat(100_000));
            client.send(&format!("<iq type='set' id='v'>{card}</iq>"));
            client.until("id='v'");
        }
        client.socket.set_write_timeout(Some(Duration::from_millis(50))).expect("a deadline");
        let _ = client.try_send(&"<iq type='get' id='g'><vCard xmlns='vcard-temp'/></iq>".repeat(200));
        sessions.push(client);
        besieged.check();
    }
    // Others fill what they do not read.
    let message = |round: usize| {
        let body = "x".repeat(60_000);
        format!("<message to='user{}@localhost' type='headline'><body>{body}</body></message>", round % 4)
    };
    for client in &mut sessions {
        let _ = client.try_send("<presence/>");
    }
    let mut floods: Vec<Client> = (0..4)
        .filter_map(|number| try_plain_session(address, &format!("user{number}@localhost"), PASSWORD, "flood").ok())
        .collect();
    for round in 0..60 {
        for flood in &mut floods {
            flood.socket.set_write_timeout(Some(Duration::from_millis(20))).expect("a deadline");
            let _ = flood.try_send(&message(round));
        }
        if round % 10 == 0 {
            besieged.check();
        }
    }
    besieged.check();
    besieged.tell("clients that never read");
}

#[test]
fn sleeping_phones() {
    let mut besieged = Besieged::new(3, QUICK);
    let address = besieged.server.plain;
    // Each goes away with what it was sent, which it says it will come back for.
    for round in 0..60 {
        let user = format!("user{}@localhost", round % 3);
        let mut phone = try_plain_session(address, &user, PASSWORD, &format!("phone{round}")).expect("never refused");
        phone.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>");
        phone.until("<enabled");
        let body = "x".repeat(100_000);
        for _ in 0..8 {
            let to = format!("{user}/phone{round}");
            let message = format!("<message to='{to}' type='headline'><body>{body}</body></message>");
            phone.send(&message);
        }
        let _ = phone.socket.shutdown(std::net::Shutdown::Both);
        drop(phone);
        besieged.check();
    }
    besieged.tell("phones that sleep on what they were sent");
}

#[test]
fn huge_rosters() {
    const ACCOUNTS: usize = 40;
    let mut besieged = Besieged::new(ACCOUNTS, &format!("{QUICK}\nroster_groups_max = 200"));
    let address = besieged.server.plain;
    let mut sessions: Vec<Client> = Vec::new();
    for number in 0..ACCOUNTS {
        let user = format!("user{number}@localhost");
        let Ok(mut client) = try_plain_session(address, &user, PASSWORD, "r") else { continue };
        for contact in 0..5 {
            let groups: String = (0..195).map(|group| format!("<group>{group:->1000}</group>")).collect();
            let item = format!("<item jid='c{contact}@localhost'>{groups}</item>");
            client
                .send(&format!("<iq type='set' id='s{contact}.'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
            // Too big a roster is refused, too many big ones end the session.
            if client.try_until(&format!("id='s{contact}.'")).is_err() {
                break;
            }
        }
        sessions.push(client);
        besieged.check();
    }
    besieged.tell("huge rosters");
}

#[test]
fn half_open_handshakes() {
    let mut besieged = Besieged::new(0, "login_time = \"1h\"");
    // The beginning of a ClientHello of 16,000 bytes.
    let half = [&[0x16, 3, 1, 0x3e, 0x80, 1, 0, 0x3e, 0x7c, 3, 3][..], &[7; 9000]].concat();
    let mut sockets = Vec::new();
    let connect = |address: SocketAddr| -> io::Result<TcpStream> {
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.write_all(&half)?;
        Ok(socket)
    };
    for round in 0..2000 {
        sockets.extend(connect(besieged.server.tls));
        if round % 100 == 0 {
            besieged.check();
        }
    }
    // Who comes now is let in all the same.
    let mut late = try_plain_session(besieged.server.plain, "romeo@localhost", PASSWORD, "late").expect("a session");
    late.come();
    besieged.check();
    besieged.tell("half-open handshakes");
}

/// The system gives no more descriptors: who is in chats on, the loop rests, and goes on when there are some.
#[test]
fn no_descriptors_left() {
    let place = Place::new("login_time = \"1h\"");
    for user in ["juliet@localhost", "romeo@localhost"] {
        place.add(user);
    }
    let server = Process::try_start(&place, "-n 40").expect("it serves");
    let chatter = |user: &str, resource: &str| {
        let mut client = try_plain_session(server.plain, user, PASSWORD, resource).expect("a session");
        client.come();
        client
    };
    let (mut juliet, mut romeo) = (chatter("juliet@localhost", "j"), chatter("romeo@localhost", "r"));
    let crowd: Vec<TcpStream> =
        (0..80).map(|_| TcpStream::connect_timeout(&server.plain, PATIENCE).expect("the system takes it")).collect();
    let end = Instant::now() + PATIENCE;
    while !server.log().contains("connections wait") {
        assert!(Instant::now() < end, "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let (before, start) = (server.processor_time(), Instant::now());
    let mut number = 0;
    while start.elapsed() < Duration::from_secs(2) {
        number += 1;
        juliet.send(&format!("<message to='romeo@localhost/r' type='headline'><body>{number}.</body></message>"));
        romeo.until(&format!("<body>{number}.</body>"));
        std::thread::sleep(Duration::from_millis(20));
    }
    let used = server.processor_time() - before;
    assert!(used < Duration::from_millis(600), "{used:?} of two seconds: it spins");
    assert_eq!(server.log().matches("connections wait").count(), 1, "{}", server.log());
    drop(crowd);
    let mut late = chatter("juliet@localhost", "late");
    late.send("<message to='romeo@localhost/r' type='headline'><body>late</body></message>");
    romeo.until("<body>late</body>");
}

fn ping(client: &mut Client) -> Duration {
    let start = Instant::now();
    client.send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    client.until("id='p'");
    start.elapsed()
}

/// One who sends as fast as he can, within the rates that are the default, does not make others wait.
///
/// What another server on the same machine needs for the same at the same time is what it is measured by.
#[test]
fn a_flood_delays_nobody() {
    const PINGS: usize = 1000;
    let places = [Place::new(""), Place::new("")];
    for place in &places {
        place.add("juliet@localhost");
    }
    places[0].add("romeo@localhost");
    let servers = [Process::start(&places[0]), Process::start(&places[1])];
    let session = |server: &Process, user| try_plain_session(server.plain, user, PASSWORD, "r").expect("a session");
    let mut pinging = [session(&servers[0], "juliet@localhost"), session(&servers[1], "juliet@localhost")];
    let mut flood = session(&servers[0], "romeo@localhost");
    flood.come();
    flood.socket.set_nonblocking(true).expect("nonblocking");
    let message = format!("<message to='romeo@localhost/r' type='headline'><body>{}</body></message>", "x".repeat(100));
    let block = message.repeat(500);
    let (mut sent, mut at) = (0, 0);
    let mut taken = vec![0; 1 << 20];
    let mut times = [Vec::new(), Vec::new()];
    let begun = servers[0].processor_time();
    for round in 0..PINGS {
        // As much as the socket takes; what comes back is thrown away.
        while let Ok(count) = flood.socket.write(&block.as_bytes()[at..]) {
            at = (at + count) % block.len();
            sent += count;
        }
        let _ = io::Read::read(&mut flood.socket, &mut taken);
        for (client, times) in pinging.iter_mut().zip(&mut times) {
            let time = ping(client);
            // The first are answered while `session_burst` is taken, in turns of `turn_bytes`.
            if round >= PINGS / 10 {
                times.push(time);
            }
        }
    }
    let [loud, quiet] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() * 99 / 100]
    });
    let used = servers[0].processor_time() - begun;
    println!(
        "99 of 100 pings within {quiet:?} elsewhere, {loud:?} where {sent} bytes were sent; {used:?} of processor time"
    );
    assert!(sent > 500_000, "{sent} bytes are no flood");
    assert!(loud < 3 * quiet.max(Duration::from_millis(2)), "{quiet:?} elsewhere, {loud:?} beside a flood");
}

/// All clients come back at once after a restart: all are in again, none is refused.
#[test]
fn everybody_comes_back() {
    let clients = process::number("WHINCHAT_STORM", 320) as usize;
    let accounts = clients.div_ceil(16);
    let place = Place::new("connections_per_address_max = 10000\nregistrations_per_hour = 10000");
    let server = Process::start(&place);
    for number in 0..accounts {
        register(server.plain, &format!("user{number}"));
    }
    server.kill();
    let server = Process::start(&place);
    let (tls, start) = (server.tls, Instant::now());
    let mut connections: Vec<(usize, Client)> = (0..clients).map(|number| (number, Client::connect(tls))).collect();
    let share = clients.div_ceil(8);
    std::thread::scope(|scope| {
        for part in connections.chunks_mut(share) {
            scope.spawn(move || {
                let tls = sockets::config(&["xmpp-client"]);
                for (number, client) in part {
                    let user = format!("user{}@localhost", *number / 16);
                    client.secure(&tls, "localhost").expect("TLS");
                    let answer = client.authenticate(&user, sockets::Proof::Scram(Some("tls-exporter")));
                    assert!(answer.starts_with("<success"), "{answer}");
                    client.bind(&user, &format!("r{number}"));
                }
            });
        }
    });
    println!("{clients} clients are in again after {:?}", start.elapsed());
    assert_eq!(place.status("sessions"), clients as u64);
    assert_eq!(place.status("stream_errors_total"), 0);
    assert_eq!(place.status("sessions_dropped_memory_total"), 0);
}
