"""More users in `--to` than an audience holds: a reason that says so."""
from harness import *

setup = Setup()
write(setup.folder("vader") + "/x")
batch = setup.dir + "/batch"
write(batch, "pub " + " ".join("--to user%05d" % number for number in range(4097)) + " x\n")
client = setup.run("vader", args=["-q", "-b", batch])
finish(client.returncode == 2 and b"4096" in client.stderr.replace(b",", b""), (client.returncode, text(client.stderr)))
