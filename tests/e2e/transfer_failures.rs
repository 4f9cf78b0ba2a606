//! `get` under failures: a crash, a misbehaving uploader, a full disk; and how a download becomes a source.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::test_support::misbehaving_peer::MisbehavingPeer;
use crate::test_support::relay::{TcpRelay, UdpRelay};
use crate::test_support::{COMMANDS, CREDENTIALS, Client, Running, TestEnv, entries, free_port, isolate, seeded_bytes};

#[test]
fn content_that_does_not_match_its_hash_is_exit_7_and_leaves_no_file() {
    let env = TestEnv::new();
    let _attacker = MisbehavingPeer::start(env.address(), "hans", "a", b"what was promised");
    let client = env.client("vader").user();
    let dir = client.dir().to_owned();
    let done = client.run(&["get a"]);
    done.expect(7, &["Welcome, vader!", COMMANDS, "a download failed", "Goodbye!"]);
    assert!(done.stderr.contains("hans"), "the misbehaving uploader is named:\n{}", done.stderr);
    assert!(entries(&dir).iter().all(|name| name.ends_with(".part")), "{:?}", entries(&dir));

    // With an honest source, the misbehaving one costs a message only.
    let _yoda =
        env.client("yoda").user().file("a", "what was promised").stay(&["pub a"], &["File published successfully"]);
    let client = env.client("vader").user().args(["-q"]);
    client.run(&["get a"]).expect(0, &["a downloaded successfully"]);
    assert_eq!(fs::read_to_string(dir.join("a")).expect("a copy"), "what was promised");
}

#[test]
fn a_publication_with_a_false_size_does_not_block_the_download() {
    let env = TestEnv::new();
    let _yoda =
        env.client("yoda").user().file("a", "what was promised").stay(&["pub a"], &["File published successfully"]);
    let _attacker = MisbehavingPeer::start_with_size(env.address(), "hans", "a", b"what was promised", 18);
    let client = env.client("vader").user().args(["-q"]);
    let dir = client.dir().to_owned();
    let done = client.run(&["sch -l a", "get a"]);
    let lines: Vec<&str> = done.stdout.lines().collect();
    let [_, honest, false_size, fetched] = lines[..] else { panic!("{lines:?}") };
    assert!(honest.starts_with("a\t17\t1\t") && false_size.starts_with("a\t18\t1\t"), "{lines:?}");
    assert_eq!((done.code, fetched), (0, "a downloaded successfully"));
    assert_eq!(fs::read_to_string(dir.join("a")).expect("a copy"), "what was promised");
}

#[test]
fn a_full_disk_is_exit_9_and_smaller_files_still_arrive() {
    let env = TestEnv::new();
    let _hans = env
        .client("hans")
        .user()
        .file("large", seeded_bytes(1, 4 << 20))
        .file("small", "small")
        .stay(&["pub large small"], &["2 files published successfully"]);
    let dir = env.client("vader").dir().to_owned();
    // A disk of 1 MiB, mounted where only this client sees it. This needs user namespaces but no privileges; without
    // them, the tests of the download module cover a full disk.
    let mut command = Command::new("unshare");
    isolate(&mut command, &env.path().join("homes").join("vader"));
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=1m tmpfs \"$1\" || exit 77; dir=$1; shift; cd \"$dir\"; exec \"$@\"");
    command.arg("sh").arg(&dir).arg(env!("CARGO_BIN_EXE_client")).args(["127.0.0.1", &env.port().to_string()]);
    command.env("FILESHARE_PASSWORD", "sithlord**").args(["-q", "-u", "vader", "-c", "-get large", "-c", "get small"]);
    command.args(["-c", "get large"]);
    let done = Running::start("vader", command).finish();
    if done.stdout.is_empty() && (done.code == 77 || done.stderr.contains("unshare")) {
        eprintln!("no small disk can be mounted here: {}", done.stderr);
        return;
    }
    done.expect(9, &["large download failed", "small downloaded successfully", "large download failed"]);
    assert!(done.stderr.contains("disk is full") || done.stderr.contains("No space"), "{}", done.stderr);
}

