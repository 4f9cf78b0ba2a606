//! Attacks that need the real programs. Attacks on a single module are tested there; docs/SECURITY.md lists all of them.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;

use fileshare::internals::common::limits::{PROTOCOL_VERSION, USER_NAME_MAX_BYTES};
use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::types::UserName;
use fileshare::internals::server::auth::credentials::record_line;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::test_support::fake::UnauthenticatedSender;
use crate::test_support::{CREDENTIALS, Client, Running, TestEnv, auth, entries, free_port, isolate, seeded_bytes};

/// hans stays online and shares these names; the content of each file is its name.
fn sharing(env: &TestEnv, names: &[&str]) -> Running {
    let mut client = env.client("hans").user();
    for name in names {
        client = client.file(name, name);
    }
    let mut hans = client.args(["--stay"]).spawn();
    hans.skip_greeting();
    for name in names {
        hans.run_command(&format!("pub {name}"), &["File published successfully"]);
    }
    hans
}

#[test]
fn a_symlinked_folder_does_not_redirect_a_download() {
    let env = TestEnv::new();
    let _hans = sharing(&env, &["photos/a.jpg"]);
    let outside = env.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    for target in [outside.clone(), "../../outside".into()] {
        let client = env.client("vader").user().args(["-q", "--on-exists", "overwrite"]);
        let link = client.dir().join("photos");
        let _ = fs::remove_file(&link);
        symlink(target, &link).expect("a symlink");
        let done = client.run(&["get photos/a.jpg"]);
        done.expect(8, &["photos/a.jpg download failed"]);
        assert_eq!(entries(&outside), [""; 0]);
    }
}

#[test]
fn a_symlink_at_the_target_is_never_followed() {
    let env = TestEnv::new();
    let _hans = sharing(&env, &["a"]);
    let victim = env.path().join("victim");
    fs::write(&victim, "precious").expect("a file");
    for policy in ["error", "overwrite", "rename", "skip"] {
        let client = env.client("vader").user().args(["-q", "--on-exists", policy]);
        let link = client.dir().join("a");
        let _ = fs::remove_file(&link);
        symlink(&victim, &link).expect("a symlink");
        client.run(&["get a"]);
        assert_eq!(fs::read_to_string(&victim).expect("still there"), "precious", "{policy}");
    }
}

#[test]
fn a_published_file_swapped_for_a_symlink_is_not_served() {
    let env = TestEnv::new();
    let _hans = sharing(&env, &["a", "d/b"]);
    let dir = env.client("hans").dir().to_owned();
    let outside = env.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    // The same bytes as published, so that only the symbolic link can be the reason of the refusal.
    fs::write(outside.join("a"), "a").expect("a file");
    fs::write(outside.join("b"), "d/b").expect("a file");
    fs::remove_file(dir.join("a")).expect("a file");
    symlink(outside.join("a"), dir.join("a")).expect("a symlink");
    fs::remove_dir_all(dir.join("d")).expect("a folder");
    symlink(&outside, dir.join("d")).expect("a symlink");
    let done = env.client("vader").user().args(["-q"]).run(&["-get a", "get d/b"]);
    done.expect(6, &["a download failed", "d/b download failed"]);
}

#[test]
fn hidden_files_are_fetched_only_by_their_own_name() {
    let env = TestEnv::new();
    let _hans = sharing(&env, &[".bashrc", "d/.ssh/key", "d/plain"]);
    let client = env.client("vader").user().args(["-q"]);
    let dir = client.dir().to_owned();
    client.run(&["get d/", "-get *", "-get d/*"]).expect_code(0);
    assert_eq!(entries(&dir), ["d", "d/plain"]);
    env.client("vader").user().args(["-q"]).run(&["get .bashrc"]).expect(0, &[".bashrc downloaded successfully"]);
}

#[test]
fn typed_control_characters_are_escaped() {
    let env = TestEnv::new();
    let evil = "\x1b]0;owned\x07\x1b[2J\u{9b}31m\u{202e}";
    let script =
        format!("get 'x{evil}'\npub '{evil}'\nunp '{evil}'\nsch '{evil}'\n{evil}\nauth {evil} x\nhelp '{evil}'\n");
    let done =
        env.client("hans").user().file("batch", script.lines().map(|line| format!("-{line}\n")).collect::<String>());
    let done = done.args(["-v", "-b", "batch"]).spawn().finish();
    for text in [&done.stdout, &done.stderr, &env.log()] {
        assert!(!text.contains(['\x1b', '\x07', '\u{9b}', '\u{202e}']), "{text:?}");
    }
}

#[test]
fn a_user_name_from_the_network_cannot_break_a_log_line() {
    let env = TestEnv::with(CREDENTIALS, &["--log-level", "trace"]);
    let sender = UnauthenticatedSender::new(env.address());
    for name in ["a\nb", "\x1b[31m", "a\rb", "a b", "\u{9b}"] {
        let mut login = vec![0x04];
        login.extend([9; 16 + 32]);
        login.push(name.len() as u8);
        login.extend(name.as_bytes());
        login.resize(1 + 16 + 32 + 1 + USER_NAME_MAX_BYTES, 0);
        login.extend(seeded_bytes(1, 96));
        sender.send(&login);
    }
    sender.drain_replies([4; 16]);
    let log = env.log();
    assert!(!log.contains(['\x1b', '\r', '\u{9b}']), "{log:?}");
    for line in log.lines() {
        assert!(line.len() > 14 && line.as_bytes()[2] == b':' && line.as_bytes()[8] == b'.', "{line:?}");
    }
}

