//! Attackers on the network: false servers, false uploaders, recordings replayed to a restarted server.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fileshare::internals::common::opaque::{ClientLogin, KeyStretching, PasswordRecord, ServerLogin};
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::peer_crypto::Preamble;
use fileshare::internals::common::types::UserName;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngCore, SeedableRng};

use crate::secrets::{CONTENT, NAME, record};
use crate::test_support::fake::{FakeServer, UnauthenticatedSender};
use crate::test_support::relay::{RecordedDatagram, UdpRelay};
use crate::test_support::{CREDENTIALS, Client, TestEnv, auth, contains_bytes, entries, free_port, seeded_bytes};

/// What a false uploader does with a connection from a downloader; the address is that of the real uploader.
type PeerBehaviour = fn(TcpStream, SocketAddr);

/// Reads the preamble that a downloader sends.
fn preamble(downloader: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match Preamble::parse(&bytes).expect("an honest downloader") {
            Preamble::Complete { .. } => return bytes,
            Preamble::NeedBytes(needed) => {
                let filled = bytes.len();
                bytes.resize(needed, 0);
                downloader.read_exact(&mut bytes[filled..]).expect("an honest downloader");
            }
        }
    }
}

fn closes(mut downloader: TcpStream, _: SocketAddr) {
    preamble(&mut downloader);
}

fn sends_garbage(mut downloader: TcpStream, _: SocketAddr) {
    preamble(&mut downloader);
    let _ = downloader.write_all(&seeded_bytes(7, 100_000));
}

/// Sends the response that another downloader got.
fn replays_response(mut downloader: TcpStream, uploader: SocketAddr) {
    static RECORDED: Mutex<Option<[u8; 48]>> = Mutex::new(None);
    let sent = preamble(&mut downloader);
    let mut recorded = RECORDED.lock().expect("no thread panics");
    let answer = recorded.get_or_insert_with(|| {
        let mut uploader = TcpStream::connect(uploader).expect("the real uploader listens");
        uploader.write_all(&sent).expect("it accepts a ticket");
        let mut answer = [0; 48];
        uploader.read_exact(&mut answer).expect("it responds");
        // Changed for this downloader; the next one gets it unchanged.
        answer[0] ^= 1;
        answer
    });
    let _ = downloader.write_all(&answer[..]);
    answer[0] ^= 1;
    let _ = downloader.write_all(&seeded_bytes(9, 1_000));
}

/// Forwards everything, but flips one bit after the handshake.
fn flips_a_bit(downloader: TcpStream, uploader: SocketAddr) {
    forward(downloader, uploader, |at, byte| if at == 48 + 300 { byte ^ 1 } else { byte }, usize::MAX);
}

/// Forwards the first 2,000 bytes only.
fn truncates(downloader: TcpStream, uploader: SocketAddr) {
    forward(downloader, uploader, |_, byte| byte, 2_000);
}

fn forward(mut downloader: TcpStream, uploader: SocketAddr, change: fn(usize, u8) -> u8, most: usize) {
    let mut uploader = TcpStream::connect(uploader).expect("the real uploader listens");
    let (mut from, mut to) = (downloader.try_clone().expect("a stream"), uploader.try_clone().expect("a stream"));
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut passed, mut chunk) = (0, [0; 4096]);
    while let Ok(length @ 1..) = uploader.read(&mut chunk) {
        let length = length.min(most - passed);
        chunk[..length].iter_mut().enumerate().for_each(|(at, byte)| *byte = change(passed + at, *byte));
        passed += length;
        if downloader.write_all(&chunk[..length]).is_err() || passed == most {
            break;
        }
    }
    let _ = (downloader.shutdown(Shutdown::Both), uploader.shutdown(Shutdown::Both));
}

#[test]
fn a_false_uploader_gets_nothing_into_the_folder() {
    for (manner, which) in [
        (closes as PeerBehaviour, "closes"),
        (sends_garbage, "sends_garbage"),
        (replays_response, "replays"),
        (flips_a_bit, "bit"),
        (truncates, "truncates"),
    ] {
        let env = TestEnv::new();
        let behind = Ipv4Addr::new(127, 0, 0, 2);
        // The server sees hans at this address, so downloaders dial the false uploader.
        let listener = TcpListener::bind((behind, free_port())).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let uploader = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        thread::spawn(move || listener.incoming().flatten().for_each(|downloader| manner(downloader, uploader)));
        let relay = UdpRelay::start(env.address(), behind);
        let hans = Client::new(env.path(), "hans", "127.0.0.1", relay.port()).user();
        let listen = uploader.to_string();
        let hans = hans.file("a", CONTENT.repeat(1_000)).args(["--listen", &listen]);
        let _hans = hans.stay(&["pub a"], &["File published successfully"]);
        let vader = env.client("vader").user().args(["-q", "--retry-for", "0", "--tcp-only"]);
        let dir = vader.dir().to_owned();
        let done = vader.run(&["get a"]);
        assert!(done.code == 6 || done.code == 7, "{which}: {done:?}");
        assert_eq!(done.stdout, "a download failed\n", "{which}: {}", done.stderr);
        assert_eq!(entries(&dir), [""; 0], "{which}");
    }
}