#[test]
fn the_limit_on_file_sizes_is_an_error_like_a_full_disk_and_no_signal() {
    let env = TestEnv::new();
    let hans = env.client("hans").user().file("large", seeded_bytes(1, 3 << 20)).file("small", "small");
    let _hans = hans.stay(&["pub large small"], &["2 files published successfully"]);
    let mut command = Command::new("prlimit");
    isolate(&mut command, &env.path().join("homes").join("vader"));
    command.arg("--fsize=524288").arg(env!("CARGO_BIN_EXE_client")).args(["127.0.0.1", &env.port().to_string()]);
    command.arg("-d").arg(env.client("vader").dir()).env("FILESHARE_PASSWORD", "sithlord**");
    command.args(["-q", "-u", "vader", "-c", "-get large", "-c", "get small", "-c", "get large"]);
    let done = Running::start("vader", command).finish();
    done.expect(9, &["large download failed", "small downloaded successfully", "large download failed"]);
    assert!(done.stderr.lines().count() == 2 && done.stderr.contains("ulimit"), "{}", done.stderr);
}

#[test]
fn a_download_resumes_after_a_crash() {
    const SIZE: usize = 16 << 20;
    let env = TestEnv::new();
    let behind = Ipv4Addr::new(127, 0, 0, 2);
    let udp = UdpRelay::start(env.address(), behind);
    let tcp = TcpRelay::start(behind);
    let listen = format!("127.0.0.1:{}", tcp.port());
    let content = seeded_bytes(5, SIZE);
    let hans = Client::new(env.path(), "hans", "127.0.0.1", udp.port()).user().file("large", &content);
    let _hans =
        hans.args(["--listen", &listen, "--limit-rate", "6M"]).stay(&["pub large"], &["File published successfully"]);

    let client = env.client("vader").user().args(["-q"]);
    let dir = client.dir().to_owned();
    let vader = client.commands(&["get large"]).spawn();
    tcp.wait_forwarded(SIZE / 2);
    vader.kill();
    let left = entries(&dir);
    assert!(left.len() == 1 && left[0].starts_with('.') && left[0].ends_with(".part"), "{left:?}");

    let before = tcp.forwarded();
    env.client("vader").user().args(["-q"]).run(&["get large"]).expect(0, &["large downloaded successfully"]);
    assert!(fs::read(dir.join("large")).expect("a copy") == content);
    assert_eq!(entries(&dir), ["large"]);
    let again = tcp.forwarded() - before;
    assert!(again < SIZE * 3 / 4, "{again} bytes of {SIZE} were sent for the second half");
}

#[test]
fn get_share_republishes_to_the_same_audience() {
    let env = TestEnv::with(&format!("{CREDENTIALS}leia x\n"), &[]);
    let client = env.client("hans").user().file("open", "for all").file("plan", "for some");
    let mut hans = client.spawn();
    hans.skip_greeting();
    hans.run_command("pub open", &["File published successfully"]);
    hans.run_command("pub --to vader --to yoda plan", &["File published successfully"]);
    let mut vader = env.client("vader").user().spawn();
    vader.skip_greeting();
    vader.run_command("get --share open plan", &["open downloaded successfully", "plan downloaded successfully"]);
    vader.run_command("lpf", &["2 files published:", "open", "plan"]);
    hans.run_command("xit", &["Goodbye!"]);
    hans.finish();
    let yoda = env.client("yoda").user().args(["-q"]).run(&["get open plan"]);
    yoda.expect(0, &["open downloaded successfully", "plan downloaded successfully"]);
    let leia = env.client("leia").user_as("leia", "x").args(["-q"]).run(&["get open plan"]);
    leia.expect(5, &["open downloaded successfully", "File not found"]);
}

#[test]
fn a_user_who_claims_the_address_of_another_does_not_keep_its_files_away() {
    let env = TestEnv::new();
    let (port, content) = (free_port(), seeded_bytes(8, 3 << 20));
    let listen = format!("127.0.0.1:{port}");
    let hans = env.client("hans").user().file("a", &content).args(["--listen", &listen]);
    let _hans = hans.stay(&["pub a"], &["File published successfully"]);
    let _vader = MisbehavingPeer::claim(env.address(), "vader", "a", &content, port);
    // Which of the two users is tried first is decided by lot.
    for _ in 0..4 {
        let yoda = env.client("yoda").user().args(["-q"]);
        let copy = yoda.dir().join("a");
        yoda.run(&["get a"]).expect(0, &["a downloaded successfully"]);
        assert!(fs::read(&copy).expect("a copy") == content);
        fs::remove_file(copy).expect("our own file");
    }
}
