//! Where the commands that carry the content of a file get it from and write it to: standard input and output of the
//! process, or those of an attached side.
//!
//! Both may block for any time. Threads of their own wait for them, so that a command can be cancelled meanwhile; such a
//! thread ends with the call that blocks.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, bounded, select};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};

use crate::client::cancel::Cancelled;
use crate::common::sync::lock;
use crate::common::threads;

/// Bytes read at once, and how many such buffers wait to be stored.
const BUFFER_BYTES: usize = 256 << 10;
const BUFFERS: usize = 2;

/// The device `/dev/null`.
const NULL_DEVICE: (u32, u32) = (1, 3);

pub(super) type InputReader = Arc<Mutex<dyn Read + Send>>;

#[derive(Clone)]
pub enum ContentInput {
    Open(InputReader),
    /// The process was started without one.
    Closed,
}

pub type ContentOutput = Arc<Mutex<dyn Write + Send>>;

/// The streams of one command context.
#[derive(Clone, Default)]
pub struct ContentPipes {
    /// `None`: the commands come from there.
    pub input: Option<ContentInput>,
    /// `None`: all that is written there is JSON.
    pub output: Option<ContentOutput>,
}

impl ContentInput {
    /// The standard input of a process.
    pub fn standard(input: impl Read + AsFd + Send + 'static) -> Self {
        if was_closed(&input) { Self::Closed } else { Self::Open(Arc::new(Mutex::new(input))) }
    }
}

/// The runtime opens `/dev/null` for a standard stream that is closed, for reading and writing; shells open it for reading.
fn was_closed(input: impl AsFd) -> bool {
    let is_null = fstat(&input).is_ok_and(|stat| {
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        is_device && stat.st_rdev == makedev(NULL_DEVICE.0, NULL_DEVICE.1)
    });
    is_null && fcntl_getfl(&input).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// Reads a blocking input until the command is cancelled.
pub(super) struct CancellableInput {
    input: InputReader,
    cancelled: Cancelled,
    /// From the thread that reads, which is started by the first read.
    buffers: Option<Receiver<io::Result<Vec<u8>>>>,
    /// What is left of the last buffer.
    rest: io::Cursor<Vec<u8>>,
}

impl CancellableInput {
    pub fn new(input: InputReader, cancelled: Cancelled) -> Self {
        Self { input, cancelled, buffers: None, rest: io::Cursor::default() }
    }

    fn start(&self) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
        let (sender, buffers) = bounded(BUFFERS);
        let input = self.input.clone();
        let read_all = move || {
            let mut input = lock(&input);
            loop {
                let mut buffer = vec![0; BUFFER_BYTES];
                let read = match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => {
                        buffer.truncate(length);
                        Ok(buffer)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_last = read.is_err();
                if sender.send(read).is_err() || is_last {
                    return;
                }
            }
        };
        threads::spawn("input", read_all)?;
        Ok(buffers)
    }
}

impl Read for CancellableInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.rest.read(buffer)?;
        if length > 0 {
            return Ok(length);
        }
        let buffers = match self.buffers.take() {
            Some(buffers) => buffers,
            None => self.start()?,
        };
        let next = select! {
            recv(buffers) -> next => next.ok(),
            // The caller checks whether it is cancelled.
            recv(self.cancelled) -> _ => return Err(io::ErrorKind::Interrupted.into()),
        };
        self.buffers = Some(buffers);
        // The thread has ended at the end of the input.
        self.rest = io::Cursor::new(next.transpose()?.unwrap_or_default());
        self.rest.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_whole_in_pieces_of_any_size() {
        let bytes: Vec<u8> = (0..3 * BUFFER_BYTES + 7).map(|at| (at % 251) as u8).collect();
        for piece in [1_000, BUFFER_BYTES, 2 * BUFFER_BYTES] {
            let (_alive, cancelled) = bounded(0);
            let mut input = CancellableInput::new(Arc::new(Mutex::new(io::Cursor::new(bytes.clone()))), cancelled);
            let (mut read, mut buffer) = (Vec::new(), vec![0; piece]);
            loop {
                match input.read(&mut buffer).unwrap() {
                    0 => break,
                    length => read.extend_from_slice(&buffer[..length]),
                }
            }
            assert!(read == bytes, "{piece}");
        }
    }
}
