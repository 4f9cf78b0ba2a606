use std::time::Duration;

use crate::common::message::{ClientMessage, Request, Response};
use crate::common::packet::Packet;
use crate::server::auth::accounts::Account;
use crate::server::core::ServerConfig;
use crate::server::test_support::{LoginOutcome, TestServer, address, origin, user};

const HERE: &str = "127.0.0.1:4000";
const THERE: &str = "127.0.0.9:4001";

#[test]
fn a_change_of_address_keeps_the_instance_and_raises_the_generation() {
    let mut test = TestServer::new(&["hans"]);
    let mut before = test.login(HERE, "hans");
    test.heartbeat(&mut before);
    let mut after = test.resume(&before, address(THERE)).expect("RESUMED");
    assert_eq!(after.params.instance, before.params.instance);
    assert_ne!(after.params.session, before.params.session);
    assert_eq!(test.heartbeat(&mut after).len(), 1);
    assert!(test.heartbeat(&mut before).is_empty());
    assert_eq!(test.server.session_count(), 1);
    let again = test.resume(&after, address(HERE)).expect("and again");
    assert_eq!(again.params.instance, before.params.instance);
}

#[test]
fn a_repeated_resume_gets_the_same_bytes() {
    let mut test = TestServer::new(&["hans"]);
    let hans = test.login(HERE, "hans");
    let (nonce, resume) = test.resume_packet(&hans, address(THERE));
    let first = test.send(address(THERE), &resume);
    let second = test.send(address(THERE), &resume);
    assert_eq!(first, second);
    let mut resumed = hans.resumed(address(THERE), nonce, &second[0].bytes).expect("RESUMED");
    assert_eq!(test.heartbeat(&mut resumed).len(), 1);
}

#[test]
fn a_ticket_whose_successor_was_used_is_void() {
    let mut test = TestServer::new(&["hans"]);
    let first = test.login(HERE, "hans");
    let (_, recorded) = test.resume_packet(&first, address(HERE));
    let reply = test.send(address(HERE), &recorded);
    assert_eq!(reply.len(), 1);
    let lost = test.resume(&first, address(THERE));
    let mut second = lost.expect("no client has used the session of the lost RESUMED");
    test.heartbeat(&mut second);
    assert!(test.resume(&first, address(HERE)).is_none());
    test.send(address(HERE), &recorded);
    assert_eq!(test.heartbeat(&mut second).len(), 1, "the replay did not end the session");
    test.advance(Duration::from_secs(3));
    test.send(address(HERE), &recorded);
    assert_eq!(test.server.session_count(), 0, "and began none");
    assert!(test.resume(&second, address(HERE)).is_some());
}

#[test]
fn a_replayed_resumption_creates_no_session() {
    let mut test = TestServer::new(&["hans"]);
    let hans = test.login(HERE, "hans");
    let (_, recorded) = test.resume_packet(&hans, address(HERE));
    // The server has forgotten that hans resumed and logged out since. An attacker at hans' address can get a new cookie.
    let mut later = TestServer::start(&["hans"], ServerConfig::default(), origin() + Duration::from_secs(60));
    let reply = later.send(address(HERE), &recorded);
    let Some(Packet::Retry { cookie, .. }) = Packet::parse(&reply[0].bytes) else { panic!("no RETRY") };
    assert_eq!((reply.len(), later.server.session_count()), (1, 0), "the cookie has expired");
    let mut renewed = recorded.clone();
    renewed[17..49].copy_from_slice(&cookie);
    let reply = later.send(address(HERE), &renewed);
    assert!(matches!(Packet::parse(&reply[0].bytes), Some(Packet::Refused { .. })));
    assert_eq!(later.server.session_count(), 0, "the client info is sealed for the recorded cookie");
    assert!(later.resume(&hans, address(HERE)).is_some(), "the owner of the ticket is not locked out");
}

#[test]
fn an_unconfirmed_resumption_does_not_lock_the_user_out() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.heartbeat(&mut hans);
    let (_, resume) = test.resume_packet(&hans, address(HERE));
    test.send(address(HERE), &resume);
    let mut client = test.login(THERE, "hans");
    test.send(address(HERE), &resume);
    assert_eq!(test.heartbeat(&mut client).len(), 1);
    assert_eq!(test.server.session_count(), 1);
    let again = test.try_login(address(HERE), "hans", "hans-pw");
    assert!(matches!(again, Some(LoginOutcome::AlreadyActive { .. })), "a confirmed session stays");
}

#[test]
fn an_instance_does_not_replace_another() {
    let mut test = TestServer::new(&["hans"]);
    let old = test.login(HERE, "hans");
    test.advance(Duration::from_secs(3));
    let mut new = test.login(THERE, "hans");
    assert!(test.resume(&old, address(HERE)).is_none());
    assert_eq!(test.heartbeat(&mut new).len(), 1);
}

#[test]
fn a_ticket_is_void_when_another_instance_has_logged_in_since() {
    let mut test = TestServer::new(&["hans"]);
    let old = test.login(HERE, "hans");
    test.advance(Duration::from_secs(3));
    test.login(THERE, "hans");
    test.advance(Duration::from_secs(3));
    assert!(test.resume(&old, address(HERE)).is_none());
    assert_eq!(test.server.session_count(), 0, "it was not the other's session that kept it out");
}

