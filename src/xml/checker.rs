//! The slow, obvious judge of a whole element: xmlparser, and the rules that xmlparser lets pass.
//!
//! It decides about what the tokenizer leaves aside (prefixes, names beyond ASCII), about stream headers and about text from
//! the store. In tests it is the second opinion with which the tokenizer must agree on every input.
//!
//! xmlparser sees to characters, quotes and names. Left to do are balance, unique attributes, declared prefixes, references,
//! and what XMPP forbids (RFC 6120 section 11.1).

use std::borrow::Cow;
use std::collections::HashMap;

use xmlparser::{ElementEnd, StrSpan, Token, Tokenizer};

use super::ns;
use super::stream::{XmlError, XmlLimits};
use super::text::{attribute_value, referent};
use super::tokenizer::{REFERENCE_BYTES_MAX, declaration_error};

/// May be bound to nothing (Namespaces in XML 1.0 section 3).
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// What a stream header declares for the elements in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// Qualified name of the stream's root.
    pub root: Cow<'static, str>,
    /// Default namespace, empty if none.
    pub default: Cow<'static, str>,
    /// Prefixes and what they are bound to, each prefix once.
    pub prefixes: Cow<'static, [(Cow<'static, str>, Cow<'static, str>)]>,
}

/// The scope of almost every stream, for which nothing need be kept.
pub(super) static USUAL: Scope = Scope {
    root: Cow::Borrowed("stream:stream"),
    default: Cow::Borrowed(ns::CLIENT),
    prefixes: Cow::Borrowed(&[(Cow::Borrowed("stream"), Cow::Borrowed(ns::STREAMS))]),
};

/// No prefixes; the default namespace comes from elsewhere.
pub(super) static BARE: Scope =
    Scope { root: Cow::Borrowed(""), default: Cow::Borrowed(""), prefixes: Cow::Borrowed(&[]) };

/// Namespaces in scope while elements are read in order; a lookup costs the same however many are declared.
pub(super) struct Namespaces<'k, 'a> {
    /// Every namespace met, never shortened: [`Namespaces::resolve`] answers with places in it.
    names: Vec<Cow<'a, str>>,
    bound: Vec<Binding<'k>>,
    latest: HashMap<&'k str, u32>,
    default: u32,
}

struct Binding<'k> {
    prefix: &'k str,
    name: u32,
    shadowed: u32,
}

/// No binding.
const UNBOUND: u32 = u32::MAX;

impl<'k, 'a: 'k> Namespaces<'k, 'a> {
    /// Starts with the prefixes of `scope` and with `default` as default namespace.
    pub(super) fn new(default: Cow<'a, str>, scope: &'k Scope) -> Namespaces<'k, 'a> {
        let mut namespaces = Namespaces {
            names: vec![Cow::Borrowed(""), Cow::Borrowed(ns::XML)],
            bound: Vec::new(),
            latest: HashMap::new(),
            default: UNBOUND,
        };
        namespaces.declare("", default);
        for (prefix, name) in scope.prefixes.iter() {
            namespaces.declare(prefix, name.clone());
        }
        namespaces
    }

    /// Where to come back to when the element that declares next has ended.
    pub(super) fn mark(&self) -> usize {
        self.bound.len()
    }

    /// Binds a prefix, or the default namespace if it is empty.
    pub(super) fn declare(&mut self, prefix: &'k str, name: Cow<'a, str>) {
        let index = self.bound.len() as u32;
        let shadowed = if prefix.is_empty() {
            std::mem::replace(&mut self.default, index)
        } else {
            self.latest.insert(prefix, index).unwrap_or(UNBOUND)
        };
        self.bound.push(Binding { prefix, name: self.names.len() as u32, shadowed });
        self.names.push(name);
    }

    /// Forgets what was declared since `mark`.
    pub(super) fn revert(&mut self, mark: usize) {
        while self.bound.len() > mark {
            let Some(binding) = self.bound.pop() else { return };
            if binding.prefix.is_empty() {
                self.default = binding.shadowed;
            } else if binding.shadowed == UNBOUND {
                self.latest.remove(binding.prefix);
            } else {
                self.latest.insert(binding.prefix, binding.shadowed);
            }
        }
    }

    /// The place of the namespace that an element's prefix is bound to.
    pub(super) fn resolve(&self, prefix: &str) -> Option<u32> {
        let index = match prefix {
            "" => self.default,
            "xml" => return Some(1),
            _ => *self.latest.get(prefix)?,
        };
        self.bound.get(index as usize).map(|binding| binding.name)
    }

    /// A namespace by its place.
    pub(super) fn name(&self, place: u32) -> Cow<'a, str> {
        self.names.get(place as usize).cloned().unwrap_or_default()
    }

    /// All namespaces by their places.
    pub(super) fn into_names(self) -> Vec<Cow<'a, str>> {
        self.names
    }
}

