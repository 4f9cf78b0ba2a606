"""The terminal of a `--stay` client goes away (SIGHUP): the server is told, and peers see it at once."""
from harness import *

setup = Setup()
folder = setup.folder("hans")
write(folder + "/a")
argv = setup.client_argv("hans", "pub a", args=["-q", "--stay"])
terminal = Terminal(argv, folder, {"FILESHARE_PASSWORD": PASSWORDS["hans"]})
terminal.sees("successfully")
time.sleep(0.5)
os.close(terminal.fd)
deadline, status = time.monotonic() + 5, None
while status is None and time.monotonic() < deadline:
    pid, raw = os.waitpid(terminal.pid, os.WNOHANG)
    status = os.waitstatus_to_exitcode(raw) if pid else None
    time.sleep(0.02)
peers = setup.run("vader", "lap")
finish(peers.stdout == b"No active peers\n", "status %r; peers right after: %s" % (status, text(peers.stdout)))
