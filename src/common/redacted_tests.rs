use super::*;
use crate::common::handshake_keys::SessionParams;
use crate::common::message::SourceGrant;
use crate::common::ticket::{ResumptionTicket, TransferTicket};
use crate::common::types::{InstanceId, PublicationsDigest, SessionId, UserName};

/// Bytes that appear as `167` in a list and as `a7` in hex, unlike all other values here.
const KEY: [u8; 32] = [0xa7; 32];

fn hans() -> UserName {
    UserName::parse("hans").unwrap()
}

fn session_params() -> SessionParams {
    SessionParams {
        session: SessionId([1; 16]),
        instance: InstanceId(2),
        heartbeat_ms: 3,
        liveness_ms: 4,
        server_time_ms: 5,
        reset_token: [0xa7; 16].into(),
        ticket: vec![6; 100],
        digest: PublicationsDigest::default(),
        last_writer: InstanceId(8),
        local_only: false,
    }
}

#[test]
fn a_value_with_a_key_does_not_show_it() {
    let transfer = TransferTicket { downloader: hans(), expires_ms: 1, key: KEY.into(), grants: vec![] };
    let resumption = ResumptionTicket {
        user: hans(),
        credential_version: [1; 16],
        instance: InstanceId(2),
        generation: 3,
        secret: KEY.into(),
        expires_ms: 4,
    };
    let address = "192.0.2.1:9".parse().unwrap();
    let grant =
        SourceGrant { user: hans(), address, has_free_slot: true, file_mask: 1, key: KEY.into(), ticket: vec![2; 9] };
    let shown = [
        format!("{:?}", Redacted(KEY)),
        format!("{:#?}", Redacted(Some(KEY))),
        format!("{transfer:?}"),
        format!("{resumption:?}"),
        format!("{grant:?}"),
        format!("{:?}", session_params()),
    ];
    for shown in shown {
        assert!(shown.contains("(redacted)"), "{shown}");
        assert!(!shown.contains("167") && !shown.contains("a7"), "{shown}");
    }
}

#[test]
fn it_is_encoded_as_its_value() {
    assert_eq!(postcard::to_stdvec(&Redacted(KEY)), postcard::to_stdvec(&KEY));
    assert_eq!(postcard::from_bytes(&KEY), Ok(Redacted(KEY)));
}
