#!/usr/bin/env bash
# Transfers under trouble and load, measured with real processes on loopback. One line and verdict for each bar:
#
#   scripts/acceptance-transfers.sh [--times N] [--mib N] [--rounds N] [--no-build] [kill] [eight] [memory] [names]
#
#   kill     SIGKILL at N (20) random moments of a transfer of N (256) MiB, to the downloader or an uploader, with one
#            source and with two: the next `get`, or the one that runs, finishes, the content is right, and at most one
#            chunk group per source is transferred again
#   eight    N (20) times a `get` of N (128) MiB from eight sources at once, which relieve each other all the time: the
#            content is right every time
#   memory   one `get` of N (1024) MiB from eight sources at once, and one source serving eight `get`s at once: every
#            client under 64 MiB
#   names    `get` of a file of 1 KiB and of a folder of 100 small ones, at a server with 1,000,000 published names whose
#            owners are online, against a server with nothing else: the ratio of the medians of N (200) rounds
#
# Builds first; with --no-build the programs are those in FS_BIN, or target/release. Exits with 1 when a bar does not hold.
# Needs python3 for kill, cargo for names; 11 times --mib of room in ${TMPDIR:-/tmp} for memory.
set -euo pipefail

times=20 mib='' rounds=200 build=1 parts=()
while (($#)); do
    case $1 in
        --times) times=$2; shift 2 ;;
        --mib) mib=$2; shift 2 ;;
        --rounds) rounds=$2; shift 2 ;;
        --no-build) build=0; shift ;;
        kill | eight | memory | names) parts+=("$1"); shift ;;
        *) sed -n '2,18s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
    esac
