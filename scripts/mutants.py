#!/usr/bin/env python3
"""Which changes of the sources no test notices: all mutants of cargo-mutants, in one build.

    scripts/mutants.py [--sample N[:PATH]]... [--seed S] [--with TEST]... [PATH...]
    scripts/mutants.py --again [--with TEST]...

Tries all mutants in PATH, files and folders of src; with --sample N:PATH so many of PATH, with --sample N of what is left, chosen by
--seed (default 1). Tests are those of the library; --with network adds those of tests/network, and so on. --again takes those that
survived the last time.

cargo-mutants says what the mutants are. Building each takes a minute, so all are written into a copy of the sources behind switches
(mutant_switches.py), and the environment variable MUTANT turns one on. Each test runs once to see which mutants it reaches; then
each mutant runs those tests alone, its own module's first, until one fails. A test that takes ten times as long as before, and 20 s
more, counts as failed. Prints a table by module; target/mutants/survivors.txt has what survived. Mutants that do not compile in this
form (most do not compile at all) are in target/mutants/unviable.txt.

Needs cargo-mutants; installs tree-sitter for Python in target/mutants. Minutes for a folder, about two hours for all.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STATE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutants"
TREE = STATE / "tree"
WORKERS = os.cpu_count()
# No mutant may fill the memory or the disk.
LIMITS = {resource.RLIMIT_DATA: 6 << 30, resource.RLIMIT_FSIZE: 16 << 30, resource.RLIMIT_CORE: 0}
# Nobody reads the backtraces; the build is a quarter shorter without them.
CARGO = os.environ | {"CARGO_TARGET_DIR": str(STATE / "build"), "CARGO_PROFILE_DEV_DEBUG": "0"}
# Chunks of this many seconds at first, then ever longer, run in one process.
FIRST_CHUNK = 0.2


def say(text):
    print(text, flush=True)


def environment():
    """Runs this script again with tree-sitter, and in a process namespace of its own: a mutant may send signals to anyone."""
    venv = STATE / "venv"
    STATE.mkdir(parents=True, exist_ok=True)
    if not (venv / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "-q", "install", "tree-sitter==0.26.*", "tree-sitter-rust==0.24.*"], check=True)
    if pathlib.Path(sys.prefix) != venv:
        sys.stdout.flush()
        isolated = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
        os.execvp("unshare", [*isolated, venv / "bin/python", "-B", *sys.argv])


def listed(options):
    """The mutants to try by number, in the order of the paths, then the sample; numbers do not depend on the options."""
    text = subprocess.run(["cargo", "mutants", "--list", "--json"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    # The programs' own files cannot reach the switches; they only call the library.
    mutants = {number: mutant for number, mutant in enumerate(json.loads(text)) if not mutant["file"].endswith("/main.rs")}
    if options.again:
        names = {line.rpartition(" (")[0] for line in (STATE / "survivors.txt").read_text().splitlines()}
        return {number: mutant for number, mutant in mutants.items() if mutant["name"] in names}
    chosen = {}
    for path in options.paths:
        chosen |= beneath(path, mutants)
    generator = random.Random(options.seed)
    for sample in options.sample:
        count, _, path = sample.partition(":")
        rest = beneath(path or "src", {n: m for n, m in mutants.items() if n not in chosen})
        chosen |= {n: rest[n] for n in generator.sample(sorted(rest), min(int(count), len(rest)))}
    return chosen


def beneath(path, mutants):
    return {n: m for n, m in mutants.items() if (m["file"] + "/").startswith(path.rstrip("/") + "/")}


def copy_tree():
    """A copy of what git tracks or would track; files that are the same keep their time, so that cargo builds little."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and not name.startswith("src/"):
            put(TREE / name, (ROOT / name).read_bytes())


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)
    path.chmod(0o755 if data.startswith(b"#!") else 0o644)


