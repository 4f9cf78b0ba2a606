"""`client | pager` at a terminal: the end of the client leaves the terminal as the pager has set it."""
from harness import *

PAGER = """
import os, sys, termios, time, tty
terminal = os.open("/dev/tty", os.O_RDWR)
tty.setcbreak(terminal)
count = len(sys.stdin.read())
time.sleep(0.5)
flags = termios.tcgetattr(terminal)[3]
print("read", count, "bytes; icanon", bool(flags & termios.ICANON), "echo", bool(flags & termios.ECHO))
"""

setup = Setup()
for number in range(300):
    write(setup.folder("hans") + "/f%03d.txt" % number)
hans = setup.client("hans")
hans.say("pub *", "published")
write(setup.dir + "/pager.py", PAGER)
command = '%s 127.0.0.1 %d -q -u vader -c "sch \'\'" | python3 %s/pager.py' % (program("client"), setup.port, setup.dir)
terminal = Terminal(["bash", "-c", command], setup.folder("vader"), {"FILESHARE_PASSWORD": PASSWORDS["vader"]})
terminal.wait(15)
seen = text(terminal.output)
finish("icanon False echo False" in seen, seen)
