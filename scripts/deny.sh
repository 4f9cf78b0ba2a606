#!/usr/bin/env bash
# Checks licences, sources and duplicates of all dependencies against deny.toml. --advisories also checks for known
# vulnerabilities, which needs network access to https://github.com/RustSec/advisory-db. --advisories-offline uses the copy
# fetched last; docs/SECURITY.md describes how to copy it to a machine without network access.
# Needs cargo-deny: cargo install cargo-deny --locked
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
checks=(licenses sources bans)
options=(--locked)
case ${1:-} in
'') ;;
--advisories) checks+=(advisories) ;;
--advisories-offline)
    checks+=(advisories)
    options+=(--offline)
    ;;
*)
    echo "usage: scripts/deny.sh [--advisories|--advisories-offline]" >&2
    exit 2
    ;;
esac
if ! command -v cargo-deny >/dev/null; then
    echo "deny: cargo-deny is not installed: cargo install cargo-deny --locked" >&2
    exit 1
fi
exec cargo deny "${options[@]}" check "${checks[@]}"
