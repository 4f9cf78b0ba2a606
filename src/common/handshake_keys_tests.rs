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
        let sealed = key.seal_result(&[3; 16], &result);
        assert_eq!(key.open_result(&[3; 16], &sealed), Ok(result));
        assert_eq!(key.open_result(&[4; 16], &sealed), Err(LoginFailed));
    }
}

#[test]
fn resumption_keys_depend_on_both_nonces() {
    let key = ResumptionKey::new(Zeroizing::new([1; 32]));
    let info = ClientInfo { tcp_port: u16::MAX, free_slots: u8::MAX };
    let sealed = key.seal_client_info(&[3; 16], &[5; 32], &info);
    assert_eq!(key.open_client_info(&[3; 16], &[5; 32], &sealed), Ok(info));
    assert_eq!(key.open_client_info(&[4; 16], &[5; 32], &sealed), Err(LoginFailed));
    assert_eq!(key.open_client_info(&[3; 16], &[6; 32], &sealed), Err(LoginFailed), "valid with its cookie only");
    assert_ne!(key.session_secret(&[3; 16], &[1; 16]), key.session_secret(&[3; 16], &[2; 16]));
    let sealed = key.seal_result(&[3; 16], &[1; 16], &accepted());
    assert_eq!(key.open_result(&[3; 16], &[1; 16], &sealed), Ok(accepted()));
    assert_eq!(key.open_result(&[3; 16], &[2; 16], &sealed), Err(LoginFailed));
}

#[test]
fn a_sealed_message_opens_only_with_its_key_and_nonce() {
    let key = Zeroizing::new([1; 32]);
    let sealed: [u8; 24] = seal_padded(&key, &[3; 16], &4_321u16);
    assert_eq!(open_padded(&key, &[3; 16], &sealed), Ok(4_321u16));
    assert_eq!(open_padded::<u16>(&key, &[4; 16], &sealed), Err(LoginFailed));
    assert_eq!(open_padded::<u16>(&Zeroizing::new([2; 32]), &[3; 16], &sealed), Err(LoginFailed));
}
