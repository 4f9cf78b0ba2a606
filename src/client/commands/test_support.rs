//! A client for the tests of commands and shell: the server and the downloads are scripted, the shared folder is a
//! temporary one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::{CommandContext, CommandState, ContentPipes, NoLocalControl};
use crate::client::cancel::{Cancelled, is_cancelled};
use crate::client::control::{
    ListCallback, ListSignal, LoginError, LoginInfo, RequestError, RequestTransport, ServerApi, SessionControl,
    WaitCondition, WaitId, WaitOutcome, WatchedList,
};
use crate::client::download::{
    Download, DownloadError, DownloadOptions, DownloadOutcome, DownloadReport, IncompleteFile, OnExists, SaveAs,
};
use crate::client::engine::ClientEngine;
use crate::client::events::ListWatcher;
use crate::client::exit_code::ExitCode;
use crate::client::files::SharedFiles;
use crate::client::jobs_by_key::JobsByKey;
use crate::client::shell::{self, command};
use crate::client::ui::console::test_support::Sink;
use crate::client::ui::console::{Console, OutputOptions};
use crate::client::ui::output::Output;
use crate::client::ui::password::{PasswordError, PasswordSource};
use crate::client::upload::UploadService;
use crate::common::message::{
    ActivePeer, AudienceRef, AvailableContent, NameQuery, OwnPublication, Request, ResolvePurpose, Response,
};
use crate::common::types::{
    Audience, Content, ContentHash, FileName, NamedContent, Password, PublicationsDigest, UserName, UsersDigest,
};

pub(crate) fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

