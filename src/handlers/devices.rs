//! A user's own devices: those that can log in by a token (XEP-0484), and their end from another one, as an ad-hoc command.
//!
//! A phone that was lost logs in with its token and needs no password. Its owner sees here which devices have one, by the names
//! that they gave themselves, and takes it away; the device's session ends with it. Nobody else is shown that list.

use super::bind2;
use super::commands::{Audience, Call, Command};
use super::prelude::*;
use crate::core::error::StreamError;
use crate::core::form::{self, Form};
use crate::core::parked::Waiting;
use crate::core::tokens::{Client, ClientPlace};

pub(super) const HANDLER: Handler = Handler { name: "devices", spec: "XEP-0484 0.2.0, XEP-0050 1.3", ..Handler::EMPTY };

pub(super) const COMMANDS: &[Command] = &[Command {
    node: "urn:whinchat:devices",
    name: "Your devices",
    instructions: "",
    form: NODE,
    questions: &[],
    audience: Audience::Users,
    run,
}];

const NODE: &str = "urn:whinchat:devices";
const FIELD: &str = "devices";
const LOGGED_OUT: StreamError = StreamError::new("not-authorized", "This device was logged out by its owner.");

/// What a form calls a device.
fn place_name(place: &ClientPlace) -> String {
    place.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(cx: &mut Cx<'_>, call: Call, form: &Form) -> Handled {
    let user = cx.account().jid.clone();
    let chosen = form.values(FIELD).map(<[String]>::to_vec);
    let then = move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| {
        let clients = match reply {
            Ok(Stored::Clients(clients)) => clients,
            Ok(_) => return call.fail(conn, StanzaError::INTERNAL_SERVER_ERROR, out),
            Err(error) => return call.fail(conn, error.into(), out),
        };
        match chosen {
            None => show(&call, conn, &clients, out),
            Some(names) => {
                let is_meant = |place: &ClientPlace| names.contains(&place_name(place));
                let places = clients.iter().map(|client| client.place).filter(is_meant).collect();
                log_out(core, now, conn, call, places, out);
            }
        }
    };
    cx.ask_for_all(StoreRequest::Clients { user }, Box::new(then))
}

fn show(call: &Call, conn: ConnId, clients: &[Client], out: &mut Outputs) {
    let option = |client: &Client| {
        let name = if client.name.is_empty() { "A device without a name" } else { &client.name };
        (place_name(&client.place), format!("{name}, {}", client.used))
    };
    let options: Vec<_> = clients.iter().map(option).collect();
    call.ask(conn, out, |w| {
        form::open_titled(
            w,
            NODE,
            "Your devices",
            "Those that you choose are logged out, and need your password again.",
        );
        form::choice(w, FIELD, "To be logged out", &options);
    });
}

fn log_out(core: &mut Core, _: Now, conn: ConnId, call: Call, places: Vec<ClientPlace>, out: &mut Outputs) {
    if places.is_empty() {
        return call.complete(core, conn, out, |_| {});
    }
    let user = call.user.to_bare();
    let request = StoreRequest::ClientsForget { user: user.clone(), clients: places.clone() };
    let then = move |core: &mut Core, now: Now, conn: ConnId, reply: StoreReply, out: &mut Outputs| match reply {
        Ok(_) => {
            log::info!("{user} has logged {} devices out", places.len());
            call.complete(core, conn, out, |_| {});
            for session in bind2::sessions_of(core, &user, &places) {
                core.close_stream(now, session, Some(LOGGED_OUT), out);
            }
            // Whoever is on the way in may have come by one of these tokens.
            core.end_unbound(now, &user, LOGGED_OUT, out);
        }
        Err(error) => call.fail(conn, error.into(), out),
    };
    core.ask(request, Waiting::Detached { conn, then: Box::new(then) }, out);
}
