//! Removes partial files that nobody has touched for a long time, so that abandoned downloads do not fill the disk.
//!
//! Defended: only a plain file of this user with one name, which nobody has locked, and whose name is that of a partial file.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};

use super::partial_file::partial_file_names;
use super::target::{TargetDir, split_parent};
use crate::common::types::{ContentHash, FileName};

/// Nothing was written to it, and its name, mode and times were not changed, for this time.
const UNTOUCHED_MIN: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Removes the abandoned partial files in the folders of these targets, but not those of the contents that go there: these
/// are continued, however old they are. Returns a note for each folder that had some.
pub(super) fn remove_stale_parts<'a>(
    target_dir: &TargetDir,
    targets: impl Iterator<Item = (&'a FileName, &'a ContentHash)> + Clone,
    now: SystemTime,
) -> Vec<String> {
    let paths: BTreeSet<&str> = targets.clone().map(|(target, _)| split_parent(target).0).collect();
    let mut notes = Vec::new();
    for path in paths {
        let Some((folder, mut names)) = target_dir.partial_files(path) else { continue };
        let is_wanted = |name: &String| targets.clone().any(|(_, hash)| partial_file_names(hash).contains(name));
        names.retain(|name| !is_wanted(name) && remove_if_stale(&folder, name, now));
        if !names.is_empty() {
            let (count, folder) = (names.len(), if path.is_empty() { "." } else { path });
            notes.push(format!("{folder}: removed unfinished downloads that nobody touched for 30 days: {count}"));
        }
    }
    notes
}

/// Removes the partial file `name` if it is abandoned. Returns whether it was removed; errors leave it.
fn remove_if_stale(folder: &OwnedFd, name: &str, now: SystemTime) -> bool {
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
    fn abandoned_parts_beside_the_targets_are_removed_with_a_note() {
        let dir = tempfile::tempdir().unwrap();
        let targets = ["a", "x/b", "x/c", "new/d"].map(|target| FileName::parse(target).unwrap());
        let hashes = [1, 2, 3, 4].map(|byte| ContentHash([byte; 32]));
        let wanted = format!("x/{}", partial_file_names(&hashes[1])[0]);
        let abandoned = [NAME.to_owned(), format!("x/{NAME}"), format!("x/{}", NAME.replace('0', "1"))];
        let others = [wanted, format!("y/{NAME}"), "x/.part".to_owned()];
        ["x", "y"].iter().for_each(|folder| fs::create_dir(dir.path().join(folder)).unwrap());
        abandoned.iter().chain(&others).for_each(|path| fs::write(dir.path().join(path), "part").unwrap());
        let remove = |days| {
            let now = SystemTime::now() + days * Duration::from_secs(24 * 3_600);
            let target_dir = TargetDir::open(dir.path()).unwrap();
            let notes = || remove_stale_parts(&target_dir, targets.iter().zip(&hashes), now);
            [notes(), notes()]
        };
        let there = |paths: &[String]| paths.iter().filter(|path| dir.path().join(path).exists()).count();
        assert_eq!(remove(29), [const { Vec::<String>::new() }; 2]);
        assert_eq!(there(&abandoned), 3);
        let note =
            |folder, count| format!("{folder}: removed unfinished downloads that nobody touched for 30 days: {count}");
        assert_eq!(remove(31), [vec![note(".", 1), note("x", 2)], Vec::new()]);
        assert_eq!((there(&abandoned), there(&others)), (0, 3));
    }

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
