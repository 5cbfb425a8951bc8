//! The incremental tokenizer: finds the end of one first-level element and proves on the way that it is well-formed.
//!
//! One pass over the bytes checks that names are balanced, attributes quoted and unique, references and characters legal, and
//! that nothing restricted (RFC 6120 section 11.1) occurs; it notes the envelope as it goes. It may be stopped at any byte and
//! looks at none twice, but for a name or a reference that was cut, and those are short by limit.
//!
//! What is rare and subtle is not decided here. A prefix other than `xml:lang`'s, a byte of 0x80 or above in a name and a
//! reserved namespace only set `Scanner::rare`; the caller then has the whole element judged by the checker. Encoding, and
//! with it U+FFFE and U+FFFF, are the caller's too: they are cheaper to check on the whole element.

use super::bytes::{
    self, begins_name, is_character, is_in_name, is_odd_in_name, is_white_space, skip_text, skip_value,
    skip_white_space, small_letters, word,
};
use super::stream::{XmlError, XmlLimits};

/// A reference, from `&` to `;`, in bytes. XML allows any number of leading zeros; nobody sends them.
pub(super) const REFERENCE_BYTES_MAX: usize = 32;

/// Bytes `start..end` of the element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Span { start: start as u32, end: end as u32 }
    }

    pub(super) fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// An attribute of the root or nothing, which is all zeros.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attribute {
    /// Where the white space before its name begins: what to cut from.
    pub start: u32,
    /// The value between its quotes.
    pub value: Span,
}

/// The attributes that the envelope is made of; the number is the place in [`Scanner::root`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Known {
    Other = 0,
    To,
    From,
    Id,
    Type,
    Lang,
    Xmlns,
}

/// Where in the element the scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In character data.
    Text,
    /// At a `<`.
    Markup,
    /// In a CDATA section, `<![CDATA[` passed.
    Cdata,
    /// In a start tag, after a name or a value; white space may have begun at `mark`.
    Tag,
    /// In a start tag, after an attribute's name.
    Equals,
    /// In a start tag, after `=`.
    Quote,
    /// In an attribute's value.
    Value,
    /// In an end tag, after its name.
    EndTag,
}

/// Why a step of the scan does not lead to another.
enum Stop {
    /// The bytes end; go on in this state at the position left.
    Cut(State),
    /// Go on in this state.
    Special(State),
    /// The element has ended before the position left.
    Done,
    Refused(XmlError),
}

impl From<XmlError> for Stop {
    fn from(error: XmlError) -> Stop {
        Stop::Refused(error)
    }
}

const UNMATCHED: XmlError = XmlError::NotWellFormed("end tag does not match its start tag");
const CONTROL: XmlError = XmlError::NotWellFormed("character that XML does not allow");

/// A stack whose first `N` need no heap.
#[derive(Debug)]
struct Stack<T, const N: usize> {
    len: usize,
    inline: [T; N],
    spill: Vec<T>,
}

impl<T: Copy, const N: usize> Stack<T, N> {
    const fn new(nothing: T) -> Stack<T, N> {
        Stack { len: 0, inline: [nothing; N], spill: Vec::new() }
    }

    #[inline(always)]
    fn push(&mut self, item: T) {
        match self.inline.get_mut(self.len) {
            Some(place) => *place = item,
            None => self.spill(item),
        }
        self.len += 1;
    }

    #[cold]
    fn spill(&mut self, item: T) {
        self.spill.push(item);
    }

    #[inline(always)]
    fn pop(&mut self) {
        if self.len > N {
            self.spill.pop();
        }
        self.len = self.len.saturating_sub(1);
    }

    #[inline(always)]
    fn last(&self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        match self.inline.get(last) {
            Some(item) => Some(*item),
            None => self.spill.last().copied(),
        }
    }

    #[inline(always)]
    fn any(&self, test: impl Fn(&T) -> bool) -> bool {
        for item in self.inline.get(..self.len).unwrap_or(&self.inline) {
            if test(item) {
                return true;
            }
        }
        self.spill.iter().any(test)
    }

    #[inline(always)]
    fn clear(&mut self) {
        if self.len > N {
            self.spill.clear();
        }
        self.len = 0;
    }
}

