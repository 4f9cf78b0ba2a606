//! A simulated power cut: any write that was not synced may be lost, in any order.
//!
//! A process pushes under `strace`, which records its writes, syncs and acknowledgements. The test replays the record on a
//! model of the disk up to a random moment, drops unsynced changes (all of them, or each at random), writes the remaining
//! files, and opens them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::{CHILD, Contents, ROUNDS, SEED, acknowledgement, folder, mutation, open};

/// Mutations of the recorded process: enough for several checkpoints of the write-ahead log.
const MUTATIONS: u64 = 12_000;

/// A change of a file by the recorded process, or an acknowledgement.
#[derive(Debug)]
enum Event {
    Create(String),
    Write(String, usize, Vec<u8>),
    Truncate(String, usize),
    Unlink(String),
    Sync(String),
    Acknowledge(u64),
}

/// A file at its last sync, and the changes since.
#[derive(Debug, Default, Clone)]
struct File {
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// The files of one folder. A change of names is durable when the folder is synced.
#[derive(Debug, Default)]
struct Disk {
    /// As the process sees them.
    names: BTreeMap<String, usize>,
    /// At the last sync of the folder.
    synced_names: BTreeMap<String, usize>,
    files: Vec<File>,
}

impl File {
    fn apply(content: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(at, bytes) => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Truncate(length) => content.resize(*length, 0),
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.since) {
            Self::apply(&mut self.synced, &change);
        }
    }
}

