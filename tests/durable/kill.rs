//! Kills the server at random moments while clients publish and unpublish as fast as they can.
//!
//! After each kill the data file must hold the acknowledged changes, or these and the one pending change. Every response to
//! a client, across any number of restarts, must match that client's own history.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fileshare::internals::client::control::{PublishAudience, SessionControl};
use fileshare::internals::common::types::{Audience, Content, ContentHash, FileName, NamedContent, UserName};
use fileshare::internals::server::journal::{Journal, LastMutation, LoadSink, StoredPublication};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::headless_client::{HeadlessClient, credentials, user};
use crate::test_support::TestEnv;

/// Environment variable: the number of rounds; 500 in the long version.
const ROUNDS: &str = "FILESHARE_TEST_KILL_ROUNDS";
/// Environment variable: the seed, which repeats the random choices but not the timing.
const SEED: &str = "FILESHARE_TEST_SEED";
const USERS: usize = 6;
/// Number of names each user publishes.
const NAMES: usize = 30;
/// Maximum names of one change: they fit one datagram, so that a change is stored as a whole or not at all.
const CHANGE_MAX: usize = 9;

/// One user's publications.
type Files = BTreeMap<FileName, (Content, Audience)>;

/// The acknowledged publications of a user, and the publications after the pending change.
#[derive(Default)]
struct History {
    acknowledged: Files,
    pending: Option<Files>,
    changes: usize,
}

#[test]
fn acknowledged_changes_and_nothing_else_survive_random_kills() {
    let rounds: usize = std::env::var(ROUNDS).map_or(10, |rounds| rounds.parse().unwrap());
    let seed: u64 = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed} {ROUNDS}={rounds}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut env = TestEnv::with(&credentials(USERS), &["--log-level", "warn"]);
    let address = env.address();
    let (stop, histories) = (Arc::new(AtomicBool::new(false)), Arc::<[Mutex<History>; USERS]>::default());
    let workers: Vec<_> = (0..USERS)
        .map(|number| {
            let (stop, histories) = (Arc::clone(&stop), Arc::clone(&histories));
            let rng = ChaCha20Rng::from_seed(rng.r#gen());
            let client = HeadlessClient::log_in(address, number);
            thread::spawn(move || work(client, &histories[number], &stop, rng))
        })
        .collect();
    for round in 0..rounds {
        // Usually amid changes, sometimes before any client has reconnected.
        let most = if rng.gen_bool(0.2) { 30 } else { 900 };
        thread::sleep(Duration::from_millis(rng.gen_range(0..most)));
        assert!(workers.iter().all(|worker| !worker.is_finished()), "round {round}: a client has stopped");
        env.kill_server();
        let stored = read_copied_data(&env.data());
        for (number, history) in histories.iter().enumerate() {
            let (history, stored) = (history.lock().unwrap(), stored.get(&user(number)).cloned().unwrap_or_default());
            let is_right = stored == history.acknowledged || Some(&stored) == history.pending.as_ref();
            assert!(is_right, "round {round}, user {number}: {stored:#?}\nis not {:#?}", history.acknowledged);
        }
        env.start();
    }
    stop.store(true, SeqCst);
    let resumed: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    let changes: usize = histories.iter().map(|history| history.lock().unwrap().changes).sum();
    println!(
        "{rounds} rounds: {changes} changes were acknowledged, sessions were resumed {resumed} times, nothing was lost"
    );
    assert!(changes > rounds && resumed >= rounds, "{changes} changes, {resumed} resumptions");
}

/// One user's client: changes its publications and checks every response. Returns the number of resumptions.
fn work(client: HeadlessClient, history: &Mutex<History>, stop: &AtomicBool, mut rng: ChaCha20Rng) -> usize {
    while !stop.load(SeqCst) {
        let mut names: Vec<FileName> = (0..NAMES).map(name).collect();
        names.shuffle(&mut rng);
        names.truncate(rng.gen_range(1..=CHANGE_MAX));
        let mut after = history.lock().unwrap().acknowledged.clone();
        if rng.gen_bool(0.6) {
            publish(&client, names, &mut after, history, &mut rng);
        } else {
            let expected: Vec<bool> = names.iter().map(|name| after.remove(name).is_some()).collect();
            history.lock().unwrap().pending = Some(after.clone());
            assert_eq!(client.server_api.unpublish(&names).unwrap(), expected, "{}", client.user);
        }
        let mut history = history.lock().unwrap();
        (history.acknowledged, history.pending) = (after, None);
        history.changes += 1;
        let acknowledged = history.acknowledged.clone();
        drop(history);
        if rng.gen_ratio(1, 20) {
            check_list(&client, &acknowledged);
        }
    }
    check_list(&client, &history.lock().unwrap().acknowledged);
    // Republication would restore what the server had lost, and so hide the loss.
    assert_eq!(client.counters.republished_files.load(SeqCst), 0, "{}", client.user);
    assert_eq!(client.counters.logged_out.load(SeqCst), 0, "{}", client.user);
    client.control.logout();
    client.counters.resumed.load(SeqCst)
}

fn publish(
    client: &HeadlessClient,
    names: Vec<FileName>,
    after: &mut Files,
    history: &Mutex<History>,
    rng: &mut ChaCha20Rng,
) {
    let audience = match rng.gen_ratio(1, 4) {
        true => Audience::only((0..rng.gen_range(1..4)).map(user).collect()),
        false => Audience::Everyone,
    };
    let mut content = || Content { hash: ContentHash(rng.r#gen()), size: rng.r#gen(), mtime_ms: rng.r#gen() };
    let files: Vec<_> = names.into_iter().map(|name| NamedContent { name, content: content() }).collect();
    after.extend(files.iter().map(|file| (file.name.clone(), (file.content, audience.clone()))));
    history.lock().unwrap().pending = Some(after.clone());
    client.server_api.publish(&files, &PublishAudience::Audience(audience)).unwrap();
}

/// Checks that the client's list equals the acknowledged publications.
fn check_list(client: &HeadlessClient, expected: &Files) {
    let listed = client.server_api.published().unwrap();
    let listed: Vec<_> = listed.into_iter().map(|entry| (entry.name, entry.content, entry.restricted)).collect();
    let restricted = |audience: &Audience| *audience != Audience::Everyone;
    let expected: Vec<_> =
        expected.iter().map(|(name, (content, audience))| (name.clone(), *content, restricted(audience))).collect();
    assert_eq!(listed, expected, "{}", client.user);
}

fn name(number: usize) -> FileName {
    FileName::parse(&format!("folder {}/file {number:02}", number % 3)).unwrap()
}

/// Reads all publications from a copy of the data file, as the next server will load them.
fn read_copied_data(data: &Path) -> BTreeMap<UserName, Files> {
    #[derive(Default)]
    struct Contents(BTreeMap<UserName, Files>);
    impl LoadSink for Contents {
        fn publication(&mut self, publication: StoredPublication) {
            let StoredPublication { user, file, audience, .. } = publication;
            self.0.entry(user).or_default().insert(file.name, (file.content, (*audience).clone()));
        }
        fn last_mutation(&mut self, _: UserName, _: LastMutation) {}
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    fs::copy(data, &copy).unwrap();
    let log = data.with_extension("db-wal");
    if log.exists() {
        fs::copy(log, copy.with_extension("db-wal")).unwrap();
    }
    let mut contents = Contents::default();
    Journal::open(&copy, &mut contents, Box::new(|| {})).unwrap().close().unwrap();
    contents.0
}
