//! A stream read whole and read in two pieces gives the same stanzas, and every stanza that is let through can be read again, as it
//! came and as it is passed on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whinchat::config::Limits;
use whinchat::xml::{Framer, Kind, Next, Tree, XmlError};

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='a' version='1.0'>";

/// What the stream holds, and how it ends.
fn read(bytes: &[u8], cut: usize) -> (Vec<String>, Option<XmlError>) {
    let limits = Limits::default().xml;
    let (mut framer, mut stanzas, mut at) = (Framer::new(), Vec::new(), 0);
    for end in [cut, bytes.len()] {
        loop {
            match framer.next(&bytes[at..end], &limits) {
                Ok(Next::Incomplete { skip }) => {
                    at += skip;
                    break;
                }
                Ok(Next::Header { used, .. }) => at += used,
                Ok(Next::Footer { .. }) => return (stanzas, None),
                Ok(Next::Stanza { used, frame }) => {
                    let tree = Tree::of(&frame);
                    assert_eq!(tree.root().name(), frame.local);
                    if frame.kind != Kind::Other {
                        let mut routed = Vec::new();
                        frame.splice_into("a@b/c", Some("en"), &mut routed);
                        let routed = String::from_utf8(routed).expect("what is passed on is UTF-8");
                        let again = Tree::parse(&routed, "jabber:client").expect("what is passed on is well-formed");
                        assert_eq!(again.root().attr("from"), Some("a@b/c"));
                        assert_eq!(again.root().children().count(), frame.children);
                    }
                    stanzas.push(frame.xml.to_owned());
                    at += used;
                }
                Err(error) => return (stanzas, Some(error)),
            }
        }
    }
    (stanzas, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, body)) = data.split_first() else { return };
    let bytes = [HEADER, body].concat();
    let cut = (HEADER.len() + usize::from(*cut)).min(bytes.len());
    assert_eq!(read(&bytes, bytes.len()), read(&bytes, cut));
});
