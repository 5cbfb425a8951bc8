//! Framing, forwarding and views, held against tables, against the checker, and against themselves in pieces.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;

use super::checker::{self, USUAL};
use super::*;

const LIMITS: XmlLimits =
    XmlLimits { stanza_bytes_max: 1000, depth_max: 8, attributes_max: 12, name_bytes_max: 40, header_bytes_max: 500 };

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='im.example' version='1.0' xml:lang='en' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// What a framer made of a stream, in a form that can be compared.
fn play(pieces: &[&[u8]], limits: &XmlLimits) -> Vec<String> {
    let mut framer = Framer::new();
    let mut events = Vec::new();
    let mut unread = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            let used = match framer.next(&unread, limits) {
                Ok(Next::Incomplete { skip }) => {
                    unread.drain(..skip);
                    break;
                }
                Ok(Next::Header { used, header }) => {
                    events.push(format!("{header:?}"));
                    used
                }
                Ok(Next::Stanza { used, frame }) => {
                    events.push(format!("{frame:?}"));
                    let again = framer.next(&unread, limits);
                    let Ok(Next::Stanza { used: used_again, frame: again }) = again else { panic!("{again:?}") };
                    assert_eq!((used_again, format!("{again:?}")), (used, format!("{frame:?}")));
                    used
                }
                Ok(Next::Footer { used }) => {
                    events.push("Footer".to_owned());
                    used
                }
                Err(error) => {
                    events.push(format!("{error:?}"));
                    return events;
                }
            };
            unread.drain(..used);
        }
    }
    events
}

/// Plays a stream whole, byte by byte, cut in two at every byte: always the same.
fn play_all_ways(stream: &[u8], limits: &XmlLimits) -> Vec<String> {
    let whole = play(&[stream], limits);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(play(&bytes, limits), whole, "byte by byte: {}", String::from_utf8_lossy(stream));
    for cut in 0..stream.len() {
        let (head, tail) = stream.split_at(cut);
        assert_eq!(play(&[head, tail], limits), whole, "cut at {cut}: {}", String::from_utf8_lossy(stream));
    }
    whole
}

/// A framer that has seen the header.
fn opened(header: &str) -> Framer {
    let mut framer = Framer::new();
    let next = framer.next(header.as_bytes(), &LIMITS);
    assert!(matches!(&next, Ok(Next::Header { used, .. }) if *used == header.len()), "{next:?} for {header}");
    framer
}

/// The last event of what stands in a usual stream.
fn last_in_stream(body: &[u8], limits: &XmlLimits) -> String {
    let stream = [HEADER.as_bytes(), body].concat();
    let mut events = play_all_ways(&stream, limits);
    assert!(events.len() > 1, "nothing came of {}", String::from_utf8_lossy(body));
    events.pop().unwrap()
}

fn check_accepted(xml: &str) {
    let event = last_in_stream(xml.as_bytes(), &LIMITS);
    assert!(event.starts_with("Frame"), "{xml}: {event}");
    checker::check(xml, Cow::Borrowed(ns::CLIENT), &USUAL, &LIMITS).unwrap_or_else(|error| panic!("{xml}: {error:?}"));
}

fn check_refused(xml: impl AsRef<[u8]>, error: &str) {
    let xml = xml.as_ref();
    let event = last_in_stream(xml, &LIMITS);
    assert!(event.starts_with(error), "{}: {event}", String::from_utf8_lossy(xml));
    if let Ok(xml) = std::str::from_utf8(xml) {
        let opinion = checker::check(xml, Cow::Borrowed(ns::CLIENT), &USUAL, &LIMITS);
        assert!(opinion.is_err() || error == "BadNamespacePrefix", "{xml}: {opinion:?}");
    }
}

#[test]
fn an_idle_framer_is_small() {
    assert!(size_of::<Framer>() <= 32, "{}", size_of::<Framer>());
}

