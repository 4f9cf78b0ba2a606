//! What a download that replaces a file takes over from it: owner, mode, access control list and extended attributes.
//!
//! Defended: nobody gains a permission that the replaced file did not give, neither by the attributes that cannot be taken
//! over nor while the content is incomplete. Set-user-ID and set-group-ID bits and file capabilities are not taken over, as
//! with any write to a file. Links are not followed: one that is replaced has nothing to take over.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

/// Longest list of names, and longest value, of extended attributes in Linux, bytes.
const XATTR_MAX_BYTES: usize = 64 << 10;
const ACCESS_ACL: &str = "system.posix_acl_access";
/// Attributes that belong to the replaced content.
const XATTRS_OF_CONTENT: [&str; 3] = ["security.capability", "security.evm", "security.ima"];

/// A file that is to be replaced.
pub(super) struct ReplacedFile {
    /// Opened without access to the content, which needs no permission.
    file: OwnedFd,
    stat: Stat,
}

impl ReplacedFile {
    /// The regular file at a name, if there is one.
    pub fn open(folder: &OwnedFd, leaf: &str) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, leaf, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(Self { file, stat })
    }

    /// Gives `file`, which is complete and has been [made private](make_private), what can be taken over.
    pub fn give_attributes(&self, file: &File) {
        self.copy_xattrs(file);
        let is_group_kept = self.give_owner(file);
        let mode = self.stat.st_mode & 0o777;
        let is_exact = is_group_kept && self.copy_acl(file).is_ok();
        // Another group, or one without the list's mask, gets no more than all others.
        let mode = if is_exact { mode } else { mode & 0o707 | (mode & 0o007) << 3 };
        log_failure("mode", rustix::fs::fchmod(file, Mode::from_raw_mode(mode)));
    }

    /// Returns whether `file` has the replaced file's group now.
    fn give_owner(&self, file: &File) -> bool {
        let (user, group) = (rustix::fs::Uid::from_raw(self.stat.st_uid), rustix::fs::Gid::from_raw(self.stat.st_gid));
        rustix::fs::fchown(file, Some(user), Some(group)).is_ok() || rustix::fs::fchown(file, None, Some(group)).is_ok()
    }

    /// Without a list on the replaced file, one that `file` has inherited from its folder is removed.
    fn copy_acl(&self, file: &File) -> rustix::io::Result<()> {
        match self.xattr(ACCESS_ACL) {
            Ok(acl) => rustix::fs::fsetxattr(file, ACCESS_ACL, &acl, XattrFlags::empty()),
            Err(Errno::NODATA | Errno::NOTSUP) => match rustix::fs::fremovexattr(file, ACCESS_ACL) {
                Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
                removed => removed,
            },
            Err(error) => Err(error),
        }
    }

    fn copy_xattrs(&self, file: &File) {
        let mut names = vec![0; XATTR_MAX_BYTES];
        let Ok(length) = rustix::fs::listxattr(self.path(), &mut names[..]) else { return };
        let names = String::from_utf8_lossy(&names[..length]);
        let is_copied = |name: &&str| {
            name.starts_with("user.") || name.starts_with("security.") && !XATTRS_OF_CONTENT.contains(name)
        };
        for name in names.split('\0').filter(is_copied) {
            let copied =
                self.xattr(name).and_then(|value| rustix::fs::fsetxattr(file, name, &value, XattrFlags::empty()));
            log_failure(name, copied);
        }
    }

    fn xattr(&self, name: &str) -> rustix::io::Result<Vec<u8>> {
        let mut value = vec![0; XATTR_MAX_BYTES];
        let length = rustix::fs::getxattr(self.path(), name, &mut value[..])?;
        value.truncate(length);
        Ok(value)
    }

    /// Attributes cannot be read through a descriptor without access to the content, but through this path.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// Takes all permissions from everyone but the owner, until the file is complete.
pub(super) fn make_private(file: &File) {
    log_failure("mode", rustix::fs::fchmod(file, Mode::RUSR | Mode::WUSR));
}

