"""`--limit-rate 30` is accepted, so a small file arrives, however slowly; or it is a usage error."""
from harness import *

setup = Setup()
fill(setup.folder("hans") + "/k.bin", 600)
hans = setup.client("hans", args=["--limit-rate", "30"])
hans.say("pub k.bin", "published")
start = time.monotonic()
client = setup.run("vader", "get k.bin", timeout=150)
seen = "exit %d after %.0f s: %s" % (client.returncode, time.monotonic() - start, text(client.stderr))
finish(client.returncode == 0, seen)
