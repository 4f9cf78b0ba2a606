use std::collections::VecDeque;
use std::io;

use super::*;
use crate::server::test_support::origin;

/// A stream of prepared pieces; an empty one is the end. Takes at most `window` bytes at once.
struct FakeStream {
    pieces: VecDeque<Vec<u8>>,
    written: Vec<u8>,
    window: usize,
}

impl Read for FakeStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else { return Err(ErrorKind::WouldBlock.into()) };
        let bytes = piece.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&piece[..bytes]);
        piece.drain(..bytes);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Ok(bytes)
    }
}

impl Write for FakeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.window);
        self.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connection(pieces: &[&[u8]]) -> HttpConnection<FakeStream> {
    let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
    HttpConnection::new(origin(), FakeStream { pieces, written: Vec::new(), window: 7 })
}

/// Steps until it is not [`HttpStep::Ready`].
fn run(connection: &mut HttpConnection<FakeStream>) -> HttpStep {
    std::iter::repeat_with(|| connection.step()).find(|step| *step != HttpStep::Ready).unwrap()
}

#[test]
fn a_request_may_come_and_a_response_may_go_in_pieces() {
    let mut connection = connection(&[b"GET /metr", b"ics HTTP/1.1\r\nHost: localhost\r\n", b"\r\njunk", b"more"]);
    assert_eq!(run(&mut connection), HttpStep::Request(Ok(Resource::Metrics)));
    assert!(!connection.is_answered());
    connection.respond(b"the whole response".to_vec());
    assert!(connection.is_answered());
    assert_eq!(run(&mut connection), HttpStep::Done);
    assert_eq!(connection.stream.written, b"the whole response");
    assert!(connection.stream.pieces.is_empty(), "what was sent besides is read, so that a close does no harm");
}

#[test]
fn a_silent_client_waits_for_its_deadline() {
    let mut connection = connection(&[b"GET / HT"]);
    assert_eq!(run(&mut connection), HttpStep::Blocked);
    assert_eq!(connection.step(), HttpStep::Blocked);
    assert_eq!(connection.deadline, origin() + LIFETIME);
}

#[test]
fn a_client_that_leaves_is_done() {
    assert_eq!(run(&mut connection(&[b"GET / HT", b""])), HttpStep::Done);
}

#[test]
fn an_endless_request_takes_4_kib() {
    let piece = [b'x'; 3_000];
    let pieces = [b"GET / HTTP/1.1\r\nX: ", piece.as_slice(), &piece, &piece];
    let mut connection = connection(&pieces);
    assert_eq!(run(&mut connection), HttpStep::Request(Err(HttpError::TooLarge)));
    assert_eq!(connection.request.len(), REQUEST_MAX_BYTES);
}

#[test]
fn a_step_reads_or_writes_once_and_what_follows_a_request_is_bounded() {
    let piece = [b'x'; REQUEST_MAX_BYTES];
    let request: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut connection = connection(&[&[request], [piece.as_slice(); DISCARDED_PIECES_MAX + 4].as_slice()].concat());
    assert_eq!(run(&mut connection), HttpStep::Request(Ok(Resource::Page)));
    connection.respond(b"response".to_vec());
    let (mut unread, mut steps) = (connection.stream.pieces.len(), 0);
    loop {
        let (written, step) = (connection.stream.written.len(), connection.step());
        let read = unread - connection.stream.pieces.len();
        assert_eq!(read + usize::from(connection.stream.written.len() > written), 1);
        (unread, steps) = (unread - read, steps + 1);
        if step == HttpStep::Done {
            break;
        }
    }
    assert_eq!((unread, steps), (4, 2 + DISCARDED_PIECES_MAX), "the response takes two");
}
