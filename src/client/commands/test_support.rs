//! A small world for the tests of commands and shell: every service is a fake over one lock, every call is noted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{CommandContext, CommandState};
use crate::client::control::PublishAudience;
use crate::client::control::{LoginError, Password, RequestError};
use crate::client::download::{
    DownloadError, DownloadItem, DownloadOptions, DownloadOutcome, DownloadProgress, IncompleteFile, OnExists,
};
use crate::client::exit_code::ExitCode;
use crate::client::files::{ExpandedPaths, HashProgress, PathArg, ShareError};
use crate::client::services::{Account, Arrival, Catalogue, Fetcher, Folder, Services};
use crate::client::shell::{self, command};
use crate::client::ui::console::{Console, OutputOptions};
use crate::client::ui::password::{PasswordError, PasswordSource};
use crate::common::message::{AvailableContent, NameQuery, OwnPublication, ResolvePurpose};
use crate::common::types::{Audience, Content, ContentHash, FileName, NamedContent, UserName};

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

/// Something that happens while a file is hashed.
pub(crate) type Happening = dyn Fn(&FileName) + Send + Sync;

/// What the fakes share.
#[derive(Default)]
pub(crate) struct State {
    pub user: Option<UserName>,
    /// Answers to logins, first to last; then all succeed.
    pub logins: Vec<LoginError>,
    pub local_only: bool,
    /// Whoever publishes waits until this is false.
    pub away: bool,
    /// Publishing fails: no answer.
    pub down_to_publish: bool,
    /// How often all own publications were listed, and for how many an audience was asked for.
    pub lists: usize,
    pub audiences: usize,
    /// How many files each request to publish had.
    pub batches: Vec<usize>,
    /// Every request fails so.
    pub down: Option<RequestError>,
    pub peers: Vec<UserName>,
    pub found: Vec<AvailableContent>,
    pub own: BTreeMap<FileName, (Content, Audience)>,
    /// Files in the folder; `None` cannot be read.
    pub files: BTreeMap<FileName, Option<Content>>,
    /// What happens while a file is hashed.
    pub hashing: Option<Arc<Happening>>,
    /// How many are telling the folder what it serves.
    pub listings: usize,
    /// What the folder serves.
    pub served: BTreeMap<FileName, (Content, Audience)>,
    /// Names whose download fails, and how.
    pub failing: BTreeMap<FileName, fn() -> DownloadOutcome>,
    /// Names whose download is told of before it is finished.
    pub arriving: BTreeSet<FileName>,
    /// The most of these that anybody held on to at once after they were finished.
    pub held_after: usize,
    /// Every call worth asserting.
    pub calls: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// Nothing but logins and lists can be asked while the server is down.
    fn up(&self) -> Result<MutexGuard<'_, State>, RequestError> {
        let state = self.state();
        match state.down {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }
}

impl Account for World {
    fn login(&self, user: UserName, password: Password) -> Result<Arrival, LoginError> {
        let mut state = self.state();
        assert!(state.listings > 0, "whoever sees the login waits for the list");
        state.calls.push(format!("login {user} {}", String::from_utf8_lossy(&password)));
        if !state.logins.is_empty() {
            return Err(state.logins.remove(0));
        }
        state.user = Some(user);
        Ok(Arrival { local_only: state.local_only })
    }

    fn user(&self) -> Option<UserName> {
        self.state().user.clone()
    }

    fn leave(&self) {
        self.state().user = None;
    }
}

impl Catalogue for World {
    fn publish(&self, files: &[NamedContent], to: &PublishAudience) -> Result<(), RequestError> {
        self.state().batches.push(files.len());
        while self.state().away {
            std::thread::yield_now();
        }
        let mut state = self.up()?;
        if state.down_to_publish {
            return Err(RequestError::Unreachable);
        }
        if *to == PublishAudience::Inherited {
            assert!(state.listings > 0, "whoever sees the publication waits until it is served");
        }
        for one in files {
            state.calls.push(format!("publish {} {to:?}", one.name));
            let audience = match to {
                PublishAudience::Audience(audience) => audience.clone(),
                PublishAudience::Inherited => Audience::only(vec![user("yoda")]),
            };
            state.own.insert(one.name.clone(), (one.content, audience));
        }
        Ok(())
    }

    fn unpublish(&self, names: &[FileName]) -> Result<Vec<bool>, RequestError> {
        let mut state = self.up()?;
        Ok(names.iter().map(|name| state.own.remove(name).is_some()).collect())
    }

