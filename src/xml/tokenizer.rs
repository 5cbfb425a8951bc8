//! The incremental tokenizer: finds the end of one first-level element and proves on the way that it is well-formed.
//!
//! One pass over the bytes checks that names are balanced, attributes quoted and unique, references and characters legal, and
//! that nothing restricted (RFC 6120 section 11.1) occurs; it notes the envelope as it goes. It may be stopped at any byte and
//! looks at none twice, but for a name or a reference that was cut, and those are short by limit.
//!
//! What is rare and subtle is not decided here. A prefix other than `xml:lang`'s, a byte of 0x80 or above in a name and a
//! reserved namespace only set `Scanner::rare`; the caller then has the whole element judged by the checker. Encoding, and
//! with it U+FFFE and U+FFFF, are the caller's too: they are cheaper to check on the whole element.

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

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
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

/// A stack of spans whose first `N` need no heap.
#[derive(Debug)]
struct Spans<const N: usize> {
    len: usize,
    inline: [Span; N],
    spill: Vec<Span>,
}

impl<const N: usize> Spans<N> {
    const fn new() -> Spans<N> {
        Spans { len: 0, inline: [Span { start: 0, end: 0 }; N], spill: Vec::new() }
    }

    #[inline(always)]
    fn push(&mut self, span: Span) {
        match self.inline.get_mut(self.len) {
            Some(place) => *place = span,
            None => self.spill.push(span),
        }
        self.len += 1;
    }

    #[inline(always)]
    fn pop(&mut self) {
        if self.len > N {
            self.spill.pop();
        }
        self.len = self.len.saturating_sub(1);
    }

    #[inline(always)]
    fn last(&self) -> Span {
        match self.len.checked_sub(1).and_then(|last| self.inline.get(last)) {
            Some(span) => *span,
            None => self.spill.last().copied().unwrap_or_default(),
        }
    }

