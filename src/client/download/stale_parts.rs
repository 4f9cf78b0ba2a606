//! Removes partial files that nobody has touched for a long time, so that abandoned downloads do not fill the disk.
//!
//! Defended: only a plain file of this user with one name, which nobody has locked, and whose name is that of a partial file.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};

/// Nothing was written to it, and its name, mode and times were not changed, for this time.
const UNTOUCHED_MIN: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Removes the partial file `name` if it is abandoned. Returns whether it was removed; errors leave it.
pub(super) fn remove_if_stale(folder: &OwnedFd, name: &str, now: SystemTime) -> bool {
    try_remove(folder, name, now).unwrap_or(false)
}

fn try_remove(folder: &OwnedFd, name: &str, now: SystemTime) -> rustix::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    if !is_stale(&rustix::fs::fstat(&file)?, now) {
        return Ok(false);
    }
    // Held until after the removal: a download that wants the file waits, and then makes another.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let stat = rustix::fs::fstat(&file)?;
    let named = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if !is_stale(&stat, now) || (named.st_ino, named.st_dev) != (stat.st_ino, stat.st_dev) {
        return Ok(false);
    }
    rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
    Ok(true)
}

/// By the time of the last change of the file: its modification time may be that of a publication.
fn is_stale(stat: &Stat, now: SystemTime) -> bool {
    let changed = u64::try_from(stat.st_ctime).map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 1
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= UNTOUCHED_MIN))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files are as old as the test")]
mod tests {
    use std::fs::{self, File};

    use super::*;

    const NAME: &str = ".0123456789abcdef0123456789abcdef.part";

    #[test]
    fn only_an_untouched_plain_file_that_nobody_uses_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OwnedFd::from(File::open(dir.path()).unwrap());
        let path = dir.path().join(NAME);
        let day = Duration::from_secs(24 * 3_600);
        let (young, old) = (SystemTime::now() + 29 * day, SystemTime::now() + 31 * day);
        assert!(!remove_if_stale(&folder, NAME, old), "there is none");

        fs::write(&path, "part").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!remove_if_stale(&folder, NAME, young), "whatever its modification time");
        assert!(!remove_if_stale(&folder, NAME, SystemTime::UNIX_EPOCH), "a clock that goes wrong");
        let locked = File::open(&path).unwrap();
        rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!remove_if_stale(&folder, NAME, old), "in use");
        drop(locked);
        fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(!remove_if_stale(&folder, NAME, old), "it has another name");
        fs::remove_file(dir.path().join("other")).unwrap();
        assert!(remove_if_stale(&folder, NAME, old) && !path.exists());

        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(!remove_if_stale(&folder, NAME, old), "a link");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(!remove_if_stale(&folder, NAME, old), "a folder");
    }
}
