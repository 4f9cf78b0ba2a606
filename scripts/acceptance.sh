#!/usr/bin/env bash
# Acceptance tests with real processes on loopback:
#
#     scripts/acceptance.sh session [N]   the demo N times in a row (default 50), each in less than 30 s
#     scripts/acceptance.sh sizes [GIB]   files of 0 B, 1 B, 1 MiB + 1 and 3 GiB and unusual names arrive byte for byte, with
#                                         uploader and downloader below 64 MiB of memory
#     scripts/acceptance.sh hundred [N]   100 clients with 10 files each download 10 files from others at the same time,
#                                         with the server below 50 MiB of memory
#     scripts/acceptance.sh attached [N]  N (default 50) sides attached to one client at the same time, each with 20 commands
#                                         and a `get`, take at most 1.5 times as long while a `get` of 1 GiB runs there
#     scripts/acceptance.sh waiting [SECONDS]     100 clients, each with a `wait file`, cause at most one datagram a client a
#                                         minute more than when they are idle, over SECONDS (default 60) of either
#     scripts/acceptance.sh all
#
# Builds first; with --no-build before the name, uses the programs in FS_BIN or target/release. Needs 7 GiB in ${TMPDIR:-/tmp}.
set -euo pipefail

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
build=yes
if [[ ${1:-} == --no-build ]]; then
    build=
    shift
fi
commands='Available commands are: get, lap, lpf, pub, sch, unp, xit'

fail() {
    printf 'acceptance: %s\n' "$*" >&2
    exit 1
}

# PID: the peak resident memory of a process, KiB.
peak_kib() {
    awk '/^VmHWM:/ { print $2 }' "/proc/$1/status"
}

check_memory() { # WHAT KIB LIMIT_MIB
    local what=$1 kib=$2 limit_mib=$3
    printf '%-12s at most %6d KiB of %d MiB\n' "$what" "$kib" "$limit_mib"
    ((kib < limit_mib * 1024)) || fail "$what used more than $limit_mib MiB of memory"
}

test_session() {
    local rounds=${1:-50} round start took most=0
    for ((round = 1; round <= rounds; round++)); do
        start=$(date +%s%N)
        "$home/scripts/demo.sh" --no-build >"$FS_DIR/demo.log" 2>&1 || {
            cat "$FS_DIR/demo.log" >&2
            fail "round $round failed"
        }
        took=$((($(date +%s%N) - start) / 1000000))
        ((took <= most)) || most=$took
        ((took < 30000)) || fail "round $round took $took ms"
    done
    echo "session: $rounds rounds in a row, the longest took $most ms"
    fs_stop_all
}

test_sizes() {
    local gib=${1:-3} folder copy name names long
    fs_start_server --ephemeral
    folder=$(fs_folder hans) copy=$(fs_folder vader)
    long=$(printf 'l%.0s' {1..255})
    names=(empty one mebibyte.plus1 large.bin 'with  spaces' 'größe/日本語/🙂' "$long")
    mkdir -p "$folder/größe/日本語"
    : >"$folder/empty"
    printf x >"$folder/one"
    head -c 1048577 /dev/urandom >"$folder/mebibyte.plus1"
    head -c "${gib}G" /dev/urandom >"$folder/large.bin"
    for name in "${names[@]:4}"; do
        head -c 70000 /dev/urandom >"$folder/$name"
    done
    fs_start_client hans
    fs_start_client vader
    fs_ask hans 'auth hans falcon*solo' 'Welcome, hans!' "$commands"
    fs_ask vader 'auth vader sithlord**' 'Welcome, vader!' "$commands"
    for name in "${names[@]}"; do
        fs_say hans "pub '$name'"
        fs_wait_line hans 'File published successfully' 600
    done
    for name in "${names[@]}"; do
        fs_say vader "get '$name'"
        fs_wait_line vader "$name downloaded successfully" 600
        cmp -- "$folder/$name" "$copy/$name" || fail "$name differs"
    done
    echo "sizes: ${#names[@]} files, all identical"
    check_memory uploader "$(peak_kib "${FS_PID[hans]}")" 64
    check_memory downloader "$(peak_kib "${FS_PID[vader]}")" 64
    fs_stop_all
}

