//! One file per feature, one word per feature in `handlers!`.
//!
//! A handler file exports a single constant, `HANDLER`. The router, disco, stream features, `whinchat features` and the table of
//! specifications in the documentation are all derived from these constants, so a feature is never half registered. The test
//! script of a feature has its name: `ping.rs`, `tests/scripts/ping.xmpp`.
//!
//! Handlers see `Cx`, never a socket, the store or another handler's state. What two handlers share lives in `core`; they
//! call each other only through named functions of the owner (`roster::push_change`).

use crate::config::Config;
use crate::core::Core;
use crate::core::blocklist::Blocklist;
use crate::core::effects::{AccountRecord, ListenerKind};
use crate::core::error::StanzaError;
pub(crate) use crate::core::router::{Answer, Cx, Iq};
use crate::core::stream::Stream;
use crate::xml::Writer;

mod prelude {
    pub(super) use super::Outcome::Done;
    pub(super) use super::{Cx, Handled, Handler, Iq, Target, iq_get, iq_set};
    pub(super) use crate::core::effects::{ConnId, DocumentKey, StoreReply, StoreRequest, Stored};
    pub(super) use crate::core::error::StanzaError;
    pub(super) use crate::core::router::{ParkedIq, Resumed, acknowledge};
    pub(super) use crate::core::{Core, Now, Outputs};
    pub(super) use crate::xml::{Element, Writer, ns};
}

/// Declares the features. A name in parentheses is the state that the feature keeps per bound resource; the macro collects these
/// into [`PerResource`], one field per feature, whose insides only that feature's file can see.
macro_rules! handlers {
    ($($name:ident $(($state:ident))?),* $(,)?) => {
        $(pub(crate) mod $name;)*

        /// Every feature, in the order of the list.
        pub const HANDLERS: &[&Handler] = &[$(&$name::HANDLER),*];

        /// What features keep for a bound resource.
        #[derive(Default)]
        pub struct PerResource {
            $($(pub(crate) $name: $name::$state,)?)*
        }
    };
}

handlers! {
    bind,
    bind2(State),
    blocking(State),
    carbons(State),
    csi,
    disco,
    fast,
    last,
    mam,
    message,
    muc,
    offline,
    pep(State),
    ping,
    presence(State),
    private,
    register,
    roster(State),
    sasl2,
    sm,
    time,
    upgrade,
    vcard,
    version,
    administration,
    avatar,
    bookmarks,
    commands,
    devices,
    displayed,
    push,
    services,
    shared_contacts,
    subscription,
}

/// What features keep for an account in use.
#[derive(Default)]
pub struct PerAccount {
    pub(crate) avatar: avatar::Hash,
    pub(crate) offline: offline::Queue,
    pub(crate) blocking: Blocklist,
    pub(crate) mam: mam::Preferences,
}

impl PerAccount {
    /// For an account that comes into use.
    pub(crate) fn activated(record: &AccountRecord) -> PerAccount {
        PerAccount {
            avatar: avatar::Hash::new(&record.avatar),
            offline: offline::Queue::new(record.offline),
            blocking: record.blocked.clone(),
            mam: mam::Preferences::new(&record.archive),
        }
    }

    /// What it holds, roughly, in bytes.
    pub(crate) fn held(&self) -> usize {
        let jids = self.blocking.jids().iter().chain(self.mam.jids());
        jids.map(|jid| 48 + jid.as_str().len()).sum()
    }
}

/// What features keep for the whole server.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) bind2: bind2::Binding,
    pub(crate) commands: commands::Sessions,
    pub(crate) push: push::Notifier,
    pub(crate) mam: mam::Ids,
    pub(crate) message: message::Receivers,
    pub(crate) muc: muc::Rooms,
    pub(crate) offline: offline::InFlight,
    pub(crate) pep: pep::Known,
    pub(crate) register: register::Recent,
    pub(crate) shared_contacts: shared_contacts::Circles,
    pub(crate) sm: sm::Resumable,
}

impl Shared {
    /// Nothing yet; `secret` is drawn once per installation, `archived` are the services of rooms whose domains keep archives.
    pub(crate) fn new(secret: &[u8; 32], archived: Vec<Box<str>>, config: &Config) -> Shared {
        let shared_contacts = shared_contacts::Circles::new(config);
        Shared { muc: muc::Rooms::new(secret, archived), shared_contacts, ..Shared::default() }
    }
}

/// A feature.
pub struct Handler {
    /// Its file's name.
    pub name: &'static str,
    /// Document and the version implemented; printed by `whinchat features`.
    pub spec: &'static str,
    /// Advertised by disco for the host.
    pub features: &'static [&'static str],
    /// Advertised by disco for an account.
    pub account_features: &'static [&'static str],
    /// What disco says an account is, besides an account: category and type.
    pub account_identities: &'static [(&'static str, &'static str)],
    /// The requests it answers.
    pub routes: &'static [Route],
    /// Takes a client's answer if it was this feature that asked.
    pub(crate) answer: Option<fn(&mut Cx<'_>, &Answer<'_>) -> bool>,
    /// Written into `<stream:features/>` of a stream in the given phase.
    pub(crate) stream_features: Option<fn(&Core, &Stream, StreamPhase, &mut Writer<'_>)>,
    /// Written into what a log-in can ask for beside itself (XEP-0388).
    pub(crate) inline: Option<fn(&Core, &Stream, &mut Writer<'_>)>,
    /// What resource binding by XEP-0386 can switch on in the same step.
    pub bind2_feature: Option<&'static str>,
}

impl Handler {
    /// A feature that does nothing.
    pub const EMPTY: Handler = Handler {
        name: "",
        spec: "",
        features: &[],
        account_features: &[],
        account_identities: &[],
        routes: &[],
        answer: None,
        stream_features: None,
        inline: None,
        bind2_feature: None,
    };
}

/// How far a stream is, for its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPhase {
    /// Before log-in.
    Login {
        /// Under TLS.
        secure: bool,
        /// Where it came in.
        listener: ListenerKind,
    },
    /// After log-in, before binding.
    Authed,
    /// After both in one step (XEP-0386).
    Bound,
}