    #[inline(always)]
    fn any(&self, test: impl Fn(Span) -> bool) -> bool {
        self.inline.iter().take(self.len).any(|span| test(*span)) || self.spill.iter().any(|span| test(*span))
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.len = 0;
        self.spill.clear();
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
    attributes: Spans<8>,
    /// Of the start tag in work: where the white space before the next attribute began.
    mark: usize,
    /// Of the attribute in work.
    known: Known,
    quote: u8,
    value: usize,
    /// The value in work holds a reference or white space to be normalised.
    value_rewritten: bool,
    /// Names of the elements that are open.
    open: Spans<16>,
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
            attributes: Spans::new(),
            mark: 0,
            known: Known::Other,
            quote: 0,
            value: 0,
            value_rewritten: false,
            open: Spans::new(),
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
                State::Text => self.text(bytes, &mut at),
                State::Markup => self.markup(bytes, &mut at, limits),
                State::Tag => self.attribute(bytes, &mut at, limits),
                State::Value => self.value(bytes, &mut at),
                State::Equals => equals(bytes, &mut at),
                State::Quote => self.quote(bytes, &mut at),
                State::EndTag => self.end_tag(bytes, &mut at),
                State::Cdata => cdata(bytes, &mut at),
            };
            match step {
                Ok(next) => state = next,
                Err(Stop::Cut(state)) => {
                    self.at = at;
                    self.state = state;
                    return Ok(None);
                }
                Err(Stop::Done) => return Ok(Some(at)),
                Err(Stop::Refused(error)) => return Err(error),
            }
        }
    }

    #[inline(always)]
    fn text(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        if self.open.len == 1 {
            *at = skip_white_space(bytes, *at);
            self.text_between |= bytes.get(*at).is_some_and(|byte| *byte != b'<');
        }
        loop {
            *at = skip_text(bytes, *at);
            match bytes.get(*at) {
                Some(b'<') => return Ok(State::Markup),
                Some(b'&') => *at += reference(bytes.get(*at..).unwrap_or_default(), State::Text)?,
                // Text never begins behind a `]`, so these two are text as well.
                Some(b'>') if bytes.get(..*at).is_some_and(|before| before.ends_with(b"]]")) => {
                    return Err(XmlError::NotWellFormed("]]> in character data").into());
                }
                Some(b'>' | b'\t' | b'\n' | b'\r') => *at += 1,
                Some(_) => return Err(CONTROL.into()),
                None => return Err(Stop::Cut(State::Text)),
            }
        }
    }

    #[inline(always)]
    fn markup(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        match bytes.get(*at + 1) {
            Some(b'/') => self.end_name(bytes, at),
            Some(b'!') => {
                let next = declaration(bytes, at)?;
                self.text_between |= self.open.len == 1;
                Ok(next)
            }
            Some(b'?') => Err(XmlError::Restricted("processing instruction").into()),
            Some(_) => self.start_name(bytes, at, limits),
            None => Err(Stop::Cut(State::Markup)),
        }
    }

    #[inline(always)]
    fn start_name(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        let start = *at + 1;
        let Name { end, odd } = name(bytes, start, limits, State::Markup)?;
        let depth = self.open.len;
        if depth >= limits.depth_max {
            return Err(XmlError::TooBig("elements nested too deeply").into());
        }
        self.rare |= odd;
        self.tag = Span::new(start, end);
        if depth == 0 {
            self.name = self.tag;
        } else if depth == 1 {
            if self.children == 0 {
                self.child = self.tag;
            }
            self.children += 1;
        }
        self.attributes.clear();
        self.mark = end;
        *at = end;
        Ok(State::Tag)
    }

    /// From behind a name or a value to the start of the next value, or to the end of the tag.
    #[inline(always)]
    fn attribute(&mut self, bytes: &[u8], at: &mut usize, limits: &XmlLimits) -> Result<State, Stop> {
        *at = skip_white_space(bytes, *at);
        match bytes.get(*at) {
            Some(b'>') => {
                *at += 1;
                self.open.push(self.tag);
                return Ok(State::Text);
            }
            Some(b'/') => {
                match bytes.get(*at + 1) {
                    Some(b'>') => *at += 2,
                    Some(_) => return Err(XmlError::NotWellFormed("/ in a start tag").into()),
                    None => return Err(Stop::Cut(State::Tag)),
                }
                return if self.open.len == 0 { Err(Stop::Done) } else { Ok(State::Text) };
            }
            Some(_) => {}
            None => return Err(Stop::Cut(State::Tag)),
        }
        if *at == self.mark {
            return Err(XmlError::NotWellFormed("no white space before an attribute").into());
        }
        let start = *at;
        let Name { end, odd } = name(bytes, start, limits, State::Tag)?;
        self.attribute_name(bytes, Span::new(start, end), odd, limits)?;
        *at = end;
        // Almost always the value follows at once.
        if let Some([b'=', quote @ (b'\'' | b'"')]) = bytes.get(end..end + 2) {
            *at = end + 2;
            self.quote = *quote;
            self.value = *at;
            return Ok(State::Value);
        }
        Ok(State::Equals)
    }

    #[inline(always)]
    fn attribute_name(&mut self, bytes: &[u8], span: Span, odd: bool, limits: &XmlLimits) -> Result<(), XmlError> {
        let name = span.of(bytes);
        if self.attributes.len >= limits.attributes_max {
            return Err(XmlError::TooBig("too many attributes"));
        }
        if self.attributes.any(|other| other.of(bytes) == name) {
            return Err(XmlError::NotWellFormed("the same attribute twice"));
        }
        self.attributes.push(span);
        self.value_rewritten = false;
        self.known = match name {
            b"to" => Known::To,
            b"from" => Known::From,
            b"id" => Known::Id,
            b"type" => Known::Type,
            b"xmlns" => Known::Xmlns,
            b"xml:lang" => Known::Lang,
            _ => Known::Other,
        };
        self.rare |= odd && self.known != Known::Lang;
        Ok(())
    }

    #[inline(always)]
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

    #[inline(always)]
    fn value(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        let quote = self.quote;
        loop {
            *at = if quote == b'\'' { skip_single_quoted(bytes, *at) } else { skip_double_quoted(bytes, *at) };
            match bytes.get(*at) {
                Some(byte) if *byte == quote => break,
                Some(b'&') => {
                    *at += reference(bytes.get(*at..).unwrap_or_default(), State::Value)?;
                    self.value_rewritten = true;
                }
                Some(b'\t' | b'\n' | b'\r') => {
                    *at += 1;
                    self.value_rewritten = true;
                }
                Some(b'<') => return Err(XmlError::NotWellFormed("< in an attribute value").into()),
                Some(_) => return Err(CONTROL.into()),
                None => return Err(Stop::Cut(State::Value)),
            }
        }
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
        Ok(State::Tag)
    }

    #[inline(always)]
    fn end_name(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        let name = self.open.last().of(bytes);
        let rest = bytes.get(*at + 2..).unwrap_or_default();
        match rest.get(..name.len()) {
            Some(end) if end == name => {
                *at += 2 + name.len();
                self.end_tag(bytes, at)
            }
            None if name.starts_with(rest) => Err(Stop::Cut(State::Markup)),
            _ => Err(UNMATCHED.into()),
        }
    }

    #[inline(always)]
    fn end_tag(&mut self, bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
        *at = skip_white_space(bytes, *at);
        match bytes.get(*at) {
            Some(b'>') => {
                *at += 1;
                self.open.pop();
                if self.open.len == 0 { Err(Stop::Done) } else { Ok(State::Text) }
            }
            Some(_) => Err(UNMATCHED.into()),
            None => Err(Stop::Cut(State::EndTag)),
        }
    }
}

