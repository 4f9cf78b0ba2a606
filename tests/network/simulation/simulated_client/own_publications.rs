//! What the client serves to others: the list that it loads after a login, and the changes since, as the programs keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use fileshare::internals::client::publications::OwnPublications;
use fileshare::internals::client::session::{RequestError, RequestHandle, Session};
use fileshare::internals::common::message::{Cursor, OwnPublication, Request, Response};
use fileshare::internals::common::types::{Audience, Content, ContentRef, FileName, UserName};

/// See the [module](self).
#[derive(Default)]
pub struct SimulatedPublications {
    own: OwnPublications,
    login: u64,
    /// Pending requests: pages of the list, and audiences of its entries. Also of earlier logins.
    pending: BTreeMap<RequestHandle, Part>,
    /// The pages of this login's list until all are here.
    listed: Vec<OwnPublication>,
    /// Whether a request of this login's list has failed.
    has_failed: bool,
    /// Announced before the server has accepted them: nobody gets a ticket for what it has not.
    unaccepted: BTreeSet<FileName>,
    /// Names that the server may have changed since the login without a response, or may have lost.
    uncertain: BTreeSet<FileName>,
}

struct Part {
    login: u64,
    /// The entry whose audience it is; nothing for a page of the list.
    entry: Option<OwnPublication>,
}

impl SimulatedPublications {
    /// The user has logged in.
    pub fn load(&mut self, now: Instant, session: &mut Session) {
        self.login = self.own.begin_login();
        self.has_failed = false;
        self.unaccepted.clear();
        self.uncertain.clear();
        self.listed.clear();
        self.list(now, session, None);
    }

    pub fn is_loading(&self, request: RequestHandle) -> bool {
        self.pending.contains_key(&request)
    }

    /// The response to a request of [`load`](Self::load).
    pub fn on_result(
        &mut self,
        now: Instant,
        request: RequestHandle,
        result: Result<Response, RequestError>,
        session: &mut Session,
    ) {
        let Part { login, entry } = self.pending.remove(&request).expect("a request of this");
        match (result, entry) {
            (Err(_), _) => {
                self.has_failed |= login == self.login;
                return self.own.end_loading(login, false);
            }
            (Ok(_), _) if login == self.login && self.has_failed => return,
            (Ok(Response::Users { users, next: None }), Some(entry)) => {
                self.own.on_loaded(login, &entry, Audience::only(users));
            }
            (Ok(Response::NotPublished), Some(_)) => {}
            (Ok(_), None) if login != self.login => return,
            (Ok(Response::StaleCursor), None) => {
                self.listed.clear();
                return self.list(now, session, None);
            }
            (Ok(Response::OwnPublications { entries, next }), None) => {
                self.listed.extend(entries);
                if next.is_some() {
                    return self.list(now, session, next);
                }
                self.load_audiences(now, session);
            }
            (Ok(other), _) => panic!("{other:?}"),
        }
        if !self.pending.values().any(|part| part.login == login) {
            self.own.end_loading(login, true);
        }
    }

    fn list(&mut self, now: Instant, session: &mut Session, cursor: Option<Cursor>) {
        let request = session.request(now, Request::OwnPublications { user_initiated: false, cursor });
        self.pending.insert(request, Part { login: self.login, entry: None });
    }

    fn load_audiences(&mut self, now: Instant, session: &mut Session) {
        for entry in std::mem::take(&mut self.listed) {
            if !entry.restricted {
                self.own.on_loaded(self.login, &entry, Audience::Everyone);
                continue;
            }
            let request = session.request(now, Request::AudienceOf { name: entry.name.clone(), cursor: None });
            self.pending.insert(request, Part { login: self.login, entry: Some(entry) });
        }
    }

    /// The user asks for this; `users` are those of a staged audience.
    pub fn requested(&mut self, request: &Request, users: Option<&BTreeSet<UserName>>) {
        let Request::Publish { files, .. } = request else { return };
        let audience = users.map_or(Audience::Everyone, |users| Audience::only(users.iter().cloned().collect()));
        for file in files {
            self.own.announce(&file.name, file.content, audience.clone());
            self.unaccepted.insert(file.name.clone());
        }
    }

    /// What the server has of these names may differ from what the client knows.
    pub fn doubt(&mut self, names: impl IntoIterator<Item = FileName>) {
        self.uncertain.extend(names);
    }

    /// The server has executed this request.
    pub fn executed(&mut self, request: &Request) {
        match request {
            Request::Publish { files, .. } => {
                self.own.accept(files.iter());
                files.iter().for_each(|file| self.confirm(&file.name));
            }
            Request::Unpublish { names } => {
                for name in names {
                    self.own.unpublish(name);
                    self.confirm(name);
                }
            }
            _ => {}
        }
    }

    fn confirm(&mut self, name: &FileName) {
        self.unaccepted.remove(name);
        self.uncertain.remove(name);
    }

    /// The client serves nothing that the server has not, and everything if the list was loaded, to those whom the server gives
    /// tickets for it, and to nobody else.
    pub fn check(&self, user: &UserName, stored: &BTreeMap<FileName, (Content, Arc<Audience>)>, others: &[UserName]) {
        assert!(self.pending.is_empty(), "{user} is still loading the own publications");
        let is_known = |name: &&FileName| !self.uncertain.contains(*name) && !self.unaccepted.contains(*name);
        let served = self.own.names_with_prefix("", usize::MAX);
        let served: Vec<&FileName> = served.iter().filter(is_known).collect();
        if self.is_loaded() {
            let listed: Vec<&FileName> = stored.keys().filter(is_known).collect();
            assert_eq!(served, listed, "what {user} serves, and the disk");
        }
        for name in served {
            let (content, audience) = stored.get(name).unwrap_or_else(|| panic!("{user} serves {name}"));
            let granted = ContentRef { name: name.clone(), hash: content.hash, size: content.size };
            for other in others {
                let is_served = self.own.lookup_granted(&granted, other).is_some();
                assert_eq!(is_served, audience.includes(other), "{user} serves {name} to {other}");
            }
        }
    }

    /// Whether the list of this login was loaded. Nothing must be pending: the table would wait for it, in real time.
    pub fn is_loaded(&self) -> bool {
        self.own.is_complete()
    }
}
