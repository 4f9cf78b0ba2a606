//! The journal with real files and with processes that are killed.
//!
//! Some tests need a second process: this test binary starts itself again with one ignored test as its program and
//! instructions in an environment variable.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use fileshare::internals::common::types::{
    Audience, Content, ContentHash, FileName, InstanceId, NamedContent, RequestId, UserName,
};
use fileshare::internals::server::journal::{
    Change, Journal, JournalError, JournalSeq, LastMutation, LoadSink, Mutation, StoredPublication,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rusqlite::Connection;

#[path = "journal/power_cut.rs"]
mod power_cut;

/// Environment variable with the instructions of the child process.
const CHILD: &str = "FILESHARE_TEST_JOURNAL_CHILD";
/// Environment variable with the rounds of the SIGKILL test; 500 for the long version.
const ROUNDS: &str = "FILESHARE_TEST_KILL_ROUNDS";
/// Environment variable with the seed of a run of the SIGKILL test to repeat.
const SEED: &str = "FILESHARE_TEST_SEED";

/// The contents of a journal: publications by owner and name, and the last mutation of each user.
#[derive(Debug, Default, Clone, PartialEq)]
struct Contents {
    publications: BTreeMap<(UserName, FileName), (Content, Audience, u64)>,
    last: BTreeMap<UserName, LastMutation>,
}

impl LoadSink for Contents {
    fn publication(&mut self, publication: StoredPublication) {
        let StoredPublication { user, file, audience, published_s } = publication;
        let before = self.publications.insert((user, file.name), (file.content, (*audience).clone(), published_s));
        assert!(before.is_none(), "a publication came twice");
    }
    fn last_mutation(&mut self, user: UserName, last: LastMutation) {
        assert!(self.last.insert(user, last).is_none(), "a last mutation came twice");
    }
}

impl Contents {
    /// The expected contents after one more mutation.
    fn apply(&mut self, mutation: &Mutation) {
        let Mutation { user, instance, request, change } = mutation;
        let found = match change {
            Change::Publish { files, audience, published_s } => {
                for file in files {
                    let key = (user.clone(), file.name.clone());
                    let content = |content: &Content| (content.hash, content.size);
                    let before = self.publications.get(&key);
                    let same = before.filter(|(before, ..)| content(before) == content(&file.content));
                    let published_s = same.map_or(*published_s, |&(_, _, before_s)| before_s);
                    self.publications.insert(key, (file.content, (**audience).clone(), published_s));
                }
                None
            }
            Change::Unpublish { names, found } => {
                for name in names {
                    self.publications.remove(&(user.clone(), name.clone()));
                }
                Some(*found)
            }
        };
        self.last.insert(user.clone(), LastMutation { instance: *instance, request: *request, found });
    }
}

/// A random mutation, determined by `seed` and `number`.
fn mutation(seed: u64, number: u64) -> Mutation {
    let mut rng = ChaCha20Rng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let user = |index: u32| UserName::parse(&format!("user{index}")).unwrap();
    let owner = user(rng.gen_range(0..5));
    let names: Vec<_> =
        (0..rng.gen_range(1..14)).map(|_| FileName::parse(&format!("f/{}", rng.gen_range(0..40))).unwrap()).collect();
    let change = if rng.gen_bool(0.4) {
        Change::Unpublish { names, found: rng.r#gen() }
    } else {
        // Few contents, so that some are published again.
        let (hash, size) = (ContentHash([rng.gen_range(0..3); 32]), rng.gen_range(0..2));
        let content = Content { hash, size, mtime_ms: rng.r#gen() };
        let files = names.into_iter().map(|name| NamedContent { name, content }).collect();
        let audience = match rng.gen_range(0..3) {
            0 => Audience::only((0..rng.gen_range(0..4)).map(user).collect()),
            _ => Audience::Everyone,
        };
        Change::Publish { files, audience: Arc::new(audience), published_s: rng.r#gen::<u32>().into() }
    };
    Mutation { user: owner, instance: InstanceId(seed), request: RequestId(number), change }
}

fn open(path: &Path) -> Result<(Journal, Contents, mpsc::Receiver<()>), JournalError> {
    let (sender, wakes) = mpsc::channel();
    let mut contents = Contents::default();
    let journal = Journal::open(path, &mut contents, Box::new(move || sender.send(()).unwrap_or_default()))?;
    Ok((journal, contents, wakes))
}

fn refusal(path: &Path) -> String {
    let line = open(path).map(|_| ()).unwrap_err().to_string();
    assert!(!line.contains('\n') && line.contains(path.file_name().unwrap().to_str().unwrap()), "{line:?}");
    line
}

fn wait_for(journal: &Journal, wakes: &mpsc::Receiver<()>, seq: JournalSeq) {
    while journal.durable() < seq {
        assert_eq!(journal.failed(), None);
        wakes.recv().unwrap();
    }
}

/// A temporary folder and the canonical path of a data file in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("data.db");
    (folder, path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

fn child(program: &str, instructions: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([program, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(CHILD, instructions);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The instructions, in the child process. `None` when an ignored test is started directly.
fn instructions() -> Option<String> {
    std::env::var(CHILD).ok()
}

#[test]
fn acknowledged_mutations_are_loaded_again() {
    let (_folder, path) = folder();
    let mut model = Contents::default();
    let mut secret = None;
    for round in 0..4 {
        let (mut journal, contents, wakes) = open(&path).unwrap();
        assert_eq!(contents, model);
        assert_eq!(*secret.get_or_insert(journal.root_secret()), journal.root_secret());
        assert_eq!(journal.durable(), JournalSeq(0));
        let mut last = JournalSeq(0);
        for number in 1..=100 {
            let mutation = mutation(round, number);
            model.apply(&mutation);
            last = journal.push(mutation).unwrap();
        }
        assert_eq!(last, JournalSeq(100));
        match round {
            0 => wait_for(&journal, &wakes, last),
            1 => drop(journal),
            _ => journal.close().unwrap(),
        }
    }
    assert!(!with_suffix(&path, "-wal").exists(), "a closed journal leaves no write-ahead log");
    assert_ne!(open(&folder().1).unwrap().0.root_secret(), secret.unwrap(), "each file has its own secret");
}

#[test]
fn a_second_server_is_rejected_and_does_not_disturb_the_first() {
    let (folder, path) = folder();
    let (mut journal, _, wakes) = open(&path).unwrap();
    let line = format!("{} is in use by another server (process {})", path.display(), std::process::id());
    assert_eq!(refusal(&path), line);
    // A link to the file is the same file.
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(open(&link).map(|_| ()).unwrap_err().to_string(), line);
    let seq = journal.push(mutation(1, 1)).unwrap();
    wait_for(&journal, &wakes, seq);
    journal.close().unwrap();
    assert_eq!(open(&link).unwrap().1.last.len(), 1);
}

#[test]
fn another_program_may_read_and_lock_the_file() {
    let (_folder, path) = folder();
    let (mut journal, _, wakes) = open(&path).unwrap();
    let mut model = Contents::default();
    let other_program = Connection::open(&path).unwrap();
    other_program.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 1..=50 {
        model.apply(&mutation(1, number));
        journal.push(mutation(1, number)).unwrap();
    }
    assert_eq!((journal.durable(), journal.failed()), (JournalSeq(0), None));
    other_program.execute_batch("COMMIT; BEGIN; SELECT count(*) FROM publications").unwrap();
    wait_for(&journal, &wakes, JournalSeq(50));
    // A copy made while the server runs is complete.
    let backup = path.with_file_name("backup.db");
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    let (restored, contents, _) = open(&backup).unwrap();
    assert_eq!(contents, model);
    assert_eq!(restored.root_secret(), journal.root_secret());
    journal.close().unwrap();
}

#[test]
fn another_kind_of_file_is_rejected_unchanged() {
    let (folder, path) = folder();
    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let other = fs::read(other).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"some text\n", "not an SQLite database"),
        (&[0; 8_192], "not an SQLite database"),
        (&other, "another program's SQLite database"),
        (&other[..50], "cut off in its header"),
    ];
    for (bytes, reason) in cases {
        fs::write(&path, bytes).unwrap();
        let expected = format!("{} is not a fileshare data file ({reason}); it was left as it is", path.display());
        assert_eq!(refusal(&path), expected);
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert!(!with_suffix(&path, "-wal").exists() && !with_suffix(&path, "-shm").exists());
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refusal(&path).contains("(a folder)"));
}

#[test]
fn an_empty_file_is_new_only_without_a_write_ahead_log() {
    let (_folder, path) = folder();
    let wal = with_suffix(&path, "-wal");
    for empty in [true, false] {
        if empty {
            fs::write(&path, b"").unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        fs::write(&wal, b"all there is").unwrap();
        assert!(refusal(&path).contains("it is empty or gone, but"));
        assert_eq!(fs::read(&wal).unwrap(), b"all there is");
        assert_eq!(path.exists(), empty);
    }
    fs::remove_file(&wal).unwrap();
    fs::write(&path, b"").unwrap();
    open(&path).unwrap().0.close().unwrap();
}

#[test]
fn the_error_names_the_path_that_cannot_be_written() {
    let missing = Path::new("/nonexistent/folder/data.db");
    assert_eq!(refusal(missing), "cannot use /nonexistent/folder/data.db: No such file or directory (os error 2)");
    assert!(refusal(Path::new("/proc/data.db")).starts_with("cannot use /proc/data.db.lock: "));
    let (_folder, path) = folder();
    std::os::unix::fs::symlink("/dev/null", with_suffix(&path, ".lock")).unwrap();
    assert!(refusal(&path).starts_with("cannot use "), "a link at the path of the lock file is not followed");
}

#[test]
fn a_readable_copy_gets_mode_0600() {
    let (_folder, path) = folder();
    open(&path).unwrap().0.close().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _journal = open(&path).unwrap().0;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_files_have_mode_0600_under_any_umask() {
    for umask in ["000", "777", "022"] {
        let (_folder, path) = folder();
        let mut child = child("opens_under_a_umask", &format!("{umask} {}", path.display()));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        assert!(stdout.by_ref().lines().any(|line| line.unwrap().ends_with("opened")), "umask {umask}");
        for suffix in ["", "-wal", "-shm", ".lock"] {
            let mode = fs::metadata(with_suffix(&path, suffix)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "umask {umask}, {suffix}");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
#[ignore = "the child process of another test"]
fn opens_under_a_umask() {
    let Some(instructions) = instructions() else { return };
    let (umask, path) = instructions.split_once(' ').unwrap();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(u32::from_str_radix(umask, 8).unwrap()));
    let (mut journal, _, wakes) = open(Path::new(path)).unwrap();
    let seq = journal.push(mutation(1, 1)).unwrap();
    wait_for(&journal, &wakes, seq);
    println!("opened");
    // Runs until the test closes its end of the pipe.
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn a_kill_at_any_moment_keeps_exactly_the_mutations_up_to_some_point() {
    let rounds: u64 = std::env::var(ROUNDS).map_or(20, |rounds| rounds.parse().unwrap());
    let seed: u64 = std::env::var(SEED).map_or_else(|_| rand::rngs::OsRng.r#gen(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed} {ROUNDS}={rounds}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (_folder, path) = folder();
    let mut model = Contents::default();
    let mut stored = 0;
    for round in 0..rounds {
        let acknowledged = run_and_kill(&path, seed, stored, &mut rng);
        let (journal, contents, _) = open(&path).unwrap();
        // Each mutation is stored with its number, so the highest is the last one stored.
        let last_stored = contents.last.values().map(|last| last.request.0).max().unwrap_or(0);
        assert!(last_stored >= acknowledged, "round {round}: {acknowledged} acknowledged, {last_stored} stored");
        for number in stored + 1..=last_stored {
            model.apply(&mutation(seed, number));
        }
        assert_eq!(contents, model, "round {round}, after mutation {last_stored}");
        stored = last_stored;
        drop(journal);
    }
    assert!(stored > rounds, "the rounds were too short");
}

/// Runs a child process that pushes from `stored` on, and kills it shortly after a random acknowledgement. Returns the last
/// number that it acknowledged.
fn run_and_kill(path: &Path, seed: u64, stored: u64, rng: &mut ChaCha20Rng) -> u64 {
    let mut child = child("pushes_until_killed", &format!("{seed} {stored} {} {}", u64::MAX, path.display()));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = 0;
    let mut lines_left = rng.gen_range(1..40);
    let mut line = String::new();
    while lines_left > 0 {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "the child process exited");
        if let Some(number) = acknowledgement(&line) {
            acknowledged = number;
            lines_left -= 1;
        }
    }
    // A random moment within the next transactions.
    #[expect(clippy::disallowed_methods, reason = "the moment of the kill is random")]
    std::thread::sleep(Duration::from_micros(rng.gen_range(0..3_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    for line in stdout.lines() {
        acknowledged = acknowledgement(&line.unwrap()).unwrap_or(acknowledged);
    }
    acknowledged
}

/// The dot marks a complete line.
fn acknowledgement(line: &str) -> Option<u64> {
    let number = line.trim_end().strip_prefix("acknowledged ")?.strip_suffix(" .")?;
    Some(number.parse().unwrap())
}

#[test]
#[ignore = "the child process of another test"]
fn pushes_until_killed() {
    let Some(instructions) = instructions() else { return };
    let words: Vec<_> = instructions.splitn(4, ' ').collect();
    let [seed, stored, enough] = [0, 1, 2].map(|word: usize| words[word].parse::<u64>().unwrap());
    let (mut journal, _, wakes) = open(Path::new(words[3])).unwrap();
    let mut pushed = 0;
    let mut acknowledged = JournalSeq(0);
    let mut stdout = std::io::stdout();
    println!();
    while acknowledged.0 < enough {
        // Several mutations ahead of the durable one, so that kills hit batches too.
        while pushed < journal.durable().0 + 8 {
            pushed += 1;
            journal.push(mutation(seed, stored + pushed)).unwrap();
        }
        wakes.recv().unwrap();
        let durable = journal.durable();
        if durable > acknowledged {
            acknowledged = durable;
            writeln!(stdout, "acknowledged {} .", stored + durable.0).unwrap();
        }
    }
    std::process::exit(0);
}
