#!/usr/bin/env python3
"""Measures how the cost of `get` grows with the size of a file, with the number of files and with the number of sources, between
logged-in clients over loopback: from the command line to its last result line, medians of interleaved rounds. Beside it `cp`
of the same files, and the sources with a limited rate each, as they have on a network.

    scripts/bench-scaling.py [--rounds N] [--largest-mib N] [--dir DIR]

Uses the programs in FS_BIN or target/release (cargo build --release). With FILESHARE_BENCH_CSV, the name of a folder, appends
rows to size.csv, count.csv and sources.csv there. All processes listen on 127.0.0.1 and end with the script.
"""

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
programs = Path(os.environ.get("FS_BIN") or Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release")
SOURCES = [1, 2, 4, 8]
SOURCE_RATE_MIB = 25
SOURCE_FILE_MIB = 64


class Client:
    """A logged-in client with its folder."""

    def __init__(self, stack, port, folder, user, options=(), before="lap"):
        self.dir = folder / user
        self.dir.mkdir(exist_ok=True)
        state = folder / f"{user}-state"
        own = dict.fromkeys(("XDG_CACHE_HOME", "XDG_STATE_HOME"), state)
        environment = dict(os.environ, FILESHARE_PASSWORD="pw", XDG_RUNTIME_DIR=str(folder), **own)
        command = [programs / "client", "127.0.0.1", port, "-q", "-u", user, "-d", self.dir, "--on-exists", "overwrite", *options]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        self.process = subprocess.Popen(command, env=environment, **pipes)
        stack.callback(self.process.wait)
        stack.callback(self.process.stdin.close)

    def lines(self, command, count):
        """The first lines that the command prints, and the seconds until they were there."""
        start_s = time.perf_counter()
        print(command, file=self.process.stdin, flush=True)
        lines = [self.process.stdout.readline() for _ in range(count)]
        return lines, time.perf_counter() - start_s

    def publish(self, pattern):
        lines, _ = self.lines(f"pub {pattern}", 1)
        assert "published" in lines[0], lines

    def get(self, argument, count=1):
        """Downloads into an empty folder. Returns the seconds."""
        for entry in self.dir.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        lines, took_s = self.lines(f"get {argument}", count)
        assert all(line.endswith("downloaded successfully\n") for line in lines), lines
        return took_s


def write_random(path, size):
    with open(path, "wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(random.randbytes(min(size - at, 1 << 20)))


def record(figure, variant, x, value):
    folder = os.environ.get("FILESHARE_BENCH_CSV")
    if folder:
        path = Path(folder, f"{figure}.csv")
        is_new = not path.exists()
        with path.open("a") as file:
            if is_new:
                print("variant,x,value", file=file)
            print(f"{variant},{x},{value:.6g}", file=file)


def medians(rounds, runs):
    """Runs all of them in turn, once to warm up. Returns the median seconds of each by its name."""
    times = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            times[name].append(run())
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def copy(source, target):
    if target.exists():
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    start_s = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    return time.perf_counter() - start_s


def report(figure, unit, x, times):
    for name, seconds in times.items():
        print(f"{unit(x):>12} {name:14} {seconds * 1e3:10.2f} ms", flush=True)
        record(figure, name, x, seconds)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest-mib", type=int, default=2048)
    parser.add_argument("--dir", default=tempfile.gettempdir())
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.dir)))
        measure(stack, folder, options)


def measure(stack, folder, options):
    users = ["up", "down", "tcp", "few", *(f"source{number}" for number in range(max(SOURCES)))]
    credentials = folder / "credentials.txt"
    credentials.write_text("".join(f"{user} pw\n" for user in users))
    credentials.chmod(0o600)
    command = [programs / "server", "0", "--ephemeral", "--credentials", credentials, "--log-level", "error"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(server.wait)
    stack.callback(server.terminate)
    port = server.stdout.readline().strip().rsplit(":", 1)[1]
    start = lambda user, options=(): Client(stack, port, folder, user, options)

    up, clients = start("up"), {"get": start("down"), "get --tcp-only": start("tcp", ["--tcp-only"])}

    print("the size of a file:")
    size = 1 << 10
    while size <= options.largest_mib << 20:
        write_random(up.dir / "file", size)
        up.publish("file")
        runs = {name: lambda client=client: client.get("file") for name, client in clients.items()}
        runs["cp"] = lambda: copy(up.dir / "file", folder / "copy")
        report("size", lambda x: f"{x >> 10} KiB", size, medians(options.rounds, runs))
        size *= 8

    print("the number of files of 4 KiB:")
    for count in (1, 10, 100, 1_000, 10_000):
        name = f"files{count}"
        (up.dir / name).mkdir()
        for number in range(count):
            write_random(up.dir / name / f"{number}", 4 << 10)
        up.publish(name)
        runs = {kind: lambda client=client: client.get(f"{name}/", count) for kind, client in clients.items()}
        runs["cp -r"] = lambda: copy(up.dir / name, folder / "copies")
        report("count", str, count, medians(options.rounds, runs))

    print(f"the number of sources, each limited to {SOURCE_RATE_MIB} MiB a second, of {SOURCE_FILE_MIB} MiB:")
    few = start("few", ["--tcp-only"])
    write_random(folder / "shared", SOURCE_FILE_MIB << 20)
    for number in range(max(SOURCES)):
        source = start(f"source{number}", ["--limit-rate", f"{SOURCE_RATE_MIB}M"])
        shutil.copy(folder / "shared", source.dir / "shared")
        source.publish("shared")
        if number + 1 in SOURCES:
            report("sources", str, number + 1, medians(options.rounds, {"get": lambda: few.get("shared")}))


main()
