//! The throughput of a whole `get`, over TCP compared with a minimal encrypted transfer, and of passed files compared with `cp`.
//!
//! The minimal program, *bare*, is two threads: one reads, encrypts with AES-GCM in 64 KiB records and sends; the other
//! receives, decrypts and writes. It has no verification, no resumption and no server. The *real* program is the listener
//! of a shared directory and a download from it, with every byte verified against the published hash. Rounds are
//! interleaved, the file is in the page cache, and nothing is synced. *direct* is the real program between two clients of one
//! user on one host, which pass the open file. Prints the medians and the ratios of real to bare and of direct to cp.
//!
//! ```text
//! cargo bench --bench transfer -- [--mib 2048] [--rounds 5] [--dir DIR] [--small 10000] [--only bare|real|direct|cp]
//! ```
//!
//! `--only` runs one of them, for a profiler. `--small` downloads that many files of 4 KiB instead, without bare.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fileshare::internals::client::control::RequestError;
use fileshare::internals::client::download::{
    Download, DownloadOptions, DownloadOutcome, DownloadReport, Downloader, OnExists, SaveAs, SourceDiscovery,
    SourceOffer,
};
use fileshare::internals::client::files::SharedFiles;
use fileshare::internals::client::upload::{Listener, UploadService};
use fileshare::internals::common::crypto::{AeadKey, TAG_BYTES, counter_nonce};
use fileshare::internals::common::ticket::TransferTicket;
use fileshare::internals::common::types::{Audience, ContentRef, FileName, NamedContent, UserName};
use rand::RngCore;

const RECORD_BYTES: usize = 64 << 10;
const KEY: [u8; 32] = [5; 32];
const MIB: u64 = 1 << 20;

struct Options {
    mib: u64,
    rounds: usize,
    dir: String,
    small: usize,
    only: Option<String>,
}

fn options() -> Options {
    let mut options =
        Options { mib: 512, rounds: 5, dir: std::env::temp_dir().display().to_string(), small: 0, only: None };
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let (Some(option), Some(value)) = (arguments.next(), arguments.next()) {
        let number = || value.parse().expect("a number");
        match option.as_str() {
            "--mib" => options.mib = number(),
            "--rounds" => options.rounds = number() as usize,
            "--small" => options.small = number() as usize,
            "--dir" => options.dir = value,
            "--only" => options.only = Some(value),
            other => panic!("no option {other}"),
        }
    }
    options
}

fn main() {
    let options = options();
    let dir = tempfile::tempdir_in(&options.dir).expect("a temporary directory");
    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).expect("a new directory");
    if options.small > 0 {
        return small_files(&options, dir.path(), &shared);
    }
    write_random(&shared.join("file"), options.mib * MIB);
    let uploader = TestUploader::open(&shared, &["file".to_owned()]);
    let target = dir.path().join("target");
    let rounds = rounds(&options, &["bare", "real", "direct", "cp"], &target, |which| match which {
        "bare" => bare_copy(&shared.join("file"), &target.join("file")),
        "cp" => cp(&shared.join("file"), &target.join("file")),
        which => uploader.fetch(&target, which == "direct"),
    });
    println!("{} MiB, medians of {} interleaved rounds", options.mib, options.rounds);
    for (which, seconds) in &rounds {
        println!("{which:<7}{:.2} GB/s", options.mib as f64 * 1.048_576 / 1e3 / seconds);
    }
    print_ratios(&rounds);
}

fn small_files(options: &Options, dir: &Path, shared: &Path) {
    let names: Vec<String> = (0..options.small).map(|at| format!("file{at:06}")).collect();
    for name in &names {
        write_random(&shared.join(name), 4 << 10);
    }
    let uploader = TestUploader::open(shared, &names);
    let target = dir.join("target");
    let rounds = rounds(options, &["real", "direct", "cp"], &target, |which| match which {
        "cp" => cp(shared, &target.join("shared")),
        which => uploader.fetch(&target, which == "direct"),
    });
    println!("{} files of 4 KiB, medians of {} interleaved rounds", options.small, options.rounds);
    rounds.iter().for_each(|(which, seconds)| println!("{which:<7}{seconds:.3} s"));
    print_ratios(&rounds);
}

