//! `--status`: the page, the metrics and their limits; `SIGUSR1`; what a supervisor is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::test_support::relay::UdpRelay;
use crate::test_support::{CREDENTIALS, Client, Running, TIMEOUT, TestEnv, wait_until};

/// Until a test fails that waits for a figure; each takes a round trip to the server.
const MAX_LOOKS: usize = 200_000;
const OVERFLOW: u32 = 40_000;

fn env(args: &[&str]) -> (TestEnv, SocketAddr) {
    let env = TestEnv::with(CREDENTIALS, &[&["--status", "127.0.0.1:0"], args].concat());
    env.wait_log("status page at ");
    let log = env.log();
    let (_, rest) = log.split_once("status page at http://").unwrap();
    let address = rest.split_once("/\n").unwrap().0.parse().unwrap();
    (env, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Sends a part of a request and waits until the server closes the connection: 10 seconds.
fn wait_for_close(address: SocketAddr) {
    let mut stream = connect(address);
    stream.write_all(b"GET /metrics HT").unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("closed within the timeout of the test");
    assert_eq!(response, b"");
}

/// The whole response to bytes that are sent at once.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// The body of a response with the status 200.
fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let response = exchange(address, request.as_bytes());
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

fn metrics(address: SocketAddr) -> BTreeMap<String, f64> {
    let text = get(address, "/metrics");
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    samples.map(|(name, value)| (name.strip_prefix("fileshare_").unwrap().to_owned(), value.parse().unwrap())).collect()
}

/// The type of a datagram that a client repeats while it stretches a password; a repeat is not counted as another login.
const LOGIN1: u8 = 4;
/// Other datagrams that the clients of a [`known_run`] send if they repeat none.
const KNOWN_RUN_DATAGRAMS: usize = 9;

/// hans logs in, publishes, searches in vain and logs out, vader is refused, and a stranger sends a datagram that is too long.
/// Returns the figures and how many datagrams the clients sent that are no [`LOGIN1`]. The relays count what goes over the network.
fn known_run() -> (BTreeMap<String, f64>, usize) {
    let (env, address) = env(&["--heartbeat", "60", "--liveness", "90"]);
    let relays = ["hans", "vader"].map(|_| UdpRelay::start(env.address(), Ipv4Addr::LOCALHOST));
    let client = |at: usize, name| Client::new(env.path(), name, "127.0.0.1", relays[at].port());
    let done = client(0, "hans").user().file("secret-plans", "x").run(&["pub secret-plans", "sch nothing-like-it"]);
    done.expect_code(0);
    assert_ne!(client(1, "vader").user_as("vader", "wrong").run(&["lap"]).code, 0);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&[0xff; 2_000], env.address()).unwrap();
    let traffic = |to_server| {
        let datagrams: Vec<_> = relays.iter().flat_map(UdpRelay::recording).collect();
        let sizes = datagrams.iter().filter(|datagram| datagram.to_server == to_server);
        let sizes: Vec<_> = sizes.map(|datagram| datagram.bytes.len() as f64).collect();
        (sizes.len() as f64, sizes.iter().sum::<f64>())
    };
    let counted = |figures: &BTreeMap<String, f64>, direction: &str| {
        ["datagrams", "datagram_bytes"].map(|what| figures[&format!("{what}_total{{direction=\"{direction}\"}}")])
    };
    wait_metrics(address, |figures| {
        let ((to_server, to_server_bytes), (to_clients, to_clients_bytes)) = (traffic(true), traffic(false));
        counted(figures, "received") == [to_server + 1.0, to_server_bytes + 1_201.0]
            && counted(figures, "sent") == [to_clients, to_clients_bytes]
    });
    let sent = relays.iter().flat_map(UdpRelay::recording);
    (metrics(address), sent.filter(|datagram| datagram.to_server && datagram.bytes[0] != LOGIN1).count())
}

/// Every figure that is not a time is known: what is not listed is 0.
#[test]
fn the_figures_are_those_of_a_known_run() {
    // On a busy machine a client may repeat what is not answered in time, which is counted too.
    let mut runs = std::iter::repeat_with(known_run).take(10);
    let undisturbed = runs.find(|(_, datagrams)| *datagrams <= KNOWN_RUN_DATAGRAMS);
    let (mut figures, datagrams) = undisturbed.expect("a run in which nothing is repeated");
    assert_eq!(datagrams, KNOWN_RUN_DATAGRAMS);
    let is_time = |name: &str| name.contains("_seconds") && !name.starts_with("journal_commit_seconds_count");
    assert!(figures["loop_turn_seconds_count"] > 0.0 && figures["start_time_seconds"] > 1.7e9);
    assert_eq!(figures["loop_turn_cpu_seconds_count"], figures["loop_turn_seconds_count"]);
    assert!(figures["loop_turn_cpu_seconds_sum"] > 0.0);
    figures.retain(|name, value| *value != 0.0 && !is_time(name) && !name.starts_with("datagram"));
    let version = format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let expected = [
        "publications",
        "logins_total{result=\"accepted\"}",
        "logins_total{result=\"refused\"}",
        "sessions_ended_total{reason=\"logout\"}",
        "requests_total{kind=\"heartbeat\",result=\"ok\"}",
        "requests_total{kind=\"own_publications\",result=\"ok\"}",
        "requests_total{kind=\"publish\",result=\"ok\"}",
        "requests_total{kind=\"search\",result=\"ok\"}",
        "requests_total{kind=\"logout\",result=\"ok\"}",
        "refused_total{reason=\"malformed\"}",
        "journal_commit_seconds_count",
        "healthy",
        &version,
    ];
    assert_eq!(figures, expected.map(|name| (name.to_owned(), 1.0)).into());
}

/// Also where the log has warnings only.
#[test]
fn sigusr1_logs_the_figures_as_they_are_now() {
    let env = TestEnv::with(CREDENTIALS, &["--log-level", "warn"]);
    env.client("hans").user().file("secret-plans", "x").run(&["pub secret-plans"]).expect_code(0);
    overflow(&env);
    env.signal_server(Signal::USR1);
    env.wait_log("fileshare_kernel_drops_total ");
    env.wait_log("fileshare_publications 1\n");
    env.wait_log("fileshare_healthy 1\n");
}

/// Sends [`OVERFLOW`] datagrams of 1,000 bytes while the server is stopped: more than its receive buffer can take.
fn overflow(env: &TestEnv) {
    env.signal_server(Signal::STOP);
    wait_stopped(env.server());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..OVERFLOW {
        socket.send_to(&[0xff; 1_000], env.address()).unwrap();
    }
    env.signal_server(Signal::CONT);
}

/// Looks again and again until `found` holds.
fn wait_metrics(address: SocketAddr, found: impl Fn(&BTreeMap<String, f64>) -> bool) {
    for _ in 0..MAX_LOOKS {
        if found(&metrics(address)) {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{:?}", metrics(address));
}

/// What a stopped server's receive buffer cannot take is dropped, and neither is lost from the figures.
#[test]
fn what_was_sent_is_received_or_dropped_by_the_kernel() {
    let (env, address) = env(&[]);
    overflow(&env);
    wait_metrics(address, |figures| {
        let received = figures["datagrams_total{direction=\"received\"}"];
        assert_eq!(figures["datagram_bytes_total{direction=\"received\"}"], received * 1_000.0);
        assert_eq!(figures["refused_total{reason=\"malformed\"}"], received);
        let drops = figures["kernel_drops_total"];
        drops > 0.0 && received + drops == f64::from(OVERFLOW)
    });
}

#[test]
fn a_server_whose_data_file_is_locked_is_unhealthy_until_it_is_not() {
    let (env, address) = env(&[]);
    let other = Connection::open(env.data()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut hans = env.client("hans").user().file("a", "x").spawn();
    hans.send("pub a");
    wait_metrics(address, |figures| figures["journal_queue"] == 1.0);
    assert_eq!(get(address, "/healthz"), "ok\n", "for 10 seconds");
    wait_for_close(address);
    wait_metrics(address, |figures| figures["healthy"] == 0.0);
    let response = exchange(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.ends_with(" seconds\n") && response.contains("\r\n\r\nnothing was stored for "), "{response}");
    other.execute_batch("COMMIT").unwrap();
    wait_metrics(address, |figures| figures["healthy"] == 1.0 && figures["publications"] == 1.0);
    hans.close_stdin();
    hans.finish().expect_code(0);
}

#[test]
fn names_never_show_and_users_only_if_asked_for() {
    let look = |args: &[&str]| {
        let (env, address) = env(args);
        let hans = env
            .client("hans")
            .user()
            .file("secret-plans", "x")
            .stay(&["pub secret-plans"], &["File published successfully"]);
        env.wait_log("Sent OK to hans");
        let pages = ["/", "/metrics", "/stats.json", "/healthz"].map(|path| get(address, path));
        assert!(!pages.concat().contains("secret-plans"));
        hans.kill();
        pages
    };
    let hidden = look(&[]);
    assert!(!hidden.concat().contains("hans"));
    let shown = look(&["--status-users"]);
    let stats: Value = serde_json::from_str(&shown[2]).unwrap();
    assert_eq!(stats["users"][0]["user"], json!("hans"));
    assert!(stats["users"][0]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(!shown[1].contains("hans") && !shown[0].contains("hans"));
    assert_eq!(shown[3], "ok\n");
}

#[test]
fn hostile_requests_cost_little_and_keep_no_scrape_out() {
    let (env, address) = env(&[]);
    // More than there is room for: the oldest give way.
    let slow: Vec<_> = (0..40)
        .map(|number| {
            let mut stream = connect(address);
            let start: &[u8] = if number % 2 == 0 { b"" } else { b"GET /metrics HT" };
            stream.write_all(start).unwrap();
            stream
        })
        .collect();
    assert_eq!(get(address, "/healthz"), "ok\n");
    for mut stream in &slow[..20] {
        assert!(!matches!(stream.read(&mut [0; 9]), Ok(1..)), "closed without a response");
    }
    let endless = [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".as_slice(), &[b'x'; 6_000]].concat();
    let status = |request: &[u8]| exchange(address, request).split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(status(&endless), "431");
    assert_eq!(status(b"\x16\x03\x01 junk\r\n\r\n"), "400");
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "421");
    assert_eq!(status(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"), "405");
    assert_eq!(status(b"GET /credentials.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"), "404");
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n\r\njunk"), "200");
    // The receiver may be gone before all is sent: only the server matters.
    let mut huge = connect(address);
    let _ = huge.write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(get(address, "/healthz"), "ok\n");
    env.client("hans").user().run(&["lap"]).expect_code(0);
}

#[test]
fn complete_requests_wait_for_their_turn() {
    let (_env, address) = env(&[]);
    // Far more than there are connections, as of clients that come again and again.
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for (number, mut stream) in waiting.into_iter().enumerate() {
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.ends_with("\r\n\r\nok\n"), "{number}: {response}");
    }
}

/// Without another connection that would wake the listener.
#[test]
fn a_connection_that_could_not_be_accepted_is_accepted_when_it_can_be() {
    let (env, address) = env(&["--log-level", "debug"]);
    let pid = Pid::from_raw(env.server().id().try_into().unwrap());
    let none = Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum };
    let limit = prlimit(pid, Resource::Nofile, none).unwrap();
    let mut stream = connect(address);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    env.wait_log("the status page cannot accept a connection: ");
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("\r\n\r\nok\n"), "{response}");
}

#[test]
fn the_server_closes_a_request_that_does_not_end() {
    let (_env, address) = env(&[]);
    wait_for_close(address);
}

#[test]
fn the_status_address_must_be_free() {
    let (_env, address) = env(&[]);
    let other = TestEnv::stopped(CREDENTIALS);
    let mut command = other.server_command();
    command.args(["0", "--status", &address.to_string()]);
    let done = Running::start("server", command).finish();
    done.expect_code(1);
    let expected = format!("server: cannot serve the status page at {address}: ");
    assert!(done.one_line_of_stderr().starts_with(&expected), "{done:?}");
}

/// Until SIGSTOP has come.
fn wait_stopped(program: &Running) {
    let proc_stat = format!("/proc/{}/stat", program.id());
    wait_until("the program stops", || std::fs::read_to_string(&proc_stat).unwrap().contains(") T "));
}

/// A supervisor's socket, which a server is started with.
struct FakeSupervisor(UnixDatagram);

impl FakeSupervisor {
    fn start(env: &TestEnv, args: &[&str], watchdog_us: Option<&str>) -> (Self, Running) {
        let path = env.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut command = env.server_command();
        command.arg("0").args(args).env("NOTIFY_SOCKET", path);
        watchdog_us.map(|us| command.env("WATCHDOG_USEC", us));
        (Self(socket), Running::start("server", command))
    }

    fn next(&self) -> String {
        let mut bytes = [0; 1_000];
        let count = self.0.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    /// The next message that is no status.
    fn next_state(&self) -> String {
        std::iter::repeat_with(|| self.next()).find(|message| !message.contains("STATUS=")).unwrap()
    }
}

#[test]
fn a_supervisor_is_told_each_state() {
    let env = TestEnv::stopped(CREDENTIALS);
    let (supervisor, mut server) = FakeSupervisor::start(&env, &[], None);
    assert_eq!(supervisor.next(), "READY=1");
    let port = server.next_line().rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(supervisor.next(), "STATUS=0 peers online, 0 publications");
    Client::new(env.path(), "hans", "127.0.0.1", port).user().run(&["lap"]).expect_code(0);
    server.signal(Signal::HUP);
    assert!(supervisor.next_state().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(supervisor.next_state(), "READY=1");
    env.write_credentials("nonsense\n");
    server.signal(Signal::HUP);
    assert!(supervisor.next_state().starts_with("RELOADING=1\n"));
    assert_eq!(supervisor.next_state(), "READY=1", "the old credentials stay in force");
    server.signal(Signal::TERM);
    assert_eq!(supervisor.next_state(), "STOPPING=1");
    server.finish().expect_code(0);
}

#[test]
fn the_supervisor_is_told_ready_when_the_publications_are_loaded() {
    let mut env = TestEnv::new();
    env.client("hans").user().file("a", "x").run(&["pub a"]).expect_code(0);
    env.stop_server(Signal::TERM);
    // Others cannot even read the file until this is closed.
    let other = Connection::open(env.data()).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; COMMIT").unwrap();
    let (supervisor, mut server) = FakeSupervisor::start(&env, &["--status", "127.0.0.1:0"], None);
    server.wait_err("status page at ");
    supervisor.0.set_nonblocking(true).unwrap();
    assert!(supervisor.0.recv(&mut [0; 9]).is_err(), "the port is taken, but nothing is loaded");
    supervisor.0.set_nonblocking(false).unwrap();
    other.close().unwrap();
    assert_eq!(supervisor.next(), "READY=1");
    assert_eq!(supervisor.next(), "STATUS=0 peers online, 1 publications");
    let port = server.next_line().rsplit_once(':').unwrap().1.parse().unwrap();
    Client::new(env.path(), "hans", "127.0.0.1", port).user().run(&["lpf"]).expect_code(0);
    server.signal(Signal::TERM);
    server.finish().expect_code(0);
}

#[test]
fn a_loop_that_is_stuck_feeds_no_watchdog() {
    let env = TestEnv::stopped(CREDENTIALS);
    let (supervisor, server) = FakeSupervisor::start(&env, &[], Some("100000"));
    assert_eq!(supervisor.next(), "READY=1");
    for _ in 0..3 {
        assert!(supervisor.next().starts_with("WATCHDOG=1\nSTATUS="), "an idle loop wakes for it");
    }
    server.signal(Signal::STOP);
    wait_stopped(&server);
    supervisor.0.set_nonblocking(true).unwrap();
    while supervisor.0.recv(&mut [0; 1_000]).is_ok() {}
    supervisor.0.set_nonblocking(false).unwrap();
    supervisor.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(supervisor.0.recv(&mut [0; 1_000]).is_err(), "nothing in five times the watchdog's time");
    server.signal(Signal::CONT);
    supervisor.0.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert!(supervisor.next().starts_with("WATCHDOG=1\n"));
    server.signal(Signal::TERM);
    server.finish().expect_code(0);
}