#[test]
fn well_formed_stanzas_are_framed() {
    for xml in [
        "<message/>",
        "<iq  />",
        "<message\t\r\nto = \"a\"\n from\t=\t'b' ></message \n>",
        "<message to='\"' id=\"'\" type='>'>]]&gt; ]] > '\"</message>",
        "<message><body>a&amp;b&#10;&#x1F600;&lt;&gt;&apos;&quot;</body></message>",
        "<message><body><![CDATA[<&]]]]><![CDATA[>]]>></body></message>",
        "<message><![CDATA[]]></message>",
        "<message><body>\u{FEFF}\u{FFFD}\u{1F600}\u{7F}\u{80}\t\r\n\u{FF01}</body></message>",
        "<message xml:lang='de' xml:space='preserve'/>",
        "<message xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
        "<message xmlns:a='u' xmlns:b='v' a:x='1' b:x='2' x='3'><a:b/></message>",
        "<message><a:b xmlns:a='u'><a:b xmlns:a='v'/><a:c/></a:b></message>",
        "<message><x xmlns=''/></message>",
        "<message xmlns='http://www.w3.org/1999/xhtml'/>",
        "<m\u{E9}ssage \u{E9}='\u{E9}'></m\u{E9}ssage>",
        "<_-.9 _='' a-.9=''/>",
        "<stream:error/>",
        "<a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a>",
        "<a b='' c='' d='' e='' f='' g='' h='' i='' j='' k='' l='' m=''/>",
        "<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/>",
        "<a>&#00000000000000000000000000065;</a>",
    ] {
        check_accepted(xml);
    }
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for xml in [
        "<message></iq>",
        "<ab><b></c></b></ab>        ",
        "<message></nessage>",
        "<message></messagf>",
        "<presence-x></presence-y>    ",
        "<message></mess>",
        "<message></messages>",
        "<message></message x>",
        "<a><b></a></b>",
        "<a></ a>",
        "<a b='1' b='2'/>",
        "<a b='1'c='2'/>",
        "<a b='1' c='2'b=''/>",
        "<a b/>",
        "<a b=/>",
        "<a b=c/>",
        "<a b c='1'/>",
        "<a =''/>",
        "<a ''/>",
        "<a/ >",
        "<a / b=''/>",
        "<a b='<'/>",
        "<a b='\u{1}'/>",
        "< a/>",
        "<1/>",
        "<-a/>",
        "<a 1=''/>",
        "<a,/>",
        "<a>]]></a>",
        "<a>&#0;</a>",
        "<a>&#xB;</a>",
        "<a>&#xD800;</a>",
        "<a>&#xFFFE;</a>",
        "<a>&#x110000;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a>&#xg;</a>",
        "<a>&#1a;</a>",
        "<a>&#X41;</a>",
        "<a>&;</a>",
        "<a>& </a>",
        "<a>&lt </a>",
        "<a>&1;</a>",
        "<a b='&'/>",
        "<a b='&#0;'/>",
        "<a>&#99999999999999999999;</a>",
        "<a>\u{0}</a>",
        "<a>\u{1F}</a>",
        "<a>\u{B}</a>",
        "<a>\u{FFFE}</a>",
        "<a b='\u{FFFF}'/>",
        "<a><![CDATA[\u{8}]]></a>",
        "<a><![CDATA[\u{FFFF}]]></a>",
        "<a><![cdata[]]></a>",
        "<a><!x></a>",
        "<a><![x]></a>",
        "<a:b/>",
        "<a b:c=''/>",
        "<:a/>",
        "<a :b=''/>",
        "<a:/>",
        "<a: xmlns:a='u'></a:>",
        "<a:b:c xmlns:a='u'/>",
        "<a:1 xmlns:a='u'/>",
        "<xmlns:a/>",
        "<a xmlns:xmlns='u'/>",
        "<a xmlns:xml='u'/>",
        "<a xmlns:b=''/>",
        "<a xmlns:b='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns&#47;'/>",
        "<a xmlns:b='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:b='u' xmlns:c='u' b:d='' c:d=''/>",
        "<a xmlns:b='u' xmlns:b='v'/>",
        "<a xmlns='u' xmlns='u'/>",
        "<a xml:lang='' xml:lang=''/>",
        "<a><b:c xmlns:b='u'/><b:c/></a>",
        "<a \u{B7}=''/>",
        "<\u{D7}/>",
        "<a\u{D7}/>",
        "</iq>",
        "</stream:streams>",
        "</stream:stream x>",
    ] {
        check_refused(xml, "NotWellFormed");
    }
}

#[test]
fn what_xmpp_forbids_is_refused() {
    for xml in [
        "<a><!-- x --></a>",
        "<a><!-",
        "<a><?x y?></a>",
        "<a><?xml version='1.0'?></a>",
        "<a><!DOCTYPE a></a>",
        "<a>&nbsp;</a>",
        "<a b='&e;'/>",
        "<a>&verylongentityname;</a>",
        "<!-- -->",
        "<?x?>",
        "<?xml version='1.0'?>",
        "<!DOCTYPE x>",
        "<!ENTITY x 'y'>",
    ] {
        check_refused(xml, "Restricted");
    }
    for xml in ["x", " x", "&lt;", "\u{FEFF}", "<![CDATA[x]]>", "\0"] {
        check_refused(xml, "BadFormat");
    }
    for xml in [
        &b"<a>\xFF</a>"[..],
        b"<a>\xC0\x80</a>",
        b"<a>\xED\xA0\x80</a>",
        b"<a b='\xF4\x90\x80\x80'/>",
        b"<\xE9/>",
        b"<a>\xE2\x82</a>",
    ] {
        check_refused(xml, "UnsupportedEncoding");
    }
    for xml in [
        "<x:message xmlns:x='jabber:client'/>",
        "<x:message xmlns:x='jabber:clien&#116;'/>",
        "<message><x:body xmlns:x='jabber:client'/></message>",
        "<message xmlns:x='jabber:client'><x/><x:body/></message>",
    ] {
        check_refused(xml, "BadNamespacePrefix");
    }
}

