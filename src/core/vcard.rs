//! What the two kinds of visiting card have in common: vcard-temp (XEP-0054) and vCard4 (RFC 6351, XEP-0292).
//!
//! Of both the same properties are read into a [`Card`], and written into the other kind in the place of those that it had. What
//! is not in the table of properties (pictures, keys, sounds, what a client has invented) stays where it is; pictures are
//! XEP-0398's business.

use crate::xml::{Element, Tree, Writer, ns};

/// How a property is written.
enum Shape {
    /// Text in vcard-temp; in vCard4 text inside an element of this name, behind a scheme.
    Value(&'static str, &'static str),
    /// Parts by their names in both, and which types there are by their names in both.
    Parts(&'static [(&'static str, &'static str)], Types),
    /// An organisation and its units.
    Organisation,
    /// A value inside an element of vcard-temp; in vCard4 as above, with types.
    Typed(&'static str, &'static str, &'static str, Types),
}

type Types = &'static [(&'static str, &'static str)];

const PLACES: Types = &[("HOME", "home"), ("WORK", "work")];
const PHONES: Types = &[
    ("HOME", "home"),
    ("WORK", "work"),
    ("VOICE", "voice"),
    ("FAX", "fax"),
    ("PAGER", "pager"),
    ("CELL", "cell"),
    ("VIDEO", "video"),
];
const NAMES: &[(&str, &str)] =
    &[("FAMILY", "surname"), ("GIVEN", "given"), ("MIDDLE", "additional"), ("PREFIX", "prefix"), ("SUFFIX", "suffix")];
const ADDRESS: &[(&str, &str)] = &[
    ("POBOX", "pobox"),
    ("EXTADD", "ext"),
    ("STREET", "street"),
    ("LOCALITY", "locality"),
    ("REGION", "region"),
    ("PCODE", "code"),
    ("CTRY", "country"),
];

/// The properties that both have, by their names in both (XEP-0292 section 9).
const PROPERTIES: &[(&str, &str, Shape)] = &[
    ("FN", "fn", Shape::Value("text", "")),
    ("N", "n", Shape::Parts(NAMES, &[])),
    ("NICKNAME", "nickname", Shape::Value("text", "")),
    ("BDAY", "bday", Shape::Value("date", "")),
    ("URL", "url", Shape::Value("uri", "")),
    ("TITLE", "title", Shape::Value("text", "")),
    ("ROLE", "role", Shape::Value("text", "")),
    ("ORG", "org", Shape::Organisation),
    ("ADR", "adr", Shape::Parts(ADDRESS, PLACES)),
    ("TEL", "tel", Shape::Typed("NUMBER", "uri", "tel:", PHONES)),
    ("EMAIL", "email", Shape::Typed("USERID", "text", "", PLACES)),
    ("JABBERID", "impp", Shape::Value("uri", "xmpp:")),
    ("DESC", "note", Shape::Value("text", "")),
];

/// One property of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Property {
    /// Which of [`PROPERTIES`].
    at: usize,
    /// Which of its types.
    types: Vec<usize>,
    values: Vec<String>,
}

/// What both kinds can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card(Vec<Property>);

/// Properties of one card; what is more is left out.
const PROPERTIES_MAX: usize = 128;

fn place(find: impl Fn(&(&'static str, &'static str, Shape)) -> bool) -> Option<usize> {
    PROPERTIES.iter().position(find)
}

fn shape(at: usize) -> &'static Shape {
    &PROPERTIES[at].2
}

fn tidy(element: Option<Element<'_>>) -> String {
    element.map(|element| element.text().trim().to_owned()).unwrap_or_default()
}

/// The property of vcard-temp that an element is; the property is empty if it says nothing.
fn of_temp(element: &Element<'_>) -> Option<Property> {
    let at = place(|(temp, ..)| element.is(temp, ns::VCARD))?;
    let child = |name: &str| element.child(name, ns::VCARD);
    let types = |types: Types| {
        (0..types.len()).filter(|place| types.get(*place).is_some_and(|(name, _)| child(name).is_some())).collect()
    };
    let (types, values) = match shape(at) {
        Shape::Value(..) => (Vec::new(), vec![element.text().trim().to_owned()]),
        Shape::Parts(parts, known) => (types(known), parts.iter().map(|(name, _)| tidy(child(name))).collect()),
        Shape::Organisation => {
            let units = element.children().filter(|unit| unit.is("ORGUNIT", ns::VCARD)).map(|unit| tidy(Some(unit)));
            (Vec::new(), std::iter::once(tidy(child("ORGNAME"))).chain(units).collect())
        }
        Shape::Typed(value, _, _, known) => (types(known), vec![tidy(child(value))]),
    };
    Some(Property { at, types, values })
}

