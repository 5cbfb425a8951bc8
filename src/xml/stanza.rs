//! Views over a framed stanza for handlers.
//!
//! A [`Tree`] is read in one pass into a flat arena; names, namespaces and most values borrow from the text. It is for reading:
//! what only passes through is spliced ([`Frame::splice_into`]), what is new is written ([`super::Writer`]).

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use xmlparser::{ElementEnd, StrSpan, Token, Tokenizer};

use super::checker::{self, BARE, Namespaces, Scope};
use super::stream::{Frame, XmlError, XmlLimits};
use super::text::{attribute_value, is_rewritten, prefixes_named, push_character_data, push_declaration};

/// Bounds of text that does not come from a stream, which has its own. Stanzas were bounded when they came in; these only keep
/// damage in a store from costing more than its bytes.
const STORED_LIMITS: XmlLimits = XmlLimits {
    stanza_bytes_max: usize::MAX,
    depth_max: 64,
    attributes_max: 256,
    name_bytes_max: 1024,
    header_bytes_max: 0,
};

/// A stanza read once into an arena of nodes that borrow from its text.
#[derive(Debug)]
pub struct Tree<'a> {
    xml: &'a str,
    /// In document order: a node's first child is the next one.
    nodes: Vec<Node<'a>>,
    attributes: Vec<Attribute<'a>>,
    /// Namespace declarations of the elements; those of the scope around the root come first.
    declarations: Vec<Declaration<'a>>,
    namespaces: Vec<Cow<'a, str>>,
}

#[derive(Debug)]
struct Node<'a> {
    prefix: &'a str,
    local: &'a str,
    ns: u32,
    parent: u32,
    /// The node after the last one inside.
    past: u32,
    /// From `<` to behind the last `>`.
    start: usize,
    end: usize,
    name_end: usize,
    /// What stands between the tags.
    inner: (usize, usize),
    attributes: (u32, u32),
    declarations: (u32, u32),
}

#[derive(Debug)]
struct Attribute<'a> {
    prefix: &'a str,
    local: &'a str,
    value: Cow<'a, str>,
}

#[derive(Debug)]
struct Declaration<'a> {
    prefix: Cow<'a, str>,
    ns: u32,
}

/// Stands in for a node that is not there, which a validated text cannot bring about.
static NO_NODE: Node<'static> = Node {
    prefix: "",
    local: "",
    ns: 0,
    parent: 0,
    past: 0,
    start: 0,
    end: 0,
    name_end: 0,
    inner: (0, 0),
    attributes: (0, 0),
    declarations: (0, 0),
};

impl<'a> Tree<'a> {
    /// Reads a validated frame; namespaces that only its stream header declares are resolved.
    pub fn of(frame: &Frame<'a>) -> Tree<'a> {
        let (default, scope) = frame.scope();
        Tree::read(frame.xml, default, scope)
    }

    /// Reads one element from text that need not be trusted, e.g. from the store. The default namespace is `default_ns` where
    /// the text declares none.
    ///
    /// # Errors
    /// The first rule of [`XmlError`] that the text breaks.
    pub fn parse(xml: &'a str, default_ns: &'a str) -> Result<Tree<'a>, XmlError> {
        checker::check(xml, Cow::Borrowed(default_ns), &BARE, &STORED_LIMITS)?;
        Ok(Tree::read(xml, Cow::Borrowed(default_ns), &BARE))
    }

    /// Reads what [`Frame::splice_into`] has made of a validated stanza.
    pub(crate) fn spliced(xml: &'a str) -> Tree<'a> {
        Tree::read(xml, Cow::Borrowed(super::ns::CLIENT), &BARE)
    }

    /// The element itself.
    pub fn root(&self) -> Element<'_> {
        Element { tree: self, index: 0 }
    }

    fn read(xml: &'a str, default: Cow<'a, str>, scope: &Scope) -> Tree<'a> {
        let mut reader = Reader {
            tree: Tree {
                xml,
                nodes: Vec::with_capacity(8),
                attributes: Vec::with_capacity(8),
                declarations: Vec::new(),
                namespaces: Vec::new(),
            },
            namespaces: Namespaces::new(default, scope),
            open: Vec::with_capacity(8),
            tag: None,
        };
        for (prefix, _) in std::iter::once(&Default::default()).chain(scope.prefixes.iter()) {
            let ns = reader.namespaces.resolve(prefix).unwrap_or_default();
            reader.tree.declarations.push(Declaration { prefix: prefix.clone(), ns });
        }
        for token in Tokenizer::from_fragment(xml, 0..xml.len()) {
            debug_assert!(token.is_ok(), "{token:?} in {xml:?}, which was validated");
            let Ok(token) = token else { break };
            reader.token(token);
        }
        reader.tree.namespaces = reader.namespaces.into_names();
        reader.tree
    }

    fn node(&self, index: u32) -> &Node<'_> {
        self.nodes.get(index as usize).unwrap_or(&NO_NODE)
    }
}

