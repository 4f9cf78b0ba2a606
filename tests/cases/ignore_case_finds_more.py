"""`sch -i` finds at least what `sch` finds."""
from harness import *

setup = Setup()
write(setup.folder("hans") + "/ΣΊΣΥΦΟΣ.txt")
hans = setup.client("hans")
hans.say("pub *", "published")
seen = {}
for needle in ("ΣΊΣΥΦΟΣ", "σίσυφος"):
    seen[needle] = [text(setup.run("vader", "sch %s%s" % (option, needle)).stdout) for option in ("", "-i ")]
finish(all("1 file found" in ignoring_case for _, ignoring_case in seen.values()), seen)