impl Disk {
    fn replay(&mut self, folder: &str, event: &Event) {
        match event {
            Event::Create(name) => {
                let files = &mut self.files;
                self.names.entry(name.clone()).or_insert_with(|| {
                    files.push(File::default());
                    files.len() - 1
                });
            }
            Event::Unlink(name) => drop(self.names.remove(name)),
            Event::Sync(name) if name == folder => self.synced_names = self.names.clone(),
            Event::Sync(name) => self.file(name).sync(),
            Event::Write(name, at, bytes) => self.file(name).since.push(Change::Write(*at, bytes.clone())),
            Event::Truncate(name, length) => self.file(name).since.push(Change::Truncate(*length)),
            Event::Acknowledge(_) => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        &mut self.files[self.names[name]]
    }

    /// Writes the files after a power cut into `folder`. `keep` decides for each unsynced change whether it survives.
    fn cut(&self, folder: &Path, mut keep: impl FnMut() -> bool) {
        let names = if keep() { &self.names } else { &self.synced_names };
        for (name, &file) in names {
            let mut content = self.files[file].synced.clone();
            for change in &self.files[file].since {
                if keep() {
                    File::apply(&mut content, change);
                }
            }
            fs::write(folder.join(Path::new(name).file_name().unwrap()), content).unwrap();
        }
    }
}

#[test]
#[ignore = "needs strace: cargo test --test journal power_cut -- --ignored; part of .ci/run"]
fn a_power_cut_keeps_exactly_the_mutations_up_to_some_point() {
    let rounds: u64 = std::env::var(ROUNDS).map_or(200, |rounds| rounds.parse().unwrap());
    let seed: u64 = std::env::var(SEED).map_or_else(|_| rand::rngs::OsRng.r#gen(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed} {ROUNDS}={rounds}");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let (folder, path) = folder();
    let events = record(&path, seed);
    let folder_name = path.parent().unwrap().to_str().unwrap();
    drop(folder);

    // Ascending, so that the record is rereplayed once. A quarter of the cuts happen while the file is created.
    let mut moment = || if rng.gen_ratio(1, 4) { rng.gen_range(0..80) } else { rng.gen_range(0..=events.len()) };
    let mut moments: Vec<_> = (0..rounds).map(|_| moment()).collect();
    moments.sort();
    let (mut disk, mut replayed, mut acknowledged) = (Disk::default(), 0, 0);
    let (mut model, mut modelled) = (Contents::default(), 0);
    for moment in moments {
        for event in &events[replayed..moment] {
            disk.replay(folder_name, event);
            if let Event::Acknowledge(number) = event {
                acknowledged = *number;
            }
        }
        replayed = moment;
        let after = tempfile::tempdir().unwrap();
        let share = [0.0, 0.5, 0.9][rng.gen_range(0..3)];
        disk.cut(after.path(), || rng.gen_bool(share));
        let (_journal, contents, _) = open(&after.path().join(path.file_name().unwrap()))
            .unwrap_or_else(|error| panic!("at event {moment} of {}: {error}", events.len()));
        let last_stored = contents.last.values().map(|last| last.request.0).max().unwrap_or(0);
        assert!(last_stored >= acknowledged, "at event {moment}: {acknowledged} acknowledged, {last_stored} stored");
        if last_stored < modelled {
            (model, modelled) = (Contents::default(), 0);
        }
        for number in modelled + 1..=last_stored {
            model.apply(&mutation(seed, number));
        }
        modelled = last_stored;
        assert_eq!(contents, model, "at event {moment}, after mutation {last_stored}");
    }
    assert!(acknowledged > 0, "no cut came after an acknowledgement");
}

/// Runs a child process that pushes under strace, and returns its changes of the data file and the files beside it.
fn record(path: &Path, seed: u64) -> Vec<Event> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-s", "10000000", "-e", "signal=none"]);
    command.args(["-e", "trace=openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink", "-o"]).arg(trace.path());
    command.arg(std::env::current_exe().unwrap());
    command.args(["pushes_until_killed", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    let output = command.env(CHILD, format!("{seed} 0 {MUTATIONS} {}", path.display())).output();
    let output = output.expect("strace is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = path.parent().unwrap().to_str().unwrap();
    // The process has two threads: a call may be recorded in two parts, and takes effect with the second.
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let text = fs::read_to_string(trace.path()).unwrap();
    let mut events = Vec::new();
    for line in text.lines() {
        let (process, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(process, first);
        } else if let Some((_, second)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            events.extend(event(&format!("{}{second}", begun.remove(process).unwrap()), folder));
        } else {
            events.extend(event(call, folder));
        }
    }
    let synced = events.iter().filter(|event| matches!(event, Event::Sync(name) if name.ends_with("-wal"))).count();
    let copied = events.iter().filter(|event| matches!(event, Event::Write(name, ..) if name.ends_with(".db"))).count();
    // Nine of the pages are written when the file is created.
    assert!(synced > 100 && copied > 15, "the record is too short: {synced} syncs, {copied} pages copied");
    events
}

/// The event of one line of strace: `pwrite64(5</folder/data.db-wal>, "...", 24, 32) = 24`.
fn event(call: &str, folder: &str) -> Option<Event> {
    let (name, rest) = call.split_once('(')?;
    if rest.contains(") = -1 ") {
        return None;
    }
    if name == "write" {
        let (text, _) = rest.split_once('"')?.1.split_once('"')?;
        return acknowledgement(text.strip_suffix("\\n")?).map(Event::Acknowledge);
    }
    let quoted = matches!(name, "openat" | "unlink");
    let (start, end) = if quoted { ('"', '"') } else { ('<', '>') };
    let (path, rest) = rest.split_once(start)?.1.split_once(end)?;
    // The lock and the shared memory have no meaning after a power cut.
    if !path.starts_with(folder) || path.ends_with(".lock") || path.ends_with("-shm") {
        return None;
    }
    let path = path.to_string();
    match name {
        "openat" if rest.contains("O_CREAT") => Some(Event::Create(path)),
        "unlink" => Some(Event::Unlink(path)),
        "fsync" | "fdatasync" => Some(Event::Sync(path)),
        "ftruncate" => Some(Event::Truncate(path, rest.strip_prefix(", ")?.split_once(')')?.0.parse().unwrap())),
        "pwrite64" => {
            let (data, rest) = rest.strip_prefix(", \"")?.rsplit_once("\", ")?;
            let (length, at) = rest.split_once(')')?.0.split_once(", ")?;
            let bytes = unescape(data);
            assert_eq!(bytes.len(), length.parse::<usize>().unwrap(), "{call:.200}");
            Some(Event::Write(path, at.parse().unwrap(), bytes))
        }
        _ => None,
    }
}

/// Decodes the escapes of C strings.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes().peekable();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let escaped = bytes.next().unwrap();
        out.push(match escaped {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'0'..=b'7' => {
                let mut value = u32::from(escaped - b'0');
                for _ in 0..2 {
                    let Some(digit) = bytes.next_if(|digit| (b'0'..=b'7').contains(digit)) else { break };
                    value = value * 8 + u32::from(digit - b'0');
                }
                value as u8
            }
            other => other,
        });
    }
    out
}
