//! Requests to the server as plain calls: lists are put together from their pages, and long requests split into several.
//!
//! Owns the splitting into datagrams and the following of cursors. Must not know about sockets, files or the screen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::client::control::{ControlHandle, RequestError};
use crate::client::session::list_limits::{EndlessList, ListLimits};
pub use crate::client::session::publishing::PublishAudience;
use crate::client::session::publishing::{Publishing, list_max_bytes, split_to_fit};
use crate::common::limits::{AUDIENCE_MAX_USERS, BATCH_MAX_FILES, SOURCES_REQUEST_MAX_BYTES};
use crate::common::message::{
    ActivePeer, AvailableContent, Cursor, NameQuery, OwnPublication, Request, ResolvePurpose, Response, SourceGrant,
};
use crate::common::sync::lock;
use crate::common::types::{Audience, ContentRef, FileName, NamedContent, UserName};

/// Keys of the audiences staged here; a resync of the session uses the keys above.
const STAGED_KEY_MASK: u32 = (1 << 31) - 1;
/// Files whose requests are prepared at a time, to bound the memory of a large `pub`.
const PUBLISHING_MAX_FILES: usize = 1 << 12;

/// Carries requests to the server: the control thread, or a scripted server in tests.
pub trait RequestTransport: Send + Sync {
    /// Sends a request and blocks until its response has arrived.
    fn request(&self, request: Request) -> Result<Response, RequestError>;
    /// Sends many queries (no mutations), with a window of them pending; the responses in the order of the requests.
    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError>;
}

/// The server's lists and mutations; cheap to clone.
#[derive(Clone)]
pub struct ServerApi {
    transport: Arc<dyn RequestTransport>,
    /// Locked while a staged audience is in use, since a session holds one at a time.
    staged: Arc<Mutex<()>>,
    last_key: Arc<AtomicU32>,
}

/// An error that ended a batch, and what had been done before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct PartialFailure<T> {
    pub done: Vec<T>,
    pub error: RequestError,
}

impl<T> From<PartialFailure<T>> for RequestError {
    fn from(failure: PartialFailure<T>) -> Self {
        failure.error
    }
}

/// A page of a list: its entries, and the cursor of the next page.
type ListPage<T> = (Vec<T>, Option<Cursor>);

impl ServerApi {
    /// Sends requests through the control thread.
    pub fn new(control: ControlHandle) -> Self {
        Self::with_transport(Arc::new(control))
    }

    /// Sends requests through `transport`.
    pub fn with_transport(transport: Arc<dyn RequestTransport>) -> Self {
        Self { transport, staged: Arc::default(), last_key: Arc::default() }
    }

    /// Publishes all files. When it returns they are durable and visible; a failure has the names of those that are.
    pub fn publish(&self, files: &[NamedContent], audience: &PublishAudience) -> Result<(), PartialFailure<FileName>> {
        self.run_publishing(files, audience, |_, error| Err(error))
    }

    /// Publishes copies of what all these owners publish (`get --share`). Returns the names that are not published, since
    /// one of the owners has withdrawn the file or nobody may see it at all of them; they do not keep the others from being
    /// published.
    pub fn publish_copies(
        &self,
        files: &[NamedContent],
        owners: &[UserName],
    ) -> Result<BTreeSet<FileName>, RequestError> {
        let mut refused = BTreeSet::new();
        self.run_publishing(files, &PublishAudience::Inherited(owners.to_vec()), |request, _| {
            if let Request::Publish { files, .. } = request {
                refused.extend(files.iter().map(|file| file.name.clone()));
            }
            Ok(())
        })?;
        Ok(refused)
    }

    /// `on_refused` gets every request that the server refuses, and decides whether the others follow.
    fn run_publishing(
        &self,
        files: &[NamedContent],
        audience: &PublishAudience,
        mut on_refused: impl FnMut(&Request, RequestError) -> Result<(), RequestError>,
    ) -> Result<(), PartialFailure<FileName>> {
        let is_staged = matches!(audience, PublishAudience::Audience(Audience::Only(_)));
        let _in_use = is_staged.then(|| lock(&self.staged));
        let mut done = Vec::new();
        for files in files.chunks(PUBLISHING_MAX_FILES) {
            let mut publishing = Publishing::default();
            publishing.add(self.last_key.fetch_add(1, Ordering::Relaxed) & STAGED_KEY_MASK, files, audience.clone());
            while let Some(request) = publishing.next_request() {
                let response = match self.transport.request(request.clone()) {
                    Err(RequestError::Refused) => Response::Rejected,
                    Err(error) => return Err(PartialFailure { done, error }),
                    Ok(response) => response,
                };
                if let Err(error) = publishing.on_response(&request, &response)
                    && let Err(error) = on_refused(&request, error)
                {
                    return Err(PartialFailure { done, error });
                }
                if let (Request::Publish { files, .. }, Response::Published { .. }) = (request, response) {
                    done.extend(files.into_iter().map(|file| file.name));
                }
            }
        }
        Ok(())
    }

