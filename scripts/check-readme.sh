#!/usr/bin/env bash
# Runs the first share of README.md as it is printed, in this checkout: at most five commands, after which the file is there.
#
#   scripts/check-readme.sh
#
# HOME is an empty folder. UDP port 12000 must be free.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

commands=$(sed -n '/^## First share$/,/^## /{/^```bash$/,/^```$/p}' README.md | sed '/^```/d')
count=$(grep -c . <<<"$commands")
((count >= 1 && count <= 5)) || { echo "check-readme: the first share has $count commands" >&2; exit 1; }

home=$(mktemp -d)
trap 'rm -rf -- "$home"' EXIT
export CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"
unset CARGO_TARGET_DIR FILESHARE_USER XDG_RUNTIME_DIR XDG_STATE_HOME XDG_CACHE_HOME
status=0
# What runs in the background ends with the commands.
HOME=$home bash -c "trap 'kill \$(jobs -p)' EXIT
$commands" >"$home/out" 2>"$home/err" </dev/null || status=$?
if ((status)) || ! grep -qx 'CLI.md downloaded successfully' "$home/out" || ! cmp docs/CLI.md "$home/hans/CLI.md"; then
    echo "check-readme: the first share failed with status $status:" >&2
    cat "$home/out" "$home/err" >&2
    exit 1
fi
echo "check-readme: the first share works as printed"
