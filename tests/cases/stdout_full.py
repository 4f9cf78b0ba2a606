"""A result that cannot be written (disk full) is a failure with a reason. Only a closed pipe ends quietly."""
from harness import *

setup = Setup()
write(setup.folder("hans") + "/a.txt")
hans = setup.client("hans")
hans.say("pub a.txt", "published")
argv = setup.client_argv("vader", "get a.txt")
with open("/dev/full", "w", encoding="utf-8") as full:
    client = subprocess.run(
        argv, cwd=setup.folder("vader"), env=env("vader"), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE
    )
seen = (client.returncode, text(client.stderr), entries(setup.folder("vader")))
finish(client.returncode != 0 and client.stderr != b"", seen)
