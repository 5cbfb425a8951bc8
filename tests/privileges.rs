//! XEP-0045 chapter 5 as data: who may do what in a room, every cell of its tables tried on a real core.
//!
//! The tables are the standard's, in its words and order; where it leaves something to the implementation, a line says what we
//! do. Each cell gets a room of its own, made by an owner who then watches: what is refused, nobody hears of.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use whinchat::config::Config;
use whinchat::core::rooms::{Affiliation, Role};
use whinchat::core::{ConnId, Core, Input, ListenerKind, Now, Outputs, Seeds, TlsFacts, UtcTime};
use whinchat::store::{Authenticator, MemoryStore, Store};

use Affiliation::{Admin, Member, Outcast, Owner};
use Role::{Moderator, Participant, Visitor};

const MUC: &str = "http://jabber.org/protocol/muc";

/// Logging in is not what is tried here.
struct Anybody;

impl Authenticator for Anybody {
    fn verify(&mut self, _user: &str, _password: &str) -> bool {
        true
    }
}

/// Three sessions at a server: who makes the rooms and watches, who does something, to whom it is done.
struct House {
    core: Core,
    out: Outputs,
    store: MemoryStore,
    now: Now,
    rooms: usize,
}

const BOSS: ConnId = ConnId { slot: 0, generation: 1 };
const ACTOR: ConnId = ConnId { slot: 1, generation: 1 };
const TARGET: ConnId = ConnId { slot: 2, generation: 1 };
const ALL: [(ConnId, &str); 3] = [(BOSS, "boss"), (ACTOR, "actor"), (TARGET, "target")];

/// What an account is to a room; `role` is that of its session in it, if it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rank {
    affiliation: Affiliation,
    role: Role,
}

const fn rank(affiliation: Affiliation, role: Role) -> Rank {
    Rank { affiliation, role }
}

/// All that there can be: admins and owners are moderators as long as they are in, outcasts are not in.
const RANKS: [Rank; 13] = [
    rank(Outcast, Role::None),
    rank(Affiliation::None, Role::None),
    rank(Member, Role::None),
    rank(Admin, Role::None),
    rank(Owner, Role::None),
    rank(Affiliation::None, Visitor),
    rank(Affiliation::None, Participant),
    rank(Affiliation::None, Moderator),
    rank(Member, Visitor),
    rank(Member, Participant),
    rank(Member, Moderator),
    rank(Admin, Moderator),
    rank(Owner, Moderator),
];

impl House {
    fn new() -> House {
        let mut config = Config::try_out();
        config.limits.rates = false;
        let mut store = MemoryStore::new(&config, [7; 32]);
        store.set_authenticator(Box::new(Anybody));
        let core = Core::new(&config, Seeds { random: [1; 32], installation: store.secret() }, false);
        let now = Now { mono: Duration::from_secs(1000), utc: UtcTime(1_795_375_850_000) };
        let mut house = House { core, out: Outputs::default(), store, now, rooms: 0 };
        for (conn, user) in ALL {
            house.log_in(conn, user);
        }
        house
    }

    fn step(&mut self, input: Input<'_>) -> usize {
        let consumed = self.core.step(self.now, input, &mut self.out).consumed;
        self.out.conns.clear();
        consumed
    }

    fn give(&mut self, conn: ConnId, bytes: &str) {
        let mut unread = bytes.as_bytes();
        while !unread.is_empty() {
            let consumed = self.step(Input::Bytes { conn, unread });
            unread = &unread[consumed..];
            assert!(consumed > 0 || !self.out.store.is_empty(), "no progress");
            while !self.out.store.is_empty() {
                let (tickets, batch): (Vec<_>, Vec<_>) = self.out.store.drain(..).unzip();
                let mut asked = Vec::new();
                for (ticket, reply) in tickets.into_iter().zip(self.store.apply(&batch)) {
                    self.step(Input::Stored { ticket, reply });
                    asked.append(&mut self.out.store);
                }
                self.out.store = asked;
            }
        }
    }