#[test]
fn limits_hold_while_bytes_arrive() {
    let open = |count: usize| "<a>".repeat(count);
    check_refused(open(9), "TooBig(\"elements");
    check_refused(format!("<{}", "a".repeat(41)), "TooBig(\"name");
    check_refused(format!("<a {}", "b".repeat(41)), "TooBig(\"name");
    check_refused("<a b='' c='' d='' e='' f='' g='' h='' i='' j='' k='' l='' m='' n=", "TooBig(\"too many");
    check_refused(format!("<a>&#{}", "0".repeat(40)), "TooBig(\"reference");
    check_refused(format!("<a>&{}", "x".repeat(40)), "TooBig(\"reference");
    check_refused(format!("<a>&#{}65;</a>", "0".repeat(28)), "TooBig(\"reference");
    for filler in ["<a>", "<a b='", "<a ", "<a b", "<a b=", "<a></a", "<a><![CDATA["] {
        let space = if filler == "<a b" || filler == "<a></a" { " " } else { "\n" };
        check_refused(format!("{filler}{}", space.repeat(1000 - filler.len())), "TooBig(\"stanza");
    }
    check_accepted(&format!("<a>{}</a>", "x".repeat(993)));
    check_refused(format!("<a>{}</a>", "x".repeat(994)), "TooBig(\"stanza");
    check_refused(format!("</stream:stream{}", " ".repeat(41)), "TooBig(\"white");
}

#[test]
fn headers_are_read() {
    let accepted = [
        (HEADER, "Header { to: Some(\"im.example\"), from: None, version: Some(\"1.0\"), lang: Some(\"en\") }"),
        (
            "<stream xmlns='http://etherx.jabber.org/streams' id='x' to='a&amp;b\n'>",
            "Header { to: Some(\"a&b \"), from: None, version: None, lang: None }",
        ),
        (
            "\n<?xml version=\"1.0\" encoding='utf-8' standalone='no' ?>\n <s:stream xmlns:s=\"http://etherx.jabber.org/streams\" from='>'>",
            "Header { to: None, from: Some(\">\"), version: None, lang: None }",
        ),
    ];
    for (header, expected) in accepted {
        assert_eq!(play_all_ways(header.as_bytes(), &LIMITS), [expected], "{header}");
    }
    const STREAMS: &str = "xmlns:stream='http://etherx.jabber.org/streams'";
    for (header, expected) in [
        ("\u{FEFF}<stream:stream>", "NotWellFormed"),
        ("GET / HTTP/1.1", "NotWellFormed"),
        ("\x16\x03", "NotWellFormed"),
        ("<>", "NotWellFormed"),
        ("</stream:stream>", "NotWellFormed"),
        ("<stream:error>", "NotWellFormed"),
        ("<a <", "NotWellFormed"),
        ("<a '\0", "NotWellFormed"),
        ("<a b='' b=''>", "NotWellFormed"),
        ("<?xml version='1.1'?>", "NotWellFormed"),
        ("<?xml?>", "Restricted"),
        ("<?xml ?>", "NotWellFormed"),
        ("<?xml encoding='UTF-8'?>", "NotWellFormed"),
        ("<?xml version='1.0'encoding='UTF-8'?>", "NotWellFormed"),
        ("<?xml version='1.0' version='1.0'?>", "NotWellFormed"),
        ("<?xml version='1.0' standalone='maybe'?>", "NotWellFormed"),
        ("<?xml version='1.0' encoding='UTF-16'?>", "UnsupportedEncoding"),
        ("<?xml version='1.0'?><?xml version='1.0'?>", "Restricted"),
        ("<?xml-stylesheet?>", "Restricted"),
        ("<?php", "Restricted"),
        ("<!-- -->", "Restricted"),
        ("<!DOCTYPE stream", "Restricted"),
        ("<stream:stream xmlns:stream='http://example.org/'>", "InvalidNamespace"),
        ("<stream>", "InvalidNamespace"),
        ("<stream xmlns='jabber:client'>", "InvalidNamespace"),
        (&format!("<stream:stream xmlns='jabber:server' {STREAMS}>"), "InvalidNamespace"),
        (&format!("<stream:features xmlns='jabber:client' {STREAMS}>"), "BadFormat"),
        (&format!("<stream:stream {STREAMS}/>"), "BadFormat"),
        (&format!("<stream:stream {STREAMS} to='&x;'>"), "Restricted"),
        (&" ".repeat(500), "TooBig"),
        (&format!("<?xml{}", " ".repeat(251)), "TooBig"),
        (&format!("<stream:stream {STREAMS} to='{}", "x".repeat(500)), "TooBig"),
    ] {
        let events = play_all_ways(header.as_bytes(), &LIMITS);
        assert!(events.len() == 1 && events[0].starts_with(expected), "{header}: {events:?}");
    }
    for header in [&b"\xFF\xFE<\0"[..], b"<stream:stream to='\xFF'>"] {
        assert!(play_all_ways(header, &LIMITS)[0].starts_with("UnsupportedEncoding"));
    }
}

