//! Character data and attribute values from as written to as meant: references resolved, white space normalised.
//!
//! Input is validated. Of what is not, such as an unknown reference, the source is left as it stands.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::{memchr, memchr_iter, memchr2, memchr3};

use super::writer::escape_attr;

/// The value that is written between an attribute's quotes: references resolved, white space that is written as such turned
/// into spaces (XML 1.0 section 3.3.3).
pub fn attribute_value(source: &str) -> Cow<'_, str> {
    if memchr2(b'&', b'\t', source.as_bytes()).is_none() && memchr2(b'\r', b'\n', source.as_bytes()).is_none() {
        return Cow::Borrowed(source);
    }
    let mut value = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(['&', '\t', '\r', '\n']) {
        let (plain, special) = rest.split_at(at);
        value.push_str(plain);
        rest = if let Some(behind) = special.strip_prefix("\r\n") {
            value.push(' ');
            behind
        } else if special.starts_with('&') {
            push_reference(special, &mut value)
        } else {
            value.push(' ');
            special.get(1..).unwrap_or_default()
        };
    }
    value.push_str(rest);
    Cow::Owned(value)
}

/// Whether [`push_character_data`] would append something else than its source.
pub(super) fn is_rewritten(source: &str) -> bool {
    memchr3(b'&', b'\r', b'<', source.as_bytes()).is_some()
}

/// Appends what character data means that is written between two tags: references resolved, CDATA sections opened, line ends
/// made line feeds (XML 1.0 section 2.11).
pub(super) fn push_character_data(source: &str, text: &mut String) {
    let mut rest = source;
    while let Some(at) = memchr3(b'&', b'\r', b'<', rest.as_bytes()) {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        rest = if let Some(section) = special.strip_prefix("<![CDATA[") {
            let (data, behind) = section.split_once("]]>").unwrap_or((section, ""));
            push_lines(data, text);
            behind
        } else if special.starts_with('&') {
            push_reference(special, text)
        } else {
            push_line_end(special, text)
        };
    }
    text.push_str(rest);
}

fn push_lines(data: &str, text: &mut String) {
    let mut rest = data;
    while let Some(at) = memchr(b'\r', rest.as_bytes()) {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        rest = push_line_end(special, text);
    }
    text.push_str(rest);
}

/// `source` begins with a carriage return; what is behind the line end.
fn push_line_end<'s>(source: &'s str, text: &mut String) -> &'s str {
    let behind = source.get(1..).unwrap_or_default();
    text.push('\n');
    behind.strip_prefix('\n').unwrap_or(behind)
}

/// `source` begins with `&`; what is behind the reference.
fn push_reference<'s>(source: &'s str, text: &mut String) -> &'s str {
    if let Some((reference, behind)) = source.split_once(';')
        && let Some(character) = reference.get(1..).and_then(referent)
    {
        text.push(character);
        return behind;
    }
    text.push('&');
    source.get(1..).unwrap_or_default()
}

/// The character that `reference`, without `&` and `;`, stands for.
pub(super) fn referent(reference: &str) -> Option<char> {
    let number = match reference {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "amp" => return Some('&'),
        "apos" => return Some('\''),
        "quot" => return Some('"'),
        _ => reference.strip_prefix('#')?,
    };
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let character = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
    let legal = matches!(character, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..);
    legal.then_some(character)
}

/// Whatever stands before a colon in `xml` and could be a prefix. It need not be one: qualified names occur in values and in
/// text as well, and those must keep their meaning when the element moves.
pub(super) fn prefixes_named(xml: &str) -> HashSet<&str> {
    let bytes = xml.as_bytes();
    let in_name =
        |byte: &&u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | 0x80..=0xFF);
    let before = |colon: usize| {
        let length = bytes.get(..colon)?.iter().rev().take_while(in_name).count();
        xml.get(colon - length..colon)
    };
    memchr_iter(b':', bytes).filter_map(before).filter(|name| !name.is_empty()).collect()
}

/// Appends the attribute that binds `prefix`, or the default namespace if it is empty.
pub(super) fn push_declaration(prefix: &str, ns: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b" xmlns");
    if !prefix.is_empty() {
        out.push(b':');
        out.extend_from_slice(prefix.as_bytes());
    }
    out.extend_from_slice(b"='");
    escape_attr(ns, out);
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, attribute: &str, text: &str) {
        assert_eq!(attribute_value(source), attribute, "{source:?} as an attribute");
        let mut meant = String::new();
        push_character_data(source, &mut meant);
        assert_eq!(meant, text, "{source:?} as text");
        assert!(is_rewritten(source) || meant == source);
    }

    #[test]
    fn references_and_white_space() {
        check("", "", "");
        check("plain", "plain", "plain");
        check("&lt;&gt;&amp;&apos;&quot;", "<>&'\"", "<>&'\"");
        check("&#65;&#x41;&#x1F600;&#x00041;", "AA\u{1F600}A", "AA\u{1F600}A");
        check("a\tb\nc\rd\r\ne\r\rf", "a b c d e  f", "a\tb\nc\nd\ne\n\nf");
        check("&#9;&#10;&#13;&#13;\n", "\t\n\r\r ", "\t\n\r\r\n");
        check("\r&#10;", " \n", "\n\n");
        check("&amp;lt;", "&lt;", "&lt;");
        check("&unknown; &", "&unknown; &", "&unknown; &");
        check("&#0;&#xD800;&#+65;", "&#0;&#xD800;&#+65;", "&#0;&#xD800;&#+65;");
    }

    #[test]
    fn cdata_is_text() {
        let mut text = String::new();
        push_character_data("a&lt;<![CDATA[<b>&amp;\r\n]]]]><![CDATA[>\r]]>c\r", &mut text);
        assert_eq!(text, "a&lt;<b>&amp;\n]]>\nc\n".replacen("&lt;", "<", 1));
    }
}