/// What the checker found out about an element.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    /// The root's local name.
    pub local: &'a str,
    /// The root's namespace.
    pub ns: Cow<'a, str>,
    /// The first child's local name and namespace.
    pub child: Option<(&'a str, Cow<'a, str>)>,
    /// The root, or in a stanza a direct child of it, has a prefix for the content namespace.
    pub content_prefix: bool,
}

/// Judges `xml`, which must be one element and nothing else, standing in `scope` with the default namespace `default`.
pub(super) fn check<'a>(
    xml: &'a str,
    default: Cow<'a, str>,
    scope: &Scope,
    limits: &XmlLimits,
) -> Result<Checked<'a>, XmlError> {
    if xml.len() > limits.stanza_bytes_max {
        return Err(XmlError::TooBig("stanza too big"));
    }
    let mut checker = Checker::new(default, scope, limits);
    let mut tokens = Tokenizer::from_fragment(xml, 0..xml.len());
    let mut at = 0;
    while let Some(token) = tokens.next() {
        let token = token.map_err(|_| refusal(xml.get(at..).unwrap_or_default()))?;
        at = tokens.stream().pos();
        checker.token(token)?;
    }
    match checker.root {
        Some(root) if checker.ended => Ok(root),
        _ => Err(XmlError::NotWellFormed("element without an end")),
    }
}

/// A stream header's tag.
pub(super) struct Root<'a> {
    /// Qualified name.
    pub name: &'a str,
    /// Local name.
    pub local: &'a str,
    /// Its namespace.
    pub ns: Cow<'a, str>,
    /// Default namespace that it declares, empty if none.
    pub default: Cow<'a, str>,
    /// Prefixes that it declares.
    pub prefixes: Vec<(&'a str, Cow<'a, str>)>,
    /// Its other attributes: prefix, local name, value.
    pub attributes: Vec<(&'a str, &'a str, Cow<'a, str>)>,
}

/// Judges a start tag that stands in no scope at all.
pub(super) fn check_root<'a>(xml: &'a str, limits: &XmlLimits) -> Result<Root<'a>, XmlError> {
    let mut checker = Checker::new(Cow::Borrowed(""), &BARE, limits);
    for token in Tokenizer::from_fragment(xml, 0..xml.len()) {
        checker.token(token.map_err(|_| refusal(xml))?)?;
    }
    let ([open], Some(found)) = (checker.open.as_slice(), checker.root) else {
        return Err(XmlError::BadFormat("a root that ends at once"));
    };
    let mut root = Root {
        name: open.name,
        local: found.local,
        ns: found.ns,
        default: Cow::Borrowed(""),
        prefixes: Vec::new(),
        attributes: Vec::new(),
    };
    for attribute in &checker.attributes {
        let value = attribute_value(attribute.value);
        match attribute.declares() {
            Some("") => root.default = value,
            Some(prefix) => root.prefixes.push((prefix, value)),
            None => root.attributes.push((attribute.prefix, attribute.local, value)),
        }
    }
    Ok(root)
}

/// The prefixes that the root of `xml`, a validated element, declares itself.
pub(super) fn declared_prefixes(xml: &str) -> Vec<&str> {
    let tag = Tokenizer::from_fragment(xml, 0..xml.len()).map_while(Result::ok);
    tag.take_while(|token| !matches!(token, Token::ElementEnd { .. }))
        .filter_map(|token| match token {
            Token::Attribute { prefix, local, .. } if prefix.as_str() == "xmlns" => Some(local.as_str()),
            _ => None,
        })
        .collect()
}

