"""A `chmod` of a file that is being uploaded does not change its content: the download succeeds."""
from harness import *

setup = Setup()
source, copy = setup.folder("hans") + "/movie.bin", setup.folder("vader") + "/movie.bin"
fill(source, 3 << 20)
hans = setup.client("hans", args=["--limit-rate", "1M"])
hans.say("pub movie.bin", "published")
download = setup.start("vader", "get movie.bin")
time.sleep(1)
os.chmod(source, 0o600)
output, errors = download.communicate(timeout=60)
seen = (download.returncode, text(output), text(errors), entries(setup.folder("vader")))
finish(download.returncode == 0 and digest(copy) == digest(source), seen)
