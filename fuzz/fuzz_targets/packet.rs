//! Any datagram: one packet or none, and a packet is written as it was read.
#![no_main]

use fileshare::common::packet::Packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let Some(packet) = Packet::parse(datagram) else { return };
    if matches!(packet, Packet::Session { .. }) {
        return; // its sealer writes it
    }
    let written = packet.to_bytes();
    assert_eq!(Packet::parse(&written), Some(packet));
    assert_eq!(written.len(), datagram.len());
});
