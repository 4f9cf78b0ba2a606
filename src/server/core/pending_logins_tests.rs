use std::net::Ipv6Addr;
use std::time::Duration;

use super::*;
use crate::server::auth::throttle::LoginThrottle;
use crate::server::test_support::{address, origin, user};

const UNKNOWN_MAX: usize = PENDING_LOGINS_MAX - PENDING_LOGINS_KNOWN_MAX;

fn insert(table: &mut PendingLogins, from: &str, nonce: u8) -> LoginId {
    let id = LoginId { address: address(from), nonce: [nonce; 16] };
    insert_at(table, id, false, origin());
    id
}

fn remove(table: &mut PendingLogins, id: &LoginId) {
    let login = table.table.remove(id).unwrap();
    table.forget(*id, login);
}

fn expire(table: &mut PendingLogins, now: Instant) {
    while table.pop_expired(now).is_some() {}
}

fn insert_at(table: &mut PendingLogins, id: LoginId, is_known: bool, now: Instant) -> Option<EndedLogin> {
    let user = user(&format!("user{}", id.nonce[0]));
    let charge = LoginThrottle::default().check(now, id.address.ip(), &user).unwrap();
    table.insert(now, id, is_known, user, charge, [0; KE1_BYTES])
}

/// The *n*-th login of a /64 of a /48, from a /32 that many have.
fn id(network: u16, prefix: u16, number: u16) -> LoginId {
    let ip = Ipv6Addr::new(0x2001, 0xdb8, network, prefix, 0, 0, 0, 1);
    LoginId { address: (ip, number).into(), nonce: [7; 16] }
}

fn fill(table: &mut PendingLogins, networks: u16) -> Vec<LoginId> {
    let each = u16::try_from(UNKNOWN_MAX).unwrap() / networks;
    let ids: Vec<_> = (0..each).flat_map(|at| (0..networks).map(move |network| id(network, at, 1))).collect();
    ids.iter().for_each(|&id| assert!(insert_at(table, id, false, origin()).is_none()));
    assert_eq!((ids.len(), table.table.len()), (UNKNOWN_MAX, UNKNOWN_MAX));
    ids
}

#[test]
fn prefixes_are_served_round_robin() {
    let mut table = PendingLogins::default();
    let flood: Vec<LoginId> = (0..5).map(|nonce| insert(&mut table, "192.0.2.1:1", nonce)).collect();
    flood.iter().for_each(|&id| table.make_ready(id));
    let honest = insert(&mut table, "192.0.2.2:1", 9);
    table.make_ready(honest);
    assert_eq!(table.next_ready(), Some(flood[0]));
    assert_eq!(table.next_ready(), Some(honest));
    assert_eq!(table.next_ready(), Some(flood[1]));
    remove(&mut table, &flood[2]);
    assert_eq!(table.next_ready(), Some(flood[3]), "a removed login is skipped");
    assert_eq!(table.next_ready(), Some(flood[4]));
    assert_eq!(table.next_ready(), None);
    assert!(!table.has_ready());
}

#[test]
fn known_prefixes_have_every_other_turn() {
    let mut table = PendingLogins::default();
    let flood: Vec<LoginId> = (0..5).map(|network| id(network, 0, 1)).collect();
    let known: Vec<LoginId> = (0..3).map(|number| id(9, 0, number)).collect();
    for (ids, is_known) in [(&flood, false), (&known, true)] {
        ids.iter().for_each(|&id| assert!(insert_at(&mut table, id, is_known, origin()).is_none()));
        ids.iter().for_each(|&id| table.make_ready(id));
    }
    remove(&mut table, &known[1]);
    let order: Vec<_> = std::iter::from_fn(|| table.next_ready()).collect();
    assert_eq!(order, [known[0], flood[0], known[2], flood[1], flood[2], flood[3], flood[4]]);
    assert!(!table.has_ready());
    let known = [id(9, 0, 10), id(9, 0, 11), id(9, 0, 12)];
    for id in known {
        insert_at(&mut table, id, true, origin());
        table.make_ready(id);
    }
    assert_eq!(known.map(|_| table.next_ready()), known.map(Some), "and all turns that nobody else needs");
}