def build(mutants, tests):
    """Writes and builds the sources with switches; the test programs by name, and the mutants that have no place in them."""
    from mutant_switches import MODULE, switched, unviable

    left_out = {number for number, mutant in mutants.items() if mutant["genre"] == "StructField"}
    targets = ["--lib"] + [word for test in tests for word in ("--test", test)]
    count = max(mutants, default=0) + 1
    while True:
        texts = {}
        for source in sorted((ROOT / "src").rglob("*")):
            if not source.is_file():
                continue
            name, data = str(source.relative_to(ROOT)), source.read_bytes()
            own = {n: m for n, m in mutants.items() if m["file"] == name and n not in left_out}
            if own:
                text, without_place = switched(data, own)
                left_out |= without_place
                texts[name], data = text, text.encode()
            if name == "src/lib.rs":
                data += (MODULE % (count, count)).encode()
            put(TREE / name, data)
        command = ["cargo", "test", "--no-run", "--message-format", "json", *targets]
        run = subprocess.run(command, cwd=TREE, capture_output=True, text=True, env=CARGO)
        messages = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
        errors = [m["message"] for m in messages if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
        if run.returncode == 0:
            programs = {m["target"]["name"]: m["executable"] for m in messages if m.get("profile", {}).get("test") and m.get("executable")}
            return programs, left_out
        found, unknown = set(), []
        for error in errors:
            numbers = set()
            for span in sorted(error["spans"], key=lambda span: not span["is_primary"]):
                if span["file_name"] in texts and not numbers:
                    numbers = unviable(texts[span["file_name"]], span["byte_start"])
            found |= numbers
            if not numbers and error["spans"]:
                unknown.append(error["rendered"])
        say(f"{len(errors)} errors; {len(found - left_out)} mutants do not compile")
        if not found - left_out:
            sys.exit("\n".join(unknown) or run.stderr)
        left_out |= found


Test = collections.namedtuple("Test", "program name")


def run(program, names, env, deadline):
    """Runs tests in one process; whether they passed, and whether the deadline ended them."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        env = os.environ | env | {"TMPDIR": folder, "PROPTEST_MAX_SHRINK_ITERS": "0", "CARGO_MANIFEST_DIR": str(TREE)}
        command = [program, "--exact", "--test-threads", str(WORKERS), *names]
        process = subprocess.Popen(
            command, cwd=TREE, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=limit,
        )
        try:
            return process.wait(deadline) == 0, False
        except subprocess.TimeoutExpired:
            return False, True
        finally:
            # Also what it started.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def limit():
    for kind, most in LIMITS.items():
        resource.setrlimit(kind, (most, most))


def traced(programs):
    """The seconds of each test, and the tests that reach each mutant."""
    tests = []
    for program in programs.values():
        text = subprocess.run([program, "--list", "--format", "terse"], cwd=TREE, check=True, capture_output=True, text=True).stdout
        ignored = subprocess.run([program, "--list", "--format", "terse", "--ignored"], cwd=TREE, check=True, capture_output=True, text=True).stdout
        skipped = set(ignored.splitlines())
        tests += [Test(program, line.removesuffix(": test")) for line in text.splitlines() if line.endswith(": test") and line not in skipped]
    seconds, reaching, failed = {}, collections.defaultdict(list), []

    def trace(test):
        with tempfile.NamedTemporaryFile() as file:
            begin = time.monotonic()
            passed, _ = run(test.program, [test.name], {"MUTANT_TRACE": file.name}, 600)
            return test, time.monotonic() - begin, passed, {int(line) for line in pathlib.Path(file.name).read_text().split()}

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for test, taken, passed, reached in pool.map(trace, tests):
            if not passed:
                failed.append(test.name)
                continue
            seconds[test] = taken
            for number in reached:
                reaching[number].append(test)
    say(f"{len(seconds)} tests in {sum(seconds.values()):.0f} s" + (f"; these fail without a mutant: {', '.join(failed)}" if failed else ""))
    return seconds, reaching


def fate(number, file, tests, seconds):
    """`killed`, `hung`, `survived` or `not reached`."""
    if not tests:
        return "not reached"
    # Those of its own module most likely fail.
    module = "::".join(pathlib.Path(file).with_suffix("").parts[1:])
    waiting = sorted(tests, key=lambda test: (-len(os.path.commonprefix([module, test.name])), seconds[test]))
    most = FIRST_CHUNK
    while waiting:
        chunk, total = [], 0.0
        while waiting and waiting[0].program == (chunk or waiting)[0].program and (not chunk or total + seconds[waiting[0]] <= most):
            total += seconds[waiting[0]]
            chunk.append(waiting.pop(0))
        passed, late = run(chunk[0].program, [test.name for test in chunk], {"MUTANT": str(number)}, 20 + 10 * total)
        if late:
            return "hung"
        if not passed:
            return "killed"
        most *= 4
    return "survived"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--sample", action="append", default=[], metavar="N[:PATH]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--with", dest="tests", action="append", default=[], metavar="TEST")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    environment()
    mutants = listed(options)
    say(f"{len(mutants)} mutants")
    copy_tree()
    programs, left_out = build(mutants, options.tests)
    seconds, reaching = traced(programs)
    rest = [number for number in mutants if number not in left_out]
    fates = {}

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool, open(STATE / "fates.tsv", "w") as log:
        for number, what in zip(rest, pool.map(lambda number: fate(number, mutants[number]["file"], reaching[number], seconds), rest)):
            fates[number] = what
            log.write(f"{what}\t{mutants[number]['name']}\n")
            log.flush()
    report(mutants, fates, left_out)


def report(mutants, fates, left_out):
    table = collections.defaultdict(collections.Counter)
    for number, what in fates.items():
        table[str(pathlib.Path(mutants[number]["file"]))][what] += 1
    say("\n| file | mutants | killed | hung | survived | not reached |\n|---|---|---|---|---|---|")
    total = collections.Counter()
    for file, counts in [*sorted(table.items()), ("all", sum(table.values(), total))]:
        say(f"| {file} | {counts.total()} | " + " | ".join(str(counts[what]) for what in ("killed", "hung", "survived", "not reached")) + " |")
    survivors = [f"{mutants[n]['name']} ({what})" for n, what in fates.items() if what in ("survived", "not reached")]
    (STATE / "survivors.txt").write_text("".join(line + "\n" for line in survivors))
    (STATE / "unviable.txt").write_text("".join(mutants[n]["name"] + "\n" for n in sorted(left_out)))
    say(f"{len(survivors)} of {len(fates)} survive; {len(left_out)} do not compile")


if __name__ == "__main__":
    main()
