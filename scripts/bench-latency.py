#!/usr/bin/env python3
"""Times, over loopback and in logged-in shells: `get` of 1 KiB files, from the command line to the result line; and `wait
file`, from the command line and from the result line of the `pub` at another client to the result line of the wait.

    scripts/bench-latency.py [COUNT]

Uses the programs in FS_BIN or target/release (cargo build --release). All processes listen on 127.0.0.1 and end with the script.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
root = Path(__file__).resolve().parent.parent
programs = Path(os.environ.get("FS_BIN") or Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release")

with tempfile.TemporaryDirectory() as folder:
    up, down = Path(folder, "up"), Path(folder, "down")
    up.mkdir()
    down.mkdir()
    for number in range(count):
        (up / f"f{number}").write_bytes(os.urandom(1024))
    credentials = Path(folder, "credentials.txt")
    credentials.write_text("up pw\ndown pw\nlate pw\n")
    credentials.chmod(0o600)
    own = dict.fromkeys(("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"), folder)
    environment = dict(os.environ, FILESHARE_PASSWORD="pw", **own)
    started = []

    def start(program, *arguments):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        process = subprocess.Popen([programs / program, *arguments], env=environment, **pipes)
        started.append(process)
        return process

    try:
        server = start("server", "0", "--ephemeral", "--credentials", credentials, "--log-level", "error")
        port = server.stdout.readline().strip().rsplit(":", 1)[1]
        uploader = start("client", "127.0.0.1", port, "-q", "-u", "up", "-d", up, "--stay", "-c", "pub f*")
        assert "published" in uploader.stdout.readline()
        downloader = start("client", "127.0.0.1", port, "-q", "-u", "down", "-d", down)
        times_ms = []
        for number in range(count):
            start_s = time.perf_counter()
            print(f"get f{number}", file=downloader.stdin, flush=True)
            line = downloader.stdout.readline()
            times_ms.append((time.perf_counter() - start_s) * 1000)
            assert line == f"f{number} downloaded successfully\n", line
        # The first get includes the login.
        times_ms = times_ms[1:]
        print(f"1 KiB in a logged-in shell: {statistics.median(times_ms):.2f} ms median, {max(times_ms):.2f} ms longest")
        publisher = start("client", "127.0.0.1", port, "-q", "-u", "late", "-d", up)
        times_ms, whole_ms = [], []
        for number in range(count):
            (up / f"w{number}").write_bytes(os.urandom(1024))
            print(f"wait file w{number}", file=downloader.stdin, flush=True)
            # The subscription is there when the server has answered the next client's command.
            print("lap", file=publisher.stdin, flush=True)
            assert publisher.stdout.readline() == "2 active peers:\n"
            assert publisher.stdout.readline() + publisher.stdout.readline() == "down\nup\n"
            typed_s = time.perf_counter()
            print(f"pub w{number}", file=publisher.stdin, flush=True)
            line = publisher.stdout.readline()
            start_s = time.perf_counter()
            assert line == "File published successfully\n", line
            line = downloader.stdout.readline()
            end_s = time.perf_counter()
            times_ms.append((end_s - start_s) * 1000)
            whole_ms.append((end_s - typed_s) * 1000)
            assert line == f"w{number} is available\n", line
        print(f"wait file, from the result of pub: {statistics.median(times_ms):.2f} ms median, {max(times_ms):.2f} ms longest")
        print(f"wait file, from the typed pub: {statistics.median(whole_ms):.2f} ms median, {max(whole_ms):.2f} ms longest")
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()
