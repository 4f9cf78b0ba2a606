use super::*;
use crate::common::packet::RESUMPTION_TICKET_MAX_BYTES;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(7)
}

fn hans() -> UserName {
    UserName::parse("hans").unwrap()
}

/// Runs the whole exchange; gives both sides' session secrets.
fn exchange(record: &Record, user: &UserName, password: &[u8]) -> Result<(Secret, Secret), LoginFailed> {
    let rng = &mut rng();
    let (client, ke1) = ClientLogin::start(rng, password);
    let (server, ke2) = ServerLogin::start(rng, record, user, &ke1);
    let (client_key, ke3) = client.finish(rng, user, password, &ke2, Stretching::Minimal)?;
    let server_key = server.finish(user, &ke3)?;
    Ok((client_key.session_secret(), server_key.session_secret()))
}

#[test]
fn the_right_password_leaves_the_same_key_on_both_sides() {
    let record = Record::enrol(&mut rng(), &hans(), b"falcon*solo", Stretching::Minimal);
    let (client, server) = exchange(&record, &hans(), b"falcon*solo").unwrap();
    assert_eq!(client, server);
    let read_back = Record::from_bytes(&record.to_bytes()).expect("our own bytes");
    assert!(exchange(&read_back, &hans(), b"falcon*solo").is_ok());
}

#[test]
fn a_wrong_password_user_or_record_fails() {
    let record = Record::enrol(&mut rng(), &hans(), b"falcon*solo", Stretching::Minimal);
    assert!(exchange(&record, &hans(), b"falcon*sol").is_err());
    assert!(exchange(&record, &UserName::parse("vader").unwrap(), b"falcon*solo").is_err());
    let fake = Record::fake(&Zeroizing::new([1; 32]), &hans());
    assert!(exchange(&fake, &hans(), b"falcon*solo").is_err());
}

#[test]
fn the_standard_stretching_is_not_the_minimal_one() {
    let record = Record::enrol(&mut rng(), &hans(), b"falcon*solo", Stretching::Standard);
    assert!(exchange(&record, &hans(), b"falcon*solo").is_err());
}

#[test]
fn a_random_proof_and_a_senseless_ke1_are_refused() {
    let record = Record::enrol(&mut rng(), &hans(), b"falcon*solo", Stretching::Minimal);
    let (server, _) = ServerLogin::start(&mut rng(), &record, &hans(), &[0xff; KE1_BYTES]);
    assert!(server.finish(&hans(), &[5; KE3_BYTES]).is_err());
}

#[test]
fn fake_records_are_steady_and_differ_by_name_and_seed() {
    let fake = |seed, name| Record::fake(&Zeroizing::new([seed; 32]), &UserName::parse(name).unwrap()).to_bytes();
    assert_eq!(fake(1, "nobody"), fake(1, "nobody"));
    assert_ne!(fake(1, "nobody"), fake(1, "noone"));
    assert_ne!(fake(1, "nobody"), fake(2, "nobody"));
    assert_eq!(fake(1, "nobody").len(), RECORD_BYTES);
}

#[test]
fn damaged_records_are_noticed() {
    let bytes = Record::enrol(&mut rng(), &hans(), b"x", Stretching::Minimal).to_bytes();
    assert!(Record::from_bytes(&bytes[1..]).is_none());
    let mut damaged = bytes.to_vec();
    damaged[128..160].fill(0xff);
    assert!(Record::from_bytes(&damaged).is_none(), "not a point of the group");
}

#[test]
fn the_same_login_twice_shares_no_bytes() {
    let mut rng = rng();
    let record = Record::enrol(&mut rng, &hans(), b"falcon*solo", Stretching::Minimal);
    let mut transcript = || {
        let (client, ke1) = ClientLogin::start(&mut rng, b"falcon*solo");
        let (_, ke2) = ServerLogin::start(&mut rng, &record, &hans(), &ke1);
        let (_, ke3) = client.finish(&mut rng, &hans(), b"falcon*solo", &ke2, Stretching::Minimal).unwrap();
        [&ke1[..], &ke2, &ke3].concat()
    };
    let (first, second) = (transcript(), transcript());
    assert!(!first.windows(8).any(|window| second.windows(8).any(|other| other == window)));
}

fn welcome() -> LoginAnswer {
    LoginAnswer::Welcome(Welcome {
        session: SessionId([255; 16]),
        run: RunId(u64::MAX),
        heartbeat_ms: u32::MAX,
        liveness_ms: u32::MAX,
        server_time_ms: u64::MAX,
        reset_token: [255; 16].into(),
        ticket: vec![255; RESUMPTION_TICKET_MAX_BYTES],
        digest: StateDigest([255; 16]),
        last_writer: RunId(u64::MAX),
        local_only: true,
    })
}

#[test]
fn the_largest_welcome_fits_and_a_refusal_has_its_size() {
    let key = LoginKey(Zeroizing::new(vec![1; 64]));
    for answer in [welcome(), LoginAnswer::AlreadyActive { liveness_ms: u32::MAX }] {
        let sealed = key.seal_answer(&[3; 16], &answer);
        assert_eq!(key.open_answer(&[3; 16], &sealed), Ok(answer));
        assert_eq!(key.open_answer(&[4; 16], &sealed), Err(LoginFailed));
    }
}

#[test]
fn resumption_keys_are_fresh_by_both_nonces() {
    let key = ResumptionKey::new(Zeroizing::new([1; 32]));
    let details = LoginDetails { tcp_port: u16::MAX, free_slots: u8::MAX };
    let sealed = key.seal_details(&[3; 16], &[5; 32], &details);
    assert_eq!(key.open_details(&[3; 16], &[5; 32], &sealed), Ok(details));
    assert_eq!(key.open_details(&[4; 16], &[5; 32], &sealed), Err(LoginFailed));
    assert_eq!(key.open_details(&[3; 16], &[6; 32], &sealed), Err(LoginFailed), "good with its cookie alone");
    assert_ne!(key.session_secret(&[3; 16], &[1; 16]), key.session_secret(&[3; 16], &[2; 16]));
    let sealed = key.seal_answer(&[3; 16], &[1; 16], &welcome());
    assert_eq!(key.open_answer(&[3; 16], &[1; 16], &sealed), Ok(welcome()));
    assert_eq!(key.open_answer(&[3; 16], &[2; 16], &sealed), Err(LoginFailed));
}

#[test]
fn stretching_is_argon2_however_often_its_memory_is_used() {
    for stretching in [Stretching::Minimal, Stretching::Standard, Stretching::Minimal] {
        let input = GenericArray::from([7; 64]);
        let expected = Ksf::hash(&stretching.argon2(), input).unwrap();
        assert_eq!(stretching.hash(input).unwrap(), expected);
    }
}
