//! The `server` program: output, start, refusal to start, stop, and a login over a real socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fileshare::internals::common::handshake_keys::{ClientInfo, LoginResult};
use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::message::{ClientMessage, Request, Response, ServerMessage};
use fileshare::internals::common::opaque::{ClientLogin, KeyStretching};
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::session_cipher::{SessionCipher, Side};
use fileshare::internals::common::types::{InstanceId, RequestId, UserName};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const SAMPLE: &str = "hans falcon*solo\nyoda wise@!man\nvader sithlord**\n";
/// Longer than any step takes; reached only when a test fails.
const TIMEOUT: Duration = Duration::from_secs(30);

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn folder(credentials: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("credentials.txt"), credentials).unwrap();
    folder
}

struct ServerProcess {
    child: Child,
    address: SocketAddr,
}

impl ServerProcess {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = command(folder, arguments).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        child.stdout = Some(stdout.into_inner());
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).trim_end();
        Self { address: address.parse().unwrap(), child }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a line of the log with this end.
    fn wait_for_line(log: &mut impl BufRead, end: &str) -> String {
        for line in log.lines() {
            let line = line.unwrap();
            if line.ends_with(end) {
                return line;
            }
        }
        panic!("the log ended without {end:?}");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_to_exit(folder: &Path, arguments: &[&str]) -> Output {
    let output = command(folder, arguments).output().unwrap();
    assert!(output.stdout.is_empty(), "stdout is for the readiness line only");
    output
}

fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Sends a datagram over a connected socket and returns the answer.
fn exchange(socket: &UdpSocket, bytes: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 2_000];
    socket.send(bytes).unwrap();
    let length = socket.recv(&mut buffer).expect("an answer");
    buffer.truncate(length);
    buffer
}

