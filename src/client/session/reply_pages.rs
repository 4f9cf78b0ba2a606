//! The pages of one reply: put in order and joined to one response.
//!
//! Owns that only pages of one answer are joined: two answers to the same request may end their pages in different places,
//! and an entry between them would be missing.

use std::collections::BTreeMap;

use crate::common::limits::REPLY_PAGES_MAX;
use crate::common::message::{Request, Response};

/// What a page has done to the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageResult {
    /// Nothing yet: it is early, late, or none that was asked for.
    Unjoined,
    /// The response is longer, and has more pages to come.
    Joined,
    /// [`ReplyPages::take`] has the whole response.
    Complete,
}

/// The pages that have arrived in reply to one request.
pub(super) struct ReplyPages {
    /// How many pages were asked for.
    wanted: u8,
    is_sent: bool,
    /// Pages 0 to `joined` - 1.
    response: Option<Response>,
    joined: u8,
    /// Pages after one that has not arrived.
    early: BTreeMap<u8, Response>,
}

impl ReplyPages {
    /// For a request that has not been sent.
    pub fn new(request: &mut Request) -> Self {
        // SOURCES is asked for page by page: the first are mostly enough.
        let is_long = !matches!(request, Request::Sources { .. }) && request.cursor_mut().is_some();
        let wanted = if is_long { REPLY_PAGES_MAX } else { 1 };
        Self { wanted, is_sent: false, response: None, joined: 0, early: BTreeMap::new() }
    }

    /// The request is sent. Returns how many pages it is to ask for: when it is repeated one, because it may be answered
    /// twice.
    pub fn on_sent(&mut self) -> u8 {
        if self.is_sent {
            self.wanted = 1;
            self.early.clear();
        }
        self.is_sent = true;
        self.wanted
    }

    /// Takes a page. Something else in place of a later page completes the response too: the request for that page tells
    /// what.
    pub fn insert(&mut self, page: u8, response: Response) -> PageResult {
        if page < self.wanted && page >= self.joined {
            self.early.insert(page, response);
        }
        let joined_before = self.joined;
        while !self.is_complete()
            && let Some(page) = self.early.remove(&self.joined)
        {
            match &mut self.response {
                None => self.response = Some(page),
                Some(response) => {
                    if !response.append(page) {
                        return PageResult::Complete;
                    }
                }
            }
            self.joined += 1;
        }
        if self.is_complete() {
            PageResult::Complete
        } else if self.joined > joined_before {
            PageResult::Joined
        } else {
            PageResult::Unjoined
        }
    }

    fn is_complete(&self) -> bool {
        self.response.as_ref().is_some_and(|response| self.joined >= self.wanted || response.next_cursor().is_none())
    }

    /// Whether pages have been joined.
    pub fn has_any(&self) -> bool {
        self.response.is_some()
    }

    /// The pages up to the first that has not arrived, as one response; `None` if that is the first of all.
    pub fn take(self) -> Option<Response> {
        self.response
    }
}

#[cfg(test)]
#[path = "reply_pages_tests.rs"]
mod tests;
