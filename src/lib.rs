//! Whinchat: an XMPP (Jabber) server for small machines.

#![warn(missing_docs)]

pub mod admin;
pub mod auth;
pub mod config;
pub mod core;
pub mod handlers;
pub mod jid;
pub mod store;
pub mod xml;
