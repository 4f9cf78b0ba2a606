//! What the client asks the server, as plain calls: pages, parts and batches are put together here.
//!
//! Owns the splitting into datagrams and the walking of cursors. Must not know about sockets, files or the screen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::client::control::{ControlHandle, RequestError};
pub use crate::client::session::publishing::PublishAudience;
use crate::client::session::publishing::{Publishing, list_max_bytes, split_to_fit};
use crate::common::limits::{BATCH_MAX_FILES, SOURCES_REQUEST_MAX_BYTES};
use crate::common::message::{
    AvailableContent, Cursor, NameQuery, OwnPublication, Request, ResolvePurpose, Response, SourceGrant,
};
use crate::common::sync::lock;
use crate::common::types::{Audience, ContentHash, ContentRef, FileName, NamedContent, UserName};

/// Keys of the audiences staged here; a resync of the session uses the keys above.
const STAGED_KEY_MASK: u32 = (1 << 31) - 1;

/// Whoever answers requests: the control thread, or a stand-in in tests.
pub trait RequestTransport: Send + Sync {
    /// Asks and waits for the answer.
    fn request(&self, request: Request) -> Result<Response, RequestError>;
    /// Asks many queries at once; answers in the order of the requests.
    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError>;
}

impl RequestTransport for ControlHandle {
    fn request(&self, request: Request) -> Result<Response, RequestError> {
        ControlHandle::request(self, request)
    }

    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        ControlHandle::request_many(self, requests)
    }
}

/// The server's lists, whole; cheap to clone.
#[derive(Clone)]
pub struct ServerApi {
    transport: Arc<dyn RequestTransport>,
    /// The key of the audience staged last. Locked while an audience is in use, since a session holds one at a time.
    staged: Arc<Mutex<()>>,
    last_key: Arc<AtomicU32>,
}

/// A page: its entries, and where the list goes on.
type Page<T> = (Vec<T>, Option<Cursor>);

impl ServerApi {
    /// Asks through `control`.
    pub fn new(control: ControlHandle) -> Self {
        Self::with_transport(Arc::new(control))
    }

    /// Asks whoever answers.
    pub fn with_transport(transport: Arc<dyn RequestTransport>) -> Self {
        Self { transport, staged: Arc::default(), last_key: Arc::default() }
    }

    /// Publishes all files; when it returns they are durable and visible. Files whose inherited audience is gone do not
    /// keep the others from being published.
    pub fn publish(&self, files: &[NamedContent], audience: &PublishAudience) -> Result<(), RequestError> {
        let staged = matches!(audience, PublishAudience::Audience(Audience::Only(_)));
        let _in_use = staged.then(|| lock(&self.staged));
        let mut publishing = Publishing::default();
        publishing.add(self.last_key.fetch_add(1, Ordering::Relaxed) & STAGED_KEY_MASK, files, audience.clone());
        let mut result = Ok(());
        while let Some(request) = publishing.next_request() {
            let response = match self.transport.request(request.clone()) {
                Err(RequestError::Refused) => Response::Rejected,
                response => response?,
            };
            match publishing.on_response(&request, &response) {
                Err(error) if *audience == PublishAudience::Inherited => result = result.and(Err(error)),
                outcome => outcome?,
            }
        }
        result
    }

    /// Withdraws names; for each, whether it was published.
    pub fn unpublish(&self, names: &[FileName]) -> Result<Vec<bool>, RequestError> {
        let mut withdrawn = Vec::with_capacity(names.len());
        for batch in split_to_fit(names, BATCH_MAX_FILES, list_max_bytes()) {
            match self.transport.request(Request::Unpublish { names: batch.to_vec() })? {
                Response::Unpublished { published_mask: found, .. } => {
                    withdrawn.extend((0..batch.len()).map(|at| found & (1 << at) != 0));
                }
                _ => return Err(RequestError::Refused),
            }
        }
        Ok(withdrawn)
    }

    /// `lpf`: the user's own publications, sorted by name.
    pub fn published(&self) -> Result<Vec<OwnPublication>, RequestError> {
        self.own_entries(true)
    }

    /// The same for the client's own books: the server's log shows no `lpf` that nobody typed.
    pub fn own_publications_quiet(&self) -> Result<Vec<OwnPublication>, RequestError> {
        self.own_entries(false)
    }

