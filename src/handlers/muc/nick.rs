//! Nicks as people see them (section 17.1): who enters may not look like somebody else who is there.
//!
//! Nicks are told apart by RFC 8266, for which case and width make no difference, and beyond that by a short table of letters of
//! other alphabets, and of digits, that look like Latin letters in one of their cases. The nick itself stays as it was written.

use std::borrow::Cow;

use precis_core::profile::Rules;
use precis_profiles::Nickname;

/// The same for nicks that look alike. It is for comparing only.
pub(super) fn likeness(nick: &str) -> Box<str> {
    let folded = match nick.is_ascii() {
        true => folded_ascii(nick),
        // Once more, as some letters have a lower case only after the first time.
        false => folded(&folded(nick)),
    };
    folded.chars().map(look).collect::<String>().into()
}

fn folded_ascii(nick: &str) -> String {
    let words: Vec<&str> = nick.split_ascii_whitespace().collect();
    words.join(" ").to_ascii_lowercase()
}

/// RFC 8266 section 2.4. What the profile cannot map stays as it is.
fn folded(nick: &str) -> String {
    let profile = Nickname::new();
    let spaced = profile.additional_mapping_rule(nick).unwrap_or(Cow::Borrowed(nick));
    let lower = profile.case_mapping_rule(&*spaced).unwrap_or(Cow::Borrowed(&spaced));
    profile.normalization_rule(&*lower).unwrap_or(Cow::Borrowed(&lower)).into_owned()
}

/// The Latin letter that a letter in lower case may be taken for.
fn look(c: char) -> char {
    match c {
        '1' | 'i' | '|' => return 'l',
        '0' => return 'o',
        '\0'..='\x7f' => return c,
        _ => {}
    }
    const ALIKE: &[(char, &str)] = &[
        ('a', "аαɑ"),
        ('b', "вβ"),
        ('c', "сϲ"),
        ('d', "ԁ"),
        ('e', "еε"),
        ('g', "ɡ"),
        ('h', "нһη"),
        ('j', "јϳ"),
        ('k', "кκ"),
        ('l', "іιıӏї"),
        ('m', "мμ"),
        ('n', "ո"),
        ('o', "оοօ"),
        ('p', "рρ"),
        ('q', "ԛ"),
        ('s', "ѕ"),
        ('t', "тτ"),
        ('u', "ս"),
        ('v', "νѵ"),
        ('w', "ԝ"),
        ('x', "хχ"),
        ('y', "уυү"),
        ('z', "ζ"),
    ];
    ALIKE.iter().find(|(_, others)| others.contains(c)).map_or(c, |(latin, _)| *latin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_alike() {
        let check = |nick: &str, other: &str, alike: bool| {
            assert_eq!(likeness(nick) == likeness(other), alike, "{nick:?} {other:?}");
        };
        check("Romeo", "romeo", true);
        check("Romeo", "ROMEO", true);
        check("Romeo Montague", " Romeo   Montague ", true);
        check("Romeo", "Ｒｏｍｅｏ", true);
        check("Romeo", "Rоmeo", true);
        check("POMEO", "ΡΟМЕО", true);
        check("Alice", "AIice", true);
        check("Bob", "B0b", true);
        check("Bill", "Bi11", true);
        check("Ångström", "A\u{30a}ngstro\u{308}m", true);
        check("Ängel", "ängel", true);
        check("Ängel", "Angel", false);
        check("Romeo", "Romea", false);
        check("Иван", "иван", true);
        check("Иван", "Ivan", false);
        check("🦊", "🦊 ", true);
        check("🦊", "🐺", false);
        check("nick1", "nick2", false);
        check("nick1", "nick10", false);
    }
}
