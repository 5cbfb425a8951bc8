//! Views over a framed stanza for handlers.

use std::borrow::Cow;

use super::stream::{Frame, XmlError};

/// A stanza read once into an arena of nodes that borrow from its text.
pub struct Tree<'a> {
    _xml: &'a str,
}

impl<'a> Tree<'a> {
    /// Reads a validated frame; namespaces that only its stream header declares are resolved.
    pub fn of(_frame: &Frame<'a>) -> Tree<'a> {
        todo!()
    }

    /// Reads one element from text that need not be trusted, e.g. from the store. The default namespace is `default_ns` where
    /// the text declares none.
    ///
    /// # Errors
    /// The first rule of [`XmlError`] that the text breaks.
    pub fn parse(_xml: &'a str, _default_ns: &'a str) -> Result<Tree<'a>, XmlError> {
        todo!()
    }

    /// The element itself.
    pub fn root(&self) -> Element<'_> {
        todo!()
    }
}

/// One element of a [`Tree`].
#[derive(Clone, Copy)]
pub struct Element<'t> {
    _tree: &'t Tree<'t>,
    _index: u32,
}

impl<'t> Element<'t> {
    /// Local name.
    pub fn name(&self) -> &'t str {
        todo!()
    }
    /// Namespace, empty if none.
    pub fn ns(&self) -> &'t str {
        todo!()
    }
    /// Whether it has this local name and namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name() == name && self.ns() == ns
    }
    /// Value of an attribute without prefix, unescaped and normalised; `xml:lang` by that name.
    pub fn attr(&self, _name: &str) -> Option<&'t str> {
        todo!()
    }
    /// Child elements in order.
    pub fn children(&self) -> impl Iterator<Item = Element<'t>> + use<'t> {
        std::iter::empty()
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
        todo!()
    }
    /// Appends the element so that it stands by itself: as written, with the namespace declarations that it inherits added to
    /// its root. A child in namespace `inside` needs no default declaration for it.
    pub fn write_standalone(&self, _inside: &str, _out: &mut Vec<u8>) {
        todo!()
    }
}