/// Medians in seconds, of each that is selected. Before each run the target is an empty folder.
fn rounds<'a>(
    options: &Options,
    which: &[&'a str],
    target: &Path,
    run: impl Fn(&str) -> Duration,
) -> Vec<(&'a str, f64)> {
    let is_selected = |which: &&&str| options.only.as_deref().is_none_or(|only| only == **which);
    let mut measured: Vec<(&str, Vec<f64>)> =
        which.iter().filter(is_selected).map(|&which| (which, Vec::new())).collect();
    for _ in 0..options.rounds {
        for (which, seconds) in &mut measured {
            std::fs::create_dir(target).expect("a new directory");
            seconds.push(run(which).as_secs_f64());
            std::fs::remove_dir_all(target).expect("it was just written");
        }
    }
    measured.into_iter().map(|(which, mut seconds)| (which, median(&mut seconds))).collect()
}

fn print_ratios(rounds: &[(&str, f64)]) {
    let seconds = |which| rounds.iter().find(|round| round.0 == which).map(|round| round.1);
    for (which, other) in [("real", "bare"), ("direct", "real"), ("direct", "cp")] {
        if let Some((seconds, others)) = seconds(which).zip(seconds(other)) {
            println!("{which} is {:.2} times as fast as {other}", others / seconds);
        }
    }
}

/// The system's program, for a file or a folder.
fn cp(from: &Path, to: &Path) -> Duration {
    let start = Instant::now();
    let status = std::process::Command::new("cp").arg("-r").args([from, to]).status().expect("cp is installed");
    assert!(status.success());
    start.elapsed()
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn write_random(path: &Path, size: u64) {
    let mut file = File::create(path).expect("space for the file");
    let mut block = vec![0; MIB.min(size) as usize];
    for _ in 0..size.div_ceil(MIB) {
        rand::thread_rng().fill_bytes(&mut block);
        file.write_all(&block).expect("space for the file");
    }
}

/// The minimal program.
fn bare_copy(from: &Path, to: &Path) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let from = File::open(from).expect("it was just written");
    let to = File::create(to).expect("a new file");
    let start = Instant::now();
    let sender = thread::spawn(move || bare_send(&listener.accept().expect("a connection").0, &from));
    bare_receive(&TcpStream::connect(address).expect("it listens"), &to);
    sender.join().expect("it does not panic");
    start.elapsed()
}

fn bare_send(mut stream: &TcpStream, mut from: &File) {
    let key = AeadKey::new(&KEY);
    let mut record = vec![0; RECORD_BYTES + TAG_BYTES];
    for counter in 0.. {
        let count = from.read(&mut record[..RECORD_BYTES]).expect("a readable file");
        if count == 0 {
            return;
        }
        let tag = key.seal_in_place(counter_nonce(counter), &[], &mut record[..count]);
        record[count..count + TAG_BYTES].copy_from_slice(&tag);
        stream.write_all(&record[..count + TAG_BYTES]).expect("an open connection");
    }
}

