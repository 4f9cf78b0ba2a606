use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc;

use super::*;
use crate::common::net::AddressPrefix;
use crate::common::opaque::{ClientLogin, ServerLogin};

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn host(number: u32) -> AddressPrefix {
    AddressPrefix::of(IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
}

fn passwords(names: impl IntoIterator<Item = String>) -> Vec<(UserName, Zeroizing<Vec<u8>>)> {
    names.into_iter().map(|name| (user(&name), Zeroizing::new(format!("{name}'s password").into_bytes()))).collect()
}

fn opens(record: &PasswordRecord, user: &UserName, password: &[u8]) -> bool {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (client, ke1) = ClientLogin::start(&mut rng, password);
    let (_, ke2) = ServerLogin::start(&mut rng, record, user, &ke1);
    client.finish(&mut rng, user, password, &ke2, KeyStretching::Insecure).is_ok()
}

/// The state as the thread would meet it, without the thread.
fn shared(names: &[&str]) -> Shared {
    let users = passwords(names.iter().map(|name| name.to_string()));
    let background: VecDeque<_> = users.iter().map(|(user, _)| user.clone()).collect();
    Shared { state: Mutex::new(State { background, passwords: users.into_iter().collect(), ..State::default() }) }
}

fn step(shared: &Shared) -> Option<(UserName, bool, bool)> {
    let job = shared.next_job()?;
    let seen = (job.user.clone(), job.password.is_some(), job.asked);
    let record = job.run(&mut ChaCha20Rng::seed_from_u64(7), KeyStretching::Insecure);
    shared.finish(job, record, &|| {});
    Some(seen)
}

#[test]
fn every_password_becomes_a_record_that_it_alone_opens() {
    let names: Vec<_> = (0..5).map(|i| format!("user{i}")).collect();
    let (sender, news) = mpsc::channel();
    let wake = Box::new(move || sender.send(()).unwrap());
    let enrolment = Enrolment::start(passwords(names.clone()), KeyStretching::Insecure, wake).unwrap();
    enrolment.prioritize(host(1), user("user3"));
    enrolment.prioritize(host(1), user("stranger"));
    let mut records = HashMap::new();
    loop {
        let done = enrolment.all_done();
        for enrolled in enrolment.poll() {
            let known = records.entry(enrolled.user).or_insert(None);
            *known = enrolled.record.or(known.take());
        }
        if done {
            break;
        }
        news.recv().unwrap();
    }
    for name in &names {
        let record = records[&user(name)].as_ref().unwrap();
        assert!(opens(record, &user(name), format!("{name}'s password").as_bytes()));
        assert!(!opens(record, &user(name), b"another password"));
    }
    // Asked for while the thread ran or after it was done: either way nobody waits for a stranger, and none has a record.
    assert!(records.get(&user("stranger")).is_none_or(Option::is_none));
    assert!(enrolment.poll().is_empty());
}

#[test]
fn with_nobody_to_enrol_all_is_done_at_once() {
    let enrolment = Enrolment::start(Vec::new(), KeyStretching::Argon2id, Box::new(|| panic!("no news"))).unwrap();
    enrolment.prioritize(host(1), user("hans"));
    assert!(enrolment.all_done() && enrolment.poll().is_empty());
}

#[test]
fn known_made_and_unknown_names_are_released_by_the_same_step() {
    let shared = shared(&["made", "next", "last", "beyond"]);
    assert_eq!(step(&shared), Some((user("made"), true, false)));
    let enrolment = Enrolment { shared: Arc::new(shared) };
    let shared = &enrolment.shared;
    let polled = || enrolment.poll().into_iter().map(|e| (e.user, e.record.is_some(), e.unblocks)).collect::<Vec<_>>();
    assert_eq!(polled(), [(user("made"), true, false)], "nobody is released unasked");

    // Twice over: what was released once is released as late the next time, whether or not there is such a user.
    for background in ["next", "last"] {
        for name in ["stranger", "made"] {
            // Asking twice is asking once.
            enrolment.prioritize(host(1), user(name));
            enrolment.prioritize(host(1), user(name));
        }
        // One step of work each, in the order asked, and the background in turn.
        assert_eq!(step(shared), Some((user("stranger"), false, true)));
        assert_eq!(step(shared), Some((user(background), true, false)));
        assert_eq!(step(shared), Some((user("made"), false, true)));
        let expected = [("stranger", false, true), (background, true, false), ("made", false, true)];
        assert_eq!(polled(), expected.map(|(name, record, released)| (user(name), record, released)));
        assert!(!enrolment.all_done());
        // As if the background had had its turn.
        shared.lock().priority_served_last = false;
    }
    enrolment.prioritize(host(1), user("beyond"));
    assert_eq!(step(shared), Some((user("beyond"), true, true)));
    assert!(enrolment.all_done() && step(shared).is_none());
    assert_eq!(polled(), [(user("beyond"), true, true)]);
}

#[test]
fn a_flood_of_names_is_bounded_and_does_not_stop_the_background() {
    let names: Vec<_> = (0..10).map(|i| format!("user{i}")).collect();
    let enrolment = Enrolment { shared: Arc::new(shared(&names.iter().map(String::as_str).collect::<Vec<_>>())) };
    let mut steps = 0;
    let mut stranger = 0;
    while !enrolment.all_done() {
        for _ in 0..2 * WAITING_MAX {
            stranger += 1;
            enrolment.prioritize(host(stranger), user(&format!("stranger{stranger}")));
        }
        assert_eq!(enrolment.shared.lock().waiting.len(), WAITING_MAX);
        step(&enrolment.shared);
        steps += 1;
        assert!(steps <= 2 * names.len(), "the background is starved");
    }
}

#[test]
fn a_flood_of_names_from_one_network_keeps_nobody_else_waiting() {
    let names: Vec<_> = (0..100).map(|i| format!("user{i}")).collect();
    let enrolment = Enrolment { shared: Arc::new(shared(&names.iter().map(String::as_str).collect::<Vec<_>>())) };
    let flood = || (0..1_000).for_each(|number| enrolment.prioritize(host(1), user(&format!("ghost{number}"))));
    for name in ["user90", "user91", "nobody"] {
        flood();
        enrolment.prioritize(host(2), user(name));
        flood();
        // The one whose turn it is, the background, and the network that waits.
        let steps: Vec<_> = (0..4).filter_map(|_| step(&enrolment.shared)).collect();
        assert!(steps.iter().any(|(who, _, asked)| *who == user(name) && *asked), "{steps:?}");
    }
}

#[test]
fn a_dropped_enrolment_stops_its_thread() {
    let (sender, news) = mpsc::channel();
    let names = (0..100_000).map(|i| format!("user{i}"));
    let enrolment =
        Enrolment::start(passwords(names), KeyStretching::Insecure, Box::new(move || sender.send(()).unwrap()));
    drop(enrolment);
    // The thread owns the only sender: the news ends when the thread does.
    assert!(news.iter().count() < 100_000);
}