    /// What came for a session since the last call.
    fn take(&mut self, conn: ConnId) -> String {
        let text = String::from_utf8_lossy(self.out.wire.unsent(conn)).into_owned();
        let _ = self.out.wire.sent(conn, text.len());
        text
    }

    fn take_all(&mut self) {
        for (conn, _) in ALL {
            self.take(conn);
        }
    }

    fn ask(&mut self, conn: ConnId, bytes: &str) -> String {
        self.take(conn);
        self.give(conn, bytes);
        self.take(conn)
    }

    fn log_in(&mut self, conn: ConnId, user: &str) {
        const HEADER: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                              xmlns:stream='http://etherx.jabber.org/streams'>";
        self.out.wire.open(conn);
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.step(Input::Opened { conn, listener: ListenerKind::Tls, peer });
        self.step(Input::Secured { conn, tls: TlsFacts { version: "TLSv1.3", ..TlsFacts::default() } });
        self.ask(conn, HEADER);
        let message = STANDARD.encode(format!("\0{user}\0some password"));
        let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>");
        assert!(self.ask(conn, &auth).contains("<success"));
        self.ask(conn, HEADER);
        let bind =
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>";
        assert!(self.ask(conn, bind).contains("result"));
    }

    /// A room of the boss's with these fields of its form.
    fn make(&mut self, fields: &[(&str, &str)]) -> String {
        self.rooms += 1;
        let room = format!("room{}@conference.localhost", self.rooms);
        assert!(self.join(BOSS, "boss", &room).contains("201"));
        let usual = [("muc#roomconfig_persistentroom", "0"), ("muc#roomconfig_membersonly", "0")];
        let fields = usual.iter().chain(fields);
        let fields = fields.map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>"));
        let fields: String = fields.collect();
        assert_eq!(self.owner(BOSS, &room, &format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>")), "result");
        room
    }

    /// Takes the room away again, so that nobody is in too many.
    fn end(&mut self, room: &str) {
        self.owner(BOSS, room, "<destroy/>");
        self.take_all();
    }

    fn join(&mut self, conn: ConnId, nick: &str, room: &str) -> String {
        self.ask(conn, &format!("<presence to='{room}/{nick}'><x xmlns='{MUC}'/></presence>"))
    }

    /// `result`, or the condition of the error.
    fn iq(&mut self, conn: ConnId, kind: &str, room: &str, payload: &str) -> String {
        let answer = self.ask(conn, &format!("<iq type='{kind}' id='q' to='{room}'>{payload}</iq>"));
        condition(&answer).unwrap_or_else(|| {
            assert!(answer.contains("type='result'"), "{answer}");
            "result".to_owned()
        })
    }

    fn owner(&mut self, conn: ConnId, room: &str, payload: &str) -> String {
        self.iq(conn, "set", room, &format!("<query xmlns='{MUC}#owner'>{payload}</query>"))
    }

    fn change(&mut self, conn: ConnId, room: &str, item: &str) -> String {
        self.iq(conn, "set", room, &format!("<query xmlns='{MUC}#admin'><item {item}/></query>"))
    }

    /// Makes a session what it shall be.
    fn place(&mut self, (conn, name): (ConnId, &str), rank: Rank, room: &str) {
        if rank.affiliation != Affiliation::None {
            let item = format!("affiliation='{}' jid='{name}@localhost'", rank.affiliation.name());
            assert_eq!(self.change(BOSS, room, &item), "result", "{rank:?}");
        }
        if rank.role == Role::None {
            return;
        }
        assert!(self.join(conn, name, room).contains("110"), "{rank:?}");
        let item = format!("nick='{name}' role='{}'", rank.role.name());
        assert_eq!(self.change(BOSS, room, &item), "result", "{rank:?}");
    }

    /// A room with an actor and a target in it, and nothing that they have not read.
    fn scene(&mut self, actor: Rank, target: Rank) -> String {
        let room = self.make(&[]);
        self.place(ALL[1], actor, &room);
        self.place(ALL[2], target, &room);
        self.take_all();
        room
    }
}

/// The condition of an error, if there is one.
fn condition(answer: &str) -> Option<String> {
    let error = answer.split("<error ").nth(1)?;
    let name = error.split('<').nth(1)?;
    Some(name.split([' ', '/', '>']).next().unwrap_or_default().to_owned())
}

/// Cells of a table: rows by their first column, columns by the first row.
fn table(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut lines = text.trim().lines().map(cells);
    let head = lines.next().expect("a head");
    lines.map(|row| (row[0].clone(), head[1..].iter().cloned().zip(row[1..].iter().cloned()).collect())).collect()
}

fn cell<'t>(table: &'t [(String, Vec<(String, String)>)], row: &str, column: &str) -> &'t str {
    let (_, row) = table.iter().find(|(name, _)| name.eq_ignore_ascii_case(row)).expect("a row");
    let (_, cell) = row.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).expect("a column");
    cell
}

