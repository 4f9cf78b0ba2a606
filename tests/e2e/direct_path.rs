//! Files passed between clients of one user on one host, in place of their bytes.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::test_support::relay::{TcpRelay, UdpRelay};
use crate::test_support::{Client, Running, TestEnv, entries, seeded_bytes, wait_until};

const MIB: usize = 1 << 20;

/// hans, with `large` published, whose TCP connections are recorded.
struct RecordedSource {
    tcp: TcpRelay,
    content: Vec<u8>,
    _udp: UdpRelay,
    _hans: Running,
}

fn recorded_source(env: &TestEnv, size: usize, args: &[&str]) -> RecordedSource {
    let behind = Ipv4Addr::new(127, 0, 0, 2);
    let (udp, tcp) = (UdpRelay::start(env.address(), behind), TcpRelay::start(behind));
    let (listen, content) = (format!("127.0.0.1:{}", tcp.port()), seeded_bytes(5, size));
    let hans = Client::new(env.path(), "hans", "127.0.0.1", udp.port()).user().file("large", &content);
    let hans = hans.args(["--listen", &listen]).args(args);
    let hans = hans.stay(&["pub large"], &["File published successfully"]);
    RecordedSource { tcp, content, _udp: udp, _hans: hans }
}

#[test]
fn a_file_is_passed_unless_either_side_does_without() {
    let size = 3 * MIB + 1;
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &[]),
        (&["--tcp-only"], &[]),
        (&[], &["--tcp-only"]),
        (&["--no-control"], &[]),
        (&[], &["--no-control"]),
        (&["--limit-rate", "1G"], &[]),
        (&[], &["--limit-rate", "1G"]),
    ];
    for (of_source, own) in cases {
        let env = TestEnv::new();
        let source = recorded_source(&env, size, of_source);
        let client = env.client("vader").user().args(["-q"]).args(own);
        let dir = client.dir().to_owned();
        let done = client.run(&["get large"]);
        done.expect(0, &["large downloaded successfully"]);
        assert_eq!(done.stderr, "", "{of_source:?}, {own:?}");
        assert!(fs::read(dir.join("large")).expect("a copy") == source.content, "{of_source:?}, {own:?}");
        let is_passed = source.tcp.forwarded() < MIB;
        assert_eq!(is_passed, of_source.is_empty() && own.is_empty(), "{of_source:?}, {own:?}");
    }
}

#[test]
fn a_client_whose_control_folder_is_gone_is_fetched_from_over_tcp() {
    let env = TestEnv::new();
    let source = recorded_source(&env, 3 * MIB, &[]);
    fs::remove_dir_all(env.path().join("homes/hans/.xdg/runtime/fileshare")).expect("the folder of the socket");
    let client = env.client("vader").user().args(["-q"]);
    let dir = client.dir().to_owned();
    let done = client.run(&["get large"]);
    done.expect(0, &["large downloaded successfully"]);
    assert!(done.stderr.is_empty() && source.tcp.forwarded() > 3 * MIB, "{}", done.stderr);
    assert!(fs::read(dir.join("large")).expect("a copy") == source.content);
}

#[test]
fn thousands_of_files_that_are_passed_or_sent_keep_their_names_and_times() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user();
    for number in 0..3_000 {
        // Every tenth is passed, the others are too small.
        let length = if number % 10 == 0 { 10_000 } else { 1 };
        hans = hans.file(&format!("many/{number:04}"), format!("content of {number:05}").repeat(length));
    }
    let source = hans.dir().to_owned();
    let _hans = hans.stay(&["pub many"], &["3000 files published successfully"]);
    let client = env.client("vader").user().args(["-q"]);
    let dir = client.dir().to_owned();
    client.run(&["get many/"]).expect_code(0);
    assert_eq!(entries(&dir).len(), 3_001);
    let modified = |dir: &Path, name: &str| {
        let modified = fs::metadata(dir.join(name)).and_then(|metadata| metadata.modified());
        modified.expect("a time").duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis()
    };
    for name in entries(&dir).iter().filter(|name| name.contains('/')) {
        assert_eq!(fs::read(dir.join(name)).expect("a copy"), fs::read(source.join(name)).expect("published"));
        assert_eq!(modified(&dir, name), modified(&source, name), "{name}");
    }
}

