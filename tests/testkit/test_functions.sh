#!/usr/bin/env bash
# Tests what scripts/functions.sh says and returns when something fails; scripts/walkthrough.sh shows that it works.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/../../scripts/functions.sh"
trap 'fs_stop_all; rm -rf "$FS_DIR"' EXIT
FS_DIR=$(mktemp -d)

# TEXT COMMAND...: the command fails with one line that contains the text.
fails() {
    local text=$1 status=0 lines
    shift
    "$@" 2>"$FS_DIR/said" || status=$?
    mapfile -t lines <"$FS_DIR/said"
    [[ $status == 1 && ${#lines[@]} == 1 && ${lines[0]} == "fileshare: "*"$text"* ]] || {
        echo "$*: status $status, should say '$text', said: ${lines[*]}" >&2
        exit 1
    }
}

fails 'start the server first' fs_start_client hans
FS_CREDENTIALS=/nowhere/credentials.txt fails 'the server ended: server: cannot read the credentials' fs_start_server
fails 'the server ended: ' fs_start_server --ephemeral --log-level loud
fs_start_server --ephemeral
fails 'already running' fs_start_server
port=$FS_PORT

fs_start_client hans
fails 'hans is already running' fs_start_client hans
fails 'consists of letters' fs_start_client ../hans
fails 'hans should have printed: Welcome, hans!' fs_ask hans 'auth hans wrong' 'Welcome, hans!'
fs_ask hans 'auth hans falcon*solo' 'Welcome, hans!' 'Available commands are: get, lap, lpf, pub, sch, unp, xit'
fails 'hans does not print: vader is active (its last line: Timed out' fs_wait_peer hans vader 0
fails 'hans does not print: vader is active (its last line: Timed out' fs_wait_peer hans vader 0.5
fails 'hans does not print: never' fs_wait_line hans never 0
fails 'hans does not print: never' fs_wait_line hans never 0.5
fails 'hans prints nothing more' fs_next_line hans 0.01
fs_start_client vader -q -u vader -c nonsense
fails 'vader does not print: never' fs_wait_line vader never 600 # ends with the client
fails 'vader is not running' fs_say vader lap
! fs_stop_client vader
fails 'vader was not started' fs_stop_client vader

# What a client prints is kept for who reads late, however much it is.
for ((line = 0; line < 5000; line++)); do echo 'help pub'; done >"$FS_DIR/commands"
fs_start_client yoda -q -b "$FS_DIR/commands"
fs_start_client vader
fs_ask vader 'auth vader sithlord**' 'Welcome, vader!' 'Available commands are: get, lap, lpf, pub, sch, unp, xit'
fs_wait_peer hans vader
fs_next_line yoda
[[ -n $FS_LINE ]]
fs_stop_client yoda

# STATUS COMMAND...: the command returns this status.
returns() {
    local wanted=$1 status=0
    shift
    "$@" >/dev/null 2>&1 || status=$?
    [[ $status == "$wanted" ]] || {
        echo "$*: status $status, should be $wanted" >&2
        exit 1
    }
}

fs_start_job vader 'get --wait 60 note.txt'
download=$FS_JOB
fs_start_job vader 'wait peer leia 60'
forlorn=$FS_JOB
[[ $download != "$forlorn" ]]
returns 124 fs_wait_job vader "$forlorn" 0
echo hello >"$(fs_folder hans)/note.txt"
fs_ask hans 'pub note.txt' 'File published successfully'
fs_wait_line vader 'note.txt downloaded successfully'
fs_wait_job vader "$download"
returns 5 fs_wait_job vader 99
fs_cancel_job vader "$forlorn"
returns 5 fs_cancel_job vader "$forlorn"
fs_start_job vader 'get nothing'
returns 5 fs_wait_job vader "$FS_JOB"
FS_TIMEOUT=0.2 fails 'vader prints nothing more' fs_start_job vader lap

fs_kill_client vader
fs_wait_gone hans vader
fs_stop_server
fs_start_server --ephemeral
[[ $FS_PORT == "$port" ]]
pids=("${FS_PID[@]}" "$FS_SERVER_PID")
fs_stop_all
fs_stop_all
for pid in "${pids[@]}"; do ! kill -0 "$pid" 2>/dev/null; done
