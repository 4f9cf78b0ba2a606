//! Reports the uploads of a connection, as events and in the list of what runs: a file from its first chunk group to its
//! last.

use std::sync::Arc;

use super::active::{ActiveUploads, ConnectionUploads, UploadProgress};
use crate::client::events::{EventBus, EventKind};
use crate::common::sync::lock;
use crate::common::types::{ContentRef, UserName};

/// The files of which the downloader has begun to get something.
pub(super) struct UploadReports<'a> {
    events: &'a EventBus,
    downloader: UserName,
    active: Arc<ConnectionUploads>,
    /// The content of which a group is being sent.
    sending: Option<u32>,
}

impl<'a> UploadReports<'a> {
    pub fn new(events: &'a EventBus, active: &ActiveUploads, downloader: UserName) -> Self {
        Self { events, downloader, active: active.add_connection(), sending: None }
    }

    /// A chunk group will be sent.
    pub fn begin_group(&mut self, number: u32, content: &ContentRef) {
        self.sending = Some(number);
        lock(&self.active).entry(number).or_insert_with(|| {
            if self.events.is_read() {
                let (user, name) = (self.downloader.to_string(), content.name.to_string());
                self.events.publish(EventKind::UploadStarted { user, name, bytes: content.size });
            }
            UploadProgress { user: self.downloader.clone(), content: content.clone(), sent_bytes: 0 }
        });
    }

    /// The group was sent.
    pub fn end_group(&mut self, number: u32, bytes: u64) {
        self.sending = None;
        let is_complete = lock(&self.active).get_mut(&number).is_some_and(|active| {
            active.sent_bytes += bytes;
            active.sent_bytes >= active.content.size
        });
        if is_complete {
            self.finish(number, true);
        }
    }

    /// The content is not served any more.
    pub fn refused(&mut self, number: u32) {
        self.finish(number, false);
    }

    /// The connection has ended. `is_owed` says of which content something was still to be sent.
    pub fn end(self, is_owed: impl Fn(u32) -> bool) {
        let numbers: Vec<u32> = lock(&self.active).keys().copied().collect();
        for number in numbers {
            let ok = self.sending != Some(number) && !is_owed(number);
            self.finish(number, ok);
        }
    }

    fn finish(&self, number: u32, ok: bool) {
        let Some(UploadProgress { content, sent_bytes: bytes, .. }) = lock(&self.active).remove(&number) else {
            return;
        };
        if !self.events.is_read() {
            return;
        }
        let (user, name) = (self.downloader.to_string(), content.name.to_string());
        self.events.publish(EventKind::UploadFinished { user, name, bytes, ok });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::types::{ContentHash, FileName};

    #[test]
    fn a_file_is_reported_from_its_first_group_to_its_last() {
        let bus = Arc::new(EventBus::default());
        let reader = bus.reader();
        let content =
            |name: &str, size| ContentRef { name: FileName::parse(name).unwrap(), hash: ContentHash([0; 32]), size };
        let uploads = ActiveUploads::default();
        let mut reports = UploadReports::new(&bus, &uploads, UserName::parse("yoda").unwrap());
        let small = content("small", 5);
        reports.begin_group(0, &small);
        reports.end_group(0, 5);
        for number in 1..=3 {
            reports.begin_group(number, &content("large", 100));
            reports.end_group(number, 10);
        }
        let listed = || {
            let listed = uploads.all().into_iter().map(|upload| (upload.content.name.to_string(), upload.sent_bytes));
            listed.collect::<Vec<_>>()
        };
        assert_eq!(listed(), vec![("large".to_owned(), 10); 3]);
        reports.refused(1);
        reports.begin_group(4, &content("broken", 100));
        reports.end(|number| number == 2);
        assert!(listed().is_empty());
        let finished = reader.events.try_iter().filter_map(|event| match event.kind {
            EventKind::UploadFinished { name, bytes, ok, .. } => Some((name, bytes, ok)),
            EventKind::UploadStarted { .. } => None,
            other => panic!("{other:?}"),
        });
        let expected =
            [("small", 5, true), ("large", 10, false), ("large", 10, false), ("large", 10, true), ("broken", 0, false)];
        assert!(finished.eq(expected.map(|(name, bytes, ok)| (name.to_owned(), bytes, ok))));
    }
}
