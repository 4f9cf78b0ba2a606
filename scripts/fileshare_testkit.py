"""Runs a fileshare server and clients for tests: one file, Python's standard library alone.

    import fileshare_testkit

    with fileshare_testkit.Share() as share:            # a server on a free port, a fresh folder, the sample users
        hans, vader = share.client("hans"), share.client("vader")
        hans.write("note.txt", b"hello")
        hans.pub("note.txt")
        vader.wait_file("note.txt")
        vader.get("note.txt")
        assert vader.read("note.txt") == b"hello"

With pytest, the fixture does the same; `fileshare_options` may be overridden to pass arguments to `Share`:

    from fileshare_testkit import fileshare, fileshare_options

    def test_a_note(fileshare):
        hans = fileshare.client("hans")

Each method of a client is one command and returns typed results. A command that fails raises `CommandFailed`, which has the
exit status; one that takes too long raises `CommandTimeout`, which names it. Names are taken as they are: for patterns and
options without a method, use `run("get *.txt")`. `begin` starts a command without waiting for it, so that several clients
work at once; `begin_job` starts one in the background, so that the same client does more meanwhile. `kill` ends a program without a farewell, and `restart` starts it again with what it had.

The programs are those in FS_BIN, beside this file's folder in target/release, or in PATH. Everything is ended and removed at
the end of the `with` block, or by `close`, and at the latest when Python exits.
"""

import atexit
import collections
import dataclasses
import enum
import json
import os
import pathlib
import queue
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import typing

SAMPLE_USERS = {"hans": "falcon*solo", "vader": "sithlord**", "yoda": "wise@!man"}
# Seconds for a program to end after it was asked to; then it is killed.
_END_TIMEOUT = 10


class Code(enum.IntEnum):
    """Exit statuses of the client, and codes of commands."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_AUTHENTICATED = 4
    NOT_FOUND = 5
    TRANSFER_FAILED = 6
    WRONG_CONTENT = 7
    LOCAL_FILE = 8
    FULL = 9
    TIMED_OUT = 124
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class Error(Exception):
    """Any failure of the kit, of a program or of a command."""


class CommandFailed(Error):
    """A command ended with another status than 0."""

    def __init__(self, client, outcome):
        errors = [line["error"] for line in outcome.lines if line.get("error")]
        reasons = "; ".join(errors or [note["text"] for note in outcome.notes])
        super().__init__("%s: %s: exit %d: %s" % (client, outcome.command, outcome.code, reasons or "no reason given"))
        self.code = outcome.code
        self.outcome = outcome


class CommandTimeout(Error, TimeoutError):
    """A command has not ended in time. It goes on."""


class ProgramEnded(Error):
    """A program is not running any more, or has not started."""

    def __init__(self, text, code=None):
        super().__init__(text)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Published:
    """A file that the client's user publishes."""

    name: str
    bytes: int
    hash: str
    restricted: bool


@dataclasses.dataclass(frozen=True)
class Found:
    """A file that other users share."""

    name: str
    bytes: int
    hash: str
    sources: int
    age_s: int


@dataclasses.dataclass(frozen=True)
class Download:
    """The result for one file of `get`. `saved` is the name in the folder; `sources` are the users it came from."""

    name: str
    ok: bool
    saved: typing.Optional[str] = None
    skipped: bool = False
    bytes: typing.Optional[int] = None
    hash: typing.Optional[str] = None
    sources: typing.Sequence[str] = ()
    resumed_bytes: typing.Optional[int] = None
    elapsed_ms: typing.Optional[int] = None
    error: typing.Optional[str] = None
    code: int = 0