/// The same of vCard4.
fn of_v4(element: &Element<'_>) -> Option<Property> {
    let at = place(|(_, v4, _)| element.is(v4, ns::VCARD4))?;
    let child = |name: &str| element.child(name, ns::VCARD4);
    let named = child("parameters").and_then(|parameters| parameters.child("type", ns::VCARD4));
    let named: Vec<String> = named.iter().flat_map(Element::children).map(|text| tidy(Some(text))).collect();
    let types = |types: Types| {
        let has = |name: &str| named.iter().any(|known| known.eq_ignore_ascii_case(name));
        (0..types.len()).filter(|place| types.get(*place).is_some_and(|(_, name)| has(name))).collect()
    };
    // Whatever kind of value it is.
    let value = || tidy(element.children().find(|child| child.ns() == ns::VCARD4 && child.name() != "parameters"));
    let behind = |scheme: &str| value().strip_prefix(scheme).map(str::to_owned);
    let (types, values) = match shape(at) {
        // Of addresses in several networks only one kind is ours.
        Shape::Value(_, scheme) => (Vec::new(), vec![behind(scheme)?]),
        Shape::Parts(parts, known) => (types(known), parts.iter().map(|(_, name)| tidy(child(name))).collect()),
        Shape::Organisation => {
            let texts = element.children().filter(|text| text.is("text", ns::VCARD4)).map(|text| tidy(Some(text)));
            (Vec::new(), texts.collect())
        }
        Shape::Typed(_, _, scheme, known) => (types(known), vec![behind(scheme).unwrap_or_else(value)]),
    };
    Some(Property { at, types, values })
}

impl Property {
    fn says_something(&self) -> bool {
        self.values.iter().any(|value| !value.is_empty())
    }

    fn value(&self, place: usize) -> &str {
        self.values.get(place).map(String::as_str).unwrap_or_default()
    }

    fn types_of(&self, types: Types) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.types.iter().filter_map(|place| types.get(*place))
    }

    fn write_temp(&self, w: &mut Writer<'_>) {
        w.open(PROPERTIES[self.at].0, ns::VCARD);
        match shape(self.at) {
            Shape::Value(..) => {
                w.text(self.value(0));
            }
            Shape::Parts(parts, types) => {
                for (name, _) in self.types_of(types) {
                    w.empty(name, ns::VCARD);
                }
                for (place, (name, _)) in parts.iter().enumerate().filter(|(place, _)| !self.value(*place).is_empty()) {
                    w.text_element(name, self.value(place));
                }
            }
            Shape::Organisation => {
                w.text_element("ORGNAME", self.value(0));
                for unit in self.values.iter().skip(1) {
                    w.text_element("ORGUNIT", unit);
                }
            }
            Shape::Typed(value, _, _, types) => {
                for (name, _) in self.types_of(types) {
                    w.empty(name, ns::VCARD);
                }
                w.text_element(value, self.value(0));
            }
        }
        w.close();
    }

    fn write_v4(&self, w: &mut Writer<'_>) {
        w.open(PROPERTIES[self.at].1, ns::VCARD4);
        match shape(self.at) {
            Shape::Value(value, scheme) => {
                w.text_element(value, format_args!("{scheme}{}", self.value(0)));
            }
            Shape::Parts(parts, types) => {
                self.write_types(types, w);
                for (place, (_, name)) in parts.iter().enumerate() {
                    w.text_element(name, self.value(place));
                }
            }
            Shape::Organisation => {
                for text in &self.values {
                    w.text_element("text", text);
                }
            }
            Shape::Typed(_, value, scheme, types) => {
                self.write_types(types, w);
                let number = self.value(0);
                // A number as people write it is no URI.
                let is_uri = number.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.()*#;=".contains(&byte));
                match !scheme.is_empty() && !is_uri {
                    true => w.text_element("text", number),
                    false => w.text_element(value, format_args!("{scheme}{number}")),
                };
            }
        }
        w.close();
    }

    fn write_types(&self, types: Types, w: &mut Writer<'_>) {
        if self.types.is_empty() {
            return;
        }
        w.open("parameters", ns::VCARD4).open("type", ns::VCARD4);
        for (_, name) in self.types_of(types) {
            w.text_element("text", name);
        }
        w.close().close();
    }
}

