//! The loads, each a function that prints what it measured.

use std::ffi::OsString;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Mode, Session};
use crate::histogram::Histogram;
use crate::process::{Memory, Usage};
use crate::report::{line, per, print_tally};
use crate::traffic::{self, Group, Plan, Tally, Template};
use crate::wire::{PATIENCE, Wire};
use crate::{Options, Outcome, Protocol};

pub fn register(options: &Options) -> Outcome<()> {
    let start = Instant::now();
    let before = Usage::of(options.pid)?;
    side_by_side(options.jobs, options.accounts, |number| options.target.register(number))?;
    line("accounts", options.accounts);
    line("seconds", start.elapsed().as_secs_f64());
    let usage = Usage::of(options.pid)? - before;
    line("cpu_us_per_account", per(usage.cpu_ns as f64 / 1000.0, options.accounts as u64));
    Ok(())
}

pub fn chat(options: &Options) -> Outcome<()> {
    let pair = |number: usize| match options.protocol {
        Protocol::Xmpp => xmpp_pair(options, number),
        Protocol::Raw => raw_pair(options),
        Protocol::Redis => redis_pair(options, number),
    };
    // A relay joins its connections in the order in which they come.
    let mut groups =
        side_by_side(if options.protocol == Protocol::Raw { 1 } else { options.jobs }, options.pairs, pair)?;
    let tally = traffic::run(&mut groups, &plan(options, "</message>"))?;
    print_tally(&tally, "message");
    Ok(())
}

fn xmpp_pair(options: &Options, number: usize) -> Outcome<Group> {
    let sender = options.target.log_in_present(2 * number, "sender")?;
    let receiver = options.target.log_in_present(2 * number + 1, "receiver")?;
    let to = if options.bare { receiver.bare() } else { &receiver.jid };
    let template = message(to, "chat", options.body);
    Ok(Group::new(sender.wire, vec![receiver.wire], template))
}

fn raw_pair(options: &Options) -> Outcome<Group> {
    let connect = || -> Outcome<Wire> {
        let mut wire = Wire::connect(options.target.address)?;
        if options.target.mode != Mode::Plain {
            wire.start_tls(&options.target.tls, &options.target.domain)?;
        }
        Ok(wire)
    };
    let (sender, receiver) = (connect()?, connect()?);
    Ok(Group::new(sender, vec![receiver], message(SAMPLE_JID, "chat", options.body)))
}

fn redis_pair(options: &Options, number: usize) -> Outcome<Group> {
    let sender = Wire::connect(options.target.address)?;
    let mut receiver = Wire::connect(options.target.address)?;
    receiver.send(format!("SUBSCRIBE channel{number:04}\r\n").as_bytes())?;
    while !receiver.input.ends_with(b":1\r\n") {
        receiver.receive()?;
    }
    let payload = message_text(SAMPLE_JID, "chat", options.body);
    let publish = format!(
        "*3\r\n$7\r\nPUBLISH\r\n$11\r\nchannel{number:04}\r\n${}\r\n{payload}\r\n",
        Template::new(&payload).len()
    );
    Ok(Group::new(sender, vec![receiver], Template::new(&publish)))
}

/// In which a server does what it does behind a client's back.
const SETTLE: Duration = Duration::from_secs(1);

/// What is sent where no XMPP server is, so that it is as long as elsewhere.
const SAMPLE_JID: &str = "load1@localhost/receiver";

fn message_text(to: &str, kind: &str, body: usize) -> String {
    let text: String = "whin and chat and rime and rhyme ".chars().cycle().take(body).collect();
    format!("<message to='{to}' type='{kind}' id='########'><body>{text}</body></message>")
}

fn message(to: &str, kind: &str, body: usize) -> Template {
    Template::new(&message_text(to, kind, body))
}

fn plan(options: &Options, end: &'static str) -> Plan {
    Plan {
        window: options.window,
        rate: options.rate,
        warm_up: options.warm_up,
        duration: options.seconds,
        count_max: options.count.unwrap_or(u64::MAX),
        end,
        pid: options.pid,
        settle: options.settle.unwrap_or_default(),
    }
}

