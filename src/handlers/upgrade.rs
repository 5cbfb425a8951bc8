//! XEP-0480: SASL Upgrade Tasks: an account gets the keys for SCRAM-SHA-256 that it lacks, or that are weaker than new ones are
//! made, from a client that knows the password.
//!
//! The task is announced to everybody, since a list that depends on the account would tell which there are. It is done where there
//! is something to do: a client whose account has the keys that it should have gets its success at once. Who logs in with a token
//! is asked nothing (XEP-0484 section 4.2), and could otherwise set another password.

use super::prelude::*;
use super::{fast, sasl2};
use crate::auth::{Credentials, Hash, SaslError, ScramKeys};
use crate::core::parked::Waiting;
use crate::jid::BareJid;
use crate::xml::{Frame, Tree};

pub(super) const HANDLER: Handler = Handler { name: "upgrade", spec: "XEP-0480 0.2.0", ..Handler::EMPTY };

const TASK: &str = "UPGR-SCRAM-SHA-256";
const HASH: Hash = Hash::Sha256;

/// A task that is being done. The client has proved who it is and is not logged in yet.
pub(super) struct Task {
    user: BareJid,
    /// What the account had when the task began; only that is replaced.
    before: Credentials,
    salt: Vec<u8>,
    iterations: u32,
    /// The client has chosen the task and was given the salt.
    is_begun: bool,
}

/// Whether the client asks for it.
pub(super) fn is_wanted(root: &Element<'_>) -> bool {
    root.children().any(|child| child.is("upgrade", ns::SASL_UPGRADE) && child.text() == TASK)
}

pub(super) fn advertise(w: &mut Writer<'_>) {
    w.open("upgrade", ns::SASL_UPGRADE).text(TASK).close();
}

/// A log-in by a password has succeeded whose client asks for the task.
pub(super) fn start(
    core: &mut Core,
    now: Now,
    conn: ConnId,
    user: BareJid,
    request: sasl2::Request,
    data: Vec<u8>,
    out: &mut Outputs,
) {
    if !core.store_has_room() {
        return fast::issue(core, now, conn, user, request, data, out);
    }
    let store = StoreRequest::Credentials { user: user.clone() };
    let then =
        Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
            Ok(Stored::Credentials(Some(before))) if before.lacks(HASH, &core.password_scheme) => {
                offer(core, conn, user, before, request, &data, out);
            }
            _ => fast::issue(core, now, conn, user, request, data, out),
        });
    core.ask(store, Waiting::Stream { conn, then }, out);
}

fn offer(
    core: &mut Core,
    conn: ConnId,
    user: BareJid,
    before: Credentials,
    mut request: sasl2::Request,
    data: &[u8],
    out: &mut Outputs,
) {
    let salt = core.ids.bytes().iter().take(16).copied().collect();
    let iterations = core.password_scheme.iterations();
    request.task = Some(Task { user, before, salt, iterations, is_begun: false });
    let Some(login) = core.login_mut(conn) else { return };
    login.sasl2 = Some(Box::new(request));
    out.wire.write(conn, |buf| {
        let mut w = Writer::new(buf);
        w.open("continue", ns::SASL2);
        if !data.is_empty() {
            w.text_element("additional-data", crate::auth::encode(data));
        }
        w.open("tasks", ns::SASL2).text_element("task", TASK);
    });
}

/// `<next/>` or `<task-data/>` of a client that has been offered a task.
pub(super) fn on_element(core: &mut Core, now: Now, conn: ConnId, frame: &Frame<'_>, out: &mut Outputs) {
    let tree = Tree::of(frame);
    let root = tree.root();
    let Some(task) = core.login_mut(conn).and_then(|login| login.sasl2.as_mut()?.task.as_mut()) else { return };
    match (frame.local, task.is_begun) {
        ("next", false) if root.attr("task") == Some(TASK) => {
            task.is_begun = true;
            out.wire.write(conn, |buf| {
                let mut w = Writer::new(buf);
                w.open("task-data", ns::SASL2).open("salt", ns::SCRAM_UPGRADE).attr("iterations", task.iterations);
                w.text(crate::auth::encode(&task.salt));
            });
        }
        ("next", false) => core.refuse_login(now, conn, SaslError::MalformedRequest, out),
        ("task-data", true) => {
            let hash = root.child("hash", ns::SCRAM_UPGRADE).map(|hash| sasl2::decode(&hash.text()));
            match hash.unwrap_or(Err(SaslError::MalformedRequest)) {
                Ok(salted) => finish(core, now, conn, &salted, out),
                Err(error) => core.refuse_login(now, conn, error, out),
            }
        }
        _ => sasl2::disturbed(core, now, conn, out),
    }
}

/// Keeps the keys, then lets the client in.
fn finish(core: &mut Core, now: Now, conn: ConnId, salted: &[u8], out: &mut Outputs) {
    let Some(mut request) = core.login_mut(conn).and_then(|login| login.sasl2.take()) else { return };
    let Some(Task { user, before, salt, iterations, .. }) = request.task.take() else { return };
    let keys = ScramKeys::from_salted(HASH, salted, salt, iterations);
    let Some(credentials) = keys.and_then(|keys| before.with(HASH, keys)).filter(|_| core.store_has_room()) else {
        if let Some(login) = core.login_mut(conn) {
            // The failure is told in the right syntax.
            login.sasl2 = Some(request);
        }
        return core.refuse_login(now, conn, SaslError::MalformedRequest, out);
    };
    let (before, after) = (Box::new(before), Box::new(credentials));
    let store = StoreRequest::CredentialsReplace { user: user.clone(), before, after };
    let then = Box::new(move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        match reply {
            Ok(_) => log::info!("{user} has new keys for SCRAM-SHA-256"),
            // The old ones do as well as they did.
            Err(error) => log::warn!("new keys of {user} were not stored: {error:?}"),
        }
        fast::issue(core, now, conn, user, *request, Vec::new(), out);
    });
    core.ask(store, Waiting::Stream { conn, then }, out);
}