test_hundred() {
    local count=${1:-100} index other file from start wanted
    ((count > 10)) || fail "hundred needs more than 10 clients"
    umask 077
    FS_CREDENTIALS=$FS_DIR/credentials.txt
    for ((index = 0; index < count; index++)); do echo "u$index secret$index"; done >"$FS_CREDENTIALS"
    fs_start_server --ephemeral
    for ((index = 0; index < count; index++)); do
        from=$(fs_folder "u$index")
        for ((file = 0; file < 10; file++)); do
            head -c $((RANDOM * 8)) /dev/urandom >"$from/f$index.$file"
        done
        fs_start_client "u$index"
        fs_say "u$index" "auth u$index secret$index"
        fs_say "u$index" 'pub *'
    done
    for ((index = 0; index < count; index++)); do
        fs_wait_line "u$index" '10 files published successfully' 120
    done
    start=$(date +%s%N)
    for ((index = 0; index < count; index++)); do
        wanted=
        for ((file = 0; file < 10; file++)); do
            wanted+=" f$(((index + file + 1) % count)).$file"
        done
        fs_say "u$index" "get$wanted"
    done
    for ((index = 0; index < count; index++)); do
        for ((file = 0; file < 10; file++)); do
            other=$(((index + file + 1) % count))
            fs_wait_line "u$index" "f$other.$file downloaded successfully" 120
            cmp -- "$FS_DIR/u$other/f$other.$file" "$FS_DIR/u$index/f$other.$file" || fail "f$other.$file differs"
        done
    done
    echo "hundred: $count clients, $((count * 10)) correct transfers, $((($(date +%s%N) - start) / 1000000)) ms with checking"
    check_memory server "$(peak_kib "$FS_SERVER_PID")" 50
    fs_stop_all
}

# The milliseconds that all sides take, one after the other in no order, are in `took`.
attach_all() { # COUNT ROUND
    local count=$1 round=$2 index start pids=() pid
    local commands=(-c lap -c lpf -c 'sch f' -c 'lap' -c 'sch -l f1')
    commands+=("${commands[@]}" "${commands[@]}" "${commands[@]}")
    start=$(date +%s%N)
    for ((index = 0; index < count; index++)); do
        fs_attach hans -q "${commands[@]}" -c "get r$round/f$index" >"$FS_DIR/side$index.out" 2>"$FS_DIR/side$index.err" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || fail "a side failed: $(cat "$FS_DIR"/side*.err)"; done
    took=$((($(date +%s%N) - start) / 1000000))
    for ((index = 0; index < count; index++)); do
        [[ ! -s $FS_DIR/side$index.err ]] || fail "$(<"$FS_DIR/side$index.err")"
        cmp -- "$FS_DIR/yoda/r$round/f$index" "$FS_DIR/hans/r$round/f$index" || fail "f$index differs"
        [[ $(tail -n 1 "$FS_DIR/side$index.out") == "r$round/f$index downloaded successfully" ]] || fail "no result line"
    done
}

