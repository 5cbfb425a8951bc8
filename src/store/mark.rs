//! What a stop in order leaves beside the store's file: that it is whole, and what it looked like then. A start that finds it so
//! need not read the whole of it before it serves.
//!
//! Whatever writes into the file afterwards, a restored backup too, makes it look otherwise: by its length, the time of its last
//! change, or its first page, in which each commit leaves its trace.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::sum;

const PAGE: u64 = 4096;

/// Where the mark is, and of what.
#[derive(Debug)]
pub(super) struct Mark {
    store: PathBuf,
    mark: PathBuf,
}

impl Mark {
    pub(super) fn of(store: &Path) -> Mark {
        let mut mark = store.as_os_str().to_owned();
        mark.push(".clean");
        Mark { store: store.to_owned(), mark: mark.into() }
    }

    /// Whether the file is as the mark says; the mark is gone then, as the file is in use.
    pub(super) fn take(&self) -> bool {
        let Ok(marked) = fs::read_to_string(&self.mark) else { return false };
        // One that cannot be removed would be believed again.
        fs::remove_file(&self.mark).is_ok() && self.look().is_ok_and(|look| look == marked)
    }

    /// Says that the file is whole. Without it the next start takes longer, nothing else.
    pub(super) fn leave(&self) {
        let written = self.look().and_then(|look| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            // One that another user has left cannot be written, but removed.
            let _ = fs::remove_file(&self.mark);
            options.open(&self.mark)?.write_all(look.as_bytes())
        });
        if let Err(error) = written {
            log::debug!("store: {} could not be written: {error}", self.mark.display());
        }
    }

    fn look(&self) -> io::Result<String> {
        let file = File::open(&self.store)?;
        let found = file.metadata()?;
        let changed = found.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut page = Vec::new();
        file.take(PAGE).read_to_end(&mut page)?;
        let crc = sum::crc(u32::MAX, &page);
        Ok(format!("{} {}.{:09} {crc:08x}\n", found.len(), changed.as_secs(), changed.subsec_nanos()))
    }
}