#[test]
fn a_download_of_a_passed_file_continues_after_a_kill() {
    let (env, content) = (TestEnv::new(), seeded_bytes(7, 64 * MIB));
    let hans = env.client("hans").user().file("f", &content);
    let _hans = hans.stay(&["pub f"], &["File published successfully"]);
    let dir = env.client("vader").dir().to_owned();
    let arrived = |name: &String| fs::metadata(dir.join(name)).map_or(0, |metadata| metadata.blocks() * 512);
    // A kill may come too late.
    for _ in 0..20 {
        let vader = env.client("vader").user().args(["-q"]).commands(&["get f"]).spawn();
        wait_until("8 MiB arrive", || entries(&dir).iter().map(arrived).sum::<u64>() >= 8 * MIB as u64);
        vader.signal(Signal::KILL);
        vader.finish();
        let done = env.client("vader").user().args(["-q", "--json"]).run(&["get f"]);
        done.expect_code(0);
        assert!(fs::read(dir.join("f")).expect("a copy") == content);
        assert_eq!(entries(&dir).len(), 1, "no part is left");
        let results = done.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if results.filter_map(|result| result["resumed_bytes"].as_u64()).sum::<u64>() > 0 {
            return;
        }
        fs::remove_file(dir.join("f")).expect("the copy");
    }
    panic!("nothing was continued");
}

#[test]
fn a_client_that_is_killed_while_it_saves_small_files_leaves_whole_ones_and_nothing_else() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user();
    for number in 0..3_000 {
        hans = hans.file(&format!("many/{number:04}"), format!("content of {number:05}").repeat(1 + number % 300));
    }
    let source = hans.dir().to_owned();
    let _hans = hans.stay(&["pub many"], &["3000 files published successfully"]);
    let dir = env.client("vader").dir().to_owned();
    let saved = |dir: &Path| {
        let names: Vec<String> = entries(dir).into_iter().filter(|name| name.contains('/')).collect();
        for name in &names {
            let is_whole = fs::read(dir.join(name)).ok() == fs::read(source.join(name)).ok();
            assert!(is_whole, "{name}");
        }
        names.len()
    };
    for round in 0..3 {
        let vader = env.client("vader").user().args(["-q"]).commands(&["get many/"]).spawn();
        wait_until("files arrive", || entries(&dir).len() >= 300 + 800 * round);
        vader.signal(Signal::KILL);
        vader.finish();
        saved(&dir);
    }
    env.client("vader").user().args(["-q"]).run(&["get many/"]).expect_code(0);
    assert_eq!(saved(&dir), 3_000);
}

/// At random moments of a transfer the file is changed, cut, replaced, removed or withdrawn, or a side killed: what then has
/// the name is what was published, or nothing has. `FILESHARE_ROUNDS` sets the number of moments.
#[test]
fn whatever_happens_during_a_transfer_no_other_content_gets_the_name() {
    let rounds = std::env::var("FILESHARE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(24);
    let (env, content) = (TestEnv::new(), seeded_bytes(6, 24 * MIB));
    let start_hans = || {
        let mut hans = env.client("hans").user().file("f", &content).spawn();
        hans.skip_greeting();
        hans.run_command("pub f", &["File published successfully"]);
        hans
    };
    let (mut hans, source) = (start_hans(), env.client("hans").dir().join("f"));
    let copy = env.client("vader").dir().join("f");
    let mut saved = 0;
    for round in 0..rounds {
        let _ = fs::remove_file(&copy);
        let vader = env.client("vader").user().args(["-q", "--retry-for", "0.2"]).commands(&["get f"]).spawn();
        let random = seeded_bytes(round, 4);
        // Mostly, once it has begun.
        let (begun, dir) = (Instant::now() + Duration::from_secs(2), copy.parent().expect("a folder"));
        while random[0] < 192 && entries(dir).is_empty() && Instant::now() < begun {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(u64::from(random[1]) * 100));
        let file = || fs::File::options().write(true).open(&source).expect("the file");
        match random[2] % 7 {
            0 => {
                std::os::unix::fs::FileExt::write_all_at(&file(), &[0; 4 * MIB], 2 * MIB as u64).expect("it is written")
            }
            1 => file().set_len(5 * MIB as u64).expect("it is cut"),
            2 => {
                let new = source.with_extension("new");
                fs::write(&new, vec![1; 24 * MIB]).and_then(|()| fs::rename(&new, &source)).expect("it is replaced");
            }
            3 => fs::remove_file(&source).expect("it is removed"),
            4 => hans.run_command("unp f", &["File unpublished successfully"]),
            5 => {
                hans.kill();
                hans = start_hans();
            }
            _ => vader.signal(Signal::KILL),
        }
        let done = vader.finish();
        let killed = 128 + Signal::KILL.as_raw();
        assert!([0, 5, 6, killed].contains(&done.code), "round {round}: {} {}", done.code, done.stderr);
        assert!(done.code != 0 || copy.exists(), "round {round}: {}", done.stderr);
        if copy.exists() {
            saved += 1;
            assert!(fs::read(&copy).expect("a copy") == content, "round {round}");
        }
        fs::write(&source, &content).expect("it is published again");
        hans.run_command("pub f", &["File published successfully"]);
    }
    println!("{saved} of {rounds} were complete");
}
