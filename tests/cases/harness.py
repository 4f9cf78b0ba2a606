"""Runs the real programs for one case: a server, and clients over pipes or on a terminal.

A case is a script that sets a situation up, prints what it saw, and ends with `finish`: exit 0 and PASS, or exit 1 and FAIL.
A case that cannot run here ends with exit 77. `scripts/cases.sh` runs them all. The programs are those in FS_BIN, or in
target/release. Everything listens on 127.0.0.1.
"""

import fcntl
import hashlib
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PASSWORDS = {"hans": "falcon*solo", "vader": "sithlord**", "yoda": "wise@!man"}
# Exit status of a case that cannot run here.
SKIPPED = 77
# Runs a program as the user "nobody". Needs root.
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

_setups = []


def program(name):
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    return os.path.join(os.path.abspath(os.environ.get("FS_BIN") or os.path.join(target, "release")), name)


def end(status, line):
    """Ends everything that was started, prints a line, and exits."""
    for setup in _setups:
        setup.stop()
    print(line, flush=True)
    os._exit(status)


def finish(passed, seen):
    print("saw:", seen)
    end(0 if passed else 1, "PASS" if passed else "FAIL")


def require_root():
    if os.geteuid() != 0:
        end(SKIPPED, "skipped: needs root")


def _crashed(kind, error, trace):
    traceback.print_exception(kind, error, trace)
    end(1, "FAIL (in the script itself)")


sys.excepthook = _crashed
signal.signal(signal.SIGTERM, lambda *_: end(1, "FAIL (timed out)"))


class Process:
    """A program whose standard input and output are pipes."""

    def __init__(self, argv, cwd, env):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log
        )
        self.output = b""
        self.position = 0
        os.set_blocking(self.process.stdout.fileno(), False)

    def expect(self, pattern, timeout=20):
        """Waits until the pattern occurs in what was printed since the last match, and returns the match."""
        deadline = time.monotonic() + timeout
        regex = re.compile(pattern.encode(), re.M)
        while True:
            match = regex.search(self.output, self.position)
            if match:
                self.position = match.end()
                return match
            if time.monotonic() > deadline:
                raise TimeoutError("expected %r, saw %r, %r" % (pattern, self.output[self.position :], self.stderr()))
            if select.select([self.process.stdout], [], [], 0.05)[0]:
                data = self.process.stdout.read()
                if data == b"":
                    raise EOFError("expected %r, saw %r, %r" % (pattern, self.output[self.position :], self.stderr()))
                self.output += data or b""

    def say(self, line, pattern=None, timeout=20):
        """Types a line; waits for the pattern, if there is one."""
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.expect(pattern, timeout) if pattern else None

    def stderr(self):
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0)

    def kill(self):
        self.process.kill()
        self.process.wait()


def results(output):
    """The results among the lines of --json, without the greeting."""
    lines = [json.loads(line) for line in output.splitlines()]
    return [line for line in lines if line["type"] == "result" and line["command"] not in ("auth", "xit")]