/// Section 5.1.3, with the least that does it: a moderator of any affiliation, or one that is an admin or owner.
const ROLE_STATE_CHART: &str = "
>           | None      | Visitor   | Participant | Moderator
Visitor     | moderator | --        | moderator   | admin
Participant | moderator | moderator | --          | admin
Moderator   | admin     | admin     | admin       | --
";

/// Sections 8.2, 8.4, 9.7: what is done to whom stands higher is `not-allowed`; the role of admins and owners is never lowered
/// (8.4), and nobody puts out an admin or owner of the same rank (ours, PROTOCOL MU-24).
fn expected_role_change(actor: Rank, target: Rank, to: Role) -> &'static str {
    if actor.role != Moderator {
        return "forbidden";
    }
    let lowers = to < target.role;
    let chart = table(ROLE_STATE_CHART);
    let least = match cell(&chart, target.role.name(), to.name()) {
        "moderator" => Affiliation::None,
        // To say what is so already takes the right to the list it is in (9.6).
        "--" if to < Moderator => Affiliation::None,
        _ => Admin,
    };
    let of_rank = target.affiliation >= Admin;
    if lowers && actor.affiliation < target.affiliation
        || lowers && of_rank && (to != Role::None || actor.affiliation == target.affiliation)
        || actor.affiliation < least
    {
        return "not-allowed";
    }
    "result"
}

#[test]
fn roles_are_changed_as_the_chart_says() {
    let mut house = House::new();
    for actor in RANKS {
        for target in RANKS.into_iter().filter(|target| target.role > Role::None) {
            for to in Role::ALL {
                let room = house.scene(actor, target);
                let came = house.change(ACTOR, &room, &format!("nick='target' role='{}'", to.name()));
                let what = format!("{actor:?} makes {target:?} {to:?}");
                assert_eq!(came, expected_role_change(actor, target, to), "{what}");
                let heard = house.take(BOSS);
                match (came.as_str(), to) {
                    ("result", Role::None) => assert!(heard.contains("<status code='307'/>"), "{what}: {heard}"),
                    ("result", to) => assert!(heard.contains(&format!("role='{}'", to.name())), "{what}: {heard}"),
                    _ => assert_eq!(heard, "", "{what}"),
                }
                house.end(&room);
            }
        }
    }
}

/// Section 5.2.2, with the least that does it.
const AFFILIATION_STATE_CHART: &str = "
>       | Outcast | None  | Member | Admin | Owner
Outcast | --      | admin | admin  | owner | owner
None    | admin   | --    | admin  | owner | owner
Member  | admin   | admin | --     | owner | owner
Admin   | owner   | owner | owner  | --    | owner
Owner   | owner   | owner | owner  | owner | --
";

/// Who may not change affiliations at all, or not give so high ones, is `forbidden`; what is done to whom stands as high or
/// higher is `not-allowed` (9.1, 10.3 to 10.8). To say what is so already needs the right to the list it is in.
fn expected_affiliation_change(actor: Affiliation, target: Affiliation, to: Affiliation) -> &'static str {
    let chart = table(AFFILIATION_STATE_CHART);
    let least = match cell(&chart, target.name(), to.name()) {
        "owner" => Owner,
        "--" if to >= Admin => Owner,
        _ => Admin,
    };
    match actor {
        actor if actor < Admin => "forbidden",
        actor if actor >= least => "result",
        _ if target >= Admin => "not-allowed",
        _ => "forbidden",
    }
}