/// The scan of one element, which begins with `<` and the first byte of a name.
#[derive(Debug)]
pub(super) struct Scanner {
    at: usize,
    state: State,
    /// Of the start tag in work: the element's name.
    tag: Span,
    /// Of the start tag in work: names of its attributes.
    attributes: Stack<Name, 8>,
    /// Of the start tag in work: where the white space before the next attribute began.
    mark: usize,
    /// Of the attribute in work.
    known: Known,
    quote: u8,
    value: usize,
    /// The value in work holds a reference or white space to be normalised.
    value_rewritten: bool,
    /// Names of the elements that are open.
    open: Stack<Span, 16>,
    /// Its highest bits tell whether a byte beyond ASCII may be there.
    seen: u64,
    /// The element needs the checker.
    pub rare: bool,
    /// Character data other than white space stands directly under the root.
    pub text_between: bool,
    /// Direct children of the root.
    pub children: usize,
    /// The root's name.
    pub name: Span,
    /// The root's attributes, by [`Known`].
    pub root: [Attribute; 8],
    /// The first child's name.
    pub child: Span,
    /// The value of the first child's `xmlns`.
    pub child_xmlns: Option<Span>,
}

impl Scanner {
    pub(super) fn new() -> Scanner {
        Scanner {
            at: 0,
            state: State::Markup,
            tag: Span::default(),
            attributes: Stack::new(Name { span: Span { start: 0, end: 0 }, key: 0, odd: false }),
            mark: 0,
            known: Known::Other,
            quote: 0,
            value: 0,
            value_rewritten: false,
            open: Stack::new(Span { start: 0, end: 0 }),
            seen: 0,
            rare: false,
            text_between: false,
            children: 0,
            name: Span::default(),
            root: [Attribute::default(); 8],
            child: Span::default(),
            child_xmlns: None,
        }
    }

    /// An attribute of the root, if it has it.
    pub(super) fn root_attribute(&self, known: Known) -> Option<Attribute> {
        self.root.get(known as usize).copied().filter(|attribute| attribute.value.start > 0)
    }

    /// Goes on with the element at the beginning of `bytes`, which hold what was offered before and perhaps more; at most
    /// `u32::MAX` of them. The length of the element once its end is reached.
    pub(super) fn run(&mut self, bytes: &[u8], limits: &XmlLimits) -> Result<Option<usize>, XmlError> {
        let mut at = self.at;
        let mut state = self.state;
        loop {
            let step = match state {
                State::Markup => self.plain(bytes, &mut at, limits),
                State::Text => self.text(bytes, &mut at),
                State::Tag => self.attribute(bytes, &mut at, limits),
                State::Value => self.value(bytes, &mut at),
                State::Equals => after_name(bytes, &mut at),
                State::Quote => self.quote(bytes, &mut at),
                State::EndTag => self.end_tag(bytes, &mut at),
                State::Cdata => match self.cdata(bytes, at) {
                    Ok((next, behind)) => {
                        at = behind;
                        if next == State::Cdata { Err(Stop::Cut(next)) } else { Ok(next) }
                    }
                    Err(stop) => Err(stop),
                },
            };
            match step {
                Ok(next) => state = next,
                Err(Stop::Cut(state)) => {
                    self.at = at;
                    self.state = state;
                    return Ok(None);
                }
                Err(Stop::Special(next)) => state = next,
                Err(Stop::Done) => return Ok(Some(at)),
                Err(Stop::Refused(error)) => return Err(error),
            }
        }
    }

    /// Whether all of what was scanned is ASCII; it may say no too often.
    pub(super) fn is_ascii(&self) -> bool {
        !self.rare && bytes::is_ascii(self.seen)
    }

