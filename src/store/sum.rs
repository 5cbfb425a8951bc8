//! A sum over each row, behind its value: what the disk gives back is what it was given, or is not used.
//!
//! redb keeps a sum of each page and looks at it only where it checks the whole file. Ours is a CRC-32 (ISO 3309) over table, key
//! and value: it finds every change of up to 32 neighbouring bits, and a row that stands where another belongs.

use super::schema::Table;

const BYTES: usize = 4;

/// What a byte does to the sum, and what it does with so many zero bytes behind it.
const STEPS: [[u32; 256]; 8] = {
    let mut steps = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        steps[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc: u32 = steps[zeros - 1][byte];
            steps[zeros][byte] = steps[0][(crc & 0xff) as usize] ^ (crc >> 8);
            byte += 1;
        }
        zeros += 1;
    }
    steps
};

/// Goes on with a sum; eight bytes at a time, which is five times as quick.
pub(super) fn crc(start: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(start, |crc, eight| {
        let word = u64::from_le_bytes(*eight) ^ u64::from(crc);
        let bytes = word.to_le_bytes();
        (0..8).fold(0, |crc, at| crc ^ STEPS[7 - at][usize::from(bytes[at])])
    });
    rest.iter().fold(crc, |crc, byte| STEPS[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

fn sum(table: Table, key: &[u8], value: &[u8]) -> [u8; BYTES] {
    let name = crc(u32::MAX, table.name().as_bytes());
    // The key's length keeps the end of a key from being taken for the beginning of a value.
    let key = crc(crc(name, &(key.len() as u64).to_le_bytes()), key);
    (!crc(key, value)).to_le_bytes()
}

/// The value with its sum.
pub(super) fn add(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(value.len() + BYTES);
    row.extend_from_slice(value);
    row.extend_from_slice(&sum(table, key, value));
    row
}

/// The value without its sum, if that is right.
pub(super) fn check<'r>(table: Table, key: &[u8], row: &'r [u8]) -> Option<&'r [u8]> {
    let (value, found) = row.split_last_chunk::<BYTES>()?;
    (*found == sum(table, key, value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        // The check value of this CRC in every catalogue.
        assert_eq!(!crc(u32::MAX, b"123456789"), 0xcbf4_3926);
        let text = b"It was the nightingale, and not the lark.";
        for at in 0..text.len() {
            let by_byte = text[..at].iter().fold(u32::MAX, |sum, byte| crc(sum, &[*byte]));
            assert_eq!(crc(u32::MAX, &text[..at]), by_byte);
            assert_eq!(crc(crc(u32::MAX, &text[..at]), &text[at..]), crc(u32::MAX, text));
        }
        let row = add(Table::Rosters, b"key", b"value");
        assert_eq!(check(Table::Rosters, b"key", &row), Some(&b"value"[..]));
        assert_eq!(check(Table::Rosters, b"keyv", &row[1..]), None);
        assert_eq!(check(Table::Accounts, b"key", &row), None);
        for at in 0..row.len() {
            assert_eq!(check(Table::Rosters, b"key", &row[..at]), None);
            for bit in 0..8 {
                let mut row = row.clone();
                row[at] ^= 1 << bit;
                assert_eq!(check(Table::Rosters, b"key", &row), None);
            }
        }
        assert_eq!(check(Table::Meta, b"", &add(Table::Meta, b"", b"")), Some(&b""[..]));
    }
}
