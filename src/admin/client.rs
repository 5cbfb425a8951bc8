//! The other end of the admin socket, for programs that look after a server.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{REQUEST_BYTES_MAX, encode, socket_path, unescape};
use crate::core::Command;

/// How long an answer may take. Passwords are hashed one after the other, so a change may have to wait for log-ins.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// The longest reply: `LIST_MAX` accounts with the longest addresses.
const REPLY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// No server listens in that data directory.
    NotRunning,
    /// The server did not do it, and says why.
    Refused(String),
    /// The socket failed, or the server ended before it answered: whether it was done is not known.
    Failed(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::NotRunning => f.write_str("no server is running there"),
            AskError::Refused(reason) => f.write_str(reason),
            AskError::Failed(error) => write!(f, "the server cannot be asked: {error}"),
        }
    }
}

impl std::error::Error for AskError {}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> AskError {
        AskError::Failed(error)
    }
}

/// Asks the server of a data directory. The answer's lines are addresses for [`Command::UserList`], `name value` for
/// [`Command::Status`], and none for the others.
///
/// # Errors
/// [`AskError`].
pub fn ask(data: &Path, command: &Command) -> Result<Vec<String>, AskError> {
    let mut request = encode(command);
    request.push('\n');
    if request.len() > REQUEST_BYTES_MAX {
        return Err(AskError::Refused("the request is too long".to_owned()));
    }
    let mut stream = match UnixStream::connect(socket_path(data)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Err(AskError::NotRunning);
        }
        other => other?,
    };
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.write_all(request.as_bytes())?;
    let mut reply = String::new();
    stream.take(REPLY_BYTES_MAX).read_to_string(&mut reply)?;
    parse(&reply)
}

fn parse(reply: &str) -> Result<Vec<String>, AskError> {
    let broken = || AskError::Failed(io::Error::new(ErrorKind::InvalidData, "it ended before it answered"));
    let text = |escaped: &str| unescape(escaped).map(|text| text.to_string()).ok_or_else(broken);
    let mut lines = Vec::new();
    // The last line must be whole: a reply that was cut off anywhere is none.
    for line in reply.split_inclusive('\n') {
        let line = line.strip_suffix('\n').ok_or_else(broken)?;
        if line == "ok" {
            return Ok(lines);
        } else if let Some(reason) = line.strip_prefix("error ") {
            return Err(AskError::Refused(text(reason)?));
        }
        lines.push(text(line.strip_prefix("= ").ok_or_else(broken)?)?);
    }
    Err(broken())
}
