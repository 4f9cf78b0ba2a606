//! After a reconnect: finds out whether the server has lost what it acknowledged, and requests that again.
//!
//! It runs when the digests differ, or when a mutation was pending, so that no digest could be expected. It lists the
//! user's publications, compares them with the [acknowledged ones](super::acked_publications), withdraws again what a
//! backup has brought back, and publishes what is missing with the audience it had. The list marks a publication as restricted but does not name its audience, so restricted ones are
//! published again in any case: a server restored from a backup may show them to other users.
//!
//! Owns the order of these steps, one request at a time. The callers' mutations and their queries about their own
//! publications wait meanwhile, so that the list and the acknowledgements describe the same moment. Must not know how
//! requests travel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::acked_publications::{AckedPublication, AckedPublications};
use super::list_limits::ListLimits;
use super::publishing::{PublishAudience, Publishing, list_max_bytes, split_to_fit};
use crate::common::limits::BATCH_MAX_FILES;
use crate::common::message::{OwnPublication, Request, Response};
use crate::common::types::{Audience, FileName, NamedContent};

/// Keys of audiences that a resync stages. The server API uses the keys below.
const RESYNC_KEYS: u32 = 1 << 31;

#[derive(Default)]
pub(super) struct Resync {
    stage: ResyncStage,
    /// Lost files that were published again.
    republished: usize,
}

#[derive(Default)]
enum ResyncStage {
    #[default]
    Idle,
    /// Waits until no mutation is pending.
    Due,
    Listing {
        missing: BTreeMap<FileName, AckedPublication>,
        /// What the server has although it acknowledged that it is withdrawn.
        withdrawn: Vec<FileName>,
        limits: ListLimits,
        /// Files in `missing` that the server has, possibly with another audience.
        audience_unknown: BTreeSet<FileName>,
        next: Option<Request>,
    },
    Repairing {
        withdrawals: VecDeque<Request>,
        publishing: Publishing,
        /// Not lost, and not counted as such.
        audience_unknown: BTreeSet<FileName>,
    },
}

impl Resync {
    /// Whether callers' mutations must wait.
    pub fn is_active(&self) -> bool {
        !matches!(self.stage, ResyncStage::Idle)
    }

    /// Whether the resync waits for a pending mutation.
    pub fn is_due(&self) -> bool {
        matches!(self.stage, ResyncStage::Due)
    }

    /// Starts, or starts again from the beginning; files already published again still count.
    pub fn begin(&mut self) {
        self.stage = ResyncStage::Due;
    }

    /// Ends without a result.
    pub fn abandon(&mut self) {
        *self = Self::default();
    }

    /// The next request. Must not be called while another request of the resync is pending nor, at the start, any
    /// mutation.
    pub fn next_request(&mut self, acked: &AckedPublications) -> Option<Request> {
        match &mut self.stage {
            ResyncStage::Idle => None,
            ResyncStage::Due => {
                self.stage = ResyncStage::Listing {
                    missing: acked.entries().clone(),
                    withdrawn: Vec::new(),
                    limits: ListLimits::default(),
                    audience_unknown: BTreeSet::new(),
                    next: None,
                };
                Some(Request::OwnPublications { user_initiated: false, cursor: None })
            }
            ResyncStage::Listing { next, .. } => next.take(),
            ResyncStage::Repairing { withdrawals, publishing, .. } => {
                withdrawals.pop_front().or_else(|| publishing.next_request())
            }
        }
    }

    /// Processes the response to the last request. At the end, returns the number of lost files that were published
    /// again.
    pub fn on_response(&mut self, request: &Request, response: &Response, acked: &AckedPublications) -> Option<usize> {
        match &mut self.stage {
            ResyncStage::Idle | ResyncStage::Due => {}
            ResyncStage::Listing { missing, withdrawn, limits, audience_unknown, next } => match response {
                Response::OwnPublications { entries, next: cursor } if limits.on_page(entries).is_ok() => {
                    for entry in entries {
                        compare(missing, audience_unknown, entry);
                        if acked.is_withdrawn(&entry.name) {
                            withdrawn.push(entry.name.clone());
                        }
                    }
                    match cursor {
                        Some(cursor) => {
                            *next =
                                Some(Request::OwnPublications { user_initiated: false, cursor: Some(cursor.clone()) });
                        }
                        None => self.repair(),
                    }
                }
                Response::StaleCursor if limits.on_restart().is_ok() => {
                    *missing = acked.entries().clone();
                    withdrawn.clear();
                    audience_unknown.clear();
                    *next = Some(Request::OwnPublications { user_initiated: false, cursor: None });
                }
                // A server that does not list the publications must not keep the user's mutations waiting.
                _ => self.abandon(),
            },
            ResyncStage::Repairing { .. } if matches!(request, Request::Unpublish { .. }) => {}
            ResyncStage::Repairing { publishing, audience_unknown, .. } => {
                if let (Request::Publish { files, .. }, Response::Published { .. }) = (request, response) {
                    self.republished += files.iter().filter(|file| !audience_unknown.contains(&file.name)).count();
                }
                // Files that the server does not take back must not keep the others from being published.
                if let Err(error) = publishing.on_response(request, response) {
                    log::debug!("publishing again after a reconnect: {error}");
                }
            }
        }
        let is_finished = matches!(&self.stage, ResyncStage::Repairing { withdrawals, publishing, .. }
            if withdrawals.is_empty() && publishing.is_finished());
        is_finished.then(|| std::mem::take(self).republished)
    }

    /// Withdraws first: other users may see what this user has withdrawn.
    fn repair(&mut self) {
        let stage = std::mem::take(&mut self.stage);
        let ResyncStage::Listing { missing, withdrawn, audience_unknown, .. } = stage else { return };
        let batches = split_to_fit(&withdrawn, BATCH_MAX_FILES, list_max_bytes());
        let withdrawals = batches.map(|names| Request::Unpublish { names: names.to_vec() }).collect();
        let mut by_audience: BTreeMap<Arc<PublishAudience>, Vec<NamedContent>> = BTreeMap::new();
        for (name, AckedPublication { content, audience }) in missing {
            by_audience.entry(audience).or_default().push(NamedContent { name, content });
        }
        let mut publishing = Publishing::default();
        for (key, (audience, files)) in (RESYNC_KEYS..).zip(by_audience) {
            publishing.add(key, &files, PublishAudience::clone(&audience));
        }
        self.stage = ResyncStage::Repairing { withdrawals, publishing, audience_unknown };
    }
}

/// Removes from `missing` what the server lists as it should be. The list does not name the users that a restricted
/// publication is visible to. The audience of an inherited publication is left as it is: only the server knew what it
/// inherited, and what it would inherit now may be something else.
fn compare(
    missing: &mut BTreeMap<FileName, AckedPublication>,
    audience_unknown: &mut BTreeSet<FileName>,
    listed: &OwnPublication,
) {
    let Some(acked) = missing.get(&listed.name).filter(|acked| acked.content == listed.content) else { return };
    match (&*acked.audience, listed.restricted) {
        (PublishAudience::Audience(Audience::Everyone), false) | (PublishAudience::Inherited(_), _) => {
            missing.remove(&listed.name);
        }
        (PublishAudience::Audience(Audience::Only(_)), true) => {
            audience_unknown.insert(listed.name.clone());
        }
        (PublishAudience::Audience(_), _) => {}
    }
}
