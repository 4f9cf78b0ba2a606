use super::*;
use crate::common::packet::RESUMPTION_TICKET_MAX_BYTES;

fn accepted() -> LoginResult {
    LoginResult::Accepted(SessionParams {
        session: SessionId([255; 16]),
        instance: InstanceId(u64::MAX),
        heartbeat_ms: u32::MAX,
        liveness_ms: u32::MAX,
        server_time_ms: u64::MAX,
        reset_token: [255; 16].into(),
        ticket: vec![255; RESUMPTION_TICKET_MAX_BYTES],
        digest: PublicationsDigest([255; 16]),
        last_writer: InstanceId(u64::MAX),
        local_only: true,
    })
}

#[test]
fn results_of_any_size_are_sealed_in_the_same_size() {
    let key = LoginKey::new(&[1; 64]);
    for result in [accepted(), LoginResult::AlreadyActive { liveness_ms: u32::MAX }] {
        let sealed = key.result(&[3; 16]).seal(&result);
        assert_eq!(key.result(&[3; 16]).open(&sealed), Ok(result));
        assert_eq!(key.result(&[4; 16]).open(&sealed), Err(LoginFailed));
    }
}

#[test]
fn resumption_keys_depend_on_both_nonces() {
    let key = ResumptionKey::new(Zeroizing::new([1; 32]));
    let info = ClientInfo { tcp_port: u16::MAX, free_slots: u8::MAX, instance: InstanceId(u64::MAX) };
    let sealed = key.client_info(&[3; 16], &[5; 32]).seal(&info);
    assert_eq!(key.client_info(&[3; 16], &[5; 32]).open(&sealed), Ok(info));
    assert_eq!(key.client_info(&[4; 16], &[5; 32]).open(&sealed), Err(LoginFailed));
    assert_eq!(key.client_info(&[3; 16], &[6; 32]).open(&sealed), Err(LoginFailed), "valid with its cookie only");
    assert_ne!(key.session_secret(&[3; 16], &[1; 16]), key.session_secret(&[3; 16], &[2; 16]));
    let sealed = key.result(&[3; 16], &[1; 16]).seal(&accepted());
    assert_eq!(key.result(&[3; 16], &[1; 16]).open(&sealed), Ok(accepted()));
    assert_eq!(key.result(&[3; 16], &[2; 16]).open(&sealed), Err(LoginFailed));
}

#[test]
fn a_sealed_message_opens_only_with_its_key_and_nonce() {
    let key = |byte, nonce| MessageKey::<u16, 24>::new(Zeroizing::new([byte; 32]), &nonce);
    let sealed = key(1, [3; 16]).seal(&4_321);
    assert_eq!(key(1, [3; 16]).open(&sealed), Ok(4_321));
    assert_eq!(key(1, [4; 16]).open(&sealed), Err(LoginFailed));
    assert_eq!(key(2, [3; 16]).open(&sealed), Err(LoginFailed));
}
