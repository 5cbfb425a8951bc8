//! Appends escaped XML to a buffer; cannot produce an unbalanced element.

use std::fmt::{Display, Write as _};

/// Writes elements into a buffer. Whatever is open when it is dropped is closed.
///
/// A namespace declaration is written only where it differs from the parent's. The namespace a writer starts in is
/// [`super::ns::CLIENT`], as on a client's stream.
pub struct Writer<'a> {
    buf: &'a mut Vec<u8>,
    open: Vec<(&'static str, &'static str)>,
    in_tag: bool,
}

impl<'a> Writer<'a> {
    /// A writer at the top level of a stream whose content namespace is `jabber:client`.
    pub fn new(buf: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { buf, open: Vec::with_capacity(8), in_tag: false }
    }

    /// Opens an element; its attributes may follow.
    pub fn open(&mut self, name: &'static str, ns: &'static str) -> &mut Self {
        self.finish_tag();
        let outer = self.open.last().map_or(super::ns::CLIENT, |(_, ns)| ns);
        self.buf.push(b'<');
        self.buf.extend_from_slice(name.as_bytes());
        self.open.push((name, ns));
        self.in_tag = true;
        if outer != ns {
            self.attr("xmlns", ns);
        }
        self
    }

    /// An attribute of the element just opened. The name is trusted, the value escaped.
    pub fn attr(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        assert!(self.in_tag, "attribute {name} written outside a start tag");
        self.buf.push(b' ');
        self.buf.extend_from_slice(name.as_bytes());
        self.buf.extend_from_slice(b"='");
        let _ = write!(Escaping { buf: self.buf, attribute: true }, "{value}");
        self.buf.push(b'\'');
        self
    }

    /// [`Writer::attr`] if there is a value.
    pub fn attr_opt(&mut self, name: &'static str, value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.attr(name, value);
        }
        self
    }

    /// An attribute whose value is already escaped for single quotes, as taken from a validated stanza.
    pub fn attr_escaped(&mut self, name: &'static str, value: &str) -> &mut Self {
        assert!(self.in_tag, "attribute {name} written outside a start tag");
        debug_assert!(!value.contains('<'), "{value:?} is not escaped");
        self.buf.push(b' ');
        self.buf.extend_from_slice(name.as_bytes());
        self.buf.extend_from_slice(b"='");
        // What stood in double quotes may hold a bare apostrophe.
        for piece in value.split_inclusive('\'') {
            match piece.strip_suffix('\'') {
                Some(head) => {
                    self.buf.extend_from_slice(head.as_bytes());
                    self.buf.extend_from_slice(b"&apos;");
                }
                None => self.buf.extend_from_slice(piece.as_bytes()),
            }
        }
        self.buf.push(b'\'');
        self
    }

    /// Character data, escaped.
    pub fn text(&mut self, text: impl Display) -> &mut Self {
        self.finish_tag();
        let _ = write!(Escaping { buf: self.buf, attribute: false }, "{text}");
        self
    }

    /// An element that holds only text.
    pub fn text_element(&mut self, name: &'static str, text: impl Display) -> &mut Self {
        let ns = self.open.last().map_or(super::ns::CLIENT, |(_, ns)| ns);
        self.open(name, ns).text(text).close()
    }

    /// An element with nothing in it.
    pub fn empty(&mut self, name: &'static str, ns: &'static str) -> &mut Self {
        self.open(name, ns).close()
    }

    /// One or more whole elements that were validated before, as they stand.
    pub fn raw(&mut self, xml: &[u8]) -> &mut Self {
        self.finish_tag();
        self.buf.extend_from_slice(xml);
        self
    }

    /// Closes the innermost element.
    pub fn close(&mut self) -> &mut Self {
        let Some((name, _)) = self.open.pop() else { return self };
        if self.in_tag {
            self.buf.extend_from_slice(b"/>");
            self.in_tag = false;
        } else {
            self.buf.extend_from_slice(b"</");
            self.buf.extend_from_slice(name.as_bytes());
            self.buf.push(b'>');
        }
        self
    }

    fn finish_tag(&mut self) {
        if self.in_tag {
            self.buf.push(b'>');
            self.in_tag = false;
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        while !self.open.is_empty() {
            self.close();
        }
    }
}

