//! Measurements under attack, for scripts/acceptance-security.sh. They take minutes and need a release build and a quiet
//! machine, so they run only with `--ignored`. Each prints its figures and fails if one exceeds its limit.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::opaque::{ClientLogin, KeyStretching};
use fileshare::internals::common::packet::{KE1_BYTES, Packet};
use fileshare::internals::common::types::UserName;
use fileshare::internals::server::auth::credentials::{Credentials, record_line};
use fileshare::internals::server::core::{Effects, LoadedState, Server, ServerConfig};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::test_support::raw_client::{GuessOutcome, RawClient};
use crate::test_support::{CREDENTIALS, TestEnv};

const WHY: &str = "records for tests are made with the least stretching";
/// Login attempts per kind of user.
const TRIES: usize = 1_000;
/// Users of each kind, enough that no guess budget runs out.
const USERS: usize = 100;
/// Upper limit of |t|.
const T_MAX: f64 = 4.5;

fn loopback(c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, c, d).into()
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn print_latencies(what: &str, latencies: &mut [Duration]) {
    latencies.sort();
    let [median, high, most] = [0.5, 0.99, 1.0].map(|share| percentile(latencies, share).as_secs_f64() * 1e3);
    println!("  {what}: {} heartbeats, median {median:.2} ms, 99 % {high:.2} ms, most {most:.2} ms", latencies.len());
}

/// Heartbeats of a session at 127.0.0.1, one every 50 ms, until stopped.
fn beat(server: SocketAddr, stop: &AtomicBool) -> Vec<Duration> {
    let client = RawClient::new(loopback(0, 1), server, 77);
    let mut session = client.log_in("yoda", b"wise@!man", KeyStretching::Argon2id);
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        latencies.push(session.heartbeat());
        thread::sleep(Duration::from_millis(50));
    }
    latencies
}

#[test]
#[ignore = "takes more than a minute; see scripts/acceptance-security.sh"]
fn ten_thousand_guesses_in_a_minute() {
    let env = TestEnv::with(CREDENTIALS, &["--ephemeral"]);
    let (server, stop, asked) = (env.address(), AtomicBool::new(false), AtomicUsize::new(0));
    env.client("hans").user().run(&["lap"]).expect_code(0);
    thread::scope(|scope| {
        let heart = scope.spawn(|| beat(server, &stop));
        let guesser = scope.spawn(|| {
            let mut client = RawClient::new(loopback(0, 2), server, 1);
            let (start, mut answered) = (Instant::now(), 0);
            for guess in 0..10_000_u32 {
                let due = start + Duration::from_micros(5_900) * guess;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                answered += usize::from(matches!(client.guess("hans"), GuessOutcome::Answered { .. }));
                asked.fetch_add(1, Ordering::Relaxed);
            }
            (answered, start.elapsed())
        });
        let mut waits = Vec::new();
        while asked.load(Ordering::Relaxed) < 9_500 {
            let begun = Instant::now();
            let done = env.client("hans").user().run(&["lap"]);
            waits.push(begun.elapsed());
            done.expect_code(0);
            thread::sleep(Duration::from_secs(2));
        }
        let (answered, took) = guesser.join().expect("the guesser ends");
        stop.store(true, Ordering::Relaxed);
        let mut latencies = heart.join().expect("yoda stays");
        println!("10,000 guesses at hans' password from 127.0.0.2 in {:.1} s", took.as_secs_f64());
        println!("  judged {answered}, the others throttled");
        let longest = waits.iter().max().expect("some logins").as_secs_f64();
        println!("  hans at 127.0.0.1 meanwhile: {} logins, the longest {longest:.2} s", waits.len());
        print_latencies("yoda", &mut latencies);
        assert!(answered < 100 && waits.len() >= 5 && longest < 5.0 && took < Duration::from_secs(90));
        assert!(*latencies.last().expect("some") < Duration::from_secs(1));
    });
    assert!(!env.log().contains("timed out"));
}

