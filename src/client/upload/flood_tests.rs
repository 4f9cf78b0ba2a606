//! A flood of connections to a client that has almost no file descriptors left. The client is a separate process, since
//! the limit applies to a whole process.

use std::fs::File;
use std::io::{BufRead, BufReader, Write, stdin};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;
use crate::client::transport;
use crate::client::upload::test_support;
use crate::client::upload::test_support::{PSK, TestUploader, all_of, loopback, receive, send_request, ticket};
use crate::common::types::{Audience, ContentHash, ContentRef};

const CHILD: &str = "FILESHARE_TEST_FLOODED";
/// Fewer than the backlog of a listening socket, so that all connections are queued at once.
const FLOOD: usize = 100;

fn grant() -> ContentRef {
    ContentRef { name: test_support::name("file"), hash: ContentHash(*blake3::hash(b"bytes").as_bytes()), size: 5 }
}

/// The flooded client: prints its port, then replies to each line of its input.
fn flooded() {
    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let uploader = TestUploader::new();
    uploader.publish("file", b"bytes", Audience::Everyone);
    let mut descriptors: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let (start, before) = (Instant::now(), uploader.listener.iterations());
    eprintln!("flooded port {}", uploader.listener.port());
    for line in stdin().lines() {
        if line.unwrap() == "release" {
            descriptors.clear();
        }
        eprintln!("flooded iterations {} {}", uploader.listener.iterations() - before, start.elapsed().as_millis());
    }
}

#[test]
fn without_descriptors_the_listener_backs_off_and_recovers() {
    if std::env::var_os(CHILD).is_some() {
        return flooded();
    }
    let this = format!("{}::without_descriptors_the_listener_backs_off_and_recovers", module_path!());
    let this = this.split_once("::").unwrap().1;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut commands, replies) = (child.stdin.take().unwrap(), BufReader::new(child.stderr.take().unwrap()));
    let mut replies = replies.lines().filter_map(|line| line.unwrap().strip_prefix("flooded ").map(String::from));
    let port = replies.next().unwrap().strip_prefix("port ").unwrap().parse().unwrap();
    let flood: Vec<_> = (0..FLOOD).map(|_| TcpStream::connect(loopback(port)).unwrap()).collect();
    let mut iterations = |command: &str| -> (u64, u64) {
        writeln!(commands, "{command}").unwrap();
        let reply = replies.next().unwrap();
        let (iterations, elapsed_ms) = reply.strip_prefix("iterations ").unwrap().split_once(' ').unwrap();
        (iterations.parse().unwrap(), elapsed_ms.parse().unwrap())
    };
    let mut counted = (0, 0);
    while counted.1 < 500 {
        counted = iterations("count");
        thread::sleep(Duration::from_millis(10));
    }
    let (count, elapsed_ms) = counted;
    assert!(count < 10 + 3 * elapsed_ms / 100, "{count} iterations in {elapsed_ms} ms");
    iterations("release");
    let grant = grant();
    let (mut reader, mut writer) =
        transport::connect(loopback(port), &ticket(std::slice::from_ref(&grant)), &PSK).unwrap();
    send_request(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes", "an authorized peer is served during the flood");
    drop((flood, commands));
    assert!(child.wait().unwrap().success());
}
