"""A server whose log nobody reads keeps serving, and ends at SIGTERM."""
from harness import *

setup = Setup()
folder = setup.dir + "/unread"
os.mkdir(folder)
shutil.copy(setup.server_dir + "/credentials.txt", folder)
server = subprocess.Popen(
    [program("server"), "0", "--ephemeral"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
)
setup.port = int(server.stdout.readline().split(b":")[-1])
answered = 0
for _ in range(60):
    client = setup.run("hans", *["lap"] * 20, timeout=90)
    answered += client.stdout.count(b"No active peers")
    if client.returncode != 0:
        break
server.terminate()
try:
    status = server.wait(5)
except subprocess.TimeoutExpired:
    status = "does not end"
    server.kill()
    server.wait()
seen = "%d commands answered, client ended with %d (%s); SIGTERM: %s"
finish(client.returncode == 0 and status == 0, seen % (answered, client.returncode, text(client.stderr), status))