class Setup:
    """One server, and a folder for each user, in a temporary folder."""

    def __init__(self, server_args=()):
        self.dir = tempfile.mkdtemp(prefix="fileshare-case-")
        os.environ["HOME"] = os.path.join(self.dir, "home")
        os.mkdir(os.environ["HOME"])
        for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "FILESHARE_USER", "FILESHARE_PASSWORD"):
            os.environ.pop(variable, None)
        os.environ["XDG_RUNTIME_DIR"] = os.environ["HOME"]
        self.server_dir = os.path.join(self.dir, "server")
        os.mkdir(self.server_dir)
        credentials = os.path.join(self.server_dir, "credentials.txt")
        write(credentials, "".join("%s %s\n" % entry for entry in PASSWORDS.items()))
        os.chmod(credentials, 0o600)
        self.server_args, self.port, self.processes, self.background = list(server_args), 0, [], []
        _setups.append(self)
        self.start_server()

    def start_server(self):
        argv = [program("server"), str(self.port), *self.server_args]
        self.server = Process(argv, self.server_dir, dict(os.environ))
        self.processes.append(self.server)
        self.port = int(self.server.expect(r"^listening on .*:(\d+)$", 60).group(1))

    def folder(self, user):
        folder = os.path.join(self.dir, user)
        os.makedirs(folder, exist_ok=True)
        return folder

    def open_to_all(self):
        """Lets programs of other users work here."""
        os.chmod(self.dir, 0o755)
        os.chmod(os.environ["HOME"], 0o777)

    def client_argv(self, user, *commands, args=()):
        argv = [program("client"), "127.0.0.1", str(self.port), "-u", user, *args]
        for command in commands:
            argv += ["-c", command]
        return argv

    def client(self, user, args=()):
        """A client that is logged in and takes commands by `say`."""
        argv = [program("client"), "127.0.0.1", str(self.port), *args]
        client = Process(argv, self.folder(user), dict(os.environ))
        self.processes.append(client)
        client.say("auth %s %s" % (user, PASSWORDS[user]), "^Welcome, %s!$" % user)
        return client

    def run(self, user, *commands, args=("-q",), timeout=120, **options):
        """Runs commands in a client of their own, to its end."""
        return subprocess.run(
            self.client_argv(user, *commands, args=args),
            **{"cwd": self.folder(user), "input": b"", "capture_output": True, "timeout": timeout, "env": env(user), **options},
        )

    def start(self, user, *commands, args=("-q",), before=(), **options):
        """Starts a client that runs commands in the background; `before` is the start of its command line."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        argv = [*before, *self.client_argv(user, *commands, args=args)]
        process = subprocess.Popen(argv, **{"cwd": self.folder(user), "env": env(user), **pipes, **options})
        self.background.append(process)
        return process

    def wait_for_log(self, line, times=1, timeout=30):
        """Waits until the server's log has the text so many times."""
        deadline = time.monotonic() + timeout
        while self.server.stderr().count(line.encode()) < times:
            if time.monotonic() > deadline:
                raise TimeoutError("the server's log has %r fewer than %d times" % (line, times))
            time.sleep(0.005)

    def stop(self):
        for process in self.processes:
            process.kill()
        for process in self.background:
            process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Terminal:
    """A person at a terminal: a program on a pseudo-terminal of its own."""

    def __init__(self, argv, cwd, env, rows=24, columns=80):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execvpe(argv[0], argv, dict(os.environ, **env))
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.output = b""
        self.position = 0
        self.exit_code = None

    def read(self, timeout=0.05):
        if select.select([self.fd], [], [], timeout)[0]:
            try:
                self.output += os.read(self.fd, 65536)
            except OSError:
                time.sleep(timeout)

    def sees(self, text, timeout=10):
        """Whether the text appears after what was seen before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            at = self.output.find(text.encode(), self.position)
            if at >= 0:
                self.position = at + len(text.encode())
                return True
            self.read()
        return False

    def press(self, keys):
        os.write(self.fd, keys)

    def type(self, line):
        self.press(line.encode() + b"\r")

    def wait(self, timeout=10):
        """The exit status of the program; `None` if it has not ended in time."""
        deadline = time.monotonic() + timeout
        while self.exit_code is None and time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
            self.read()
        return self.exit_code

    def close(self):
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def env(user, **more):
    return dict(os.environ, FILESHARE_PASSWORD=PASSWORDS[user], **more)


def write(path, content="x"):
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def fill(path, size):
    """Writes reproducible bytes that do not compress or repeat."""
    generator = random.Random(1)
    with open(path, "wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(generator.randbytes(min(1 << 20, size - start)))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read()).hexdigest()


def entries(folder):
    return sorted(os.listdir(folder))


def text(output):
    """Output on one line."""
    return output.decode(errors="replace").strip().replace("\n", " / ")