/// Builds a tree; `'k` is the scope's.
struct Reader<'k, 'a> {
    tree: Tree<'a>,
    namespaces: Namespaces<'k, 'a>,
    /// Nodes that are open and where their declarations began.
    open: Vec<(u32, usize)>,
    /// The start tag in work; how many declarations were in scope before it.
    tag: Option<(Node<'a>, usize)>,
}

impl<'k, 'a: 'k> Reader<'k, 'a> {
    fn token(&mut self, token: Token<'a>) {
        match token {
            Token::ElementStart { prefix, local, span } => self.start(prefix, local, span),
            Token::Attribute { prefix, local, value, .. } => self.attribute(prefix, local, value),
            Token::ElementEnd { end: ElementEnd::Open, span } => {
                if let Some(opened) = self.finish_tag(span.end()) {
                    self.open.push(opened);
                }
            }
            Token::ElementEnd { end: ElementEnd::Empty, span } => {
                if let Some((index, mark)) = self.finish_tag(span.end()) {
                    self.end(index, mark, span.end(), span.end());
                }
            }
            Token::ElementEnd { end: ElementEnd::Close(..), span } => {
                if let Some((index, mark)) = self.open.pop() {
                    self.end(index, mark, span.start(), span.end());
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, prefix: StrSpan<'a>, local: StrSpan<'a>, span: StrSpan<'a>) {
        let attributes = self.tree.attributes.len() as u32;
        let declarations = self.tree.declarations.len() as u32;
        let node = Node {
            prefix: prefix.as_str(),
            local: local.as_str(),
            parent: self.open.last().map_or(0, |(index, _)| *index),
            start: span.start(),
            name_end: span.end(),
            attributes: (attributes, attributes),
            declarations: (declarations, declarations),
            ..NO_NODE
        };
        self.tag = Some((node, self.namespaces.mark()));
    }

    fn attribute(&mut self, prefix: StrSpan<'a>, local: StrSpan<'a>, value: StrSpan<'a>) {
        let value = attribute_value(value.as_str());
        let declared = match (prefix.as_str(), local.as_str()) {
            ("", "xmlns") => "",
            ("xmlns", prefix) => prefix,
            (prefix, local) => return self.tree.attributes.push(Attribute { prefix, local, value }),
        };
        self.namespaces.declare(declared, value);
        let ns = self.namespaces.resolve(declared).unwrap_or_default();
        self.tree.declarations.push(Declaration { prefix: Cow::Borrowed(declared), ns });
    }

    fn finish_tag(&mut self, end: usize) -> Option<(u32, usize)> {
        let (mut node, mark) = self.tag.take()?;
        node.ns = self.namespaces.resolve(node.prefix).unwrap_or_default();
        node.inner = (end, end);
        node.attributes.1 = self.tree.attributes.len() as u32;
        node.declarations.1 = self.tree.declarations.len() as u32;
        let index = self.tree.nodes.len() as u32;
        self.tree.nodes.push(node);
        Some((index, mark))
    }

    fn end(&mut self, index: u32, mark: usize, inner_end: usize, end: usize) {
        self.namespaces.revert(mark);
        let past = self.tree.nodes.len() as u32;
        if let Some(node) = self.tree.nodes.get_mut(index as usize) {
            node.inner.1 = inner_end;
            node.end = end;
            node.past = past;
        }
    }
}

/// One element of a [`Tree`].
#[derive(Clone, Copy)]
pub struct Element<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

impl<'t> Element<'t> {
    fn node(&self) -> &'t Node<'t> {
        self.tree.node(self.index)
    }

    fn namespace(&self, place: u32) -> &'t str {
        self.tree.namespaces.get(place as usize).map_or("", |ns| ns)
    }

    fn slice(&self, range: Range<usize>) -> &'t str {
        self.tree.xml.get(range).unwrap_or_default()
    }

    /// Local name.
    pub fn name(&self) -> &'t str {
        self.node().local
    }

