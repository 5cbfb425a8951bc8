//! Every decoder of the store's records: none panics, and what one takes for a record is written again as a record that says
//! the same.

use whinchat::store::{RECORD_KINDS, rewritten};

/// Which kind of record, then its bytes.
pub fn run(data: &[u8]) {
    let Some((&kind, record)) = data.split_first() else { return };
    let kind = usize::from(kind) % RECORD_KINDS;
    let Some(written) = rewritten(kind, record) else { return };
    // Numbers may have been written with more bytes than they need, lists in another order; never again.
    assert!(written.len() <= record.len(), "record of kind {kind} has grown: {record:x?} {written:x?}");
    assert_eq!(rewritten(kind, &written).as_ref(), Some(&written), "record of kind {kind}: {record:x?}");
}