pub(crate) fn file(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

/// A content that differs with `byte`.
pub(crate) fn content(byte: u8) -> Content {
    Content { hash: ContentHash([byte; 32]), size: u64::from(byte), mtime_ms: 0 }
}

/// The content of [`TestClient::local`].
pub(crate) fn local_content(byte: u8) -> Content {
    let bytes = vec![byte; usize::from(byte)];
    Content { hash: ContentHash(*blake3::hash(&bytes).as_bytes()), size: u64::from(byte), mtime_ms: 0 }
}

/// The server and the downloads, as the test has scripted them.
#[derive(Default)]
pub(crate) struct ServerScript {
    pub user: Option<UserName>,
    /// Results of logins, first to last; then all succeed.
    pub logins: Vec<LoginError>,
    pub local_only: bool,
    /// A request to publish gets its response once this is false.
    pub away: bool,
    /// Publishing fails: no response.
    pub down_to_publish: bool,
    /// How often all own publications were listed by the client itself, and how many audiences were requested.
    pub lists: usize,
    pub audiences: usize,
    /// How many files each request to publish had.
    pub batches: Vec<usize>,
    /// The result of every wait; else its condition is met.
    pub wait: Option<Result<WaitOutcome, RequestError>>,
    /// The result of every request.
    pub down: Option<RequestError>,
    /// How many mutations still succeed before `down` counts.
    pub down_after: usize,
    pub peers: Vec<UserName>,
    pub found: Vec<AvailableContent>,
    pub own: BTreeMap<FileName, (Content, Audience)>,
    /// The audience staged last.
    staged: Vec<UserName>,
    /// Names whose download comes out like this; all others are saved.
    pub outcomes: BTreeMap<FileName, fn() -> DownloadOutcome>,
    /// The users who deliver these names; yoda delivers all others.
    pub owners: BTreeMap<FileName, Vec<UserName>>,
    /// Names whose download is reported before it is finished.
    pub arriving: BTreeSet<FileName>,
    /// The most of these that were still referenced after they were finished.
    pub held_after: usize,
    /// Every call worth asserting.
    pub calls: Vec<String>,
}

impl ServerScript {
    fn respond(&mut self, request: Request) -> Response {
        match request {
            Request::Publish { files, audience } => self.publish(files, audience),
            Request::Unpublish { names } => {
                let was_published = |(bit, name): (usize, &FileName)| u64::from(self.own.remove(name).is_some()) << bit;
                let published_mask = names.iter().enumerate().map(was_published).sum();
                Response::Unpublished { published_mask, digest: PublicationsDigest::default() }
            }
            Request::StageAudience { part, users, .. } => {
                if part == 0 {
                    self.staged.clear();
                }
                self.staged.extend(users);
                Response::AudienceStaged
            }
            Request::OwnPublications { .. } => {
                let entry = |(name, (content, audience)): (&FileName, &(Content, Audience))| OwnPublication {
                    name: name.clone(),
                    content: *content,
                    restricted: *audience != Audience::Everyone,
                    age_s: 60,
                };
                Response::OwnPublications { entries: self.own.iter().map(entry).collect(), next: None }
            }
            Request::AudienceOf { name, .. } => {
                self.audiences += 1;
                match self.own.get(&name) {
                    None => Response::NotPublished,
                    Some((_, Audience::Everyone)) => Response::Users { users: Vec::new(), next: None },
                    Some((_, Audience::Only(users))) => Response::Users { users: users.clone(), next: None },
                }
            }
            Request::Peers { .. } => {
                let peer = |user: &UserName| ActivePeer { user: user.clone(), active_s: 90 };
                Response::Peers { peers: self.peers.iter().map(peer).collect(), next: None }
            }
            Request::Shared { user, .. } if !self.peers.contains(&user) => Response::NotActive,
            Request::Shared { .. } => Response::Contents { entries: self.found.clone(), next: None },
            Request::Search { query, .. } => {
                let names = self.matching(&query).into_iter().map(|entry| entry.name).collect();
                Response::SearchResults { names, next: None }
            }
            Request::Resolve { query, purpose, .. } => {
                self.calls.push(format!("resolve {query:?} {}", purpose == ResolvePurpose::Download));
                Response::Contents { entries: self.matching(&query), next: None }
            }
            Request::Sources { .. } | Request::Subscribe { .. } | Request::Unsubscribe { .. } => Response::Rejected,
        }
    }

    fn publish(&mut self, files: Vec<NamedContent>, audience: AudienceRef) -> Response {
        for one in files {
            self.calls.push(format!("publish {} {audience:?}", one.name));
            let audience = match &audience {
                AudienceRef::Everyone => Audience::Everyone,
                AudienceRef::Staged(_) => Audience::only(self.staged.clone()),
                AudienceRef::Inherited { owners } => Audience::only(owners.clone()),
            };
            self.own.insert(one.name, (one.content, audience));
        }
        Response::Published { digest: PublicationsDigest::default() }
    }

    fn matching(&self, query: &NameQuery) -> Vec<AvailableContent> {
        self.found.iter().filter(|entry| query.matches(&entry.name)).cloned().collect()
    }
}

/// See [`ServerScript`].
#[derive(Clone)]
struct ScriptedServer {
    script: Arc<Mutex<ServerScript>>,
    uploads: Arc<UploadService>,
}

impl ScriptedServer {
    fn state(&self) -> MutexGuard<'_, ServerScript> {
        self.script.lock().unwrap()
    }

    fn is_away(&self, request: &Request) -> bool {
        matches!(request, Request::Publish { .. }) && self.state().away
    }
}

impl RequestTransport for ScriptedServer {
    fn request(&self, request: Request) -> Result<Response, RequestError> {
        match &request {
            Request::Publish { files, .. } => self.state().batches.push(files.len()),
            Request::OwnPublications { user_initiated: false, .. } => self.state().lists += 1,
            _ => {}
        }
        while self.is_away(&request) {
            std::thread::yield_now();
        }
        let mut state = self.state();
        if let Some(error) = state.down {
            let is_mutation = matches!(request, Request::Publish { .. } | Request::Unpublish { .. });
            if !is_mutation || state.down_after == 0 {
                return Err(error);
            }
            state.down_after -= 1;
        }
        if let Request::Publish { audience, .. } = &request {
            if state.down_to_publish {
                return Err(RequestError::Unreachable);
            }
            let is_inherited = matches!(audience, AudienceRef::Inherited { .. });
            assert!(
                !is_inherited || self.uploads.publications().is_loading(),
                "a peer that sees the publication waits for the file"
            );
        }
        Ok(state.respond(request))
    }

    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        requests.into_iter().map(|request| self.request(request)).collect()
    }
}