#[test]
fn affiliations_are_changed_as_the_chart_says() {
    let mut house = House::new();
    for actor in RANKS {
        for target in RANKS {
            for to in Affiliation::ALL {
                let room = house.scene(actor, target);
                let item = format!("jid='target@localhost' affiliation='{}'", to.name());
                let came = house.change(ACTOR, &room, &item);
                let what = format!("{actor:?} makes {target:?} {to:?}");
                assert_eq!(came, expected_affiliation_change(actor.affiliation, target.affiliation, to), "{what}");
                let heard = house.take(BOSS);
                let tells = came == "result" && target.role > Role::None && to != target.affiliation;
                let item = format!("<item affiliation='{}'", to.name());
                assert_eq!(heard.contains(&item), tells, "{what}: {heard}");
                assert_eq!(heard.contains("<status code='301'/>"), tells && to == Outcast, "{what}: {heard}");
                house.end(&room);
            }
        }
    }
}

/// Section 5.1.1. Starred cells are those of a room as we make it, open and unmoderated, where only moderators change the
/// subject and a visitor is who was silenced.
const ROLE_PRIVILEGES: &str = "
Privilege                           | None | Visitor | Participant | Moderator
Present in Room                     | No   | Yes     | Yes         | Yes
Receive Messages                    | No   | Yes     | Yes         | Yes
Receive Occupant Presence           | No   | Yes     | Yes         | Yes
Broadcast Presence to All Occupants | No   | Yes     | Yes         | Yes
Change Availability Status          | No   | Yes     | Yes         | Yes
Change Room Nickname                | No   | Yes     | Yes         | Yes
Send Private Messages               | No   | Yes     | Yes         | Yes
Invite Other Users                  | No   | Yes     | Yes         | Yes
Send Messages to All                | No   | No      | Yes         | Yes
Modify Subject                      | No   | No      | No          | Yes
";

/// Does what a row names; whether it was done.
fn has_role_privilege(house: &mut House, room: &str, privilege: &str) -> bool {
    match privilege {
        "Present in Room" => {
            let list = |role| format!("<query xmlns='{MUC}#admin'><item role='{role}'/></query>");
            let lists = ["visitor", "participant", "moderator"];
            lists.iter().any(|role| {
                house.take(BOSS);
                house.give(BOSS, &format!("<iq type='get' id='l' to='{room}'>{}</iq>", list(role)));
                house.take(BOSS).contains("nick='actor'")
            })
        }
        "Receive Messages" => {
            house.give(BOSS, &format!("<message type='groupchat' to='{room}'><body>hear ye</body></message>"));
            house.take(ACTOR).contains("hear ye")
        }
        "Receive Occupant Presence" => {
            house.give(BOSS, &format!("<presence to='{room}/boss'><show>dnd</show></presence>"));
            house.take(ACTOR).contains("<show>dnd</show>")
        }
        "Broadcast Presence to All Occupants" | "Change Availability Status" => {
            house.give(ACTOR, &format!("<presence to='{room}/actor'><show>away</show></presence>"));
            house.take(BOSS).contains("<show>away</show>")
        }
        "Change Room Nickname" => {
            house.give(ACTOR, &format!("<presence to='{room}/other'/>"));
            house.take(BOSS).contains("<status code='303'/>")
        }
        "Send Private Messages" => {
            house.give(ACTOR, &format!("<message type='chat' to='{room}/target'><body>psst</body></message>"));
            house.take(TARGET).contains("psst")
        }
        "Invite Other Users" => {
            let invite = "<invite to='target@localhost'/>";
            house.give(ACTOR, &format!("<message to='{room}'><x xmlns='{MUC}#user'>{invite}</x></message>"));
            house.take(TARGET).contains("<invite ")
        }
        "Send Messages to All" => {
            house.give(ACTOR, &format!("<message type='groupchat' to='{room}'><body>hear me</body></message>"));
            house.take(BOSS).contains("hear me")
        }
        "Modify Subject" => {
            house.give(ACTOR, &format!("<message type='groupchat' to='{room}'><subject>new</subject></message>"));
            house.take(BOSS).contains("<subject>new</subject>")
        }
        other => panic!("nothing tries {other:?}"),
    }
}

