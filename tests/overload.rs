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