    /// The way that nearly every stanza takes: whole tags, plainly written, and the text between them. Stops before whatever
    /// is special, which is then another state's, and where the bytes end.
    fn plain(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        loop {
            match self.plain_markup(bytes, at, limits)? {
                State::Tag => {
                    while bytes.get(*at) == Some(&b' ') {
                        if !self.plain_attribute(bytes, at, limits)? {
                            return Ok(State::Value);
                        }
                    }
                    match bytes.get(*at..).unwrap_or_default() {
                        [b'>', ..] => {
                            *at += 1;
                            self.open.push(self.tag);
                        }
                        [b'/', b'>', ..] if self.open.len > 0 => *at += 2,
                        _ => return Ok(State::Tag),
                    }
                }
                State::Text => {}
                other => return Ok(other),
            }
            if bytes.get(*at) == Some(&b'<') {
                continue;
            }
            if self.open.len == 1 {
                return Ok(State::Text);
            }
            *at = skip_text(bytes, *at, &mut self.seen);
            if bytes.get(*at) != Some(&b'<') {
                return Ok(State::Text);
            }
        }
    }

    /// An end tag or the name of a start tag.
    #[inline(always)]
    fn plain_markup(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        if bytes.get(*at + 1) == Some(&b'/') {
            let name = self.open.last().unwrap_or_default();
            let end = *at + 2 + name.len();
            if bytes.get(end) == Some(&b'>') && equal_names(bytes, *at + 2, name) {
                *at = end + 1;
                self.open.pop();
                return if self.open.len == 0 { Err(Stop::Done) } else { Ok(State::Text) };
            }
        } else if let Some(name) = plain_name(bytes, *at + 1, limits)
            && self.open.len < limits.depth_max
        {
            self.start(name, at);
            return Ok(State::Tag);
        }
        self.markup(bytes, at, limits)
    }

