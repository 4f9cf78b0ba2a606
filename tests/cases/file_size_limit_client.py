"""A download beyond the limit on file sizes (`ulimit -f`) fails like one to a full disk: exit 9 with a reason, no signal."""
from harness import *

setup = Setup()
for name, size in (("small", 600 << 10), ("large", 3 << 20)):
    fill(setup.folder("hans") + "/" + name, size)
hans = setup.client("hans")
hans.say("pub *", "published")
seen = {}
for name in ("small", "large"):
    client = setup.start("vader", "get " + name, before=["prlimit", "--fsize=%d" % (512 << 10)])
    output, errors = client.communicate(timeout=60)
    seen[name] = (client.returncode, text(output), text(errors))
finish(all(status == 9 and "ulimit" in errors for status, _, errors in seen.values()), seen)
