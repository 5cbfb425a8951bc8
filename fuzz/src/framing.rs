//! A stream read whole and read in two pieces gives the same stanzas; every stanza that is let through can be read again, as it
//! came and as it is passed on; and a second opinion agrees on what is well-formed and what it says.

use whinchat::config::Limits;
use whinchat::xml::{Framer, Kind, Next, Tree, XmlError};

use crate::opinion;

const HEADER: &str =
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='a' version='1.0'>";
const FOOTER: &str = "</stream:stream>";

/// What a stream holds, and how it ends.
#[derive(Debug, PartialEq)]
struct Reading {
    stanzas: Vec<String>,
    /// Bytes up to the end of the last stanza.
    used: usize,
    ended: bool,
    error: Option<XmlError>,
}

/// What is passed on says the same, and can be read.
fn pass_on(frame: &whinchat::xml::Frame<'_>) {
    let mut routed = Vec::new();
    frame.splice_into("a@b/c", Some("en"), &mut routed);
    let routed = String::from_utf8(routed).expect("what is passed on is UTF-8");
    let again = Tree::parse(&routed, "jabber:client").expect("what is passed on is well-formed");
    assert_eq!(again.root().attr("from"), Some("a@b/c"));
    assert_eq!(again.root().children().count(), frame.children);
}

fn read(bytes: &[u8], cut: usize) -> Reading {
    let limits = Limits::default().xml;
    let mut framer = Framer::new();
    let mut reading = Reading { stanzas: Vec::new(), used: 0, ended: false, error: None };
    let mut at = 0;
    for end in [cut, bytes.len()] {
        loop {
            match framer.next(&bytes[at..end], &limits) {
                Ok(Next::Incomplete { skip }) => {
                    at += skip;
                    break;
                }
                Ok(Next::Header { used, .. }) => at += used,
                Ok(Next::Footer { used }) => {
                    at += used;
                    return Reading { used: at, ended: true, ..reading };
                }
                Ok(Next::Stanza { used, frame }) => {
                    assert_eq!(Tree::of(&frame).root().name(), frame.local);
                    if frame.kind != Kind::Other {
                        pass_on(&frame);
                    }
                    reading.stanzas.push(frame.xml.to_owned());
                    at += used;
                    reading.used = at;
                }
                Err(error) => return Reading { error: Some(error), ..reading },
            }
        }
    }
    reading
}

/// What was let through is well-formed, and as many elements.
fn confirm(bytes: &[u8], reading: &Reading) {
    let accepted = bytes.get(..reading.used.max(HEADER.len())).unwrap_or_default();
    let accepted = std::str::from_utf8(accepted).expect("what was let through is UTF-8");
    let whole = if reading.ended { accepted.to_owned() } else { [accepted, FOOTER].concat() };
    if opinion::is_beyond(&whole) {
        return;
    }
    let document = opinion::parse(&whole).unwrap_or_else(|error| panic!("{error}: was let through: {whole}"));
    assert!(!opinion::is_restricted(&document), "{whole}");
    let read = opinion::elements(document.root_element()).count();
    assert_eq!(read, reading.stanzas.len(), "{whole}");
    let between = opinion::text(document.root_element());
    assert!(between.chars().all(|c| c.is_ascii_whitespace()), "{between:?} between stanzas");
}

/// What was refused as not well-formed is so for others, too.
fn refute(bytes: &[u8], error: XmlError) {
    // roxmltree takes `:a` for a name, `</:a>` for the end of `<a>` and the other way round, and two declarations of a prefix in one tag for one.
    let declares = bytes.windows(5).filter(|window| window == b"xmlns").count() > 3;
    match error {
        XmlError::NotWellFormed("name that begins with a colon") => return,
        XmlError::NotWellFormed("end tag does not match its start tag")
            if bytes.windows(2).any(|tag| tag == b"<:") || bytes.windows(3).any(|end| end == b"</:") =>
        {
            return;
        }
        XmlError::NotWellFormed("the same attribute twice") if declares => return,
        // The prefix may be unbound in Namespaces 1.1, not in 1.0.
        XmlError::NotWellFormed("namespace declaration that is not allowed") => return,
        // It takes `p:xmlns` for a declaration, whatever `p` is.
        XmlError::NotWellFormed("prefix that is not declared") if bytes.windows(6).any(|name| name == b":xmlns") => {
            return;
        }
        // It takes a reference beyond the last code point for none.
        XmlError::NotWellFormed("bad reference") => return,
        XmlError::NotWellFormed(_) | XmlError::UnsupportedEncoding(_) => {}
        _ => return,
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let closed = [text, FOOTER].concat();
    for text in [text, &closed] {
        if let Ok(document) = opinion::parse(text) {
            assert!(opinion::is_restricted(&document), "{error:?}: was refused: {text}");
        }
    }
}

/// Where the stream is cut, then what stands behind its header.
pub fn run(data: &[u8]) {
    let Some((cut, body)) = data.split_first() else { return };
    let bytes = [HEADER.as_bytes(), body].concat();
    let cut = (HEADER.len() + usize::from(*cut)).min(bytes.len());
    let whole = read(&bytes, bytes.len());
    assert_eq!(whole, read(&bytes, cut));
    confirm(&bytes, &whole);
    if let Some(error) = whole.error {
        refute(&bytes, error);
    }
}
