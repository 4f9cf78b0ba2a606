use std::collections::HashSet;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

fn pair() -> (SessionCipher, SessionCipher) {
    let (id, secret) = (SessionId([7; 16]), Zeroizing::new([9; 32]));
    (SessionCipher::new(Side::Client, id, &secret), SessionCipher::new(Side::Server, id, &secret))
}

fn seal(cipher: &mut SessionCipher, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    cipher.seal_into(&mut out, |out| out.extend_from_slice(text));
    out
}

#[test]
fn a_sealed_datagram_opens_once_at_the_other_end() {
    let (mut client, mut server) = pair();
    let sealed = seal(&mut client, b"hello");
    assert_eq!(sealed.len(), SEALED_OVERHEAD_BYTES + 5);
    assert_eq!(server.open(&mut sealed.clone()), Ok(&b"hello"[..]));
    assert_eq!(server.open(&mut sealed.clone()), Err(OpenError::Replayed));
    let sealed = seal(&mut server, b"welcome");
    assert_eq!(client.open(&mut sealed.clone()), Ok(&b"welcome"[..]));
}

#[test]
fn a_reflected_datagram_is_rejected() {
    let (mut client, _) = pair();
    let mut sealed = seal(&mut client, b"hello");
    assert_eq!(client.open(&mut sealed), Err(OpenError::Forged));
}

#[test]
fn a_changed_bit_is_detected_and_leaves_the_window_unchanged() {
    let (mut client, mut server) = pair();
    let sealed = seal(&mut client, b"hello");
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(server.open(&mut forged).is_err(), "bit {bit}");
    }
    assert_eq!(server.open(&mut sealed.clone()), Ok(&b"hello"[..]), "a forged counter did not move the window");
}

#[test]
fn a_truncated_datagram_is_rejected() {
    let (mut client, mut server) = pair();
    let sealed = seal(&mut client, b"hello");
    for cut in 0..sealed.len() {
        assert!(server.open(&mut sealed[..cut].to_vec()).is_err(), "cut to {cut}");
    }
}

#[test]
fn reordering_is_accepted_within_the_window_and_rejected_beyond() {
    let (mut client, mut server) = pair();
    let sealed: Vec<_> = (0..200u8).map(|n| seal(&mut client, &[n])).collect();
    assert!(server.open(&mut sealed[150].clone()).is_ok());
    assert!(server.open(&mut sealed[23].clone()).is_ok(), "127 behind");
    assert_eq!(server.open(&mut sealed[22].clone()), Err(OpenError::Replayed), "128 behind");
    assert!(server.open(&mut sealed[199].clone()).is_ok());
    assert_eq!(server.open(&mut sealed[150].clone()), Err(OpenError::Replayed));
}

proptest! {
    /// Within its range the window agrees with a set of all counters.
    #[test]
    fn the_window_agrees_with_a_set_of_all_counters(counters in proptest::collection::vec(0u64..400, 1..300)) {
        let (mut window, mut seen, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
        for counter in counters {
            let within = counter + 128 > highest;
            prop_assert_eq!(window.is_fresh(counter), within && !seen.contains(&counter));
            if window.is_fresh(counter) {
                window.record(counter);
                seen.insert(counter);
                highest = highest.max(counter);
            }
        }
    }

    #[test]
    fn the_window_panics_for_no_counter(counters in proptest::collection::vec(any::<u64>(), 1..50)) {
        let mut window = ReplayWindow::default();
        for counter in counters.into_iter().chain([u64::MAX, u64::MAX - 1, 0]) {
            if window.is_fresh(counter) {
                window.record(counter);
                prop_assert!(!window.is_fresh(counter));
            }
        }
    }
}
