#!/usr/bin/env bash
# Measures the server under attack, on loopback with release builds. Takes about two and a half minutes and needs a quiet
# machine.
#   1. 10,000 password guesses for a user in a minute from 127.0.0.2, while that user logs in from 127.0.0.1 and the
#      heartbeats of another user are timed.
#   2. Heartbeats and logins without and with a flood of logins for existing and unknown users from 256 addresses.
#   3. 1,000 login attempts each for known, active and unknown users, over UDP and inside the server: reply sizes are
#      equal, and Welch's t between the times stays below 4.5.
# Prints the figures; exits with a non-zero status if one exceeds its limit.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
cargo test --release --locked --quiet --test e2e --no-run
failed=0
for test in ten_thousand_guesses_in_a_minute a_flood_of_logins_for_real_and_unknown_users \
    known_unknown_and_active_users_over_the_wire known_and_unknown_users_inside_the_server; do
    echo "== $test"
    # One after the other, because each measures times.
    cargo test --release --locked --quiet --test e2e -- --ignored --exact --nocapture "threat_limits::$test" |
        grep -v -e '^$' -e '^running 1 test' -e '^test result' -e '^\.$' || failed=1
done
if ((failed)); then
    echo "acceptance-security: a limit is exceeded" >&2
fi
exit "$failed"
