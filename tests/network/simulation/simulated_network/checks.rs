//! What must hold when the network has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fileshare::internals::client::session::{RequestError, WaitCondition, WaitId, WaitOutcome};
use fileshare::internals::common::message::{AudienceRef, Cursor, NameQuery, Request, Response};
use fileshare::internals::common::types::{Content, FileName};

use super::SimulatedNetwork;
use crate::simulation::faulty_link::FaultyLink;
use crate::simulation::liveness::LivenessOracle;
use crate::simulation::simulated_client::SimulatedClient;
use crate::simulation::simulated_users::user;

/// Longest time from a reconnect to the response to what was asked before it, over a perfect link.
const REPEATED_WITHIN: Duration = Duration::from_millis(20);

/// A wait's own time, longer than a check.
const WAIT: Duration = Duration::from_secs(60);
/// Longest time from a publication to the end of a wait for it, over a perfect link.
const NOTIFIED_WITHIN: Duration = Duration::from_secs(5);

impl SimulatedNetwork {
    /// From now on the server's sessions are checked against what it hears.
    pub fn check_liveness(&mut self) {
        self.liveness = Some(LivenessOracle::default());
    }

    pub(super) fn server_hears(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(oracle) = self.liveness.as_mut().filter(|_| self.server.is_some()) {
            oracle.on_datagram(self.now, from, datagram);
        }
    }

    /// The user's publications according to the server.
    pub fn own_publications(&mut self, client: usize) -> BTreeMap<FileName, Content> {
        let mut listed = BTreeMap::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            match self.request(client, Request::OwnPublications { user_initiated: false, cursor: cursor.take() }) {
                Response::OwnPublications { entries, next } => {
                    listed.extend(entries.into_iter().map(|entry| (entry.name, entry.content)));
                    cursor = next;
                    if cursor.is_none() {
                        return listed;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The responses to the users, the server's lists and the disk must agree.
    pub fn check_all(&mut self) {
        for number in 0..self.clients.len() {
            let Some(client) = &self.clients[number] else { continue };
            let (user, files, uncertain) = (client.user.clone(), client.files.clone(), client.uncertain.clone());
            let (listed, stored) = (self.own_publications(number), self.journal.files_of(&user));
            assert_eq!(listed, stored, "the list of {user}, and the disk");
            let is_known = |(name, _): &(FileName, _)| !uncertain.contains(name);
            let known =
                |files: BTreeMap<FileName, Content>| files.into_iter().filter(is_known).collect::<BTreeMap<_, _>>();
            let (stored, files) = (known(stored), known(files));
            let names: BTreeSet<_> = stored.keys().chain(files.keys()).collect();
            let found = names.into_iter().map(|name| (name, stored.get(name), files.get(name)));
            let differences: Vec<_> = found.filter(|(_, stored, known)| stored != known).collect();
            assert!(differences.is_empty(), "publications of {user}, with what is stored and known: {differences:?}");
        }
    }

    /// Every user finds what the others publish for everyone or for this one, and nothing else.
    pub fn check_searches(&mut self) {
        for number in 0..self.clients.len() {
            let mut found = BTreeSet::new();
            let mut cursor = None;
            loop {
                let query = NameQuery::Substring("file".into());
                match self.request(number, Request::Search { query, cursor: cursor.take() }) {
                    Response::SearchResults { names, next } => {
                        found.extend(names);
                        cursor = next;
                    }
                    Response::StaleCursor => found.clear(),
                    other => panic!("{other:?}"),
                }
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(found, self.journal.visible_to(&user(number)), "what {} finds", user(number));
        }
    }

    /// Every client serves what its user publishes to those who may fetch it, and to nobody else.
    pub fn check_served(&self) {
        let users: Vec<_> = self.clients().map(|client| client.user.clone()).collect();
        for client in self.clients() {
            let stored = self.journal.publications_of(&client.user);
            client.own_publications.check(&client.user, &stored, &users);
        }
    }

    /// A wait of each client is met when the next client publishes the file, and not before. The last check, as the users do not
    /// know of it.
    pub fn check_waits(&mut self) {
        self.link = FaultyLink::perfect();
        for number in 0..self.clients.len() {
            let owner = (number + 1) % self.clients.len();
            let file = self.with_client(owner, |client| client.new_files(1)).remove(0);
            self.request(owner, Request::Unpublish { names: vec![file.name.clone()] });
            let (now, id) = (self.now, WaitId(u64::MAX - number as u64));
            let condition = WaitCondition::FileAvailable(file.name.clone());
            self.with_client(number, |client| client.session.wait(now, id, condition, WAIT));
            self.run_for(NOTIFIED_WITHIN);
            assert_eq!(self.outcome(number, id), None, "{} waits for {}", user(number), file.name);
            self.request(owner, Request::Publish { files: vec![file.clone()], audience: AudienceRef::Everyone });
            self.run_for(NOTIFIED_WITHIN);
            assert_eq!(
                self.outcome(number, id),
                Some(Ok(WaitOutcome::Met)),
                "{} waits for {}",
                user(number),
                file.name
            );
        }
    }

    fn outcome(&self, number: usize, id: WaitId) -> Option<Result<WaitOutcome, RequestError>> {
        let client = self.clients[number].as_ref().expect("nobody dies");
        let finished = client.finished_waits.iter().find(|(_, finished)| finished.wait == id);
        finished.map(|(_, finished)| finished.result)
    }

    /// What was asked before a reconnect is sent again as soon as there is a session.
    pub fn check_repeats(&mut self) {
        self.link = FaultyLink::perfect();
        let now = self.now;
        let ask = |client: &mut SimulatedClient| client.session.request(now, Request::Peers { cursor: None });
        let mut asked: Vec<_> = (0..self.clients.len()).map(|number| (number, self.with_client(number, ask))).collect();
        self.crash(Duration::from_secs(1));
        while !asked.is_empty() {
            self.step();
            asked.retain(|&(number, request)| {
                let client = self.clients[number].as_mut().expect("nobody dies");
                if client.take_response(request).is_none() {
                    return true;
                }
                let since = self.now - *client.disturbances.last().expect("it has reconnected");
                assert!(since <= REPEATED_WITHIN, "{} is answered {since:?} after it has reconnected", client.user);
                false
            });
        }
    }
}