/// Answers a login like a server without the password's record; stores the datagrams it receives.
fn false_server(received: Arc<Mutex<Vec<u8>>>, plausible: bool) -> FakeServer {
    let record = PasswordRecord::fake(&[3; 32].into(), &UserName::parse("hans").expect("a name"));
    FakeServer::start(move |datagram| {
        received.lock().expect("no thread panics").extend_from_slice(datagram);
        let mut rng = StdRng::seed_from_u64(11);
        let mut random = [0; 336];
        rng.fill_bytes(&mut random);
        match Packet::parse(datagram)? {
            Packet::Hello { nonce, .. } => Some(Packet::Retry { nonce, cookie: [1; 32] }.to_bytes()),
            Packet::Login1 { nonce, user, ke1, .. } => {
                let user = UserName::parse(user).expect("the parser has checked it");
                let (_, mut ke2) = ServerLogin::start(&mut rng, &record, &user, ke1);
                if !plausible {
                    rng.fill_bytes(&mut ke2);
                }
                Some(Packet::Login2 { nonce, ke2: &ke2 }.to_bytes())
            }
            Packet::Login3 { nonce, .. } => Some(Packet::Login4 { nonce, result: &random }.to_bytes()),
            _ => None,
        }
    })
}

#[test]
fn a_false_server_learns_nothing_and_nothing_is_written() {
    let env = TestEnv::stopped("");
    for plausible in [true, false] {
        let received = Arc::new(Mutex::new(Vec::new()));
        let server = false_server(received.clone(), plausible);
        let client = Client::new(env.path(), "hans", "127.0.0.1", server.port()).args(["-q"]);
        let dir = client.dir().to_owned();
        let done = client.run(&[&auth("hans"), "get a"]);
        done.expect(4, &["Authentication failed. Please try again."]);
        assert_eq!(entries(&dir), [""; 0]);
        let received = received.lock().expect("no thread panics");
        assert!(
            received.len() > 400 && !contains_bytes(&received, b"falcon"),
            "the exchange is complete and contains no password"
        );
    }
}

#[test]
fn a_server_that_replays_a_recorded_login_is_rejected() {
    let env = TestEnv::new();
    let relay = UdpRelay::start(env.address(), Ipv4Addr::LOCALHOST);
    Client::new(env.path(), "hans", "127.0.0.1", relay.port()).run(&[&auth("hans")]).expect_code(0);
    let answers: Vec<RecordedDatagram> = relay.recording().into_iter().filter(|seen| !seen.to_server).collect();
    // Replays the replies of the recorded login with the nonce of the current one.
    let player = FakeServer::start(move |datagram| {
        let wanted = match datagram.first()? {
            0x01 => 0x02,
            0x04 => 0x05,
            0x06 => 0x07,
            _ => return None,
        };
        let mut answer = answers.iter().find(|seen| seen.bytes[0] == wanted)?.bytes.clone();
        let nonce = if wanted == 0x02 { &datagram[3..19] } else { &datagram[1..17] };
        answer[1..17].copy_from_slice(nonce);
        Some(answer)
    });
    let done = Client::new(env.path(), "hans", "127.0.0.1", player.port()).args(["-q"]).run(&[&auth("hans")]);
    done.expect(4, &["Authentication failed. Please try again."]);
}

#[test]
fn a_recording_replayed_in_any_order_to_a_restarted_server_changes_nothing() {
    let mut recorded = record();
    recorded.env.kill_server();
    recorded.env.start();
    recorded.hans.run_command("lpf", &["1 file published:", NAME]);
    recorded.vader.run_command("lap", &["1 active peer:", "hans"]);
    recorded.env.wait_log("Received LAP from vader");
    let log = recorded.env.log();
    let mut rng = StdRng::seed_from_u64(20_260_102);
    for relay in [&recorded.relays.0, &recorded.relays.1] {
        let mut recording = relay.recording();
        for round in 0..4 {
            recording.iter().take(recording.len() >> (round % 2)).for_each(|seen| relay.inject(seen));
            recording.shuffle(&mut rng);
        }
    }
    recorded.hans.run_command("lpf", &["1 file published:", NAME]);
    recorded.vader.run_command("lap", &["1 active peer:", "hans"]);
    recorded.vader.run_command("lpf", &["No files published"]);
    recorded.env.wait_log_times("Received LPF", 3);
    let after = recorded.env.log();
    let new_lines: Vec<&str> = after[log.len()..].lines().filter(|line| !line.contains(": Sent ")).collect();
    assert!(
        new_lines.iter().all(|line| line.contains("Received LPF") || line.contains("Received LAP")),
        "{new_lines:?}"
    );
    assert_eq!(new_lines.len(), 3, "only the entered commands are executed:\n{}", new_lines.join("\n"));
}

