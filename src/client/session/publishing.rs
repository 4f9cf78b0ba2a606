//! Publishing files as a sequence of requests, one after the other: in batches that fit a datagram, with their
//! audiences staged first.
//!
//! Used by the server API for the user's commands and by [`resync`](super::resync) after a reconnect. Must not know how
//! requests travel.

use std::collections::{BTreeMap, VecDeque};

use super::RequestError;
use crate::common::limits::{AUDIENCE_PART_MAX_USERS, BATCH_MAX_FILES, MESSAGE_MAX_BYTES};
use crate::common::message::{AudienceRef, Request, Response, encoded_len};
use crate::common::types::{Audience, NamedContent, UserName};

/// Bytes of a message that are kept for everything around a list: tags, ids, lengths, the key of an audience.
const LIST_HEADROOM_BYTES: usize = 32;
/// An audience that the server does not know each time it is used is staged this often for one batch.
const STAGINGS_MAX: u32 = 16;

/// Who may see what is published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PublishAudience {
    Audience(Audience),
    /// The users who may see the publications of all these owners, from whom the files were downloaded (`get --share`). At
    /// most [`INHERITED_OWNERS_MAX_BYTES`](crate::common::limits::INHERITED_OWNERS_MAX_BYTES) encoded.
    Inherited(Vec<UserName>),
}

/// What remains to be requested.
#[derive(Debug, Default)]
pub(crate) struct Publishing {
    steps: VecDeque<Request>,
    /// Staged audiences by key, to stage them again when the server has forgotten them.
    audiences: BTreeMap<u32, Vec<UserName>>,
    /// Times that the present batch's audience has been staged again.
    restagings: u32,
}

impl Publishing {
    /// Adds files that have the same audience. `key` names the audience where it must be staged; each call needs its own.
    pub fn add(&mut self, key: u32, files: &[NamedContent], audience: PublishAudience) {
        let mut max_bytes = list_max_bytes();
        let audience = match audience {
            PublishAudience::Inherited(owners) => {
                max_bytes -= encoded_len(&owners);
                AudienceRef::Inherited { owners }
            }
            PublishAudience::Audience(Audience::Everyone) => AudienceRef::Everyone,
            PublishAudience::Audience(Audience::Only(users)) => {
                self.steps.extend(stage_audience_requests(key, &users));
                self.audiences.insert(key, users);
                AudienceRef::Staged(key)
            }
        };
        let batches = split_to_fit(files, BATCH_MAX_FILES, max_bytes);
        self.steps.extend(batches.map(|files| Request::Publish { files: files.to_vec(), audience: audience.clone() }));
    }

    /// The next request. Its response must go to [`on_response`](Self::on_response) before another is taken.
    pub fn next_request(&mut self) -> Option<Request> {
        self.steps.pop_front()
    }

    /// Whether no request remains.
    pub fn is_finished(&self) -> bool {
        self.steps.is_empty()
    }

    /// Processes the response to the last request. An audience that the server has forgotten (after a reconnect) is
    /// staged again. Files that inherit their audience go together only if they inherit the same; a batch that the
    /// server rejects is split into single files. An error concerns the files of this request alone: the caller decides
    /// whether to go on.
    pub fn on_response(&mut self, request: &Request, response: &Response) -> Result<(), RequestError> {
        match (request, response) {
            (Request::Publish { .. }, Response::Published { .. }) => self.restagings = 0,
            (Request::StageAudience { .. }, Response::AudienceStaged) => {}
            (_, Response::UnknownAudience) => self.stage_again(request)?,
            (_, &Response::OverQuota { quota, max }) => return Err(RequestError::OverQuota { quota, max }),
            (_, Response::NotPublished | Response::Rejected) => {
                let single_files = split_into_single_files(request);
                if single_files.is_empty() {
                    let is_gone = *response == Response::NotPublished;
                    return Err(if is_gone { RequestError::NotPublished } else { RequestError::Refused });
                }
                single_files.into_iter().rev().for_each(|step| self.steps.push_front(step));
            }
            _ => return Err(RequestError::Refused),
        }
        Ok(())
    }

    /// Puts all parts of the request's audience, and then the request if it publishes, in front of what remains.
    fn stage_again(&mut self, request: &Request) -> Result<(), RequestError> {
        let (Request::StageAudience { key, .. } | Request::Publish { audience: AudienceRef::Staged(key), .. }) =
            request
        else {
            return Err(RequestError::Refused);
        };
        self.restagings += 1;
        let Some(users) = self.audiences.get(key).filter(|_| self.restagings < STAGINGS_MAX) else {
            return Err(RequestError::Refused);
        };
        let is_part = |step: &&Request| matches!(step, Request::StageAudience { key: of, .. } if of == key);
        let parts_left = self.steps.iter().take_while(is_part).count();
        self.steps.drain(..parts_left);
        if let Request::Publish { .. } = request {
            self.steps.push_front(request.clone());
        }
        stage_audience_requests(*key, users).into_iter().rev().for_each(|step| self.steps.push_front(step));
        Ok(())
    }
}

pub(super) fn stage_audience_requests(key: u32, users: &[UserName]) -> Vec<Request> {
    let parts = users.chunks(AUDIENCE_PART_MAX_USERS).zip(0..);
    parts.map(|(users, part)| Request::StageAudience { key, part, users: users.to_vec() }).collect()
}

/// One request for each file of a batch that inherits its audiences; none if there is only one file.
fn split_into_single_files(request: &Request) -> Vec<Request> {
    match request {
        Request::Publish { files, audience: audience @ AudienceRef::Inherited { .. } } if files.len() > 1 => {
            let single =
                |file: &NamedContent| Request::Publish { files: vec![file.clone()], audience: audience.clone() };
            files.iter().map(single).collect()
        }
        _ => Vec::new(),
    }
}

/// Encoded bytes of a list that fit one message.
pub(crate) const fn list_max_bytes() -> usize {
    MESSAGE_MAX_BYTES - LIST_HEADROOM_BYTES
}

/// Splits a list into runs of at most `max` elements and `max_bytes` encoded bytes; a run has at least one element.
pub(crate) fn split_to_fit<T: serde::Serialize>(
    elements: &[T],
    max: usize,
    max_bytes: usize,
) -> impl Iterator<Item = &[T]> {
    let mut rest = elements;
    std::iter::from_fn(move || {
        let mut free = max_bytes;
        let fits = |element: &&T| match free.checked_sub(encoded_len(element)) {
            Some(left) => {
                free = left;
                true
            }
            None => false,
        };
        let fitting = rest.iter().take(max).take_while(fits).count();
        let (run, more) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = more;
        (!run.is_empty()).then_some(run)
    })
}
