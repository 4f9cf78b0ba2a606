#!/usr/bin/env python3
"""Prints the licence notices of the crates that the programs are linked with, each text once, from what cargo has downloaded for a
build. Fails if a crate has none. scripts/package.sh packages them.
"""

import json
import pathlib
import re
import subprocess
import sys

NOTICE = re.compile(r"(licen[sc]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    host = re.search("^host: (.*)$", run("rustc", "-vV"), re.MULTILINE)[1]
    tree = run("cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = run("cargo", "metadata", "--locked", "--offline", "--filter-platform", host, "--format-version", "1")
    users_of = {}
    for package in json.loads(metadata)["packages"]:
        if package["source"] is None or (package["name"], "v" + package["version"]) not in linked:
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        notices = sorted(path for path in folder.rglob("*") if NOTICE.match(path.name) and path.suffix != ".rs" and path.is_file())
        if not notices:
            sys.exit(f"licences: {package['name']} {package['version']} has no text of its licence, {package['license']}")
        for path in notices:
            user = f"{package['name']} {package['version']} ({package['license']}): {path.relative_to(folder)}"
            users_of.setdefault(path.read_text(errors="replace").strip(), []).append(user)
    for text, users in sorted(users_of.items(), key=lambda item: item[1]):
        print(*users, "", text, "", "-" * 80, "", sep="\n")


main()
