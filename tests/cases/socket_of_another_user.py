"""A process of another user of the host, root too, gets no byte from the control socket, and one line says why."""
from harness import *
import socket

require_root()
setup = Setup()
setup.open_to_all()
NOBODY = 65534


def runtime_dir(name, owner):
    folder = os.path.join(setup.dir, name)
    os.mkdir(folder, 0o700)
    os.chown(folder, owner, owner)
    return folder


def attach(before, runtime):
    argv = [*before, program("client"), "--attach", "-q", "-c", "lap"]
    done = subprocess.run(argv, cwd=setup.dir, env=dict(os.environ, XDG_RUNTIME_DIR=runtime), capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


of_root, of_nobody = runtime_dir("run-root", 0), runtime_dir("run-nobody", NOBODY)
os.environ["XDG_RUNTIME_DIR"] = of_root
hans = setup.client("hans")
os.chown(setup.folder("vader"), NOBODY, NOBODY)
os.environ["XDG_RUNTIME_DIR"] = of_nobody
vader = setup.start("vader", "lap", args=("-q", "-v", "--stay"), before=AS_NOBODY)
first = vader.stdout.readline()

# Even where the other user could enter the folder.
os.chmod(of_root, 0o755)
refused = [attach(AS_NOBODY, of_root), attach([], of_nobody)]
(name,) = [name for name in entries(of_nobody + "/fileshare") if name.endswith(".sock")]
stranger = socket.socket(socket.AF_UNIX)
folder = os.open(of_nobody + "/fileshare", os.O_RDONLY)
stranger.connect("/proc/self/fd/%d/%s" % (folder, name))
stranger.settimeout(20)
got = stranger.recv(1)

hans.say("lap", "^vader$")
own = [attach([], of_root), attach(AS_NOBODY, of_nobody)]
vader.terminate()
_, log = vader.communicate(timeout=20)
finish(
    first == b"1 active peer:\n"
    and all(code == 3 and not out and err.count("\n") == 1 for code, out, err in refused)
    and got == b""
    and b"belongs to the user with id 0" in log
    and own == [(0, "1 active peer:\nvader\n", ""), (0, "1 active peer:\nhans\n", "")],
    (refused, got, own),
)
