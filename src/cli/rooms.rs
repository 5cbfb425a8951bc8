//! `whinchat room …`: asks the running server, or opens the store itself where none runs.

use whinchat::admin::LIST_MAX;
use whinchat::core::Command;
use whinchat::jid::BareJid;

use super::arguments::RoomAction;
use super::users::{Accounts, domains, parse_user};
use super::{Failure, Loaded, print};

pub fn carry_out(loaded: &Loaded, action: RoomAction) -> Result<(), Failure> {
    let mut way = Accounts::new(&loaded.config);
    match action {
        RoomAction::List { domain } => {
            for domain in domains(&loaded.config, domain)? {
                list(&mut way, &domain)?;
            }
        }
        RoomAction::Show { room } => {
            let lines = way.ask(Command::RoomShow { room: parse_room(&room)? })?;
            print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        }
        RoomAction::Destroy { room } => {
            let room = parse_room(&room)?;
            way.ask(Command::RoomDestroy { room: room.clone() })?;
            print(&format!("{room} is destroyed.\n"));
        }
        RoomAction::Affiliate { room, user, to } => {
            let (room, user) = (parse_room(&room)?, parse_user(&user, &loaded.config)?);
            way.ask(Command::RoomAffiliate { room: room.clone(), user: user.clone(), to })?;
            print(&format!("{user} is now \"{}\" in {room}.\n", to.name()));
        }
    }
    Ok(())
}

fn list(way: &mut Accounts<'_>, domain: &str) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let rooms = way.ask(Command::RoomList { domain: domain.to_owned(), after, max: LIST_MAX })?;
        print(&rooms.iter().map(|room| format!("{room}\n")).collect::<String>());
        after = match rooms.last() {
            Some(last) if rooms.len() >= LIST_MAX => Some(parse_room(last.split(' ').next().unwrap_or_default())?),
            _ => return Ok(()),
        };
    }
}

fn parse_room(text: &str) -> Result<BareJid, Failure> {
    let room = BareJid::parse(text).map_err(|error| Failure::usage(format_args!("{text:?} is no address: {error}")))?;
    match room.local() {
        Some(_) => Ok(room),
        None => Err(Failure::usage(format_args!("{text:?} is no room; write its address, such as hall@{text}"))),
    }
}
