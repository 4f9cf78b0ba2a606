#!/usr/bin/env bash
# Licences, sources and duplicates of all dependencies, by deny.toml. With --advisories, their known vulnerabilities too:
# that needs the network, to fetch https://github.com/RustSec/advisory-db. With --advisories-offline, by the copy that was
# fetched last; docs/SECURITY.md says how to bring one to a machine without the network.
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
    echo "deny: cargo-deny is not there; cargo install cargo-deny --locked" >&2
    exit 1
fi
exec cargo deny "${options[@]}" check "${checks[@]}"