impl StreamPhase {
    /// Whether the client has logged in.
    pub fn is_authed(self) -> bool {
        matches!(self, StreamPhase::Authed | StreamPhase::Bound)
    }
}

/// `get` or `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Reads.
    Get,
    /// Changes.
    Set,
}

/// Whose behalf a request addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A served domain.
    Host,
    /// The sender's own account: no `to`, or its own bare JID.
    Account,
    /// Another local account's bare JID, whether it exists or not.
    Peer,
}

/// Which requests a function answers. The router has checked the envelope (type, id, exactly one child, valid addresses) and the
/// session's phase before it calls.
pub struct Route {
    /// Type.
    pub kind: RequestKind,
    /// Addressee.
    pub target: Target,
    /// Namespace of the payload.
    pub ns: &'static str,
    /// Local name of the payload.
    pub name: &'static str,
    /// What answers.
    pub(crate) run: fn(&mut Cx<'_>, &Iq<'_>) -> Handled,
}

/// `Err` becomes the error reply, in one place. `Parked` can only be had from `cx.ask`.
pub(crate) type Handled = Result<Outcome, StanzaError>;

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered.
    Done,
    /// It waits for the store.
    Parked,
}

const fn iq_get(
    target: Target,
    ns: &'static str,
    name: &'static str,
    run: fn(&mut Cx<'_>, &Iq<'_>) -> Handled,
) -> Route {
    Route { kind: RequestKind::Get, target, ns, name, run }
}

const fn iq_set(
    target: Target,
    ns: &'static str,
    name: &'static str,
    run: fn(&mut Cx<'_>, &Iq<'_>) -> Handled,
) -> Route {
    Route { kind: RequestKind::Set, target, ns, name, run }
}

/// Gives a client's answer to who has asked; nobody may have.
pub(crate) fn answer(cx: &mut Cx<'_>, answer: &Answer<'_>) {
    for take in HANDLERS.iter().filter_map(|handler| handler.answer) {
        if take(cx, answer) {
            return;
        }
    }
}

/// What answers a request.
pub(crate) fn find(
    kind: RequestKind,
    target: Target,
    ns: &str,
    name: &str,
) -> Option<fn(&mut Cx<'_>, &Iq<'_>) -> Handled> {
    let wanted = |route: &&Route| route.kind == kind && route.target == target && route.ns == ns && route.name == name;
    HANDLERS.iter().flat_map(|handler| handler.routes).find(wanted).map(|route| route.run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::ns;

    #[test]
    fn no_two_handlers_claim_one_request() {
        let mut seen = std::collections::HashMap::new();
        for handler in HANDLERS {
            for route in handler.routes {
                let key = (route.kind, route.target, route.ns, route.name);
                let other = seen.insert(key, handler.name);
                assert_eq!(other, None, "{} and {other:?} both answer {key:?}", handler.name);
            }
        }
    }

    /// What is told without a request that answers for it: forms, hints, what is done to messages and presence. Everything else
    /// that disco says is the namespace of a route, so that what is advertised is what works.
    const WITHOUT_ROUTE: &[&str] = &[
        ns::CAPS,
        ns::DATA_FORMS,
        "msgoffline",
        ns::STANZA_ID,
        ns::REPORTING,
        ns::MAM_EXTENDED,
        ns::BOOKMARKS,
        "urn:xmpp:bookmarks:1#compat",
        "urn:xmpp:bookmarks:1#compat-pep",
        "urn:xmpp:mds:server-assist:0",
        "urn:xmpp:pep-vcard-conversion:0",
        ns::VCARD4,
    ];

    #[test]
    fn what_is_advertised_is_answered() {
        let routes = || HANDLERS.iter().flat_map(|handler| handler.routes);
        for handler in HANDLERS {
            for feature in handler.features.iter().chain(handler.account_features) {
                let part = feature.split_once('#').filter(|_| feature.starts_with(ns::PUBSUB)).map(|(whole, _)| whole);
                let answered = routes().any(|route| route.ns == *feature || Some(route.ns) == part);
                let passive = WITHOUT_ROUTE.contains(feature);
                assert!(answered != passive, "{}: {feature} is answered: {answered}, listed: {passive}", handler.name);
            }
        }
        let advertised: Vec<&str> = HANDLERS
            .iter()
            .flat_map(|handler| handler.features.iter().chain(handler.account_features))
            .copied()
            .collect();
        for route in routes() {
            // Some are told elsewhere (binding, registration where it is open), or answered for who asks anyway.
            let silent = [ns::BIND, ns::REGISTER, ns::SESSION, ns::PUBSUB_OWNER].contains(&route.ns);
            assert!(silent || advertised.contains(&route.ns), "{} is answered and not advertised", route.ns);
        }
    }

    #[test]
    fn every_handler_has_a_script() {
        for handler in HANDLERS {
            let script = format!("{}/tests/scripts/{}.xmpp", env!("CARGO_MANIFEST_DIR"), handler.name);
            assert!(std::path::Path::new(&script).exists(), "write {script}");
        }
    }

    #[test]
    fn what_features_keep_per_resource_is_small() {
        let bytes = size_of::<PerResource>();
        assert!(bytes <= 104, "PerResource has {bytes} bytes");
    }
}
