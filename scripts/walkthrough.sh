#!/usr/bin/env bash
# A whole session of three users, in the shell functions of functions.sh. walkthrough.py is the same in Python.
#
#     scripts/walkthrough.sh       uses the programs in FS_BIN, or target/release
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/functions.sh"
trap fs_stop_all EXIT
greeting='Available commands are: get, lap, lpf, pub, sch, unp, xit'

fs_start_server
hans=$(fs_folder hans) vader=$(fs_folder vader) yoda=$(fs_folder yoda)
head -c 300000 /dev/urandom >"$hans/Assignment.pdf"
head -c 2000000 /dev/urandom >"$vader/movie.mp4"
echo 'User Datagram Protocol' >"$vader/rfc768.txt"
for user in hans vader yoda; do fs_start_client "$user"; done

fs_ask hans 'auth hans falcon*solo' 'Welcome, hans!' "$greeting"
fs_ask hans 'lap' 'No active peers'
fs_ask hans 'pub Assignment.pdf' 'File published successfully'
fs_ask hans 'lpf' '1 file published:' 'Assignment.pdf'
fs_ask hans 'unp Assignment.pdf' 'File unpublished successfully'
fs_ask hans 'unp Assignment.pdf' 'File unpublication failed'
fs_ask hans 'pub Assignment.pdf' 'File published successfully'
fs_ask vader 'auth hans falcon*solo' 'Authentication failed. Please try again.'
fs_ask vader 'auth vader sithlord**' 'Welcome, vader!' "$greeting"
fs_ask vader 'lap' '1 active peer:' 'hans'
fs_ask vader 'pub movie.mp4' 'File published successfully'
fs_ask vader 'pub rfc768.txt' 'File published successfully'
fs_ask vader 'sch pdf' '1 file found:' 'Assignment.pdf'
fs_ask vader 'get assignment.pdf' 'File not found'
fs_ask yoda 'auth yoda wise@!man' 'Welcome, yoda!' "$greeting"
fs_ask yoda 'sch i' '2 files found:' 'Assignment.pdf' 'movie.mp4'

fs_say yoda 'get *' # all at once
fs_say vader 'get *'
fs_ask hans 'lap' '2 active peers:' 'vader' 'yoda' # its shell stays usable meanwhile
fs_say hans 'get *'
for file in Assignment.pdf movie.mp4 rfc768.txt; do fs_wait_line yoda "$file downloaded successfully"; done
for file in movie.mp4 rfc768.txt; do fs_wait_line hans "$file downloaded successfully"; done
fs_wait_line vader 'Assignment.pdf downloaded successfully'
diff -r "$hans" "$vader" && diff -r "$hans" "$yoda"
fs_ask vader 'pub Assignment.pdf' 'File published successfully'
fs_ask vader 'sch pdf' 'No files found'

fs_kill_client hans
fs_wait_gone yoda hans
fs_ask yoda 'lap' '1 active peer:' 'vader'
rm "$yoda/Assignment.pdf"
fs_ask yoda 'get Assignment.pdf' 'Assignment.pdf downloaded successfully'
cmp "$vader/Assignment.pdf" "$yoda/Assignment.pdf"

fs_ask vader 'xit' 'Goodbye!'
fs_stop_client vader || (($? == 4)) # of its refused login
fs_ask yoda 'get rfc768.txt' 'File not found'
fs_start_client vader
fs_ask vader 'auth vader sithlord**' 'Welcome, vader!' "$greeting"
fs_ask vader 'lpf' '3 files published:' 'Assignment.pdf' 'movie.mp4' 'rfc768.txt'
fs_ask yoda 'get rfc768.txt' 'rfc768.txt downloaded successfully'
