#!/usr/bin/env bash
# Compares `get` with cp, curl and aria2c from nginx, an rsync daemon (-W) and sendme: the same files on the same file system in
# interleaved rounds, without fsync. Prints medians and ratios; a ratio above 1 means that `get` is faster. With
# FILESHARE_BENCH_CSV, the name of a folder, appends rows to transfers.csv there.
#
#   scripts/bench-transfers.sh [--rounds N] [--mib N] [--files N] [--dir DIR] [--no-build]
#
# Needs: cargo, python3; curl, nginx, aria2c, rsync (Debian: apt-get install curl nginx-light aria2 rsync) and sendme (cargo
# install sendme; it runs in a network namespace of its own, which needs root). Missing tools are skipped.
# All processes listen on 127.0.0.1 only and end with the script.
set -euo pipefail

rounds=5 mib=2048 files=10000 base=${TMPDIR:-/tmp} build=1
while (($#)); do
    case $1 in
        --rounds) rounds=$2; shift 2 ;;
        --mib) mib=$2; shift 2 ;;
        --files) files=$2; shift 2 ;;
        --dir) base=$2; shift 2 ;;
        --no-build) build=0; shift ;;
        *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

root=$(cd "$(dirname "$0")/.." && pwd)
((build)) && cargo build --release --quiet --manifest-path "$root/Cargo.toml"
bin=${FS_BIN:-${CARGO_TARGET_DIR:-$root/target}/release}
dir=$(mktemp -d "$base/fileshare-bench.XXXXXX")
pids=()
cleanup() {
    ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
export XDG_CACHE_HOME=$dir/cache XDG_STATE_HOME=$dir/state XDG_RUNTIME_DIR=$dir/run

mkdir -p "$dir"/{small-copies,src/small,get,tcp,curl,aria2c,rsync,sendme,cp,nginx}
head -c "$((mib << 20))" /dev/urandom >"$dir/src/big"
head -c "$((files * 4096))" /dev/urandom | split -b 4096 -a 5 -d - "$dir/src/small/f"
printf 'up pw-up\ndown pw-down\n' >"$dir/credentials.txt"
chmod 600 "$dir/credentials.txt"

wait_line() { # FILE TEXT: waits until the file has the text
    local tries=0
    until grep -q -- "$2" "$1" 2>/dev/null; do
        ((++tries < 1200)) || { echo "no '$2' in $1:" >&2; cat "$1" >&2; exit 1; }
        sleep 0.05
    done
}
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

"$bin/server" 0 --ephemeral --credentials "$dir/credentials.txt" >"$dir/server.out" 2>"$dir/server.log" &
pids+=($!)
wait_line "$dir/server.out" 'listening on'
port=$(sed -n 's/^listening on .*:\([0-9]*\)$/\1/p' "$dir/server.out")
FILESHARE_PASSWORD=pw-up "$bin/client" 127.0.0.1 "$port" -u up -d "$dir/src" -c 'pub big small' --stay \
    >"$dir/up.out" 2>"$dir/up.log" &
pids+=($!)
wait_line "$dir/up.out" 'published successfully'

tools=(get tcp cp)
if command -v nginx >/dev/null && command -v curl >/dev/null; then
    http=$(free_port)
    cat >"$dir/nginx/nginx.conf" <<CONF
daemon off; worker_processes 1; pid $dir/nginx/pid; error_log $dir/nginx/error.log;
events {}
http { access_log off; sendfile on; tcp_nopush on; client_body_temp_path $dir/nginx/b; proxy_temp_path $dir/nginx/p;
  fastcgi_temp_path $dir/nginx/f; uwsgi_temp_path $dir/nginx/u; scgi_temp_path $dir/nginx/s;
  server { listen 127.0.0.1:$http; root $dir/src; } }
CONF
    [[ $(id -u) == 0 ]] && sed -i '1s/^/user root; /' "$dir/nginx/nginx.conf"
    nginx -c "$dir/nginx/nginx.conf" -p "$dir/nginx" 2>>"$dir/nginx/error.log" &
    pids+=($!)
    tools+=(curl)
    if command -v aria2c >/dev/null; then
        tools+=(aria2c)
    else
        echo "aria2c is missing: skipped" >&2
    fi
else
    echo "curl or nginx is missing: skipped, and aria2c" >&2
fi
if command -v rsync >/dev/null; then
    rsyncd=$(free_port)
    printf 'use chroot = no\naddress = 127.0.0.1\nport = %s\n[src]\npath = %s\nread only = yes\n' \
        "$rsyncd" "$dir/src" >"$dir/rsyncd.conf"
    rsync --daemon --no-detach --config="$dir/rsyncd.conf" 2>"$dir/rsyncd.log" &
    pids+=($!)
    tools+=(rsync)
else
    echo "rsync is missing: skipped" >&2
fi
if command -v sendme >/dev/null && unshare -n true 2>/dev/null; then
    # In a network namespace nothing can leave the machine, whatever sendme looks for. One `sendme send` serves each of the two.
    for what in big small; do
        mkdir "$dir/serve-$what"
        (cd "$dir/serve-$what" && exec unshare -n sh -c 'ip link set lo up && echo $$ >pid && exec "$@"' sh \
            sendme send --relay disabled --ticket-type addresses "$dir/src/$what" >"$dir/serve-$what/out" 2>&1) &
        pids+=($!)
        wait_line "$dir/serve-$what/out" 'sendme receive'
    done
    tools+=(sendme)
else
    echo "sendme or a network namespace for it is missing: skipped" >&2
fi
sleep 0.3 # nginx and rsync have no ready line

get() { # TOOL WHAT [OPTION]
    FILESHARE_PASSWORD=pw-down "$bin/client" 127.0.0.1 "$port" -q -u down -d "$dir/$1" "${@:3}" -c "get $2" >/dev/null
}
receive() { # WHAT: with sendme, in the namespace of its sender
    local ticket
    ticket=$(grep -o 'blob[a-z0-9]*' "$dir/serve-$1/out" | head -n 1)
    (cd "$dir/sendme" && nsenter -n -t "$(cat "$dir/serve-$1/pid")" sendme receive --relay disabled "$ticket" >/dev/null 2>&1)
}
run() { # TOOL big|small: copies the files into the tool's own folder
    case $1-$2 in
        get-big) get get big ;;
        get-small) get get small/ ;;
        tcp-big) get tcp big --tcp-only ;;
        tcp-small) get tcp small/ --tcp-only ;;
        sendme-*) receive "$2" ;;
        curl-big) curl -s -o "$dir/curl/big" "http://127.0.0.1:$http/big" ;;
        aria2c-big) aria2c -q -x4 -s4 --file-allocation=none -d "$dir/aria2c" "http://127.0.0.1:$http/big" ;;
        rsync-big) rsync -W "rsync://127.0.0.1:$rsyncd/src/big" "$dir/rsync/big" ;;
        rsync-small) rsync -rW "rsync://127.0.0.1:$rsyncd/src/small" "$dir/rsync/" ;;
        cp-big) cp "$dir/src/big" "$dir/cp/big" ;;
        cp-small) cp -r "$dir/src/small" "$dir/cp/" ;;
        *) return 1 ;;
    esac
}
median() { sort -g "$1" | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }

