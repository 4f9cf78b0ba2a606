#!/usr/bin/env bash
# Transfers under failures and load, with real processes on loopback. Prints one line with the result of each check:
#
#   scripts/acceptance-transfers.sh [--times N] [--mib N] [--rounds N] [--no-build] [kill] [eight] [memory] [names]
#
#   kill     SIGKILL at --times (20) random moments of a transfer of --mib (256) MiB, to the downloader or an uploader, with
#            one source and with two: the next `get`, or the running one, finishes, the content is correct, and at most
#            one chunk group per source is transferred again
#   eight    --times (20) times a `get` of --mib (128) MiB from eight sources at once, which take over chunk groups from
#            each other: the content is correct every time
#   memory   one `get` of --mib (1024) MiB from eight sources at once, and one source serving eight `get`s at once: every
#            client below 64 MiB of memory
#   names    `get` of a file of 1 KiB and of a folder of 100 small ones, from a server with 1,000,000 published names whose
#            owners are online and from an otherwise empty server: the ratio of the medians of --rounds (200)
#
# Builds first; with --no-build, uses the programs in FS_BIN or target/release. Exits with 1 if a check fails.
# Needs python3 for kill, cargo for names; 11 times --mib of disk space in ${TMPDIR:-/tmp} for memory.
set -euo pipefail

times=20 mib='' rounds=200 build=1 parts=()
while (($#)); do
    case $1 in
        --times) times=$2; shift 2 ;;
        --mib) mib=$2; shift 2 ;;
        --rounds) rounds=$2; shift 2 ;;
        --no-build) build=0; shift ;;
        kill | eight | memory | names) parts+=("$1"); shift ;;
        *) sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
    esac