#[test]
fn a_hello_gets_one_small_retry_and_a_wrong_version_gets_the_number() {
    let env = TestEnv::new();
    let sender = UnauthenticatedSender::new(env.address());
    sender.send(&Packet::Hello { version: PROTOCOL_VERSION + 1, nonce: [5; 16] }.to_bytes());
    let answers = sender.drain_replies([6; 16]);
    assert_eq!(answers, [Packet::Version { version: PROTOCOL_VERSION, nonce: [5; 16] }.to_bytes()]);
}

#[test]
fn unvalidated_addresses_cost_no_state_and_get_only_cookies() {
    // A record line, because making a record of a password takes the server 19 MiB for a moment.
    let user = UserName::parse("hans").expect("a name");
    let record = record_line(&user, b"falcon*solo", &mut StdRng::seed_from_u64(1), KeyStretching::Argon2id);
    let env = TestEnv::with(&format!("{record}\n"), &[]);
    let sender = UnauthenticatedSender::new(env.address());
    let own = |round: u32, at: u32| -> [u8; 16] {
        [[round.to_be_bytes(); 2], [at.to_be_bytes(); 2]].concat().concat().try_into().expect("sixteen bytes")
    };
    let mut drawn = 0;
    let mut flood = |round: u32| {
        for at in 0..100 {
            let nonce = own(round, at);
            sender.send(&Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes());
            let (cookie, ke1) = ([round as u8; 32], seeded_bytes(at.into(), 96).try_into().expect("96 bytes"));
            sender.send(&Packet::Login1 { nonce, cookie, user: "hans", ke1: &ke1 }.to_bytes());
        }
        for answer in sender.drain_replies(own(round, u32::MAX)) {
            assert!(matches!(Packet::parse(&answer), Some(Packet::Retry { .. })), "{answer:x?}");
            drawn += 1;
        }
    };
    flood(0);
    let before = env.server().memory_kib("RssAnon");
    (1..300).for_each(&mut flood);
    let more = env.server().memory_kib("RssAnon").saturating_sub(before);
    assert!(drawn > 1_000 && more < 1_024, "{drawn} cookies, {more} KiB");
    // Neither this address nor this user has used any of its budget.
    env.client("hans").user().run(&["lap"]).expect_code(0);
    assert!(!env.log().contains("ERR"), "{}", env.log());
}

#[test]
fn a_false_server_gets_no_login_and_learns_no_password() {
    let false_server = TestEnv::with("hans some-other-password\n", &["--log-level", "trace"]);
    let done = false_server.client("hans").args(["-q"]).run(&[&auth("hans")]);
    done.expect(4, &["Authentication failed. Please try again."]);
    assert!(!false_server.log().contains("falcon"));
}

#[test]
fn the_listener_recovers_from_a_connection_flood_with_few_descriptors() {
    let env = TestEnv::with(CREDENTIALS, &["--liveness", "60"]);
    let port = free_port();
    let dir = env.client("hans").file("a", seeded_bytes(3, 500_000)).dir().to_owned();
    let mut command = Command::new("sh");
    isolate(&mut command, &env.path().join("homes").join("hans"));
    command.current_dir(dir).env("FILESHARE_PASSWORD", "falcon*solo");
    command.arg("-c").arg("ulimit -n 64; exec \"$@\"").arg("sh").arg(env!("CARGO_BIN_EXE_client"));
    command.args(["127.0.0.1", &env.port().to_string(), "-u", "hans", "--stay", "-c", "pub a"]);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    let mut hans = Running::start("hans", command);
    hans.skip_greeting();
    hans.expect_lines(&["File published successfully"]);
    let flood: Vec<_> = (0..300).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port))).collect();
    assert!(flood.iter().filter(|stream| stream.is_ok()).count() > 64, "the flood is larger than the table");
    drop(flood);
    env.client("vader").user().args(["-q"]).run(&["get a"]).expect(0, &["a downloaded successfully"]);
    assert!(!env.log().contains("hans timed out"));
}

#[test]
fn guessing_passwords_does_not_lock_out_the_user() {
    let env = TestEnv::new();
    let mut guesser = env.client("guesser").args(["-q"]).spawn();
    let mut guesses = 0;
    while !guesser.err.text().contains("too many attempts") {
        guesser.run_command(&format!("auth hans guess-{guesses}"), &["Authentication failed. Please try again."]);
        guesses += 1;
        assert!(guesses < 100, "guesses are never throttled");
    }
    let relay = crate::test_support::relay::UdpRelay::start(env.address(), Ipv4Addr::new(127, 0, 0, 2));
    Client::new(env.path(), "hans", "127.0.0.1", relay.port()).user().run(&["lap"]).expect_code(0);
}

#[test]
fn claimed_identities_are_not_trusted() {
    // A session of vader cannot act for hans: every message in it is vader's.
    let env = TestEnv::new();
    let mut hans = env.client("hans").file("a", "a").spawn();
    hans.log_in("hans");
    hans.run_command("pub a", &["File published successfully"]);
    let mut vader = env.client("vader").spawn();
    vader.log_in("vader");
    vader.run_command("unp a", &["File unpublication failed"]);
    hans.run_command("lpf", &["1 file published:", "a"]);
}
