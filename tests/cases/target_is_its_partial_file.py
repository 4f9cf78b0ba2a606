"""A file that is published under the name of its own partial file: success means that it is there."""
from harness import *

setup = Setup()
folder = setup.folder("hans")
fill(folder + "/t", 3 << 20)
listed = setup.run("hans", "pub t", "lpf", "unp t", args=["-q", "--json"])
file_hash = results(listed.stdout)[1]["files"][0]["hash"]
name = ".%s.part" % file_hash[:32]
os.rename(folder + "/t", folder + "/" + name)
setup.run("hans", "pub " + name)
hans = setup.client("hans")
client = setup.run("vader", "get " + name)
there = entries(setup.folder("vader"))
finish((client.returncode == 0) == (name in there), "exit %d, %s, there: %s" % (client.returncode, text(client.stdout), there))
