use super::*;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(7)
}

fn hans() -> UserName {
    UserName::parse("hans").unwrap()
}

/// Runs the whole exchange; returns the session secrets of both sides.
fn exchange(record: &PasswordRecord, user: &UserName, password: &[u8]) -> Result<(Secret, Secret), LoginFailed> {
    let rng = &mut rng();
    let (client, ke1) = ClientLogin::start(rng, password);
    let (server, ke2) = ServerLogin::start(rng, record, user, &ke1);
    let (client_key, ke3) = client.finish(rng, user, password, &ke2, KeyStretching::Insecure)?;
    let server_key = server.finish(user, &ke3)?;
    Ok((client_key.session_secret(), server_key.session_secret()))
}

#[test]
fn the_right_password_gives_both_sides_the_same_key() {
    let record = PasswordRecord::register(&mut rng(), &hans(), b"falcon*solo", KeyStretching::Insecure);
    let (client, server) = exchange(&record, &hans(), b"falcon*solo").unwrap();
    assert_eq!(client, server);
    let read_back = PasswordRecord::from_bytes(&record.to_bytes()).expect("our own bytes");
    assert!(exchange(&read_back, &hans(), b"falcon*solo").is_ok());
}

#[test]
fn a_wrong_password_user_or_record_fails() {
    let record = PasswordRecord::register(&mut rng(), &hans(), b"falcon*solo", KeyStretching::Insecure);
    assert!(exchange(&record, &hans(), b"falcon*sol").is_err());
    assert!(exchange(&record, &UserName::parse("vader").unwrap(), b"falcon*solo").is_err());
    let fake = PasswordRecord::fake(&Zeroizing::new([1; 32]), &hans());
    assert!(exchange(&fake, &hans(), b"falcon*solo").is_err());
}

#[test]
fn the_stretchings_give_different_keys() {
    let record = PasswordRecord::register(&mut rng(), &hans(), b"falcon*solo", KeyStretching::Argon2id);
    assert!(exchange(&record, &hans(), b"falcon*solo").is_err());
}

#[test]
fn a_random_ke3_and_an_invalid_ke1_are_rejected() {
    let record = PasswordRecord::register(&mut rng(), &hans(), b"falcon*solo", KeyStretching::Insecure);
    let (server, _) = ServerLogin::start(&mut rng(), &record, &hans(), &[0xff; KE1_BYTES]);
    assert!(server.finish(&hans(), &[5; KE3_BYTES]).is_err());
}

#[test]
fn fake_records_are_deterministic_and_differ_by_name_and_seed() {
    let fake =
        |seed, name| PasswordRecord::fake(&Zeroizing::new([seed; 32]), &UserName::parse(name).unwrap()).to_bytes();
    assert_eq!(fake(1, "nobody"), fake(1, "nobody"));
    assert_ne!(fake(1, "nobody"), fake(1, "noone"));
    assert_ne!(fake(1, "nobody"), fake(2, "nobody"));
    assert_eq!(fake(1, "nobody").len(), PASSWORD_RECORD_BYTES);
}

#[test]
fn damaged_records_are_rejected() {
    let bytes = PasswordRecord::register(&mut rng(), &hans(), b"x", KeyStretching::Insecure).to_bytes();
    assert!(PasswordRecord::from_bytes(&bytes[1..]).is_none());
    let mut damaged = bytes.to_vec();
    damaged[128..160].fill(0xff);
    assert!(PasswordRecord::from_bytes(&damaged).is_none(), "not a point of the group");
}

#[test]
fn two_logins_share_no_bytes() {
    let mut rng = rng();
    let record = PasswordRecord::register(&mut rng, &hans(), b"falcon*solo", KeyStretching::Insecure);
    let mut transcript = || {
        let (client, ke1) = ClientLogin::start(&mut rng, b"falcon*solo");
        let (_, ke2) = ServerLogin::start(&mut rng, &record, &hans(), &ke1);
        let (_, ke3) = client.finish(&mut rng, &hans(), b"falcon*solo", &ke2, KeyStretching::Insecure).unwrap();
        [&ke1[..], &ke2, &ke3].concat()
    };
    let (first, second) = (transcript(), transcript());
    assert!(!first.windows(8).any(|window| second.windows(8).any(|other| other == window)));
}

#[test]
fn stretching_equals_argon2_when_memory_is_reused() {
    for stretching in [KeyStretching::Insecure, KeyStretching::Argon2id, KeyStretching::Insecure] {
        let input = GenericArray::from([7; 64]);
        let expected = Ksf::hash(&stretching.argon2(), input).unwrap();
        assert_eq!(stretching.hash(input).unwrap(), expected);
    }
}