fn equals(bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
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

fn cdata(bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
    while let Some(byte) = bytes.get(*at) {
        *at += 1;
        match byte {
            // What is behind `<![CDATA[` cannot be taken for a `]`.
            b'>' if bytes.get(..*at).is_some_and(|read| read.ends_with(b"]]>")) => return Ok(State::Text),
            0..0x20 if !is_white_space(*byte) => return Err(CONTROL.into()),
            _ => {}
        }
    }
    Err(Stop::Cut(State::Cdata))
}

/// What begins with `<!`.
fn declaration(bytes: &[u8], at: &mut usize) -> Result<State, Stop> {
    const CDATA: &[u8] = b"<![CDATA[";
    let rest = bytes.get(*at..).unwrap_or_default();
    if rest.starts_with(CDATA) {
        *at += CDATA.len();
        return Ok(State::Cdata);
    }
    if CDATA.starts_with(rest) {
        return Err(Stop::Cut(State::Markup));
    }
    Err(declaration_error(rest).into())
}

/// Why `<!` and what follows it, which is not the beginning of a CDATA section, is refused.
pub(super) fn declaration_error(markup: &[u8]) -> XmlError {
    match markup.get(2) {
        Some(b'-') => XmlError::Restricted("comment"),
        Some(b'D' | b'E' | b'A' | b'N') => XmlError::Restricted("document type declaration"),
        _ => XmlError::NotWellFormed("<! that begins nothing"),
    }
}

struct Name {
    end: usize,
    /// It has a colon or a byte beyond ASCII.
    odd: bool,
}

#[inline(always)]
fn name(bytes: &[u8], start: usize, limits: &XmlLimits, cut: State) -> Result<Name, Stop> {
    let mut end = start;
    let mut seen = 0;
    let complete = loop {
        let Some(byte) = bytes.get(end) else { break false };
        let class = CLASSES[*byte as usize];
        if class & NAME == 0 {
            break true;
        }
        seen |= class;
        end += 1;
    };
    if end == start && !complete {
        return Err(Stop::Cut(cut));
    }
    if bytes.get(start).is_some_and(|first| CLASSES[*first as usize] & START == 0) {
        return Err(XmlError::NotWellFormed("name expected").into());
    }
    if end - start > limits.name_bytes_max {
        return Err(XmlError::TooBig("name too long").into());
    }
    if !complete {
        return Err(Stop::Cut(cut));
    }
    Ok(Name { end, odd: seen & ODD != 0 })
}

const NAME: u8 = 1;
const START: u8 = 2;
const ODD: u8 = 4;

/// What a byte may be in a name. Beyond ASCII, and where colons stand, the checker decides.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => NAME | START,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            b':' | 0x80..=0xFF => NAME | START | ODD,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// The length of the reference that `bytes` begin with.
#[cold]
fn reference(bytes: &[u8], cut: State) -> Result<usize, Stop> {
    let semicolon = loop_until_semicolon(bytes, cut)?;
    let body = bytes.get(1..semicolon).unwrap_or_default();
    let legal = match body {
        b"lt" | b"gt" | b"amp" | b"apos" | b"quot" => true,
        [b'#', b'x', digits @ ..] => is_character(digits, 16),
        [b'#', digits @ ..] => is_character(digits, 10),
        [first, ..] if CLASSES[*first as usize] & START != 0 => {
            return Err(XmlError::Restricted("entity other than the five").into());
        }
        _ => false,
    };
    if legal { Ok(semicolon + 1) } else { Err(XmlError::NotWellFormed("bad reference").into()) }
}

fn loop_until_semicolon(bytes: &[u8], cut: State) -> Result<usize, Stop> {
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            b';' => return Ok(at),
            _ if at + 1 >= REFERENCE_BYTES_MAX => return Err(XmlError::TooBig("reference too long").into()),
            b'#' if at == 1 => {}
            byte if CLASSES[*byte as usize] & NAME != 0 => {}
            _ => return Err(XmlError::NotWellFormed("& that begins no reference").into()),
        }
    }
    Err(Stop::Cut(cut))
}

