"""A client in the background of an interactive shell ends when it has finished its commands."""
from harness import *

setup = Setup()
folder = setup.folder("hans")
write(folder + "/a.txt")
variables = {"FILESHARE_PASSWORD": PASSWORDS["hans"], "PS1": "BASH$ ", "TERM": "dumb"}
terminal = Terminal(["bash", "--norc", "-i"], folder, variables)
terminal.sees("BASH$ ")
terminal.type(" ".join(setup.client_argv("hans", args=["-q"])) + " -c 'pub a.txt' &")
terminal.sees("successfully")
time.sleep(1.5)
start = len(terminal.output)
terminal.type("jobs -l")
time.sleep(1)
terminal.read(0.3)
seen = text(terminal.output[start:])
terminal.type("kill -9 %1")
time.sleep(0.3)
terminal.type("exit")
terminal.wait(3)
terminal.close()
finish("Stopped" not in seen, seen)
