//! The time from the start of the server to `listening on` with a large data file, and its memory.
//!
//! `cargo bench --bench start`; the median of several starts. `FILESHARE_BENCH_PUBLICATIONS` (default 1,000,000) of
//! `FILESHARE_BENCH_USERS` (default 10,000), the directory in `FILESHARE_BENCH_DIR`.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod test_support;

use self::test_support::{ServerProcess, fill, median, record, setting};

const ROUNDS: usize = 7;

fn main() {
    let publications = setting("FILESHARE_BENCH_PUBLICATIONS", 1_000_000);
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    let mut server = ServerProcess::new(users);
    fill(&server, users, publications);
    let (mut starts, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        server.stop();
        starts.push(server.start().as_secs_f64());
        cpu.push(server.cpu_s());
    }
    println!(
        "start: {publications} publications of {users} users, ready after {:.2} s (from {:.2} to {:.2})",
        median(starts.clone()),
        starts.iter().copied().fold(f64::MAX, f64::min),
        starts.iter().copied().fold(0.0, f64::max),
    );
    println!("of it {:.2} s of CPU time", median(cpu));
    record("start", "ready", publications, median(starts));
    let at_ready = server.memory_bytes();
    // The server indexes the names afterwards, in the background.
    let mut before = server.cpu_s();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = server.cpu_s();
        if now - before < 0.05 {
            break println!("search index complete: {now:.2} s of CPU time in all");
        }
        before = now;
    }
    println!("memory: {} MiB when ready, {} MiB after indexing", at_ready >> 20, server.memory_bytes() >> 20);
}
