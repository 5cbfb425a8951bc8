//! XML as a tree that can be compared, read apart from the server's own reader; patterns and variables of scripts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use xmlparser::{ElementEnd, Token, Tokenizer};

use super::machine::{EXPORTER, SERVER_END_POINT};

pub const CLIENT: &str = "jabber:client";
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
pub const SASL2: &str = "urn:xmpp:sasl:2";
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
const STANZA_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Variables of a script.
pub type Variables = BTreeMap<String, String>;

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub ns: String,
    pub name: String,
    /// By local name, in braces before it the namespace if there is one; `xml:lang` by that name.
    pub attributes: BTreeMap<String, String>,
    pub content: Vec<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Element(Node),
    Text(String),
}

/// Where an element stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In a script: namespaces that are clear need not be declared, white space between elements means nothing.
    Script,
    /// In a stream from the server.
    Stream,
    /// It is a stream header from the server: declares everything itself and has no end.
    Header,
}

impl Node {
    /// Reads one element, or a stream header's tag.
    ///
    /// # Errors
    /// Why it is not one.
    pub fn parse(text: &str, source: Source) -> Result<Node, String> {
        let mut reader = Reader { source, scopes: vec![Vec::new()], open: Vec::new(), tag: None, done: None };
        if source != Source::Header {
            reader.scopes[0] = vec![(String::new(), CLIENT.to_owned()), ("stream".to_owned(), STREAMS.to_owned())];
        }
        let start = if source == Source::Header { text.find("<stream:").unwrap_or(0) } else { 0 };
        for token in Tokenizer::from_fragment(text, start..text.len()) {
            reader.token(token.map_err(|error| format!("{error} in {text}"))?)?;
        }
        let header = source != Source::Stream && reader.open.len() == 1 && reader.open[0].0.is("stream", STREAMS);
        match reader.done {
            Some(node) if reader.open.is_empty() => Ok(node),
            None if header => Ok(reader.open.remove(0).0),
            _ => Err(format!("not one whole element: {text}")),
        }
    }

    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    pub fn elements(&self) -> impl Iterator<Item = &Node> {
        self.content.iter().filter_map(|content| match content {
            Content::Element(node) => Some(node),
            Content::Text(_) => None,
        })
    }

    pub fn child(&self, name: &str) -> Option<&Node> {
        self.elements().find(|node| node.name == name)
    }

    pub fn text(&self) -> String {
        let text = |content: &Content| match content {
            Content::Text(text) => Some(text.clone()),
            Content::Element(_) => None,
        };
        self.content.iter().filter_map(text).collect()
    }

    /// Whether its children are conditions of an error, and in which namespace.
    fn condition_ns(&self) -> Option<&'static str> {
        match (self.name.as_str(), self.ns.as_str()) {
            ("error", CLIENT) => Some(STANZA_ERRORS),
            ("error", STREAMS) => Some(STREAM_ERRORS),
            ("failure", SASL | SASL2) => Some(SASL),
            _ => None,
        }
    }
}

struct Reader {
    source: Source,
    /// Prefixes and namespaces, innermost last.
    scopes: Vec<Vec<(String, String)>>,
    /// Elements that are open, with their qualified names.
    open: Vec<(Node, String)>,
    tag: Option<Tag>,
    done: Option<Node>,
}

struct Tag {
    prefix: String,
    local: String,
    attributes: Vec<(String, String, String)>,
}

