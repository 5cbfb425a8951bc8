//! The data directory: made for its owner only, and used by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use super::Failure;

/// The right to use a data directory, for as long as this lives.
#[derive(Debug)]
pub struct DataDirectory {
    /// The system lets go of the lock when the process ends, however it ends.
    _lock: File,
    /// Others than the owner may look into it.
    pub is_open_to_others: bool,
}

impl DataDirectory {
    /// Makes the directory if need be and takes it. It is locked by a file `lock` inside.
    pub fn take(path: &Path) -> Result<DataDirectory, Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
            let fix = match error.kind() {
                ErrorKind::PermissionDenied => {
                    ", run as root once to make it, or set another `data` in the configuration"
                }
                _ => "; set another `data` in the configuration",
            };
            Failure::runtime(format_args!("cannot make the data directory {}: {error}{fix}", path.display()))
        })?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"));
        let lock = lock.map_err(|error| {
            let fix = match error.kind() {
                ErrorKind::PermissionDenied => "; it must belong to the user who runs the server (chown -R USER it)",
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room on that disk",
                _ => "",
            };
            Failure::runtime(format_args!("cannot write to the data directory {}: {error}{fix}", path.display()))
        })?;
        hand_over(&path.join("lock"), path);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::runtime(format_args!(
                    "{} is in use by another whinchat; stop that one, or give this one a `data` directory of its own",
                    path.display()
                )));
            }
            // A file system without locks: the database has its own.
            Err(TryLockError::Error(error)) => log::warn!("cannot lock {}: {error}", path.display()),
        }
        let mode = fs::metadata(path).map_or(0o700, |found| found.permissions().mode());
        Ok(DataDirectory { _lock: lock, is_open_to_others: mode & 0o077 != 0 })
    }
}

/// Gives a file that was made here to the owner of its directory: what root makes with `whinchat user add` before the server has
/// run must be the server's.
pub fn hand_over(file: &Path, directory: &Path) {
    let (Ok(made), Ok(owner)) = (fs::metadata(file), fs::metadata(directory)) else { return };
    if made.uid() != owner.uid()
        && let Err(error) = chown(file, Some(owner.uid()), Some(owner.gid()))
    {
        log::warn!("{} belongs to another user than its directory: {error}", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_for_its_owner_and_taken_once() {
        let root = std::env::temp_dir().join(format!("whinchat-data-{}", std::process::id()));
        let path = root.join("a/b");
        let taken = DataDirectory::take(&path).expect("a data directory");
        assert!(!taken.is_open_to_others);
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o700);
        let refused = DataDirectory::take(&path).expect_err("taken twice");
        assert!(refused.code == 1 && refused.text.contains("in use by another whinchat"), "{}", refused.text);
        drop(taken);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its owner may");
        assert!(DataDirectory::take(&path).expect("free again").is_open_to_others);

        let file = path.join("lock");
        let refused = DataDirectory::take(&file).expect_err("a file is no directory");
        assert!(refused.text.contains("cannot make the data directory"), "{}", refused.text);
        fs::remove_dir_all(&root).expect("removed");
    }
}