    /// Unpublishes names. Returns for each, in order, whether it was published; a failure has those of the first names.
    pub fn unpublish(&self, names: &[FileName]) -> Result<Vec<bool>, PartialFailure<bool>> {
        let mut were_published = Vec::with_capacity(names.len());
        for batch in split_to_fit(names, BATCH_MAX_FILES, list_max_bytes()) {
            let error = match self.transport.request(Request::Unpublish { names: batch.to_vec() }) {
                Ok(Response::Unpublished { published_mask, .. }) => {
                    were_published.extend((0..batch.len()).map(|bit| published_mask & (1 << bit) != 0));
                    continue;
                }
                Ok(_) => RequestError::Refused,
                Err(error) => error,
            };
            return Err(PartialFailure { done: were_published, error });
        }
        Ok(were_published)
    }

    /// `lpf`: the user's own publications, sorted by name.
    pub fn published(&self) -> Result<Vec<OwnPublication>, RequestError> {
        self.own_publications(true)
    }

    /// The same for the client's own use: the server logs no `lpf`.
    pub fn own_publications_quiet(&self) -> Result<Vec<OwnPublication>, RequestError> {
        self.own_publications(false)
    }

    fn own_publications(&self, user_initiated: bool) -> Result<Vec<OwnPublication>, RequestError> {
        let entries = self.fetch_all_pages(
            None,
            |cursor| Request::OwnPublications { user_initiated, cursor },
            |response| match response {
                Response::OwnPublications { entries, next } => Some((entries, next)),
                _ => None,
            },
            |entry| entry.name.clone(),
        )?;
        Ok(entries.into_values().collect())
    }

    /// The audiences of these publications of the user (pipelined): no users for everyone, `None` for a name that is not
    /// published.
    pub fn audiences_of(&self, names: &[FileName]) -> Result<Vec<Option<Vec<UserName>>>, RequestError> {
        let request = |name: &FileName| Request::AudienceOf { name: name.clone(), cursor: None };
        let firsts = self.transport.request_many(names.iter().map(request).collect())?;
        names.iter().zip(firsts).map(|(name, first)| self.audience_from(name, first)).collect()
    }

