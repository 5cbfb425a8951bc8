//! The text of a script as steps. `tests/scripts/README.md` describes the format for those who write scripts.

use std::time::Duration;

use whinchat::core::{ListenerKind, StoreError};

/// One script.
pub struct Script {
    /// Lines `config key = value` with their line numbers.
    pub config: Vec<(usize, String, String)>,
    /// The rest, each with its line number.
    pub steps: Vec<(usize, Step)>,
}

/// One line of a script.
pub enum Step {
    /// `== title`; everything that came must have been expected by now.
    Section,
    /// `client` and `login`: an account that is logged in.
    Client(Login),
    /// `connect`: a stream of which nothing has been sent.
    Connect { name: String, listener: ListenerKind },
    /// `tls`: the handshake that the server has ordered is done.
    Tls { name: String },
    /// `close`: the socket is gone.
    Close { name: String },
    /// `stall` and `unstall`: whether the client reads.
    Stall { name: String, on: bool },
    /// `account`: creates one.
    Account { jid: String, password: String },
    /// `C:`
    Send { name: String, text: String },
    /// `S:`
    Expect { name: String, expected: Expected },
    /// `T:`
    Advance(Duration),
    /// `restart [with scram_iterations N]`
    Restart(Option<u32>),
    /// `fail store once`
    FailStore(StoreError),
    /// `stall store` and `unstall store`: whether it answers nothing of itself.
    StallStore(bool),
    /// `stall turns` and `unstall turns`: whether what is due at once waits.
    StallTurns(bool),
    /// `turn`: so many turns of a stalled loop.
    Turn(usize),
    /// `commit`: a stalled store answers so many requests.
    Commit(usize),
    /// `command`
    Command(Vec<String>),
    /// `answer`
    Answer(String),
}

/// Who logs in, and how.
pub struct Login {
    /// Name of the client in the script, empty for the default.
    pub name: String,
    /// Bare, or full to ask for a resource.
    pub jid: String,
    /// `with PASSWORD`
    pub password: Option<String>,
    /// `via MECHANISM`
    pub mechanism: String,
    /// `over SASL2`
    pub sasl2: bool,
    /// `login` stops before a resource is bound.
    pub bind: bool,
}

/// What stands behind `S:`.
pub enum Expected {
    /// `-`
    Nothing,
    /// `closed`
    Closed,
    /// `</stream:stream>`
    Footer,
    /// A stream header or an element.
    Xml(String),
}

/// Reads a script.
///
/// # Errors
/// Line number and what is wrong there.
pub fn parse(text: &str) -> Result<Script, (usize, String)> {
    let mut script = Script { config: Vec::new(), steps: Vec::new() };
    for (number, line) in join(text)? {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["config", ..] => {
                let (key, value) =
                    line["config".len()..].split_once('=').ok_or((number, "config KEY = VALUE".into()))?;
                if !script.steps.is_empty() {
                    return Err((number, "config lines come first".into()));
                }
                script.config.push((number, key.trim().to_owned(), value.trim().to_owned()));
            }
            words => script.steps.push((number, step(&line, words).map_err(|error| (number, error))?)),
        }
    }
    Ok(script)
}

/// Lines with their numbers, continuations joined: behind a `>` with nothing, elsewhere with a line end.
fn join(text: &str) -> Result<Vec<(usize, String)>, (usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            lines.push((index + 1, line.to_owned()));
            continue;
        }
        let (_, last) = lines.last_mut().ok_or((index + 1, "a continuation of nothing".to_owned()))?;
        if !last.ends_with(['>', ':']) {
            last.push('\n');
        }
        last.push_str(line.trim_start());
    }
    Ok(lines)
}