done
((${#parts[@]})) || parts=(kill eight memory names)

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
((!build)) || cargo build --release --locked --quiet --bins --manifest-path "$home/Cargo.toml"
# shellcheck source=scripts/functions.sh
. "$home/scripts/functions.sh"
_fs_prepare
getter='' load=''
cleanup() {
    local pid
    for pid in $getter $load; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    fs_stop_all
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

status=0
fail() {
    printf 'acceptance-transfers: %s\n' "$*" >&2
    exit 1
}
# WHAT STATUS FIGURES: prints the result of a check; 0 is success.
report() {
    local result=passed
    (($2 == 0)) || { result=FAILED; status=1; }
    printf '%s: %s: %s\n' "$1" "$3" "$result"
}
# TEXT: appends details of a kill to the file FS_TRACE, if set.
trace() { [[ -z ${FS_TRACE:-} ]] || echo "$*" >>"$FS_TRACE"; }

# Every user's password is "pw".
credentials() {
    umask 077
    FS_CREDENTIALS=$FS_DIR/credentials.txt
    printf '%s pw\n' "$@" >"$FS_CREDENTIALS"
    export FILESHARE_PASSWORD=pw
}
# NAME...: stops these clients by SIGTERM, since with -c they do not read commands.
stop_clients() {
    local name
    for name in "$@"; do
        kill -TERM "${FS_PID[$name]}"
        _fs_end "$name" || true
    done
}
# NAME [OPTION...]: starts a client that publishes its `big`, and waits for that.
serve() {
    local name=$1
    shift
    fs_start_client "$name" -q -u "$name" -c 'pub big' --stay "$@"
    fs_wait_line "$name" 'File published successfully' 120
}

# ---- kill

group=1048576
getter_dir='' received=0 found=0 kept=0

# Starts a `get` of `big` as `down`; its log goes to get.err.
start_get() {
    (_fs_become down "$FS_BIN/client" 127.0.0.1 "$FS_PORT" -q -v -u down -d "$getter_dir" "$@" -c 'get big') \
        </dev/null >"$FS_DIR/get.out" 2>"$FS_DIR/get.err" &
    getter=$!
}
# Waits for its exit and returns its status. Sets `received` to the bytes sent by all sources,
# and `found` to the verified bytes found in the partial file.
end_get() {
    local code=0
    wait "$getter" || code=$?
    getter=''
    tail=$(grep -v "DEBUG\] .* received" "$FS_DIR/get.err" | tail -n 5)
    received=0 found=0
    if [[ $(<"$FS_DIR/get.err") =~ received\ ([0-9]+)\ bytes,\ found\ ([0-9]+) ]]; then
        received=${BASH_REMATCH[1]} found=${BASH_REMATCH[2]}
    fi
    return "$code"
}
kill_getter() {
    kill -KILL "$getter" 2>/dev/null || true
    wait "$getter" 2>/dev/null || true
    getter=''
}
# Sets `kept` to the number of bytes in the partial file: all pages that equal those of the original.
inspect_partial_file() {
    kept=$(python3 - "$FS_DIR/big" "$getter_dir" <<'PYTHON'
import glob, os, sys
PAGE = 4096
parts = glob.glob(os.path.join(sys.argv[2], ".*.part"))
kept = os.path.getsize(sys.argv[1]) if os.path.exists(os.path.join(sys.argv[2], "big")) else 0
if parts:
    with open(sys.argv[1], "rb") as original, open(parts[0], "rb") as part:
        while there := part.read(256 * PAGE):
            wanted = original.read(len(there))
            if there == wanted:
                kept += len(there)
            elif there.count(0) != len(there):
                kept += sum(
                    len(there[at : at + PAGE])
                    for at in range(0, len(there), PAGE)
                    if there[at : at + PAGE] == wanted[at : at + PAGE]
                )
print(kept)
PYTHON
    )
}
check_content() {
    cmp -- "$FS_DIR/big" "$getter_dir/big" || fail "$1: the content differs"
    [[ -z $(find "$getter_dir" -name '.*') ]] || fail "$1: files are left over: $(ls -A "$getter_dir")"
}
fresh_getter() {
    rm -rf "$getter_dir"
    mkdir "$getter_dir"
}
# Sleeps until a random moment of slice $1 of `times` of the time that a whole `get` takes.
sleep_until_moment() {
    local at=$(((span_us * $1 + span_us * RANDOM / 32768) / times))
    sleep "$((at / 1000000)).$(printf '%06d' $((at % 1000000)))"
}
# NAME...: starts these sources, with rate limits that make a transfer last about 1.5 s, and times one.
with_sources() {
    local name
    stop_clients "${!FS_PID[@]}"
    rate=$((size * 2 / 3 / $#))
    for name in "$@"; do serve "$name" --limit-rate "$rate"; done
    fresh_getter
    local begun
    begun=${EPOCHREALTIME/[.,]/}
    start_get
    end_get || fail "an undisturbed get fails: $(tail -n 1 "$FS_DIR/get.err")"
    span_us=$((${EPOCHREALTIME/[.,]/} - begun))
    check_content undisturbed
    ((received >= size)) || fail "the log does not have the received bytes"
}
# Runs `get` after a kill. Sets `most` to the bytes transferred again, if they exceed it.
get_the_rest() {
    local missing=$((size - kept)) again
    start_get
    end_get || fail "get after the kill: $(tail -n 1 "$FS_DIR/get.err")"
    check_content "after kill $((round + 1))"
    again=$((received - missing))
    trace "$again again: $received received, $missing missing, $kept kept, $found found"
    ((again <= most)) || most=$again
}
# Kills the downloader, then runs the same `get` again.
kill_downloader() {
    local round most=0 hit=0
    with_sources "$@"
    for ((round = 0; round < times; round++)); do
        fresh_getter
        start_get
        sleep_until_moment "$round"
        kill_getter
        inspect_partial_file
        ((kept == 0 || kept == size)) || hit=$((hit + 1))
        get_the_rest
    done
    report_kills "downloader killed, $# source(s), get again" $# "$most" "$hit"
}
# Kills an uploader, which restarts, or another one continues; the running `get` finishes.
kill_uploader_survived() {
    local round again most=0 hit=0 victim=$1
    with_sources "$@"
    for ((round = 0; round < times; round++)); do
        fresh_getter
        start_get
        sleep_until_moment "$round"
        ! _fs_alive "$getter" || hit=$((hit + 1))
        fs_kill_client "$victim"
        (($# > 1)) || serve "$victim" --limit-rate "$rate"
        end_get || fail "get while its source was killed: $tail"
        check_content "kill $((round + 1))"
        again=$((received - size))
        ((again <= most)) || most=$again
        (($# == 1)) || serve "$victim" --limit-rate "$rate"
    done
    report_kills "uploader killed, $# source(s), the get continues" $# "$most" "$hit"
}
# Kills all uploaders, and the `get` fails; they restart and publish again, and a new `get` runs.
kill_uploader_again() {
    local round name code most=0 hit=0
    with_sources "$@"
    for ((round = 0; round < times; round++)); do
        fresh_getter
        start_get --retry-for 0
        sleep_until_moment "$round"
        for name in "$@"; do fs_kill_client "$name"; done
        code=0
        end_get || code=$?
        inspect_partial_file
        case $code in
            0) ((kept == size)) || fail "a get without sources claims success" ;;
            6) ((kept == 0)) || hit=$((hit + 1)) ;;
            5) ((kept == 0)) || fail "exit 5 with a part" ;; # no source requested yet
            *) fail "a get whose sources were killed ends with $code: $(tail -n 1 "$FS_DIR/get.err")" ;;
        esac
        for name in "$@"; do serve "$name" --limit-rate "$rate"; done
        get_the_rest
    done
    report_kills "uploader killed, $# source(s), get again" $# "$most" "$hit"
}
# WHAT SOURCES BYTES HITS: a kill outside a transfer shows little, so at least half must have hit one.
report_kills() {
    local failed=0
    (($3 <= $2 * group && $4 * 2 >= times)) || failed=1
    report "$1" "$failed" "$(awk -v again="$3" -v group="$group" -v allowed="$2" -v hit="$4" -v times="$times" 'BEGIN {
        printf "%d kills, %d of them during the transfer; content correct; at most %.2f chunk groups transferred again, %d allowed",
            times, hit, again / group, allowed }')"
}
part_kill() {
    size=$((${mib:-256} * group))
    credentials one two down
    fs_start_server --ephemeral --heartbeat 0.2 --liveness 0.6
    getter_dir=$FS_DIR/down
    head -c "$size" /dev/urandom >"$FS_DIR/big"
    ln "$FS_DIR/big" "$(fs_folder one)/big"
    ln "$FS_DIR/big" "$(fs_folder two)/big"
    kill_downloader one
    kill_downloader one two
    kill_uploader_survived one
    kill_uploader_survived one two
    kill_uploader_again one
    kill_uploader_again one two
    fs_stop_all
}

# ---- eight sources

eight=(up1 up2 up3 up4 up5 up6 up7 up8)
# MIB: makes a file of this size and starts eight clients that publish it.
serve_by_eight() {
    local name
    fs_start_server --ephemeral
    head -c "$1M" /dev/urandom >"$FS_DIR/big"
    for name in "${eight[@]}"; do
        ln "$FS_DIR/big" "$(fs_folder "$name")/big"
        serve "$name"
    done
}
part_eight() {
    local round wrong=0
    credentials "${eight[@]}" down
    serve_by_eight "${mib:-128}"
    fs_start_client down -q -u down
    for ((round = 0; round < times; round++)); do
        fs_say down 'get big'
        fs_wait_line down 'big downloaded successfully' 120
        cmp -s -- "$FS_DIR/big" "$FS_DIR/down/big" || wrong=$((wrong + 1))
        rm "$FS_DIR/down/big"
    done
    report 'eight sources at once' "$((wrong > 0))" "$times times ${mib:-128} MiB; wrong content $wrong times"
    fs_stop_all
}

# ---- memory

peak_kib() {
    awk '/^VmHWM:/ { print $2 }' "/proc/$1/status"
}
# PID: the bytes a process has read from files and pipes.
bytes_read() {
    awk '/^rchar:/ { print $2 }' "/proc/$1/io"
}
# NAME...: the largest peak memory of these clients, KiB.
largest_peak() {
    local name kib most=0
    for name in "$@"; do
        kib=$(peak_kib "${FS_PID[$name]}")
        ((kib <= most)) || most=$kib
    done
    echo "$most"
}
report_memory() {
    local failed=0
    (($2 < 64 * 1024)) || failed=1
    report "$1" "$failed" "$2 KiB at most, of 65536"
}
part_memory() {
    local size=$((${mib:-1024} * group)) name least share before=() up=("${eight[@]}") down=()
    down=(down1 down2 down3 down4 down5 down6 down7 down8)
    credentials "${up[@]}" "${down[@]}" down
    serve_by_eight "${mib:-1024}"
    for name in "${up[@]}"; do before+=("$(bytes_read "${FS_PID[$name]}")"); done
    fs_start_client down -q -u down -c 'get big' --stay
    fs_wait_line down 'big downloaded successfully' 600
    cmp -- "$FS_DIR/big" "$FS_DIR/down/big" || fail "memory: the content differs"
    least=$size
    for name in "${!up[@]}"; do
        share=$(($(bytes_read "${FS_PID[${up[name]}]}") - before[name]))
        ((share >= least)) || least=$share
    done
    ((least > size / 40)) || fail "memory: one of the eight sources sent only $least bytes"
    report_memory "memory, downloader from eight sources" "$(largest_peak down)"
    report_memory "memory, each of eight sources" "$(largest_peak "${up[@]}")"
    stop_clients "${up[@]:1}" down
    rm "$FS_DIR/down/big"
    for name in "${down[@]}"; do fs_start_client "$name" -q -u "$name" -c 'get big' --stay; done
    for name in "${down[@]}"; do
        fs_wait_line "$name" 'big downloaded successfully' 600
        cmp -- "$FS_DIR/big" "$FS_DIR/$name/big" || fail "memory: the content differs"
    done
    report_memory "memory, source of eight downloaders" "$(largest_peak up1)"
    report_memory "memory, each of eight downloaders" "$(largest_peak "${down[@]}")"
    fs_stop_all
}

# ---- names

median() { sort -g "$1" | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }

# SERVER: starts a source and a downloader at the server with port FS_PORT; the names are like those of the bench.
names_clients() {
    local folder at to from
    folder=$(fs_folder "source-$1")
    mkdir "$folder/reports 00999"
    head -c 1024 /dev/urandom >"$folder/report-0000000.pdf"
    for ((at = 0; at < 100; at++)); do
        head -c 1024 /dev/urandom >"$folder/reports 00999/report-$(printf '%07d' "$at").pdf"
    done
    FILESHARE_PASSWORD='falcon*solo' fs_start_client "source-$1" -q -u hans --stay -c 'pub *' -c "pub 'reports 00999/'"
    fs_wait_line "source-$1" '100 files published successfully'
    folder=$(fs_folder "getter-$1")
    mkfifo "$FS_DIR/$1.say" "$FS_DIR/$1.reply"
    (FILESHARE_PASSWORD='sithlord**' _fs_become "getter-$1" "$FS_BIN/client" 127.0.0.1 "$FS_PORT" -q -u vader -d "$folder") \
        <"$FS_DIR/$1.say" >"$FS_DIR/$1.reply" 2>"$FS_DIR/getter-$1.err" &
    getter+=" $!"
    exec {to}>"$FS_DIR/$1.say" {from}<"$FS_DIR/$1.reply"
    say[$1]=$to reply[$1]=$from
    # Processes started later close these too, so that the client sees the end of input when we close it.
    _fs_keyboard[say-$1]=$to _fs_keyboard[reply-$1]=$from
}
# SERVER NAME LINES: enters `get NAME` and appends the time until LINES result lines are printed.
timed_get() {
    local begun line at
    begun=${EPOCHREALTIME/[.,]/}
    printf "get '%s'\n" "$2" >&"${say[$1]}"
    for ((at = 0; at < $3; at++)); do
        read -r -t 60 -u "${reply[$1]}" line || fail "names: get prints nothing"
        [[ $line == *' downloaded successfully' ]] || fail "names: $line: $(tail -n 1 "$FS_DIR/getter-$1.err")"
    done
    ((round == 0)) || echo $((${EPOCHREALTIME/[.,]/} - begun)) >>"$FS_DIR/$1-$3.times"
    diff -r "$FS_DIR/source-$1/$2" "$FS_DIR/getter-$1/$2" || fail "names: the content differs"
    rm -r "${FS_DIR:?}/getter-$1/${2:?}"
}
part_names() {
    local round what full empty lines where keep failed order
    local -A say=() reply=()
    fs_start_server --ephemeral
    names_clients empty
    mkfifo "$FS_DIR/load.in"
    FILESHARE_BENCH_HOLD=1 cargo bench --quiet --manifest-path "$home/Cargo.toml" --bench names \
        <"$FS_DIR/load.in" >"$FS_DIR/load.out" 2>"$FS_DIR/load.err" &
    load=$!
    exec {keep}>"$FS_DIR/load.in"
    _fs_keyboard[load]=$keep
    timeout 900 grep -qm 1 '^listening on' < <(exec tail --pid "$load" -n +1 -f "$FS_DIR/load.out") || true
    FS_PORT=$(sed -n 's/^listening on .*://p' "$FS_DIR/load.out")
    [[ -n $FS_PORT ]] || fail "names: $(tail -n 1 "$FS_DIR/load.err")"
    names_clients full
    # The first round warms up.
    for ((round = 0; round <= rounds; round++)); do
        order=(full empty)
        ((round / 4 % 2)) || order=(empty full)
        for where in "${order[@]}"; do timed_get "$where" report-0000000.pdf 1; done
        ((round % 4)) || for where in "${order[@]}"; do timed_get "$where" 'reports 00999/' 100; done
    done
    for lines in 1 100; do
        what='a file of 1 KiB'
        ((lines == 1)) || what='a folder of 100'
        full=$(median "$FS_DIR/full-$lines.times") empty=$(median "$FS_DIR/empty-$lines.times")
        failed=0
        awk -v full="$full" -v empty="$empty" 'BEGIN { exit full > 1.2 * empty }' || failed=1
        report "names, $what" "$failed" "$(awk -v full="$full" -v empty="$empty" -v load="$(grep -o '^[0-9]* names' "$FS_DIR/load.out")" 'BEGIN {
            printf "%.2f ms among %s, %.2f ms alone, %.2f times", full / 1e3, load, empty / 1e3, full / empty }')"
    done
    for keep in "$keep" "${say[@]}" "${reply[@]}"; do exec {keep}>&-; done
    _fs_keyboard=()
    wait "$load" || true
    load=''
    fs_stop_all
}

sample=$FS_CREDENTIALS
for part in "${parts[@]}"; do
    FS_CREDENTIALS=$sample
    _fs_prepare
    "part_$part"
done
((status == 0))