    fn own_publications_quiet(&self) -> Result<Vec<OwnPublication>, RequestError> {
        self.state().lists += 1;
        Catalogue::published(self)
    }

    fn published(&self) -> Result<Vec<OwnPublication>, RequestError> {
        let entry = |(name, (content, audience)): (&FileName, &(Content, Audience))| OwnPublication {
            name: name.clone(),
            content: *content,
            restricted: *audience != Audience::Everyone,
        };
        Ok(self.up()?.own.iter().map(entry).collect())
    }

    fn audiences_of(&self, names: &[FileName]) -> Result<Vec<Option<Vec<UserName>>>, RequestError> {
        let mut state = self.up()?;
        state.audiences += names.len();
        let users = |(_, audience): &(Content, Audience)| match audience {
            Audience::Everyone => Vec::new(),
            Audience::Only(users) => users.clone(),
        };
        Ok(names.iter().map(|name| state.own.get(name).map(users)).collect())
    }

    fn peers(&self) -> Result<Vec<UserName>, RequestError> {
        Ok(self.up()?.peers.clone())
    }

    fn search(&self, query: NameQuery) -> Result<Vec<FileName>, RequestError> {
        let mut names: Vec<FileName> =
            self.resolve(query, ResolvePurpose::List)?.into_iter().map(|entry| entry.name).collect();
        names.dedup();
        Ok(names)
    }

    fn resolve(&self, query: NameQuery, purpose: ResolvePurpose) -> Result<Vec<AvailableContent>, RequestError> {
        let mut state = self.up()?;
        state.calls.push(format!("resolve {query:?} {purpose:?}"));
        let matches = |entry: &&AvailableContent| match &query {
            NameQuery::Exact(name) => entry.name == *name,
            NameQuery::Prefix(prefix) => entry.name.as_str().starts_with(prefix),
            NameQuery::Substring(needle) => entry.name.as_str().contains(needle),
            NameQuery::SubstringIgnoreCase(needle) => {
                entry.name.as_str().to_lowercase().contains(&needle.to_lowercase())
            }
        };
        Ok(state.found.iter().filter(matches).cloned().collect())
    }

    fn resolve_many(&self, names: &[FileName]) -> Result<Vec<Vec<AvailableContent>>, RequestError> {
        names.iter().map(|name| self.resolve(NameQuery::Exact(name.clone()), ResolvePurpose::Download)).collect()
    }
}

impl Folder for World {
    fn expand(&self, argument: &PathArg) -> ExpandedPaths {
        let state = self.state();
        let suffix = argument.pattern.as_ref().map(|pattern| pattern.trim_start_matches('*'));
        let meant = |name: &&FileName| match suffix {
            Some(suffix) => name.as_str().ends_with(suffix),
            None => name.as_str() == argument.text,
        };
        let files: Vec<FileName> = state.files.keys().filter(meant).cloned().collect();
        let missing = files.is_empty().then(|| ShareError::Missing(argument.text.clone()));
        ExpandedPaths { files, errors: missing.into_iter().collect() }
    }

    fn exists(&self, name: &FileName) -> bool {
        self.state().files.contains_key(name)
    }

    fn size(&self, name: &FileName) -> u64 {
        self.state().files.get(name).copied().flatten().map_or(0, |content| content.size)
    }

    fn hash_file(&self, name: &FileName, progress: &dyn HashProgress) -> Result<NamedContent, ShareError> {
        let hashing = self.state().hashing.clone();
        if progress.interrupted() {
            return Err(ShareError::Interrupted);
        }
        hashing.iter().for_each(|happens| happens(name));
        match self.state().files[name] {
            Some(content) => Ok(NamedContent { name: name.clone(), content }),
            None => Err(ShareError::Unreadable(name.to_string(), io::ErrorKind::PermissionDenied.into())),
        }
    }

    fn published(&self, name: &FileName, content: Content, audience: Audience) {
        self.state().served.insert(name.clone(), (content, audience));
    }

    fn withdrawn(&self, name: &FileName) {
        self.state().served.remove(name);
    }

    fn begin_loading(&self) {
        self.state().listings += 1;
    }

    fn end_loading(&self) {
        self.state().listings -= 1;
    }

    fn clear(&self) {
        self.state().served.clear();
    }

    fn serve_incomplete(&self, _name: &FileName, _arriving: &Arc<IncompleteFile>) {}