#[test]
fn a_stream_runs_to_its_end_and_restarts() {
    let body = "\n<iq id='1'/> \r\n\t<message><body>x</body></message></stream:stream >";
    let events = play_all_ways(format!("{HEADER}{body}").as_bytes(), &LIMITS);
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(events[3], "Footer");

    for header in [HEADER, HEADER.trim_start_matches("<?xml version='1.0'?>")] {
        let mut framer = opened("<s:stream xmlns:s='http://etherx.jabber.org/streams'>");
        assert!(matches!(framer.next(b"<auth", &LIMITS), Ok(Next::Incomplete { skip: 0 })));
        framer.restart();
        let next = framer.next(header.as_bytes(), &LIMITS);
        assert!(matches!(&next, Ok(Next::Header { .. })), "{next:?}");
        assert!(matches!(framer.next(b"</stream:stream>", &LIMITS), Ok(Next::Footer { used: 16 })));
    }
    let mut framer = opened("<s:stream xmlns:s='http://etherx.jabber.org/streams'>");
    assert!(matches!(framer.next(b"</s:stream>", &LIMITS), Ok(Next::Footer { used: 11 })));
    assert!(framer.next(b"</stream:stream>", &LIMITS).is_err());
}

#[test]
fn the_envelope_is_noted() {
    fn check(header: &str, xml: &str, expected: &str) {
        let mut framer = opened(header);
        let next = framer.next(xml.as_bytes(), &LIMITS);
        let Ok(Next::Stanza { frame, .. }) = &next else { panic!("{xml}: {next:?}") };
        let values = [frame.to, frame.from, frame.id, frame.type_, frame.lang].map(|value| value.unwrap_or("-"));
        let child = frame.child.as_ref().map_or("-".to_owned(), |(name, ns)| format!("{{{ns}}}{name}"));
        let text = if frame.text_between { " text" } else { "" };
        let noted = format!(
            "{:?} {{{}}}{} {} {} {child}{text}",
            frame.kind,
            frame.ns,
            frame.local,
            values.join(" "),
            frame.children
        );
        assert_eq!(noted, expected, "{xml}");

        // The view of it agrees.
        let tree = Tree::of(frame);
        assert_eq!((tree.root().name(), tree.root().ns()), (frame.local, &*frame.ns));
        assert_eq!(tree.root().children().count(), frame.children);
        assert_eq!(tree.root().children().next().map(|child| (child.name(), Cow::Borrowed(child.ns()))), frame.child);
    }
    const FREE: &str = "<stream xmlns='http://etherx.jabber.org/streams'>";
    check(
        HEADER,
        "<iq type='get' id='a&amp;b' to='x' from='y' xml:lang='de'><ping xmlns='urn:xmpp:ping'/></iq>",
        "Iq {jabber:client}iq x y a&amp;b get de 1 {urn:xmpp:ping}ping",
    );
    check(
        HEADER,
        "<message to=''> <body>x</body><x xmlns='to'/> </message>",
        "Message {jabber:client}message  - - - - 2 {jabber:client}body",
    );
    check(
        HEADER,
        "<message><a to='x' xmlns='u'><b xmlns='v'/></a></message>",
        "Message {jabber:client}message - - - - - 1 {u}a",
    );
    check(HEADER, "<message>x<a/></message>", "Message {jabber:client}message - - - - - 1 {jabber:client}a text");
    check(
        HEADER,
        "<message><a/> <![CDATA[]]></message>",
        "Message {jabber:client}message - - - - - 1 {jabber:client}a text",
    );
    check(HEADER, "<presence xmlns='jabber:client'/>", "Presence {jabber:client}presence - - - - - 0 -");
    check(HEADER, "<presence xmlns='u'><c/></presence>", "Other {u}presence - - - - - 1 {u}c");
    check(HEADER, "<presence xmlns='&#117;'><c/></presence>", "Other {u}presence - - - - - 1 {u}c");
    check(HEADER, "<x:iq xmlns:x='u' x:to='a'><c/></x:iq>", "Other {u}iq - - - - - 1 {jabber:client}c");
    check(
        HEADER,
        "<stream:error><c/></stream:error>",
        "Other {http://etherx.jabber.org/streams}error - - - - - 1 {jabber:client}c",
    );
    check(
        HEADER,
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA==</auth>",
        "Other {urn:ietf:params:xml:ns:xmpp-sasl}auth - - - - - 0 - text",
    );
    check(HEADER, "<foo/>", "Other {jabber:client}foo - - - - - 0 -");
    check(FREE, "<iq/>", "Other {http://etherx.jabber.org/streams}iq - - - - - 0 -");
    check(FREE, "<iq xmlns='jabber:client'><a/></iq>", "Iq {jabber:client}iq - - - - - 1 {jabber:client}a");
    check("<s:stream xmlns:s='http://etherx.jabber.org/streams'>", "<iq/>", "Other {}iq - - - - - 0 -");
}