impl Reader {
    fn token(&mut self, token: Token<'_>) -> Result<(), String> {
        match token {
            Token::ElementStart { prefix, local, .. } => {
                self.tag = Some(Tag { prefix: prefix.to_string(), local: local.to_string(), attributes: Vec::new() });
            }
            Token::Attribute { prefix, local, value, .. } => {
                let value = unescape(value.as_str(), true)?;
                let tag = self.tag.as_mut().ok_or("attribute outside a tag")?;
                tag.attributes.push((prefix.to_string(), local.to_string(), value));
            }
            Token::ElementEnd { end: ElementEnd::Open, .. } => self.start()?,
            Token::ElementEnd { end: ElementEnd::Empty, .. } => {
                self.start()?;
                self.end(None)?;
            }
            Token::ElementEnd { end: ElementEnd::Close(prefix, local), .. } => {
                self.end(Some(qualified(prefix.as_str(), local.as_str())))?;
            }
            Token::Text { text } => self.text(&unescape(text.as_str(), false)?)?,
            Token::Cdata { text, .. } => self.text(text.as_str())?,
            _ => return Err("markup that XMPP does not have".into()),
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), String> {
        let tag = self.tag.take().ok_or("no tag")?;
        let declared = |(prefix, local, value): &(String, String, String)| match (prefix.as_str(), local.as_str()) {
            ("", "xmlns") => Some((String::new(), value.clone())),
            ("xmlns", prefix) => Some((prefix.to_owned(), value.clone())),
            _ => None,
        };
        let scope: Vec<_> = tag.attributes.iter().filter_map(declared).collect();
        let own_default = scope.iter().any(|(prefix, _)| prefix.is_empty());
        self.scopes.push(scope);
        let mut node = Node { ns: self.resolve(&tag.prefix)?, name: tag.local.clone(), ..Node::default() };
        let implied = self.open.last().and_then(|(parent, _)| parent.condition_ns());
        if let (Source::Script, Some(implied), true, false) = (self.source, implied, tag.prefix.is_empty(), own_default)
        {
            node.ns = implied.to_owned();
        }
        for (prefix, local, value) in &tag.attributes {
            let name = match (prefix.as_str(), local.as_str()) {
                ("", "xmlns") | ("xmlns", _) => continue,
                ("", local) => local.to_owned(),
                ("xml", local) => format!("xml:{local}"),
                (prefix, local) => format!("{{{}}}{local}", self.resolve(prefix)?),
            };
            if node.attributes.insert(name.clone(), value.clone()).is_some() {
                return Err(format!("attribute {name} twice"));
            }
        }
        self.open.push((node, qualified(&tag.prefix, &tag.local)));
        Ok(())
    }

    fn end(&mut self, name: Option<String>) -> Result<(), String> {
        self.scopes.pop();
        let (mut node, opened) = self.open.pop().ok_or("an end of nothing")?;
        if name.is_some_and(|name| name != opened) {
            return Err(format!("end tag does not match <{opened}>"));
        }
        if self.source == Source::Script && node.elements().next().is_some() {
            node.content.retain(|content| !matches!(content, Content::Text(text) if text.trim().is_empty()));
        }
        match self.open.last_mut() {
            Some((parent, _)) => parent.content.push(Content::Element(node)),
            None if self.done.is_none() => self.done = Some(node),
            None => return Err("more than one element".into()),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        match self.open.last_mut() {
            None if text.trim().is_empty() => {}
            None => return Err("text beside the element".into()),
            Some((node, _)) => match node.content.last_mut() {
                Some(Content::Text(before)) => before.push_str(text),
                _ if text.is_empty() => {}
                _ => node.content.push(Content::Text(text.to_owned())),
            },
        }
        Ok(())
    }

    fn resolve(&self, prefix: &str) -> Result<String, String> {
        if prefix == "xml" {
            return Ok(XML.to_owned());
        }
        let bound = self.scopes.iter().rev().flat_map(|scope| scope.iter().rev()).find(|(known, _)| known == prefix);
        match bound {
            Some((_, ns)) => Ok(ns.clone()),
            None if prefix.is_empty() => Ok(String::new()),
            None => Err(format!("prefix {prefix} is not declared")),
        }
    }
}

fn qualified(prefix: &str, local: &str) -> String {
    if prefix.is_empty() { local.to_owned() } else { format!("{prefix}:{local}") }
}

fn unescape(text: &str, attribute: bool) -> Result<String, String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let text = if attribute { text.replace(['\t', '\n'], " ") } else { text };
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let (name, behind) = behind.split_once(';').ok_or("& without ;")?;
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let code = match (name.strip_prefix("#x"), name.strip_prefix('#')) {
                    (Some(hex), _) => u32::from_str_radix(hex, 16).ok(),
                    (None, Some(decimal)) => decimal.parse().ok(),
                    (None, None) => None,
                };
                code.and_then(char::from_u32).ok_or(format!("unknown reference &{name};"))?
            }
        });
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// What a stanza may leave unsaid in a script.
#[derive(Clone, Copy, Default)]
pub struct Own<'a> {
    /// The client's full JID, which a stanza to it may leave out.
    pub full: Option<&'a str>,
    /// Its bare JID, which a stanza from it may leave out.
    pub bare: Option<&'a str>,
}