impl Card {
    fn of(xml: &str, read: impl Fn(&Element<'_>) -> Option<Property>) -> Card {
        let Ok(tree) = Tree::parse(xml, ns::CLIENT) else { return Card::default() };
        let properties = tree.root().children().filter_map(|child| read(&child)).filter(Property::says_something);
        let mut properties: Vec<Property> = properties.take(PROPERTIES_MAX).collect();
        properties.sort_by_key(|property| property.at);
        Card(properties)
    }

    /// What a vcard-temp says.
    pub fn of_temp(xml: &str) -> Card {
        Card::of(xml, of_temp)
    }

    /// What a vCard4 says.
    pub fn of_v4(xml: &str) -> Card {
        Card::of(xml, of_v4)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A vcard-temp that says the same, and has the rest of the one before.
    pub fn temp(&self, before: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.open("vCard", ns::VCARD);
        self.0.iter().for_each(|property| property.write_temp(&mut w));
        keep(before, ns::VCARD, |child| of_temp(child).is_none(), &mut w);
        drop(w);
        out
    }

    /// The same for vCard4.
    pub fn v4(&self, before: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.open("vcard", ns::VCARD4);
        self.0.iter().for_each(|property| property.write_v4(&mut w));
        keep(before, ns::VCARD4, |child| of_v4(child).is_none(), &mut w);
        drop(w);
        out
    }
}

fn keep(before: Option<&str>, ns: &str, stays: impl Fn(&Element<'_>) -> bool, w: &mut Writer<'_>) {
    let Some(tree) = before.and_then(|before| Tree::parse(before, ns::CLIENT).ok()) else { return };
    for child in tree.root().children().filter(stays) {
        let mut element = Vec::new();
        child.write_standalone(ns, &mut element);
        w.raw(&element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both kinds of each property, which become each other.
    #[test]
    fn both_ways() {
        let check = |temp: &str, v4: &str| {
            let temp = format!("<vCard xmlns='vcard-temp'>{temp}</vCard>");
            let v4 = format!("<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'>{v4}</vcard>");
            let text = |xml: Vec<u8>| String::from_utf8(xml).expect("text");
            assert_eq!(text(Card::of_temp(&temp).v4(None)), v4);
            assert_eq!(text(Card::of_v4(&v4).temp(None)), temp);
            assert_eq!(Card::of_temp(&temp), Card::of_v4(&v4));
        };
        let nothing = Card::of_temp("<vCard xmlns='vcard-temp'/>");
        assert!(nothing.is_empty() && nothing.temp(None) == b"<vCard xmlns='vcard-temp'/>");
        check("<FN>Juliet &amp; Co</FN>", "<fn><text>Juliet &amp; Co</text></fn>");
        check(
            "<N><FAMILY>Capulet</FAMILY><GIVEN>Juliet</GIVEN></N>",
            "<n><surname>Capulet</surname><given>Juliet</given><additional></additional><prefix></prefix><suffix></suffix></n>",
        );
        check(
            "<BDAY>1580-07-31</BDAY><URL>https://x.test/</URL>",
            "<bday><date>1580-07-31</date></bday><url><uri>https://x.test/</uri></url>",
        );
        check("<JABBERID>j@x.test</JABBERID>", "<impp><uri>xmpp:j@x.test</uri></impp>");
        check(
            "<ORG><ORGNAME>House</ORGNAME><ORGUNIT>Balcony</ORGUNIT></ORG>",
            "<org><text>House</text><text>Balcony</text></org>",
        );
        check(
            "<TEL><HOME></HOME><CELL></CELL><NUMBER>+39-045</NUMBER></TEL><TEL><NUMBER>1 2</NUMBER></TEL>"
                .replace("<HOME></HOME><CELL></CELL>", "<HOME/><CELL/>")
                .as_str(),
            "<tel><parameters><type><text>home</text><text>cell</text></type></parameters><uri>tel:+39-045</uri></tel><tel><text>1 2</text></tel>",
        );
        check(
            "<EMAIL><WORK/><USERID>j@x.test</USERID></EMAIL><DESC>d</DESC>",
            "<email><parameters><type><text>work</text></type></parameters><text>j@x.test</text></email><note><text>d</text></note>",
        );
        check(
            "<ADR><HOME/><STREET>Via</STREET><CTRY>IT</CTRY></ADR>",
            "<adr><parameters><type><text>home</text></type></parameters><pobox></pobox><ext></ext><street>Via</street>\
             <locality></locality><region></region><code></code><country>IT</country></adr>",
        );
    }

    #[test]
    fn the_rest_stays() {
        let temp = "<vCard xmlns='vcard-temp'><FN>old</FN><PHOTO><BINVAL>aGk=</BINVAL></PHOTO><NICKNAME/><x xmlns='urn:x'/></vCard>";
        let card = Card::of_v4("<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>new</text></fn></vcard>");
        assert_eq!(
            String::from_utf8(card.temp(Some(temp))).expect("text"),
            "<vCard xmlns='vcard-temp'><FN>new</FN><PHOTO><BINVAL>aGk=</BINVAL></PHOTO><x xmlns='urn:x'/></vCard>"
        );
        let v4 = "<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><impp><uri>sip:j</uri></impp><impp><uri>xmpp:j</uri></impp><kind><text>individual</text></kind></vcard>";
        assert_eq!(
            String::from_utf8(Card::default().v4(Some(v4))).expect("text"),
            "<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><impp><uri>sip:j</uri></impp><kind><text>individual</text></kind></vcard>"
        );
        for nonsense in ["", "<", "<other xmlns='urn:o'><FN>x</FN></other>"] {
            assert!(Card::of_temp(nonsense).is_empty() && Card::of_v4(nonsense).is_empty());
        }
    }
}
