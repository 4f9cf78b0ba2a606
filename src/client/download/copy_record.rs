//! What is recorded of a file while it gets its name: the name before, and how that came out after.

use std::cell::RefCell;
use std::io;

use crate::client::files::{Fetched, FetchedFiles};
use crate::common::types::FileName;

pub(super) struct CopyRecord<'a> {
    files: &'a FetchedFiles,
    fetched: Fetched,
    first: FileName,
    /// The name that was tried last, and is recorded.
    tried: RefCell<Option<FileName>>,
}

impl<'a> CopyRecord<'a> {
    pub fn new(files: &'a FetchedFiles, (first, fetched): (FileName, Fetched)) -> Self {
        Self { files, fetched, first, tried: RefCell::default() }
    }

    /// Its first name is recorded already.
    pub fn begun(files: &'a FetchedFiles, copy: (FileName, Fetched)) -> Self {
        let record = Self::new(files, copy);
        record.tried.replace(Some(record.first.clone()));
        record
    }

    /// The file is about to get this name. What the user asks for is fetched whether that can be recorded or not: `get`
    /// says that it was not.
    pub fn begin(&self, name: &FileName) -> io::Result<()> {
        if self.tried.borrow().as_ref() == Some(name) {
            return Ok(());
        }
        self.end(false);
        self.tried.replace(Some(name.clone()));
        let begun = self.files.begin(&[(name.clone(), self.fetched.clone())]);
        if self.fetched.owner.is_some() { begun } else { Ok(()) }
    }

    /// It has got the name, or has not.
    pub fn end(&self, is_saved: bool) {
        if let Some(copy) = self.take() {
            self.files.end(&[copy], is_saved);
        }
    }

    /// What was recorded last, for the caller to end.
    pub fn take(&self) -> Option<(FileName, Fetched)> {
        Some((self.tried.take()?, self.fetched.clone()))
    }
}
