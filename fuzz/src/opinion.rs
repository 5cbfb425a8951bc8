//! The second opinion: roxmltree, a reader of whole documents that shares nothing with the server's scanner or with xmlparser.

use roxmltree::{Document, Node, NodeType, ParsingOptions};

/// Reads a document. XMPP's restrictions are not its business: see [`is_restricted`].
pub fn parse(text: &str) -> Result<Document<'_>, roxmltree::Error> {
    Document::parse_with_options(text, ParsingOptions { allow_dtd: false, ..ParsingOptions::default() })
}

/// Whether a document is beyond it: it knows the prefix `xml`, which needs no declaration, on attributes only.
pub fn is_beyond(text: &str) -> bool {
    text.contains("<xml:")
}

/// Whether a document has what XMPP forbids although it is XML (RFC 6120 section 11.1).
pub fn is_restricted(document: &Document<'_>) -> bool {
    document.descendants().any(|node| matches!(node.node_type(), NodeType::Comment | NodeType::PI))
}

/// The elements inside a node.
pub fn elements<'a, 'input>(node: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(|child| child.is_element())
}

/// Character data directly inside.
pub fn text(node: Node<'_, '_>) -> String {
    node.children().filter(|child| child.is_text()).filter_map(|child| child.text()).collect()
}

/// An attribute without a namespace.
pub fn attr<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.attributes().find(|attribute| attribute.namespace().is_none() && attribute.name() == name).map(|a| a.value())
}

/// Everything that an element says, whatever prefixes it says it with, but for some attributes of the element itself.
pub fn meaning(node: Node<'_, '_>, without: &[&str]) -> String {
    let mut out = String::new();
    write_meaning(node, without, &mut out);
    out
}

fn write_meaning(node: Node<'_, '_>, without: &[&str], out: &mut String) {
    let name = node.tag_name();
    out.push_str(&format!("<{{{}}}{}", name.namespace().unwrap_or_default(), name.name()));
    let mut attributes: Vec<String> = node
        .attributes()
        .filter(|attribute| !without.contains(&attribute.name()))
        .map(|attribute| {
            format!(" {{{}}}{}={:?}", attribute.namespace().unwrap_or_default(), attribute.name(), attribute.value())
        })
        .collect();
    attributes.sort_unstable();
    out.push_str(&attributes.concat());
    out.push('>');
    for child in node.children() {
        match child.node_type() {
            NodeType::Element => write_meaning(child, &[], out),
            NodeType::Text => out.push_str(&format!("{:?}", child.text().unwrap_or_default())),
            _ => out.push_str("<!>"),
        }
    }
    out.push_str("</>");
}