#[test]
#[ignore = "takes half a minute; see scripts/acceptance-security.sh"]
fn a_flood_of_logins_for_real_and_unknown_users() {
    let env = TestEnv::with(CREDENTIALS, &["--ephemeral"]);
    let server = env.address();
    for flood in [false, true] {
        let (stop, shouted) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let heart = scope.spawn(|| beat(server, &stop));
            let shouter = scope.spawn(|| {
                // The server sees 500 networks; a third of the names exist.
                let at = |at: u8| RawClient::new(loopback(1 + at / 250, 1 + at % 250), server, u64::from(at));
                let mut crowd: Vec<RawClient> = (0..=u8::MAX).map(at).collect();
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    for client in crowd.iter_mut().filter(|_| flood) {
                        let user = if round % 3 == 0 { "hans".into() } else { format!("user{round}") };
                        client.flood_login(&user);
                        round += 1;
                    }
                    shouted.store(round, Ordering::Relaxed);
                    if !flood {
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            });
            let begun = Instant::now();
            let mut waits = Vec::new();
            while begun.elapsed() < Duration::from_secs(12) {
                thread::sleep(Duration::from_secs(2));
                let asked = Instant::now();
                env.client("vader").user().run(&["lap"]).expect_code(0);
                waits.push(asked.elapsed());
            }
            stop.store(true, Ordering::Relaxed);
            shouter.join().expect("the flood ends");
            let mut latencies = heart.join().expect("yoda stays");
            println!("A flood of {} logins from 256 addresses in 12 s", shouted.load(Ordering::Relaxed));
            let longest = waits.iter().max().expect("some logins").as_secs_f64();
            println!("  vader at 127.0.0.1 meanwhile: {} logins, the longest {longest:.2} s", waits.len());
            print_latencies("yoda", &mut latencies);
            assert!(*latencies.last().expect("some") < Duration::from_secs(1) && longest < 5.0);
        });
        env.wait_log("yoda timed out");
    }
}

/// Credentials of known and active users; all names have the same length.
fn crowd(rng: &mut StdRng) -> String {
    let line = |name: String| {
        let user = UserName::parse(&name).expect("a name");
        record_line(&user, b"right", rng, KeyStretching::Insecure) + "\n"
    };
    ["known", "activ"].iter().flat_map(|kind| (0..USERS).map(move |at| format!("{kind}{at:03}"))).map(line).collect()
}

/// Attempts in random order: the kind of user, and the user.
fn lots(rng: &mut StdRng, kinds: &[&'static str]) -> Vec<(&'static str, String)> {
    let tries =
        |kind: &&'static str| (0..TRIES).map(|at| (*kind, format!("{kind}{:03}", at % USERS))).collect::<Vec<_>>();
    let mut lots: Vec<_> = kinds.iter().flat_map(tries).collect();
    lots.shuffle(rng);
    lots
}

/// Welch's t of two samples, seconds.
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let mean = |sample: &[f64]| sample.iter().sum::<f64>() / sample.len() as f64;
    let spread = |sample: &[f64]| {
        let mean = mean(sample);
        sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (sample.len() - 1) as f64 / sample.len() as f64
    };
    (mean(one) - mean(other)) / (spread(one) + spread(other)).sqrt()
}

/// Compares every kind with the unknown users, over all samples and without the slowest 5 %, which are noise of the
/// machine.
fn judge(phase: &str, times: &BTreeMap<&str, Vec<f64>>) {
    let mut all: Vec<f64> = times.values().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let cut = all[all.len() * 19 / 20];
    let below = |sample: &Vec<f64>| sample.iter().copied().filter(|x| *x <= cut).collect::<Vec<_>>();
    let unknown = &times["nobdy"];
    for (kind, sample) in times.iter().filter(|(kind, _)| **kind != "nobdy") {
        let (raw, trimmed) = (welch(sample, unknown), welch(&below(sample), &below(unknown)));
        let mean = sample.iter().sum::<f64>() / sample.len() as f64 * 1e6;
        println!("  {phase}, {kind} against unknown users: mean {mean:.1} us, t = {raw:.2}, trimmed {trimmed:.2}");
        assert!(
            raw.abs() < T_MAX && trimmed.abs() < T_MAX,
            "{kind} users can be distinguished from unknown ones by time"
        );
    }
}

fn active_sessions(server: SocketAddr) -> Vec<crate::test_support::raw_client::RawSession> {
    let log_in = |at: usize| {
        let client = RawClient::new(loopback(9, 1), server, 5_000 + at as u64);
        client.log_in(&format!("activ{at:03}"), b"right", KeyStretching::Insecure)
    };
    (0..USERS).map(log_in).collect()
}

