"""A credentials file with CRLF and a byte order mark is accepted, or the byte order mark is named."""
from harness import *

setup = Setup()
folder = setup.dir + "/marked"
os.mkdir(folder)
with open(folder + "/users", "wb") as file:
    file.write(b"\xef\xbb\xbfhans falcon*solo\r\nvader sithlord**\r\n")
os.chmod(folder + "/users", 0o600)
argv = [program("server"), "0", "--ephemeral", "--credentials", "users"]
server = subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
line = server.stdout.readline().decode()
server.terminate()
errors = text(server.communicate(timeout=10)[1])
finish(line.startswith("listening") or "byte order mark" in errors.lower(), line or errors)
