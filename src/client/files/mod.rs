//! Local files beneath the shared folder: resolving paths, expanding arguments, hashing.
//!
//! * `shared_dir`: opens files and folders beneath the shared folder, never through a symbolic link.
//! * `expand`: the files that an argument of `pub` means.
//! * `private_names`: which hidden files were published from here.
//! * `fetched`: which files were fetched from other users.
//! * `withdrawn`: to whom withdrawn names were published.
//! * `record_file`: the file that each of these three is kept in.
//! * `hasher`, `hash_cache`: hashes of files and of their chunk groups, computed once.
//!
//! Must not know about the server, the network, or the screen.

mod expand;
mod fetched;
mod hash_cache;
mod hasher;
mod private_names;
mod record_file;
mod shared_dir;
mod withdrawn;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use self::expand::{entry_name, is_excluded, is_left_out, is_partial_file};
pub use self::fetched::{Fetched, FetchedFiles};
use self::hash_cache::{DiskCache, MemoryCache};
pub use self::hasher::{HashError, HashProgress, hash_file};
pub use self::private_names::PrivateNames;
pub use self::record_file::RecordFile;
pub use self::shared_dir::{FileIdentity, FileKind, ListedDir, Rename, SharedDir, rename_noreplace};
pub use self::withdrawn::WithdrawnAudiences;
use crate::client::exit_code::ExitCode;
use crate::common::chunk_tree::GroupHashes;
pub use crate::common::glob::{InvalidPattern, Pattern};
use crate::common::types::{Content, ContentHash, FileName, NamedContent};

/// Why a local file cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("{0}: no such file in the shared folder")]
    Missing(String),
    #[error("{0}: no file in the shared folder matches")]
    NoMatch(String),
    #[error("{0}: there is nothing to publish in this folder")]
    Empty(String),
    /// A symbolic link, a FIFO, a device, a socket, or something beneath a symbolic link.
    #[error("{0}: not a regular file or folder")]
    Special(String),
    #[error("{0}: not a folder")]
    NoFolder(String),
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    #[error("{0}: {1}")]
    Name(String, crate::common::types::FileNameError),
    #[error("{0}: a file name must be UTF-8")]
    NotUtf8(String),
    #[error("{0}: changed while it was read; publish it again")]
    Changed(String),
    #[error("interrupted")]
    Interrupted,
}

impl From<&ShareError> for ExitCode {
    fn from(error: &ShareError) -> Self {
        match error {
            ShareError::Interrupted => Self::Interrupted,
            ShareError::Missing(_)
            | ShareError::NoMatch(_)
            | ShareError::Empty(_)
            | ShareError::NotUtf8(_)
            | ShareError::Special(_)
            | ShareError::NoFolder(_)
            | ShareError::Unreadable(..)
            | ShareError::Name(..)
            | ShareError::Changed(_) => Self::LocalFile,
        }
    }
}

/// One path argument of `pub`, `unp` or `get`, as the shell split the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathArg {
    /// The text with quotes removed.
    pub text: String,
    /// The pattern, if the argument has an unquoted `*`, `?` or `[`. Quoted special characters are escaped.
    pub pattern: Option<String>,
}

/// What an argument of `pub` means.
#[derive(Debug, Default)]
pub struct ExpandedPaths {
    /// The files, sorted, each once.
    pub files: Vec<FileName>,
    /// Why other files are left out; never empty when there are no files.
    pub errors: Vec<ShareError>,
}

/// Where this program keeps what is the user's (XDG).
fn user_state_dir() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.state_dir()?.join("fileshare"))
}

/// The shared folder's files and the hashes of those that were hashed before.
pub struct SharedFiles {
    dir: SharedDir,
    path: PathBuf,
    disk_cache: DiskCache,
    memory_cache: MemoryCache,
    private_names: PrivateNames,
    fetched: Arc<FetchedFiles>,
    withdrawn: WithdrawnAudiences,
}

impl SharedFiles {
    /// Opens the shared folder, with a cache of hashes in the user's cache folder.
    pub fn open(dir: &Path) -> io::Result<Arc<Self>> {
        let state = user_state_dir();
        let record = |kind: &str| match &state {
            Some(state) => RecordFile::open(dir, Some(&state.join(kind))),
            None => RecordFile::unkept("there is no folder for it: neither XDG_STATE_HOME nor HOME is set"),
        };
        Self::with(dir, DiskCache::in_user_cache_dir(), record)
    }

    /// Like [`open`](Self::open), with what is kept for the user in the folder `state`.
    pub fn open_with_state(dir: &Path, state: &Path) -> io::Result<Arc<Self>> {
        let record = |kind: &str| RecordFile::open(dir, Some(&state.join(kind)));
        Self::with(dir, DiskCache::at(Some(state.join("outlines"))), record)
    }

    /// Like [`open`](Self::open), with the cache of hashes in `cache_dir` if there is one.
    #[cfg(test)]
    pub fn with_cache_dir(dir: &Path, cache_dir: Option<&Path>) -> io::Result<Arc<Self>> {
        let cache = DiskCache::at(cache_dir.map(Path::to_owned));
        Self::with(dir, cache, |_| RecordFile::open(dir, None))
    }