/// Whether these digits name a character that XML allows (XML 1.0 section 2.2).
fn is_character(digits: &[u8], radix: u32) -> bool {
    let mut number: u32 = 0;
    for digit in digits {
        match char::from(*digit).to_digit(radix) {
            Some(value) => number = number.saturating_mul(radix).saturating_add(value),
            None => return false,
        }
    }
    !digits.is_empty() && matches!(number, 0x9 | 0xA | 0xD | 0x20..=0xD7FF | 0xE000..=0xFFFD | 0x1_0000..=0x10_FFFF)
}

/// White space of XML 1.0 section 2.3.
pub(super) fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[inline(always)]
pub(super) fn skip_white_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| is_white_space(*byte)) {
        at += 1;
    }
    at
}

// Eight bytes at a time. In each mask below the lowest set bit marks the first hit truly; bits above it may be false.

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks bytes of `word` that equal `byte` once the bits of `ignore` are set in them.
#[inline(always)]
fn equal(word: u64, ignore: u8, byte: u8) -> u64 {
    let difference = (word | repeat(ignore)) ^ repeat(byte);
    difference.wrapping_sub(repeat(1)) & !difference & repeat(0x80)
}

#[inline(always)]
fn below_space(word: u64) -> u64 {
    word.wrapping_sub(repeat(0x20)) & !word & repeat(0x80)
}

/// The first position from `at` on where `marks` finds something, or the end.
#[inline(always)]
fn skip(bytes: &[u8], mut at: usize, marks: impl Fn(u64) -> u64) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = marks(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    // Filled up with a byte that nothing looks for.
    let mut chunk = [b'_'; 8];
    let rest = bytes.get(at..).unwrap_or_default();
    for (to, from) in chunk.iter_mut().zip(rest) {
        *to = *from;
    }
    let found = marks(u64::from_le_bytes(chunk));
    if found != 0 { at + found.trailing_zeros() as usize / 8 } else { bytes.len() }
}

/// Stops at `<`, `>`, `&` and what is below a space.
#[inline(always)]
fn skip_text(bytes: &[u8], at: usize) -> usize {
    skip(bytes, at, |word| equal(word, b'<' ^ b'>', b'>') | equal(word, 0, b'&') | below_space(word))
}

/// Stops at `'`, `&`, `<` and what is below a space.
#[inline(always)]
fn skip_single_quoted(bytes: &[u8], at: usize) -> usize {
    skip(bytes, at, |word| equal(word, b'\'' ^ b'&', b'\'') | equal(word, 0, b'<') | below_space(word))
}

/// Stops at `"`, `&`, `<` and what is below a space.
#[inline(always)]
fn skip_double_quoted(bytes: &[u8], at: usize) -> usize {
    skip(bytes, at, |word| equal(word, b'"' ^ b'&', b'&') | equal(word, 0, b'<') | below_space(word))
}
