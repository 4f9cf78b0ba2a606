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

fn root() -> Secret {
    Zeroizing::new([1; 32])
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

/// An enrolment without its thread.
fn without_thread(names: &[&str]) -> Enrolment {
    let users = passwords(names.iter().map(|name| name.to_string()));
    Enrolment { state: Arc::new(Mutex::new(EnrolmentState::new(users))) }
}

fn is_done(enrolment: &Enrolment) -> bool {
    lock(&enrolment.state).is_done
}

/// One step of the thread: the name, whether it had a password, whether it was requested.
fn step(enrolment: &Enrolment) -> Option<(UserName, bool, bool)> {
    let mut state = lock(&enrolment.state);
    let job = state.next_job()?;
    let seen = (job.user.clone(), job.password.is_some(), job.is_requested);
    let record = job.run(&mut ChaCha20Rng::seed_from_u64(7), &root(), KeyStretching::Insecure);
    state.finish(job, record);
    Some(seen)
}

#[test]
fn every_password_becomes_a_record_that_only_it_opens() {
    let names: Vec<_> = (0..5).map(|i| format!("user{i}")).collect();
    let (sender, news) = mpsc::channel();
    let wake = Box::new(move || sender.send(()).unwrap());
    let enrolment = Enrolment::start(passwords(names.clone()), root(), KeyStretching::Insecure, wake).unwrap();
    enrolment.prioritize(host(1), user("user3"));
    enrolment.prioritize(host(1), user("unknown"));
    let mut records = HashMap::new();
    loop {
        let progress = enrolment.poll();
        for enrolled in progress.results {
            let known = records.entry(enrolled.user).or_insert(None);
            *known = enrolled.record.or(known.take());
        }
        if progress.is_done {
            break;
        }
        news.recv().unwrap();
    }
    for name in &names {
        let record = records[&user(name)].as_ref().unwrap();
        assert!(opens(record, &user(name), format!("{name}'s password").as_bytes()));
        assert!(!opens(record, &user(name), b"another password"));
    }
    // Requested while the thread ran or after it was done: either way the unknown user gets no record.
    assert!(records.get(&user("unknown")).is_none_or(Option::is_none));
    assert!(enrolment.poll().results.is_empty());
}

#[test]
fn without_plaintext_passwords_enrolment_is_done_at_once() {
    let enrolment =
        Enrolment::start(Vec::new(), root(), KeyStretching::Argon2id, Box::new(|| panic!("no thread"))).unwrap();
    enrolment.prioritize(host(1), user("hans"));
    let progress = enrolment.poll();
    assert!(progress.is_done && progress.results.is_empty());
}

#[test]
fn known_enrolled_and_unknown_names_are_unblocked_by_the_same_step() {
    let enrolment = without_thread(&["made", "next", "last", "beyond"]);
    assert_eq!(step(&enrolment), Some((user("made"), true, false)));
    let polled =
        || enrolment.poll().results.into_iter().map(|e| (e.user, e.record.is_some(), e.unblocks)).collect::<Vec<_>>();
    assert_eq!(polled(), [(user("made"), true, false)], "no name is unblocked that was not requested");

    // A second request for a name takes as long as the first, whether or not the user exists.
    for background in ["next", "last"] {
        for name in ["unknown", "made"] {
            // A duplicate request has no effect.
            enrolment.prioritize(host(1), user(name));
            enrolment.prioritize(host(1), user(name));
        }
        // One step each, in the order requested, alternating with the background.
        assert_eq!(step(&enrolment), Some((user("unknown"), false, true)));
        assert_eq!(step(&enrolment), Some((user(background), true, false)));
        assert_eq!(step(&enrolment), Some((user("made"), false, true)));
        let expected = [("unknown", false, true), (background, true, false), ("made", false, true)];
        assert_eq!(polled(), expected.map(|(name, record, unblocks)| (user(name), record, unblocks)));
        assert!(!is_done(&enrolment));
        // As after a step of the background.
        lock(&enrolment.state).priority_served_last = false;
    }
    enrolment.prioritize(host(1), user("beyond"));
    assert_eq!(step(&enrolment), Some((user("beyond"), true, true)));
    assert!(is_done(&enrolment) && step(&enrolment).is_none());
    assert_eq!(polled(), [(user("beyond"), true, true)]);
}

#[test]
fn a_flood_of_names_is_bounded_and_does_not_stop_the_background() {
    let names: Vec<_> = (0..10).map(|i| format!("user{i}")).collect();
    let enrolment = without_thread(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut steps = 0;
    let mut flooding = 0;
    while !is_done(&enrolment) {
        for _ in 0..2 * REQUESTED_MAX {
            flooding += 1;
            enrolment.prioritize(host(flooding), user(&format!("flooding{flooding}")));
        }
        assert_eq!(lock(&enrolment.state).requested.len(), REQUESTED_MAX);
        step(&enrolment);
        steps += 1;
        assert!(steps <= 2 * names.len(), "the background is starved");
    }
}

#[test]
fn a_flood_of_names_from_one_prefix_does_not_delay_another() {
    let names: Vec<_> = (0..100).map(|i| format!("user{i}")).collect();
    let enrolment = without_thread(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let flood = || (0..1_000).for_each(|number| enrolment.prioritize(host(1), user(&format!("ghost{number}"))));
    for name in ["user90", "user91", "absent"] {
        flood();
        enrolment.prioritize(host(2), user(name));
        flood();
        // The flooding prefix, the background, and the other prefix.
        let steps: Vec<_> = (0..4).filter_map(|_| step(&enrolment)).collect();
        assert!(steps.iter().any(|(who, _, is_requested)| *who == user(name) && *is_requested), "{steps:?}");
    }
}

#[test]
fn dropping_an_enrolment_ends_its_thread() {
    let (sender, news) = mpsc::channel();
    let names = (0..100_000).map(|i| format!("user{i}"));
    let enrolment =
        Enrolment::start(passwords(names), root(), KeyStretching::Insecure, Box::new(move || sender.send(()).unwrap()));
    drop(enrolment);
    // The thread owns the only sender, so the channel closes when the thread exits.
    assert!(news.iter().count() < 100_000);
}
