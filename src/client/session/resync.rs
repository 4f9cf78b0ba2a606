//! After a reconnect: finding out whether the server has lost what it acknowledged, and publishing that again.
//!
//! The digests differ (or a mutation was under way, and no digest could be foretold): the user's publications are
//! listed, compared with the ledger, and what is missing is published again under its old audience. The list tells that
//! a publication is restricted but not to whom, so what is meant for some is published again in any case: a server
//! restored from a backup may show it to others. Owns the order of these steps, one request at a time. Must not know how requests travel. Callers' mutations wait meanwhile, so that the
//! list and the ledger speak of the same moment, and so do their questions about their own publications.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::acked_publications::{Entry, Shown};
use crate::common::limits::{AUDIENCE_PART_MAX_USERS, BATCH_MAX_FILES, MESSAGE_MAX_BYTES};
use crate::common::message::{AudienceRef, OwnPublication, Request, Response, encoded_len};
use crate::common::types::{FileName, NamedContent, UserName};

/// Keys of audiences staged by a repair; those of callers lie below.
const REPAIR_KEYS: u32 = 1 << 31;
/// Room in a message for everything around the files of a PUBLISH: tags, ids, lengths, the audience's key.
const PUBLISH_HEADROOM_BYTES: usize = 32;
/// An audience is staged again this often before its files are left alone.
const STAGINGS: u32 = 16;

/// Whether, and how far, a loss is being repaired.
#[derive(Default)]
pub(super) struct Repair {
    stage: Stage,
    repaired: usize,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    /// Waits until no mutation is under way.
    Due,
    Listing {
        missing: BTreeMap<FileName, Entry>,
        /// Those among them that are there, perhaps for others than they should.
        doubtful: BTreeSet<FileName>,
        next: Option<Request>,
    },
    Publishing {
        steps: VecDeque<Request>,
        audiences: BTreeMap<u32, Arc<[UserName]>>,
        /// Not lost: whoever is told of the repair is not told of them.
        doubtful: BTreeSet<FileName>,
        stagings_left: u32,
    },
}

impl Repair {
    /// Whether callers have to wait with what concerns their own publications.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// Whether it waits for mutations under way to be answered.
    pub fn is_due(&self) -> bool {
        matches!(self.stage, Stage::Due)
    }

    /// Starts, or starts again from the beginning; what was repaired so far still counts.
    pub fn begin(&mut self) {
        self.stage = Stage::Due;
    }

    /// Nothing is to be repaired any more.
    pub fn abandon(&mut self) {
        *self = Self::default();
    }

    /// The request to be sent now. To be called only while none of the repair's own is under way, nor, at the start,
    /// any mutation.
    pub fn next_request(&mut self, ledger: &BTreeMap<FileName, Entry>) -> Option<Request> {
        match &mut self.stage {
            Stage::Idle => None,
            Stage::Due => {
                self.stage = Stage::Listing { missing: ledger.clone(), doubtful: BTreeSet::new(), next: None };
                Some(Request::OwnPublications { user_initiated: false, cursor: None })
            }
            Stage::Listing { next, .. } => next.take(),
            Stage::Publishing { steps, .. } => steps.pop_front(),
        }
    }

    /// Takes the answer to the repair's own request. Returns how many lost files were published again, once all are.
    pub fn answered(
        &mut self,
        request: &Request,
        response: &Response,
        ledger: &BTreeMap<FileName, Entry>,
    ) -> Option<usize> {
        if let (Request::Publish { files, .. }, Response::Published { .. }) = (request, response)
            && let Stage::Publishing { doubtful, .. } = &self.stage
        {
            self.repaired += files.iter().filter(|file| !doubtful.contains(&file.name)).count();
        }
        match (&mut self.stage, response) {
            (Stage::Listing { missing, doubtful, .. }, Response::OwnPublications { entries, next }) => {
                entries.iter().for_each(|entry| found(missing, doubtful, entry));
                match next {
                    Some(cursor) => {
                        self.list(Request::OwnPublications { user_initiated: false, cursor: Some(cursor.clone()) })
                    }
                    None => self.publish_missing(),
                }
            }
            (Stage::Listing { missing, doubtful, .. }, Response::StaleCursor) => {
                *missing = ledger.clone();
                doubtful.clear();
                self.list(Request::OwnPublications { user_initiated: false, cursor: None });
            }
            (Stage::Publishing { steps, audiences, stagings_left, .. }, Response::UnknownAudience) => {
                if let Request::Publish { audience: AudienceRef::Staged(key), .. } = request
                    && let Some(users) = audiences.get(key)
                    && *stagings_left > 0
                {
                    *stagings_left -= 1;
                    steps.push_front(request.clone());
                    staging(*key, users).into_iter().rev().for_each(|step| steps.push_front(step));
                }
            }
            (Stage::Publishing { steps, .. }, Response::NotPublished | Response::Rejected) => {
                singly(request).into_iter().rev().for_each(|step| steps.push_front(step));
            }
            _ => {}
        }
        let done = matches!(&self.stage, Stage::Publishing { steps, .. } if steps.is_empty());
        done.then(|| std::mem::take(self).repaired)
    }