done
((${#parts[@]})) || parts=(kill eight memory names)

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
((!build)) || cargo build --release --locked --quiet --bins --manifest-path "$home/Cargo.toml"
# shellcheck source=scripts/functions.sh
. "$home/scripts/functions.sh"
_fs_prepare
getter='' crowd=''
cleanup() {
    local pid
    for pid in $getter $crowd; do
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
# WHAT, whether it holds (a status), FIGURES
verdict() {
    local word=holds
    (($2 == 0)) || { word='DOES NOT HOLD'; status=1; }
    printf '%s: %s: %s\n' "$1" "$3" "$word"
}
# What happened at each kill, for who wants to know: FS_TRACE names the file.
note() { [[ -z ${FS_TRACE:-} ]] || echo "$*" >>"$FS_TRACE"; }

# Every user's password is "pw".
credentials() {
    umask 077
    FS_CREDENTIALS=$FS_DIR/credentials.txt
    printf '%s pw\n' "$@" >"$FS_CREDENTIALS"
    export FILESHARE_PASSWORD=pw
}
# NAME...: they leave. (With -c they do not read what is typed.)
leave() {
    local name
    for name in "$@"; do
        kill -TERM "${FS_PID[$name]}"
        _fs_until 10 _fs_ended "${FS_PID[$name]}" || fail "$name does not leave"
        fs_kill_client "$name"
    done
}
# Starts NAME [OPTION...], publishing its `big`, and waits until it has.
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
# Waits for its end; the status is its own. Sets `received` to the bytes that all sources have sent it,
# and `found` to those that it found verified.
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
# Sets `kept` to the bytes that the unfinished part holds: all pages that are those of the original.
look_at_part() {
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
    cmp -- "$FS_DIR/big" "$getter_dir/big" || fail "$1: the content is wrong"
    [[ -z $(find "$getter_dir" -name '.*') ]] || fail "$1: something is left over: $(ls -A "$getter_dir")"
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
# Each source's part of what makes a transfer last about 1.5 s.
with_sources() {
    local name
    leave "${!FS_PID[@]}"
    rate=$((size * 2 / 3 / $#))
    for name in "$@"; do serve "$name" --limit-rate "$rate"; done
    fresh_getter
    local begun
    begun=${EPOCHREALTIME/[.,]/}
    start_get
    end_get || fail "an undisturbed get fails: $(tail -n 1 "$FS_DIR/get.err")"
    span_us=$((${EPOCHREALTIME/[.,]/} - begun))
    check_content undisturbed
    ((received >= size)) || fail "the log does not tell what was received"
}
# A new `get` of what a kill has left missing: finishes, and raises `most` if it transfers more again than those before it.
get_the_rest() {
    local missing=$((size - kept)) again
    start_get
    end_get || fail "get after the kill: $(tail -n 1 "$FS_DIR/get.err")"
    check_content "after kill $((round + 1))"
    again=$((received - missing))
    note "$again again: $received received, $missing missing, $kept kept, $found found"
    ((again <= most)) || most=$again
}
# The downloader is killed; then the same `get` again.
kill_downloader() {
    local round most=0 hit=0
    with_sources "$@"
    for ((round = 0; round < times; round++)); do
        fresh_getter
        start_get
        sleep_until_moment "$round"
        kill_getter
        look_at_part
        ((kept == 0 || kept == size)) || hit=$((hit + 1))
        get_the_rest
    done
    kill_verdict "downloader killed, $# source(s), get again" $# "$most" "$hit"
}
# An uploader is killed and comes back, or another goes on; the `get` that runs finishes.
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
    kill_verdict "uploader killed, $# source(s), the get goes on" $# "$most" "$hit"
}
# All uploaders are killed, the `get` gives up; they come back and publish again, and a new `get` is begun.
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
        look_at_part
        case $code in
            0) ((kept == size)) || fail "a get without sources claims success" ;;
            6) ((kept == 0)) || hit=$((hit + 1)) ;;
            5) ((kept == 0)) || fail "exit 5 with a part" ;; # not asked for yet
            *) fail "a get whose sources were killed ends with $code: $(tail -n 1 "$FS_DIR/get.err")" ;;
        esac
        for name in "$@"; do serve "$name" --limit-rate "$rate"; done
        get_the_rest
    done
    kill_verdict "uploader killed, $# source(s), get again" $# "$most" "$hit"
}
# WHAT SOURCES BYTES HITS: a kill that finds nothing arriving shows little, so most must have hit.
kill_verdict() {
    local holds=0
    (($3 <= $2 * group && $4 * 2 >= times)) || holds=1
    verdict "$1" "$holds" "$(awk -v again="$3" -v group="$group" -v allowed="$2" -v hit="$4" -v times="$times" 'BEGIN {
        printf "%d kills, %d of them while it arrived; content right; at most %.2f chunk groups transferred again of %d",
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
# MIB: a file of so many MiB, and eight who have published it.
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
    verdict 'eight sources at once' "$((wrong > 0))" "$times times ${mib:-128} MiB; content wrong $wrong times"
    fs_stop_all
}

# ---- memory

peak_kib() {
    awk '/^VmHWM:/ { print $2 }' "/proc/$1/status"
}
# What it has read from files and pipes, bytes.
bytes_read() {
    awk '/^rchar:/ { print $2 }' "/proc/$1/io"
}
# NAME...: the largest peak of these clients, KiB.
largest_peak() {
    local name kib most=0
    for name in "$@"; do
        kib=$(peak_kib "${FS_PID[$name]}")
        ((kib <= most)) || most=$kib
    done
    echo "$most"
}
memory_verdict() {
    local holds=0
    (($2 < 64 * 1024)) || holds=1
    verdict "$1" "$holds" "$2 KiB at most, of 65536"
}
part_memory() {
    local size=$((${mib:-1024} * group)) name least share before=() up=("${eight[@]}") down=()
    down=(down1 down2 down3 down4 down5 down6 down7 down8)
    credentials "${up[@]}" "${down[@]}" down
    serve_by_eight "${mib:-1024}"
    for name in "${up[@]}"; do before+=("$(bytes_read "${FS_PID[$name]}")"); done
    fs_start_client down -q -u down -c 'get big' --stay
    fs_wait_line down 'big downloaded successfully' 600
    cmp -- "$FS_DIR/big" "$FS_DIR/down/big" || fail "memory: the content is wrong"
    least=$size
    for name in "${!up[@]}"; do
        share=$(($(bytes_read "${FS_PID[${up[name]}]}") - before[name]))
        ((share >= least)) || least=$share
    done
    ((least > size / 40)) || fail "memory: one of the eight sources sent only $least bytes"
    memory_verdict "memory, downloader from eight sources" "$(largest_peak down)"
    memory_verdict "memory, each of eight sources" "$(largest_peak "${up[@]}")"
    leave "${up[@]:1}" down
    rm "$FS_DIR/down/big"
    for name in "${down[@]}"; do fs_start_client "$name" -q -u "$name" -c 'get big' --stay; done
    for name in "${down[@]}"; do
        fs_wait_line "$name" 'big downloaded successfully' 600
        cmp -- "$FS_DIR/big" "$FS_DIR/$name/big" || fail "memory: the content is wrong"
    done
    memory_verdict "memory, source of eight downloaders" "$(largest_peak up1)"
    memory_verdict "memory, each of eight downloaders" "$(largest_peak "${down[@]}")"
    fs_stop_all
}

# ---- names

median() { sort -g "$1" | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }

# WHERE: a source and a shell that downloads, at the server whose port is FS_PORT. Names are like those of the crowd.
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
    mkfifo "$FS_DIR/$1.say" "$FS_DIR/$1.said"
    (FILESHARE_PASSWORD='sithlord**' _fs_become "getter-$1" "$FS_BIN/client" 127.0.0.1 "$FS_PORT" -q -u vader -d "$folder") \
        <"$FS_DIR/$1.say" >"$FS_DIR/$1.said" 2>"$FS_DIR/getter-$1.err" &
    getter+=" $!"
    exec {to}>"$FS_DIR/$1.say" {from}<"$FS_DIR/$1.said"
    say[$1]=$to said[$1]=$from
    # Closed in what is started later, so that it ends when it is closed here.
    _fs_keyboard[say-$1]=$to _fs_keyboard[said-$1]=$from
}
# WHERE WHAT LINES: types `get WHAT` and notes the time until its so many result lines have come.
timed_get() {
    local begun line at
    begun=${EPOCHREALTIME/[.,]/}
    printf "get '%s'\n" "$2" >&"${say[$1]}"
    for ((at = 0; at < $3; at++)); do
        read -r -t 60 -u "${said[$1]}" line || fail "names: get says nothing"
        [[ $line == *' downloaded successfully' ]] || fail "names: $line: $(tail -n 1 "$FS_DIR/getter-$1.err")"
    done
    ((round == 0)) || echo $((${EPOCHREALTIME/[.,]/} - begun)) >>"$FS_DIR/$1-$3.times"
    diff -r "$FS_DIR/source-$1/$2" "$FS_DIR/getter-$1/$2" || fail "names: the content is wrong"
    rm -r "${FS_DIR:?}/getter-$1/${2:?}"
}
part_names() {
    local round what full empty lines where keep holds order
    local -A say=() said=()
    fs_start_server --ephemeral
    names_clients empty
    mkfifo "$FS_DIR/crowd.in"
    FILESHARE_BENCH_HOLD=1 cargo bench --quiet --manifest-path "$home/Cargo.toml" --bench names \
        <"$FS_DIR/crowd.in" >"$FS_DIR/crowd.out" 2>"$FS_DIR/crowd.err" &
    crowd=$!
    exec {keep}>"$FS_DIR/crowd.in"
    _fs_keyboard[crowd]=$keep
    _fs_until 900 names_ready || fail "names: $(tail -n 1 "$FS_DIR/crowd.err")"
    FS_PORT=$(sed -n 's/^listening on .*://p' "$FS_DIR/crowd.out")
    [[ -n $FS_PORT ]] || fail "names: $(tail -n 1 "$FS_DIR/crowd.err")"
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
        holds=0
        awk -v full="$full" -v empty="$empty" 'BEGIN { exit full > 1.2 * empty }' || holds=1
        verdict "names, $what" "$holds" "$(awk -v full="$full" -v empty="$empty" -v crowd="$(grep -o '^[0-9]* names' "$FS_DIR/crowd.out")" 'BEGIN {
            printf "%.2f ms among %s, %.2f ms alone, %.2f times", full / 1e3, crowd, empty / 1e3, full / empty }')"
    done
    for keep in "$keep" "${say[@]}" "${said[@]}"; do exec {keep}>&-; done
    _fs_keyboard=()
    wait "$crowd" || true
    crowd=''
    fs_stop_all
}
names_ready() {
    grep -q '^listening on' "$FS_DIR/crowd.out" || _fs_ended "$crowd"
}

sample=$FS_CREDENTIALS
for part in "${parts[@]}"; do
    FS_CREDENTIALS=$sample
    _fs_prepare
    "part_$part"
done
((status == 0))
