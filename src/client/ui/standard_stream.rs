//! Standard output and standard error, unbuffered: what a write returns is what has happened to the bytes.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// A stream that other programs may have set to non-blocking: a full pipe is waited for, and is not an error.
pub struct StandardStream<F = BorrowedFd<'static>>(F);

impl<F: AsFd> StandardStream<F> {
    /// The standard stream of another process.
    pub fn passed(descriptor: F) -> Self {
        Self(descriptor)
    }
}

impl StandardStream {
    pub fn stdout() -> Self {
        Self(rustix::stdio::stdout())
    }

    pub fn stderr() -> Self {
        Self(rustix::stdio::stderr())
    }
}

impl<F: AsFd> Write for StandardStream<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                },
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_full_non_blocking_pipe_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        // Held open for the rest of the process.
        let writer: &'static io::PipeWriter = Box::leak(Box::new(writer));
        rustix::io::ioctl_fionbio(writer, true).unwrap();
        // More than any pipe holds.
        let sent = vec![b'x'; 4 << 20];
        let mut received = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| StandardStream(writer.as_fd()).write_all(&sent).unwrap());
            reader.read_exact(&mut received).unwrap();
        });
        assert_eq!(received, sent);
    }
}
