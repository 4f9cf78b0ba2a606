#!/usr/bin/env bash
# Runs a server on a free port and three clients in temporary folders, shows every command in a session, and checks that
# every copy is identical. Removes everything at the end.
#
#     scripts/demo.sh              builds first (release), then takes a few seconds
#     scripts/demo.sh --no-build   uses the programs in FS_BIN, or target/release
#
# Exit status: 0 if every step has the expected result.
set -euo pipefail

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in
--no-build) ;;
'') cargo build --release --locked --bins --manifest-path "$home/Cargo.toml" ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

# shellcheck source=scripts/functions.sh
. "$home/scripts/functions.sh"
trap fs_stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
FS_ECHO=1
commands='Available commands are: get, lap, lpf, pub, sch, unp, xit'

heading() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 ]] || heading() { printf '\n== %s\n' "$*"; }

same() {
    cmp -- "$1" "$2" || {
        echo "the copies differ: $1 $2" >&2
        exit 1
    }
}

heading "A server on a free port"
fs_start_server
echo "listening on 127.0.0.1:$FS_PORT"
hans=$(fs_folder hans) vader=$(fs_folder vader) yoda=$(fs_folder yoda)
head -c 300000 /dev/urandom >"$hans/Assignment.pdf"
head -c 20000000 /dev/urandom >"$vader/movie.mp4"
for ((line = 0; line < 200; line++)); do echo "RFC 768, line $line"; done >"$vader/rfc768.txt"

heading "hans logs in, publishes, unpublishes, and publishes again"
fs_start_client hans
fs_ask hans 'auth hans falcon*solo' 'Welcome, hans!' "$commands"
fs_ask hans 'lap' 'No active peers'
fs_ask hans 'pub Assignment.pdf' 'File published successfully'
fs_ask hans 'lpf' '1 file published:' 'Assignment.pdf'
fs_ask hans 'unp Assignment.pdf' 'File unpublished successfully'
fs_ask hans 'unp Assignment.pdf' 'File unpublication failed'
fs_ask hans 'pub Assignment.pdf' 'File published successfully'

heading "vader cannot log in as hans, who is active, and logs in as vader"
fs_start_client vader
fs_ask vader 'auth hans falcon*solo' 'Authentication failed. Please try again.'
fs_ask vader 'auth vader sithlord**' 'Welcome, vader!' "$commands"
fs_ask vader 'lap' '1 active peer:' 'hans'
fs_ask vader 'pub movie.mp4' 'File published successfully'
fs_ask vader 'pub rfc768.txt' 'File published successfully'
fs_ask vader 'sch pdf' '1 file found:' 'Assignment.pdf'
fs_ask vader 'get assignment.pdf' 'File not found'

heading "yoda logs in and searches"
fs_start_client yoda
fs_ask yoda 'auth yoda wise@!man' 'Welcome, yoda!' "$commands"
fs_ask yoda 'sch i' '2 files found:' 'Assignment.pdf' 'movie.mp4'

heading "All three download from each other at once"
begin() { printf '%-6s> %s\n' "$1" "$2" && fs_say "$1" "$2"; }
end() { fs_wait_line "$1" "$2" && printf '%-6s  %s\n' "$1" "$2"; }
begin yoda 'get Assignment.pdf movie.mp4'
begin hans 'get movie.mp4'
begin vader 'get Assignment.pdf'
end yoda 'Assignment.pdf downloaded successfully'
end yoda 'movie.mp4 downloaded successfully'
end hans 'movie.mp4 downloaded successfully'
end vader 'Assignment.pdf downloaded successfully'
same "$hans/Assignment.pdf" "$vader/Assignment.pdf"
same "$hans/Assignment.pdf" "$yoda/Assignment.pdf"
same "$vader/movie.mp4" "$hans/movie.mp4"
same "$vader/movie.mp4" "$yoda/movie.mp4"
echo 'four copies, all identical'
fs_ask hans 'lap' '2 active peers:' 'vader' 'yoda'

heading "vader shares its own copy too"
fs_ask vader 'pub Assignment.pdf' 'File published successfully'
fs_ask vader 'sch pdf' 'No files found'

heading "hans crashes: after the liveness time the others no longer see hans, and download from vader"
fs_kill_client hans
fs_wait_gone yoda hans
fs_ask yoda 'lap' '1 active peer:' 'vader'
rm -- "$yoda/Assignment.pdf"
fs_ask yoda 'get Assignment.pdf' 'Assignment.pdf downloaded successfully'
same "$vader/Assignment.pdf" "$yoda/Assignment.pdf"

heading "vader logs out and in again: the publications are still there"
fs_ask vader 'xit' 'Goodbye!'
fs_stop_client vader || true
fs_ask yoda 'get rfc768.txt' 'File not found'
fs_start_client vader
fs_ask vader 'auth vader sithlord**' 'Welcome, vader!' "$commands"
fs_ask vader 'lpf' '3 files published:' 'Assignment.pdf' 'movie.mp4' 'rfc768.txt'
fs_ask yoda 'get rfc768.txt' 'rfc768.txt downloaded successfully'
same "$vader/rfc768.txt" "$yoda/rfc768.txt"

heading "All results are as expected."
