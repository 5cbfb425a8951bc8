//! Framing, forwarding and views of the stanzas that a chat server sees most.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use whinchat::xml::{Frame, Framer, Next, Tree, XmlLimits};

const LIMITS: XmlLimits = XmlLimits {
    stanza_bytes_max: 256 * 1024,
    depth_max: 64,
    attributes_max: 64,
    name_bytes_max: 256,
    header_bytes_max: 4096,
};

const HEADER: &str = "<stream:stream to='im.example' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

/// 228 bytes, as a mobile client writes it.
const MESSAGE: &str = "<message to='romeo@montague.example/orchard' type='chat' id='5f3c9a1e-77d0-4b1c'>\
                       <body>Art thou not Romeo, and a Montague? It is nor hand, nor foot, nor arm</body>\
                       <active xmlns='http://jabber.org/protocol/chatstates'/></message>";
const PRESENCE: &str = "<presence><show>away</show><status>at the ball</status><c xmlns='http://jabber.org/protocol/caps' \
                        hash='sha-1' node='https://client.example' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/></presence>";
const IQ: &str = "<iq type='get' id='a1b2c3d4' to='im.example'><ping xmlns='urn:xmpp:ping'/></iq>";

fn opened() -> Framer {
    let mut framer = Framer::new();
    let _ = framer.next(HEADER.as_bytes(), &LIMITS).map_err(|error| panic!("{error:?}"));
    framer
}

fn frame<'a>(framer: &mut Framer, bytes: &'a [u8]) -> Frame<'a> {
    match framer.next(bytes, &LIMITS) {
        Ok(Next::Stanza { frame, .. }) => frame,
        other => panic!("{other:?}"),
    }
}

fn framing(c: &mut Criterion) {
    assert_eq!(MESSAGE.len(), 228);
    let mut framer = opened();
    let mut group = c.benchmark_group("frame");
    for (name, stanza) in [("message", MESSAGE), ("presence", PRESENCE), ("iq", IQ)] {
        group.throughput(Throughput::Bytes(stanza.len() as u64));
        group.bench_function(name, |b| b.iter(|| black_box(frame(&mut framer, black_box(stanza.as_bytes())).children)));
    }
    let escaped = MESSAGE.replace("a Montague?", "&lt;b&gt; &#x1F600;");
    group.bench_function("message with references", |b| {
        b.iter(|| black_box(frame(&mut framer, black_box(escaped.as_bytes())).children));
    });
    let prefixed = MESSAGE.replace("<active xmlns=", "<c:active xmlns:c=");
    group.bench_function("message with a prefix", |b| {
        b.iter(|| black_box(frame(&mut framer, black_box(prefixed.as_bytes())).children));
    });
    for pieces in [2, 10, 228] {
        group.bench_function(format!("message in {pieces} pieces"), |b| {
            b.iter(|| {
                let bytes = black_box(MESSAGE.as_bytes());
                for piece in 1..pieces {
                    let _ = black_box(framer.next(&bytes[..bytes.len() * piece / pieces], &LIMITS));
                }
                black_box(frame(&mut framer, bytes).children)
            });
        });
    }
    let long = MESSAGE.replace("Art thou", &"Wherefore art thou Romeo? ".repeat(2000));
    group.throughput(Throughput::Bytes(long.len() as u64));
    group.bench_function("message of 52 KB", |b| {
        b.iter(|| black_box(frame(&mut framer, black_box(long.as_bytes())).children))
    });
}

fn forwarding(c: &mut Criterion) {
    let mut framer = opened();
    let mut out = Vec::with_capacity(1024);
    let bare = frame(&mut framer, MESSAGE.as_bytes());
    c.bench_function("splice", |b| {
        b.iter(|| {
            out.clear();
            black_box(&bare).splice_into(black_box("juliet@capulet.example/balcony"), Some("en"), &mut out);
            black_box(out.len())
        });
    });
    let declared = MESSAGE.replace("<message", "<message from='x@y' xmlns='jabber:client'");
    let declared = frame(&mut framer, declared.as_bytes());
    c.bench_function("splice with cuts", |b| {
        b.iter(|| {
            out.clear();
            black_box(&declared).splice_into(black_box("juliet@capulet.example/balcony"), Some("en"), &mut out);
            black_box(out.len())
        });
    });
}

fn views(c: &mut Criterion) {
    let mut framer = opened();
    for (name, stanza) in [("message", MESSAGE), ("presence", PRESENCE), ("iq", IQ)] {
        let frame = frame(&mut framer, stanza.as_bytes());
        c.bench_function(&format!("tree of {name}"), |b| {
            b.iter(|| black_box(Tree::of(black_box(&frame))).root().name().len())
        });
    }
}

criterion_group!(benches, framing, forwarding, views);
criterion_main!(benches);