/// Whether `came` is what the script expects; binds variables.
///
/// # Errors
/// Where they differ, and how.
pub fn compare(expected: &Node, came: &Node, own: Own<'_>, variables: &mut Variables) -> Result<(), String> {
    let path = &expected.name;
    if (expected.name.as_str(), expected.ns.as_str()) != (came.name.as_str(), came.ns.as_str()) {
        return Err(format!("expected <{path} xmlns='{}'>, came <{} xmlns='{}'>", expected.ns, came.name, came.ns));
    }
    for (name, value) in &expected.attributes {
        let came = came.attributes.get(name).ok_or(format!("{path}: there is no attribute {name}"))?;
        compare_value(value, came, variables).map_err(|error| format!("{path}: attribute {name}: {error}"))?;
    }
    for (name, value) in &came.attributes {
        let left_out = match name.as_str() {
            "to" => own.full == Some(value),
            "from" => own.bare == Some(value),
            "code" => expected.condition_ns() == Some(STANZA_ERRORS),
            _ => false,
        };
        if !left_out && !expected.attributes.contains_key(name) {
            return Err(format!("{path}: attribute {name}='{value}' was not expected"));
        }
    }
    compare_content(expected, came, variables).map_err(|error| format!("{path}/{error}"))
}

fn compare_content(expected: &Node, came: &Node, variables: &mut Variables) -> Result<(), String> {
    let text_ns = expected.condition_ns().filter(|_| expected.child("text").is_none());
    let explains = |content: &&Content| match content {
        Content::Element(node) => text_ns.is_none_or(|ns| !node.is("text", ns) && !node.is("text", &came.ns)),
        Content::Text(_) => true,
    };
    let mut rest = came.content.iter().filter(explains).peekable();
    let mut any = false;
    for content in &expected.content {
        if matches!(content, Content::Text(text) if text.trim() == "...") {
            any = true;
            continue;
        }
        while std::mem::take(&mut any) {
            let differs = |came: &Content| compare_one(content, came, &mut variables.clone()).is_err();
            any = rest.next_if(|came| differs(came)).is_some();
        }
        match rest.next() {
            Some(came) => compare_one(content, came, variables)?,
            // '*' stands for no text as well.
            None if matches!(content, Content::Text(text) if text == "*") => {}
            None => return Err(format!("{} was expected, there is nothing", told(content))),
        }
    }
    match rest.next() {
        Some(more) if !any => Err(format!("nothing more was expected, there is {}", told(more))),
        _ => Ok(()),
    }
}

fn compare_one(expected: &Content, came: &Content, variables: &mut Variables) -> Result<(), String> {
    match (expected, came) {
        (Content::Element(expected), Content::Element(came)) => compare(expected, came, Own::default(), variables),
        (Content::Text(expected), Content::Text(came)) => {
            compare_value(expected, came, variables).map_err(|error| format!("text: {error}"))
        }
        _ => Err(format!("{} was expected, there is {}", told(expected), told(came))),
    }
}

fn told(content: &Content) -> String {
    match content {
        Content::Element(node) => format!("<{} xmlns='{}'>", node.name, node.ns),
        Content::Text(text) => format!("text '{text}'"),
    }
}

/// `*` is anything; `!$x` is anything but the value of a variable; `$x` at the end binds the rest of the value if it is not bound yet; other variables stand for their values.
fn compare_value(pattern: &str, came: &str, variables: &mut Variables) -> Result<(), String> {
    if pattern == "*" {
        return Ok(());
    }
    if let Some(other) = pattern.strip_prefix('!').filter(|other| other.contains('$')) {
        let other = substitute(other, variables)?;
        return if other == came { Err(format!("'{other}' came again")) } else { Ok(()) };
    }
    if let Some((before, name)) = pattern.rsplit_once('$').filter(|(_, name)| is_name(name))
        && !variables.contains_key(name)
    {
        let before = substitute(before, variables)?;
        let bound = came.strip_prefix(before.as_str()).ok_or(format!("expected '{pattern}', came '{came}'"))?;
        variables.insert(name.to_owned(), bound.to_owned());
        return Ok(());
    }
    let expected = substitute(pattern, variables)?;
    if expected == came { Ok(()) } else { Err(format!("expected '{expected}', came '{came}'")) }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Puts the values of variables in.
///
/// # Errors
/// A variable that is not bound.
pub fn substitute(text: &str, variables: &Variables) -> Result<String, String> {
    let mut pieces = text.split('$');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        match variables.get(name) {
            Some(value) => out.push_str(value),
            None if is_name(name) => return Err(format!("${name} is not bound")),
            None => {
                out.push('$');
                out.push_str(name);
            }
        }
        out.push_str(rest);
    }
    Ok(out)
}

