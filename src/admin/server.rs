//! The server's end of the admin socket: one thread, one client at a time.
//!
//! The thread holds nothing but the socket and the function that answers. A client has `REQUEST_TIME` for its line and as long to
//! take the reply; whoever is slower, or sends more than [`REQUEST_BYTES_MAX`], is closed.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::{REQUEST_BYTES_MAX, decode, escape, socket_path, spell};
use crate::core::{Answer, Command};

/// Time a client has for its whole request, and then for taking the reply.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A listening admin socket. Dropping it ends its thread after the request in hand, and removes the socket.
pub struct AdminServer {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
}

impl AdminServer {
    /// Opens the socket in a data directory. `answer` is called on the socket's thread; `None` says that the server is ending.
    /// A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if a server answers there; otherwise what the system says.
    pub fn start(
        data: &Path,
        answer: impl FnMut(Command) -> Option<Answer> + Send + 'static,
    ) -> io::Result<AdminServer> {
        let path = socket_path(data);
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        thread::Builder::new().name("admin".to_owned()).spawn(move || accept(&listener, &stop, answer))?;
        Ok(AdminServer { path, stopping })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread out of `accept`. If that fails it has gone already, or will with the process.
        let _ = UnixStream::connect(&self.path);
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes what an earlier server left behind, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "a file of that name is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn accept(listener: &UnixListener, stop: &AtomicBool, mut answer: impl FnMut(Command) -> Option<Answer>) {
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        match stream.and_then(|stream| serve(stream, &mut answer)) {
            Ok(()) => {}
            Err(error) => {
                log::debug!("admin socket: {error}");
                // Descriptors may have run out: without a pause this would spin until there are some.
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn serve(mut stream: UnixStream, answer: &mut impl FnMut(Command) -> Option<Answer>) -> io::Result<()> {
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    let line = read_line(&mut stream)?;
    let spelt = match std::str::from_utf8(&line) {
        Ok(line) => decode(line),
        Err(_) => Err("a request that is not UTF-8".to_owned()),
    };
    let reply = match spelt.map(answer) {
        Ok(Some(answer)) => reply(spell(answer)),
        Ok(None) => return Ok(()),
        Err(reason) => reply(Err(reason)),
    };
    stream.write_all(reply.as_bytes())
}

fn reply(result: Result<Vec<String>, String>) -> String {
    let mut text = String::new();
    match result {
        Ok(lines) => {
            for line in lines {
                text.push_str("= ");
                escape(&line, &mut text);
                text.push('\n');
            }
            text.push_str("ok");
        }
        Err(reason) => {
            text.push_str("error ");
            escape(&reason, &mut text);
        }
    }
    text.push('\n');
    text
}

/// The request without its line feed. The buffer has its full size from the start, so that no copy of a password stays behind.
fn read_line(stream: &mut UnixStream) -> io::Result<Zeroizing<Vec<u8>>> {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut line = Zeroizing::new(vec![0; REQUEST_BYTES_MAX]);
    let mut filled = 0;
    while let Some(rest) = line.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(rest) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += read;
        if let Some(end) = line.iter().take(filled).position(|&byte| byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
    }
    Err(io::Error::new(ErrorKind::InvalidData, "a request that is too long"))
}