    fn own_entries(&self, listing: bool) -> Result<Vec<OwnPublication>, RequestError> {
        let mut entries = BTreeMap::new();
        self.walk(
            |cursor| Request::OwnPublications { user_initiated: listing, cursor },
            |response| match response {
                Response::OwnPublications { entries, next } => Some((entries, next)),
                _ => None,
            },
            |entry: Option<OwnPublication>| collect(&mut entries, entry.map(|entry| (entry.name.clone(), entry))),
        )?;
        Ok(entries.into_values().collect())
    }

    /// Who may see these of the user's own publications (pipelined): no users if it is everyone, `None` if it is not
    /// published.
    pub fn audiences_of(&self, names: &[FileName]) -> Result<Vec<Option<Vec<UserName>>>, RequestError> {
        let request = |name: &FileName| Request::AudienceOf { name: name.clone(), cursor: None };
        let firsts = self.transport.request_many(names.iter().map(request).collect())?;
        names.iter().zip(firsts).map(|(name, first)| self.audience_from(name, first)).collect()
    }

    fn audience_from(&self, name: &FileName, first: Response) -> Result<Option<Vec<UserName>>, RequestError> {
        let mut users = BTreeMap::new();
        let walked = self.walk_from(
            Some(first),
            |cursor| Request::AudienceOf { name: name.clone(), cursor },
            users_page,
            |user: Option<UserName>| collect(&mut users, user.map(|user| (user, ()))),
        );
        match walked {
            Ok(()) => Ok(Some(users.into_keys().collect())),
            Err(RequestError::NotPublished) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The other active users, sorted.
    pub fn peers(&self) -> Result<Vec<UserName>, RequestError> {
        let mut users = BTreeMap::new();
        self.walk(
            |cursor| Request::Peers { cursor },
            users_page,
            |user: Option<UserName>| collect(&mut users, user.map(|user| (user, ()))),
        )?;
        Ok(users.into_keys().collect())
    }

    /// Visible names of active peers, sorted, each once.
    pub fn search(&self, query: NameQuery) -> Result<Vec<FileName>, RequestError> {
        let mut names = BTreeMap::new();
        self.walk(
            |cursor| Request::Search { query: query.clone(), cursor },
            |response| match response {
                Response::SearchResults { mut names, next } => {
                    names.retain(|name| query.matches(name));
                    Some((names, next))
                }
                _ => None,
            },
            |name: Option<FileName>| collect(&mut names, name.map(|name| (name, ()))),
        )?;
        Ok(names.into_keys().collect())
    }

    /// Visible contents of active peers, sorted by name, then most sources first.
    pub fn resolve(&self, query: NameQuery, purpose: ResolvePurpose) -> Result<Vec<AvailableContent>, RequestError> {
        self.resolve_from(query, purpose, None)
    }

    fn resolve_from(
        &self,
        query: NameQuery,
        purpose: ResolvePurpose,
        first: Option<Response>,
    ) -> Result<Vec<AvailableContent>, RequestError> {
        let mut found: BTreeMap<(FileName, ContentHash, u64), AvailableContent> = BTreeMap::new();
        self.walk_from(
            first,
            |cursor| Request::Resolve { query: query.clone(), purpose, cursor },
            |response| match response {
                // A server that turns bad must not choose under which name a download is saved.
                Response::Contents { mut entries, next } => {
                    entries.retain(|entry| query.matches(&entry.name));
                    Some((entries, next))
                }
                _ => None,
            },
            |entry: Option<AvailableContent>| {
                let key = |entry: &AvailableContent| (entry.name.clone(), entry.content.hash, entry.content.size);
                collect(&mut found, entry.map(|entry| (key(&entry), entry)))
            },
        )?;
        let mut found: Vec<AvailableContent> = found.into_values().collect();
        found.sort_by(|a, b| a.name.cmp(&b.name).then(b.sources.cmp(&a.sources)));
        Ok(found)
    }

    /// Like [`resolve`](Self::resolve) for many exact names at once (pipelined); one list for each name.
    pub fn resolve_many(&self, names: &[FileName]) -> Result<Vec<Vec<AvailableContent>>, RequestError> {
        let request = |name: &FileName| Request::Resolve {
            query: NameQuery::Exact(name.clone()),
            purpose: ResolvePurpose::Download,
            cursor: None,
        };
        let firsts = self.transport.request_many(names.iter().map(request).collect())?;
        let firsts = names.iter().zip(firsts);
        firsts
            .map(|(name, first)| {
                self.resolve_from(NameQuery::Exact(name.clone()), ResolvePurpose::Download, Some(first))
            })
            .collect()
    }

    /// Who serves these contents, best first, at most `most` sources for each. `covers` counts bits within one batch: the
    /// caller passes files that [`source_batches`] put together.
    pub fn sources(&self, batch: &[ContentRef], most: usize) -> Result<Vec<SourceGrant>, RequestError> {
        let first = self.transport.request(sources_request(batch))?;
        self.sources_from(batch, most, first)
    }

    /// Like [`sources`](Self::sources) for many batches at once (pipelined).
    pub fn sources_many(&self, batches: &[&[ContentRef]], most: usize) -> Result<Vec<Vec<SourceGrant>>, RequestError> {
        let firsts = self.transport.request_many(batches.iter().map(|batch| sources_request(batch)).collect())?;
        let firsts = batches.iter().zip(firsts);
        firsts.map(|(batch, first)| self.sources_from(batch, most, first)).collect()
    }

    /// Unlike the other lists this one ends when it is long enough. The idlest sources come first, of equals in the server's
    /// order.
    fn sources_from(
        &self,
        batch: &[ContentRef],
        most: usize,
        first: Response,
    ) -> Result<Vec<SourceGrant>, RequestError> {
        let (mut sources, mut seen) = (Vec::new(), BTreeSet::new());
        let mut needed = vec![most; batch.len()];
        let mut response = first;
        loop {
            let mut request = sources_request(batch);
            match response {
                Response::Sources { sources: page, next } => {
                    for source in page {
                        let covered = |&at: &usize| at < 64 && source.file_mask & 1 << at != 0;
                        let covered: Vec<usize> = (0..batch.len()).filter(covered).collect();
                        let is_needed = covered.iter().any(|&at| needed[at] > 0);
                        if is_needed && seen.insert(source.user.clone()) {
                            covered.iter().for_each(|&at| needed[at] = needed[at].saturating_sub(1));
                            sources.push(source);
                        }
                    }
                    if next.is_none() || needed.iter().all(|&needed| needed == 0) {
                        sources.sort_by_key(|source| Reverse(source.free_slots));
                        return Ok(sources);
                    }
                    if let Request::Sources { cursor, .. } = &mut request {
                        *cursor = next;
                    }
                }
                Response::StaleCursor => {
                    sources.clear();
                    seen.clear();
                    needed.fill(most);
                }
                _ => return Err(RequestError::Refused),
            }
            response = self.transport.request(request)?;
        }
    }

    fn walk<T>(
        &self,
        request: impl Fn(Option<Cursor>) -> Request,
        page: impl Fn(Response) -> Option<Page<T>>,
        take: impl FnMut(Option<T>),
    ) -> Result<(), RequestError> {
        self.walk_from(None, request, page, take)
    }

    /// Walks a list to its end, from the answer to its first request if there is one already. Each entry goes to `take`;
    /// `None` takes back all so far: the server has restarted, and the list starts again.
    fn walk_from<T>(
        &self,
        mut first: Option<Response>,
        request: impl Fn(Option<Cursor>) -> Request,
        page: impl Fn(Response) -> Option<Page<T>>,
        mut take: impl FnMut(Option<T>),
    ) -> Result<(), RequestError> {
        let mut cursor = None;
        loop {
            let response = match first.take() {
                Some(response) => response,
                None => self.transport.request(request(cursor.take()))?,
            };
            match response {
                Response::StaleCursor => take(None),
                Response::NotPublished => return Err(RequestError::NotPublished),
                response => {
                    let (entries, next) = page(response).ok_or(RequestError::Refused)?;
                    entries.into_iter().for_each(|entry| take(Some(entry)));
                    if next.is_none() {
                        return Ok(());
                    }
                    cursor = next;
                }
            }
        }
    }
}

/// Splits wanted files into runs that fit one SOURCES request each.
pub fn source_batches(files: &[ContentRef]) -> Vec<&[ContentRef]> {
    split_to_fit(files, BATCH_MAX_FILES, SOURCES_REQUEST_MAX_BYTES - 2).collect()
}

fn sources_request(batch: &[ContentRef]) -> Request {
    Request::Sources { files: batch.to_vec(), cursor: None }
}

fn users_page(response: Response) -> Option<Page<UserName>> {
    match response {
        Response::Users { users, next } => Some((users, next)),
        _ => None,
    }
}

/// Sorts and drops repeats; `None` starts again.
fn collect<K: Ord, V>(entries: &mut BTreeMap<K, V>, entry: Option<(K, V)>) {
    match entry {
        Some((key, value)) => drop(entries.insert(key, value)),
        None => entries.clear(),
    }
}

#[cfg(test)]
#[path = "server_api_tests.rs"]
mod tests;