/// Why xmlparser may have stumbled over this.
fn refusal(source: &str) -> XmlError {
    if source.starts_with("<!") && !source.starts_with("<![CDATA[") {
        declaration_error(source.as_bytes())
    } else if source.starts_with("<?") {
        XmlError::Restricted("processing instruction")
    } else {
        XmlError::NotWellFormed("not XML")
    }
}

/// An attribute as written.
struct Attribute<'a> {
    prefix: &'a str,
    local: &'a str,
    value: &'a str,
}

impl<'a> Attribute<'a> {
    /// The prefix that this declares, empty for the default namespace.
    fn declares(&self) -> Option<&'a str> {
        match (self.prefix, self.local) {
            ("", "xmlns") => Some(""),
            ("xmlns", prefix) => Some(prefix),
            _ => None,
        }
    }
}

struct Open<'a> {
    name: &'a str,
    mark: usize,
}

struct Checker<'k, 'a> {
    limits: &'k XmlLimits,
    namespaces: Namespaces<'k, 'a>,
    open: Vec<Open<'a>>,
    /// Of the start tag in work: qualified name, prefix, local name.
    tag: (&'a str, &'a str, &'a str),
    attributes: Vec<Attribute<'a>>,
    root: Option<Checked<'a>>,
    ended: bool,
}

impl<'k, 'a: 'k> Checker<'k, 'a> {
    fn new(default: Cow<'a, str>, scope: &'k Scope, limits: &'k XmlLimits) -> Checker<'k, 'a> {
        Checker {
            limits,
            namespaces: Namespaces::new(default, scope),
            open: Vec::new(),
            tag: ("", "", ""),
            attributes: Vec::new(),
            root: None,
            ended: false,
        }
    }

    fn token(&mut self, token: Token<'a>) -> Result<(), XmlError> {
        if self.ended || (self.root.is_none() && matches!(token, Token::Text { .. } | Token::Cdata { .. })) {
            return Err(XmlError::NotWellFormed("something beside the one element"));
        }
        match token {
            Token::ElementStart { prefix, local, span } => self.start(prefix, local, &span.as_str()[1..]),
            Token::Attribute { prefix, local, value, span } => self.attribute(prefix, local, value, span.as_str()),
            Token::ElementEnd { end: ElementEnd::Open, .. } => self.finish_tag(false),
            Token::ElementEnd { end: ElementEnd::Empty, .. } => self.finish_tag(true),
            Token::ElementEnd { end: ElementEnd::Close(..), span } => self.end(span.as_str()),
            Token::Text { text } => references(text.as_str()),
            Token::Cdata { .. } => Ok(()),
            Token::Comment { .. } => Err(XmlError::Restricted("comment")),
            Token::ProcessingInstruction { .. } | Token::Declaration { .. } => {
                Err(XmlError::Restricted("processing instruction"))
            }
            Token::DtdStart { .. }
            | Token::EmptyDtd { .. }
            | Token::EntityDeclaration { .. }
            | Token::DtdEnd { .. } => Err(XmlError::Restricted("document type declaration")),
        }
    }

    fn start(&mut self, prefix: StrSpan<'a>, local: StrSpan<'a>, name: &'a str) -> Result<(), XmlError> {
        self.name(name)?;
        if self.open.len() >= self.limits.depth_max {
            return Err(XmlError::TooBig("elements nested too deeply"));
        }
        self.tag = (name, prefix.as_str(), local.as_str());
        self.attributes.clear();
        Ok(())
    }

    /// xmlparser takes `:a` for a name without a prefix.
    fn name(&self, name: &str) -> Result<(), XmlError> {
        if name.starts_with(':') {
            return Err(XmlError::NotWellFormed("name that begins with a colon"));
        }
        if name.len() > self.limits.name_bytes_max {
            return Err(XmlError::TooBig("name too long"));
        }
        Ok(())
    }

    fn attribute(
        &mut self,
        prefix: StrSpan<'a>,
        local: StrSpan<'a>,
        value: StrSpan<'a>,
        source: &'a str,
    ) -> Result<(), XmlError> {
        if self.attributes.len() >= self.limits.attributes_max {
            return Err(XmlError::TooBig("too many attributes"));
        }
        let (prefix, local, value) = (prefix.as_str(), local.as_str(), value.as_str());
        let colon = usize::from(!prefix.is_empty());
        self.name(source.get(..prefix.len() + colon + local.len()).unwrap_or_default())?;
        references(value)?;
        self.attributes.push(Attribute { prefix, local, value });
        Ok(())
    }

