//! Malformed input: one clear error for the user, no reply to unauthenticated senders, and no harm to the programs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::test_support::fake::{FakeServer, UnauthenticatedSender};
use crate::test_support::{CREDENTIALS, Client, TestEnv, free_port, seeded_bytes};

/// Whether the server may reply to an unauthenticated sender: a HELLO of its size or a RESUME of a possible size.
fn may_get_a_reply(datagram: &[u8]) -> bool {
    match datagram.first() {
        Some(0x01) => datagram.len() == 256,
        Some(0x08) => (98..=321).contains(&datagram.len()),
        _ => false,
    }
}

fn assert_server_works(env: &TestEnv) {
    env.client("hans").user().run(&["lap"]).expect_code(0);
}

#[test]
fn an_empty_datagram_is_ignored() {
    let env = TestEnv::new();
    let sender = UnauthenticatedSender::new(env.address());
    sender.send(&[]);
    assert_eq!(sender.drain_replies([1; 16]), Vec::<Vec<u8>>::new());
    assert_server_works(&env);
}

#[test]
fn a_hundred_thousand_random_datagrams_get_no_reply_and_do_no_harm() {
    let env = TestEnv::with(CREDENTIALS, &["--liveness", "60"]);
    let mut hans = env.client("hans").spawn();
    hans.log_in("hans");
    let log_before = env.log_after_login("hans");
    let sender = UnauthenticatedSender::new(env.address());
    let mut rng = ChaCha20Rng::seed_from_u64(20_260_101);
    for round in 0..100_000_u32 {
        let mut datagram = vec![0; rng.gen_range(0..1_500)];
        rng.fill(datagram.as_mut_slice());
        // Half of them start with a kind byte that the server knows.
        if round % 2 == 0 && !datagram.is_empty() {
            datagram[0] = *[0x01, 0x04, 0x06, 0x08, 0x10].get(rng.gen_range(0..5)).expect("one of five");
        }
        if !may_get_a_reply(&datagram) {
            sender.send(&datagram);
        }
        if round % 1_000 == 0 {
            assert_eq!(sender.drain_replies(rng.r#gen()), Vec::<Vec<u8>>::new(), "by round {round}");
        }
    }
    assert_eq!(sender.drain_replies([2; 16]), Vec::<Vec<u8>>::new());
    assert_eq!(env.log(), log_before, "malformed bytes are not logged");
    hans.run_command("lap", &["No active peers"]);
    assert!(!env.log().contains("timed out"));
}

#[test]
fn truncated_and_oversized_packets_are_ignored() {
    let env = TestEnv::new();
    let sender = UnauthenticatedSender::new(env.address());
    let sizes = [(0x01, 256), (0x04, 210), (0x06, 129), (0x08, 197), (0x10, 1_200)];
    for (kind, size) in sizes {
        for length in (0..=size + 2).chain([1_201, 9_000, 60_000]) {
            let mut datagram = seeded_bytes(length as u64, length);
            if let Some(first) = datagram.first_mut() {
                *first = kind;
            }
            if !may_get_a_reply(&datagram) {
                sender.send(&datagram);
            }
        }
        assert_eq!(sender.drain_replies([kind; 16]), Vec::<Vec<u8>>::new(), "kind {kind:#x}");
    }
    assert_server_works(&env);
}

#[test]
fn replies_to_unauthenticated_senders_are_not_larger_than_requests() {
    let env = TestEnv::new();
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    for length in [98, 150, 256, 321] {
        let sender = UnauthenticatedSender::new(env.address());
        let mut datagram = vec![0; length];
        rng.fill(datagram.as_mut_slice());
        datagram[0] = 0x08;
        sender.send(&datagram);
        let answers = sender.drain_replies([3; 16]);
        assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.len() <= length), "{answers:?}");
    }
}

#[test]
fn a_server_that_sends_garbage_counts_as_unreachable() {
    let env = TestEnv::stopped("");
    let garbage = FakeServer::start(|datagram| Some(seeded_bytes(datagram.len() as u64, 300)));
    let done = Client::new(env.path(), "hans", "127.0.0.1", garbage.port()).user().run(&["lap"]);
    done.expect_code(3);
    done.one_line_of_stderr();
}

#[test]
fn garbage_and_silent_connections_do_not_stop_the_listener() {
    let env = TestEnv::new();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let client = env.client("hans").user().file("a", seeded_bytes(1, 200_000)).args(["--listen", &listen]);
    let mut hans = client.args(["--stay"]).spawn();
    hans.skip_greeting();
    hans.run_command("pub a", &["File published successfully"]);
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the listener is there");
    let _silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    for seed in 0..20 {
        let mut stream = connect();
        // The listener may close the connection at once, before the write finishes.
        let _ = stream.write_all(&seeded_bytes(seed, 10_000));
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, [0; 0], "an unauthenticated peer gets no reply");
    }
    for length in [[0; 4], [0xff; 4], [0x7f, 0xff, 0xff, 0xff]] {
        let _ = connect().write_all(&length.repeat(3));
    }
    env.client("vader").user().args(["-q"]).run(&["get a"]).expect(0, &["a downloaded successfully"]);
    hans.run_command("lap", &["No active peers"]);
    assert!(hans.memory_kib("VmHWM") < 64 << 10, "{} KiB", hans.memory_kib("VmHWM"));
}

#[test]
fn an_unusable_listen_address_is_reported_at_start() {
    let env = TestEnv::new();
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let listen = taken.local_addr().expect("a bound socket").to_string();
    let done = env.client("hans").user().args(["--listen", &listen]).run(&["lap"]);
    assert!(done.code != 0, "{done:?}");
    assert!(done.one_line_of_stderr().contains(&listen), "{}", done.stderr);
}

#[test]
fn a_missing_folder_is_reported_at_start() {
    let env = TestEnv::new();
    let done = env.client("hans").user().args(["--dir", "missing"]).run(&["lap"]);
    done.expect_code(8);
    assert!(done.one_line_of_stderr().contains("missing"), "{}", done.stderr);
}

#[test]
fn invalid_utf8_input_is_a_failed_command() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("batch", b"pub \xff\xfe\nlap\n".as_slice()).args(["-q", "-b", "batch"]);
    let done = client.spawn().finish();
    assert!(done.code == 2 || done.code == 8, "{done:?}");
    let command = std::ffi::OsStr::from_bytes(b"sch caf\xe9");
    let done = env.client("hans").user().args(["-q", "-c", "lap", "-c"]).args([command]).spawn().finish();
    done.expect(2, &["No active peers"]);
    assert!(done.one_line_of_stderr().contains("UTF-8"), "{}", done.stderr);
    let name = std::ffi::OsStr::from_bytes(b"h\xe4ns");
    env.client("hans").user().env("FILESHARE_USER", name).args(["-q"]).run(&["lap"]).expect(0, &["No active peers"]);
    env.client("hans").env("FILESHARE_USER", name).run(&["help"]).expect_code(2);
    let client = env.client("vader").user().file("a", "a").args(["-q"]);
    let latin = client.dir().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::write(latin, "x").expect("a name is any bytes");
    let done = client.pipe(&["pub .", "lpf"]);
    done.expect(8, &["File published successfully", "File publication failed", "1 file published:", "a"]);
    let done = env.client("hans").user().args(["-q"]).pipe(&["pub 'unclosed", "lap", &"x".repeat(100_000), "lpf"]);
    assert!(done.stdout.ends_with("No files published\n"), "{done:?}");
    done.expect_code(2);
}
