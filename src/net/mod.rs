//! Sockets: the only code that sees mio, and with it TLS, the only code that sees rustls.
//!
//! [`poll`] is the loop that drives the core, [`serve`] what it does with one connection, [`conn`] the connection itself;
//! [`tls`] and [`certificates`] (with [`leaf`]) secure it, [`listen`] lets it in, [`slab`] finds it again. Nothing here knows XMPP: bytes go to
//! [`crate::core::Core::step`], and what it orders is carried out.
//!
//! # Contract
//!
//! One thread. Nothing blocks but the poller, and nothing grows without a bound: a peer that sends faster than the core takes
//! is not read, one that does not take what it is sent is ended after `Limits::write_stall`, and what the core queues is the
//! core's to limit. A connection that has nothing to say owns no buffer. Every connection that was announced with
//! [`crate::core::Input::Opened`] is ended with exactly one [`crate::core::Input::Closed`], after the bytes that came before.

mod certificates;
mod conn;
mod engine;
mod leaf;
mod listen;
mod poll;
mod scratch;
mod serve;
mod slab;
mod tls;

pub(crate) use certificates::Certificates;
pub use certificates::{CertificateError, check_certificate};
pub use listen::ListenError;
pub(crate) use listen::open_all;
pub use poll::OnDelivered;
pub(crate) use poll::{Loop, Parts, Request};
