#!/usr/bin/env python3
"""Which changes of the sources no test notices: all mutants of cargo-mutants, in one build.

    scripts/mutants.py [--sample N[:PATH]]... [--except PATH]... [--seed S] [--with TEST]... [--only TEXT] [PATH...]
    scripts/mutants.py --again [--with TEST]... [--only TEXT] [PATH...]

Tries all mutants in PATH, files and folders of src; with --sample N:PATH so many of PATH, with --sample N of what is left, chosen by
--seed (default 1). Nothing is sampled in a PATH of --except. Tests are those of the library, with --only those whose name holds TEXT;
--with network adds those of tests/network, and so on. The order is random: Ctrl-C ends a run, and what was tried until then is a
sample. --again keeps what was found before, tries what has survived, and in PATH also what was not tried yet.

cargo-mutants says what the mutants are. Building each takes a minute, so all are written into a copy of the sources behind switches
(mutant_switches.py), and the environment variable MUTANT turns one on. Each test runs once to see which mutants it reaches; then
each mutant runs those tests alone, its own module's first, until one fails. A test that takes ten times as long as before, and 20 s
more, counts as failed. Prints a table by module; target/mutants/fates.tsv has the fate of each, survivors.txt what survived,
unviable.txt what does not compile in this form (most do not compile at all).

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
FOUND = ("killed", "hung")
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
    # Without lines, which change with every edit.
    same = collections.Counter()
    for mutant in mutants.values():
        text = mutant["file"] + ": " + mutant["name"].split(": ", 1)[1]
        same[text] += 1
        mutant["key"] = f"{text} #{same[text]}"
    chosen = {}
    for path in options.paths:
        chosen |= beneath(path, mutants)
    if options.again:
        fates = known_fates()
        chosen |= {n: m for n, m in mutants.items() if m["key"] in fates}
        return {n: m for n, m in chosen.items() if fates.get(m["key"]) not in FOUND}
    generator = random.Random(options.seed)
    mutants = {n: m for n, m in mutants.items() if not any(is_beneath(path, m) for path in options.excluded)}
    for sample in options.sample:
        count, _, path = sample.partition(":")
        rest = beneath(path or "src", {n: m for n, m in mutants.items() if n not in chosen})
        chosen |= {n: rest[n] for n in generator.sample(sorted(rest), min(int(count), len(rest)))}
    return chosen


def known_fates():
    """By key, of all runs since the last one without --again."""
    return dict(reversed(line.split("\t")) for line in (STATE / "fates.tsv").read_text().splitlines())


def beneath(path, mutants):
    return {n: m for n, m in mutants.items() if is_beneath(path, m)}


def is_beneath(path, mutant):
    return (mutant["file"] + "/").startswith(path.rstrip("/") + "/")


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


def traced(programs, only):
    """The seconds of each test whose name holds `only`, and the tests that reach each mutant."""
    tests = []
    for program in programs.values():
        text = subprocess.run([program, "--list", "--format", "terse"], cwd=TREE, check=True, capture_output=True, text=True).stdout
        ignored = subprocess.run([program, "--list", "--format", "terse", "--ignored"], cwd=TREE, check=True, capture_output=True, text=True).stdout
        names = [line.removesuffix(": test") for line in text.splitlines() if line.endswith(": test") and line not in ignored.splitlines()]
        tests += [Test(program, name) for name in names if only in name or program != programs.get("fileshare")]
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
    parser.add_argument("--except", dest="excluded", action="append", default=[], metavar="PATH")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--with", dest="tests", action="append", default=[], metavar="TEST")
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    environment()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.default_int_handler)
    mutants = listed(options)
    say(f"{len(mutants)} mutants")
    copy_tree()
    programs, left_out = build(mutants, options.tests)
    seconds, reaching = traced(programs, options.only)
    rest = [number for number in mutants if number not in left_out]
    random.Random(options.seed).shuffle(rest)
    (STATE / "unviable.txt").write_text("".join(mutants[n]["name"] + "\n" for n in sorted(left_out)))
    fates = {}

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool, open(STATE / "fates.tsv", "a" if options.again else "w") as log:
        running = {pool.submit(fate, number, mutants[number]["file"], reaching[number], seconds): number for number in rest}
        try:
            for done in concurrent.futures.as_completed(running):
                number = running[done]
                fates[number] = done.result()
                log.write(f"{fates[number]}\t{mutants[number]['key']}\n")
                log.flush()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    known = known_fates()
    survivors = [f"{key} ({what})\n" for key, what in sorted(known.items()) if what not in FOUND]
    (STATE / "survivors.txt").write_text("".join(survivors))
    say(f"tried {len(fates)} of {len(rest)}, {len(survivors)} survive of all; {len(left_out)} do not compile")
    report(known)
    if len(fates) < len(rest):
        sys.exit(130)


def report(fates):
    """`fates` by key."""
    table = collections.defaultdict(collections.Counter)
    for key, what in fates.items():
        table[key.split(": ")[0]][what] += 1
    say("\n| file | mutants | killed | hung | survived | not reached |\n|---|---|---|---|---|---|")
    total = collections.Counter()
    for file, counts in [*sorted(table.items()), ("all", sum(table.values(), total))]:
        say(f"| {file} | {counts.total()} | " + " | ".join(str(counts[what]) for what in ("killed", "hung", "survived", "not reached")) + " |")


if __name__ == "__main__":
    main()
