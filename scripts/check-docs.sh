#!/usr/bin/env bash
# Checks that the documents match the tree: every path, source file and test that they name exists. Prints what does not.
#
#   scripts/check-docs.sh
#
# Checked in README.md, CONTRIBUTING.md, SECURITY.md, docs/ and scripts/README.md:
#   - relative links
#   - `src/...`, `tests/...`, `scripts/...` and the like, and `name.rs`, in backticks
#   - tests in backticks: `server::core::logins::{one_test, another_test}`, `e2e::secrets`, `network::a_test`
set -euo pipefail
shopt -s nullglob
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

documents=(README.md CONTRIBUTING.md SECURITY.md docs/*.md scripts/README.md)
missing=0
report() { # DOCUMENT NAME
    printf '%s: %s does not exist\n' "$1" "$2" >&2
    missing=1
}

files=$(find src tests benches fuzz scripts -name target -prune -o -type f -print)
# "FILE:NAME" of every function in the sources and tests.
functions=$(grep -rEo --include='*.rs' '\bfn [a-z0-9_]+' src tests | sed 's/:fn /:/')

check_links() {
    local link
    while read -r link; do
        [[ $link == *://* || $link == '#'* ]] || [[ -e $(dirname -- "$1")/${link%%#*} ]] || report "$1" "$link"
    done < <(grep -oE '\]\([^)]+\)' "$1" | sed 's/^](//; s/)$//')
}

check_path() { # DOCUMENT PATH: a path of the repository, a pattern of paths, or the end of one
    local found
    case $2 in
    fuzz/corpus* | fuzz/artifacts* | target/*) return ;; # made by programs
    src/* | tests/* | docs/* | scripts/* | benches/* | fuzz/* | .ci/* | .github/*)
        # shellcheck disable=SC2206 # a pattern is meant to match
        found=($2)
        ((${#found[@]})) && [[ -e ${found[0]} ]] || report "$1" "$2"
        ;;
    *) grep -qE "(^|/)${2//./\\.}\$" <<<"$files" || report "$1" "$2" ;;
    esac
}

check_test() { # DOCUMENT PATH::TO::NAME
    local root pattern
    case $2 in
    e2e* | network* | journal* | durable* | threats* | server_program* | vectors* | schedules*) root=tests/ ;;
    *) root=src/ ;;
    esac
    # A module is a file or folder with its name, a test a function in a file of its module.
    pattern="^$root${2//::/.*}"
    grep -qE "$pattern(_tests)?(\.rs|/)" <<<"$files" && return
    [[ $2 == *::* ]] || { report "$1" "$2"; return; }
    pattern=${2%::*}
    grep -qE "^$root${pattern//::/.*}.*:${2##*::}\$" <<<"$functions" || report "$1" "$2"
}

for document in "${documents[@]}"; do
    check_links "$document"
    while read -r name; do
        case $name in
        src/* | tests/* | docs/* | scripts/* | benches/* | fuzz/* | .ci/* | .github/* | *.rs)
            [[ $name =~ ^[A-Za-z0-9_./*-]+$ ]] && check_path "$document" "$name"
            ;;
        common::* | client::* | server::* | e2e::* | network::* | journal::* | durable::* | threats::* | server_program::* | vectors::* | schedules::*)
            if [[ $name =~ ^([a-z0-9_:]+)::\{([a-z0-9_,\ ]+)\}$ ]]; then
                module=${BASH_REMATCH[1]}
                IFS=', ' read -ra tests <<<"${BASH_REMATCH[2]}"
                for test in "${tests[@]}"; do check_test "$document" "${module}::$test"; done
            elif [[ $name =~ ^[a-z0-9_:]+$ ]]; then
                check_test "$document" "$name"
            fi
            ;;
        esac
    done < <(grep -oE '`[^`]+`' "$document" | tr -d '`')
done
((!missing)) && echo "check-docs: everything that the documents name exists"
exit "$missing"
