#!/usr/bin/env bash
# What holds under attack, measured on loopback with release builds: takes about two and a half minutes, wants a quiet
# machine and nothing else.
#   1. 10,000 guesses at a user's password in a minute from 127.0.0.2, while that user logs in at 127.0.0.1 and another
#      one's heartbeats are timed.
#   2. Heartbeats and logins without and with a flood of logins for real and unknown users from 256 addresses.
#   3. 1,000 tries each at known, active and unknown users, over UDP and inside the server: sizes are the same, and
#      Welch's t between their times stays below 4.5.
# Prints the figures; exits non-zero if one is beyond its bar.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
cargo test --release --locked --quiet --test e2e --no-run
failed=0
for bar in ten_thousand_guesses_in_a_minute a_flood_of_logins_for_real_and_unknown_users \
    known_unknown_and_active_users_over_the_wire known_and_unknown_users_inside_the_server; do
    echo "== $bar"
    # One after the other: each measures times.
    cargo test --release --locked --quiet --test e2e -- --ignored --exact --nocapture "threat_limits::$bar" |
        grep -v -e '^$' -e '^running 1 test' -e '^test result' -e '^\.$' || failed=1
done
if ((failed)); then
    echo "acceptance-security: a bar is missed" >&2
fi
exit "$failed"
