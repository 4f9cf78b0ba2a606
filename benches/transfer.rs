//! The throughput of a whole `get`, compared with a minimal encrypted transfer.
//!
//! The minimal program, *bare*, is two threads: one reads, encrypts with AES-GCM in 64 KiB records and sends; the other
//! receives, decrypts and writes. It has no verification, no resumption and no server. The *real* program is the listener
//! of a shared directory and a download from it, with every byte verified against the published hash. Rounds are
//! interleaved, the file is in the page cache, and nothing is synced. Prints both medians and their ratio.
//!
//! ```text
//! cargo bench --bench transfer -- [--mib 2048] [--rounds 5] [--dir DIR] [--small 10000] [--only bare|real]
//! ```
//!
//! `--only` runs one of the two, for a profiler. `--small` downloads that many files of 4 KiB instead.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
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
    let (mut bare, mut real) = (Vec::new(), Vec::new());
    let is_selected = |which: &str| options.only.as_deref().is_none_or(|only| only == which);
    let gb_per_s = |took: Duration| options.mib as f64 * 1.048_576 / 1e3 / took.as_secs_f64();
    for _ in 0..options.rounds {
        if is_selected("bare") {
            let target = dir.path().join("bare");
            bare.push(gb_per_s(bare_copy(&shared.join("file"), &target)));
            std::fs::remove_file(&target).expect("it was just written");
        }
        if is_selected("real") {
            let target = dir.path().join("real");
            std::fs::create_dir(&target).expect("a new directory");
            real.push(gb_per_s(uploader.fetch(&target)));
            std::fs::remove_dir_all(&target).expect("it was just written");
        }
    }
    let (bare, real) = (median(&mut bare), median(&mut real));
    println!("{} MiB, medians of {} interleaved rounds", options.mib, options.rounds);
    println!("bare   {bare:.2} GB/s");
    println!("real   {real:.2} GB/s");
    println!("ratio  {:.2}", real / bare);
}

fn small_files(options: &Options, dir: &Path, shared: &Path) {
    let names: Vec<String> = (0..options.small).map(|at| format!("file{at:06}")).collect();
    for name in &names {
        write_random(&shared.join(name), 4 << 10);
    }
    let uploader = TestUploader::open(shared, &names);
    let mut seconds = Vec::new();
    for _ in 0..options.rounds {
        let target = dir.join("real");
        std::fs::create_dir(&target).expect("a new directory");
        seconds.push(uploader.fetch(&target).as_secs_f64());
        std::fs::remove_dir_all(&target).expect("it was just written");
    }
    println!("{} files of 4 KiB: median {:.3} s", options.small, median(&mut seconds));
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
        let listener = Listener::start(uploads, "127.0.0.1:0".parse().expect("an address"), None).expect("a free port");
        let address = SocketAddr::from(([127, 0, 0, 1], listener.port()));
        let discovery = Arc::new(SingleSource { address });
        Self { discovery, wanted, _listener: listener }
    }

    fn fetch(&self, target: &Path) -> Duration {
        let downloader = Downloader::with_discovery(target, self.discovery.clone()).expect("a directory");
        let options =
            DownloadOptions { on_exists: OnExists::Error, retry_for: Duration::ZERO, save_as: SaveAs::OwnName };
        let start = Instant::now();
        downloader.fetch(&self.wanted, &options, &crossbeam_channel::never(), &expect_saved);
        start.elapsed()
    }
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