    /// `record` opens the record of this kind.
    fn with(dir: &Path, disk_cache: DiskCache, record: impl Fn(&str) -> RecordFile) -> io::Result<Arc<Self>> {
        let path = dir.canonicalize()?;
        let (dir, memory_cache) = (SharedDir::open(dir)?, MemoryCache::default());
        let private_names = PrivateNames::open(record("private"));
        let fetched = Arc::new(FetchedFiles::open(record("fetched")));
        let withdrawn = WithdrawnAudiences::open(record("withdrawn"));
        Ok(Arc::new(Self { dir, path, disk_cache, memory_cache, private_names, fetched, withdrawn }))
    }

    /// To whom withdrawn names were published.
    pub fn withdrawn(&self) -> &WithdrawnAudiences {
        &self.withdrawn
    }

    /// What was fetched into the folder.
    pub fn fetched(&self) -> &Arc<FetchedFiles> {
        &self.fetched
    }

    /// The private names that the user has published.
    pub fn private_names(&self) -> &PrivateNames {
        &self.private_names
    }

    pub fn dir(&self) -> &SharedDir {
        &self.dir
    }

    /// The absolute path of the folder, as it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`SharedDir::expand`].
    pub fn expand(&self, argument: &PathArg) -> ExpandedPaths {
        self.dir.expand(argument)
    }

    /// Whether anything exists under this name. Errors count as existence.
    pub fn exists(&self, name: &FileName) -> bool {
        !matches!(self.dir.stat(name.as_str()), Err(ShareError::Missing(_)))
    }

    /// Bytes of a file; 0 if it cannot be examined.
    pub fn size(&self, name: &FileName) -> u64 {
        self.dir.stat(name.as_str()).map_or(0, |stat| stat.size)
    }

    /// Hashes a file, or takes its hash from the cache.
    pub fn hash(&self, name: &FileName, on_progress: &mut HashProgress<'_>) -> Result<NamedContent, ShareError> {
        if on_progress(0).is_break() {
            return Err(ShareError::Interrupted);
        }
        let (file, identity) = self.dir.open_file(name)?;
        let hash = match self.cached_content_hash(&identity) {
            Some(hash) => hash,
            None => {
                let hashed = self.hash_open_file(&file, &identity, on_progress);
                let hashed = hashed.map_err(|error| match error {
                    HashError::Changed => ShareError::Changed(name.to_string()),
                    HashError::Interrupted => ShareError::Interrupted,
                    HashError::Io(error) => ShareError::Unreadable(name.to_string(), error),
                });
                hashed?.root()
            }
        };
        let content = Content { hash, size: identity.size, mtime_ms: identity.modified_ms() };
        Ok(NamedContent { name: name.clone(), content })
    }

    /// The hash of a file with this identity, if it was hashed before.
    pub fn cached_content_hash(&self, identity: &FileIdentity) -> Option<ContentHash> {
        self.memory_cache.content_hash(identity).or_else(|| {
            let hashes = self.disk_cache.load(identity)?;
            self.memory_cache.set_content_hash(*identity, hashes.root());
            Some(self.memory_cache.insert(hashes).root())
        })
    }

    /// The group hashes of a file with this identity and content hash, if it was hashed before.
    pub fn cached_group_hashes(&self, identity: &FileIdentity, root: ContentHash) -> Option<Arc<GroupHashes>> {
        if let Some(hashes) = GroupHashes::from_single_group(root, identity.size) {
            return Some(Arc::new(hashes));
        }
        self.memory_cache.group_hashes(root).or_else(|| {
            let hashes = self.disk_cache.load(identity)?;
            Some(self.memory_cache.insert(hashes)).filter(|hashes| hashes.root() == root)
        })
    }

    /// Hashes an open file that had this identity when it was opened.
    pub fn hash_open_file(
        &self,
        file: &File,
        identity: &FileIdentity,
        on_progress: &mut HashProgress<'_>,
    ) -> Result<Arc<GroupHashes>, HashError> {
        let is_racy = identity.is_racy(SystemTime::now());
        let hashes = hash_file(file, identity, on_progress)?;
        if !is_racy && FileIdentity::of_file(file).is_ok_and(|now| now == *identity) {
            self.disk_cache.store(identity, &hashes);
            self.memory_cache.set_content_hash(*identity, hashes.root());
        }
        Ok(self.memory_cache.insert(hashes))
    }

    /// Stores the hashes of a file that this client has downloaded and verified, so that serving it does not hash it. Does
    /// nothing unless `name` is that file: `file` is the handle through which it was written.
    pub fn set_downloaded(&self, name: &FileName, hashes: &GroupHashes, file: &File) {
        if let (Ok((_, identity)), Ok(written)) = (self.dir.open_file(name), FileIdentity::of_file(file))
            && identity == written
            && identity.size == hashes.size()
        {
            self.disk_cache.store(&identity, hashes);
            self.memory_cache.set_content_hash(identity, hashes.root());
            self.memory_cache.insert(hashes.clone());
        }
    }
}