fn bare_receive(mut stream: &TcpStream, mut to: &File) {
    let key = AeadKey::new(&KEY);
    let mut record = vec![0; RECORD_BYTES + TAG_BYTES];
    for counter in 0.. {
        let mut filled = 0;
        while filled < record.len() {
            match stream.read(&mut record[filled..]).expect("an open connection") {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return;
        }
        let opened = key.open_in_place(counter_nonce(counter), &[], &mut record[..filled]).expect("not forged");
        to.write_all(opened).expect("space for the file");
    }
}

/// The listener of a shared directory, and the list of the files in it.
struct TestUploader {
    discovery: Arc<SingleSource>,
    wanted: Vec<NamedContent>,
    _listener: Listener,
}

fn expect_saved(report: DownloadReport) {
    match report {
        DownloadReport::SourceDropped { user, reason, .. } => panic!("{user}: {reason}"),
        DownloadReport::Finished(_, outcome) => {
            assert!(matches!(outcome, DownloadOutcome::Saved { .. }), "{outcome:?}")
        }
        _ => {}
    }
}
impl TestUploader {
    fn open(dir: &Path, names: &[String]) -> Self {
        let files = SharedFiles::open(dir).expect("a directory");
        let uploads = UploadService::new(files.clone(), 8);
        uploads.set_ticket_key(&zeroize::Zeroizing::new(KEY), now_ms());
        let mut wanted = Vec::new();
        for name in names {
            let name = FileName::parse(name).expect("a valid name");
            let file = files.hash(&name, &mut |_| ControlFlow::Continue(())).expect("a readable file");
            uploads.publications().publish(&name, file.content, Audience::Everyone);
            wanted.push(NamedContent { name, content: file.content });
        }
        accept_direct(dir, &uploads);
        let listener = Listener::start(uploads, "127.0.0.1:0".parse().expect("an address"), None).expect("a free port");
        let address = SocketAddr::from(([127, 0, 0, 1], listener.port()));
        let discovery = Arc::new(SingleSource { address });
        Self { discovery, wanted, _listener: listener }
    }

    fn fetch(&self, target: &Path, direct: bool) -> Duration {
        let downloader = Downloader::with_discovery(target, self.discovery.clone()).expect("a directory");
        let downloader = downloader.with_direct_path(direct);
        let options =
            DownloadOptions { on_exists: OnExists::Error, retry_for: Duration::ZERO, save_as: SaveAs::OwnName };
        let start = Instant::now();
        downloader.fetch(&self.wanted, &options, &crossbeam_channel::never(), &expect_saved);
        start.elapsed()
    }
}

/// Stands in for the control socket of the uploader, beside its folder: accepts what is offered.
fn accept_direct(dir: &Path, uploads: &Arc<UploadService>) {
    let (folder, name) = (dir.with_extension("control"), format!("{}.sock", "0".repeat(32)));
    std::fs::create_dir(&folder).expect("a new directory");
    std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("our own directory");
    let listener = UnixListener::bind(folder.join(&name)).expect("a new socket");
    uploads.set_direct_socket(Some((folder, name)));
    let uploads = Arc::clone(uploads);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            stream.write_all(b"{\"user\":\"hans\"}\n").expect("an open connection");
            BufReader::new(&stream).read_line(&mut line).expect("an open connection");
            let token = line.split('"').nth(3).and_then(|token| hex::decode(token).ok()?.try_into().ok());
            assert!(uploads.accept_direct(&token.expect("a token"), stream.try_clone().expect("a descriptor")));
            stream.write_all(line.as_bytes()).expect("an open connection");
        }
    });
}

/// Replaces the server: seals tickets for the only source.
struct SingleSource {
    address: SocketAddr,
}

impl SourceDiscovery for SingleSource {
    fn find_sources(&self, files: &[ContentRef], _: &[UserName], _: usize) -> Result<Vec<SourceOffer>, RequestError> {
        let key = AeadKey::new(&KEY);
        let indices: Vec<usize> = (0..files.len()).collect();
        let offer = |batch: &[usize]| {
            let downloader = UserName::parse("vader").expect("a valid name");
            let grants = batch.iter().map(|&file| files[file].clone()).collect();
            let ticket = TransferTicket { downloader, expires_ms: now_ms() + 60_000, key: KEY.into(), grants };
            let ticket = ticket.seal(&key, &mut rand::thread_rng());
            let user = UserName::parse("hans").expect("a valid name");
            SourceOffer { user, address: self.address, key: KEY.into(), ticket, files: batch.to_vec() }
        };
        Ok(indices.chunks(11).map(offer).collect())
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_millis() as u64
}
