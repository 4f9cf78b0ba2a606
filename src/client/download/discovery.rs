//! Source discovery: asking the server which peers serve a file.

use std::net::SocketAddr;
use std::time::Duration;

use crate::client::control::RequestError;
use crate::client::control::server_api::{ServerApi, source_batches};
use crate::common::redacted::Redacted;
use crate::common::types::{ContentRef, UserName};

/// Sources requested for each file.
pub(super) const SOURCES_PER_FILE: usize = 8;
/// A ticket must be presented within this time after the request for it; its life is longer.
pub(super) const OFFER_LIFETIME: Duration = Duration::from_secs(40);

/// A source as downloads tell them apart: a user at an address. Any user can report the port of another client at the same
/// IP address, and the tickets of both lead there; only those of the right user are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PeerAddress {
    pub user: UserName,
    pub address: SocketAddr,
}

/// A peer that serves some files, with a ticket to request them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOffer {
    pub user: UserName,
    /// Where the peer listens.
    pub address: SocketAddr,
    /// The key of the ticket's connection.
    pub key: Redacted<[u8; 32]>,
    pub ticket: Vec<u8>,
    /// The files that the ticket grants, in its order: indices into the queried files. The coordinator replaces them by
    /// file ids.
    pub files: Vec<usize>,
}

impl SourceOffer {
    pub(super) fn peer(&self) -> PeerAddress {
        PeerAddress { user: self.user.clone(), address: self.address }
    }
}

/// Finds sources of files: the server, or a replacement in tests.
pub trait SourceDiscovery: Send + Sync {
    /// Peers that serve these files, at most `limit` for each. `avoid`: users whose sources brought nothing, not needed for
    /// files that others serve; at most [`AVOIDED_MAX_USERS`](crate::common::limits::AVOIDED_MAX_USERS) and
    /// [`AVOIDED_MAX_BYTES`](crate::common::limits::AVOIDED_MAX_BYTES).
    fn find_sources(
        &self,
        files: &[ContentRef],
        avoid: &[UserName],
        limit: usize,
    ) -> Result<Vec<SourceOffer>, RequestError>;
}

impl SourceDiscovery for ServerApi {
    fn find_sources(
        &self,
        files: &[ContentRef],
        avoid: &[UserName],
        limit: usize,
    ) -> Result<Vec<SourceOffer>, RequestError> {
        let batches = source_batches(files);
        let mut offers = Vec::new();
        let mut first = 0;
        for (batch, sources) in batches.iter().zip(self.sources_many(&batches, avoid, limit)?) {
            for source in sources {
                let is_covered = |&bit: &usize| bit < 64 && source.file_mask & 1 << bit != 0;
                let files = (0..batch.len()).filter(is_covered).map(|bit| first + bit).collect();
                let (user, address, key, ticket) = (source.user, source.address, source.key, source.ticket);
                offers.push(SourceOffer { user, address, key, ticket, files });
            }
            first += batch.len();
        }
        Ok(offers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_does_not_show_its_key() {
        let (user, address) = (UserName::parse("hans").unwrap(), "192.0.2.1:9".parse().unwrap());
        let offer = SourceOffer { user, address, key: [167; 32].into(), ticket: vec![1], files: vec![2] };
        assert!(!format!("{offer:?}").contains("167"));
    }
}
