//! The port file (`--port-file`): tells a script which port a server took, while the server runs.
//!
//! Owns that a reader sees the whole port or no file, that nothing but a port file is replaced, and that a server removes
//! its own file only.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::ServerError;

/// The longest port file: a port and a line end.
const MAX_BYTES: u64 = 6;

/// A port file that this server has written; removed when dropped, unless another file has taken its place.
#[derive(Debug)]
pub struct PortFile {
    path: PathBuf,
    /// Open, so that no other file can get its inode.
    file: File,
}

impl PortFile {
    /// Writes the port and a line end, all at once: a reader sees the old file, if there is one, or the whole new one.
    pub fn write(path: &Path, port: u16) -> Result<Self, ServerError> {
        check(path)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        // Left by a server with this process id that was killed, as happens in containers.
        let _ = fs::remove_file(&temporary);
        let write = || -> io::Result<File> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
            writeln!(file, "{port}")?;
            fs::rename(&temporary, path)?;
            Ok(file)
        };
        let written = write().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        });
        Ok(Self { path: path.into(), file: written.map_err(|source| unusable(path, source))? })
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        let identity = |metadata: io::Result<Metadata>| metadata.ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if identity(fs::symlink_metadata(&self.path)) == identity(self.file.metadata()) {
            // A failure leaves a port at which nobody answers, as a killed server does.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a server could write a port file there. Changes nothing.
pub fn check(path: &Path) -> Result<(), ServerError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_BYTES => {
            let mut text = String::new();
            let opened = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
            opened.map_err(|source| unusable(path, source))?;
            if text.is_empty() || text.trim_end().parse::<u16>().is_ok() {
                return Ok(());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let writable = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
            return writable.map_err(|error| unusable(path, error.into()));
        }
        Err(error) => return Err(unusable(path, error)),
        Ok(_) => {}
    }
    Err(unusable(path, io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no port file")))
}

fn unusable(path: &Path, source: io::Error) -> ServerError {
    ServerError::PortFile { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_file_replaces_port_files_and_is_removed_by_its_own_server_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        fs::write(&path, "").unwrap();
        let first = PortFile::write(&path, 65_535).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "65535\n");
        let second = PortFile::write(&path, 1).unwrap();
        drop(first);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(names(), 1);
        drop(second);
        assert_eq!(names(), 0);
    }

    #[test]
    fn nothing_else_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port");
        let refused = |what: &str| {
            assert!(check(&path).is_err(), "{what}");
            let error = PortFile::write(&path, 1).expect_err(what).to_string();
            assert!(error.starts_with("cannot write the port to ") && error.contains("port: "), "{error}");
        };
        for text in ["12 34\n", "hans x", "hans falcon*solo\n"] {
            fs::write(&path, text).unwrap();
            refused(text);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        refused("a link");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("a folder");
        assert!(PortFile::write(&path.join("nowhere/port"), 1).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = check(&file.path().join("port")).unwrap_err().to_string();
        assert!(error.contains("Not a directory"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
