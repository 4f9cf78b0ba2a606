use std::net::Ipv6Addr;

use super::*;

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(user: &UserName, address: IpAddr) -> Location {
    Location { user: user.clone(), prefix: AddressPrefix::of(address) }
}

/// A wrong guess. Returns whether it was admitted.
fn guess(throttle: &mut LoginThrottle, now: Instant, from: IpAddr, victim: &UserName) -> bool {
    throttle.check(now, from, victim).is_ok()
}

/// A right guess. Returns whether it was admitted.
fn log_in(throttle: &mut LoginThrottle, now: Instant, from: IpAddr, user: &UserName) -> bool {
    let Ok(charge) = throttle.check(now, from, user) else { return false };
    throttle.refund(now, charge);
    throttle.record_success(now, from, user);
    true
}

#[test]
fn ten_thousand_guesses_from_another_address_do_not_lock_the_victim_out() {
    let (mut throttle, start, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    let mut admitted = 0;
    for i in 0..10_000 {
        let now = start + Duration::from_millis(6 * i);
        admitted += u32::from(guess(&mut throttle, now, address("127.0.0.2"), &hans));
        if i % 100 == 50 {
            // The victim's address stays unknown: a refund restores the buckets and records nothing.
            let charge = throttle.check(now, address("127.0.0.1"), &hans).expect("the victim is admitted");
            throttle.refund(now, charge);
        }
    }
    assert!((20..=20 + 30).contains(&admitted), "a burst of 20, then one every 2 s: {admitted}");
}

#[test]
fn guesses_from_everywhere_do_not_lock_a_returning_victim_out() {
    let (mut throttle, start, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    let home = address("192.0.2.1");
    assert!(log_in(&mut throttle, start, home, &hans));
    let mut admitted = 0;
    for i in 0..10_000u32 {
        let now = start + Duration::from_millis(6 * u64::from(i));
        admitted += u32::from(guess(&mut throttle, now, IpAddr::from((0x0a00_0000 + i).to_be_bytes()), &hans));
        assert!(i % 100 != 50 || log_in(&mut throttle, now, home, &hans), "the victim is admitted");
    }
    assert!((400..=400 + 120).contains(&admitted), "two bursts of 200, then two a second: {admitted}");
    // While thousands of networks guess, the victim waits like everyone else at an unknown location.
    let now = start + Duration::from_secs(60);
    assert!((0..10).any(|_| !guess(&mut throttle, now, address("198.51.100.1"), &hans)));
    // Known locations expire.
    let later = start + Duration::from_secs(60) + KNOWN_LOCATION_LIFETIME;
    assert!(!throttle.known.contains(later, &at(&hans, home)));
}

#[test]
fn guesses_from_a_hundred_networks_do_not_lock_the_victim_out_at_a_new_location() {
    // As after a restart: no location is known.
    let (mut throttle, start, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    for second in 0..3_600 {
        let now = start + Duration::from_secs(second);
        for host in 0..100 {
            guess(&mut throttle, now, IpAddr::from([10, 0, 0, host]), &hans);
        }
        if second % 60 == 0 {
            let from = IpAddr::from([192, 0, 2, u8::try_from(second / 60).unwrap()]);
            // A typing error and the right password, from another address each minute.
            let charges = [(); 2].map(|()| throttle.check(now, from, &hans));
            for charge in charges {
                throttle.refund(now, charge.expect("the victim is admitted"));
            }
        }
    }
}

#[test]
fn guesses_from_the_ipv6_networks_of_one_site_do_not_lock_the_victim_out_at_a_new_location() {
    let (mut throttle, start, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    for host in 0..60_000 {
        let now = start + Duration::from_millis(host);
        let prefix = u16::try_from(host).unwrap();
        guess(&mut throttle, now, Ipv6Addr::new(0x2001, 0xdb8, 1, prefix, 0, 0, 0, 1).into(), &hans);
        assert!(
            host % 1_000 != 0 || {
                let charge = throttle.check(now, address("2001:db8:2::1"), &hans);
                charge.map(|charge| throttle.refund(now, charge)).is_ok()
            }
        );
    }
}

#[test]
fn known_and_unknown_users_get_the_same_answers() {
    let (mut throttle, now, home) = (LoginThrottle::default(), Instant::now(), address("192.0.2.1"));
    assert!(log_in(&mut throttle, now, home, &user("hans")));
    let results = ["hans", "nobody"].map(|name| {
        for host in 0..=u16::MAX {
            guess(&mut throttle, now, Ipv6Addr::new(0x2001, 0xdb8, host, 0, 0, 0, 0, 1).into(), &user(name));
        }
        // At the prefix where hans has logged in, and at another.
        [home, address("192.0.2.2")]
            .map(|from| (0..30).map(|_| throttle.check(now, from, &user(name)).map(drop)).collect::<Vec<_>>())
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0][0].iter().filter(|result| result.is_ok()).count(), 20);
    assert_eq!(results[0][1].iter().filter(|result| result.is_ok()).count(), 0);
}

#[test]
fn a_user_cannot_guess_without_limit_at_other_passwords_from_known_locations() {
    let (mut throttle, start, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    let mut admitted = 0;
    for second in 0..1_000 {
        let now = start + Duration::from_secs(second);
        for host in 1..=16 {
            let from = IpAddr::from([192, 0, 2, host]);
            throttle.record_success(now, from, &user("vader"));
            admitted += u32::from(guess(&mut throttle, now, from, &hans));
        }
    }
    assert!((1_100..=200 + 1_000).contains(&admitted), "a burst of 200, then one a second: {admitted}");
}

#[test]
fn a_guess_refused_by_address_takes_no_token_of_the_user() {
    let (mut throttle, now, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    for _ in 0..10_000 {
        guess(&mut throttle, now, address("127.0.0.2"), &hans);
    }
    // 20 of the user's 400 are gone, not all.
    let others = (0..500)
        .filter(|&i| guess(&mut throttle, now, IpAddr::from((0x0a00_0000u32 + i).to_be_bytes()), &hans))
        .count();
    assert_eq!(others, 380);
}

#[test]
fn one_host_may_log_in_hundreds_of_clients_but_not_guess_at_all_users() {
    let (mut throttle, now, host) = (LoginThrottle::default(), Instant::now(), address("127.0.0.1"));
    let users: Vec<_> = (0..5_000).map(|i| user(&format!("user{i}"))).collect();
    // Logins in progress at the same time: charged, not yet refunded.
    let charges: Vec<_> = users.iter().take(500).map(|user| throttle.check(now, host, user).unwrap()).collect();
    for charge in charges {
        throttle.refund(now, charge);
    }
    assert!(users.iter().take(500).all(|user| log_in(&mut throttle, now, host, user)));
    let guessed = users.iter().skip(500).filter(|user| guess(&mut throttle, now, host, user)).count();
    assert_eq!(guessed, 512, "of those who have not logged in there");
    assert_eq!(throttle.check(now, host, &users[4_999]).unwrap_err(), RetryAfter { seconds: 1 });
    assert!(users.iter().take(500).all(|user| log_in(&mut throttle, now, host, user)));
}

#[test]
fn the_wait_is_in_whole_seconds() {
    let (mut throttle, now, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    let from = address("127.0.0.2");
    assert_eq!((0..30).filter(|_| guess(&mut throttle, now, from, &hans)).count(), 20);
    let refused = throttle.check(now, from, &hans).unwrap_err();
    assert_eq!(refused, RetryAfter { seconds: 2 });
    assert!(guess(&mut throttle, now + Duration::from_secs(2), from, &hans));
}

#[test]
fn one_user_cannot_displace_the_known_locations_of_others() {
    let (mut throttle, start, hans) = (LoginThrottle::default(), Instant::now(), user("hans"));
    let home = address("192.0.2.1");
    throttle.record_success(start, home, &hans);
    let vader = user("vader");
    for i in 0..100_000u32 {
        let now = start + Duration::from_millis(u64::from(i));
        throttle.record_success(now, IpAddr::from((0x0a00_0000 + i).to_be_bytes()), &vader);
    }
    assert!(throttle.known.contains(start, &at(&hans, home)));
    assert_eq!(throttle.known.locations.len(), 1 + KNOWN_LOCATIONS_PER_USER_MAX);
    assert_eq!(throttle.known.per_prefix.len(), 1 + KNOWN_LOCATIONS_PER_USER_MAX);
    assert!(
        throttle.is_known(AddressPrefix::of(home)) && throttle.is_known(AddressPrefix::of(address("10.1.134.159")))
    );
    assert!(
        !throttle.is_known(AddressPrefix::of(address("10.0.0.1"))),
        "a forgotten location no longer makes its prefix known"
    );
}

#[test]
fn the_number_of_known_locations_is_bounded() {
    let (mut throttle, start) = (LoginThrottle::default(), Instant::now());
    for i in 0..KNOWN_LOCATIONS_MAX as u64 + 10 {
        throttle.record_success(start + Duration::from_millis(i), address("192.0.2.1"), &user(&format!("user{i}")));
    }
    assert_eq!(throttle.known.locations.len(), KNOWN_LOCATIONS_MAX);
    let location = |i: u64| at(&user(&format!("user{i}")), address("192.0.2.1"));
    assert!(!throttle.known.contains(start, &location(9)) && throttle.known.contains(start, &location(10)));
}

#[test]
fn guesses_for_unknown_names_at_a_host_do_not_lock_its_users_out() {
    let (mut throttle, start, host) = (LoginThrottle::default(), Instant::now(), address("192.0.2.1"));
    let users = ["hans", "vader"].map(user);
    for user in &users {
        assert!(log_in(&mut throttle, start, host, user));
    }
    // 20 a second, for ten minutes, each for another name.
    for at in 0..20 * 600 {
        let now = start + Duration::from_millis(50 * at);
        let admitted = guess(&mut throttle, now, host, &user(&format!("nobody{at}")));
        assert!(admitted || at > 512, "the burst of the prefix");
        assert!(at % 100 != 99 || users.iter().all(|user| log_in(&mut throttle, now, host, user)), "at guess {at}");
    }
    // A user who is new there waits like the unknown names, and a known one's password cannot be guessed without limit.
    let now = start + Duration::from_secs(600);
    assert!((0..10).any(|_| !guess(&mut throttle, now, host, &user("yoda"))));
    assert_eq!((0..100).filter(|_| guess(&mut throttle, now, host, &users[0])).count(), 20);
}