const FREE: &str = "<stream xmlns='http://etherx.jabber.org/streams'>";
const PREFIXES: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:x' \
                        xmlns:y=\"urn:'y'\" xml:lang='en'>";

/// An element's meaning, apart from the attributes that forwarding replaces in the root.
fn meaning(element: &Element<'_>, root: bool) -> String {
    let replaced: &[&str] = if root { &["from", "xml:lang"] } else { &[] };
    let mut attributes: Vec<String> = Vec::new();
    for name in ["to", "from", "id", "type", "xml:lang", "a", "b"] {
        if let Some(value) = element.attr(name).filter(|_| !replaced.contains(&name)) {
            attributes.push(format!(" {name}={value:?}"));
        }
    }
    let inner: String = element.children().map(|child| meaning(&child, false)).collect();
    format!("<{{{}}}{}{}>{:?}{inner}</>", element.ns(), element.name(), attributes.concat(), element.text())
}

fn check_spliced(header: &str, xml: &str, expected: &str) {
    let mut framer = opened(header);
    let next = framer.next(xml.as_bytes(), &LIMITS);
    let Ok(Next::Stanza { frame, .. }) = &next else { panic!("{xml}: {next:?}") };
    let mut out = Vec::new();
    frame.splice_into("me@h/r", Some("en"), &mut out);
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out, expected, "{xml}");

    let routed = Tree::parse(&out, ns::CLIENT).unwrap_or_else(|error| panic!("{out}: {error:?}"));
    assert_eq!(meaning(&routed.root(), true), meaning(&Tree::of(frame).root(), true), "{xml}");
    assert_eq!(routed.root().attr("from"), Some("me@h/r"));
    assert_eq!(routed.root().attr("xml:lang"), Some(frame.lang.unwrap_or("en")));

    let mut out = Vec::new();
    frame.splice_to_into("me", Some("you"), None, &mut out);
    let out = String::from_utf8(out).unwrap();
    let routed = Tree::parse(&out, ns::CLIENT).unwrap_or_else(|error| panic!("{out}: {error:?}"));
    assert_eq!((routed.root().attr("from"), routed.root().attr("to")), (Some("me"), Some("you")));
    assert_eq!(routed.root().attr("xml:lang"), frame.lang);
    assert_eq!(routed.root().attr("id"), Tree::of(frame).root().attr("id"));
}