    fn list(&mut self, request: Request) {
        if let Stage::Listing { next, .. } = &mut self.stage {
            *next = Some(request);
        }
    }

    fn publish_missing(&mut self) {
        let Stage::Listing { missing, doubtful, .. } = std::mem::take(&mut self.stage) else { return };
        let mut by_audience: BTreeMap<Shown, Vec<NamedContent>> = BTreeMap::new();
        for (name, Entry { content, shown }) in missing {
            by_audience.entry(shown).or_default().push(NamedContent { name, content });
        }
        let (mut steps, mut audiences) = (VecDeque::new(), BTreeMap::new());
        for (key, (shown, files)) in (REPAIR_KEYS..).zip(by_audience) {
            let audience = match shown {
                Shown::Everyone => AudienceRef::Everyone,
                Shown::Inherited => AudienceRef::Inherited,
                Shown::Only(users) => {
                    steps.extend(staging(key, &users));
                    audiences.insert(key, users);
                    AudienceRef::Staged(key)
                }
            };
            let batches = publish_batches(&files);
            steps.extend(batches.map(|files| Request::Publish { files: files.to_vec(), audience }));
        }
        self.stage = Stage::Publishing { steps, audiences, doubtful, stagings_left: STAGINGS };
    }
}

/// What the server lists as published to everyone, and should be, is not missing. For whom else something is, the list
/// does not tell. A copy's audience is left as it is: what it inherited only the server knew, and what it would inherit
/// now may be something else.
fn found(missing: &mut BTreeMap<FileName, Entry>, doubtful: &mut BTreeSet<FileName>, entry: &OwnPublication) {
    let Some(wanted) = missing.get(&entry.name).filter(|wanted| wanted.content == entry.content) else { return };
    match (&wanted.shown, entry.restricted) {
        (Shown::Everyone, false) | (Shown::Inherited, _) => drop(missing.remove(&entry.name)),
        (Shown::Only(_), true) => _ = doubtful.insert(entry.name.clone()),
        (Shown::Everyone, true) | (Shown::Only(_), false) => {}
    }
}

/// The requests that stage an audience under `key`.
pub(crate) fn staging(key: u32, users: &[UserName]) -> Vec<Request> {
    let parts = users.chunks(AUDIENCE_PART_MAX_USERS).zip(0..);
    parts.map(|(users, part)| Request::StageAudience { key, part, users: users.to_vec() }).collect()
}

/// Files that inherit their audience may go together only if they inherit the same: the requests that publish each by
/// itself; none if it was by itself already.
pub(crate) fn singly(request: &Request) -> Vec<Request> {
    match request {
        Request::Publish { files, audience: AudienceRef::Inherited } if files.len() > 1 => {
            let single =
                |file: &NamedContent| Request::Publish { files: vec![file.clone()], audience: AudienceRef::Inherited };
            files.iter().map(single).collect()
        }
        _ => Vec::new(),
    }
}

/// Splits files into runs that fit one PUBLISH each.
pub(crate) fn publish_batches(files: &[NamedContent]) -> impl Iterator<Item = &[NamedContent]> {
    batches(files, BATCH_MAX_FILES, MESSAGE_MAX_BYTES - PUBLISH_HEADROOM_BYTES)
}

/// Splits a list into runs of at most `most` parts and `bytes` encoded bytes; a run has at least one part.
pub(crate) fn batches<T: serde::Serialize>(parts: &[T], most: usize, bytes: usize) -> impl Iterator<Item = &[T]> {
    let mut rest = parts;
    std::iter::from_fn(move || {
        let mut room = bytes;
        let fits = |part: &&T| match room.checked_sub(encoded_len(part)) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        let fitting = rest.iter().take(most).take_while(fits).count();
        let (batch, more) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = more;
        (!batch.is_empty()).then_some(batch)
    })
}
