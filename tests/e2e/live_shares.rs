//! A folder that is watched at one client and followed at another, while a random script changes it. `FILESHARE_LIVE_SEEDS`
//! sets how many scripts run, `FILESHARE_LIVE_CHANGES` how long each is. At length: `scripts/live-shares.sh`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::test_support::{Running, TIMEOUT, TestEnv, entries, seeded_bytes};

/// Names of a script.
const NAMES: usize = 40;
/// After a start of the server, absence counts when the liveness time and the longest resumption delay have passed: a mirror
/// removes nothing before.
const ABSENCE_SETTLES: Duration = Duration::from_secs(3 + 5);

fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// The files beneath a folder that are not hidden.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = entries(dir).into_iter().filter(|name| !name.split('/').any(|part| part.starts_with('.')));
    // What is removed meanwhile is no file.
    names.filter_map(|name| Some((name.clone(), fs::read(dir.join(&name)).ok()?))).collect()
}

/// One change of a script, of names with this prefix. `removes_folders`: also of all that is in a folder.
fn change(dir: &Path, prefix: &str, removes_folders: bool, random: &mut ChaCha20Rng) {
    let mut name = || {
        let folder = ["", "a", "a/b", "c"][random.gen_range(0..4)];
        dir.join(folder).join(format!("{prefix}{}", random.gen_range(0..NAMES)))
    };
    let (path, other) = (name(), name());
    for folder in [&path, &other].map(|path| path.parent().expect("a folder")) {
        fs::create_dir_all(folder).expect("a folder");
    }
    match random.gen_range(0..10) {
        0..6 => {
            let bytes = random.gen_range(0..20_000);
            fs::write(path, seeded_bytes(random.r#gen(), bytes)).expect("written");
        }
        // Neither needs the file to be there.
        6..8 => drop(fs::rename(path, other)),
        8 => drop(fs::remove_file(path)),
        _ if removes_folders && random.gen_bool(0.1) => drop(fs::remove_dir_all(dir.join("a"))),
        _ => {}
    }
}

/// What is watched and followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Mirror,
    /// Nothing is removed at the follower.
    Keep,
    /// Each side watches its folder and mirrors the other's files in it.
    BothWays,
}

/// The client of hans, who follows vader.
fn start_follower(env: &TestEnv, mode: Mode) -> Running {
    let mut hans = env.client("hans").user().args(["-q", "--stay"]).spawn();
    if mode == Mode::BothWays {
        hans.send("pub --watch x");
        hans.next_line();
    }
    hans.send(if mode == Mode::Keep { "follow --from vader x/" } else { "follow --mirror --from vader x/" });
    hans
}

#[test]
fn a_follower_is_in_step_after_any_script() {
    for seed in 0..setting("FILESHARE_LIVE_SEEDS", 9) {
        run_script(seed, setting("FILESHARE_LIVE_CHANGES", 60));
    }
}

/// Meanwhile nothing, the server or the follower is killed and restarted.
fn run_script(seed: u64, changes: u64) {
    let mode = [Mode::Mirror, Mode::Keep, Mode::BothWays][(seed / 3 % 3) as usize];
    let mut env = TestEnv::new();
    let absence_counts = || Some(Instant::now() + ABSENCE_SETTLES).filter(|_| mode != Mode::Keep);
    let mut settled = absence_counts();
    let port = env.port();
    let vader = env.client("vader").file("x/first", "1").user().args(["-q", "--stay"]);
    let hans = env.client("hans");
    let hans = if mode == Mode::BothWays { hans.file("x/second", "2") } else { hans };
    let (source, copy) = (vader.dir().join("x"), hans.dir().join("x"));
    let mut vader = vader.spawn();
    vader.run_command("pub --watch x", &["File published successfully"]);
    let mut hans = start_follower(&env, mode);
    hans.expect_lines(&["x/first downloaded successfully"]);
    if mode == Mode::BothWays {
        vader.run_command("follow --mirror x/", &["x/second downloaded successfully"]);
    }
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    for at in 0..changes {
        let (dir, prefix) = match mode {
            Mode::BothWays if random.gen_bool(0.5) => (&copy, "g"),
            _ => (&source, "f"),
        };
        change(dir, prefix, mode != Mode::BothWays, &mut random);
        match (seed % 3, at == changes / 2) {
            (1, true) => {
                env.kill_server();
                env.use_port(port);
                env.start();
                settled = absence_counts();
            }
            (2, true) => {
                hans.kill();
                hans = start_follower(&env, mode);
                hans.send("wait peer vader");
            }
            _ => {}
        }
    }
    if seed % 3 == 2 {
        // The follower logs in when the client that was killed is not active any more.
        hans.out.wait("the login of the follower", |out| out.contains("vader is active").then_some(()));
    }
    let started = Instant::now();
    let is_in_step = || {
        let (source, copy) = (content(&source), content(&copy));
        let is_copied = |(name, bytes): (&String, &Vec<u8>)| copy.get(name) == Some(bytes);
        if mode == Mode::Keep { source.iter().all(is_copied) } else { source == copy }
    };
    while !is_in_step() {
        let names = |dir| content(dir).into_keys().collect::<Vec<_>>();
        assert!(started.elapsed() < TIMEOUT, "seed {seed}, {mode:?}: {:?} and {:?}", names(&source), names(&copy));
        std::thread::yield_now();
    }
    let counted_from = settled.map_or(started, |settled| settled.max(started));
    println!("seed {seed}: {mode:?}: {changes} changes: in step after {} ms", counted_from.elapsed().as_millis());
    assert!(!content(&source).is_empty());
}
