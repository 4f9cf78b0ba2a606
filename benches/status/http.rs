//! Connections to the status page: scrapes, and what an attacker sends.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
/// One byte of a slow request.
const BYTE_PAUSE: Duration = Duration::from_secs(1);
const HEADER_BYTES: usize = 1 << 20;

/// The samples of /metrics.
pub fn scrape(status: SocketAddr) -> io::Result<BTreeMap<String, f64>> {
    let body = get(status, "/metrics")?;
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    Ok(samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect())
}

/// The body of the response.
pub fn get(status: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(status)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let body = response.strip_prefix("HTTP/1.1 200 ").and_then(|rest| rest.split_once("\r\n\r\n"));
    body.map(|(_, body)| body.to_owned()).ok_or(io::ErrorKind::InvalidData.into())
}

fn connect(status: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(status)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Connects again and again; the server closes what takes too long or is none.
pub fn harass(status: SocketAddr, number: usize, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let _ = connect(status).and_then(|stream| match number % 4 {
            0 => send_slowly(stream, over),
            1 => send_huge_header(stream),
            2 => wait_for_close(stream, over),
            _ => send_junk(stream),
        });
        sleep(Duration::from_millis(10));
    }
}

fn send_slowly(mut stream: TcpStream, over: &AtomicBool) -> io::Result<()> {
    for byte in b"GET /metrics HTTP/1.1\r\n".iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[*byte])?;
        sleep(BYTE_PAUSE);
    }
    Ok(())
}

fn send_huge_header(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nX: ")?;
    stream.write_all(&vec![b'x'; HEADER_BYTES])
}

fn wait_for_close(mut stream: TcpStream, over: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut [0; 64]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    Ok(())
}

fn send_junk(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n\x00\xff junk\r\n\r\n".repeat(100))?;
    io::copy(&mut stream, &mut io::sink()).map(|_| ())
}