@dataclasses.dataclass(frozen=True)
class Background:
    """A job, a watch or a follow that goes on, with the bytes of all its files if it has any."""

    number: int
    kind: str
    line: str
    done: typing.Optional[int] = None
    total: typing.Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command said: its result lines and notes, as they came, and the `code` it ended with."""

    command: str
    lines: typing.Sequence[dict]
    notes: typing.Sequence[dict]
    code: int
    elapsed_ms: int

    def downloads(self):
        """The results of a `get`."""
        return [_typed(Download, line) for line in self.lines if line["command"] == "get" and "name" in line]

    def listed(self, key):
        """The list of this name in the result."""
        return [entry for line in self.lines for entry in line.get(key, [])]


class Share:
    """A server, its users, and any number of clients in a temporary folder.

    `users` are the passwords by user name, `options` those of the server, and `timeout` is how long a command may take, in
    seconds. With `data`, publications outlive a restart of the server, as they do in production.
    """

    def __init__(self, users=None, options=(), data=True, timeout=30):
        self.timeout = timeout
        self.users = dict(SAMPLE_USERS if users is None else users)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fileshare-test-"))
        self._clients = []
        self._server = None
        atexit.register(self.close)
        try:
            self.server = self._server = Server(self.folder, self.users, options, data, timeout)
        except BaseException:
            self.close()
            raise

    def client(self, user, login=True, options=(), events=False):
        """Starts a client that is logged in as this user, in the folder of the user's name.

        Without `login`, it is not logged in. With `events`, what happens is in `Client.events`.
        """
        client = Client(self, user, login, options, events)
        self._clients.append(client)
        client.start()
        return client

    def close(self):
        """Ends all programs and removes the folder."""
        atexit.unregister(self.close)
        clients, self._clients = self._clients, []
        for client in clients:
            client._program.send_signal(signal.SIGTERM)
        for client in clients:
            client._program.end()
        if self._server:
            self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Server:
    """The server of a share."""

    def __init__(self, folder, users, options, data, timeout):
        self.port = 0
        self._folder, self._timeout = folder, timeout
        self._port_file = folder / "port"
        credentials = folder / "credentials.txt"
        with open(os.open(credentials, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.writelines("%s %s\n" % user for user in users.items())
        stored = ["--data", folder / "fileshare.db"] if data else ["--ephemeral"]
        self._argv = ["--credentials", credentials, *stored, "--port-file", self._port_file, *options]
        self._program = _Program("server", folder)
        self.start()

    def start(self):
        """Starts the server and waits until it is ready: on a free port, and after a stop on the same one."""
        program = self._program
        program.start([_find("server"), self.port, *self._argv], {})
        program.wait(lambda: program.lines, self._timeout, "start")
        self.port = int(self._port_file.read_text())

    def stop(self):
        """Ends the server as an administrator does."""
        self._program.send_signal(signal.SIGTERM)
        self._program.end()

    def kill(self):
        """Ends the server like a crash."""
        self._program.kill()

    def restart(self):
        """Stops the server if it runs, and starts it again on its port."""
        self.stop()
        self.start()

    @property
    def log(self):
        """The server's log."""
        return self._program.stderr()