#[test]
fn a_replayed_transfer_yields_no_data() {
    let mut recorded = record();
    let recording = &recorded.transfer;
    let length = (0..recording.len())
        .find(|&length| matches!(Preamble::parse(&recording[..length]), Ok(Preamble::Complete { .. })));
    let opening = &recording[..length.expect("the recording begins with the downloader's preamble")];
    let mut stream = TcpStream::connect(recorded.listen).expect("hans listens");
    stream.write_all(opening).expect("it fits");
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).expect("the ticket is still good");
    assert!(!contains_bytes(recording, &answer), "fresh keys");
    // The recorded requests are sealed under keys that no longer exist.
    let _ = stream.write_all(&recording[opening.len()..]);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, [0; 0]);
    recorded.vader.run_command(&format!("get {NAME}"), &[&format!("{NAME} downloaded successfully")]);
    recorded.hans.run_command("lpf", &["1 file published:", NAME]);
}

#[test]
fn a_client_with_a_valid_cookie_cannot_break_a_log_line() {
    let env = TestEnv::with(CREDENTIALS, &["--log-level", "trace"]);
    let sender = UnauthenticatedSender::new(env.address());
    let mut rng = StdRng::seed_from_u64(3);
    for (at, name) in ["a\nb", "\x1b[31m", "a\rb", "a b", "\u{9b}", "plain"].into_iter().enumerate() {
        let nonce = [at as u8 + 1; 16];
        let cookie = sender.cookie(nonce);
        let (_, ke1) = ClientLogin::start(&mut rng, b"guess");
        let mut login1 = Packet::Login1 { nonce, cookie, user: "x", ke1: &ke1 }.to_bytes();
        login1[49] = name.len() as u8;
        login1[50..114].fill(0);
        login1[50..50 + name.len()].copy_from_slice(name.as_bytes());
        sender.send(&login1);
        sender.drain_replies([0xaa; 16]);
        sender.send(&Packet::Login3 { nonce, ke3: &[5; 64], client_info: &[6; 48] }.to_bytes());
        sender.drain_replies([0xbb; 16]);
        if name == "plain" {
            // Records are made in the background; the well-formed login is answered eventually.
            while !env.log().contains("Sent ERR to plain") {
                sender.send(&login1);
                sender.send(&Packet::Login3 { nonce, ke3: &[5; 64], client_info: &[6; 48] }.to_bytes());
                sender.drain_replies([0xbb; 16]);
            }
        }
    }
    let log = env.log();
    assert!(!log.contains(['\x1b', '\r', '\u{9b}']), "{log:?}");
    for line in log.lines() {
        assert!(line.len() > 14 && line.as_bytes()[2] == b':' && line.as_bytes()[8] == b'.', "{line:?}");
    }
}

#[test]
fn no_log_no_output_and_no_file_holds_a_password() {
    let env = TestEnv::with(CREDENTIALS, &["--log-level", "trace"]);
    let client = env.client("hans").args(["-v"]).file("a", "a");
    let done =
        client.pipe(&["auth hans falcon*wrong", "auth nobody falcon*wrong", &auth("hans"), "pub a", "lap", "xit"]);
    done.expect_code(4);
    let by_file = env.client("yoda").file("pw", "wise@!man\n").args(["-v", "-u", "yoda", "--password-file", "pw"]);
    let by_file = by_file.run(&["lap"]);
    by_file.expect_code(0);
    let kept = entries(env.path()).into_iter().filter(|name| name != "credentials.txt" && !name.ends_with("/pw"));
    let kept = kept.map(|name| env.path().join(name)).filter(|path| path.is_file());
    let kept: Vec<u8> = kept.flat_map(|path| fs::read(path).expect("a readable file")).collect();
    assert!(kept.len() > 1_000, "the data file at least");
    for secret in ["falcon", "wise@", "sithlord"] {
        for text in [&done.stdout, &done.stderr, &by_file.stdout, &by_file.stderr, &env.log()] {
            assert!(!text.contains(secret), "{secret} in:\n{text}");
        }
        assert!(!contains_bytes(&kept, secret.as_bytes()), "{secret} in a file");
    }
    // A record line does not reveal the password either.
    let user = UserName::parse("hans").expect("a name");
    let mut rng = StdRng::seed_from_u64(4);
    let line = fileshare::internals::server::auth::credentials::record_line(
        &user,
        b"falcon*solo",
        &mut rng,
        KeyStretching::Insecure,
    );
    assert!(!line.contains("falcon") && !line.contains(&hex::encode("falcon")));
}
