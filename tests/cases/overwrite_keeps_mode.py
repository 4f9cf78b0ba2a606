"""A file that is replaced keeps its mode."""
from harness import *

setup = Setup()
os.umask(0o022)
write(setup.folder("hans") + "/run.sh", "#!/bin/sh\necho new\n")
hans = setup.client("hans")
hans.say("pub run.sh", "published")
target = setup.folder("vader") + "/run.sh"
write(target, "old")
os.chmod(target, 0o755)
client = setup.run("vader", "get run.sh", args=["-q", "--on-exists", "overwrite"])
mode = os.stat(target).st_mode & 0o7777
finish(client.returncode == 0 and mode == 0o755, "%s, mode 0755 -> %04o" % (text(client.stdout), mode))
