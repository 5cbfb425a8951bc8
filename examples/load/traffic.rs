//! Stanzas from one sender to one or many receivers, a window of them in flight, each delivery counted, checked and timed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use mio::{Events, Interest, Poll, Token};

use crate::Outcome;
use crate::histogram::Histogram;
use crate::process::Usage;
use crate::wire::{PATIENCE, Wire};

/// What a receiver may hold without a whole stanza in it.
const INPUT_BYTES_MAX: usize = 4 << 20;

/// Digits that tell a group's stanzas apart.
const DIGITS: usize = 8;

/// The stanza that is sent again and again, with a number in it.
pub struct Template {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Template {
    /// From text in which `########` stands for the number.
    pub fn new(text: &str) -> Template {
        let (head, tail) = text.split_once(&"#".repeat(DIGITS)).unwrap_or((text, ""));
        Template { head: head.into(), tail: tail.into() }
    }

    fn append(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&digits(number));
        out.extend_from_slice(&self.tail);
    }

    /// Bytes of one.
    pub fn len(&self) -> usize {
        self.head.len() + DIGITS + self.tail.len()
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// A sender and those who get each stanza that it sends.
pub struct Group {
    sender: Wire,
    receivers: Vec<(Wire, u64)>,
    template: Template,
    /// When each stanza that somebody still waits for was sent, and how many wait.
    in_flight: VecDeque<(Instant, usize)>,
    /// Stanzas that all receivers have.
    completed: u64,
}

impl Group {
    /// Takes over the connections. What they have received so far is dropped.
    pub fn new(sender: Wire, receivers: Vec<Wire>, template: Template) -> Group {
        let receivers = receivers.into_iter().map(|mut wire| (std::mem::take(&mut wire.input), wire).1);
        let receivers = receivers.map(|wire| (wire, 0)).collect();
        Group { sender, receivers, template, in_flight: VecDeque::new(), completed: 0 }
    }

    fn sent(&self) -> u64 {
        self.completed + self.in_flight.len() as u64
    }

    /// Sends what the window has room for, in one write.
    fn fill(&mut self, window: usize, scratch: &mut Vec<u8>) -> Outcome<()> {
        let room = window.saturating_sub(self.in_flight.len());
        if room == 0 {
            return Ok(());
        }
        scratch.clear();
        let now = Instant::now();
        for _ in 0..room {
            self.template.append(self.sent(), scratch);
            self.in_flight.push_back((now, self.receivers.len()));
        }
        self.sender.send(scratch)
    }

    /// Reads what a receiver got; returns deliveries.
    fn receive(&mut self, index: usize, end: &Finder<'_>, latencies: &mut Histogram) -> Outcome<u64> {
        let (wire, count) = &mut self.receivers[index];
        wire.poll()?;
        let now = Instant::now();
        let (mut at, mut last, mut delivered) = (0, 0, 0);
        while let Some(found) = end.find(&wire.input[at..]) {
            last = at;
            at += found + end.needle().len();
            let place = (*count + delivered - self.completed) as usize;
            let waiting = self.in_flight.get_mut(place).ok_or("the server delivered more than was sent")?;
            waiting.1 -= 1;
            latencies.add(now - waiting.0);
            delivered += 1;
        }
        if delivered > 0 {
            *count += delivered;
            if memchr::memmem::find(&wire.input[last..at], &digits(*count - 1)).is_none() {
                let stanza = String::from_utf8_lossy(&wire.input[last..at]);
                return Err(format!("expected number {}, got {stanza}", *count - 1).into());
            }
            wire.input.drain(..at);
        }
        if wire.input.len() > INPUT_BYTES_MAX {
            return Err("the server sends something else".into());
        }
        while self.in_flight.front().is_some_and(|(_, waiting)| *waiting == 0) {
            self.in_flight.pop_front();
            self.completed += 1;
        }
        Ok(delivered)
    }

    /// What comes back to the sender is of interest only if it is an error.
    fn receive_at_sender(&mut self) -> Outcome<()> {
        self.sender.poll()?;
        let text = String::from_utf8_lossy(&self.sender.input);
        let refused =
            ["type='error'", "type=\"error\"", "<stream:error", "-ERR"].iter().any(|sign| text.contains(sign));
        if refused {
            return Err(format!("refused: {text}").into());
        }
        self.sender.input.clear();
        Ok(())
    }
}

/// How much of it.
pub struct Plan {
    /// Stanzas of a group that are sent and not yet delivered.
    pub window: usize,
    /// Stanzas a second of all groups together; none: as many as the windows let through.
    pub rate: Option<f64>,
    /// Not measured.
    pub warm_up: Duration,
    /// Ends the run, or:
    pub duration: Duration,
    /// Deliveries that end the run.
    pub count_max: u64,
    /// The end of what is delivered.
    pub end: &'static str,
    /// The server.
    pub pid: Option<u32>,
    /// Waited before its counters are read again.
    pub settle: Duration,
}

/// What came of it.
pub struct Tally {
    pub deliveries: u64,
    pub seconds: f64,
    pub usage: Usage,
    pub latencies: Histogram,
}

/// How often who keeps a pace looks whether something is due.
const PACE: Duration = Duration::from_millis(1);

/// Runs the groups side by side until the plan's end, then until nothing is in flight.
pub fn run(groups: &mut [Group], plan: &Plan) -> Outcome<Tally> {
    let poll = Poll::new()?;
    let mut owners = Vec::new();
    for (number, group) in groups.iter_mut().enumerate() {
        let receivers = group.receivers.iter_mut().enumerate().map(|(index, (wire, _))| (wire, Some(index)));
        for (wire, index) in receivers.chain([(&mut group.sender, None)]) {
            poll.registry().register(&mut wire.socket, Token(owners.len()), Interest::READABLE)?;
            owners.push((number, index));
        }
    }
    let paced = plan.rate.map(|rate| (Instant::now(), rate / groups.len() as f64));
    let mut course = Course {
        paced,
        heard: Instant::now(),
        poll,
        owners,
        events: Events::with_capacity(1024),
        end: Finder::new(plan.end),
    };

    let mut scratch = Vec::new();
    let mut latencies = Histogram::default();
    let start = Instant::now();
    while start.elapsed() < plan.warm_up {
        course.turn(groups, plan.window, &mut scratch, &mut latencies)?;
    }
    latencies = Histogram::default();
    let before = Usage::of(plan.pid)?;
    let start = Instant::now();
    let mut deliveries = 0;
    while start.elapsed() < plan.duration && deliveries < plan.count_max {
        deliveries += course.turn(groups, plan.window, &mut scratch, &mut latencies)?;
    }
    while groups.iter().any(|group| !group.in_flight.is_empty()) {
        deliveries += course.turn(groups, 0, &mut scratch, &mut latencies)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(plan.settle);
    Ok(Tally { deliveries, seconds, usage: Usage::of(plan.pid)? - before, latencies })
}

struct Course<'a> {
    /// Since when, and stanzas a second of each group.
    paced: Option<(Instant, f64)>,
    heard: Instant,
    poll: Poll,
    /// Group and receiver (or none: the sender) of each token.
    owners: Vec<(usize, Option<usize>)>,
    events: Events,
    end: Finder<'a>,
}

impl Course<'_> {
    /// Fills the windows, waits, receives: deliveries.
    fn turn(
        &mut self,
        groups: &mut [Group],
        window: usize,
        scratch: &mut Vec<u8>,
        latencies: &mut Histogram,
    ) -> Outcome<u64> {
        let count = groups.len() as f64;
        for (number, group) in groups.iter_mut().enumerate() {
            let due = match self.paced {
                // The groups speak in turn, not all at once.
                Some((since, rate)) => since.elapsed().as_secs_f64() * rate + number as f64 / count,
                None => f64::INFINITY,
            };
            group.fill(window.min((due as u64).saturating_sub(group.completed) as usize), scratch)?;
        }
        self.poll.poll(&mut self.events, Some(if self.paced.is_some() { PACE } else { PATIENCE }))?;
        if !self.events.is_empty() {
            self.heard = Instant::now();
        } else if self.heard.elapsed() > PATIENCE {
            return Err("the server delivers nothing".into());
        }
        let mut deliveries = 0;
        for event in &self.events {
            let (number, receiver) = self.owners[event.token().0];
            match receiver {
                Some(index) => deliveries += groups[number].receive(index, &self.end, latencies)?,
                None => groups[number].receive_at_sender()?,
            }
        }
        Ok(deliveries)
    }
}