pub fn idle(options: &Options) -> Outcome<()> {
    let log_in = |number| {
        let mut session = options.target.log_in_present(number, "idle")?;
        session.wire.input = Vec::new();
        Ok(session)
    };
    // What the first sessions make the server load and cache is not the price of a session, so they stay, uncounted.
    let base = side_by_side(options.jobs, options.base, log_in)?;
    std::thread::sleep(options.settle.unwrap_or(SETTLE));
    let memory = || options.pid.map(Memory::of).transpose();
    let before = memory()?;
    let sessions = side_by_side(options.jobs, options.sessions, |number| log_in(base.len() + number))?;
    std::thread::sleep(options.settle.unwrap_or(SETTLE));
    line("base_sessions", base.len());
    line("sessions", sessions.len());
    if let (Some(before), Some(after)) = (before, memory()?) {
        let count = sessions.len() as u64;
        let each = |before: u64, after: u64| per((after as f64 - before as f64) * 1024.0, count);
        line("pss_kib_before", before.pss);
        line("pss_kib_after", after.pss);
        line("rss_kib_after", after.rss);
        line("rss_bytes_per_session", each(before.rss, after.rss));
        line("pss_bytes_per_session", each(before.pss, after.pss));
        line("private_dirty_bytes_per_session", each(before.private_dirty, after.private_dirty));
    }
    if options.hold {
        println!("ready");
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    }
    Ok(())
}

pub fn login(options: &Options) -> Outcome<()> {
    let count = options.count.unwrap_or(100);
    let accounts = options.accounts.max(1) as u64;
    let log_in = |number: u64| options.target.log_in((number % accounts) as usize, "login")?.close();
    // The first round pays for PBKDF2 at the client and for what the server keeps of an account.
    for number in 0..accounts {
        log_in(number)?;
    }
    let mut latencies = Histogram::default();
    let (before, start) = (Usage::of(options.pid)?, Instant::now());
    for number in 0..count {
        let start = Instant::now();
        log_in(number)?;
        latencies.add(start.elapsed());
    }
    let usage = Usage::of(options.pid)? - before;
    print_tally(&Tally { deliveries: count, seconds: start.elapsed().as_secs_f64(), usage, latencies }, "login");
    Ok(())
}

pub fn presence(options: &Options) -> Outcome<()> {
    let mut publisher = options.target.log_in_present(0, "publisher")?;
    let to = publisher.bare().to_owned();
    let mut contacts = side_by_side(options.jobs, options.receivers, |number| {
        let mut contact = options.target.log_in_present(number + 1, "contact")?;
        contact.wire.send(format!("<presence type='subscribe' to='{to}'/>").as_bytes())?;
        contact.barrier()?;
        Ok(contact)
    })?;
    for contact in &contacts {
        let approval = format!("<presence type='subscribed' to='{}'/>", contact.bare());
        publisher.wire.send(approval.as_bytes())?;
    }
    publisher.barrier()?;
    contacts.iter_mut().try_for_each(Session::barrier)?;
    let receivers = contacts.into_iter().map(|contact| contact.wire).collect();
    let template = Template::new("<presence><show>chat</show><status>number ########</status></presence>");
    let mut groups = [Group::new(publisher.wire, receivers, template)];
    let tally = traffic::run(&mut groups, &plan(options, "</presence>"))?;
    print_tally(&tally, "delivery");
    Ok(())
}

pub fn room(options: &Options) -> Outcome<()> {
    if options.protocol == Protocol::Raw {
        return raw_room(options);
    }
    let room = format!("load{}@{}", std::process::id(), options.muc);
    let join = |number: usize| -> Outcome<Session> {
        let mut occupant = options.target.log_in_present(number, "occupant")?;
        let join = format!("<presence to='{room}/nick{number}'><x xmlns='http://jabber.org/protocol/muc'/></presence>");
        occupant.wire.send(join.as_bytes())?;
        while !occupant.wire.element()?.contains("110") {}
        Ok(occupant)
    };
    let mut speaker = join(0)?;
    let unlock = format!(
        "<iq type='set' id='unlock' to='{room}'><query xmlns='http://jabber.org/protocol/muc#owner'>\
         <x xmlns='jabber:x:data' type='submit'/></query></iq>"
    );
    speaker.wire.send(unlock.as_bytes())?;
    while !speaker.wire.element()?.contains("unlock") {}
    let mut occupants = side_by_side(options.jobs, options.receivers, |number| join(number + 1))?;
    speaker.barrier()?;
    occupants.iter_mut().try_for_each(Session::barrier)?;
    let receivers = occupants.into_iter().map(|occupant| occupant.wire).collect();
    let mut groups = [Group::new(speaker.wire, receivers, message(&room, "groupchat", options.body))];
    let tally = traffic::run(&mut groups, &plan(options, "</message>"))?;
    print_tally(&tally, "delivery");
    Ok(())
}

