use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn pair() -> (Channel, Channel) {
    let (id, secret) = (SessionId([7; 16]), Zeroizing::new([9; 32]));
    (Channel::new(Side::Client, id, &secret), Channel::new(Side::Server, id, &secret))
}

fn seal(channel: &mut Channel, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    channel.seal_into(&mut out, |out| out.extend_from_slice(text));
    out
}

#[test]
fn what_one_side_seals_the_other_opens_once() {
    let (mut client, mut server) = pair();
    let sealed = seal(&mut client, b"hello");
    assert_eq!(sealed.len(), SEALED_OVERHEAD_BYTES + 5);
    assert_eq!(server.open(&mut sealed.clone()), Ok(&b"hello"[..]));
    assert_eq!(server.open(&mut sealed.clone()), Err(OpenError::Replayed));
    let sealed = seal(&mut server, b"welcome");
    assert_eq!(client.open(&mut sealed.clone()), Ok(&b"welcome"[..]));
}

#[test]
fn nothing_can_be_reflected() {
    let (mut client, _) = pair();
    let mut sealed = seal(&mut client, b"hello");
    assert_eq!(client.open(&mut sealed), Err(OpenError::Forged));
}

#[test]
fn any_changed_bit_is_noticed_and_moves_nothing() {
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
fn a_datagram_cut_anywhere_is_refused() {
    let (mut client, mut server) = pair();
    let sealed = seal(&mut client, b"hello");
    for cut in 0..sealed.len() {
        assert!(server.open(&mut sealed[..cut].to_vec()).is_err(), "cut to {cut}");
    }
}

#[test]
fn reordering_within_the_window_is_fine_and_beyond_it_refused() {
    let (mut client, mut server) = pair();
    let sealed: Vec<_> = (0..200u8).map(|n| seal(&mut client, &[n])).collect();
    assert!(server.open(&mut sealed[150].clone()).is_ok());
    assert!(server.open(&mut sealed[23].clone()).is_ok(), "127 behind");
    assert_eq!(server.open(&mut sealed[22].clone()), Err(OpenError::Replayed), "128 behind");
    assert!(server.open(&mut sealed[199].clone()).is_ok());
    assert_eq!(server.open(&mut sealed[150].clone()), Err(OpenError::Replayed));
}

#[test]
fn once_sealed_blobs_open_only_with_their_key_and_data() {
    let key = Zeroizing::new([1; 32]);
    let sealed: [u8; 20] = seal_once(&key, b"nonce", b"port");
    assert_eq!(open_once(&key, b"nonce", &sealed).unwrap().as_slice(), b"port");
    assert!(open_once(&key, b"other", &sealed).is_none());
    assert!(open_once(&Zeroizing::new([2; 32]), b"nonce", &sealed).is_none());
}

proptest! {
    /// The window agrees with a set that remembers everything, within its reach.
    #[test]
    fn the_window_is_a_set_with_a_horizon(counters in proptest::collection::vec(0u64..400, 1..300)) {
        let (mut window, mut seen, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
        for counter in counters {
            let within = counter + 128 > highest;
            prop_assert_eq!(window.is_fresh(counter), within && !seen.contains(&counter));
            if window.is_fresh(counter) {
                window.mark(counter);
                seen.insert(counter);
                highest = highest.max(counter);
            }
        }
    }

    #[test]
    fn no_counter_makes_the_window_panic(counters in proptest::collection::vec(any::<u64>(), 1..50)) {
        let mut window = ReplayWindow::default();
        for counter in counters.into_iter().chain([u64::MAX, u64::MAX - 1, 0]) {
            if window.is_fresh(counter) {
                window.mark(counter);
                prop_assert!(!window.is_fresh(counter));
            }
        }
    }
}
