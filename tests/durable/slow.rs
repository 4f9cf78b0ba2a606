//! A slow disk delays only the acknowledgement of the changes it stores.
//!
//! The server runs in another process with a store that waits for a line on stdin before every batch. That process is this
//! test program again, running an ignored test.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use fileshare::internals::client::control::PublishAudience;
use fileshare::internals::common::message::NameQuery;
use fileshare::internals::common::types::{Audience, Content, ContentHash, FileName, NamedContent};
use fileshare::internals::server::cli::{LogFormat, ServeOptions};
use fileshare::internals::server::core::Quotas;
use fileshare::internals::server::journal::{Journal, Mutation, SqliteStore, Store, StoreError};
use fileshare::internals::server::run::serve_with_journal;
use log::LevelFilter;
use rustix::process::Signal;

use crate::headless_client::{HeadlessClient, credentials};
use crate::test_support::{Running, TestEnv};

/// Environment variable: the folder of the server in the other process.
const FOLDER: &str = "FILESHARE_TEST_SLOW_FOLDER";

/// Prints a line on stderr and waits for a line on stdin before every batch. The line `fail` fails the batch.
struct GatedStore {
    store: Box<SqliteStore>,
    lines: Receiver<String>,
}

impl Store for GatedStore {
    fn write(&mut self, batch: &[Mutation]) -> Result<(), StoreError> {
        eprintln!("the disk is at work");
        match self.lines.recv().as_deref() {
            Ok("fail") => Err(StoreError::Failed("cannot store: the disk is on fire".into())),
            _ => self.store.write(batch),
        }
    }
    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.store.close()
    }
}

#[test]
#[ignore = "runs in another process; does nothing on its own"]
fn server_over_a_slow_disk() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let (sender, lines) = channel();
    thread::spawn(move || std::io::stdin().lock().lines().try_for_each(|line| sender.send(line.unwrap())));
    let options = ServeOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        credentials: folder.join("credentials.txt"),
        data: Some(folder.join("fileshare.db")),
        heartbeat: Duration::from_millis(500),
        // No stall of a busy machine ends a session.
        liveness: Duration::from_secs(60),
        log_format: LogFormat::Text,
        port_file: None,
        status: None,
        log_level: LevelFilter::Debug,
        quotas: Quotas::default(),
    };
    let served = serve_with_journal(options, |path, load, wake| {
        let (store, root_secret) = SqliteStore::open(path, load)?;
        Journal::with_store(Box::new(GatedStore { store: Box::new(store), lines }), root_secret, wake)
    });
    served.unwrap_or_else(|error| panic!("{error}"));
}

fn start(env: &TestEnv) -> (Running, std::net::SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["slow::server_over_a_slow_disk", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    let mut server = Running::start("server", {
        command.env(FOLDER, env.path());
        command
    });
    loop {
        let line = server.next_line();
        // The test harness prints the name of the test on the same line.
        if let Some((_, address)) = line.split_once("listening on ") {
            return (server, address.parse().unwrap());
        }
    }
}

fn file(name: &str) -> NamedContent {
    let content = Content { hash: ContentHash([7; 32]), size: 7, mtime_ms: 7 };
    NamedContent { name: FileName::parse(name).unwrap(), content }
}

fn count(server: &Running, what: &str) -> usize {
    server.err.text().matches(what).count()
}

#[test]
fn a_slow_disk_delays_only_acknowledgements() {
    let env = TestEnv::stopped(&credentials(3));
    let (mut server, address) = start(&env);
    let [hans, yoda, vader] = [0, 1, 2].map(|number| HeadlessClient::log_in(address, number));
    let everyone = PublishAudience::Audience(Audience::Everyone);
    let publishing = {
        let (server_api, everyone) = (hans.server_api.clone(), everyone.clone());
        thread::spawn(move || server_api.publish(&[file("report")], &everyone))
    };
    server.wait_err("the disk is at work");
    // Each client sends three heartbeats and gets replies meanwhile.
    for client in [&hans, &yoda, &vader] {
        let report = format!("Received HBT from {}", client.user);
        let reported = count(&server, &report) + 3;
        while count(&server, &report) < reported {
            assert_eq!(yoda.server_api.peers().unwrap().len(), 2);
            let query = NameQuery::Substring(String::new());
            assert!(vader.server_api.search(query).unwrap().is_empty(), "a change that is not durable is not visible");
            thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(!publishing.is_finished(), "a change that is not durable is not acknowledged");
    server.send("go on");
    publishing.join().unwrap().unwrap();
    assert_eq!(yoda.server_api.search(NameQuery::Substring(String::new())).unwrap(), [file("report").name]);
    for client in [&hans, &yoda, &vader] {
        assert_eq!(
            (client.counters.lost.load(SeqCst), client.counters.resumed.load(SeqCst)),
            (0, 0),
            "{}",
            client.user
        );
    }
    assert_eq!(count(&server, "timed out"), 0);

    // A stop waits for the disk: the queued change is stored and acknowledged.
    let publishing = {
        let (server_api, everyone) = (hans.server_api.clone(), everyone);
        thread::spawn(move || server_api.publish(&[file("last")], &everyone))
    };
    server.err.wait("the disk at work again", |text| (text.matches("the disk is at work").count() == 2).then_some(()));
    server.signal(Signal::TERM);
    server.wait_err("stopping");
    server.send("go on");
    publishing.join().unwrap().unwrap();
    assert_eq!(server.wait().code, 0);
}

#[test]
fn a_failing_write_stops_the_server_and_is_not_acknowledged() {
    let mut env = TestEnv::stopped(&credentials(2));
    let (mut server, address) = start(&env);
    let everyone = PublishAudience::Audience(Audience::Everyone);
    let hans = HeadlessClient::log_in(address, 0);
    server.send("go on");
    hans.server_api.publish(&[file("before")], &everyone).unwrap();
    let publishing = {
        let (server_api, everyone) = (hans.server_api.clone(), everyone.clone());
        thread::spawn(move || server_api.publish(&[file("failed")], &everyone))
    };
    server.err.wait("the disk at work again", |text| (text.matches("the disk is at work").count() == 2).then_some(()));
    server.send("fail");
    let ended = server.wait();
    assert!(ended.code != 0 && ended.stderr.contains("cannot store: the disk is on fire"), "{ended:?}");
    assert!(!publishing.is_finished(), "a change that was not stored is not acknowledged");
    // Once the disk works again, the client completes the publication on its own.
    env.use_port(address.port());
    env.start();
    publishing.join().unwrap().unwrap();
    let names: Vec<_> = hans.server_api.published().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [file("before").name, file("failed").name]);
}