/// Carries out `{base64:TEXT}` (with `\0` for NUL), `{ht:…}`, `{salted:…}`, `{hex:DIGITS}` and `{N*TEXT}`; every other brace stands for itself.
pub fn expand(text: &str, variables: &Variables) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let Some((inner, behind)) = braces(rest) else {
            out.push(b'{');
            rest = &rest[1..];
            continue;
        };
        if let Some(text) = inner.strip_prefix("base64:") {
            let text = String::from_utf8_lossy(&expand(text, variables)?).replace("\\0", "\0");
            out.extend_from_slice(STANDARD.encode(text).as_bytes());
        } else if let Some(text) = inner.strip_prefix("salted:") {
            out.extend_from_slice(salted(&substitute(text, variables)?)?.as_bytes());
        } else if let Some((kind, text)) = inner.strip_prefix("ht").and_then(|rest| rest.split_once(':')) {
            out.extend_from_slice(hashed_token(kind, &substitute(text, variables)?)?.as_bytes());
        } else if let Some(digits) = inner.strip_prefix("hex:") {
            let byte = |at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
            let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
            out.extend(bytes.ok_or(format!("bad digits in {{{inner}}}"))?);
        } else if let Some((count, text)) = inner.split_once('*').and_then(|(n, text)| Some((n.parse().ok()?, text))) {
            out.extend(expand(text, variables)?.repeat(count));
        } else {
            out.push(b'{');
            rest = &rest[1..];
            continue;
        }
        rest = behind;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// `{salted:PASSWORD SALT ROUNDS}` is the `SaltedPassword` of SCRAM-SHA-256.
fn salted(text: &str) -> Result<String, String> {
    let [password, salt, rounds] = text.split(' ').collect::<Vec<_>>()[..] else {
        return Err("{salted:PASSWORD SALT ROUNDS}".into());
    };
    let salt = STANDARD.decode(salt).map_err(|error| error.to_string())?;
    let rounds = rounds.parse().map_err(|_| "no number of rounds")?;
    Ok(STANDARD.encode(super::client::Hash::Sha256.salted(password, &salt, rounds)))
}

/// `{ht:NAME TOKEN}` is a client's message in HT-SHA-256-NONE, `{ht-answer:TOKEN}` the server's; `{ht-EXPR:…}`,
/// `{ht-answer-EXPR:…}` and the same with `ENDP` bind to the channel.
fn hashed_token(kind: &str, text: &str) -> Result<String, String> {
    let (from_server, binding) = match kind.strip_prefix("-answer") {
        Some(binding) => (true, binding),
        None => (false, kind),
    };
    let binding: &[u8] = match binding {
        "" => b"",
        "-EXPR" => &EXPORTER,
        "-ENDP" => &SERVER_END_POINT,
        _ => return Err(format!("no binding {binding}")),
    };
    let (name, token) = match from_server {
        true => (None, text),
        false => text.split_once(' ').map(|(name, token)| (Some(name), token)).ok_or("{ht:NAME TOKEN}")?,
    };
    let role: &[u8] = if from_server { b"Responder" } else { b"Initiator" };
    let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("any key will do");
    let hash = mac.chain_update(role).chain_update(binding).finalize().into_bytes();
    let mut message = name.map(|name| format!("{name}\0")).unwrap_or_default().into_bytes();
    message.extend_from_slice(&hash);
    Ok(STANDARD.encode(message))
}

/// What stands between the brace that `text` begins with and its partner, and what follows.
fn braces(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[1..at], &text[at + 1..]));
        }
    }
    None
}
