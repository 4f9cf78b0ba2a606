#!/usr/bin/env bash
# Runs N clients that share sample files on this machine, until Ctrl-C.
#
#     scripts/cluster.sh 5              five users, user1 to user5, each sharing three files
#     scripts/cluster.sh --no-build 5   uses the programs in FS_BIN, or target/release
#
# Prints the command that joins with a client of your own, as the user `guest`.
set -euo pipefail

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
build=yes
if [[ ${1:-} == --no-build ]]; then
    build=
    shift
fi
count=${1:-}
if [[ $# -ne 1 || ! $count =~ ^[1-9][0-9]{0,3}$ ]]; then
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
[[ -z $build ]] || cargo build --release --locked --bins --manifest-path "$home/Cargo.toml"

# shellcheck source=scripts/functions.sh
. "$home/scripts/functions.sh"
trap fs_stop_all EXIT
trap 'echo; exit 130' INT
trap 'exit 143' TERM
_fs_prepare

# Fresh passwords for every run, in files that only this user can read.
umask 077
secret() { head -c 15 /dev/urandom | base64 | tr '+/' '-_'; }
mkdir "$FS_DIR/.passwords"
FS_CREDENTIALS=$FS_DIR/credentials.txt
for ((index = 0; index <= count; index++)); do
    user=user$index
    ((index > 0)) || user=guest
    secret >"$FS_DIR/.passwords/$user"
    printf '%s %s\n' "$user" "$(cat "$FS_DIR/.passwords/$user")"
done >"$FS_CREDENTIALS"

fs_start_server
for ((index = 1; index <= count; index++)); do
    user=user$index
    folder=$(fs_folder "$user")
    mkdir -p "$folder/$user"
    echo "Hello from $user" >"$folder/$user/hello.txt"
    head -c $((index * 10000)) /dev/urandom >"$folder/$user/noise.bin"
    # The same content for all users: a file with many sources.
    for ((line = 0; line < 1000; line++)); do echo "common line $line"; done >"$folder/common.txt"
    fs_start_client "$user" -u "$user" --password-file "$FS_DIR/.passwords/$user" --stay \
        -c "pub common.txt $user"
done
for ((index = 1; index <= count; index++)); do
    fs_wait_line "user$index" '3 files published successfully' 120
done

cat <<END
$count clients share $((count * 2 + 1)) files through a server at 127.0.0.1:$FS_PORT. Join them from another terminal:

    $FS_BIN/client 127.0.0.1 $FS_PORT -u guest --password-file $FS_DIR/.passwords/guest --dir SOME_FOLDER

and type  lap,  sch -l .,  get common.txt,  get user1/  or  help.  Ctrl-C here stops everything.
END

# If the server ends, report it and stop.
wait "$FS_SERVER_PID" || true
echo "the server ended: $(tail -n 1 "$FS_DIR/server.err")" >&2
exit 1
