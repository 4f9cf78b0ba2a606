//! Asking the server who serves what.

use std::net::SocketAddr;

use crate::client::control::RequestError;
use crate::client::control::server_api::{ServerApi, source_batches};
use crate::common::redacted::Redacted;
use crate::common::types::{ContentRef, UserName};

/// A peer that serves some files, and leave to ask it for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOffer {
    /// Who.
    pub user: UserName,
    /// Where it listens.
    pub address: SocketAddr,
    /// The key of the ticket's connection.
    pub key: Redacted<[u8; 32]>,
    /// The sealed ticket.
    pub ticket: Vec<u8>,
    /// What the ticket grants, in its order: indices into the files that were asked about.
    pub files: Vec<usize>,
}

/// Who can be asked for sources: the server, or a stand-in in tests.
pub trait SourceDiscovery: Send + Sync {
    /// Peers that serve these files, best first for each, at most `most` for each.
    fn find_sources(&self, files: &[ContentRef], most: usize) -> Result<Vec<SourceOffer>, RequestError>;
}

impl SourceDiscovery for ServerApi {
    fn find_sources(&self, files: &[ContentRef], most: usize) -> Result<Vec<SourceOffer>, RequestError> {
        let batches = source_batches(files);
        let mut offers = Vec::new();
        let mut first = 0;
        for (batch, sources) in batches.iter().zip(self.sources_many(&batches, most)?) {
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
