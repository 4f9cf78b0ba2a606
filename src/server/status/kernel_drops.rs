//! How many datagrams the system has dropped because the socket's receive buffer was full.
//!
//! Linux lists it with all UDP sockets of the host, which may be many: a thread of its own reads the list, not more often than
//! once a second however many requests there are.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rustix::fs::fstat;

use crate::common::threads;

/// Between two readings.
const PAUSE: Duration = Duration::from_secs(1);
const LISTS: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];

pub struct KernelDrops {
    latest: Arc<AtomicU64>,
    /// How often it was read.
    readings: Arc<AtomicU64>,
    requests: SyncSender<()>,
}

impl KernelDrops {
    /// Of this socket. The thread ends with the value, and calls `wake` after each reading.
    pub fn start(socket: impl AsFd, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let inode = fstat(socket)?.st_ino;
        let (latest, readings) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (requests, requested) = sync_channel::<()>(1);
        let (drops, read) = (Arc::clone(&latest), Arc::clone(&readings));
        threads::spawn("kernel-drops", move || {
            for () in requested {
                let texts = LISTS.iter().filter_map(|list| fs::read_to_string(list).ok());
                if let Some(count) = texts.into_iter().find_map(|text| drops_of(&text, inode)) {
                    drops.store(count, Ordering::Relaxed);
                }
                read.fetch_add(1, Ordering::Release);
                wake();
                pause();
            }
        })?;
        Ok(Self { latest, readings, requests })
    }

    /// Rises with each reading. What was asked for before by [`latest`](Self::latest) is there when it has risen.
    pub fn readings(&self) -> u64 {
        self.readings.load(Ordering::Acquire)
    }

    /// What was read last. Starts to read it again.
    pub fn latest(&self) -> u64 {
        // The thread is reading already if there is no room.
        let _ = self.requests.try_send(());
        self.latest.load(Ordering::Relaxed)
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing but the metrics waits for this thread")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The drops of the socket with this inode in a list like /proc/net/udp.
fn drops_of(list: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let sockets = list.lines().skip(1).map(|line| line.split_ascii_whitespace());
    let mut ours = sockets.filter(|fields| fields.clone().nth(9) == Some(&inode));
    ours.next()?.next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drops_are_those_of_the_socket() {
        let list = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref \
                    pointer drops            \n\
                    11: 0100007F:2EE0 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 00 3   \n\
                    12: 0100007F:2EE1 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 123 2 00 4   \n";
        assert_eq!(drops_of(list, 123), Some(4));
        assert_eq!(drops_of(list, 1234), Some(3));
        assert_eq!(drops_of(list, 12), None);
        assert_eq!(drops_of("", 12), None);
    }

    #[test]
    fn what_a_full_receive_buffer_drops_is_counted() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = fstat(&socket).unwrap().st_ino;
        let drops = || drops_of(&fs::read_to_string(LISTS[0]).unwrap(), inode);
        assert_eq!(drops(), Some(0));
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4_096).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        // Over loopback a datagram has arrived, or has been dropped, when it is sent.
        (0..100).for_each(|_| _ = sender.send_to(&[0; 1_000], socket.local_addr().unwrap()).unwrap());
        socket.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| socket.recv(&mut [0; 1_000]).ok()).count() as u64;
        assert!(received < 100, "{received}");
        assert_eq!(drops(), Some(100 - received));
    }
}
