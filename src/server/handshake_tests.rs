use std::time::Duration;

use super::*;
use crate::server::testing::{address, origin, user};
use crate::server::throttle::Throttle;

fn insert(table: &mut Handshakes, from: &str, nonce: u8) -> Key {
    let key = (address(from), [nonce; 16]);
    let user = user(&format!("user{nonce}"));
    let charge = Throttle::new().check(origin(), key.0.ip(), &user).unwrap();
    table.insert(origin(), key, user, charge, [0; KE1_BYTES]);
    key
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
fn a_network_has_its_share_of_the_table_and_gets_it_back() {
    let mut table = Handshakes::default();
    for at in 0..HANDSHAKES_PER_PREFIX_MAX {
        let key = (address(&format!("192.0.2.1:{}", at + 1)), [7; 16]);
        assert_eq!(table.check_room(key.0), Ok(()));
        let charge = Throttle::new().check(origin(), key.0.ip(), &user("x")).unwrap();
        table.insert(origin(), key, user("x"), charge, [0; KE1_BYTES]);
    }
    assert_eq!(table.check_room(address("192.0.2.1:9999")), Err(Full));
    assert_eq!(table.check_room(address("192.0.2.2:1")), Ok(()));
    assert_eq!(table.next_expiry(), Some(origin() + HANDSHAKE_LIFETIME));
    table.expire(origin() + HANDSHAKE_LIFETIME - Duration::from_millis(1));
    assert_eq!(table.check_room(address("192.0.2.1:9999")), Err(Full));
    table.expire(origin() + HANDSHAKE_LIFETIME);
    assert_eq!(table.check_room(address("192.0.2.1:9999")), Ok(()));
    assert_eq!(table.next_expiry(), None);
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