    fn finish_tag(&mut self, empty: bool) -> Result<(), XmlError> {
        let (name, prefix, local) = self.tag;
        let mark = self.namespaces.mark();
        for attribute in &self.attributes {
            if let Some(prefix) = attribute.declares() {
                let name = attribute_value(attribute.value);
                declarable(prefix, &name)?;
                self.namespaces.declare(prefix, name);
            }
        }
        self.unique_attributes()?;
        let ns = self.namespaces.resolve(prefix).ok_or(UNDECLARED)?;
        let ns = self.namespaces.name(ns);
        self.note(prefix, local, ns);
        if empty {
            self.namespaces.revert(mark);
            self.ended = self.open.is_empty();
        } else {
            self.open.push(Open { name, mark });
        }
        Ok(())
    }

    /// By namespace and local name (Namespaces in XML 1.0 section 6.3); at most as many as the limit says, so pairs will do.
    fn unique_attributes(&self) -> Result<(), XmlError> {
        let mut seen: Vec<(&str, &str)> = Vec::with_capacity(self.attributes.len());
        for attribute in &self.attributes {
            let ns = match attribute.prefix {
                "" => "",
                "xmlns" => XMLNS,
                prefix => {
                    let place = self.namespaces.resolve(prefix).ok_or(UNDECLARED)?;
                    self.namespaces.names.get(place as usize).map_or("", |name| name)
                }
            };
            if seen.contains(&(ns, attribute.local)) {
                return Err(XmlError::NotWellFormed("the same attribute twice"));
            }
            seen.push((ns, attribute.local));
        }
        Ok(())
    }

    fn note(&mut self, prefix: &str, local: &'a str, ns: Cow<'a, str>) {
        let prefixed = !prefix.is_empty() && ns == ns::CLIENT;
        match &mut self.root {
            None => self.root = Some(Checked { local, ns, child: None, content_prefix: prefixed }),
            Some(root) if self.open.len() == 1 => {
                root.content_prefix |= prefixed && root.ns == ns::CLIENT;
                root.child.get_or_insert((local, ns));
            }
            Some(_) => {}
        }
    }

    fn end(&mut self, source: &str) -> Result<(), XmlError> {
        let name = source.strip_prefix("</").and_then(|rest| rest.strip_suffix('>')).unwrap_or_default();
        let matching = self.open.pop().filter(|open| open.name == name.trim_end_matches([' ', '\t', '\r', '\n']));
        let open = matching.ok_or(XmlError::NotWellFormed("end tag does not match its start tag"))?;
        self.namespaces.revert(open.mark);
        self.ended = self.open.is_empty();
        Ok(())
    }
}

const UNDECLARED: XmlError = XmlError::NotWellFormed("prefix that is not declared");

/// Whether a declaration keeps Namespaces in XML 1.0 section 3.
fn declarable(prefix: &str, name: &str) -> Result<(), XmlError> {
    let legal = match prefix {
        "xml" => name == ns::XML,
        "xmlns" => false,
        "" => name != ns::XML && name != XMLNS,
        _ => name != ns::XML && name != XMLNS && !name.is_empty(),
    };
    if legal { Ok(()) } else { Err(XmlError::NotWellFormed("namespace declaration that is not allowed")) }
}

/// Whether every `&` begins a reference that is allowed.
fn references(source: &str) -> Result<(), XmlError> {
    for (at, _) in source.match_indices('&') {
        let rest = source.get(at + 1..).unwrap_or_default();
        let (reference, _) = rest.split_once(';').ok_or(XmlError::NotWellFormed("& that begins no reference"))?;
        if reference.len() + 2 > REFERENCE_BYTES_MAX {
            return Err(XmlError::TooBig("reference too long"));
        }
        if referent(reference).is_none() {
            let entity = reference.starts_with(|first: char| first.is_alphabetic() || first == '_' || first == ':');
            return Err(match entity {
                true => XmlError::Restricted("entity other than the five"),
                false => XmlError::NotWellFormed("bad reference"),
            });
        }
    }
    Ok(())
}
