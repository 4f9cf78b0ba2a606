# Shell functions that run a server and clients on loopback, for scripts and test harnesses. Source this file, from any
# folder:
#
#     . path/to/fileshare/scripts/functions.sh
#     trap fs_stop_all EXIT
#     fs_start_server                       # a free port, a fresh folder, the sample users
#     fs_start_client hans                  # a shell that waits for commands; its folder is "$(fs_folder hans)"
#     echo hello > "$(fs_folder hans)/note.txt"
#     fs_ask hans 'auth hans falcon*solo' 'Welcome, hans!'
#     fs_ask hans 'pub note.txt' 'File published successfully'
#     fs_start_client vader
#     fs_say vader 'auth vader sithlord**'
#     fs_wait_peer vader hans
#     fs_wait_available vader note.txt
#     fs_ask vader 'get note.txt' 'note.txt downloaded successfully'
#
# Optional settings, before sourcing:
#     FS_BIN          folder of the programs `server` and `client`; default: the folder of release builds
#     FS_DIR          folder for all files; default: a new one in ${TMPDIR:-/tmp}, removed by fs_stop_all
#     FS_CREDENTIALS  credentials file; default: the sample beside scripts/
#     FS_TIMEOUT      default timeout of the waiting functions, in seconds; default: 30
# Results:
#     FS_PORT         the server's UDP port        FS_SERVER_PID   its process id
#     FS_PID[NAME]    a client's process id        FS_JOB          number of the job started last
#     "$FS_DIR/NAME.out", "$FS_DIR/NAME.err", "$FS_DIR/server.err"    output of each
#
# Every function returns 0, or non-zero with one line on stderr. The functions work under `set -eu`, start only the two
# programs and `tail`, which passes on a client's output, and stop only processes they started. They wait for events and never
# poll. Needs bash 4.2 or later and GNU coreutils.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 402)); then
    echo "fileshare: scripts/functions.sh needs bash 4.2 or later" >&2
    return 1
fi

_fs_home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
: "${FS_BIN:=${CARGO_TARGET_DIR:-$_fs_home/target}/release}"
: "${FS_CREDENTIALS:=$_fs_home/credentials.txt}"
: "${FS_TIMEOUT:=${FS_PATIENCE:-30}}" # FS_PATIENCE: its former name
: "${FS_DIR:=}"
FS_PORT=
FS_SERVER_PID=
FS_JOB=
_fs_made_dir=
_fs_server_life=
# By client: the write end of its stdin, its output line by line, and a pipe that closes when it ends.
declare -gA FS_PID=() _fs_keyboard=() _fs_lines=() _fs_life=()

_fs_fail() {
    printf 'fileshare: %s\n' "$*" >&2
    return 1
}

_fs_prepare() {
    if [[ -z $FS_DIR ]]; then
        FS_DIR=$(mktemp -d "${TMPDIR:-/tmp}/fileshare.XXXXXX") || return
        _fs_made_dir=$FS_DIR
    fi
    local program
    for program in server client; do
        [[ -x $FS_BIN/$program ]] || _fs_fail "$FS_BIN/$program does not exist: run cargo build --release, or set FS_BIN" || return
    done
}

_fs_alive() {
    [[ -n $1 ]] && kill -0 "$1" 2>/dev/null
}

# FD PID: waits until the process at the other end of a pipe has ended; kills it after 10 seconds.
_fs_await_end() {
    local life=$1 line status=0
    # More than 128 is the timeout, 1 the end.
    IFS= read -r -t 10 -u "$life" line || status=$?
    ((status <= 128)) || kill -KILL "$2" 2>/dev/null || true
    exec {life}<&-
}

_fs_close_keyboards() {
    local fd
    for fd in "${_fs_keyboard[@]}"; do
        exec {fd}>&-
    done
}

# NAME COMMAND...: replaces this subshell with the command. History, cache and control sockets go to FS_DIR; pipes to other
# clients are closed.
_fs_become() {
    _fs_close_keyboards
    export XDG_STATE_HOME=$FS_DIR/.xdg/$1/state XDG_CACHE_HOME=$FS_DIR/.xdg/$1/cache XDG_RUNTIME_DIR=$FS_DIR/.xdg/run
    shift
    exec "$@"
}

