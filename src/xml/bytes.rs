//! What single bytes mean in XML, and looking for them eight at a time.
//!
//! Safe eight-byte steps came within 1.1 to 1.4 times of SSE2 where they were measured, and they are the same everywhere.

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

/// Whether a name may begin with this.
#[inline(always)]
pub(super) fn begins_name(byte: u8) -> bool {
    CLASSES[byte as usize] & START != 0
}

/// Whether a name may hold this.
#[inline(always)]
pub(super) fn is_in_name(byte: u8) -> bool {
    CLASSES[byte as usize] & NAME != 0
}

/// Whether a name with this needs the checker.
pub(super) fn is_odd_in_name(byte: u8) -> bool {
    CLASSES[byte as usize] & ODD != 0
}

/// Whether these digits name a character that XML allows (XML 1.0 section 2.2).
pub(super) fn is_character(digits: &[u8], radix: u32) -> bool {
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

/// The position behind the white space at `at`.
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

/// Whether words or bytes that were added up by `|` hold nothing beyond ASCII.
pub(super) fn is_ascii(seen: u64) -> bool {
    seen & repeat(0x80) == 0
}

/// The eight bytes at `at`, the first in the lowest bits.
#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
}

/// How many of the lowest bits of `word` hold only letters from `a` to `z`.
#[inline(always)]
pub(super) fn small_letters(word: u64) -> u32 {
    let low = word & repeat(0x7F);
    let from_a = low + repeat(0x80 - b'a');
    let beyond_z = low + repeat(0x80 - b'z' - 1);
    let others = (!from_a | beyond_z | word) & repeat(0x80);
    others.trailing_zeros() & !7
}

/// The first position from `at` on where `marks` finds something, or the end. What was looked at is added to `seen`.
#[inline(always)]
fn skip(bytes: &[u8], mut at: usize, seen: &mut u64, marks: impl Fn(u64) -> u64) -> usize {
    while let Some(word) = word(bytes, at) {
        *seen |= word;
        let found = marks(word);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    // Fewer than eight bytes are left.
    for byte in bytes.get(at..).unwrap_or_default() {
        *seen |= repeat(*byte);
        if marks(repeat(*byte)) != 0 {
            break;
        }
        at += 1;
    }
    at
}

/// Stops at `<`, `>`, `&` and what is below a space.
#[inline(always)]
pub(super) fn skip_text(bytes: &[u8], at: usize, seen: &mut u64) -> usize {
    skip(bytes, at, seen, |word| equal(word, b'<' ^ b'>', b'>') | equal(word, 0, b'&') | below_space(word))
}

/// Stops at the quote, `&`, `<` and what is below a space.
#[inline(always)]
pub(super) fn skip_value(bytes: &[u8], at: usize, quote: u8, seen: &mut u64) -> usize {
    // Either quote differs from `&` in one bit.
    let (ignore, with) = if quote == b'\'' { (b'\'' ^ b'&', b'\'') } else { (b'"' ^ b'&', b'&') };
    skip(bytes, at, seen, |word| equal(word, ignore, with) | equal(word, 0, b'<') | below_space(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte at every place, held against the obvious loop.
    #[test]
    fn words_are_as_good_as_bytes() {
        let position = |bytes: &[u8], stops: &[u8]| {
            let stop = |byte: &u8| stops.contains(byte) || *byte < b' ';
            bytes.iter().position(stop).unwrap_or(bytes.len())
        };
        for around in [b'a', b' ', b'{', b'`', 0x7F, 0x80, 0xA6, 0xBC, 0xFF, b'=', b'%', b'\'', b'"'] {
            for byte in 0..=255 {
                for place in 0..19 {
                    let mut bytes = [around; 19];
                    bytes[place] = byte;
                    let mut seen = 0;
                    assert_eq!(skip_text(&bytes, 0, &mut seen), position(&bytes, b"<>&"), "{bytes:?}");
                    assert!(!is_ascii(seen) || skip_text(&bytes, 0, &mut 0) < 19 || bytes.is_ascii());
                    assert_eq!(skip_value(&bytes, 0, b'\'', &mut seen), position(&bytes, b"<&'"), "{bytes:?}");
                    assert_eq!(skip_value(&bytes, 0, b'"', &mut seen), position(&bytes, b"<&\""), "{bytes:?}");
                    let letters = bytes.iter().take(8).position(|byte| !byte.is_ascii_lowercase()).unwrap_or(8);
                    assert_eq!(word(&bytes, 0).map(small_letters), Some(8 * letters as u32), "{bytes:?}");
                }
            }
        }
        assert_eq!((word(&[0; 8], 1), word(&[0; 8], 9)), (None, None));
    }
}
