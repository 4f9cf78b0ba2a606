#!/usr/bin/env bash
# Compares `get`, and `get` with --tcp-only, with curl from nginx, an rsync daemon (-W) and cp: the same files on the same
# file system in interleaved rounds, without fsync. Prints medians and ratios; a ratio above 1 means that `get` is faster.
#
#   scripts/bench-transfers.sh [--rounds N] [--mib N] [--files N] [--dir DIR] [--no-build]
#
# Needs: cargo, curl, nginx, rsync (Debian: apt-get install curl nginx-light rsync). Missing tools are skipped.
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
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
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

mkdir -p "$dir"/{src/small,get,tcp,curl,rsync,cp,nginx}
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
else
    echo "curl or nginx is missing: skipped" >&2
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
sleep 0.3 # nginx and rsync have no ready line

get() { # TOOL NAME [OPTION]
    FILESHARE_PASSWORD=pw-down "$bin/client" 127.0.0.1 "$port" -q -u down -d "$dir/$1" "${@:3}" -c "get $2" >/dev/null
}
run() { # TOOL big|small: copies the files into the tool's own folder
    case $1-$2 in
        get-big) get get big ;;
        get-small) get get small/ ;;
        tcp-big) get tcp big --tcp-only ;;
        tcp-small) get tcp small/ --tcp-only ;;
        curl-big) curl -s -o "$dir/curl/big" "http://127.0.0.1:$http/big" ;;
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
            [[ $tool-$what == curl-small ]] && continue
            rm -rf "${dir:?}/$tool"/*
            start=$EPOCHREALTIME
            run "$tool" "$what"
            end=$EPOCHREALTIME
            ((round)) && awk "BEGIN {print $end - $start}" >>"$dir/$tool-$what.times"
            diff -rq "$dir/src/$what" "$dir/$tool/$what" >/dev/null || { echo "$tool: $what differs" >&2; exit 1; }
        done
    done
done

bytes=$((mib << 20))
for what in big small; do
    [[ $what == big ]] && echo "one file of $mib MiB, $rounds rounds:" || echo "$files files of 4 KiB, $rounds rounds:"
    own=$(median "$dir/get-$what.times")
    for tool in "${tools[@]}"; do
        [[ -f $dir/$tool-$what.times ]] || continue
        seconds=$(median "$dir/$tool-$what.times")
        awk -v tool="$tool" -v s="$seconds" -v own="$own" -v bytes="$bytes" -v what="$what" 'BEGIN {
            rate = what == "big" ? sprintf("%6.2f GB/s", bytes / s / 1e9) : ""
            printf "  %-6s %8.3f s %s  get is %.2f times as fast\n", tool, s, rate, s / own }'
    done
done