#[test]
#[ignore = "takes some seconds and wants a quiet machine; see scripts/acceptance-security.sh"]
fn known_unknown_and_active_users_over_the_wire() {
    let mut rng = StdRng::seed_from_u64(20_260_103);
    let env = TestEnv::with(&crowd(&mut rng), &["--ephemeral", "--heartbeat", "300", "--liveness", "600"]);
    let _active = active_sessions(env.address());
    let mut clients: Vec<RawClient> =
        (0..40).map(|at| RawClient::new(loopback(3, at + 1), env.address(), u64::from(at))).collect();
    let (mut login2s, mut answers) = (BTreeMap::<_, Vec<f64>>::new(), BTreeMap::<_, Vec<f64>>::new());
    for (kind, user) in lots(&mut rng, &["known", "activ", "nobdy"]) {
        let client = rng.gen_range(0..clients.len());
        let GuessOutcome::Answered { login2, answer, bytes } = clients[client].guess(&user) else {
            panic!("throttled")
        };
        assert_eq!(bytes, [337, 353], "{user}");
        login2s.entry(kind).or_default().push(login2.as_secs_f64());
        answers.entry(kind).or_default().push(answer.as_secs_f64());
    }
    println!("{TRIES} tries each for known, active and unknown users over UDP, in random order");
    judge("LOGIN1 to LOGIN2", &login2s);
    judge("LOGIN3 to LOGIN4", &answers);
}

#[test]
#[ignore = "takes some seconds and wants a quiet machine; see scripts/acceptance-security.sh"]
fn known_and_unknown_users_inside_the_server() {
    let mut rng = StdRng::seed_from_u64(20_260_104);
    let (mut now, mut out) = (Instant::now(), Effects::default());
    let mut server = Server::new(ServerConfig::default(), LoadedState::new(), rng.r#gen(), now, 1_700_000_000_000);
    let credentials = Credentials::parse(crowd(&mut rng).as_bytes(), Path::new("-")).expect(WHY);
    server.set_credentials(credentials.versioned(&server.version_key()), &mut out);
    let (mut login2s, mut answers) = (BTreeMap::<_, Vec<f64>>::new(), BTreeMap::<_, Vec<f64>>::new());
    let from = |at: usize| SocketAddr::new(loopback((at / 200) as u8, (at % 200) as u8 + 1), 4_000);
    for (at, (kind, user)) in lots(&mut rng, &["known", "nobdy"]).into_iter().enumerate() {
        // Slow enough that no guess budget runs out.
        now += Duration::from_secs(1);
        let (from, nonce): (_, [u8; 16]) = (from(at % 2_000), rng.r#gen());
        let mut say = |mut datagram: Vec<u8>, server: &mut Server| {
            let start = Instant::now();
            server.handle_datagram(now, from, &mut datagram, &mut out);
            server.handle_timeout(now, &mut out);
            let took = start.elapsed();
            (std::mem::take(&mut out.datagrams).pop().expect("an answer").bytes, took)
        };
        let (retry, _) = say(Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes(), &mut server);
        let Some(Packet::Retry { cookie, .. }) = Packet::parse(&retry) else { panic!("no RETRY") };
        let ke1: [u8; KE1_BYTES] = ClientLogin::start(&mut rng, b"guess").1;
        let (login2, took) = say(Packet::Login1 { nonce, cookie, user: &user, ke1: &ke1 }.to_bytes(), &mut server);
        login2s.entry(kind).or_default().push(took.as_secs_f64());
        let login3 = Packet::Login3 { nonce, ke3: &rng_bytes(&mut rng), client_info: &rng_bytes(&mut rng) }.to_bytes();
        let (answer, took) = say(login3, &mut server);
        answers.entry(kind).or_default().push(took.as_secs_f64());
        assert_eq!((login2.len(), answer.len()), (337, 353), "{user}");
    }
    println!("{TRIES} tries each for known and unknown users inside the server, in random order");
    judge("LOGIN1 to LOGIN2", &login2s);
    judge("LOGIN3 to LOGIN4", &answers);
}

fn rng_bytes<const N: usize>(rng: &mut StdRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill(&mut bytes[..]);
    bytes
}
