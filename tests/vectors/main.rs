//! The test vectors in `docs/test-vectors.json`: recorded from the programs' own code, and read by an independent reader
//! that knows nothing but docs/PROTOCOL.md.
//!
//! After a change of the protocol, `FILESHARE_WRITE_VECTORS=1 cargo test --test vectors` writes the file anew.

mod document;
mod exchange;
mod live;
mod messages;
mod primitives;
mod reader;
mod recording;

#[test]
fn the_programs_send_what_the_vectors_say() {
    let recorded = recording::record().to_json();
    if std::env::var_os("FILESHARE_WRITE_VECTORS").is_some() {
        return std::fs::write(document::path(), recorded).expect("the repository is writable");
    }
    let written = std::fs::read_to_string(document::path()).unwrap_or_default();
    for (recorded, written) in recorded.lines().zip(written.lines()) {
        assert_eq!(recorded, written, "FILESHARE_WRITE_VECTORS=1 cargo test --test vectors accepts the change");
    }
    assert_eq!(recorded.len(), written.len());
}
