"""Where the system gives no more threads, a `get` fails and ends; it neither hangs nor panics."""
from harness import *

require_root()
setup = Setup()
setup.open_to_all()
folder = setup.folder("vader")
os.chmod(folder, 0o777)
fill(setup.folder("hans") + "/m.bin", 3 << 20)
hans = setup.client("hans")
hans.say("pub m.bin", "published")
seen = {}
for threads in range(5, 13):
    for name in entries(folder):
        os.unlink(folder + "/" + name)
    client = setup.start("vader", "get m.bin", before=["prlimit", "--nproc=%d" % threads, *AS_NOBODY])
    try:
        client.communicate(timeout=20)
        seen[threads] = client.returncode
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
        seen[threads] = "hangs"
passed = all(status in (0, 1) for status in seen.values())
finish(passed, "exit status by number of threads allowed: %s" % seen)
