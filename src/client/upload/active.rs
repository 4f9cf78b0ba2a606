//! The uploads that run, of all connections: who fetches what, and how far.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use crate::common::sync::lock;
use crate::common::types::{ContentRef, UserName};

/// A file that a user fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadProgress {
    pub user: UserName,
    pub content: ContentRef,
    /// What the user has got of it from this client.
    pub sent_bytes: u64,
}

/// By the number of the content in its connection.
pub(super) type ConnectionUploads = Mutex<BTreeMap<u32, UploadProgress>>;

/// See the [module](self).
#[derive(Default)]
pub(super) struct ActiveUploads(Mutex<Vec<Weak<ConnectionUploads>>>);

impl ActiveUploads {
    /// For the uploads of a connection, until it is dropped.
    pub fn add_connection(&self) -> Arc<ConnectionUploads> {
        let uploads = Arc::default();
        let mut connections = lock(&self.0);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&uploads));
        uploads
    }

    /// By user and name.
    pub fn all(&self) -> Vec<UploadProgress> {
        let connections: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let uploads = connections.iter().flat_map(|uploads| lock(uploads).values().cloned().collect::<Vec<_>>());
        let mut uploads: Vec<_> = uploads.collect();
        uploads.sort_by(|one, other| (&one.user, &one.content.name).cmp(&(&other.user, &other.content.name)));
        uploads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::types::{ContentHash, FileName};

    #[test]
    fn uploads_of_all_open_connections_are_listed_by_user_and_name() {
        let active = ActiveUploads::default();
        let upload = |user: &str, name: &str| {
            let user = UserName::parse(user).unwrap();
            let content = ContentRef { name: FileName::parse(name).unwrap(), hash: ContentHash([1; 32]), size: 1 };
            UploadProgress { user, content, sent_bytes: 0 }
        };
        let (one, other, closed) = (active.add_connection(), active.add_connection(), active.add_connection());
        lock(&one).extend([(0, upload("yoda", "a")), (1, upload("hans", "b"))]);
        lock(&other).insert(0, upload("hans", "a"));
        lock(&closed).insert(0, upload("hans", "c"));
        drop(closed);
        active.add_connection();
        assert_eq!(active.all(), [upload("hans", "a"), upload("hans", "b"), upload("yoda", "a")]);
    }
}