#[test]
fn a_session_over_a_real_socket_and_a_clean_stop() {
    let folder = folder(SAMPLE);
    let mut server = ServerProcess::start(folder.path(), &["0"]);
    let mut log = BufReader::new(server.child.stderr.take().unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let here = socket.local_addr().unwrap();
    let exchange = |bytes: &[u8]| exchange(&socket, bytes);
    socket.send(&[]).unwrap();
    socket.send(&[0x10; 100]).unwrap();
    let (mut rng, nonce, user) = (ChaCha20Rng::seed_from_u64(1), [7; 16], UserName::parse("hans").unwrap());
    let retry = exchange(&Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes());
    let Some(Packet::Retry { cookie, .. }) = Packet::parse(&retry) else { panic!("{retry:x?}") };
    let (login, ke1) = ClientLogin::start(&mut rng, b"falcon*solo");
    let login2 = exchange(&Packet::Login1 { nonce, cookie, user: "hans", ke1: &ke1 }.to_bytes());
    let Some(Packet::Login2 { ke2, .. }) = Packet::parse(&login2) else { panic!("{login2:x?}") };
    let (key, ke3) = login.finish(&mut rng, &user, b"falcon*solo", ke2, KeyStretching::Argon2id).unwrap();
    let details = key.client_info(&nonce).seal(&ClientInfo { tcp_port: 1, free_slots: 1, instance: InstanceId(0) });
    let answer = exchange(&Packet::Login3 { nonce, ke3: &ke3, client_info: &details }.to_bytes());
    let Some(Packet::Login4 { result: answer, .. }) = Packet::parse(&answer) else { panic!("{answer:x?}") };
    let Ok(LoginResult::Accepted(welcome)) = key.result(&nonce).open(answer) else { panic!("refused") };
    let mut channel = SessionCipher::new(Side::Client, welcome.session, &key.session_secret());
    let mut request = |message: ClientMessage| {
        let mut bytes = Vec::new();
        channel.seal_into(&mut bytes, |text| message.encode(text));
        let mut reply = exchange(&bytes);
        ServerMessage::decode(channel.open(&mut reply).expect("sealed for us")).unwrap()
    };
    let (id, floor) = (RequestId(1), RequestId(1));
    let peers = request(ClientMessage::Request {
        id,
        lowest_pending: floor,
        pages: 1,
        request: Request::Peers { cursor: None },
    });
    assert_eq!(
        peers,
        ServerMessage::Reply { id, page: 0, response: Response::Peers { peers: Vec::new(), next: None } }
    );
    assert_eq!(request(ClientMessage::Logout), ServerMessage::LogoutAck);
    for verb in ["AUTH", "LAP", "XIT"] {
        let received = ServerProcess::wait_for_line(&mut log, &format!(" {here}: Received {verb} from hans"));
        assert_eq!((&received[2..3], &received[5..6], &received[8..9], &received[12..14]), (":", ":", ".", ": "));
        ServerProcess::wait_for_line(&mut log, &format!(" {here}: Sent OK to hans"));
    }
    server.signal(Signal::TERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    server.child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "nothing else is written to stdout");
}

#[test]
fn sighup_rereads_the_credentials_and_rejects_a_malformed_file() {
    let folder = folder(SAMPLE);
    let path = folder.path().join("credentials.txt");
    let mut server = ServerProcess::start(folder.path(), &["0", "--ephemeral"]);
    let mut log = BufReader::new(server.child.stderr.take().unwrap());
    std::fs::write(&path, "hans\n").unwrap();
    server.signal(Signal::HUP);
    let refusal = ServerProcess::wait_for_line(&mut log, "stay as they are");
    assert!(refusal.contains("line 1"), "{refusal}");
    std::fs::write(&path, "hans other\n").unwrap();
    server.signal(Signal::HUP);
    ServerProcess::wait_for_line(&mut log, "read again: 1 users");
    server.signal(Signal::INT);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_credentials_file_that_blocks_does_not_block_the_server() {
    let folder = folder(SAMPLE);
    let path = folder.path().join("credentials.txt");
    let mut server = ServerProcess::start(folder.path(), &["0", "--ephemeral"]);
    let mut log = BufReader::new(server.child.stderr.take().unwrap());
    std::fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    server.signal(Signal::HUP);
    // A pipe opens when both ends do: the server is now reading it and gets nothing.
    let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.send(&Packet::Hello { version: PROTOCOL_VERSION, nonce: [7; 16] }.to_bytes()).unwrap();
    let mut buffer = [0; 2_000];
    let length = socket.recv(&mut buffer).expect("an answer");
    assert!(matches!(Packet::parse(&buffer[..length]), Some(Packet::Retry { .. })));
    pipe.write_all(b"hans other\n").unwrap();
    drop(pipe);
    ServerProcess::wait_for_line(&mut log, "read again: 1 users");
}

#[test]
fn sighup_during_the_start_does_not_end_the_server_and_sigterm_does() {
    for signal in [Signal::HUP, Signal::TERM] {
        let folder = folder(SAMPLE);
        let path = folder.path().join("credentials.txt");
        std::fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut child = command(folder.path(), &["0", "--ephemeral"]).spawn().unwrap();
        // A pipe opens when both ends do: the server is now reading it and gets nothing.
        let mut pipe = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let credentials = folder.path().join("credentials.new");
        std::fs::write(&credentials, SAMPLE).unwrap();
        // For the reload.
        std::fs::rename(&credentials, &path).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        if signal == Signal::TERM {
            assert!(child.wait().unwrap().code().is_none(), "ended by the signal");
            continue;
        }
        pipe.write_all(SAMPLE.as_bytes()).unwrap();
        drop(pipe);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on "), "{line:?}");
        ServerProcess::wait_for_line(&mut BufReader::new(child.stderr.take().unwrap()), "read again: 3 users");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_failed_start_prints_one_line() {
    let folder = folder(SAMPLE);
    let server = ServerProcess::start(folder.path(), &["0"]);
    let in_use = run_to_exit(folder.path(), &["0"]);
    assert!(line(&in_use).contains("in use") && in_use.status.code() == Some(1), "{in_use:?}");
    let port = server.address.port().to_string();
    let taken = run_to_exit(folder.path(), &[&port, "--ephemeral"]);
    assert!(line(&taken).starts_with(&format!("server: cannot listen on 127.0.0.1:{port}: ")), "{taken:?}");
    let missing = run_to_exit(folder.path(), &["0", "--ephemeral", "--credentials", "nowhere"]);
    assert!(line(&missing).contains("nowhere") && missing.status.code() == Some(1), "{missing:?}");
    std::fs::write(folder.path().join("bad"), "hans x\n\nhans y\n").unwrap();
    let malformed = run_to_exit(folder.path(), &["0", "--ephemeral", "--credentials", "bad"]);
    assert!(line(&malformed).contains("lines 1 and 3") && malformed.status.code() == Some(1), "{malformed:?}");
    std::fs::write(folder.path().join("damaged.db"), "this is no database at all".repeat(100)).unwrap();
    let damaged = run_to_exit(folder.path(), &["0", "--data", "damaged.db"]);
    assert!(line(&damaged).contains("damaged.db") && damaged.status.code() == Some(1), "{damaged:?}");
    assert_eq!(run_to_exit(folder.path(), &["0", "--ephemeral", "--data", "x"]).status.code(), Some(2));
}

#[test]
fn a_record_line_replaces_a_password() {
    let folder = folder("");
    std::fs::write(folder.path().join("password"), "falcon*solo\nsecond line").unwrap();
    let mut enrol = command(folder.path(), &["--enrol", "hans"]);
    enrol.stdin(std::fs::File::open(folder.path().join("password")).unwrap());
    let output = enrol.output().unwrap();
    let record = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && record.starts_with("hans $fileshare$") && !record.contains("falcon"));
    assert!(output.stderr.is_empty(), "no warning");
    std::fs::write(folder.path().join("marked"), b"\xef\xbb\xbffalcon*solo\r\n").unwrap();
    let mut marked = command(folder.path(), &["--enrol", "hans"]);
    marked.stdin(std::fs::File::open(folder.path().join("marked")).unwrap());
    let marked = marked.output().unwrap();
    assert!(marked.status.success() && line(&marked).contains("byte order mark"), "{marked:?}");
    std::fs::write(folder.path().join("credentials.txt"), &record).unwrap();
    let server = ServerProcess::start(folder.path(), &["0", "--ephemeral", "--bind", "::1"]);
    assert!(server.address.is_ipv6());
    let none = run_to_exit(folder.path(), &["--enrol", "hans"]);
    assert!(line(&none).starts_with("server: a password has ") && none.status.code() == Some(1), "{none:?}");
}

/// The evaluated element of a name: KE2's first 32 bytes, for one KE1.
fn evaluated_element(server: &ServerProcess, name: &str) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let exchange = |bytes: &[u8]| exchange(&socket, bytes);
    let nonce = [7; 16];
    let retry = exchange(&Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes());
    let Some(Packet::Retry { cookie, .. }) = Packet::parse(&retry) else { panic!("{retry:x?}") };
    let (_, ke1) = ClientLogin::start(&mut ChaCha20Rng::seed_from_u64(1), b"guess");
    let login2 = exchange(&Packet::Login1 { nonce, cookie, user: name, ke1: &ke1 }.to_bytes());
    let Some(Packet::Login2 { ke2, .. }) = Packet::parse(&login2) else { panic!("{login2:x?}") };
    ke2[..32].to_vec()
}

#[test]
fn logins_do_not_show_when_a_user_was_added() {
    let folder = folder("# nobody yet\n");
    let credentials = folder.path().join("credentials.txt");
    let serve = || ServerProcess::start(folder.path(), &["0"]);
    let elements = |server: &ServerProcess| ["hans", "vader", "nobody"].map(|name| evaluated_element(server, name));
    let server = serve();
    let expected = elements(&server);
    // While the server runs.
    std::fs::write(folder.path().join("password"), "falcon*solo\n").unwrap();
    let mut enrol = command(folder.path(), &["--enrol", "hans", "--data", "fileshare.db"]);
    enrol.stdin(std::fs::File::open(folder.path().join("password")).unwrap());
    let output = enrol.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    drop(server);
    std::fs::write(&credentials, [&output.stdout[..], b"vader sithlord**\n"].concat()).unwrap();
    for _ in 0..2 {
        assert_eq!(elements(&serve()), expected);
    }
    let missing = run_to_exit(folder.path(), &["--enrol", "hans", "--data", "nowhere.db"]);
    assert!(line(&missing).contains("nowhere.db") && missing.status.code() == Some(1), "{missing:?}");
    assert!(!folder.path().join("nowhere.db").exists());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = folder(SAMPLE);
    let mut server = ServerProcess::start(folder.path(), &["0", "--ephemeral"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    // A line each: several times what a pipe holds.
    let hello = Packet::Hello { version: PROTOCOL_VERSION + 1, nonce: [7; 16] }.to_bytes();
    for _ in 0..5_000 {
        socket.send(&hello).unwrap();
        socket.recv(&mut [0; 100]).expect("the server answers");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_json_log_that_nobody_read_says_how_many_lines_are_missing() {
    let folder = folder(SAMPLE);
    let mut server =
        ServerProcess::start(folder.path(), &["0", "--ephemeral", "--log-format", "json", "--log-level", "trace"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let hello = Packet::Hello { version: PROTOCOL_VERSION, nonce: [7; 16] }.to_bytes();
    // A line each, more than the queue and the pipe hold.
    for _ in 0..8_000 {
        socket.send(&[0]).unwrap();
        exchange(&socket, &hello);
    }
    server.signal(Signal::TERM);
    let log = BufReader::new(server.child.stderr.take().unwrap());
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let counts: Vec<u64> =
        lines.filter(|line| line["event"] == "lines_left_out").map(|line| line["count"].as_u64().unwrap()).collect();
    assert!(!counts.is_empty() && counts.iter().all(|&count| count > 0), "{counts:?}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn forget_deletes_what_a_removed_user_has_published() {
    let folder = folder(SAMPLE);
    let mut server = ServerProcess::start(folder.path(), &["0"]);
    let in_use = run_to_exit(folder.path(), &["--forget", "leia"]);
    assert!(line(&in_use).contains("in use") && in_use.status.code() == Some(1), "{in_use:?}");
    server.signal(Signal::TERM);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let listed = run_to_exit(folder.path(), &["--forget", "hans"]);
    let expected = "server: hans is in the credentials in credentials.txt: remove the line first";
    assert!(line(&listed).trim_end() == expected && listed.status.code() == Some(1), "{listed:?}");
    let unreadable = run_to_exit(folder.path(), &["--forget", "leia", "--credentials", "nowhere"]);
    assert!(line(&unreadable).contains("nowhere") && unreadable.status.code() == Some(1), "{unreadable:?}");
    let forgotten = command(folder.path(), &["--forget", "leia"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&forgotten.stdout), "0 publications of leia deleted, 0 bytes freed\n");
    assert!(forgotten.status.success() && forgotten.stderr.is_empty(), "{forgotten:?}");
}