for what in big small; do
    for ((round = 0; round <= rounds; round++)); do # round 0 warms up
        for tool in "${tools[@]}"; do
            [[ $tool-$what == curl-small || $tool-$what == aria2c-small ]] && continue
            start=$EPOCHREALTIME
            run "$tool" "$what"
            end=$EPOCHREALTIME
            ((round)) && awk "BEGIN {print $end - $start}" >>"$dir/$tool-$what.times"
            diff -rq "$dir/src/$what" "$dir/$tool/$what" >/dev/null || { echo "$tool: $what differs" >&2; exit 1; }
            # Small files stay until the end: for seconds, ext4 gives no inode of a deleted file to a new one, and searching for
            # others takes longer than copying. A tool would pay for those of the tools before it.
            [[ $what == big ]] || mv -- "$dir/$tool/$what" "$dir/small-copies/$tool.$round"
            rm -rf "${dir:?}/$tool"/*
        done
    done
done

name() { # TOOL: what it runs
    case $1 in
        get) echo "get" ;;
        tcp) echo "get --tcp-only" ;;
        curl) echo "curl from nginx" ;;
        aria2c) echo "aria2c from nginx" ;;
        rsync) echo "rsync daemon" ;;
        *) echo "$1" ;;
    esac
}
csv=${FILESHARE_BENCH_CSV:+$FILESHARE_BENCH_CSV/transfers.csv}
[[ -z $csv || -e $csv ]] || echo 'file system,files,tool,seconds,rate,times as fast as cp' >"$csv"
bytes=$((mib << 20))
system=$(df --output=fstype "$dir" | tail -n 1)
for what in big small; do
    [[ $what == big ]] && title="one of $mib MiB" || title="$files of 4 KiB"
    echo "$title, $rounds rounds, on $system:"
    own=$(median "$dir/get-$what.times") copied=$(median "$dir/cp-$what.times")
    for tool in "${tools[@]}"; do
        [[ -f $dir/$tool-$what.times ]] || continue
        seconds=$(median "$dir/$tool-$what.times")
        if [[ $what == big ]]; then
            rate=$(awk "BEGIN { printf \"%.2f GB/s\", $bytes / $seconds / 1e9 }")
        else
            rate=$(awk "BEGIN { printf \"%.0f files/s\", $files / $seconds }")
        fi
        awk -v tool="$(name "$tool")" -v s="$seconds" -v own="$own" -v rate="$rate" 'BEGIN {
            printf "  %-17s %8.3f s %15s  get is %.2f times as fast\n", tool, s, rate, s / own }'
        [[ -z $csv ]] || awk -v head="$system,$title,$(name "$tool")" -v s="$seconds" -v rate="$rate" -v cp="$copied" \
            'BEGIN { printf "%s,%.3f,%s,%.2f\n", head, s, rate, cp / s }' >>"$csv"
    done
done
