use std::net::Ipv6Addr;
use std::time::Duration;

use super::*;
use crate::server::auth::throttle::LoginThrottle;
use crate::server::test_support::{address, origin, user};

const STRANGERS_MAX: usize = PENDING_LOGINS_MAX - PENDING_LOGINS_KNOWN_MAX;

fn insert(table: &mut Handshakes, from: &str, nonce: u8) -> Key {
    let key = (address(from), [nonce; 16]);
    insert_at(table, key, false, origin());
    key
}

fn insert_at(table: &mut Handshakes, key: Key, is_known: bool, now: Instant) {
    let user = user(&format!("user{}", key.1[0]));
    let charge = LoginThrottle::new().check(now, key.0.ip(), &user).unwrap();
    table.insert(now, key, is_known, user, charge, [0; KE1_BYTES]);
}

/// The *n*-th login of a /64 of a /48, from a /32 that many have.
fn key(network: u16, prefix: u16, number: u16) -> Key {
    let ip = Ipv6Addr::new(0x2001, 0xdb8, network, prefix, 0, 0, 0, 1);
    ((ip, number).into(), [7; 16])
}

fn fill(table: &mut Handshakes, networks: u16) -> Vec<Key> {
    let each = u16::try_from(STRANGERS_MAX).unwrap() / networks;
    let keys: Vec<_> = (0..each).flat_map(|at| (0..networks).map(move |network| key(network, at, 1))).collect();
    keys.iter().for_each(|&key| insert_at(table, key, false, origin()));
    assert_eq!((keys.len(), table.table.len()), (STRANGERS_MAX, STRANGERS_MAX));
    keys
}

#[test]
fn networks_take_turns() {
    let mut table = Handshakes::default();
    let flood: Vec<Key> = (0..5).map(|nonce| insert(&mut table, "192.0.2.1:1", nonce)).collect();
    flood.iter().for_each(|&key| table.make_ready(key));
    let honest = insert(&mut table, "192.0.2.2:1", 9);
    table.make_ready(honest);
    assert_eq!(table.next_ready(), Some(flood[0]));
    assert_eq!(table.next_ready(), Some(honest));
    assert_eq!(table.next_ready(), Some(flood[1]));
    table.remove(&flood[2]);
    assert_eq!(table.next_ready(), Some(flood[3]), "who is gone is passed over");
    assert_eq!(table.next_ready(), Some(flood[4]));
    assert_eq!(table.next_ready(), None);
    assert!(!table.is_ready());
}

#[test]
fn known_places_have_every_other_turn() {
    let mut table = Handshakes::default();
    let flood: Vec<Key> = (0..5).map(|network| key(network, 0, 1)).collect();
    let known: Vec<Key> = (0..3).map(|number| key(9, 0, number)).collect();
    for (keys, is_known) in [(&flood, false), (&known, true)] {
        keys.iter().for_each(|&key| insert_at(&mut table, key, is_known, origin()));
        keys.iter().for_each(|&key| table.make_ready(key));
    }
    table.remove(&known[1]);
    let order: Vec<_> = std::iter::from_fn(|| table.next_ready()).collect();
    assert_eq!(order, [known[0], flood[0], known[2], flood[1], flood[2], flood[3], flood[4]]);
    assert!(!table.is_ready());
}

#[test]
fn a_network_has_its_share_of_the_table_and_is_forgotten_in_time() {
    let mut table = Handshakes::default();
    let number = |at: usize| key(1, u16::try_from(at % 100).unwrap(), u16::try_from(at).unwrap());
    for at in 0..PENDING_LOGINS_PER_NETWORK_MAX + 10 {
        insert_at(&mut table, number(at), false, origin());
        table.make_ready(number(at));
    }
    assert_eq!(table.table.len(), PENDING_LOGINS_PER_NETWORK_MAX);
    assert!(table.find_mut(&number(9)).is_none() && table.find_mut(&number(10)).is_some(), "its oldest are gone");
    assert_eq!(table.strangers.ready.len(), PENDING_LOGINS_PER_NETWORK_MAX, "and wait no more");
    let later = origin() + Duration::from_secs(1);
    insert_at(&mut table, key(2, 0, 1), false, later);
    assert_eq!(table.next_expiry(), Some(origin() + PENDING_LOGIN_LIFETIME));
    table.expire(origin() + PENDING_LOGIN_LIFETIME - Duration::from_millis(1));
    assert_eq!(table.table.len(), PENDING_LOGINS_PER_NETWORK_MAX + 1);
    table.expire(origin() + PENDING_LOGIN_LIFETIME);
    assert_eq!((table.table.len(), table.next_expiry()), (1, Some(later + PENDING_LOGIN_LIFETIME)));
    table.expire(later + PENDING_LOGIN_LIFETIME);
    let part = &table.strangers;
    assert_eq!((table.table.len(), table.by_age.len(), part.len, part.ready.len()), (0, 0, 0, 0));
    assert!(part.shares.is_empty() && part.by_size.is_empty() && table.next_expiry().is_none());
}

#[test]
fn when_the_table_is_full_whoever_holds_most_loses_its_oldest() {
    let mut table = Handshakes::default();
    let flood = fill(&mut table, 12);
    // One /48 has more than the others, though each of its /64s holds one.
    let (extra, honest) = (key(3, 999, 1), key(100, 0, 1));
    insert_at(&mut table, extra, false, origin());
    insert_at(&mut table, honest, false, origin());
    assert_eq!(table.table.len(), STRANGERS_MAX);
    assert!(table.find_mut(&flood[3]).is_none(), "network 3 held most, and this was its oldest");
    for number in 1..STRANGERS_MAX {
        insert_at(&mut table, key(number as u16 % 12, 1_000, 1_000 + number as u16), false, origin());
    }
    assert!(table.find_mut(&honest).is_some(), "who holds one loses nothing to whoever holds more");
    assert_eq!(table.table.len(), STRANGERS_MAX);
}

#[test]
fn a_full_table_of_networks_that_hold_one_each_is_a_queue_and_has_room_for_known_places() {
    let mut table = Handshakes::default();
    let flood = fill(&mut table, u16::try_from(STRANGERS_MAX).unwrap());
    let (honest, known) = (key(60_000, 0, 1), key(60_001, 0, 1));
    insert_at(&mut table, known, true, origin());
    assert!(flood.iter().all(|key| table.find_mut(key).is_some()), "known places take nothing from strangers");
    insert_at(&mut table, honest, false, origin());
    assert!(table.find_mut(&flood[0]).is_none(), "the oldest of all");
    for number in 1..STRANGERS_MAX as u16 {
        assert!(table.find_mut(&honest).is_some(), "{number}");
        insert_at(&mut table, key(number, 0, 2), false, origin());
    }
    assert!(table.find_mut(&known).is_some(), "nor do strangers take anything from known places");
    assert_eq!(table.table.len(), STRANGERS_MAX + 1);
}

#[test]
fn who_waits_for_a_record_is_released_by_it() {
    let mut table = Handshakes::default();
    let (hans, vader) = (insert(&mut table, "192.0.2.1:1", 1), insert(&mut table, "192.0.2.1:1", 2));
    table.park(hans, &user("user1"));
    table.park(vader, &user("user2"));
    assert!(!table.is_ready());
    table.release(&user("user2"));
    assert_eq!(table.next_ready(), Some(vader));
    table.remove(&hans);
    assert_eq!(table.parked().count(), 0);
    table.release_all();
    assert_eq!(table.next_ready(), None);
}
