"""A byte that is not UTF-8, typed at the prompt, does not end the client."""
from harness import *

setup = Setup()
variables = {"FILESHARE_PASSWORD": PASSWORDS["hans"], "TERM": "xterm"}
terminal = Terminal(setup.client_argv("hans", args=["-q"]), setup.folder("hans"), variables)
terminal.sees("\x1b[K> ")
start = len(terminal.output)
terminal.press(b"sch caf\xe9\r")
status = terminal.wait(1.5)
answered = False
if status is None:
    terminal.type("")
    terminal.type("lap")
    answered = terminal.sees("No active peers", 5)
    terminal.type("xit")
    terminal.wait(3)
finish(answered, "exit %r, screen %r" % (status, terminal.output[start:]))
