use std::time::Duration;

use super::*;
use crate::common::peer_message::{GRANTS_MAX, GROUP_HASHES_PART_MAX, QUEUED_RANGES_MAX, REQUEST_MAX_RANGES};

/// A number as the document writes it.
fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().ok().expect("a size").to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

#[test]
fn the_document_of_the_protocol_states_the_limits() {
    let document = include_str!("../../docs/PROTOCOL.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let stated = [
        format!("# The protocol, version {PROTOCOL_VERSION}"),
        format!("The value of `version` is {PROTOCOL_VERSION}"),
        format!("user name | 1 to {USER_NAME_MAX_BYTES} printable"),
        format!("UTF-8, 1 to {FILE_NAME_MAX_BYTES} bytes: components of 1 to {FILE_COMPONENT_MAX_BYTES} bytes"),
        format!("at most {} bytes of UDP payload", grouped(DATAGRAM_MAX_BYTES)),
        format!("A page has at most {} bytes of entries", grouped(PAGE_MAX_BYTES)),
        format!("list of NamedContent (1 to {BATCH_MAX_FILES})"),
        format!("names: list of file names (1 to {BATCH_MAX_FILES})"),
        format!("(1 to {BATCH_MAX_FILES}, at most {SOURCES_REQUEST_MAX_BYTES} bytes encoded in all)"),
        format!("(at most {AVOIDED_MAX_USERS}, and {AVOIDED_MAX_BYTES} bytes encoded with the list's length)"),
        format!("(at least one, at most {INHERITED_OWNERS_MAX_BYTES} bytes encoded)"),
        format!("number: u8 (below {SUBSCRIPTIONS_MAX})"),
        format!("ticket (at most {TICKET_MAX_BYTES})"),
        format!("of at most {} users", grouped(AUDIENCE_MAX_USERS)),
        format!("list of user names (1 to {AUDIENCE_PART_MAX_USERS})"),
        format!("each text at most {NEEDLE_MAX_BYTES} bytes"),
        format!("option of bytes (at most {CURSOR_MAX_BYTES})"),
        format!("is sent {HEARTBEAT_TRIES} times in all"),
        format!("after {}, then at doubled intervals up to {}", millis(REQUEST_RETRY_FIRST), millis(REQUEST_RETRY_MAX)),
        format!("may be pending together, at most {QUERY_WINDOW} in a session"),
        format!("a command fails after {}", seconds(COMMAND_TIMEOUT)),
        format!("every 80 ms, for at most {}", seconds(LOGOUT_TIMEOUT)),
        format!("{} after the first HELLO without any reply", seconds(LOGIN_TIMEOUT)),
        format!("a step is repeated after | {} (100 ms in a resumption)", millis(LOGIN_RETRY_FIRST)),
        format!("doubled intervals up to {}, each", seconds(LOGIN_RETRY_MAX)),
        format!("at most {}, whatever it says", seconds(THROTTLED_RETRY_MAX)),
        format!("valid for {} to {} with this address", COOKIE_BUCKET.as_secs(), seconds(COOKIE_BUCKET * 2)),
        format!("under (address, nonce) for {} from LOGIN1 on", seconds(PENDING_LOGIN_LIFETIME)),
        format!("It keeps at most {} attempts", grouped(PENDING_LOGINS_MAX)),
        format!("spreads its clients by it, over at most {}", seconds(RESET_DELAY_MAX)),
        format!("valid for {} days", RESUMPTION_LIFETIME.as_secs() / 86_400),
        format!("{} after it was made", seconds(TICKET_LIFETIME)),
        format!("that was replaced at most {} ago", seconds(TICKET_KEY_GRACE)),
        format!("chunk groups** of {} MiB", GROUP_MIN_BYTES >> 20),
        format!("until at most {} groups cover", grouped(GROUPS_MAX)),
        format!("1 to {} bytes of it", grouped(RECORD_MAX_BYTES)),
        format!("more than {} ranges in a request", grouped(REQUEST_MAX_RANGES)),
        format!("or {} ranges in its queue", grouped(QUEUED_RANGES_MAX)),
        format!("more than {} contents", grouped(GRANTS_MAX)),
        format!("each with 1 to {} hashes", grouped(GROUP_HASHES_PART_MAX)),
    ];
    let missing: Vec<_> = stated.iter().filter(|text| !document.contains(text.as_str())).collect();
    assert!(missing.is_empty(), "docs/PROTOCOL.md does not state: {missing:#?}");
}
