//! What the fuzz targets do with their bytes: cargo-fuzz and the driver for the stable toolchain run the same functions.
//!
//! A target returns if all is well and panics if not.

pub mod config;
pub mod core;
pub mod framing;
pub mod jid;
mod opinion;
pub mod sasl;
pub mod stanza;
pub mod store;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 7] = [
    ("config", config::run),
    ("core", core::run),
    ("framing", framing::run),
    ("jid", jid::run),
    ("sasl", sasl::run),
    ("stanza", stanza::run),
    ("store", store::run),
];