    /// A space and an attribute; if the end of its value is not reached, the value is in work.
    #[inline(always)]
    fn plain_attribute(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<bool, Stop> {
        let Some(name) = plain_name(bytes, *at + 1, limits) else { return Err(Stop::Special(State::Tag)) };
        let end = name.span.end as usize;
        let (Some(b'='), Some(quote @ (b'\'' | b'"'))) = (bytes.get(end), bytes.get(end + 1)) else {
            return Err(Stop::Special(State::Tag));
        };
        self.attribute_name(bytes, name, limits)?;
        self.quote = *quote;
        self.value = end + 2;
        *at = skip_value(bytes, self.value, *quote, &mut self.seen);
        if bytes.get(*at) != Some(quote) {
            return Ok(false);
        }
        self.end_value(bytes, at);
        Ok(true)
    }

    fn text(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        if bytes.get(*at) == Some(&b'<') {
            return Ok(State::Markup);
        }
        if self.open.len == 1 {
            *at = skip_white_space(bytes, *at);
            self.text_between |= bytes.get(*at).is_some_and(|byte| *byte != b'<');
        }
        loop {
            *at = skip_text(bytes, *at, &mut self.seen);
            match bytes.get(*at) {
                Some(b'<') => return Ok(State::Markup),
                Some(special) => *at = text_special(bytes, *at, *special)?,
                None => return Err(Stop::Cut(State::Text)),
            }
        }
    }

    fn markup(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        let Some(byte) = bytes.get(*at + 1) else { return Err(Stop::Cut(State::Markup)) };
        if *byte == b'/' {
            self.end_name(bytes, at)
        } else if begins_name(*byte) {
            self.start_name(bytes, at, limits)
        } else {
            let (state, behind) = self.declaration(bytes, *at)?;
            *at = behind;
            Ok(state)
        }
    }

    fn start_name(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        let name = name(bytes, *at + 1, limits, State::Markup)?;
        if self.open.len >= limits.depth_max {
            return Err(XmlError::TooBig("elements nested too deeply").into());
        }
        self.start(name, at);
        Ok(State::Tag)
    }

    /// Begins a start tag, whose name is passed.
    #[inline(always)]
    fn start(&mut self, name: Name, at: &mut usize) {
        self.rare |= name.odd;
        self.tag = name.span;
        match self.open.len {
            0 => self.name = name.span,
            1 => {
                if self.children == 0 {
                    self.child = name.span;
                }
                self.children += 1;
            }
            _ => {}
        }
        self.attributes.clear();
        *at = name.span.end as usize;
        self.mark = *at;
    }

    /// From behind a name or a value to the start of the next value, or to the end of the tag.
    fn attribute(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        if bytes.get(*at) == Some(&b' ') {
            *at += 1;
        }
        let Some(byte) = bytes.get(*at) else { return Err(Stop::Cut(State::Tag)) };
        if !begins_name(*byte) {
            return self.tag_special(bytes, at);
        }
        if *at == self.mark {
            return Err(XmlError::NotWellFormed("no white space before an attribute").into());
        }
        let name = name(bytes, *at, limits, State::Tag)?;
        self.attribute_name(bytes, name, limits)?;
        *at = name.span.end as usize;
        // Almost always the value follows at once.
        if let Some([b'=', quote @ (b'\'' | b'"')]) = bytes.get(*at..*at + 2) {
            *at += 2;
            self.quote = *quote;
            self.value = *at;
            return Ok(State::Value);
        }
        Ok(State::Equals)
    }

    /// Whatever is not an attribute's name: white space, the end of the tag, or wrong.
    fn tag_special(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        *at = skip_white_space(bytes, *at);
        match bytes.get(*at..).unwrap_or_default() {
            [b'>', ..] => {
                *at += 1;
                self.open.push(self.tag);
                Ok(State::Text)
            }
            [b'/', b'>', ..] => {
                *at += 2;
                if self.open.len == 0 { Err(Stop::Done) } else { Ok(State::Text) }
            }
            [] | [b'/'] => Err(Stop::Cut(State::Tag)),
            [b'/', ..] => Err(XmlError::NotWellFormed("/ in a start tag").into()),
            [first, ..] if begins_name(*first) => Ok(State::Tag),
            _ => Err(XmlError::NotWellFormed("name expected").into()),
        }
    }

    #[inline(always)]
    fn attribute_name(&mut self, bytes: &[u8], name: Name, limits: &XmlLimits) -> Result<(), XmlError> {
        if self.attributes.len >= limits.attributes_max {
            return Err(XmlError::TooBig("too many attributes"));
        }
        // Equal keys need not be equal names, but nearly always are.
        if self.attributes.any(|other| other.key == name.key && other.span.of(bytes) == name.span.of(bytes)) {
            return Err(XmlError::NotWellFormed("the same attribute twice"));
        }
        self.attributes.push(name);
        self.value_rewritten = false;
        self.known = known(name);
        self.rare |= name.odd && self.known != Known::Lang;
        Ok(())
    }

    fn quote(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        *at = skip_white_space(bytes, *at);
        match bytes.get(*at) {
            Some(quote @ (b'\'' | b'"')) => {
                *at += 1;
                self.quote = *quote;
                self.value = *at;
                Ok(State::Value)
            }
            Some(_) => Err(XmlError::NotWellFormed("attribute value without quotes").into()),
            None => Err(Stop::Cut(State::Quote)),
        }
    }

    fn value(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        loop {
            *at = skip_value(bytes, *at, self.quote, &mut self.seen);
            match bytes.get(*at) {
                Some(byte) if *byte == self.quote => break,
                Some(special) => {
                    *at = value_special(bytes, *at, *special)?;
                    self.value_rewritten = true;
                }
                None => return Err(Stop::Cut(State::Value)),
            }
        }
        self.end_value(bytes, at);
        Ok(State::Tag)
    }

    /// Notes a value, at whose closing quote `at` stands.
    #[inline(always)]
    fn end_value(&mut self, bytes: &[u8], at: &mut usize) {
        let value = Span::new(self.value, *at);
        if self.open.len == 0
            && let Some(place) = self.root.get_mut(self.known as usize)
        {
            *place = Attribute { start: self.mark as u32, value };
        }
        if self.known == Known::Xmlns {
            // Two names of the W3C may not be the default namespace.
            self.rare |= self.value_rewritten || value.of(bytes).starts_with(b"http://www.w3.org/");
            if self.open.len == 1 && self.children == 1 {
                self.child_xmlns = Some(value);
            }
        }
        *at += 1;
        self.mark = *at;
    }

    fn end_name(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        let span = self.open.last().unwrap_or_default();
        let start = *at + 2;
        let end = start + span.len();
        let same = match bytes.get(start..end) {
            Some(_) => equal_names(bytes, start, span),
            None if span.of(bytes).starts_with(bytes.get(start..).unwrap_or_default()) => {
                return Err(Stop::Cut(State::Markup));
            }
            None => false,
        };
        if !same {
            return Err(UNMATCHED.into());
        }
        *at = end;
        self.end_tag(bytes, at)
    }

    fn end_tag(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        if bytes.get(*at) != Some(&b'>') {
            *at = skip_white_space(bytes, *at);
            match bytes.get(*at) {
                Some(b'>') => {}
                Some(_) => return Err(UNMATCHED.into()),
                None => return Err(Stop::Cut(State::EndTag)),
            }
        }
        *at += 1;
        self.open.pop();
        if self.open.len == 0 { Err(Stop::Done) } else { Ok(State::Text) }
    }

    /// What begins with `<` and neither a name nor `/`: the state and position behind it.
    #[cold]
    fn declaration(&mut self, bytes: &[u8], at: usize) -> Result<(State, usize), Stop> {
        const CDATA: &[u8] = b"<![CDATA[";
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.starts_with(CDATA) {
            self.text_between |= self.open.len == 1;
            return Ok((State::Cdata, at + CDATA.len()));
        }
        if CDATA.starts_with(rest) {
            return Err(Stop::Cut(State::Markup));
        }
        Err(match rest.get(1) {
            Some(b'!') => declaration_error(rest),
            Some(b'?') => XmlError::Restricted("processing instruction"),
            _ => XmlError::NotWellFormed("name expected"),
        }
        .into())
    }

    /// The position behind a CDATA section, or the end.
    #[cold]
    fn cdata(&mut self, bytes: &[u8], mut at: usize) -> Result<(State, usize), Stop> {
        while let Some(byte) = bytes.get(at) {
            at += 1;
            self.seen |= u64::from(*byte);
            match byte {
                // What is behind `<![CDATA[` cannot be taken for a `]`.
                b'>' if bytes.get(..at).is_some_and(|read| read.ends_with(b"]]>")) => return Ok((State::Text, at)),
                0..0x20 if !is_white_space(*byte) => return Err(CONTROL.into()),
                _ => {}
            }
        }
        Ok((State::Cdata, at))
    }
}

fn after_name(bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
    *at = skip_white_space(bytes, *at);
    match bytes.get(*at) {
        Some(b'=') => {
            *at += 1;
            Ok(State::Quote)
        }
        Some(_) => Err(XmlError::NotWellFormed("attribute without a value").into()),
        None => Err(Stop::Cut(State::Equals)),
    }
}

/// What character data may hold beside plain text: the position behind it.
#[cold]
fn text_special(bytes: &[u8], at: usize, special: u8) -> Result<usize, Stop> {
    match special {
        b'&' => Ok(at + reference(bytes.get(at..).unwrap_or_default(), State::Text)?),
        // Text never begins behind a `]`, so these two are text as well.
        b'>' if bytes.get(..at).is_some_and(|before| before.ends_with(b"]]")) => {
            Err(XmlError::NotWellFormed("]]> in character data").into())
        }
        b'>' | b'\t' | b'\n' | b'\r' => Ok(at + 1),
        _ => Err(CONTROL.into()),
    }
}

/// What a value may hold beside plain text: the position behind it.
#[cold]
fn value_special(bytes: &[u8], at: usize, special: u8) -> Result<usize, Stop> {
    match special {
        b'&' => Ok(at + reference(bytes.get(at..).unwrap_or_default(), State::Value)?),
        b'\t' | b'\n' | b'\r' => Ok(at + 1),
        b'<' => Err(XmlError::NotWellFormed("< in an attribute value").into()),
        _ => Err(CONTROL.into()),
    }
}

/// Why `<!` and what follows it, which is not the beginning of a CDATA section, is refused.
pub(super) fn declaration_error(markup: &[u8]) -> XmlError {
    match markup.get(2) {
        Some(b'-') => XmlError::Restricted("comment"),
        Some(b'D' | b'E' | b'A' | b'N') => XmlError::Restricted("document type declaration"),
        _ => XmlError::NotWellFormed("<! that begins nothing"),
    }
}

/// A name and what is quick to compare of it.
#[derive(Clone, Copy, Debug)]
struct Name {
    span: Span,
    /// Its first eight bytes, zeros behind a shorter one.
    key: u64,
    /// It has a colon or a byte beyond ASCII.
    odd: bool,
}

/// The name at `start` if it is of at most seven small letters and its end is in sight.
#[inline(always)]
fn plain_name(bytes: &[u8], start: usize, limits: &XmlLimits) -> Option<Name> {
    let word = word(bytes, start)?;
    let bits = small_letters(word);
    // Nothing, or eight letters and perhaps more.
    if bits == 0 || bits == 64 || is_in_name((word >> bits) as u8) {
        return None;
    }
    let letters = bits as usize / 8;
    if letters > limits.name_bytes_max {
        return None;
    }
    Some(Name { span: Span::new(start, start + letters), key: word & ((1 << bits) - 1), odd: false })
}

/// The name at `start`, whose first byte may begin one.
fn name(bytes: &[u8], start: usize, limits: &XmlLimits, cut: State) -> Result<Name, Stop> {
    let rest = bytes.get(start..).unwrap_or_default();
    let length = rest.iter().position(|byte| !is_in_name(*byte));
    let name = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
    if name.len() > limits.name_bytes_max {
        return Err(XmlError::TooBig("name too long").into());
    }
    if length.is_none() {
        return Err(Stop::Cut(cut));
    }
    let odd = name.iter().any(|byte| is_odd_in_name(*byte));
    Ok(Name { span: Span::new(start, start + name.len()), key: key(name), odd })
}

/// See [`Name::key`].
const fn key(name: &[u8]) -> u64 {
    let mut key = 0;
    let mut at = 0;
    while at < name.len() && at < 8 {
        key |= (name[at] as u64) << (8 * at);
        at += 1;
    }
    key
}

#[inline(always)]
fn known(name: Name) -> Known {
    const TO: u64 = key(b"to");
    const FROM: u64 = key(b"from");
    const ID: u64 = key(b"id");
    const TYPE: u64 = key(b"type");
    const XMLNS: u64 = key(b"xmlns");
    const LANG: u64 = key(b"xml:lang");
    match name.key {
        XMLNS => Known::Xmlns,
        TO => Known::To,
        ID => Known::Id,
        TYPE => Known::Type,
        FROM => Known::From,
        LANG if name.span.len() == 8 => Known::Lang,
        _ => Known::Other,
    }
}

/// Whether at `start` stands what stands in `span`.
#[inline(always)]
fn equal_names(bytes: &[u8], start: usize, span: Span) -> bool {
    if span.len() < 8
        && let (Some(one), Some(other)) = (word(bytes, start), word(bytes, span.start as usize))
    {
        return (one ^ other) & ((1 << (8 * span.len())) - 1) == 0;
    }
    bytes.get(start..start + span.len()) == Some(span.of(bytes))
}

/// The length of the reference that `bytes` begin with.
#[cold]
fn reference(bytes: &[u8], cut: State) -> Result<usize, Stop> {
    let semicolon = semicolon_of(bytes, cut)?;
    let body = bytes.get(1..semicolon).unwrap_or_default();
    let legal = match body {
        b"lt" | b"gt" | b"amp" | b"apos" | b"quot" => true,
        [b'#', b'x', digits @ ..] => is_character(digits, 16),
        [b'#', digits @ ..] => is_character(digits, 10),
        [first, ..] if begins_name(*first) => {
            return Err(XmlError::Restricted("entity other than the five").into());
        }
        _ => false,
    };
    if legal { Ok(semicolon + 1) } else { Err(XmlError::NotWellFormed("bad reference").into()) }
}

fn semicolon_of(bytes: &[u8], cut: State) -> Result<usize, Stop> {
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            b';' => return Ok(at),
            _ if at + 1 >= REFERENCE_BYTES_MAX => return Err(XmlError::TooBig("reference too long").into()),
            b'#' if at == 1 => {}
            byte if is_in_name(*byte) => {}
            _ => return Err(XmlError::NotWellFormed("& that begins no reference").into()),
        }
    }
    Err(Stop::Cut(cut))
}