/// Not every file system has every attribute: the file is worth more than the attribute.
fn log_failure(attribute: &str, result: rustix::io::Result<()>) {
    if let Err(error) = result {
        log::debug!("{attribute:?} of the replaced file is not taken over: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    const NOBODY: u32 = 65_534;

    struct Fixture {
        dir: tempfile::TempDir,
        part: File,
    }

    impl Fixture {
        fn new(mode: u32) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("old"), "old").unwrap();
            std::fs::set_permissions(dir.path().join("old"), PermissionsExt::from_mode(mode)).unwrap();
            let part = File::create(dir.path().join("part")).unwrap();
            Self { dir, part }
        }

        fn old(&self) -> File {
            File::open(self.dir.path().join("old")).unwrap()
        }

        fn replaced(&self, leaf: &str) -> Option<ReplacedFile> {
            ReplacedFile::open(&File::open(self.dir.path()).unwrap().into(), leaf)
        }

        /// The mode that `part` has after it was given the attributes of `old`.
        fn given_mode(&self) -> u32 {
            make_private(&self.part);
            self.replaced("old").unwrap().give_attributes(&self.part);
            self.part.metadata().unwrap().mode() & 0o7777
        }
    }

    #[test]
    fn the_mode_is_taken_over_without_its_set_id_bits() {
        for mode in [0o755, 0o644, 0o600, 0o444, 0o060] {
            assert_eq!(Fixture::new(mode).given_mode(), mode, "{mode:o}");
        }
        assert_eq!(Fixture::new(0o6755).given_mode(), 0o755);
    }

    #[test]
    fn an_incomplete_file_is_its_owners_alone() {
        let fixture = Fixture::new(0o777);
        make_private(&fixture.part);
        assert_eq!(fixture.part.metadata().unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn extended_attributes_are_taken_over_but_not_capabilities() {
        let fixture = Fixture::new(0o644);
        let set = |name: &str, value: &[u8]| rustix::fs::fsetxattr(fixture.old(), name, value, XattrFlags::empty());
        // A valid `cap_net_raw=ep`; needs root.
        let capability = [&[1, 0, 0, 2, 0, 32, 0, 0][..], &[0; 12]].concat();
        let _ = set("security.capability", &capability);
        if set("user.comment", b"a note").is_err() {
            return; // the file system has no such attributes
        }
        fixture.given_mode();
        let mut value = [0; 16];
        assert_eq!(rustix::fs::fgetxattr(&fixture.part, "user.comment", &mut value[..]), Ok(6));
        assert_eq!(&value[..6], b"a note");
        let capability = rustix::fs::fgetxattr(&fixture.part, "security.capability", &mut [0; 64][..]);
        assert_eq!(capability, Err(Errno::NODATA));
    }

    #[test]
    fn an_access_control_list_is_taken_over_and_an_inherited_one_is_not_kept() {
        // In the kernel's format: version 2, then tag, permissions and id of user, a named user, group, mask, others.
        let entries: [(u16, u16, u32); 5] =
            [(0x01, 6, u32::MAX), (0x02, 4, 1), (0x04, 0, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
        let entry = |(tag, permissions, id): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let acl = [&2u32.to_le_bytes()[..], &entries.map(entry).concat()].concat();
        let fixture = Fixture::new(0o600);
        if rustix::fs::fsetxattr(fixture.old(), ACCESS_ACL, &acl, XattrFlags::empty()).is_err() {
            return; // the file system has no access control lists
        }
        assert_eq!(fixture.given_mode(), 0o640, "the group's bits are the mask");
        let mut value = [0; 64];
        let length = rustix::fs::fgetxattr(&fixture.part, ACCESS_ACL, &mut value[..]).unwrap();
        assert_eq!(&value[..length], acl);

        let fixture = Fixture::new(0o640);
        rustix::fs::fsetxattr(&fixture.part, ACCESS_ACL, &acl, XattrFlags::empty()).unwrap();
        assert_eq!(fixture.given_mode(), 0o640);
        assert_eq!(rustix::fs::fgetxattr(&fixture.part, ACCESS_ACL, &mut value[..]), Err(Errno::NODATA));
    }

    #[test]
    fn the_owner_is_taken_over_where_that_is_permitted() {
        let fixture = Fixture::new(0o640);
        let (user, group) = (rustix::fs::Uid::from_raw(NOBODY), rustix::fs::Gid::from_raw(NOBODY));
        if rustix::fs::fchown(fixture.old(), Some(user), Some(group)).is_err() {
            return; // only root may give files away
        }
        assert_eq!(fixture.given_mode(), 0o640);
        let metadata = fixture.part.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));
    }

    #[test]
    fn a_link_and_a_missing_file_have_nothing_to_take_over() {
        let fixture = Fixture::new(0o777);
        symlink("old", fixture.dir.path().join("link")).unwrap();
        assert!(fixture.replaced("link").is_none() && fixture.replaced("missing").is_none());
        assert!(fixture.replaced(".").is_none());
    }
}