# fs_start_server [OPTION...]: starts a server on a free port and waits until it is ready. Options are those of the
# server; without --ephemeral or --data, publications are stored in FS_DIR/fileshare.db.
fs_start_server() {
    _fs_prepare || return
    ! _fs_alive "$FS_SERVER_PID" || _fs_fail "the server is already running" || return
    local data=(--data "$FS_DIR/fileshare.db") port=${FS_PORT:-0} option
    for option in "$@"; do
        case $option in --data | --data=* | --ephemeral) data=() ;; esac
    done
    rm -f "$FS_DIR/server.ready"
    mkfifo -m 600 "$FS_DIR/server.ready" || return
    (_fs_become server "$FS_BIN/server" --credentials "$FS_CREDENTIALS" ${data[@]+"${data[@]}"} "$@" "$port") \
        </dev/null >"$FS_DIR/server.ready" 2>>"$FS_DIR/server.err" &
    FS_SERVER_PID=$!
    exec {_fs_server_life}<"$FS_DIR/server.ready"
    local line='' status=0
    IFS= read -r -t "$FS_TIMEOUT" -u "$_fs_server_life" line || status=$?
    if [[ $line != "listening on "*:* ]]; then
        local reason="the server does not become ready"
        ((status > 128)) || reason="the server ended: $(tail -n 1 "$FS_DIR/server.err")"
        fs_stop_server
        _fs_fail "$reason"
        return
    fi
    FS_PORT=${line##*:}
}

# fs_folder NAME: prints the shared folder of this client; creates it if necessary.
fs_folder() {
    _fs_prepare && mkdir -p "$FS_DIR/$1" && printf '%s\n' "$FS_DIR/$1"
}

# fs_start_client NAME [OPTION...]: starts a client in its own folder, ready for fs_say. Options are those of the client.
fs_start_client() {
    local name=$1 folder keyboard life lines
    shift
    [[ $name =~ ^[A-Za-z0-9_-]+$ ]] || _fs_fail "a client's name consists of letters, digits, _ and -" || return
    [[ -n $FS_PORT ]] || _fs_fail "start the server first" || return
    ! _fs_alive "${FS_PID[$name]:-}" || _fs_fail "$name is already running" || return
    folder=$(fs_folder "$name") || return
    rm -f "$FS_DIR/$name".{in,lines,life}
    mkfifo -m 600 "$FS_DIR/$name".{in,lines,life} || return
    : >"$FS_DIR/$name.out"
    # Open for both, so that neither end waits for the other.
    exec {keyboard}<>"$FS_DIR/$name.in"
    _fs_keyboard[$name]=$keyboard
    (
        exec {life}>"$FS_DIR/$name.life"
        _fs_become "$name" "$FS_BIN/client" 127.0.0.1 "$FS_PORT" --dir "$folder" "$@"
    ) <"$FS_DIR/$name.in" >>"$FS_DIR/$name.out" 2>>"$FS_DIR/$name.err" &
    FS_PID[$name]=$!
    exec {life}<"$FS_DIR/$name.life"
    # Passes lines on until the client has ended. The shell that waits here reaps `cat`; it would not reap the client while it
    # reads, and `tail` would take it for running.
    (
        _fs_close_keyboards
        cat <&"$life" &
        tail --pid $! -n +1 -f "$FS_DIR/$name.out" &
        wait
    ) </dev/null >"$FS_DIR/$name.lines" 2>/dev/null &
    exec {lines}<"$FS_DIR/$name.lines"
    _fs_life[$name]=$life
    _fs_lines[$name]=$lines
}

# fs_say NAME COMMAND: enters a command line at a client.
fs_say() {
    _fs_alive "${FS_PID[$1]:-}" || _fs_fail "$1 is not running" || return
    printf '%s\n' "$2" >&"${_fs_keyboard[$1]}"
}

