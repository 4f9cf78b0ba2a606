#!/usr/bin/env bash
# Checks at full length that no acknowledged change is ever lost; prints one line per check. Takes about half an hour on a
# quiet machine. Details are in the log whose path it prints.
#
#   scripts/durability.sh [CHECK...]        all checks, or these: kill disk full power network resume start publish control
#
# `full` mounts a small file system and needs root; `power` and a part of `control` need strace.
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
log=${FILESHARE_DURABILITY_LOG:-$(mktemp -t fileshare-durability-XXXXXX.log)}
: >>"$log"
echo "details: $log"
failed=0

# check NAME WHAT COMMAND...: runs a command; prints its result and the relevant lines of its output.
check() {
    local name=$1 what=$2 from
    shift 2
    from=$(($(wc -l <"$log") + 1))
    if "$@" >>"$log" 2>&1; then
        printf 'ok      %s: %s\n' "$name" "$what"
    else
        printf 'FAILED  %s: %s\n' "$name" "$what"
        failed=1
    fi
    tail -n "+$from" "$log" | grep -E '^(FILESHARE_TEST_SEED|[0-9]+ rounds|[0-9]+ peer-hours|(start|of it|memory|search index|publish|the server used|bare|login|resume|round|heartbeat|heartbeats|sealing|lap|sch|a slow disk)[: ])' | sed 's/^/        /'
}

# A real full disk: a file system of 4 MiB.
# shellcheck disable=SC2317 # called by name
full_disk() {
    local folder status
    folder=$(mktemp -d)
    mount -t tmpfs -o size=4m fileshare-small "$folder" || return 1
    FILESHARE_TEST_SMALL_FOLDER=$folder \
        cargo test --test durable -- --ignored --exact disk::a_full_disk_stops_the_server_and_loses_nothing --nocapture
    status=$?
    umount "$folder" && rmdir "$folder"
    return "$status"
}

run() {
    case $1 in
    kill)
        check kill "the server is killed ${KILL_ROUNDS:-500} times at random moments" \
            env "FILESHARE_TEST_KILL_ROUNDS=${KILL_ROUNDS:-500}" cargo test --test durable kill:: -- --nocapture
        check kill "the journal's process is killed ${KILL_ROUNDS:-500} times at random moments" \
            env "FILESHARE_TEST_KILL_ROUNDS=${KILL_ROUNDS:-500}" cargo test --test journal kill -- --nocapture
        ;;
    disk)
        check disk "a slow disk, a failing write, a file that cannot grow, an administrator, restarts under a shell" \
            cargo test --test durable -- --skip kill::
        ;;
    full) check full "a full file system stops the server; it starts again when there is space" full_disk ;;
    power)
        check power "the power is cut ${POWER_ROUNDS:-200} times" \
            env "FILESHARE_TEST_KILL_ROUNDS=${POWER_ROUNDS:-200}" cargo test --test journal power_cut -- --ignored --nocapture
        ;;
    network)
        check network "random restarts in the virtual-time network, ${SEEDS:-1000} seeds" \
            env "FILESHARE_SEEDS=${SEEDS:-1000}" cargo test --release --test network restarts -- --nocapture
        ;;
    start | publish | resume | control) check "$1" "measured" cargo bench --bench "$1" ;;
    *)
        echo "no such check: $1" >&2
        exit 2
        ;;
    esac
}

if [ $# -eq 0 ]; then
    set -- kill disk full power network resume start publish control
fi
for name in "$@"; do
    run "$name"
done
exit $failed
