//! Whinchat: an XMPP (Jabber) server for small machines.

#![warn(missing_docs)]

pub mod admin;
pub mod auth;
pub mod config;
pub mod core;
pub mod handlers;
pub mod jid;
mod net;
pub mod server;
pub mod store;
pub mod xml;

pub use config::Config;
pub use core::Core;
pub use server::Server;
