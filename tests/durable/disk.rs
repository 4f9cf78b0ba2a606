//! The real server with a full disk, or with a data file that another program has locked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use fileshare::internals::client::control::PublishAudience;
use fileshare::internals::common::message::NameQuery;
use fileshare::internals::common::types::{Audience, Content, ContentHash, FileName, NamedContent};
use rusqlite::Connection;
use rustix::process::Signal;

use crate::headless_client::{HeadlessClient, credentials};
use crate::test_support::{Running, TestEnv};

/// Environment variable: a folder on a small file system, for the test of a really full disk.
const SMALL_FOLDER: &str = "FILESHARE_TEST_SMALL_FOLDER";
/// Maximum file size in the test without such a folder, in the shell's units of 512 bytes.
const LIMIT_BLOCKS: u32 = 1_024;

fn everyone() -> PublishAudience {
    PublishAudience::Audience(Audience::Everyone)
}

fn file(number: usize) -> NamedContent {
    let content = Content { hash: ContentHash([7; 32]), size: 7, mtime_ms: 7 };
    NamedContent { name: FileName::parse(&format!("file {number:06} {:0200}", 0)).unwrap(), content }
}

/// Publishes until the server has stopped. Returns the number of acknowledged publications, the thread whose last
/// publication is still pending, and how the server ended.
fn publish_until_it_stops(
    client: &HeadlessClient,
    server: Running,
) -> (usize, thread::JoinHandle<usize>, crate::test_support::Finished) {
    let acknowledged = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (stopped, server_api) =
        (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), client.server_api.clone());
    let publishing = {
        let (acknowledged, stopped) = (std::sync::Arc::clone(&acknowledged), std::sync::Arc::clone(&stopped));
        thread::spawn(move || {
            for number in 0.. {
                server_api.publish(&[file(number)], &everyone()).unwrap();
                acknowledged.store(number + 1, SeqCst);
                if stopped.load(SeqCst) {
                    return number + 1;
                }
            }
            unreachable!("the server stops some time")
        })
    };
    let ended = server.wait();
    stopped.store(true, SeqCst);
    (acknowledged.load(SeqCst), publishing, ended)
}

/// The disk fills up, the server stops, space is freed, the server starts, and nothing is missing.
fn fill_the_disk(env: &mut TestEnv, server: Running, address: std::net::SocketAddr, free_space: impl FnOnce()) {
    let client = HeadlessClient::log_in(address, 0);
    let (acknowledged, publishing, ended) = publish_until_it_stops(&client, server);
    let line = ended.one_line_of_stderr();
    assert!(ended.code == 1 && line.starts_with("server: cannot store in "), "{ended:?}");
    assert!(acknowledged > 10 && !publishing.is_finished(), "{acknowledged} were acknowledged");
    free_space();
    env.use_port(address.port());
    env.start();
    // The client reconnects on its own, and the pending publication is stored now.
    let published = publishing.join().unwrap();
    assert!(published > acknowledged);
    let names: Vec<_> = client.server_api.published().unwrap().into_iter().map(|entry| entry.name).collect();
    let expected: Vec<_> = (0..published).map(|number| file(number).name).collect();
    assert_eq!(names, expected);
    assert_eq!(client.counters.republished_files.load(SeqCst), 0, "nothing that was acknowledged was missing");
}

fn start(mut command: Command) -> (Running, std::net::SocketAddr) {
    command.args(["--log-level", "error", "0"]);
    let mut server = Running::start("server", command);
    let address = server.next_line().strip_prefix("listening on ").expect("a ready line").parse().unwrap();
    (server, address)
}

#[test]
fn a_file_that_cannot_grow_stops_the_server_and_loses_nothing() {
    let mut env = TestEnv::stopped(&credentials(1));
    let server = env.server_command();
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {LIMIT_BLOCKS}; exec \"$@\"");
    command.arg("-c").arg(script).arg("sh").arg(server.get_program()).args(server.get_args());
    command.current_dir(env.path());
    let (server, address) = start(command);
    fill_the_disk(&mut env, server, address, || {});
}

#[test]
#[ignore = "needs a small file system: scripts/durability.sh"]
fn a_full_disk_stops_the_server_and_loses_nothing() {
    let Some(small) = std::env::var_os(SMALL_FOLDER).map(PathBuf::from) else { return };
    let mut env = TestEnv::stopped(&credentials(1)).with_data(&small.join("fileshare.db"));
    let ballast = small.join("ballast");
    let (server, address) = {
        std::fs::write(&ballast, vec![0; 1 << 20]).expect("a megabyte of free space");
        start(env.server_command())
    };
    fill_the_disk(&mut env, server, address, || std::fs::remove_file(ballast).unwrap());
    env.stop_server(Signal::TERM).expect_code(0);
}

#[test]
fn a_second_server_on_the_same_data_file_is_refused_without_harm() {
    let env = TestEnv::with(&credentials(1), &["--log-level", "warn"]);
    let client = HeadlessClient::log_in(env.address(), 0);
    client.server_api.publish(&[file(0)], &everyone()).unwrap();
    let mut second = env.server_command();
    second.arg("0");
    let second = Running::start("second server", second).finish();
    second.expect(1, &[]);
    let line = second.one_line_of_stderr().to_owned();
    let first = env.server().id();
    assert!(line.ends_with(&format!("is in use by another server (process {first})")), "{line}");
    client.server_api.publish(&[file(1)], &everyone()).unwrap();
    assert_eq!(client.server_api.published().unwrap().len(), 2);
}

#[test]
fn an_administrator_reading_the_data_file_does_not_stop_or_stall_the_server() {
    let env = TestEnv::with(&credentials(2), &["--log-level", "debug", "--liveness", "60"]);
    let [hans, yoda] = [0, 1].map(|number| HeadlessClient::log_in(env.address(), number));
    hans.server_api.publish(&[file(0)], &everyone()).unwrap();

    // A long read transaction delays nothing.
    let reader = administrator(&env.data());
    reader.execute_batch("BEGIN").unwrap();
    let rows = || reader.query_row("SELECT count(*) FROM publications", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(rows(), 1);
    hans.server_api.publish(&[file(1)], &everyone()).unwrap();
    assert_eq!(rows(), 1, "the administrator sees one moment");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(), 2);

    // A write lock delays changes and nothing else.
    let writer = administrator(&env.data());
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let server_api = hans.server_api.clone();
    let publishing = thread::spawn(move || server_api.publish(&[file(2)], &everyone()));
    env.wait_log("is locked by another program; 1 changes wait");
    for client in [&hans, &yoda] {
        env.wait_log_times(&format!("Received HBT from {}", client.user), 3);
    }
    assert_eq!(yoda.server_api.search(NameQuery::Substring("file".into())).unwrap(), [file(0).name, file(1).name]);
    let peers = yoda.server_api.peers().unwrap();
    assert!(matches!(&peers[..], [peer] if peer.user == hans.user), "{peers:?}");
    assert!(!publishing.is_finished());
    writer.execute_batch("COMMIT").unwrap();
    publishing.join().unwrap().unwrap();
    assert_eq!(yoda.server_api.search(NameQuery::Substring("file".into())).unwrap().len(), 3);
    assert!(!env.log().contains("timed out"));
    assert_eq!(hans.counters.lost.load(SeqCst) + yoda.counters.lost.load(SeqCst), 0);
}

fn administrator(data: &Path) -> Connection {
    let connection = Connection::open(data).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection
}
