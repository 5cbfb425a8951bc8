//! A whole server with its clients, network and disk in one thread, from one seed.

mod blocking;
mod device;
mod dice;
mod disk;
mod land;
mod news;
mod oracle;
mod plants;
mod push;
mod registers;
mod rooms;
mod scram;
mod tokens;
mod world;

pub use plants::Plant;
pub use world::{Report, run};

/// Accounts that are there from the start.
pub const ACCOUNTS: [&str; 6] = ["ada@a.test", "bo@a.test", "cy@b.test", "di@b.test", "eve@a.test", "flo@b.test"];
/// Number of the account that registers itself.
pub const NEWCOMER: usize = ACCOUNTS.len();
const NEWCOMER_NAME: &str = "gil@a.test";
/// What every password is at first.
pub const PASSWORD: &str = "r0m30 and jul13t";

pub fn account_name(account: usize) -> &'static str {
    ACCOUNTS.get(account).copied().unwrap_or(NEWCOMER_NAME)
}

/// Where a simulated server keeps what must last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Memory,
    /// On a disk that tears what was not synced.
    Redb,
}