    fn register_downloaded(&self, _name: &FileName, _arrived: &IncompleteFile) {}

    fn drop_incomplete(&self, _name: &FileName) {}
}

impl Fetcher for World {
    /// Finishes in the reverse of the order asked.
    fn fetch(
        &self,
        wanted: &[DownloadItem],
        _: &DownloadOptions,
        progress: &dyn DownloadProgress,
    ) -> Vec<DownloadOutcome> {
        let outcome = |wanted: &DownloadItem| match self.state().failing.get(&wanted.name) {
            Some(fail) => fail(),
            None => DownloadOutcome::Saved { name: wanted.name.clone() },
        };
        let dir = tempfile::tempdir().unwrap();
        let mut finished: Vec<Weak<IncompleteFile>> = Vec::new();
        for (index, one) in wanted.iter().enumerate().rev() {
            if self.state().arriving.contains(&one.name) {
                let place = dir.path().join(index.to_string());
                std::fs::create_dir(&place).unwrap();
                let arriving = IncompleteFile::example(&place);
                progress.arriving(index, &arriving);
                finished.push(Arc::downgrade(&arriving));
            }
            self.state().calls.push(format!("fetch {} {}", one.name, one.content.size));
            progress.received(index, one.content.size, one.content.size);
            let outcome =
                if progress.interrupted() { DownloadOutcome::Failed(DownloadError::Interrupted) } else { outcome(one) };
            progress.finished(index, &outcome);
            let held = finished.iter().filter(|arriving| arriving.strong_count() > 0).count();
            let mut state = self.state();
            state.held_after = state.held_after.max(held);
        }
        wanted.iter().map(outcome).collect()
    }
}

struct Given(Option<&'static str>);

impl PasswordSource for Given {
    fn for_startup(&self, user: &UserName) -> Result<Password, PasswordError> {
        self.for_command(user)
    }

    fn for_command(&self, _: &UserName) -> Result<Password, PasswordError> {
        self.0.map(|text| Zeroizing::new(text.into())).ok_or(PasswordError::NoSource)
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client whose services are all fakes.
pub(crate) struct Bench {
    pub world: World,
    pub context: CommandContext,
    out: Sink,
    err: Sink,
}

impl Bench {
    /// Nobody is logged in.
    pub(crate) fn new() -> Self {
        let (world, out, err) = (World::default(), Sink::default(), Sink::default());
        let service = Arc::new(world.clone());
        let services = Services {
            account: service.clone(),
            catalogue: service.clone(),
            folder: service.clone(),
            fetcher: service,
        };
        let context = CommandContext {
            services,
            own: Arc::default(),
            console: Arc::new(Console::with_writers(
                OutputOptions::default(),
                Box::new(out.clone()),
                Box::new(err.clone()),
            )),
            state: Arc::new(CommandState::default()),
            passwords: Box::new(Given(None)),
            downloads: DownloadOptions { on_exists: OnExists::Error, retry_for: Duration::ZERO },
            login_retry: Duration::from_millis(1),
        };
        Self { world, context, out, err }
    }

    /// `hans` is logged in, and nothing of that is on the screen any more.
    pub(crate) fn logged_in() -> Self {
        let bench = Self::new();
        assert_eq!(bench.run("auth hans pw").0, ExitCode::Success);
        bench.world.calls();
        bench
    }

    /// A password where `-u` and `auth NAME` look for one.
    pub(crate) fn with_password(mut self, password: &'static str) -> Self {
        self.context.passwords = Box::new(Given(Some(password)));
        self
    }

    /// Published by peers.
    pub(crate) fn found(&self, name: &str, byte: u8, sources: u32) {
        let entry = AvailableContent { name: file(name), content: content(byte), sources, age_s: 60 };
        self.world.state().found.push(entry);
    }

    /// Lies in the folder.
    pub(crate) fn local(&self, name: &str, byte: u8) {
        self.world.state().files.insert(file(name), Some(content(byte)));
    }

    /// Runs a line: status, stdout, stderr.
    pub(crate) fn run(&self, line: &str) -> (ExitCode, String, String) {
        let command = command::parse(line.as_bytes()).unwrap().unwrap();
        let code = shell::run_command(&self.context, command);
        (code, self.out.take(), self.err.take())
    }

    /// What is on stdout and stderr since it was last asked.
    pub(crate) fn printed(&self) -> (String, String) {
        (self.out.take(), self.err.take())
    }
}