/// The same through `relay --fan-out`.
fn raw_room(options: &Options) -> Outcome<()> {
    let connect = |_| Wire::connect(options.target.address);
    let sender = connect(0)?;
    let receivers = (0..options.receivers).map(connect).collect::<Outcome<Vec<_>>>()?;
    let mut groups = [Group::new(sender, receivers, message(SAMPLE_JID, "groupchat", options.body))];
    let tally = traffic::run(&mut groups, &plan(options, "</message>"))?;
    print_tally(&tally, "delivery");
    Ok(())
}

pub fn offline(options: &Options) -> Outcome<()> {
    let count = options.count.unwrap_or(100);
    let mut sender = options.target.log_in_present(0, "sender")?;
    let to = format!("{}@{}", options.target.user(1), options.target.domain);
    let stanza = message_text(&to, "chat", options.body);
    let before = Usage::of(options.pid)?;
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        let burst = left.min(options.window as u64);
        sender.wire.send(stanza.repeat(burst as usize).as_bytes())?;
        sender.barrier()?;
        left -= burst;
    }
    line("messages", count);
    line("stored_per_second", count as f64 / start.elapsed().as_secs_f64());
    std::thread::sleep(options.settle.unwrap_or(SETTLE));
    let stored = Usage::of(options.pid)? - before;
    line("cpu_us_per_stored_message", per(stored.cpu_ns as f64 / 1000.0, count));
    line("written_bytes_per_stored_message", per(stored.written as f64, count));

    let mut recipient = options.target.log_in(1, "recipient")?;
    let before = Usage::of(options.pid)?;
    let start = Instant::now();
    recipient.wire.send(b"<presence/>")?;
    for _ in 0..count {
        while !recipient.wire.element()?.contains("</message>") {}
    }
    line("delivered_per_second", count as f64 / start.elapsed().as_secs_f64());
    let delivered = Usage::of(options.pid)? - before;
    line("cpu_us_per_delivered_message", per(delivered.cpu_ns as f64 / 1000.0, count));
    Ok(())
}

/// Starts a server. It outlives us, and is to be stopped by the number that is printed.
pub fn start(options: &Options, command: &[OsString]) -> Outcome<()> {
    let (program, arguments) = command.split_first().ok_or("start what?")?;
    let log = File::create(options.log.as_ref().ok_or("--log is missing")?)?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    while let Err(error) = options.target.answers(options.protocol) {
        if let Some(status) = child.try_wait()? {
            return Err(format!("{} ended with {status}", program.display()).into());
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            return Err(format!("{} does not answer: {error}", program.display()).into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    line("start_ms", start.elapsed().as_secs_f64() * 1000.0);
    line("pid", u64::from(child.id()));
    Ok(())
}

/// Does `work` for each number below `count` on `jobs` threads; the results in order.
fn side_by_side<T: Send>(jobs: usize, count: usize, work: impl Fn(usize) -> Outcome<T> + Sync) -> Outcome<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let jobs = jobs.clamp(1, 64);
        let threads: Vec<_> = (0..jobs)
            .map(|job| scope.spawn(move || (job..count).step_by(jobs).map(work).collect::<Outcome<Vec<T>>>()))
            .collect();
        let mut parts = Vec::new();
        for thread in threads {
            parts.push(thread.join().map_err(|_| "a thread panicked")??.into_iter());
        }
        Ok((0..count).filter_map(|number| parts[number % jobs].next()).collect())
    })
}