/// Appends `value` escaped for a single-quoted attribute.
pub fn escape_attr(value: &str, buf: &mut Vec<u8>) {
    let _ = Escaping { buf, attribute: true }.write_str(value);
}

/// Appends `text` escaped as character data.
pub fn escape_text(text: &str, buf: &mut Vec<u8>) {
    let _ = Escaping { buf, attribute: false }.write_str(text);
}

/// Adds a child at the end of a whole element, the last in `buf`, whose name is `root` if it has no end tag yet.
pub fn append_child(buf: &mut Vec<u8>, root: &str, write: impl FnOnce(&mut Vec<u8>)) {
    if buf.ends_with(b"/>") {
        buf.truncate(buf.len() - 2);
        buf.extend_from_slice(b"></");
        buf.extend_from_slice(root.as_bytes());
        buf.push(b'>');
    }
    let end = buf.len();
    let end_tag = end - memchr::memrchr(b'<', buf).unwrap_or(end);
    write(buf);
    if let Some(tail) = buf.get_mut(end - end_tag..) {
        tail.rotate_left(end_tag);
    }
}

struct Escaping<'b> {
    buf: &'b mut Vec<u8>,
    attribute: bool,
}

impl std::fmt::Write for Escaping<'_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let bytes = s.as_bytes();
        let mut done = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let escape: &[u8] = match byte {
                b'&' => b"&amp;",
                b'<' => b"&lt;",
                b'>' => b"&gt;",
                b'\r' => b"&#13;",
                b'\'' if self.attribute => b"&apos;",
                b'"' if self.attribute => b"&quot;",
                // A parser would turn these into spaces (XML 1.0 section 3.3.3).
                b'\t' if self.attribute => b"&#9;",
                b'\n' if self.attribute => b"&#10;",
                _ => continue,
            };
            self.buf.extend_from_slice(&bytes[done..at]);
            self.buf.extend_from_slice(escape);
            done = at + 1;
        }
        self.buf.extend_from_slice(&bytes[done..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ns;
    use super::*;

    fn check(write: impl FnOnce(&mut Writer<'_>), expected: &str) {
        let mut buf = Vec::new();
        write(&mut Writer::new(&mut buf));
        assert_eq!(String::from_utf8_lossy(&buf), expected);
    }

    fn keep(_: &mut Writer<'_>) {}

    #[test]
    fn children_are_added_at_the_end() {
        let check = |stanza: &str, expected: &str| {
            let mut buf = format!("<before/>{stanza}").into_bytes();
            append_child(&mut buf, "m", |buf| buf.extend_from_slice(b"<new/>"));
            assert_eq!(String::from_utf8_lossy(&buf), format!("<before/>{expected}"));
        };
        check("<m><b>a</b></m>", "<m><b>a</b><new/></m>");
        check("<m><b/></m >", "<m><b/><new/></m >");
        check("<m id='/>'/>", "<m id='/>'><new/></m>");
        check("<m><![CDATA[</m>]]></m>", "<m><![CDATA[</m>]]><new/></m>");
    }

    #[test]
    fn elements_are_balanced_and_escaped() {
        check(|w| keep(w.open("iq", ns::CLIENT).open("ping", ns::PING)), "<iq><ping xmlns='urn:xmpp:ping'/></iq>");
        check(
            |w| keep(w.open("a", ns::CLIENT).attr("b", "x'\"<>&\t\n\r")),
            "<a b='x&apos;&quot;&lt;&gt;&amp;&#9;&#10;&#13;'/>",
        );
        check(|w| keep(w.open("a", ns::CLIENT).text("<&>'\"\r\n")), "<a>&lt;&amp;&gt;'\"&#13;\n</a>");
        check(
            |w| keep(w.open("q", ns::ROSTER).open("item", ns::ROSTER).close().empty("x", ns::PING)),
            "<q xmlns='jabber:iq:roster'><item/><x xmlns='urn:xmpp:ping'/></q>",
        );
        check(|w| keep(w.open("a", ns::CLIENT).attr_escaped("id", "it's &amp;")), "<a id='it&apos;s &amp;'/>");
    }
}