#[test]
fn a_login_after_a_refused_ticket_continues_the_instance() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.heartbeat(&mut hans);
    hans = test.resume(&hans, address(HERE)).expect("RESUMED");
    test.heartbeat(&mut hans);
    test.advance(Duration::from_secs(7 * 24 * 3_600));
    assert!(test.resume(&hans, address(HERE)).is_none(), "expired");
    let mut again = test.log_in_again(&hans, "hans");
    assert_eq!(again.params.instance, hans.params.instance);
    test.heartbeat(&mut again);
    let mut resumed = test.resume(&again, address(THERE)).expect("its ticket is not used up");
    test.heartbeat(&mut resumed);
    test.send_message(&mut resumed, &ClientMessage::Logout);
    let new = test.log_in_again(&resumed, "hans");
    assert!(new.params.instance > resumed.params.instance, "one that has logged out ends");
}

#[test]
fn a_login_does_not_continue_an_instance_that_another_has_followed() {
    let mut test = TestServer::new(&["hans"]);
    let old = test.login(HERE, "hans");
    test.advance(Duration::from_secs(3));
    let between = test.login(THERE, "hans");
    test.advance(Duration::from_secs(3));
    assert!(test.log_in_again(&old, "hans").params.instance > between.params.instance);
}

#[test]
fn a_user_is_active_since_the_first_session_without_a_gap() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let mut hans = test.login(HERE, "hans");
    test.advance(Duration::from_secs(2));
    test.heartbeat(&mut hans);
    let mut resumed = test.resume(&hans, address(THERE)).expect("RESUMED");
    test.advance(Duration::from_secs(2));
    test.heartbeat(&mut resumed);
    let mut vader = test.login("127.0.0.1:4009", "vader");
    let active_s = |test: &mut TestServer, vader: &mut _| match test.request(vader, Request::Peers { cursor: None }) {
        Response::Peers { peers, .. } => peers[0].active_s,
        other => panic!("{other:?}"),
    };
    assert_eq!(active_s(&mut test, &mut vader), 4);
    test.advance(Duration::from_secs(3));
    let mut vader = test.login("127.0.0.1:4009", "vader");
    assert!(test.resume(&resumed, address(THERE)).is_some());
    test.advance(Duration::from_secs(1));
    assert_eq!(active_s(&mut test, &mut vader), 1, "hans was away");
}

#[test]
fn a_session_survives_a_restart() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let restart = |secret: u8| {
        let config = ServerConfig { root_secret: [secret; 32].into(), ..ServerConfig::default() };
        TestServer::start(&["hans"], config, origin() + Duration::from_secs(10))
    };
    let mut same = restart(0);
    let bytes = hans.seal(&ClientMessage::Logout);
    assert_eq!(same.send(address(HERE), &bytes).len(), 1, "RESET");
    let mut resumed = same.resume(&hans, address(HERE)).expect("RESUMED");
    assert_eq!(resumed.params.instance, hans.params.instance);
    assert_eq!(
        same.request(&mut resumed, Request::Peers { cursor: None }),
        Response::Peers { peers: Vec::new(), next: None }
    );
    let mut other = restart(1);
    assert!(other.send(address(HERE), &bytes).is_empty(), "not an id of this server");
    assert!(other.resume(&hans, address(HERE)).is_none());
}

#[test]
fn a_ticket_expires() {
    let mut test = TestServer::new(&["hans"]);
    let hans = test.login(HERE, "hans");
    test.advance(Duration::from_secs(7 * 24 * 3_600));
    assert!(test.resume(&hans, address(HERE)).is_none());
}

#[test]
fn an_expired_ticket_resumes_a_session_that_is_still_alive() {
    let hour = Duration::from_secs(3_600);
    let config = ServerConfig { liveness: hour, ..ServerConfig::default() };
    let mut test = TestServer::start(&["hans"], config, origin());
    let mut hans = test.login(HERE, "hans");
    for _ in 0..=7 * 24 * 2 {
        test.advance(hour / 2);
        assert_eq!(test.heartbeat(&mut hans).len(), 1);
    }
    let login = test.try_login(address(THERE), "hans", "hans-pw");
    assert!(matches!(login, Some(LoginOutcome::AlreadyActive { .. })), "a resumption is the only way back");
    let mut resumed = test.resume(&hans, address(THERE)).expect("RESUMED");
    assert_eq!(resumed.params.instance, hans.params.instance);
    assert_eq!(test.heartbeat(&mut resumed).len(), 1);
    test.advance(hour);
    assert!(test.resume(&hans, address(HERE)).is_none(), "expired, and without a session");
    assert!(test.resume(&resumed, address(HERE)).is_some(), "the resumed session has a ticket of its own");
}

#[test]
fn a_stolen_ticket_is_invalid_without_its_secret() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (hans, mut vader) = (test.login(HERE, "hans"), test.login(THERE, "vader"));
    vader.params.ticket.clone_from(&hans.params.ticket);
    assert!(test.resume(&vader, address(THERE)).is_none());
    let taken = test.try_login(address(THERE), "hans", "hans-pw");
    assert!(matches!(taken, Some(LoginOutcome::AlreadyActive { .. })), "hans is still logged in");
}

#[test]
fn ten_thousand_sessions_of_one_address_survive_a_restart() {
    let mut test = TestServer::new(&[]);
    let users: Vec<String> = (0..10_000).map(|at| format!("user{at}")).collect();
    let clients: Vec<_> = users.iter().map(|user| test.insert_session(user)).collect();
    let mut later = TestServer::start(&[], ServerConfig::default(), origin() + Duration::from_secs(10));
    for (at, client) in clients.iter().enumerate() {
        let owner = later.server.index.intern_owner(&user(&users[at]));
        later.server.accounts.entry(user(&users[at])).or_insert_with(|| Account::new(owner)).version = Some([0; 16]);
        let from = address(&format!("127.0.0.1:{}", 1_000 + at));
        assert!(later.resume(client, from).is_some(), "client {at}");
    }
    assert_eq!(later.server.session_count(), 10_000);
}
