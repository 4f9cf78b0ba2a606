"""What a `pub` has stored when the server goes away is told: the success line with the count, then one failure line."""
from harness import *

COUNT = 20000
# Files that may be stored without having been acknowledged: one batch.
BATCH = 128

setup = Setup()
folder = setup.folder("hans") + "/lots"
os.mkdir(folder)
for number in range(COUNT):
    write(folder + "/%05d-name" % number, "")
client = setup.start("hans", "pub lots", args=["-q", "--json"])
setup.wait_for_log("Received PUB", 60)
setup.server.kill()
output, _ = client.communicate(timeout=60)
told = len(results(output)[0]["published"])
setup.start_server()
time.sleep(4)
listed = setup.run("hans", "lpf", args=["-q", "--json"])
stored = len(results(listed.stdout)[0]["files"])
passed = stored in (0, COUNT) or abs(stored - told) <= BATCH
finish(passed, "told: %d, stored: %d, exit %d" % (told, stored, client.returncode))