class Client:
    """A client of one user. Not to be made but by `Share.client`."""

    def __init__(self, share, user, login, options, events):
        self.user = user
        self.folder = share.folder / "clients" / user
        self.folder.mkdir(parents=True, exist_ok=True)
        # What happens, with `events`; and notes that belong to no command.
        self.events, self.notes = collections.deque(), []
        self._share, self._login = share, login
        self._options = [*options, *(["--events"] if events else [])]
        self._begun, self._last_id = {}, 0
        self._program = _Program(user, share.folder, self._on_line, self._reasons)

    def __str__(self):
        return self.user

    # --- files

    def path(self, name):
        """The path of a file in the shared folder."""
        return self.folder / name

    def write(self, name, content):
        """Writes a file into the shared folder. Text is UTF-8."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, name):
        """The bytes of a file in the shared folder."""
        return self.path(name).read_bytes()

    # --- commands

    def auth(self, user, password):
        """Logs in."""
        self.run("auth %s %s" % (user, password))

    def pub(self, *names, to=()):
        """Publishes files or folders, to all or to the users in `to`. Returns the names that were published."""
        options = [word for user in to for word in ("--to", user)]
        return self._command(["pub", *options], names).listed("published")

    def unp(self, *names):
        """Unpublishes. Returns the names that were unpublished."""
        return self._command(["unp"], names).listed("unpublished")

    def lpf(self):
        """The files that this user publishes."""
        return [_typed(Published, file) for file in self.run("lpf").listed("files")]

    def lap(self):
        """The names of the other active users."""
        return self.run("lap").listed("peers")

    def ls(self, user):
        """The names of the files that this active user shares with this one."""
        return [file["name"] for file in self._command(["ls"], [user]).listed("files")]

    def sch(self, substring, ignore_case=False):
        """The names of the files of other active users that contain this text."""
        return self._command(["sch", *(["-i"] if ignore_case else [])], [substring]).listed("files")

    def search(self, substring, ignore_case=False):
        """As `sch`, with what else is known of each file."""
        outcome = self._command(["sch", "-l", *(["-i"] if ignore_case else [])], [substring])
        return [_typed(Found, file) for file in outcome.listed("files")]

    def get(self, *names, wait=None, share=False):
        """Downloads files or folders; `wait` is for how many seconds to wait for them first."""
        return self.begin_get(*names, wait=wait, share=share).wait().downloads()

    def begin_get(self, *names, wait=None, share=False):
        """Begins to download."""
        options = [*(["--wait", str(wait)] if wait is not None else []), *(["--share"] if share else [])]
        return self.begin(_line(["get", *options], names), wait or 0)

    def wait_peer(self, user, seconds=30):
        """Waits until another user is active."""
        self._wait("peer", user, seconds)

    def wait_gone(self, user, seconds=30):
        """Waits until another user is not active."""
        self._wait("gone", user, seconds)

    def wait_file(self, name, seconds=30):
        """Waits until another active user shares the file with this one."""
        self._wait("file", name, seconds)

    def xit(self):
        """Logs out and ends the client. Returns its exit status."""
        self.begin("xit")
        self._program.close_stdin()
        return self._program.end()

    def run(self, command, timeout=None):
        """Runs a command line to its end."""
        return self.begin(command).wait(timeout)

    def begin(self, command, more_seconds=0):
        """Begins a command line. Commands of one client run one after the other."""
        return self._begin(Command, command, more_seconds)

    def begin_job(self, command, more_seconds=0):
        """Begins a `get`, a `pub` or a `wait` in the background, as `&` does, while other commands run. Returns a `Job`."""
        job = self._begin(Job, command + " &", more_seconds)
        job._wait_begun()
        return job

    def jobs(self):
        """What goes on in the background of this client."""
        return [_typed(Background, job) for job in self.run("jobs").listed("jobs")]

    def _begin(self, kind, line, more_seconds):
        with self._program.changed:
            self._last_id += 1
            begun = kind(self, "kit-%d" % self._last_id, line, self._share.timeout + more_seconds)
            self._begun[begun.id] = begun
        self._program.write_line(json.dumps({"id": begun.id, "command": line}))
        return begun

    def wait_event(self, event, timeout=None, **fields):
        """Waits for an event of this kind with these fields, and takes it and all before it from `events`."""

        def take():
            while self.events:
                found = self.events.popleft()
                if found["event"] == event and all(found.get(key) == value for key, value in fields.items()):
                    return found
            return None

        what = "event %s %s" % (event, fields or "")
        return self._program.wait(take, self._share.timeout if timeout is None else timeout, what)

    def _command(self, words, names):
        return self.run(_line(words, names))

    def _wait(self, what, name, seconds):
        self.begin("wait %s %s %s" % (what, shlex.quote(name), seconds), seconds).wait()

    # --- the program

    def start(self):
        """Starts the client, and waits until it is logged in."""
        self._begun = {}
        argv = [_find("client"), "127.0.0.1", self._share.server.port, "--json", "--dir", self.folder, *self._options]
        password = {}
        if self._login:
            argv += ["-u", self.user]
            password = {"FILESHARE_PASSWORD": self._share.users[self.user]}
        self._program.start(argv, password)
        # Answered as soon as the login has succeeded; a client whose login fails ends.
        self.run("help")

    def kill(self):
        """Ends the client like a crash: the server learns it after the liveness time."""
        self._program.kill()

    def restart(self):
        """Logs out if the client runs, whatever it does, and starts it again."""
        self._program.send_signal(signal.SIGTERM)
        self._program.end()
        self.start()

    @property
    def exit_code(self):
        """The exit status; `None` while it runs; negative after a signal."""
        return self._program.code()

    def _reasons(self):
        return "; ".join(note["text"] for note in self.notes) or self._program.stderr()

    def _on_line(self, line):
        # Under the program's lock.
        message = json.loads(line)
        kind, begun = message.get("type"), self._begun.get(message.get("id"))
        if kind == "event":
            self.events.append(message)
        elif begun:
            begun._on_message(kind, message)
        elif kind == "note":
            self.notes.append(message)


class Command:
    """A command that was begun."""

    def __init__(self, client, id, line, timeout):
        self.id, self.line = id, line
        # The last `progress` of each file.
        self.progress = {}
        self._client, self._timeout = client, timeout
        self._lines, self._notes, self._end = [], [], None

    def wait(self, timeout=None):
        """Waits for its end. Raises `CommandFailed` unless it ended with 0."""
        outcome = self.wait_any(timeout)
        if outcome.code != 0:
            raise CommandFailed(self._client, outcome)
        return outcome

    def wait_any(self, timeout=None):
        """Waits for its end, good or bad."""
        end = self._client._program.wait(lambda: self._end, self._timeout if timeout is None else timeout, self.line)
        return Outcome(self.line, tuple(self._lines), tuple(self._notes), end["code"], end["elapsed_ms"])

    def _on_message(self, kind, message):
        if kind == "result":
            self._lines.append(message)
        elif kind == "note":
            self._notes.append(message)
        elif kind == "progress":
            self.progress[message["name"]] = message
        elif kind == "end":
            self._end = message
            del self._client._begun[self.id]


class Job(Command):
    """A command in the background. `number` is its number in the client; `wait` and `wait_any` wait for its end."""

    number = None

    def cancel(self):
        """Ends it with `Code.INTERRUPTED`, if it goes on. What a download has verified is kept for the next one."""
        self._client.begin("cancel %d" % self.number).wait_any()

    def _wait_begun(self):
        self._client._program.wait(lambda: self.number or self._end, self._timeout, self.line)
        if self.number is None:
            self.wait()
            raise Error("%s: %s: only get, pub and wait run in the background" % (self._client, self.line))

    def _on_message(self, kind, message):
        if kind == "result" and message["command"] == "job":
            self.number = message["number"]
        else:
            super()._on_message(kind, message)


class _Program:
    """A process with threads for its three pipes, so that neither side ever waits for the other."""

    def __init__(self, name, folder, on_line=None, reasons=None):
        # Protects everything that the threads change; notified after each change.
        self.changed = threading.Condition()
        self.lines = []
        self._name, self._folder = name, folder
        self._on_line, self._reasons = on_line or self.lines.append, reasons or self.stderr
        self._process, self._input, self._threads = None, None, []
        self._errors, self._is_open, self._broken = [], False, None

    def start(self, argv, environment):
        if self.is_running():
            raise Error("%s is running already" % self._name)
        self.lines.clear()
        self._errors, self._is_open, self._broken = [], True, None
        self._process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=self._folder,
            env=self._environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C reaches the test alone, which ends everything in order.
            start_new_session=True,
        )
        self._input = queue.SimpleQueue()
        work = (self._read_out, (self._process,)), (self._read_err, (self._process,)), (_write, (self._process, self._input))
        self._threads = [threading.Thread(target=run, args=args, daemon=True) for run, args in work]
        for thread in self._threads:
            thread.start()

    def _environment(self, more):
        home, runtime = self._folder / "homes" / self._name, self._folder / "run"
        home.mkdir(parents=True, exist_ok=True)
        runtime.mkdir(mode=0o700, exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "FILESHARE_"))}
        return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), **more}

    def _read_out(self, process):
        for line in process.stdout:
            with self.changed:
                try:
                    self._on_line(line.decode())
                except (ValueError, KeyError) as error:
                    self._broken = "%s printed %r, which is not understood: %r" % (self._name, line, error)
                self.changed.notify_all()
        with self.changed:
            self._is_open = False
            self.changed.notify_all()

    def _read_err(self, process):
        for line in process.stderr:
            with self.changed:
                self._errors.append(line.decode(errors="replace"))

    def write_line(self, line):
        self._input.put(line.encode() + b"\n")

    def wait(self, found, timeout, what):
        """Waits until `found` returns something, and returns it. The program must not end before."""
        result = None

        def is_over():
            nonlocal result
            result = found()
            return result or self._broken or not self._is_open

        with self.changed:
            in_time = self.changed.wait_for(is_over, timeout)
            if result:
                return result
            if self._broken:
                raise Error(self._broken)
        if not in_time:
            raise CommandTimeout("%s: %s: not ended after %s s" % (self._name, what, timeout))
        code = self.end()
        reason = self._reasons().strip() or "no reason given"
        raise ProgramEnded("%s: %s: the program ended with %d: %s" % (self._name, what, code, reason), code)

    def stderr(self):
        with self.changed:
            return "".join(self._errors)

    def is_running(self):
        return self.code() is None and self._process is not None

    def code(self):
        return self._process.poll() if self._process else None

    def send_signal(self, number):
        if self._process:
            self._process.send_signal(number)

    def close_stdin(self):
        if self._input:
            self._input.put(None)

    def kill(self):
        self.send_signal(signal.SIGKILL)
        self.end()

    def end(self):
        """Waits until the program, which was asked to end, has ended and everything it wrote is read; kills it if need be."""
        if not self._process:
            return None
        self.close_stdin()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(_END_TIMEOUT)
        for pipe in (self._process.stdout, self._process.stderr):
            pipe.close()
        return self._process.returncode


def _write(process, lines):
    try:
        with process.stdin:
            for line in iter(lines.get, None):
                process.stdin.write(line)
                process.stdin.flush()
    except OSError:
        pass  # The program has ended, which its output tells.


def _line(words, names):
    """A command line with names that are taken as they are."""
    return " ".join([*words, "--", *map(shlex.quote, names)])


def _typed(kind, fields):
    """The fields that this version of the kit knows: later programs add some."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in fields.items() if key in known})


def _find(program):
    target = pathlib.Path(__file__).resolve().parent.parent / "target" / "release"
    folder = os.environ.get("FS_BIN")
    found = shutil.which(program, path=folder or "%s:%s" % (target, os.environ.get("PATH", "")))
    if not found:
        raise Error("there is no program %r: run cargo build --release, or set FS_BIN" % program)
    return os.path.abspath(found)


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def fileshare_options():
        """Arguments of `Share` for the fixture `fileshare`; to be overridden."""
        return {}

    @pytest.fixture
    def fileshare(fileshare_options):
        """A server and its clients, for one test."""
        with Share(**fileshare_options) as share:
            yield share
