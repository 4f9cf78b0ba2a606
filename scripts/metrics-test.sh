#!/usr/bin/env bash
# Lets promtool judge the metrics of a server at work, and the alerts in docs/OPERATIONS.md: their syntax, and whether each fires in
# the situation that it is for.
#
#   scripts/metrics-test.sh [--no-build]
#
# Builds release programs first; with --no-build, uses those in FS_BIN or target/release. Takes promtool from PATH, or else from Debian's
# package prometheus, which is not installed: that needs apt-get and the network.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root=$PWD

[[ ${1:-} == --no-build ]] || cargo build --release --locked --bins
export FS_BIN=${FS_BIN:-$root/target/release}
work=$(mktemp -d "${TMPDIR:-/tmp}/fileshare-metrics-test.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

promtool=$(command -v promtool || true)
if [[ -z $promtool ]]; then
    (cd "$work" && apt-get download -qq prometheus 2>/dev/null && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool)
    promtool=$work/usr/bin/promtool
fi

python3 -B - "$work/metrics" <<'PYTHON'
import sys, urllib.request
sys.path.insert(0, "scripts")
import fileshare_testkit

with fileshare_testkit.Share(options=("--status", "127.0.0.1:0")) as share:
    hans, vader = share.client("hans"), share.client("vader")
    hans.write("note.txt", b"hello")
    hans.pub("note.txt")
    vader.wait_file("note.txt")
    vader.get("note.txt")
    hans.xit()
    address = share.server.log.split("status page at ")[1].split()[0]
    with urllib.request.urlopen(address + "metrics", timeout=10) as response, open(sys.argv[1], "wb") as file:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        file.write(response.read())
PYTHON
"$promtool" check metrics <"$work/metrics"
echo "ok      metrics: $(grep -c '^# TYPE' "$work/metrics") families"

# The block of the document between its fences.
sed -n '/^groups:/,/^```/p' docs/OPERATIONS.md | sed '/^```/d' >"$work/alerts.yml"
"$promtool" check rules "$work/alerts.yml"
# Every metric that an alert reads is served, or is Prometheus' own.
for metric in $(grep -oE 'fileshare_[a-z_]+' "$work/alerts.yml" | sort -u); do
    grep -qE "^$metric[ {]" "$work/metrics" || { echo "metrics-test: an alert reads $metric, which is not served" >&2 && exit 1; }
done
sed "s|ALERTS|$work/alerts.yml|" scripts/alerts-test.yml >"$work/alerts-test.yml"
"$promtool" test rules "$work/alerts-test.yml"
for alert in $(sed -n 's/.*alert: \([A-Za-z]*\).*/\1/p' "$work/alerts.yml"); do
    grep -qE "alertname: $alert(,|$)" scripts/alerts-test.yml || { echo "metrics-test: no situation for $alert" >&2 && exit 1; }
done
echo "ok      alerts: each fires in its situation, and none on a quiet day"
