//! One connection: reads a request, writes its response. Generic over the stream, so that tests need no socket.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::http::{HttpError, REQUEST_MAX_BYTES, Resource, parse};

/// From the start of a connection to the end of its response.
pub const LIFETIME: Duration = Duration::from_secs(10);
/// Read after the response, in pieces of [`REQUEST_MAX_BYTES`], one a step: a close with unread bytes may take the response
/// away from the client.
const DISCARDED_PIECES_MAX: usize = 16;

/// What a step has achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpStep {
    /// The stream is not ready.
    Blocked,
    /// There may be more to do at once.
    Ready,
    /// A request is complete: [`HttpConnection::respond`] is next.
    Request(Result<Resource, HttpError>),
    /// The response is written, or the stream has ended.
    Done,
}

pub struct HttpConnection<S> {
    pub stream: S,
    /// When it is closed, whatever its state.
    pub deadline: Instant,
    request: Vec<u8>,
    /// Empty until the request is complete.
    response: Vec<u8>,
    written: usize,
    discarded_pieces: usize,
}

impl<S: Read + Write> HttpConnection<S> {
    pub fn new(now: Instant, stream: S) -> Self {
        Self {
            stream,
            deadline: now + LIFETIME,
            request: Vec::new(),
            response: Vec::new(),
            written: 0,
            discarded_pieces: 0,
        }
    }

    /// Reads or writes once.
    pub fn step(&mut self) -> HttpStep {
        let result = if self.is_answered() { self.write() } else { self.read() };
        result.unwrap_or_else(|error| match error.kind() {
            ErrorKind::WouldBlock => HttpStep::Blocked,
            ErrorKind::Interrupted => HttpStep::Ready,
            _ => HttpStep::Done,
        })
    }

    /// Sets the response, which must not be empty.
    pub fn respond(&mut self, response: Vec<u8>) {
        (self.request, self.response) = (Vec::new(), response);
    }

    /// The request is complete.
    pub fn is_answered(&self) -> bool {
        !self.response.is_empty()
    }

    fn read(&mut self) -> std::io::Result<HttpStep> {
        let mut piece = [0; REQUEST_MAX_BYTES];
        let room = REQUEST_MAX_BYTES - self.request.len();
        let bytes = self.stream.read(&mut piece[..room])?;
        if bytes == 0 {
            return Ok(HttpStep::Done);
        }
        self.request.extend_from_slice(&piece[..bytes]);
        Ok(parse(&self.request).map_or(HttpStep::Ready, HttpStep::Request))
    }

    /// Writes the response, then discards what the client has sent after its request, as long as it is there.
    fn write(&mut self) -> std::io::Result<HttpStep> {
        if self.written < self.response.len() {
            self.written += self.stream.write(&self.response[self.written..])?;
            return Ok(HttpStep::Ready);
        }
        self.discarded_pieces += 1;
        let is_more = self.stream.read(&mut [0; REQUEST_MAX_BYTES]).is_ok_and(|bytes| bytes > 0);
        Ok(if is_more && self.discarded_pieces < DISCARDED_PIECES_MAX { HttpStep::Ready } else { HttpStep::Done })
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