impl SessionControl for ScriptedServer {
    fn login(&self, user: UserName, password: Password) -> Result<LoginInfo, LoginError> {
        let mut state = self.state();
        assert!(
            self.uploads.publications().is_loading(),
            "a peer that sees the login waits for the list of publications"
        );
        state.calls.push(format!("login {user} {}", String::from_utf8_lossy(&password)));
        if !state.logins.is_empty() {
            return Err(state.logins.remove(0));
        }
        state.user = Some(user);
        Ok(LoginInfo { local_only: state.local_only })
    }

    fn user(&self) -> Option<UserName> {
        self.state().user.clone()
    }

    fn wait(&self, condition: WaitCondition, timeout: Duration, _: &Cancelled) -> Result<WaitOutcome, RequestError> {
        let mut state = self.state();
        state.calls.push(format!("wait {condition:?} {timeout:?}"));
        state.wait.unwrap_or(Ok(WaitOutcome::Met))
    }

    fn watch(&self, _: WatchedList, on_change: ListCallback) -> Result<WaitId, RequestError> {
        on_change(ListSignal { is_complete: true, session: 0, login: 1 });
        Ok(WaitId(1))
    }

    fn unwatch(&self, _: WaitId) {}

    fn sessions(&self) -> u64 {
        0
    }

    fn logout(&self) {
        self.state().user = None;
    }
}

impl Download for ScriptedServer {
    /// Finishes in the reverse of the requested order.
    fn fetch(
        &self,
        items: &[NamedContent],
        _: &DownloadOptions,
        cancelled: &Cancelled,
        report: &dyn Fn(DownloadReport),
    ) {
        let outcome = |item: &NamedContent| match self.state().outcomes.get(&item.name) {
            Some(outcome) => outcome(),
            None => DownloadOutcome::Saved { name: item.name.clone() },
        };
        let dir = tempfile::tempdir().unwrap();
        let mut finished: Vec<Weak<IncompleteFile>> = Vec::new();
        for (index, item) in items.iter().enumerate().rev() {
            if self.state().arriving.contains(&item.name) {
                let part_dir = dir.path().join(index.to_string());
                std::fs::create_dir(&part_dir).unwrap();
                let incomplete = IncompleteFile::example(&part_dir);
                report(DownloadReport::Started(index, incomplete.clone()));
                finished.push(Arc::downgrade(&incomplete));
            }
            self.state().calls.push(format!("fetch {} {}", item.name, item.content.size));
            let owners = self.state().owners.get(&item.name).cloned().unwrap_or_else(|| vec![user("yoda")]);
            owners.into_iter().for_each(|owner| report(DownloadReport::Delivered(index, owner)));
            report(DownloadReport::Received { index, done: item.content.size, total: item.content.size });
            let outcome = if is_cancelled(cancelled) {
                DownloadOutcome::Failed(DownloadError::Interrupted)
            } else {
                outcome(item)
            };
            report(DownloadReport::Finished(index, outcome));
            let held = finished.iter().filter(|incomplete| incomplete.strong_count() > 0).count();
            let mut state = self.state();
            state.held_after = state.held_after.max(held);
        }
    }

    fn check_targets(
        &self,
        items: &[NamedContent],
        _: &DownloadOptions,
        _: &Cancelled,
    ) -> Vec<Option<DownloadOutcome>> {
        items.iter().map(|item| self.state().outcomes.get(&item.name).map(|outcome| outcome())).collect()
    }

    fn remove_copy(&self, _: &FileName, _: &UserName, _: &Cancelled) -> std::io::Result<bool> {
        Ok(false)
    }

    fn store(
        &self,
        _: &FileName,
        _: OnExists,
        _: &mut dyn Read,
        _: &Cancelled,
    ) -> Result<Option<FileName>, DownloadError> {
        unreachable!("tested with real downloads")
    }
}

