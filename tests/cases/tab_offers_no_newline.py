"""A file name with a line break cannot be published, so Tab does not offer it; no part of a name runs as a command."""
from harness import *

setup = Setup()
folder = setup.folder("hans")
write(folder + "/report\nxit")
variables = {"FILESHARE_PASSWORD": PASSWORDS["hans"], "TERM": "xterm"}
terminal = Terminal(setup.client_argv("hans", args=["-q"]), folder, variables)
terminal.sees("\x1b[K> ")
start = len(terminal.output)
terminal.press(b"pub rep")
time.sleep(0.4)
terminal.press(b"\t")
time.sleep(0.6)
terminal.read(0.1)
terminal.press(b"\r")
status = terminal.wait(2)
if status is None:
    terminal.type("xit")
    terminal.wait(3)
finish(status is None, "exit %r, screen %r" % (status, terminal.output[start:]))