    fn audience_from(&self, name: &FileName, first: Response) -> Result<Option<Vec<UserName>>, RequestError> {
        let users = self.fetch_all_pages(
            Some(first),
            |cursor| Request::AudienceOf { name: name.clone(), cursor },
            |response| match response {
                Response::Users { users, next } => Some((users, next)),
                _ => None,
            },
            UserName::clone,
        );
        match users.map(|users| users.into_values().collect::<Vec<UserName>>()) {
            Ok(users) if users.len() > AUDIENCE_MAX_USERS => Err(EndlessList.into()),
            Ok(users) => Ok(Some(users)),
            Err(RequestError::NotPublished) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The other active users, sorted.
    pub fn peers(&self) -> Result<Vec<ActivePeer>, RequestError> {
        let peers = self.fetch_all_pages(
            None,
            |cursor| Request::Peers { cursor },
            |response| match response {
                Response::Peers { peers, next } => Some((peers, next)),
                _ => None,
            },
            |peer| peer.user.clone(),
        )?;
        Ok(peers.into_values().collect())
    }

    /// What this user shares with this client's, sorted by name.
    pub fn shared(&self, user: &UserName) -> Result<Vec<AvailableContent>, RequestError> {
        let contents = self.fetch_all_pages(
            None,
            |cursor| Request::Shared { user: user.clone(), cursor },
            |response| match response {
                Response::Contents { entries, next } => Some((entries, next)),
                _ => None,
            },
            |entry| entry.name.clone(),
        )?;
        Ok(contents.into_values().collect())
    }

    /// The visible names of active peers that match, sorted, each once.
    pub fn search(&self, query: NameQuery) -> Result<Vec<FileName>, RequestError> {
        let names = self.fetch_all_pages(
            None,
            |cursor| Request::Search { query: query.clone(), cursor },
            |response| match response {
                Response::SearchResults { mut names, next } => {
                    names.retain(|name| query.matches(name));
                    Some((names, next))
                }
                _ => None,
            },
            FileName::clone,
        )?;
        Ok(names.into_values().collect())
    }

    /// The visible contents of active peers under matching names, sorted by name, then most sources first.
    pub fn resolve(&self, query: NameQuery, purpose: ResolvePurpose) -> Result<Vec<AvailableContent>, RequestError> {
        self.resolve_from(&query, purpose, None)
    }

    fn resolve_from(
        &self,
        query: &NameQuery,
        purpose: ResolvePurpose,
        first: Option<Response>,
    ) -> Result<Vec<AvailableContent>, RequestError> {
        let contents = self.fetch_all_pages(
            first,
            |cursor| Request::Resolve { query: query.clone(), purpose, cursor },
            |response| match response {
                // A malicious server must not choose the name that a download is saved under.
                Response::Contents { mut entries, next } => {
                    entries.retain(|entry| query.matches(&entry.name));
                    Some((entries, next))
                }
                _ => None,
            },
            |entry| (entry.name.clone(), entry.content.hash, entry.content.size),
        )?;
        let mut contents: Vec<AvailableContent> = contents.into_values().collect();
        contents.sort_by(|a, b| a.name.cmp(&b.name).then(b.sources.cmp(&a.sources)));
        Ok(contents)
    }

    /// [`resolve`](Self::resolve) for many exact names (pipelined); one list for each name.
    pub fn resolve_many(&self, names: &[FileName]) -> Result<Vec<Vec<AvailableContent>>, RequestError> {
        let purpose = ResolvePurpose::Download;
        let queries: Vec<NameQuery> = names.iter().cloned().map(NameQuery::Exact).collect();
        let request = |query: &NameQuery| Request::Resolve { query: query.clone(), purpose, cursor: None };
        let firsts = self.transport.request_many(queries.iter().map(request).collect())?;
        queries.iter().zip(firsts).map(|(query, first)| self.resolve_from(query, purpose, Some(first))).collect()
    }

    /// For each batch (pipelined) the peers that serve its contents, those with a free slot first, at most
    /// `limit` for each content. The bits of `file_mask` count within a batch, which comes from [`source_batches`].
    /// `avoid`: users that are needed only for contents that nobody else serves.
    pub fn sources_many(
        &self,
        batches: &[&[ContentRef]],
        avoid: &[UserName],
        limit: usize,
    ) -> Result<Vec<Vec<SourceGrant>>, RequestError> {
        let request =
            |batch: &&[ContentRef]| Request::Sources { files: batch.to_vec(), avoid: avoid.to_vec(), cursor: None };
        let firsts = self.transport.request_many(batches.iter().map(request).collect())?;
        batches.iter().zip(firsts).map(|(batch, first)| self.sources_from(batch, avoid, limit, first)).collect()
    }

    /// Unlike the other lists this one ends when it is long enough. Among equals the server's order is kept.
    fn sources_from(
        &self,
        batch: &[ContentRef],
        avoid: &[UserName],
        limit: usize,
        first: Response,
    ) -> Result<Vec<SourceGrant>, RequestError> {
        let (mut sources, mut seen) = (Vec::new(), BTreeSet::new());
        let mut needed = vec![limit; batch.len()];
        let (mut response, mut limits) = (first, ListLimits::default());
        loop {
            let cursor = match response {
                Response::Sources { sources: page, next } => {
                    let known = sources.len();
                    for source in page {
                        let is_served = |&index: &usize| index < 64 && source.file_mask & 1 << index != 0;
                        let served: Vec<usize> = (0..batch.len()).filter(is_served).collect();
                        let is_needed = served.iter().any(|&index| needed[index] > 0);
                        if is_needed && seen.insert(source.user.clone()) {
                            served.iter().for_each(|&index| needed[index] = needed[index].saturating_sub(1));
                            sources.push(source);
                        }
                    }
                    if next.is_none() || needed.iter().all(|&needed| needed == 0) {
                        sources.sort_by_key(|source| Reverse(source.has_free_slot));
                        return Ok(sources);
                    }
                    limits.on_page(&sources[known..])?;
                    next
                }
                Response::StaleCursor => {
                    limits.on_restart()?;
                    sources.clear();
                    seen.clear();
                    needed.fill(limit);
                    None
                }
                _ => return Err(RequestError::Refused),
            };
            let (files, avoid) = (batch.to_vec(), avoid.to_vec());
            response = self.transport.request(Request::Sources { files, avoid, cursor })?;
        }
    }

    /// Fetches a list to its end, starting with the response to its first request where there is one already. Pages may
    /// overlap: of entries with the same key the last counts. If the server restarts, the list starts again.
    fn fetch_all_pages<K: Ord, T: Serialize>(
        &self,
        mut first: Option<Response>,
        request: impl Fn(Option<Cursor>) -> Request,
        page: impl Fn(Response) -> Option<ListPage<T>>,
        key: impl Fn(&T) -> K,
    ) -> Result<BTreeMap<K, T>, RequestError> {
        let (mut list, mut cursor, mut limits) = (BTreeMap::new(), None, ListLimits::default());
        loop {
            let response = match first.take() {
                Some(response) => response,
                None => self.transport.request(request(cursor.take()))?,
            };
            match response {
                Response::StaleCursor => {
                    limits.on_restart()?;
                    list.clear();
                }
                Response::NotPublished => return Err(RequestError::NotPublished),
                Response::NotActive => return Err(RequestError::NotActive),
                response => {
                    let (entries, next) = page(response).ok_or(RequestError::Refused)?;
                    if next.is_some() {
                        limits.on_page(entries.iter().filter(|entry| !list.contains_key(&key(entry))))?;
                    }
                    list.extend(entries.into_iter().map(|entry| (key(&entry), entry)));
                    if next.is_none() {
                        return Ok(list);
                    }
                    cursor = next;
                }
            }
        }
    }
}

/// Splits files into runs that fit one SOURCES request each.
pub fn source_batches(files: &[ContentRef]) -> Vec<&[ContentRef]> {
    split_to_fit(files, BATCH_MAX_FILES, SOURCES_REQUEST_MAX_BYTES - 2).collect()
}

#[cfg(test)]
#[path = "server_api_tests.rs"]
mod tests;
