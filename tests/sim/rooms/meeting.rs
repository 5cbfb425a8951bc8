//! How a life ends in its rooms: in peace they are opened, all come together, some leave, and everybody must have seen the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::device::Device;
use super::super::land::Land;
use super::super::registers::Key;
use super::super::world::World;
use super::super::{NEWCOMER, account_name};
use super::{ATTIC, ROOMS, Seen, description};

impl World {
    /// All come together in each room: each sees all that is said, and who is there.
    pub fn meet(&mut self) {
        for (room, name) in ROOMS.iter().enumerate() {
            self.open_room(room);
            if !self.devices.iter().any(|device| device.places[room].owns()) {
                // Who could take the name of a room that was ended may be gone.
                if room != ATTIC {
                    self.land.oracle.fail(|| format!("nobody owns {name}"));
                }
                continue;
            }
            self.come_together(room);
            self.all_speak(room);
            self.compare_views(room);
            self.read_archive(room);
            self.bustle(room);
            self.compare_views(room);
        }
    }

    /// What is done all the time, but with nothing in its way; and some leave, or log out.
    fn bustle(&mut self, room: usize) {
        for round in 0..3 {
            for index in 0..self.devices.len() {
                self.devices[index].do_something_in(&mut self.land, room);
            }
            self.settle(Duration::from_secs(90));
            for device in self.devices.iter_mut().filter(|device| device.index() % 9 == room * 3 + round) {
                match device.index() % 2 {
                    0 => device.leave_room(&mut self.land, room),
                    _ => device.leave(&mut self.land),
                }
            }
        }
        self.settle(Duration::from_secs(120));
    }

    /// An owner lets everybody in, or somebody makes the room.
    fn open_room(&mut self, room: usize) {
        let descriptions = self.land.oracle.possible(&Key::Description(room), self.land.now);
        for index in 0..self.devices.len() {
            let account = self.devices[index].account;
            let domain = account_name(account).split_once('@').map_or("", |(_, domain)| domain);
            let may_found = descriptions.iter().any(String::is_empty) && ROOMS[room].ends_with(domain);
            let may_own = self.land.oracle.possible(&Key::Affiliation(room, account), self.land.now);
            if !may_found && !may_own.iter().any(|affiliation| affiliation == "owner") {
                continue;
            }
            for description in &descriptions {
                self.devices[index].enter_with(&mut self.land, room, description::password(description));
                self.settle(Duration::from_secs(40));
            }
            if self.devices[index].places[room].owns() {
                let open = self.land.oracle.new_value();
                self.devices[index].configure_as(&mut self.land, room, &open);
                self.settle(Duration::from_secs(40));
                for banned in (0..=NEWCOMER).filter(|other| *other != account) {
                    let key = Key::Affiliation(room, banned);
                    if self.land.oracle.possible(&key, self.land.now).iter().any(|value| value == "outcast") {
                        self.devices[index].affiliate_as(&mut self.land, room, banned, "none");
                    }
                }
                return self.settle(Duration::from_secs(60));
            }
        }
    }

    fn come_together(&mut self, room: usize) {
        // Who was there as a visitor comes again.
        for device in self.devices.iter_mut().filter(|device| device.places[room].own.role == "visitor") {
            device.leave_room(&mut self.land, room);
        }
        self.settle(Duration::from_secs(60));
        for device in &mut self.devices {
            device.enter_with(&mut self.land, room, String::new());
        }
        self.settle(Duration::from_secs(60));
        if let Some(device) = self.devices.iter().find(|device| !device.places[room].is_inside()) {
            let what = format!("device {} is not in {}", device.index(), ROOMS[room]);
            self.land.oracle.fail(|| what);
        }
    }

    fn all_speak(&mut self, room: usize) {
        let speakers = (0..self.devices.len()).step_by(4);
        let lines: Vec<usize> = speakers.map(|index| self.devices[index].say_to_all(&mut self.land, room)).collect();
        self.settle(Duration::from_secs(60));
        if let Some(device) = self.devices.iter().find(|device| !device.has_seen(&self.land, room, &lines)) {
            let what = format!("device {} has not seen all of {lines:?} in {}", device.index(), ROOMS[room]);
            self.land.oracle.fail(|| what);
        }
    }

    /// Who is inside, and as what: all were told the same, and the room says so.
    fn compare_views(&mut self, room: usize) {
        let moderator = self.devices.iter().position(|device| device.places[room].moderates());
        if let Some(moderator) = moderator {
            self.devices[moderator].ask_occupants(&mut self.land, room);
            self.settle(Duration::from_secs(60));
        }
        let inside = || self.devices.iter().filter(|device| device.places[room].is_inside());
        let expected: BTreeMap<String, Seen> =
            inside().map(|device| (device.places[room].nick.clone(), device.places[room].own.clone())).collect();
        let mut views = inside().map(|device| (device.index(), &device.places[room].view));
        if let Some((index, view)) = views.find(|(_, view)| **view != expected) {
            let what = format!("device {index} sees {view:#?}\nin {}, not {expected:#?}", ROOMS[room]);
            return self.land.oracle.fail(|| what);
        }
        let Some(listed) = moderator.map(|moderator| &self.devices[moderator].places[room].listed) else { return };
        if *listed != expected {
            let what = format!("{} says that {listed:#?}\nare in it, and that are {expected:#?}", ROOMS[room]);
            self.land.oracle.fail(|| what);
        }
    }

    fn read_archive(&mut self, room: usize) {
        let Some(owner) = self.devices.iter().position(|device| device.places[room].owns()) else { return };
        self.devices[owner].ask_archive(&mut self.land, Some(room), None);
        self.settle(Duration::from_secs(120));
        let place = &self.devices[owner].places[room];
        match place.has_archive {
            true => self.land.oracle.check_room_archive(room, &place.archive),
            false => self.land.oracle.fail(|| format!("the archive of {} was not to be had", ROOMS[room])),
        }
    }
}

impl Device {
    /// Whether it is inside and has seen all of these lines there.
    fn has_seen(&self, land: &Land, room: usize, lines: &[usize]) -> bool {
        self.places[room].stay.is_some_and(|stay| land.oracle.rooms.has_seen(room, stay, lines))
    }
}