#[test]
fn forwarding_is_by_its_rules() {
    // From put in, and nothing else touched.
    check_spliced(
        HEADER,
        "<message to='a'  id=\"'\"><body>x&#10;</body></message>",
        "<message from='me@h/r' xml:lang='en' to='a'  id=\"'\"><body>x&#10;</body></message>",
    );
    check_spliced(HEADER, "<iq/>", "<iq from='me@h/r' xml:lang='en'/>");
    check_spliced(HEADER, "<iq\n></iq >", "<iq from='me@h/r' xml:lang='en'\n></iq >");
    // From cut wherever it stands.
    check_spliced(HEADER, "<iq from='evil' id='1'/>", "<iq from='me@h/r' xml:lang='en' id='1'/>");
    check_spliced(HEADER, "<iq id='1'\n from = \"'\" to='x'/>", "<iq from='me@h/r' xml:lang='en' id='1' to='x'/>");
    check_spliced(
        HEADER,
        "<iq id='1' from=''><q from='kept'/></iq>",
        "<iq from='me@h/r' xml:lang='en' id='1'><q from='kept'/></iq>",
    );
    // The content namespace cut at the root, other declarations kept.
    check_spliced(HEADER, "<iq id='1' xmlns='jabber:client' from='x'/>", "<iq from='me@h/r' xml:lang='en' id='1'/>");
    check_spliced(HEADER, "<iq from='x' xmlns='jabber&#58;client' b=''/>", "<iq from='me@h/r' xml:lang='en' b=''/>");
    check_spliced(
        HEADER,
        "<iq><q xmlns='jabber:client'/><r xmlns=''/></iq>",
        "<iq from='me@h/r' xml:lang='en'><q xmlns='jabber:client'/><r xmlns=''/></iq>",
    );
    check_spliced(FREE, "<iq xmlns='jabber:client'><q/></iq>", "<iq from='me@h/r' xml:lang='en'><q/></iq>");
    // A language of its own stays, also an empty one.
    check_spliced(HEADER, "<iq xml:lang='de'/>", "<iq from='me@h/r' xml:lang='de'/>");
    check_spliced(HEADER, "<iq xml:lang=''/>", "<iq from='me@h/r' xml:lang=''/>");
    check_spliced(HEADER, "<iq><q xml:lang='de'/></iq>", "<iq from='me@h/r' xml:lang='en'><q xml:lang='de'/></iq>");
    // What only the header declares is declared again, if it is named and not declared by the root.
    check_spliced(
        HEADER,
        "<iq><stream:q/></iq>",
        "<iq from='me@h/r' xml:lang='en' xmlns:stream='http://etherx.jabber.org/streams'><stream:q/></iq>",
    );
    check_spliced(HEADER, "<iq>stream:q</iq>", "<iq from='me@h/r' xml:lang='en'>stream:q</iq>");
    check_spliced(
        PREFIXES,
        "<iq><x:q a='y:z'/></iq>",
        "<iq from='me@h/r' xml:lang='en' xmlns:x='urn:x' xmlns:y='urn:&apos;y&apos;'><x:q a='y:z'/></iq>",
    );
    check_spliced(PREFIXES, "<iq x:a=''/>", "<iq from='me@h/r' xml:lang='en' xmlns:x='urn:x' x:a=''/>");
    check_spliced(PREFIXES, "<iq xmlns:x='v'><x:q/></iq>", "<iq from='me@h/r' xml:lang='en' xmlns:x='v'><x:q/></iq>");
    check_spliced(
        PREFIXES,
        "<iq><x:q xmlns:x='v'/></iq>",
        "<iq from='me@h/r' xml:lang='en' xmlns:x='urn:x'><x:q xmlns:x='v'/></iq>",
    );
    check_spliced(PREFIXES, "<iq/>", "<iq from='me@h/r' xml:lang='en'/>");
}

#[test]
fn elements_stand_by_themselves() {
    fn check(xml: &str, inside: &str, path: usize, expected: &str) {
        let tree = Tree::parse(xml, ns::CLIENT).unwrap();
        let mut element = tree.root();
        for _ in 0..path {
            element = element.children().next().unwrap();
        }
        let mut out = Vec::new();
        element.write_standalone(inside, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, expected, "{xml}");
        let again = Tree::parse(&out, inside).unwrap();
        assert_eq!(meaning(&again.root(), false), meaning(&element, false), "{xml}");
    }
    check("<a b='1'>x</a>", ns::CLIENT, 0, "<a b='1'>x</a>");
    check("<a/>", "", 0, "<a xmlns='jabber:client'/>");
    check("<a><b>x</b></a>", "u", 1, "<b xmlns='jabber:client'>x</b>");
    check("<a xmlns='u'><b/></a>", "u", 1, "<b/>");
    check("<a xmlns='u'><b><c/></b></a>", ns::CLIENT, 2, "<c xmlns='u'/>");
    check("<a><b xmlns='u'/></a>", "", 1, "<b xmlns='u'/>");
    check("<a><b xmlns=''/></a>", "u", 1, "<b xmlns=''/>");
    check("<a xmlns=''><b/></a>", "u", 1, "<b xmlns=''/>");
    check("<a xmlns:p='v' xmlns:q='w'><p:b/></a>", ns::CLIENT, 1, "<p:b xmlns:p='v'/>");
    check(
        "<a xmlns:p='v'><b xmlns:p=\"'&#10;\"><c p:d=''/></b></a>",
        ns::CLIENT,
        2,
        "<c xmlns:p='&apos;&#10;' p:d=''/>",
    );
    check("<a xmlns:p='v'><p:b xmlns:p='w'/></a>", ns::CLIENT, 1, "<p:b xmlns:p='w'/>");
    check("<a xmlns:p='v'><b a='p:c'/></a>", ns::CLIENT, 1, "<b xmlns:p='v' a='p:c'/>");

    let mut framer = opened(PREFIXES);
    let Ok(Next::Stanza { frame, .. }) = framer.next(b"<iq><x:q><z/></x:q></iq>", &LIMITS) else { panic!() };
    let tree = Tree::of(&frame);
    let mut out = Vec::new();
    tree.root().only_child().unwrap().write_standalone("urn:x", &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "<x:q xmlns='jabber:client' xmlns:x='urn:x'><z/></x:q>");
}