# NAME SECONDS LINE [OTHER]: reads the client's output until one of the two lines; fails unless it is LINE.
_fs_await_line() {
    local seconds=${2%%.*} end line
    # The arithmetic knows whole numbers only, and takes one that begins with 0 as octal.
    end=$((SECONDS + 10#${seconds:-0} + 1))
    while ((SECONDS < end)) && IFS= read -r -t $((end - SECONDS)) -u "${_fs_lines[$1]}" line; do
        [[ $line != "$3" ]] || return 0
        [[ -z ${4:-} || $line != "$4" ]] || break
    done
    _fs_fail "$1 does not print: $3 (its last line: $(tail -n 1 "$FS_DIR/$1.out"); $(tail -n 1 "$FS_DIR/$1.err"))"
}

# fs_wait_line NAME LINE [SECONDS]: waits until the client prints exactly this line, after the last one waited for.
fs_wait_line() {
    _fs_await_line "$1" "${3:-$FS_TIMEOUT}" "$2"
}

# fs_next_line NAME [SECONDS]: waits for the client's next line and leaves it in FS_LINE.
fs_next_line() {
    IFS= read -r -t "${2:-$FS_TIMEOUT}" -u "${_fs_lines[$1]}" FS_LINE || _fs_fail "$1 prints nothing more"
}

# fs_ask NAME COMMAND LINE...: enters a command and checks that the client's next lines are these. FS_ECHO=1 prints both.
fs_ask() {
    local name=$1 command=$2 wanted
    shift 2
    [[ -z ${FS_ECHO:-} ]] || printf '%-6s> %s\n' "$name" "$command"
    fs_say "$name" "$command" || return
    for wanted in "$@"; do
        fs_next_line "$name" || return
        [[ -z ${FS_ECHO:-} ]] || printf '%-6s  %s\n' '' "$FS_LINE"
        [[ $FS_LINE == "$wanted" ]] || _fs_fail "$name should have printed: $wanted" || return
    done
}

# NAME WAIT LINE [SECONDS]: enters a wait and waits for its result.
_fs_wait() {
    local seconds=${4:-$FS_TIMEOUT}
    local whole=${seconds%%.*}
    # The client itself says that the time is over.
    fs_say "$1" "wait $2 $seconds" && _fs_await_line "$1" "$((10#${whole:-0} + 10))" "$3" 'Timed out'
}

# fs_attach USER [OPTION...]: runs commands in the running client of this user, as `client --attach` does; returns its exit
# status. Options are those of the client, such as -c 'get a'.
fs_attach() {
    (_fs_become "$1" "$FS_BIN/client" --attach -u "$@")
}

# fs_start_job NAME COMMAND: enters a `get`, a `pub` or a `wait` at a client that runs in the background, and leaves its number in
# FS_JOB. The client takes other commands meanwhile, and prints what the job prints.
fs_start_job() {
    fs_say "$1" "$2 &" || return
    while fs_next_line "$1"; do
        [[ ! $FS_LINE =~ ^\[([0-9]+)\]\  ]] || { FS_JOB=${BASH_REMATCH[1]} && return; }
    done
    return 1
}

# fs_wait_job USER NUMBER [SECONDS]: waits until the job of this user's client has ended; returns its exit status, or 124.
fs_wait_job() {
    fs_attach "$1" -q -c "wait $2 ${3:-$FS_TIMEOUT}"
}

# fs_cancel_job USER NUMBER: ends the job; returns the exit status of `cancel`.
fs_cancel_job() {
    fs_attach "$1" -q -c "cancel $2" >/dev/null
}

# fs_wait_peer NAME USER [SECONDS]: waits until the logged-in client sees this user active.
fs_wait_peer() {
    _fs_wait "$1" "peer $2" "$2 is active" "${@:3}"
}

# fs_wait_gone NAME USER [SECONDS]: waits until the logged-in client sees this user active no more.
fs_wait_gone() {
    _fs_wait "$1" "gone $2" "$2 is gone" "${@:3}"
}

# fs_wait_available NAME FILE [SECONDS]: waits until another active user shares this file with the logged-in client.
fs_wait_available() {
    _fs_wait "$1" "file '$2'" "$2 is available" "${@:3}"
}

# fs_wait_file NAME FILE [SECONDS]: waits until the complete file, which the client was told to `get`, is in its folder.
fs_wait_file() {
    [[ -e $FS_DIR/$1/$2 ]] || _fs_await_line "$1" "${3:-$FS_TIMEOUT}" "$2 downloaded successfully" "$2 download failed"
}

# NAME: closes the client's input, waits until it has ended, and forgets it. Returns its exit status.
_fs_end() {
    local keyboard=${_fs_keyboard[$1]:-} lines=${_fs_lines[$1]} pid=${FS_PID[$1]}
    [[ -z $keyboard ]] || exec {keyboard}>&-
    _fs_await_end "${_fs_life[$1]}" "$pid"
    exec {lines}<&-
    unset "_fs_keyboard[$1]" "_fs_lines[$1]" "_fs_life[$1]" "FS_PID[$1]"
    wait "$pid" 2>/dev/null
}

# fs_stop_client NAME: enters xit and waits for the exit; returns the client's exit status.
fs_stop_client() {
    local pid=${FS_PID[$1]:-}
    [[ -n $pid ]] || _fs_fail "$1 was not started" || return
    ! _fs_alive "$pid" || printf 'xit\n' >&"${_fs_keyboard[$1]}"
    _fs_end "$1"
}

# fs_kill_client NAME: kills the client with SIGKILL, like a crash.
fs_kill_client() {
    local pid=${FS_PID[$1]:-}
    [[ -n $pid ]] || _fs_fail "$1 was not started" || return
    kill -KILL "$pid" 2>/dev/null || true
    _fs_end "$1" || true
}

# fs_stop_server: stops the server with SIGTERM; FS_PORT is kept, so that fs_start_server reuses the port.
fs_stop_server() {
    local pid=$FS_SERVER_PID
    FS_SERVER_PID=
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    _fs_await_end "$_fs_server_life" "$pid"
    wait "$pid" 2>/dev/null || true
}

# fs_stop_all: stops every client and the server, and removes FS_DIR if it was created here. Safe to call twice.
fs_stop_all() {
    local name
    for name in "${!FS_PID[@]}"; do
        kill -TERM "${FS_PID[$name]}" 2>/dev/null || true
    done
    for name in "${!FS_PID[@]}"; do
        _fs_end "$name" || true
    done
    fs_stop_server
    FS_PORT=
    if [[ -n $_fs_made_dir ]]; then
        rm -rf -- "$_fs_made_dir"
        _fs_made_dir=
        FS_DIR=
    fi
}
