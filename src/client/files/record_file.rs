//! A file in the user's state folder to which lines are appended, one for each shared folder. Several clients may use it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// See the [module](self).
#[derive(Default)]
pub struct RecordFile {
    /// `None`: what is appended is forgotten when the client ends.
    file: Option<File>,
    path: PathBuf,
    /// The first line.
    header: String,
    /// So many bytes have been read.
    read_bytes: u64,
    /// Lines that could not be written so far.
    unwritten: String,
    /// Why the file lacks something.
    trouble: Option<String>,
}

impl RecordFile {
    /// Of the shared folder `dir`, in the folder `state`; without that, nothing is kept, which is no error.
    pub fn open(dir: &Path, state: Option<&Path>) -> Self {
        let Some(state) = state else { return Self::default() };
        let folder = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let id = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
        let header = format!("# {}\n", folder.display().to_string().replace('\n', " "));
        let mut record = Self { path: state.join(&id[..32]), header, ..Self::default() };
        let opened = fs::DirBuilder::new().recursive(true).mode(0o700).create(state).and_then(|()| record.open_file());
        match opened {
            Ok(file) => record.file = Some(file),
            Err(error) => record.trouble = Some(format!("{}: {error}", record.path.display())),
        }
        record
    }

    /// Nothing can be kept, for this reason.
    pub fn unkept(why: &str) -> Self {
        Self { trouble: Some(why.into()), ..Self::default() }
    }

    fn open_file(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)
    }

    /// Why not everything is kept after the end of the client.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The same, if it has happened since the client started.
    pub fn write_failure(&self) -> Option<&str> {
        self.trouble().filter(|_| self.file.is_some())
    }

    /// The whole lines that were written since this was called last.
    pub fn read(&mut self) -> String {
        let Some(file) = &self.file else { return String::new() };
        match read_lines(file, self.read_bytes) {
            Ok(bytes) => {
                self.read_bytes += bytes.len() as u64;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Err(error) => {
                self.trouble = Some(format!("{}: {error}", self.path.display()));
                String::new()
            }
        }
    }

    /// To be called when the file has been read for the first time. `compact` gets what it holds and yields what replaces
    /// that, if it is to be written anew and no other client uses it.
    pub fn opened(&mut self, compact: Option<impl FnOnce(&str) -> String>) {
        if let Err(error) = self.prepare(compact) {
            self.trouble = Some(format!("{}: {error}", self.path.display()));
        }
    }

    fn prepare(&mut self, compact: Option<impl FnOnce(&str) -> String>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Some(compact) = compact
            && flock(&*file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let old = String::from_utf8_lossy(&read_lines(file, 0)?).into_owned();
            let text = format!("{}{}", self.header, compact(&old));
            let new = self.path.with_extension("new");
            let mut compacted = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            compacted.write_all(text.as_bytes())?;
            compacted.sync_all()?;
            fs::rename(&new, &self.path)?;
            *file = OpenOptions::new().read(true).append(true).open(&self.path)?;
            self.read_bytes = text.len() as u64;
        }
        let length = file.metadata()?.len();
        if length == 0 {
            file.write_all(self.header.as_bytes())?;
        } else if length > self.read_bytes {
            // A crash has cut the last line short.
            file.write_all(b"\n")?;
        }
        // Nobody else writes it anew.
        let _ = flock(&*file, FlockOperation::NonBlockingLockShared);
        Ok(())
    }

    /// Appends lines, in one write, which [`read`](Self::read) need not yield. What an error has kept from being written is
    /// written with the next.
    pub fn append(&mut self, lines: &str) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let Some(file) = &mut self.file else {
            return self.trouble.as_ref().map_or(Ok(()), |why| Err(io::Error::other(why.clone())));
        };
        self.unwritten.push_str(lines);
        let written = file.write_all(self.unwritten.as_bytes());
        match &written {
            Ok(()) => {
                let end = self.read_bytes + self.unwritten.len() as u64;
                // Another client may have written meanwhile: then all is read.
                if file.metadata().is_ok_and(|metadata| metadata.len() == end) {
                    self.read_bytes = end;
                }
                (self.unwritten, self.trouble) = (String::new(), None);
            }
            Err(error) => {
                // The last line may have been cut short.
                self.unwritten.insert(0, '\n');
                self.trouble = Some(format!("{}: {error}", self.path.display()));
            }
        }
        written
    }
}

/// The whole lines after so many bytes: another client may be about to write the rest of the last one.
fn read_lines(file: &File, from: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut bytes = vec![0; length.saturating_sub(from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
    Ok(bytes)
}

/// What tests do to the file.
#[cfg(test)]
impl RecordFile {
    /// Nothing can be written from now on, or all again.
    pub fn set_writable(&mut self, is_writable: bool) {
        let file = if is_writable { self.open_file() } else { File::open(&self.path) };
        self.file = Some(file.unwrap());
    }
}
