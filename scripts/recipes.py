#!/usr/bin/env python3
"""Runs every recipe of docs/SCRIPTING.md as it is printed.

    scripts/recipes.py [--list] [--keep] [TITLE...]     all recipes, or those whose title contains one of the texts

A recipe is a section with code. It runs in an empty folder, which is also its HOME, after the block marked `setup`:

  - a block whose first line names a file (`# FILE`) is saved under that name;
  - `bash` blocks run, one after the other, in one shell; what they print must be the `text` block of the section, or nothing;
  - `crontab` blocks: the command of each line runs as cron would run it, after the shell;
  - `rust` blocks are tests of the library's documentation: `cargo test --doc` runs them.

The programs are those in FS_BIN, or in target/release. Exits with 1 if a recipe fails, or needs a program that is missing.
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "SCRIPTING.md"
# Longest time of one recipe, seconds.
TIMEOUT = 60
# Recipes that run at the same time.
PARALLEL = 4
FENCE = re.compile(r"^```(.*)$")
FILE_NAME = re.compile(r"^# ([\w.-]+\.[\w.-]+|crontab)$")
# Minute, hour, day, month, weekday; then the command.
CRONTAB = re.compile(r"^(?:\S+\s+){5}(.*)$")


class Recipe:
    def __init__(self, title):
        self.title = title
        self.scripts, self.files, self.crontabs, self.rust = [], {}, [], []
        self.expected = ""

    def runs(self):
        return bool(self.scripts or self.crontabs)

    def add(self, kind, lines):
        text = "".join(line + "\n" for line in lines)
        name = FILE_NAME.match(lines[0]) if lines else None
        if kind == "text":
            self.expected += text
        elif kind == "rust":
            self.rust.append(text)
        elif name:
            self.files[name.group(1)] = text
            if kind == "crontab":
                self.crontabs.append(text)
        elif kind == "bash":
            self.scripts.append(text)
        elif kind == "crontab":
            self.crontabs.append(text)
        else:
            raise SystemExit("recipes: %s: a block of kind %r is not run by anything" % (self.title, kind))


def parse(document):
    """The setup script and the recipes."""
    setup, recipes, recipe, kind, lines = None, [], Recipe("introduction"), None, []
    for line in document.splitlines():
        fence = FENCE.match(line)
        if kind is None and line.startswith("## "):
            recipe = Recipe(line[3:])
            recipes.append(recipe)
        elif fence and kind is None:
            kind, lines = fence.group(1).strip(), []
        elif fence:
            if kind == "bash setup":
                setup = "".join(line + "\n" for line in lines)
            else:
                recipe.add(kind, lines)
            kind = None
        elif kind is not None:
            lines.append(line)
    if kind is not None or setup is None:
        raise SystemExit("recipes: a block is not closed, or no block is marked `setup`")
    return setup, [recipe for recipe in recipes if recipe.runs() or recipe.rust]


def prepare(folder, recipe):
    """The folder's programs and files; returns the environment."""
    programs = folder / ".local" / "bin"
    programs.mkdir(parents=True)
    source = pathlib.Path(os.environ.get("FS_BIN") or ROOT / "target" / "release").resolve()
    for name in ("server", "client"):
        if not (source / name).exists():
            raise SystemExit("recipes: %s does not exist: cargo build --release, or set FS_BIN" % (source / name))
        (programs / name).symlink_to(source / name)
    for name, text in recipe.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    runtime = folder / ".run"
    runtime.mkdir(mode=0o700)
    return {
        "HOME": str(folder),
        "PATH": "%s:%s" % (programs, os.environ["PATH"]),
        "LANG": "C.UTF-8",
        "LOGNAME": "nobody",
        "TMPDIR": str(folder),
        "XDG_RUNTIME_DIR": str(runtime),
        "FILESHARE": str(ROOT),
        "FS_BIN": str(source),
    }


def execute(argv, folder, environment):
    """Status (124: the time is over) and output. Ends everything that the command has left running."""
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    process = subprocess.Popen(
        argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )
    try:
        status = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        status = 124
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    texts = []
    for file in (out, err):
        file.seek(0)
        texts.append(file.read().decode(errors="replace"))
    return (status, *texts)


def run(setup, recipe):
    """What is wrong with it; nothing: it works."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fs-recipe-"))
    try:
        environment = prepare(folder, recipe)
        script = setup + "".join(recipe.scripts)
        # As cron runs it: in the home folder, with hardly an environment, while the setup's server runs.
        for text in recipe.crontabs:
            for line in text.splitlines():
                job = CRONTAB.match(line)
                if job and not line.startswith("#"):
                    (folder / ".cron").write_text(job.group(1), encoding="utf-8")
                    script += 'env -i HOME="$HOME" LOGNAME="$LOGNAME" PATH=/usr/bin:/bin sh -c "$(<.cron)"\n'
        (folder / ".recipe").write_text(script, encoding="utf-8")
        status, out, err = execute(["bash", ".recipe"], folder, environment)
    finally:
        if "--keep" in sys.argv:
            print("kept: %s" % folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    wrong = []
    if status != 0:
        wrong.append("exit status %d" % status)
    if out != recipe.expected:
        wrong.append("it should print:\n%sit printed:\n%s" % (recipe.expected, out))
    if wrong and err:
        wrong.append("on stderr:\n%s" % err)
    return "\n".join(wrong)


def main():
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    setup, recipes = parse(DOCUMENT.read_text(encoding="utf-8"))
    recipes = [recipe for recipe in recipes if not wanted or any(text in recipe.title for text in wanted)]
    if "--list" in sys.argv:
        for recipe in recipes:
            print(recipe.title)
        return
    failed = False
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        runs = [(recipe, pool.submit(run, setup, recipe)) for recipe in recipes if recipe.runs()]
        for recipe, result in runs:
            wrong = result.result()
            failed = failed or bool(wrong)
            print("%s %s" % ("FAILED " if wrong else "ok     ", recipe.title), flush=True)
            if wrong:
                print("        " + wrong.rstrip("\n").replace("\n", "\n        "))
    sys.exit(1 if failed else 0)


main()
