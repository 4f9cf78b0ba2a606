"""In the server's folder, what an editor leaves beside credentials.txt has the same passwords: `pub .` leaves it out too."""
from harness import *

setup = Setup()
for name in ("credentials.txt", "credentials.txt~", "credentials.txt.bak", "#credentials.txt#", "x.txt"):
    write(setup.folder("hans") + "/" + name, "hans falcon*solo\n")
client = setup.run("hans", "pub .", args=["-q", "--json"])
seen = results(client.stdout)[0]["published"]
finish(seen == ["x.txt"], "published: %s" % seen)
