//! Views over a stanza say what a second opinion reads there, under any stream header, and so does what is made of the stanza to
//! pass it on or to keep it.

use roxmltree::Node;
use whinchat::config::Limits;
use whinchat::xml::{Element, Framer, Kind, Next, Tree};

use crate::opinion;

const CLIENT: &str = "jabber:client";

/// Headers that streams may have.
const HEADERS: [&str; 4] = [
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='a' version='1.0'>",
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:p='urn:p' \
     xmlns:q=\"urn:q&apos;&lt;&#9;\" to='a' version='1.0'>",
    "<stream xmlns='http://etherx.jabber.org/streams' xmlns:p='urn:p' xmlns:c='urn:c' to='a' version='1.0'>",
    "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns:p='jabber:client' to='a' version='1.0'>",
];

/// A view and the second opinion agree.
fn compare(element: Element<'_>, node: Node<'_, '_>) {
    assert_eq!(element.name(), node.tag_name().name());
    assert_eq!(element.ns(), node.tag_name().namespace().unwrap_or_default(), "namespace of <{}/>", element.name());
    for name in ["to", "from", "id", "type", "a", "jid"] {
        assert_eq!(element.attr(name), opinion::attr(node, name), "{name} of <{}/>", element.name());
    }
    let lang = node.attribute(("http://www.w3.org/XML/1998/namespace", "lang"));
    assert_eq!(element.attr("xml:lang"), lang);
    assert_eq!(element.text(), opinion::text(node), "text of <{}/>", element.name());
    let (children, nodes): (Vec<_>, Vec<_>) = (element.children().collect(), opinion::elements(node).collect());
    assert_eq!(children.len(), nodes.len(), "children of <{}/>", element.name());
    assert_eq!(element.only_child().is_some(), nodes.len() == 1);
    for (child, node) in children.into_iter().zip(nodes) {
        compare(child, node);
    }
}

/// An element taken out of its stanza and put elsewhere says what it said.
fn take_out(element: Element<'_>, node: Node<'_, '_>, depth: usize) {
    for inside in [CLIENT, "urn:elsewhere"] {
        let mut alone = Vec::new();
        element.write_standalone(inside, &mut alone);
        let alone = String::from_utf8(alone).expect("UTF-8");
        let around = format!("<x xmlns='{inside}'>{alone}</x>");
        let document = opinion::parse(&around).unwrap_or_else(|error| panic!("{error}: {around}"));
        let again = opinion::elements(document.root_element()).next().expect("an element");
        assert_eq!(opinion::meaning(again, &[]), opinion::meaning(node, &[]), "{around}");
    }
    if depth > 0 {
        for (child, node) in element.children().zip(opinion::elements(node)) {
            take_out(child, node, depth - 1);
        }
    }
}

/// What is passed on says what came, from whom it is. Its receivers' streams have the usual header.
fn pass_on(frame: &whinchat::xml::Frame<'_>, node: Node<'_, '_>) {
    let (mut routed, mut readdressed) = (Vec::new(), Vec::new());
    frame.splice_into("a@b/&lt;&apos;", Some("en"), &mut routed);
    frame.splice_to_into("a@b/&lt;&apos;", Some("d@e"), None, &mut readdressed);
    for (xml, to) in [(routed, opinion::attr(node, "to")), (readdressed, Some("d@e"))] {
        let xml = String::from_utf8(xml).expect("UTF-8");
        let stream = format!("{}{xml}</stream:stream>", HEADERS[0]);
        let document = opinion::parse(&stream).unwrap_or_else(|error| panic!("{error}: is passed on: {stream}"));
        let mut passed = opinion::elements(document.root_element());
        let (first, second) = (passed.next().expect("a stanza"), passed.next());
        assert!(second.is_none(), "two stanzas of one: {stream}");
        assert_eq!(opinion::attr(first, "from"), Some("a@b/<'"));
        assert_eq!(opinion::attr(first, "to"), to);
        let changed = ["from", "to", "lang"];
        assert_eq!(opinion::meaning(first, &changed), opinion::meaning(node, &changed), "{stream}");
        // What an archive or the offline storage reads back.
        let again = Tree::parse(&xml, CLIENT).expect("what is kept can be read");
        compare(again.root(), first);
    }
}

/// Which header, then stanzas.
pub fn run(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else { return };
    // roxmltree takes a line end and a reference to one for a single line end; XML 1.0 section 2.11 comes before references.
    if body.windows(2).any(|pair| pair == b"\r&") {
        return;
    }
    let header = HEADERS[usize::from(which) % HEADERS.len()];
    let bytes = [header.as_bytes(), body].concat();
    let limits = Limits::default().xml;
    let (mut framer, mut at, mut kept) = (Framer::new(), 0, Vec::new());
    while let Ok(next) = framer.next(&bytes[at..], &limits) {
        match next {
            Next::Header { used, .. } => at += used,
            Next::Stanza { used, frame } => {
                at += used;
                kept.push(frame);
            }
            Next::Incomplete { .. } | Next::Footer { .. } => break,
        }
    }
    let root = header.split([' ', '<']).nth(1).unwrap_or_default();
    for frame in kept {
        let whole = format!("{header}{}</{root}>", frame.xml);
        if opinion::is_beyond(&whole) {
            continue;
        }
        let document = opinion::parse(&whole).unwrap_or_else(|error| panic!("{error}: was let through: {whole}"));
        let node = opinion::elements(document.root_element()).next().expect("an element");
        let tree = Tree::of(&frame);
        compare(tree.root(), node);
        take_out(tree.root(), node, 2);
        if frame.kind != Kind::Other {
            pass_on(&frame, node);
        }
    }
}
