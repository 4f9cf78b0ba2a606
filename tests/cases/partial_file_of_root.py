"""A download that root began and the owner of the folder continues succeeds, or the reason names the file in the way."""
from harness import *

require_root()
setup = Setup()
setup.open_to_all()
folder = setup.folder("vader")
os.chown(folder, 65534, 65534)
fill(setup.folder("hans") + "/m.bin", 3 << 20)
hans = setup.client("hans", args=["--limit-rate", "1M"])
hans.say("pub m.bin", "published")
begun = setup.start("vader", "get m.bin")
time.sleep(1.2)
begun.send_signal(signal.SIGINT)
begun.communicate()
continued = setup.start("vader", "get m.bin", before=AS_NOBODY)
_, errors = continued.communicate(timeout=60)
finish(continued.returncode == 0 or b".part" in errors, (continued.returncode, text(errors), entries(folder)))