#[test]
fn views_read_what_is_meant() {
    let xml = "<query xmlns='jabber:iq:roster' ver=' &#10;&lt;\n' xml:lang='en' p:ver='no' xmlns:p='u'>\
               <item jid='a'><group>x &amp; y</group><group><![CDATA[<z>]]>\r\n</group></item>t<item/>&#x74;</query>";
    let tree = Tree::parse(xml, "").unwrap();
    let query = tree.root();
    assert!(query.is("query", ns::ROSTER));
    assert_eq!((query.attr("ver"), query.attr("xml:lang"), query.attr("xmlns")), (Some(" \n< "), Some("en"), None));
    assert_eq!(query.text(), "tt");
    assert_eq!(query.children().count(), 2);
    assert!(query.only_child().is_none());
    let item = query.child("item", ns::ROSTER).unwrap();
    assert_eq!(item.attr("jid"), Some("a"));
    assert_eq!(item.children().map(|group| group.text().into_owned()).collect::<Vec<_>>(), ["x & y", "<z>\n"]);
    assert_eq!(item.source(), "<item jid='a'><group>x &amp; y</group><group><![CDATA[<z>]]>\r\n</group></item>");
    assert!(query.child("item", ns::CLIENT).is_none());

    for xml in [
        "",
        "x",
        "<a>",
        "<a/><b/>",
        "<a/>x",
        "x<a/>",
        "<a></b>",
        "<a b='' b=''/>",
        "<p:a/>",
        "<a>&x;</a>",
        "<!-- --><a/>",
        "<?xml version='1.0'?><a/>",
    ] {
        assert!(Tree::parse(xml, "").is_err(), "{xml}");
    }
    let deep = "<a>".repeat(65) + &"</a>".repeat(65);
    assert!(Tree::parse(&deep, "").is_err());
}

/// Vigna's xorshift64*: the same input each run, from a seed that a failure names.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn pick<'s>(&mut self, from: &[&'s str]) -> &'s str {
        from[self.below(from.len())]
    }

    /// A legal or nearly legal element.
    fn element(&mut self, depth: usize, out: &mut String) {
        const NAMES: &[&str] = &[
            "a",
            "b",
            "message",
            "iq",
            "body",
            "p:a",
            "q:b",
            "stream:c",
            "\u{E9}",
            "a-.1",
            "presence",
            "verylongelementname",
        ];
        const VALUES: &[&str] = &[
            "",
            "x",
            "u",
            "jabber:client",
            "&amp;",
            "&#9;",
            "a b\tc",
            "http://www.w3.org/2000/xmlns/",
            "\u{1F600}",
            "longer than eight bytes",
            ">",
            "p:a",
            "'",
        ];
        let name = self.pick(NAMES);
        out.push('<');
        out.push_str(name);
        for _ in 0..self.below(5) {
            const ATTRIBUTES: &[&str] = &[
                "to", "from", "id", "type", "xmlns", "xml:lang", "a", "b", "p:a", "q:a", "xmlns:p", "xmlns:q",
                "xmlns:r",
            ];
            let quote = if self.below(2) == 0 { '\'' } else { '"' };
            let value = self.pick(VALUES).replace(quote, "");
            out.push_str(self.pick(&[" ", " ", " ", "\n", " \t "]));
            out.push_str(self.pick(ATTRIBUTES));
            out.push_str(self.pick(&["=", "=", "=", " = "]));
            out.push(quote);
            out.push_str(&value);
            out.push(quote);
        }
        if self.below(4) == 0 {
            return out.push_str(self.pick(&["/>", " />"]));
        }
        out.push('>');
        for _ in 0..self.below(4) {
            const TEXTS: &[&str] = &[
                "x",
                "text of some length",
                " ",
                "&lt;",
                "&#x41;",
                "]]",
                ">",
                "<![CDATA[<&>]]>",
                "\u{20AC}",
                "\r\n",
                "p:a",
            ];
            if depth < 5 && self.below(2) == 0 {
                self.element(depth + 1, out);
            } else {
                out.push_str(self.pick(TEXTS));
            }
        }
        out.push_str("</");
        out.push_str(name);
        out.push('>');
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const PIECES: &[&str] = &[
            "<",
            ">",
            "&",
            "'",
            "\"",
            "/",
            "=",
            " ",
            "\n",
            ":",
            "!",
            "?",
            "]",
            "]]>",
            "<!--",
            "<![CDATA[",
            "<?",
            "&#0;",
            "&x;",
            "&amp;",
            "&#",
            ";",
            "a",
            "xmlns",
            "xmlns:p='u'",
            " p:a='x'",
            " b='x'",
            "</a>",
            "<a>",
            "<b/>",
            "-",
            "1",
            "\u{E9}",
            "\u{B7}",
            "\u{FFFE}",
            "\u{1}",
            "\0",
        ];
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => drop(bytes.remove(at)),
                1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 => bytes.truncate(at),
                _ => {
                    let piece = self.pick(PIECES);
                    bytes.splice(at..at, piece.bytes());
                }
            }
        }
    }
}

