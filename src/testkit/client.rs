//! A client of a test.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::arguments::{file_name, path, paths, refused, user};
use super::events::TestEvents;
use super::job::TestJob;
use super::outcome::{Collector, results_of};
use super::{CommandError, STRETCHING, TestkitError};
use crate::client::commands::{CommandContext, CommandState, ContentInput, ContentPipes, NoLocalControl, Verb};
use crate::client::download::{DownloadOptions, OnExists, SaveAs};
use crate::client::engine::{ClientEngine, EngineConfig};
use crate::client::shell::command::{Command, GetOutput, UsageError, WaitTarget};
use crate::client::shell::{execute_command, log_in_at_startup, run_line};
use crate::client::ui::message::{
    AvailableFile, CommandResult, FoundFiles, GetResult, JobList, Message, OwnFile, PeerFiles, SharedFile,
};
use crate::client::ui::output::{MessageSink, Output};
use crate::client::ui::password::{PasswordError, PasswordSource};
use crate::common::sync::lock;
use crate::common::types::{Password, UserName};

/// How long `get` waits for a source to return.
const RETRY_FOR: Duration = Duration::from_secs(10);
/// Uploads that run at once.
const UPLOAD_SLOTS: u8 = 8;

/// A client with a temporary folder of its own. Its methods may be called by several threads at once.
pub struct TestClient {
    /// Holds the shared folder and what the program keeps in the user's folders.
    home: TempDir,
    dir: PathBuf,
    server: SocketAddr,
    /// The user and the password of the last login.
    credentials: Option<(String, String)>,
    /// `None` while it is killed.
    engine: Option<Arc<ClientEngine>>,
}

/// A file that `get` has saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedFile {
    /// The published name.
    pub name: String,
    /// The name in the client's folder.
    pub saved: String,
    pub bytes: u64,
    /// BLAKE3 of the content, in hex.
    pub hash: String,
    /// The users who sent it, sorted; none if it was there already.
    pub sources: Vec<String>,
}

impl TestClient {
    /// Starts a client of the server at this address, not logged in.
    pub fn start(server: SocketAddr) -> Result<Self, TestkitError> {
        let home = TempDir::new()?;
        let dir = home.path().join("shared");
        fs::create_dir(&dir)?;
        let engine = Some(start_engine(server, home.path(), &dir)?);
        Ok(Self { home, dir, server, credentials: None, engine })
    }

    /// `auth`. The password is that of [`restart`](Self::restart) too.
    pub fn login(&mut self, user: &str, password: &str) -> Result<(), CommandError> {
        self.credentials = Some((user.into(), password.into()));
        self.execute(Command::Auth { user: user.into(), password: None }).map(drop)
    }

