//! One chat message of 228 bytes, framed and checked: ours, and what other parsers do with it.
//!
//! Only ours and rxml's go on where the bytes were cut, and only they refuse all that XMPP forbids. quick-xml resolves
//! namespaces and checks names; xmlparser gives tokens and checks neither, which our tree does with its tokens.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rxml::Parse;
use whinchat::xml::{Framer, Next, Tree, XmlLimits};

const LIMITS: XmlLimits = XmlLimits {
    stanza_bytes_max: 256 * 1024,
    depth_max: 64,
    attributes_max: 64,
    name_bytes_max: 256,
    header_bytes_max: 4096,
};
const HEADER: &str = "<stream:stream to='im.example' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
const MESSAGE: &str = "<message to='romeo@montague.example/orchard' type='chat' id='5f3c9a1e-77d0-4b1c'>\
                       <body>Art thou not Romeo, and a Montague? It is nor hand, nor foot, nor arm</body>\
                       <active xmlns='http://jabber.org/protocol/chatstates'/></message>";

fn parsers(c: &mut Criterion) {
    let mut group = c.benchmark_group("a message of 228 bytes");
    group.throughput(Throughput::Bytes(MESSAGE.len() as u64));

    let mut framer = Framer::new();
    framer.next(HEADER.as_bytes(), &LIMITS).expect("a header");
    group.bench_function("whinchat, framed and checked", |b| {
        b.iter(|| match framer.next(black_box(MESSAGE.as_bytes()), &LIMITS) {
            Ok(Next::Stanza { frame, .. }) => frame.children,
            _ => panic!("no stanza"),
        });
    });
    group.bench_function("xmlparser, tokens only", |b| {
        b.iter(|| xmlparser::Tokenizer::from(black_box(MESSAGE)).map(|token| token.expect("a token")).count());
    });
    group.bench_function("xmlparser with a tree of ours", |b| {
        b.iter(|| Tree::parse(black_box(MESSAGE), "jabber:client").expect("a tree").root().name().len());
    });
    group.bench_function("quick-xml, names and namespaces", |b| {
        b.iter(|| {
            let mut reader = quick_xml::NsReader::from_str(black_box(MESSAGE));
            let mut events = 0;
            while !matches!(reader.read_resolved_event().expect("an event").1, quick_xml::events::Event::Eof) {
                events += 1;
            }
            events
        });
    });
    group.bench_function("rxml, a stream", |b| {
        let mut parser = rxml::Parser::new();
        let mut feed = |mut bytes: &[u8]| {
            let mut events = 0;
            while let Ok(Some(_)) = parser.parse(&mut bytes, false) {
                events += 1;
            }
            events
        };
        feed(HEADER.as_bytes());
        b.iter(|| {
            let events = feed(black_box(MESSAGE.as_bytes()));
            assert!(events > 5);
        });
    });
    group.finish();
}

criterion_group!(benches, parsers);
criterion_main!(benches);