fn step(line: &str, words: &[&str]) -> Result<Step, String> {
    let name = |name: &str| name.to_owned();
    Ok(match words {
        ["==", ..] => Step::Section,
        ["client", rest @ ..] => Step::Client(login(rest, true)?),
        ["login", rest @ ..] => Step::Client(login(rest, false)?),
        ["connect", rest @ ..] => connect(rest)?,
        ["tls", rest @ ..] => Step::Tls { name: rest.concat() },
        ["close", rest @ ..] => Step::Close { name: rest.concat() },
        ["stall", "store"] => Step::StallStore(true),
        ["unstall", "store"] => Step::StallStore(false),
        ["stall", "turns"] => Step::StallTurns(true),
        ["unstall", "turns"] => Step::StallTurns(false),
        ["turn"] => Step::Turn(1),
        ["turn", count] => Step::Turn(count.parse().map_err(|_| "turn is followed by a number")?),
        ["commit", count] => Step::Commit(count.parse().map_err(|_| "commit is followed by a number")?),
        ["stall", rest @ ..] => Step::Stall { name: rest.concat(), on: true },
        ["unstall", rest @ ..] => Step::Stall { name: rest.concat(), on: false },
        ["account", jid, password] => Step::Account { jid: name(jid), password: name(password) },
        ["T:", amount] => Step::Advance(duration(amount)?),
        ["restart"] => Step::Restart(None),
        ["restart", "with", "scram_iterations", rounds] => {
            Step::Restart(Some(rounds.parse().map_err(|_| "no number")?))
        }
        ["fail", "store", "once"] => Step::FailStore(StoreError::Failed),
        ["fail", "store", "once", "full"] => Step::FailStore(StoreError::DiskFull),
        ["command", rest @ ..] => Step::Command(rest.iter().map(|word| name(word)).collect()),
        ["answer", rest @ ..] => Step::Answer(rest.join(" ")),
        [first, ..] if first.starts_with(['C', 'S']) => stream_line(line)?,
        _ => return Err(format!("not a line of a script: {line}")),
    })
}

/// `[NAME =] JID [with PASSWORD] [via MECHANISM] [over SASL2]`
fn login(words: &[&str], bind: bool) -> Result<Login, String> {
    let (name, words) = match words {
        [name, "=", rest @ ..] => (*name, rest),
        rest => ("", rest),
    };
    let [jid, options @ ..] = words else { return Err("no JID".into()) };
    let option = |key: &str| options.chunks(2).find(|pair| pair[0] == key).and_then(|pair| pair.get(1).copied());
    if options.chunks(2).any(|pair| pair.len() < 2 || !matches!(pair[0], "with" | "via" | "over")) {
        return Err("[NAME =] JID [with PASSWORD] [via MECHANISM] [over SASL2]".into());
    }
    Ok(Login {
        name: name.to_owned(),
        jid: (*jid).to_owned(),
        password: option("with").map(str::to_owned),
        mechanism: option("via").unwrap_or("SCRAM-SHA-256").to_owned(),
        sasl2: option("over") == Some("SASL2"),
        bind,
    })
}

/// `[NAME] [tls|starttls|plain]`
fn connect(words: &[&str]) -> Result<Step, String> {
    let kind = |word: &str| match word {
        "tls" => Some(ListenerKind::Tls),
        "starttls" => Some(ListenerKind::StartTls),
        "plain" => Some(ListenerKind::Plain),
        _ => None,
    };
    let (name, listener) = match words {
        [] => ("", ListenerKind::Tls),
        [word] => kind(word).map_or((*word, ListenerKind::Tls), |listener| ("", listener)),
        [name, word] => (*name, kind(word).ok_or("tls, starttls or plain")?),
        _ => return Err("connect [NAME] [tls|starttls|plain]".into()),
    };
    Ok(Step::Connect { name: name.to_owned(), listener })
}

/// `+60s`, `+5m`, `+2h`, `+3d`, `+200ms`
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("no duration: {text}");
    let amount = text.strip_prefix('+').ok_or_else(wrong)?;
    let digits = amount.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &amount[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_millis(number * unit))
}

/// `C [NAME]: TEXT` and `S [NAME]: TEXT`
fn stream_line(line: &str) -> Result<Step, String> {
    let (head, text) = line.split_once(':').ok_or("no colon")?;
    let name = head[1..].trim().to_owned();
    let text = text.strip_prefix(' ').unwrap_or(text).to_owned();
    if head.len() > 1 && !head[1..].starts_with(' ') {
        return Err(format!("not a line of a script: {line}"));
    }
    if head.starts_with('C') {
        return Ok(Step::Send { name, text });
    }
    let expected = match text.as_str() {
        "-" => Expected::Nothing,
        "closed" => Expected::Closed,
        "</stream:stream>" => Expected::Footer,
        _ => Expected::Xml(text),
    };
    Ok(Step::Expect { name, expected })
}