    /// The client's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a file of this name is in the client's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Writes a file in the client's folder, and makes the folders above it.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, content)
    }

    /// Reads a file of the client's folder.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    /// `pub`: publishes files and folders for everyone. Returns the published names.
    pub fn publish(&self, files: &[&str]) -> Result<Vec<String>, CommandError> {
        self.publish_for(Vec::new(), files)
    }

    /// `pub --to`: publishes files and folders for these users only, of whom there is at least one. Returns the published
    /// names.
    pub fn publish_to(&self, users: &[&str], files: &[&str]) -> Result<Vec<String>, CommandError> {
        // Without users, `pub` publishes for everyone.
        if users.is_empty() {
            return Err(refused(Verb::Pub, &UsageError::Arity(Verb::Pub)));
        }
        let users = users.iter().map(|name| user(Verb::Pub, name)).collect::<Result<_, _>>()?;
        self.publish_for(users, files)
    }

    fn publish_for(&self, to: Vec<UserName>, files: &[&str]) -> Result<Vec<String>, CommandError> {
        let files = paths(Verb::Pub, files)?;
        self.list(Command::Pub { to, stdin: false, watch: false, files }, |result| match result {
            CommandResult::Pub(result) => Some(result.published),
            _ => None,
        })
    }

    /// `pub --stdin`: stores this content under `name` in the client's folder, and publishes it.
    pub fn publish_content(&self, name: &str, content: &[u8]) -> Result<(), CommandError> {
        let input = Arc::new(Mutex::new(io::Cursor::new(content.to_vec())));
        let pipes = ContentPipes { input: Some(ContentInput::Open(input)), output: None };
        let files = paths(Verb::Pub, &[name])?;
        self.execute_with(Command::Pub { to: Vec::new(), stdin: true, watch: false, files }, pipes).map(drop)
    }

    /// `unp`: withdraws these names. Returns them.
    pub fn unpublish(&self, names: &[&str]) -> Result<Vec<String>, CommandError> {
        let files = paths(Verb::Unp, names)?;
        self.list(Command::Unp { watch: false, files }, |result| match result {
            CommandResult::Unp(result) => Some(result.unpublished),
            _ => None,
        })
    }

    /// `lpf`: what this user publishes, sorted by name.
    pub fn published(&self) -> Result<Vec<OwnFile>, CommandError> {
        self.list(Command::Lpf { long: false }, |result| match result {
            CommandResult::Lpf(list) => Some(list.files),
            _ => None,
        })
    }

    /// `lap`: the other active users, sorted.
    pub fn peers(&self) -> Result<Vec<String>, CommandError> {
        self.list(Command::Lap { long: false }, |result| match result {
            CommandResult::Lap(list) => Some(list.peers),
            _ => None,
        })
    }

    /// `sch`: the names of the other users' files with this substring, sorted.
    pub fn search(&self, substring: &str) -> Result<Vec<String>, CommandError> {
        self.list(
            Command::Sch { substring: substring.into(), ignore_case: false, long: false },
            |result| match result {
                CommandResult::Sch(FoundFiles::Names { files, .. }) => Some(files),
                _ => None,
            },
        )
    }

    /// `sch -l`: the same, with what is published under each name.
    pub fn search_contents(&self, substring: &str) -> Result<Vec<AvailableFile>, CommandError> {
        self.list(Command::Sch { substring: substring.into(), ignore_case: false, long: true }, |result| match result {
            CommandResult::Sch(FoundFiles::Contents { files, .. }) => Some(files),
            _ => None,
        })
    }

    /// `ls -l`: what this active user shares with this one, sorted by name.
    pub fn shared_by(&self, peer: &str) -> Result<Vec<SharedFile>, CommandError> {
        self.list(Command::Ls { user: user(Verb::Ls, peer)?, long: true }, |result| match result {
            CommandResult::Ls(PeerFiles::Listed { files, .. }) => Some(files),
            _ => None,
        })
    }

    /// `get`: downloads one file into the client's folder. A file that is there with another content is an error.
    pub fn get(&self, name: &str) -> Result<SavedFile, CommandError> {
        self.get_one(name, None)
    }

    /// `get --wait`: the same, as soon as another active user serves the file to this one; fails with
    /// [`ExitCode::NotFound`](super::ExitCode::NotFound) if nobody does within this time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fileshare::testkit::{TestServer, TestkitError};
    /// # let server = TestServer::start(&[("hans", "falcon*solo"), ("yoda", "wise@!man")])?;
    /// # let (hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    /// hans.publish_content("report.pdf", b"content")?;
    /// assert_eq!(yoda.wait_and_get("report.pdf", Duration::from_secs(10))?.sources, ["hans"]);
    /// # Ok::<(), TestkitError>(())
    /// ```
    pub fn wait_and_get(&self, name: &str, timeout: Duration) -> Result<SavedFile, CommandError> {
        self.get_one(name, Some(timeout))
    }

    fn get_one(&self, name: &str, wait: Option<Duration>) -> Result<SavedFile, CommandError> {
        let results = self.execute(get(name, None, wait)?)?;
        let saved = results.into_iter().find_map(|result| match result {
            CommandResult::Get(GetResult::Saved { name, saved, bytes, hash, sources, .. }) => {
                Some(SavedFile { name, saved, bytes, hash, sources })
            }
            _ => None,
        });
        Ok(saved.expect("a get that succeeds has a result"))
    }

    /// `get -o`: downloads one file, and saves it under the name `saved`.
    pub fn get_as(&self, name: &str, saved: &str) -> Result<(), CommandError> {
        let output = GetOutput::File(file_name(Verb::Get, saved)?);
        self.execute(get(name, Some(output), None)?).map(drop)
    }

    /// `cat`: downloads the content of one file, without saving it.
    pub fn content(&self, name: &str) -> Result<Vec<u8>, CommandError> {
        let output = Arc::new(Mutex::new(Vec::new()));
        let pipes = ContentPipes { input: None, output: Some(Arc::clone(&output) as _) };
        self.execute_with(Command::Cat { file: path(Verb::Cat, name)?, wait: None }, pipes)?;
        Ok(std::mem::take(&mut *lock(&output)))
    }

    /// `wait peer`: until this user is active.
    pub fn wait_peer(&self, peer: &str, timeout: Duration) -> Result<(), CommandError> {
        let user = user(Verb::Wait, peer)?;
        self.execute(Command::Wait { target: WaitTarget::Peer { user, timeout } }).map(drop)
    }

    /// `wait gone`: until this user is not active.
    pub fn wait_gone(&self, peer: &str, timeout: Duration) -> Result<(), CommandError> {
        let user = user(Verb::Wait, peer)?;
        self.execute(Command::Wait { target: WaitTarget::Gone { user, timeout } }).map(drop)
    }

    /// `wait file`: until another active user serves a file of this name to this one.
    pub fn wait_file(&self, name: &str, timeout: Duration) -> Result<(), CommandError> {
        let name = file_name(Verb::Wait, name)?;
        self.execute(Command::Wait { target: WaitTarget::File { name, timeout } }).map(drop)
    }

    /// Starts a `get`, a `pub` or a `wait` in the background, as a line with `&` at its end does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fileshare::testkit::{CommandResult, ExitCode, TestServer, TestkitError};
    /// # let server = TestServer::start(&[("hans", "falcon*solo"), ("yoda", "wise@!man")])?;
    /// # let (hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    /// let soon = Duration::from_secs(10);
    /// let (download, forlorn) = (yoda.begin("get --wait 10 report.pdf")?, yoda.begin("wait peer vader 3600")?);
    /// hans.publish_content("report.pdf", b"content")?;
    /// assert!(matches!(&download.wait(soon)?[..], [CommandResult::Get(_)]));
    ///
    /// assert_eq!(yoda.jobs()?.jobs.len(), 1);
    /// forlorn.cancel();
    /// assert_eq!(forlorn.wait(soon).unwrap_err().code, ExitCode::Interrupted);
    /// # Ok::<(), TestkitError>(())
    /// ```
    pub fn begin(&self, line: &str) -> Result<TestJob, CommandError> {
        let messages = Arc::<Collector>::default();
        run_line(&self.context(&messages, ContentPipes::default()), format!("{line} &").as_bytes());
        TestJob::of(&self.engine().jobs, line, messages)
    }

    /// `jobs`: what goes on in the background, and who downloads from this client.
    pub fn jobs(&self) -> Result<JobList, CommandError> {
        let list = self.execute(Command::Jobs)?.into_iter().find_map(|result| match result {
            CommandResult::Jobs(list) => Some(list),
            _ => None,
        });
        Ok(list.expect("jobs has a result"))
    }

    /// `events`: what happens from now on to this client and to the other users, and the coming and going of files that
    /// match one of these patterns (names, patterns, `folder/`), or that are followed. What is there comes first. For about
    /// 6 s after the start of a server it is not certain that what it does not know of has gone: it may come back.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use fileshare::testkit::{EventKind, TestServer, TestkitError};
    /// # let server = TestServer::start(&[("hans", "falcon*solo"), ("yoda", "wise@!man")])?;
    /// # let (hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    /// let soon = Duration::from_secs(10);
    /// let mut events = yoda.events(&["*.pdf"])?;
    /// assert_eq!(events.next(soon)?, EventKind::PeerJoined { user: "hans".into() });
    /// hans.publish_content("report.pdf", b"content")?;
    /// hans.publish_content("notes.txt", b"none of these")?;
    /// let EventKind::FileAvailable { name, .. } = events.next(soon)? else { panic!("another event") };
    /// assert_eq!(name, "report.pdf");
    /// yoda.get("report.pdf")?;
    /// events.wait_for(soon, |event| matches!(event, EventKind::DownloadFinished { ok: true, .. }))?;
    /// # Ok::<(), TestkitError>(())
    /// ```
    pub fn events(&self, patterns: &[&str]) -> Result<TestEvents<'_>, CommandError> {
        TestEvents::of(self.engine(), patterns)
    }

    /// Runs one command line, as it would be typed. Returns all that `client --json` would print.
    ///
    /// # Panics
    ///
    /// If the client is killed.
    pub fn run(&self, line: &str) -> Vec<Message> {
        self.collect(ContentPipes::default(), |context| run_line(context, line.as_bytes()))
    }

    /// What commands write that run over a context with these streams.
    fn collect(&self, pipes: ContentPipes, run: impl FnOnce(&CommandContext)) -> Vec<Message> {
        let messages = Arc::<Collector>::default();
        run(&self.context(&messages, pipes));
        std::mem::take(&mut *lock(&messages.0))
    }

    fn context(&self, messages: &Arc<Collector>, pipes: ContentPipes) -> CommandContext {
        let password = self.credentials.as_ref().map(|(_, password)| Zeroizing::new(password.clone().into_bytes()));
        CommandContext {
            engine: Arc::clone(self.engine()),
            output: Output::new(Arc::clone(messages) as Arc<dyn MessageSink>),
            client_output: None,
            pipes,
            local: Arc::new(NoLocalControl),
            state: Arc::default(),
            passwords: Arc::new(KnownPassword(password)),
            download_options: DownloadOptions {
                on_exists: OnExists::Error,
                retry_for: RETRY_FOR,
                save_as: SaveAs::OwnName,
            },
            login_sleep: Arc::new(CommandState::sleep_unless_cancelled),
        }
    }

    fn engine(&self) -> &Arc<ClientEngine> {
        self.engine.as_ref().expect("the client is killed")
    }

    /// Runs a command. Returns the elements of the lists that `pick` finds in its results.
    fn list<T>(
        &self,
        command: Command,
        pick: impl Fn(CommandResult) -> Option<Vec<T>>,
    ) -> Result<Vec<T>, CommandError> {
        Ok(self.execute(command)?.into_iter().filter_map(pick).flatten().collect())
    }

    /// Runs one command line. Returns its results if it has the exit status 0.
    pub fn command(&self, line: &str) -> Result<Vec<CommandResult>, CommandError> {
        results_of(line.split_whitespace().next().unwrap_or_default(), self.run(line))
    }

    fn execute(&self, command: Command) -> Result<Vec<CommandResult>, CommandError> {
        self.execute_with(command, ContentPipes::default())
    }

    fn execute_with(&self, command: Command, pipes: ContentPipes) -> Result<Vec<CommandResult>, CommandError> {
        let verb = command.verb();
        command.check().map_err(|error| refused(verb, &error))?;
        results_of(verb.name(), self.collect(pipes, |context| execute_command(context, command)))
    }

    /// `xit`: logs out and ends the client. Its folder stays.
    pub fn quit(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.jobs.close();
            engine.session.logout();
        }
    }

    /// Ends the client without a message to the server or its peers, as a crash does. Its folder stays.
    pub fn kill(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.jobs.close();
        }
    }

    /// Starts the client again in its folder, and logs in if it was logged in before. If it runs, it logs out first; after
    /// a [`kill`](Self::kill), this waits until the server has ended the old session.
    pub fn restart(&mut self) -> Result<(), TestkitError> {
        self.quit();
        self.engine = Some(start_engine(self.server, self.home.path(), &self.dir)?);
        let Some((user, _)) = &self.credentials else { return Ok(()) };
        let messages = self.collect(ContentPipes::default(), |context| {
            log_in_at_startup(context, user);
        });
        Ok(results_of("auth", messages).map(drop)?)
    }
}

impl Drop for TestClient {
    /// Jobs, watches and follows hold the engine: they must end first.
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_engine(server: SocketAddr, home: &Path, dir: &Path) -> Result<Arc<ClientEngine>, TestkitError> {
    let config = EngineConfig {
        server: &server.ip().to_string(),
        port: server.port(),
        dir,
        state_dir: Some(&home.join("state")),
        listen: None,
        limit_rate: None,
        direct_path: false,
        upload_slots: UPLOAD_SLOTS,
        stretching: STRETCHING,
    };
    Ok(Arc::new(ClientEngine::start(&config, |_| ())?))
}

fn get(name: &str, output: Option<GetOutput>, wait: Option<Duration>) -> Result<Command, CommandError> {
    Ok(Command::Get { share: false, dry_run: false, output, files: paths(Verb::Get, &[name])?, wait })
}

struct KnownPassword(Option<Password>);

impl PasswordSource for KnownPassword {
    fn for_startup(&self, _: &UserName, _: &Output) -> Result<Password, PasswordError> {
        self.0.clone().ok_or(PasswordError::NoSource)
    }

    fn for_command(&self, user: &UserName, output: &Output) -> Result<Password, PasswordError> {
        self.for_startup(user, output)
    }
}