#[test]
fn a_network_has_a_bounded_share_of_the_table_and_its_logins_expire() {
    let mut table = PendingLogins::default();
    let number = |at: usize| id(1, u16::try_from(at % 100).unwrap(), u16::try_from(at).unwrap());
    for at in 0..PENDING_LOGINS_PER_NETWORK_MAX + 10 {
        insert_at(&mut table, number(at), false, origin());
        table.make_ready(number(at));
    }
    assert_eq!(table.table.len(), PENDING_LOGINS_PER_NETWORK_MAX);
    assert!(table.find_mut(&number(9)).is_none() && table.find_mut(&number(10)).is_some(), "its oldest are gone");
    assert_eq!(table.unknown_prefixes.ready.len(), PENDING_LOGINS_PER_NETWORK_MAX, "and are no longer queued");
    let later = origin() + Duration::from_secs(1);
    insert_at(&mut table, id(2, 0, 1), false, later);
    assert_eq!(table.next_expiry(), Some(origin() + PENDING_LOGIN_LIFETIME));
    expire(&mut table, origin() + PENDING_LOGIN_LIFETIME - Duration::from_millis(1));
    assert_eq!(table.table.len(), PENDING_LOGINS_PER_NETWORK_MAX + 1);
    expire(&mut table, origin() + PENDING_LOGIN_LIFETIME);
    assert_eq!((table.table.len(), table.next_expiry()), (1, Some(later + PENDING_LOGIN_LIFETIME)));
    expire(&mut table, later + PENDING_LOGIN_LIFETIME);
    let partition = &table.unknown_prefixes;
    assert_eq!((table.table.len(), partition.logins.len(), partition.ready.len()), (0, 0, 0));
    assert!(partition.logins.is_empty() && partition.by_size.is_empty() && table.next_expiry().is_none());
}

#[test]
fn when_the_table_is_full_the_network_with_the_most_logins_loses_its_oldest() {
    let mut table = PendingLogins::default();
    let flood = fill(&mut table, 12);
    // One /48 has more than the others, though each of its /64s holds one.
    let (extra, honest) = (id(3, 999, 1), id(100, 0, 1));
    table.confirm(&flood[3]);
    let displaced = [extra, honest].map(|id| insert_at(&mut table, id, false, origin()).unwrap());
    assert_eq!(displaced.each_ref().map(|login| login.is_unfinished), [true, false], "{displaced:?}");
    assert_eq!(table.table.len(), UNKNOWN_MAX);
    assert!(table.find_mut(&flood[3]).is_none(), "network 3 had the most logins, and this was its oldest");
    for number in 1..UNKNOWN_MAX {
        insert_at(&mut table, id(number as u16 % 12, 1_000, 1_000 + number as u16), false, origin());
    }
    assert!(table.find_mut(&honest).is_some(), "a network with one login loses nothing to larger ones");
    assert_eq!(table.table.len(), UNKNOWN_MAX);
}

#[test]
fn a_table_full_of_networks_with_one_login_each_evicts_in_order_and_leaves_known_prefixes_alone() {
    let mut table = PendingLogins::default();
    let flood = fill(&mut table, u16::try_from(UNKNOWN_MAX).unwrap());
    let (honest, known) = (id(60_000, 0, 1), id(60_001, 0, 1));
    insert_at(&mut table, known, true, origin());
    assert!(flood.iter().all(|id| table.find_mut(id).is_some()), "known prefixes displace no unknown ones");
    insert_at(&mut table, honest, false, origin());
    assert!(table.find_mut(&flood[0]).is_none(), "the oldest of all");
    for number in 1..UNKNOWN_MAX as u16 {
        assert!(table.find_mut(&honest).is_some(), "{number}");
        insert_at(&mut table, id(number, 0, 2), false, origin());
    }
    assert!(table.find_mut(&known).is_some(), "nor do unknown prefixes displace known ones");
    assert_eq!(table.table.len(), UNKNOWN_MAX + 1);
}

#[test]
fn logins_that_wait_for_a_record_are_released_by_it() {
    let mut table = PendingLogins::default();
    let (hans, vader) = (insert(&mut table, "192.0.2.1:1", 1), insert(&mut table, "192.0.2.1:1", 2));
    table.wait_for_record(hans);
    table.wait_for_record(vader);
    assert!(!table.has_ready());
    table.release(&user("user2"));
    assert_eq!(table.next_ready(), Some(vader));
    remove(&mut table, &hans);
    assert_eq!(table.awaited_records().count(), 0);
    table.release_all();
    assert_eq!(table.next_ready(), None);
}