    /// Namespace, empty if none.
    pub fn ns(&self) -> &'t str {
        self.namespace(self.node().ns)
    }

    /// Whether it has this local name and namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name() == name && self.ns() == ns
    }

    /// Value of an attribute without prefix, unescaped and normalised; `xml:lang` by that name.
    pub fn attr(&self, name: &str) -> Option<&'t str> {
        let (prefix, local) = if name == "xml:lang" { ("xml", "lang") } else { ("", name) };
        let (start, end) = self.node().attributes;
        let attributes = self.tree.attributes.get(start as usize..end as usize)?;
        let found = attributes.iter().find(|attribute| attribute.local == local && attribute.prefix == prefix)?;
        Some(&found.value)
    }

    /// Child elements in order.
    pub fn children(&self) -> impl Iterator<Item = Element<'t>> + use<'t> {
        let tree = self.tree;
        let past = self.node().past;
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let index = (next < past).then_some(next)?;
            // Never the same node twice, whatever the tree holds.
            next = tree.node(index).past.max(index + 1);
            Some(Element { tree, index })
        })
    }

    /// First child of this name and namespace.
    pub fn child(&self, name: &str, ns: &str) -> Option<Element<'t>> {
        self.children().find(|child| child.is(name, ns))
    }

    /// The only child element, if there is exactly one.
    pub fn only_child(&self) -> Option<Element<'t>> {
        let mut children = self.children();
        let first = children.next()?;
        children.next().is_none().then_some(first)
    }

    /// Character data directly inside, unescaped, CDATA included, line ends normalised.
    pub fn text(&self) -> Cow<'t, str> {
        let (mut at, end) = self.node().inner;
        if self.node().past == self.index + 1 && !is_rewritten(self.slice(at..end)) {
            return Cow::Borrowed(self.slice(at..end));
        }
        let mut pieces = Vec::new();
        for child in self.children() {
            let child = child.node();
            pieces.push(self.slice(at..child.start));
            at = child.end;
        }
        pieces.push(self.slice(at..end));
        pieces.retain(|piece| !piece.is_empty());
        match pieces.as_slice() {
            [] => Cow::Borrowed(""),
            [piece] if !is_rewritten(piece) => Cow::Borrowed(piece),
            _ => {
                let mut text = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
                pieces.iter().for_each(|piece| push_character_data(piece, &mut text));
                Cow::Owned(text)
            }
        }
    }

    /// Where it stands in the text that the tree was read from, from `<` to behind the last `>`.
    pub fn range(&self) -> Range<usize> {
        self.node().start..self.node().end
    }

    /// The element as written.
    pub fn source(&self) -> &'t str {
        self.slice(self.node().start..self.node().end)
    }

    /// Where the element stands in the text that was read.
    pub fn span(&self) -> Range<usize> {
        self.node().start..self.node().end
    }

    /// Appends the element so that it stands by itself: as written, with the namespace declarations that it inherits added to
    /// its root. A child in namespace `inside` needs no default declaration for it.
    pub fn write_standalone(&self, inside: &str, out: &mut Vec<u8>) {
        let node = self.node();
        out.extend_from_slice(self.slice(node.start..node.name_end).as_bytes());
        self.push_inherited(inside, out);
        out.extend_from_slice(self.slice(node.name_end..node.end).as_bytes());
    }

    /// Walks outwards; the innermost declaration of a prefix counts.
    fn push_inherited(&self, inside: &str, out: &mut Vec<u8>) {
        let named = prefixes_named(self.source());
        let own = self.node().declarations;
        let mut settled: HashSet<&str> =
            self.declarations(own).iter().map(|declaration| &*declaration.prefix).collect();
        let mut index = self.index;
        loop {
            let outer = match index {
                // Those of the scope are in front of the root's own.
                0 => (0, self.tree.node(0).declarations.0),
                _ => self.tree.node(self.tree.node(index).parent).declarations,
            };
            for Declaration { prefix, ns } in self.declarations(outer) {
                let needed = prefix.is_empty() || named.contains(&**prefix);
                if needed && settled.insert(prefix) {
                    let ns = self.namespace(*ns);
                    if !prefix.is_empty() || ns != inside {
                        push_declaration(prefix, ns, out);
                    }
                }
            }
            if index == 0 {
                return;
            }
            index = self.tree.node(index).parent;
        }
    }

    fn declarations(&self, (start, end): (u32, u32)) -> &'t [Declaration<'t>] {
        self.tree.declarations.get(start as usize..end as usize).unwrap_or_default()
    }
}
