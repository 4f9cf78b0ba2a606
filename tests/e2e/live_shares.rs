//! A folder that is watched at one client and mirrored at another, while a random script changes it. `FILESHARE_LIVE_SEEDS`
//! sets how many scripts run, `FILESHARE_LIVE_CHANGES` how long each is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::test_support::{Running, TIMEOUT, TestEnv, entries, seeded_bytes};

/// Names of a script.
const NAMES: usize = 40;

fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// The files beneath a folder that are not hidden.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = entries(dir).into_iter().filter(|name| !name.split('/').any(|part| part.starts_with('.')));
    // What is removed meanwhile is no file.
    names.filter_map(|name| Some((name.clone(), fs::read(dir.join(&name)).ok()?))).collect()
}

/// One change of a script.
fn change(dir: &Path, random: &mut ChaCha20Rng) {
    let mut name = || {
        let folder = ["", "a", "a/b", "c"][random.gen_range(0..4)];
        dir.join(folder).join(format!("f{}", random.gen_range(0..NAMES)))
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
        _ if random.gen_bool(0.1) => drop(fs::remove_dir_all(dir.join("a"))),
        _ => {}
    }
}

fn start_follower(env: &TestEnv) -> Running {
    let mut hans = env.client("hans").user().args(["-q", "--stay"]).spawn();
    hans.send("follow --mirror --from vader x/");
    hans
}

#[test]
fn a_mirror_is_identical_after_any_script() {
    for seed in 0..setting("FILESHARE_LIVE_SEEDS", 3) {
        run_script(seed, setting("FILESHARE_LIVE_CHANGES", 150));
    }
}

/// Meanwhile nothing, the server or the follower is killed and restarted.
fn run_script(seed: u64, changes: u64) {
    let mut env = TestEnv::new();
    let port = env.port();
    let vader = env.client("vader").file("x/first", "1").user().args(["-q", "--stay"]);
    let (source, copy) = (vader.dir().join("x"), env.client("hans").dir().join("x"));
    let mut vader = vader.spawn();
    vader.run_command("pub --watch x", &["File published successfully"]);
    let mut hans = start_follower(&env);
    hans.expect_lines(&["x/first downloaded successfully"]);
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    for at in 0..changes {
        change(&source, &mut random);
        match (seed % 3, at == changes / 2) {
            (1, true) => {
                env.kill_server();
                env.use_port(port);
                env.start();
            }
            (2, true) => {
                hans.kill();
                hans = start_follower(&env);
            }
            _ => {}
        }
    }
    let started = Instant::now();
    while content(&source) != content(&copy) {
        assert!(
            started.elapsed() < TIMEOUT,
            "seed {seed}: {:?} and {:?}",
            content(&source).keys(),
            content(&copy).keys(),
        );
        std::thread::yield_now();
    }
    assert!(!content(&source).is_empty());
}