test_attached() {
    local count=${1:-50} rounds=5 round index took alone=() beside=() large ratio folder
    export FILESHARE_PASSWORD=pw
    umask 077
    FS_CREDENTIALS=$FS_DIR/credentials.txt
    printf '%s pw\n' hans vader yoda >"$FS_CREDENTIALS"
    fs_start_server --ephemeral
    folder=$(fs_folder yoda)
    for ((round = 0; round < 2 * rounds; round++)); do
        mkdir "$folder/r$round"
        for ((index = 0; index < count; index++)); do
            head -c 20000 /dev/urandom >"$folder/r$round/f$index"
        done
    done
    head -c 1G /dev/urandom >"$(fs_folder vader)/large"
    # Slow enough for all rounds beside it, so that the processors are as free as without it.
    fs_start_client vader -q -u vader --limit-rate 24M --stay -c 'pub large'
    fs_start_client yoda -q -u yoda --stay -c 'pub *'
    fs_wait_line vader 'File published successfully' 120
    fs_wait_line yoda "$((2 * rounds * count)) files published successfully" 120
    fs_start_client hans -q -u hans --stay -c lpf
    fs_wait_line hans 'No files published'
    for ((round = 0; round < rounds; round++)); do
        attach_all "$count" "$round"
        alone+=("$took")
    done
    fs_attach hans -q -c 'get large' >"$FS_DIR/large.out" &
    large=$!
    for (( ; round < 2 * rounds; round++)); do
        attach_all "$count" "$round"
        beside+=("$took")
    done
    [[ ! -s $FS_DIR/large.out ]] || fail "the large file arrived too early"
    wait "$large" || fail "the large file failed"
    cmp -- "$FS_DIR/vader/large" "$FS_DIR/hans/large" || fail "large differs"
    mapfile -t alone < <(printf '%s\n' "${alone[@]}" | sort -n)
    mapfile -t beside < <(printf '%s\n' "${beside[@]}" | sort -n)
    ratio=$((beside[rounds / 2] * 100 / alone[rounds / 2]))
    echo "attached: $count sides with 20 commands and a get: ${alone[rounds / 2]} ms alone, ${beside[rounds / 2]} ms beside" \
        "a get of 1 GiB: $ratio %"
    ((ratio <= 150)) || fail "the sides were held up"
    fs_stop_all
}

# Prints how many datagrams the server has received and sent.
datagrams() { # STATUS_ADDRESS
    local page line total=0
    exec {page}<>"/dev/tcp/${1%:*}/${1##*:}"
    printf 'GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n' "$1" >&"$page"
    while IFS= read -r line; do
        [[ $line != fileshare_datagrams_total* ]] || total=$((total + ${line##* }))
    done <&"$page"
    exec {page}<&-
    echo "$total"
}

test_waiting() {
    local seconds=${1:-60} count=100 index status idle waiting before
    export FILESHARE_PASSWORD=pw
    umask 077
    FS_CREDENTIALS=$FS_DIR/credentials.txt
    for ((index = 0; index < count; index++)); do echo "u$index pw"; done >"$FS_CREDENTIALS"
    fs_start_server --ephemeral --status 127.0.0.1:0
    for ((index = 0; index < count; index++)); do
        fs_start_client "u$index" -q -u "u$index"
        fs_ask "u$index" 'wait file nothing 0' 'Timed out'
    done
    # What the logins and the subscriptions cause is over by then.
    sleep 5
    status=$(sed -n 's|.*status page at http://\(.*\)/$|\1|p' "$FS_DIR/server.err")
    before=$(datagrams "$status")
    sleep "$seconds"
    idle=$(($(datagrams "$status") - before))
    for ((index = 0; index < count; index++)); do fs_say "u$index" 'wait file nothing 3600'; done
    sleep 5
    before=$(datagrams "$status")
    sleep "$seconds"
    waiting=$(($(datagrams "$status") - before))
    echo "waiting: $idle datagrams in $seconds s of $count idle clients, $waiting of waiting ones"
    ((waiting - idle <= count * seconds / 60)) || fail "waiting causes datagrams"
    fs_stop_all
}

which=${1:-}
case $which in
session | sizes | hundred | attached | waiting | all) ;;
*)
    sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
[[ -z $build ]] || cargo build --release --locked --bins --manifest-path "$home/Cargo.toml"
# shellcheck source=scripts/functions.sh
. "$home/scripts/functions.sh"
sample=$FS_CREDENTIALS
trap fs_stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for name in session sizes hundred attached waiting; do
    if [[ $which == "$name" || $which == all ]]; then
        FS_CREDENTIALS=$sample
        _fs_prepare
        "test_$name" ${2+"$2"}
    fi
done