#[test]
fn roles_have_their_privileges() {
    let mut house = House::new();
    house.give(TARGET, "<presence/>");
    let privileges = table(ROLE_PRIVILEGES);
    for (privilege, _) in &privileges {
        for actor in RANKS {
            let room = house.make(&[("muc#roomconfig_changesubject", "0")]);
            house.place(ALL[1], actor, &room);
            house.place(ALL[2], rank(Affiliation::None, Participant), &room);
            house.take_all();
            let done = has_role_privilege(&mut house, &room, privilege);
            assert_eq!(done, cell(&privileges, privilege, actor.role.name()) == "Yes", "{actor:?}: {privilege}");
            house.end(&room);
        }
    }
}

/// Section 5.2.1, for who is not in the room.
const AFFILIATION_PRIVILEGES: &str = "
Privilege                  | Outcast | None | Member | Admin | Owner
Enter Open Room            | No      | Yes  | Yes    | Yes   | Yes
Register with Open Room    | No      | Yes  | Yes    | Yes   | Yes
Retrieve Member List       | No      | No   | Yes    | Yes   | Yes
Retrieve Hidden List       | No      | No   | No     | Yes   | Yes
Enter Members-Only Room    | No      | No   | Yes    | Yes   | Yes
Change Room Configuration  | No      | No   | No     | No    | Yes
Destroy Room               | No      | No   | No     | No    | Yes
";

fn has_affiliation_privilege(house: &mut House, room: &str, privilege: &str) -> bool {
    let members = format!("<query xmlns='{MUC}#admin'><item affiliation='member'/></query>");
    match privilege {
        "Enter Open Room" | "Enter Members-Only Room" => house.join(ACTOR, "actor", room).contains("110"),
        "Register with Open Room" => {
            let nick = "<field var='muc#register_roomnick'><value>nick</value></field>";
            let form = "<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#register</value></field>";
            let form = format!("<x xmlns='jabber:x:data' type='submit'>{form}{nick}</x>");
            house.iq(ACTOR, "set", room, &format!("<query xmlns='jabber:iq:register'>{form}</query>")) == "result"
        }
        "Retrieve Member List" | "Retrieve Hidden List" => house.iq(ACTOR, "get", room, &members) == "result",
        "Change Room Configuration" => {
            let form = "<x xmlns='jabber:x:data' type='submit'><field var='muc#roomconfig_roomname'><value>x</value></field></x>";
            house.owner(ACTOR, room, form) == "result"
        }
        "Destroy Room" => house.owner(ACTOR, room, "<destroy/>") == "result",
        other => panic!("nothing tries {other:?}"),
    }
}

#[test]
fn affiliations_have_their_privileges() {
    let mut house = House::new();
    let privileges = table(AFFILIATION_PRIVILEGES);
    for (privilege, _) in &privileges {
        for affiliation in Affiliation::ALL {
            let hidden = if privilege == "Retrieve Hidden List" { "moderators" } else { "anyone" };
            let closed = if privilege == "Enter Members-Only Room" { "1" } else { "0" };
            let room = house.make(&[("muc#roomconfig_whois", hidden)]);
            house.place(ALL[1], rank(affiliation, Role::None), &room);
            let close = format!("<field var='muc#roomconfig_membersonly'><value>{closed}</value></field>");
            house.owner(BOSS, &room, &format!("<x xmlns='jabber:x:data' type='submit'>{close}</x>"));
            let done = has_affiliation_privilege(&mut house, &room, privilege);
            assert_eq!(done, cell(&privileges, privilege, affiliation.name()) == "Yes", "{affiliation:?}: {privilege}");
            house.end(&room);
        }
    }
}