/// What the scanner says of `xml` is what the checker says of it.
fn check_agreement(header: &str, bytes: &[u8], seed: u64) -> bool {
    let mut framer = opened(header);
    let scope = super::stream::scope_of(&framer);
    let opinion = |xml: &[u8]| match std::str::from_utf8(xml) {
        Ok(xml) => {
            checker::check(xml, scope.default.clone(), &scope, &LIMITS).is_ok_and(|checked| !checked.content_prefix)
        }
        Err(_) => false,
    };
    let shown = String::from_utf8_lossy(bytes);
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    match framer.next(bytes, &LIMITS) {
        Ok(Next::Stanza { used, frame }) => {
            assert_eq!(frame.xml.len() + start, used);
            let checked = checker::check(frame.xml, scope.default.clone(), &scope, &LIMITS);
            let checked = checked.unwrap_or_else(|error| panic!("seed {seed}: checker refuses {shown:?}: {error:?}"));
            let child = frame.child.as_ref().map(|(name, ns)| (*name, ns.clone()));
            assert_eq!(
                (checked.local, checked.ns, checked.child),
                (frame.local, frame.ns.clone(), child),
                "seed {seed}: {shown:?}"
            );
            check_forwarding(&frame, seed);
            true
        }
        outcome => {
            for end in start..=bytes.len() {
                assert!(
                    !opinion(&bytes[start..end]),
                    "seed {seed}: checker accepts {end} bytes of {shown:?}: {outcome:?}"
                );
            }
            false
        }
    }
}

/// Parsed in the receiver's context a routed stanza equals what was sent.
fn check_forwarding(frame: &Frame<'_>, seed: u64) {
    if frame.ns != ns::CLIENT {
        return;
    }
    let mut out = Vec::new();
    frame.splice_into("me", Some("en"), &mut out);
    let out = String::from_utf8(out).unwrap();
    let routed = Tree::parse(&out, ns::CLIENT).unwrap_or_else(|error| panic!("seed {seed}: {out}: {error:?}"));
    assert_eq!(meaning(&routed.root(), true), meaning(&Tree::of(frame).root(), true), "seed {seed}: {out}");
    for child in routed.root().children() {
        let mut alone = Vec::new();
        child.write_standalone("", &mut alone);
        let alone = String::from_utf8(alone).unwrap();
        let again = Tree::parse(&alone, "").unwrap_or_else(|error| panic!("seed {seed}: {alone}: {error:?}"));
        assert_eq!(meaning(&again.root(), false), meaning(&child, false), "seed {seed}: {alone}");
    }
}

#[test]
fn the_checker_agrees() {
    let mut accepted = 0;
    let rounds: u64 = 2000;
    for seed in 1..=rounds {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut xml = String::new();
        random.element(1, &mut xml);
        let mut bytes = xml.into_bytes();
        if random.below(3) > 0 {
            random.mutate(&mut bytes);
        }
        let header = random.pick(&[HEADER, FREE, PREFIXES]);
        accepted += u64::from(check_agreement(header, &bytes, seed));

        let stream = [header.as_bytes(), &bytes].concat();
        let whole = play(&[&stream], &LIMITS);
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(1 + random.below(rest.len().min(40)));
            pieces.push(piece);
            rest = behind;
        }
        assert_eq!(play(&pieces, &LIMITS), whole, "seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        let one_by_one: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(play(&one_by_one, &LIMITS), whole, "seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
    }
    // Both answers are put to the test.
    assert!(accepted > rounds / 10 && accepted < rounds * 9 / 10, "{accepted} of {rounds} accepted");
}
