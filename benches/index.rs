//! The speed of loading and searching the index with 1,000,000 publications of 10,000 users, and its memory.
//!
//! `cargo bench --bench index [publications]`. Prints medians of several rounds: for kinds of queries, and for needles of growing
//! length.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod test_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fileshare::internals::common::message::{NameQuery, ResolvePurpose};
use fileshare::internals::common::types::{Audience, Content, ContentHash, FileName, NamedContent, UserName};
use fileshare::internals::server::index::{Budget, Index, OwnerId, Position};

use self::test_support::record;

const USERS: u32 = 10_000;
const ROUNDS: usize = 9;

fn main() {
    let argument = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let publications: u32 = argument.unwrap_or(1_000_000);
    let files: Vec<_> = (0..publications).map(file).collect();
    let before = resident_bytes();
    let (mut index, requester, took) = load(&files);
    println!("load {publications} publications: {took:?}, {:?} each", took / publications.max(1));
    let start = Instant::now();
    while index.has_pending() {
        index.index_pending(1_000);
    }
    println!("then, in the background: {:?}, {:?} each", start.elapsed(), start.elapsed() / publications.max(1));
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let each = after.saturating_sub(before) / u64::from(publications.max(1));
        println!("memory: {each} bytes per publication without its name");
    }

    let text = |text: &str| text.to_owned();
    let queries = [
        ("exact", NameQuery::Exact(files[files.len() / 2].name.clone())),
        ("prefix, one user's directory", NameQuery::Prefix(text("user777/"))),
        ("prefix, short", NameQuery::Prefix(text("u"))),
        ("substring, rare", NameQuery::Substring(text("report-7777"))),
        ("substring, common", NameQuery::Substring(text("report"))),
        ("substring, no match of common parts", NameQuery::Substring(text("mp4/reports/user"))),
        ("substring, two bytes, rare", NameQuery::Substring(text("qz"))),
        ("substring, all", NameQuery::Substring(text(""))),
        ("ignoring case, rare", NameQuery::SubstringIgnoreCase(text("REPORT-7777"))),
        ("ignoring case, two bytes, rare", NameQuery::SubstringIgnoreCase(text("QZ"))),
    ];
    println!(
        "{:36} {:>10} {:>10} {:>7} {:>8} {:>10}",
        "query", "first page", "worst page", "pages", "entries", "all pages"
    );
    for (label, query) in queries {
        let first = measure(label, &index, requester, &query);
        record("publications", label, publications as usize, first.as_secs_f64() * 1e6);
    }
    // A name without the user's directory, from its end: most names share the extension, few the number.
    let name = files[files.len() / 2].name.as_str();
    let name = &name[name.find('/').map_or(0, |at| at + 1)..];
    for length in (1..=name.len()).filter(|length| length.is_power_of_two() || *length == name.len() || length % 3 == 0)
    {
        let needle = text(&name[name.len() - length..]);
        for (label, query) in [
            ("case-sensitive", NameQuery::Substring(needle.clone())),
            ("ignoring case", NameQuery::SubstringIgnoreCase(needle.clone())),
        ] {
            let first = measure(&format!("{needle:?}, {label}"), &index, requester, &query);
            if publications == 1_000_000 {
                record("needle", label, length, first.as_secs_f64() * 1e6);
            }
        }
    }
}

/// Prints the median time of the first page, the longest time of a page and the time of all pages.
/// Returns the first.
fn measure(label: &str, index: &Index, requester: OwnerId, query: &NameQuery) -> Duration {
    let mut firsts = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::hint::black_box(index.resolve(
            requester,
            query,
            Position::default(),
            Budget::PAGE,
            1_000,
            ResolvePurpose::Download,
        ));
        firsts.push(start.elapsed());
    }
    firsts.sort();
    let (mut pages, mut entries, mut worst, all) = (0, 0, Duration::ZERO, Instant::now());
    let mut from = Some(Position::default());
    while let Some(position) = from {
        let start = Instant::now();
        let page = index.search(requester, query, position, Budget::PAGE);
        worst = worst.max(start.elapsed());
        (pages, entries, from) = (pages + 1, entries + page.entries.len(), page.next);
    }
    let all = all.elapsed();
    println!("{label:36} {:>10.1?} {worst:>10.1?} {pages:>7} {entries:>8} {all:>10.1?}", firsts[ROUNDS / 2]);
    firsts[ROUNDS / 2]
}

fn load(files: &[NamedContent]) -> (Index, OwnerId, Duration) {
    let users: Vec<_> = (0..USERS).map(|user| UserName::parse(&format!("user{user}")).expect("a name")).collect();
    let everyone = Arc::new(Audience::Everyone);
    let start = Instant::now();
    let mut index = Index::default();
    index.defer_indexing();
    let owners: Vec<_> = users.iter().map(|user| index.intern_owner(user)).collect();
    for (number, file) in files.iter().enumerate() {
        index.publish(owners[number % owners.len()], file, &everyone, 500);
    }
    let took = start.elapsed();
    for &owner in &owners {
        index.set_active(owner, true);
    }
    (index, owners[0], took)
}

/// A file with a realistic name: a directory of the user, a few words, a number, an extension.
fn file(number: u32) -> NamedContent {
    const WORDS: [&str; 16] = [
        "holiday", "Invoice", "report", "draft", "IMG", "meeting", "notes", "budget", "song", "backup", "thesis",
        "chapter", "scan", "Letter", "movie", "data",
    ];
    const EXTENSIONS: [&str; 8] = ["pdf", "jpg", "mp4", "txt", "docx", "tar.gz", "flac", "csv"];
    let mixed = number.wrapping_mul(0x9e37_79b1);
    let (word, other) = (WORDS[(mixed >> 28) as usize], WORDS[(mixed >> 24) as usize % 16]);
    let extension = EXTENSIONS[(mixed >> 20) as usize % 8];
    let name = format!("user{}/{word}s/{other}-{number}.{extension}", number % USERS);
    let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
    let content = Content { hash: ContentHash(hash), size: u64::from(number), mtime_ms: 0 };
    NamedContent { name: FileName::parse(&name).expect("a name"), content }
}

/// Resident memory from `/proc`; `None` on systems without it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}