struct FixedPassword(Option<&'static str>);

impl PasswordSource for FixedPassword {
    fn for_startup(&self, user: &UserName, output: &Output) -> Result<Password, PasswordError> {
        self.for_command(user, output)
    }

    fn for_command(&self, _: &UserName, _: &Output) -> Result<Password, PasswordError> {
        self.0.map(|text| Zeroizing::new(text.into())).ok_or(PasswordError::NoSource)
    }
}

pub(crate) struct TestClient {
    pub context: CommandContext,
    pub dir: tempfile::TempDir,
    /// The waits between attempts to log in for `-u`, which take no time.
    pub login_waits: Arc<Mutex<Vec<Duration>>>,
    server: ScriptedServer,
    out: Sink,
    err: Sink,
}

impl TestClient {
    /// Not logged in.
    pub(crate) fn new() -> Self {
        let (dir, out, err) = (tempfile::tempdir().unwrap(), Sink::default(), Sink::default());
        let files = SharedFiles::with_cache_dir(dir.path(), None).unwrap();
        let uploads = UploadService::new(files.clone(), 1);
        let server = ScriptedServer { script: Arc::default(), uploads: uploads.clone() };
        let login_waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let waits = Arc::clone(&login_waits);
        let engine = ClientEngine {
            servers: vec![([127, 0, 0, 1], 12_000).into()],
            lists: ListWatcher::new(Arc::new(server.clone()), ServerApi::with_transport(Arc::new(server.clone()))),
            session: Arc::new(server.clone()),
            server: ServerApi::with_transport(Arc::new(server.clone())),
            files,
            publications: uploads.publications().clone(),
            uploads,
            follows: JobsByKey::default(),
            watches: JobsByKey::default(),
            downloader: Arc::new(server.clone()),
            direct_path: false,
            jobs: Arc::default(),
            _listeners: Vec::new(),
        };
        let context = CommandContext {
            engine: Arc::new(engine),
            output: Output::new(Arc::new(Console::with_writers(
                OutputOptions::default(),
                Box::new(out.clone()),
                Box::new(err.clone()),
            ))),
            client_output: None,
            pipes: ContentPipes::default(),
            local: Arc::new(NoLocalControl),
            state: Arc::<CommandState>::default(),
            passwords: Arc::new(FixedPassword(None)),
            download_options: DownloadOptions {
                on_exists: OnExists::Error,
                retry_for: Duration::ZERO,
                save_as: SaveAs::OwnName,
            },
            login_sleep: Arc::new(move |_, wait| waits.lock().unwrap().push(wait)),
        };
        Self { context, dir, login_waits, server, out, err }
    }

    /// `hans` is logged in, and the output of that is discarded.
    pub(crate) fn logged_in() -> Self {
        let client = Self::new();
        assert_eq!(client.run("auth hans pw").0, ExitCode::Success);
        client.calls();
        client
    }

    /// With a password for `-u` and `auth NAME`.
    pub(crate) fn with_password(mut self, password: &'static str) -> Self {
        self.context.passwords = Arc::new(FixedPassword(Some(password)));
        self
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, ServerScript> {
        self.server.state()
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.script().calls)
    }

    /// What peers can download from this client.
    pub(crate) fn served(&self) -> BTreeMap<FileName, (Content, Audience)> {
        self.context.publications.all()
    }

    /// Peers have published this.
    pub(crate) fn found(&self, name: &str, byte: u8, sources: u32) {
        let (name, content, users) = (file(name), content(byte), UsersDigest::default());
        let entry = AvailableContent { name, content, sources, age_s: 60, users };
        self.script().found.push(entry);
    }

    /// Writes a file into the shared folder.
    pub(crate) fn local(&self, name: &str, byte: u8) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vec![byte; usize::from(byte)]).unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }

    /// Runs a line: status, stdout, stderr.
    pub(crate) fn run(&self, line: &str) -> (ExitCode, String, String) {
        let command = command::parse(line.as_bytes()).unwrap().unwrap();
        let code = shell::run_command(&self.context, command);
        (code, self.out.take(), self.err.take())
    }

    /// What was written to stdout and stderr since the last time.
    pub(crate) fn printed(&self) -> (String, String) {
        (self.out.take(), self.err.take())
    }
}
