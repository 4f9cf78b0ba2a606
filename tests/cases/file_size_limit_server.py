"""A server whose data file reaches the limit on file sizes (`ulimit -f`) ends as with a full disk: with a reason, not by a
signal, and what it has acknowledged is there afterwards."""
from harness import *

setup = Setup()
folder = setup.folder("hans") + "/lots"
os.mkdir(folder)
for number in range(8000):
    write(folder + "/%05d-%s" % (number, "x" * 200), "")
setup.server.kill()
argv = ["prlimit", "--fsize=%d" % (1 << 20), program("server"), str(setup.port)]
limited = Process(argv, setup.server_dir, dict(os.environ))
setup.processes.append(limited)
limited.expect("^listening on", 60)
client = setup.start("hans", "pub lots", args=["-q", "--json"])
status = limited.process.wait(60)
client.send_signal(signal.SIGINT)
client.communicate(timeout=60)
reason = text(limited.stderr()).split(" / ")[-1]
setup.start_server()
time.sleep(4)
listed = setup.run("hans", "lpf", args=["-q", "--json"])
stored = len(results(listed.stdout)[0]["files"])
finish(status == 1 and "ulimit" in reason and 0 < stored < 8000, "exit %d, %s; %d stored" % (status, reason, stored))
