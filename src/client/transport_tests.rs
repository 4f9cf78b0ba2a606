use std::net::TcpListener;
use std::thread;

use super::*;
use crate::common::peer_crypto::Preamble;
use crate::common::peer_message::{PeerRequest, PeerResponse};

const KEY: [u8; 32] = [3; 32];

/// Accepts a connection as uploader, blocking; the listener of `upload` takes the same steps without blocking. `admit` gets
/// the encrypted ticket and returns the connection's key and any value for the caller.
pub(crate) fn accept<T, M>(
    mut stream: TcpStream,
    admit: impl FnOnce(&[u8]) -> Option<([u8; 32], T)>,
) -> Result<(T, RecordReader<M>, RecordWriter), TransportError> {
    let mut bytes = Vec::new();
    while let Preamble::NeedBytes(needed) = Preamble::parse(&bytes)? {
        let filled = bytes.len();
        bytes.resize(needed, 0);
        stream.read_exact(&mut bytes[filled..])?;
    }
    let Preamble::Complete { ticket, prologue, noise } = Preamble::parse(&bytes)? else { unreachable!() };
    let (key, admitted) = admit(ticket).ok_or(TransferError::Forged)?;
    let (reader, writer) = respond(stream.into(), &key, prologue, noise)?;
    Ok((admitted, reader, writer))
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn frames_cross_a_connection_both_ways() {
    let (listener, address) = listener();
    let uploader = thread::spawn(move || {
        let admit = |ticket: &[u8]| (ticket == b"ticket").then_some((KEY, "vader"));
        let (downloader, mut reader, mut writer) =
            accept::<_, PeerRequest>(listener.accept().unwrap().0, admit).unwrap();
        assert_eq!(downloader, "vader");
        assert!(matches!(reader.next().unwrap(), Frame::Message(PeerRequest::Cancel)));
        for offset in 0..20 {
            let fill = |buffer: &mut [u8]| {
                buffer.fill(offset as u8);
                Ok::<_, TransportError>(())
            };
            writer.data(1, offset, RECORD_MAX_BYTES, fill).unwrap();
        }
        writer.message(&PeerResponse::Cancelled).unwrap();
        writer.flush().unwrap();
        assert!(matches!(reader.next(), Err(TransportError::Closed)));
    });
    let (mut reader, mut writer) = connect::<PeerResponse>(address, b"ticket", &KEY).unwrap();
    writer.message(&PeerRequest::Cancel).unwrap();
    writer.flush().unwrap();
    for expected in 0..20 {
        let Frame::Data { content: 1, offset, bytes } = reader.next().unwrap() else { panic!("data") };
        assert_eq!(offset, expected);
        assert!(bytes.len() == RECORD_MAX_BYTES && bytes.iter().all(|&byte| byte == expected as u8));
    }
    assert!(matches!(reader.next().unwrap(), Frame::Message(PeerResponse::Cancelled)));
    drop((reader, writer));
    uploader.join().unwrap();
}

#[test]
fn a_wrong_key_fails_and_a_peer_without_a_ticket_gets_no_reply() {
    let (listener, address) = listener();
    let uploader = thread::spawn(move || {
        let admit = |_: &[u8]| Some(([9; 32], ()));
        assert!(accept::<_, PeerRequest>(listener.accept().unwrap().0, admit).is_err());
        let admit = |_: &[u8]| -> Option<([u8; 32], ())> { panic!("garbage is not a ticket") };
        assert!(accept::<_, PeerRequest>(listener.accept().unwrap().0, admit).is_err());
    });
    assert!(connect::<PeerResponse>(address, b"ticket", &KEY).is_err());
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    assert!(reply.is_empty());
    uploader.join().unwrap();
}
