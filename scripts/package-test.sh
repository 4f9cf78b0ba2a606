#!/usr/bin/env bash
# Tests the Debian package on a system of its own: a fresh Debian in a folder, booted with systemd in namespaces, so that nothing of
# this machine is touched. Installs, starts, uses, reloads, upgrades, removes, reinstalls and purges, and lets the watchdog bite.
#
#   scripts/package-test.sh [--no-build] [--root FOLDER]
#
# --root keeps the fresh system in FOLDER for the next time (260 MB); it is never changed. Builds release programs first; with
# --no-build, uses those in FS_BIN or target/release. Needs root on Debian or Ubuntu, and the network for the fresh system.
set -euo pipefail
export LC_ALL=C
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

options=() base=
while (($#)); do
    case $1 in
    --no-build) options=(--no-build) ;;
    --root) base=${2:?} && shift ;;
    *) echo "usage: scripts/package-test.sh [--no-build] [--root FOLDER]" >&2 && exit 2 ;;
    esac
    shift
done
((EUID == 0)) || { echo "package-test: needs root" >&2 && exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/fileshare-package-test.XXXXXX")
init= group=
cleanup() {
    [[ -z $init ]] || { kill -KILL "$init" && wait "$init" || true; } 2>/dev/null
    # Processes of the ended system leave their groups at once, but not in the same moment.
    for ((tries = 0; tries < 50; tries++)); do
        [[ -n $group && -d $group ]] || break
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
    rm -rf --one-file-system -- "$work"
}
trap cleanup EXIT

fail() { echo "FAILED  $*" >&2 && exit 1; }
ok() { echo "ok      $*"; }

make_base() {
    base=${base:-$work/base}
    [[ ! -e $base/etc/os-release ]] || return 0
    if ! command -v debootstrap >/dev/null; then
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends debootstrap >/dev/null
    fi
    # The release of this machine, since the programs are linked with its libraries.
    # shellcheck source=/dev/null
    debootstrap --variant=minbase --include=systemd,dbus,init-system-helpers,adduser \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$base.new" >"$work/debootstrap.log" 2>&1 ||
        fail "$(tail -n 5 "$work/debootstrap.log")"
    mv -- "$base.new" "$base"
}

# Starts the system: a copy of the base that is forgotten afterwards, with processes, network and groups of its own.
boot() {
    group=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)/fileshare-package-test.$$
    mkdir -- "$group" "$work/root"
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child --propagation private \
            bash -euc "$(declare -f enter); enter \"\$@\"" bash "$base" "$work/root"
    ) >"$work/boot.log" 2>&1 &
    init=$!
    for ((tries = 0; tries < 300; tries++)); do
        [[ $(inside systemctl is-system-running 2>/dev/null) =~ running|degraded ]] && return
        sleep 0.1
    done
    fail "the system does not start: $(<"$work/boot.log")"
}

enter() { # BASE ROOT
    mount -t tmpfs tmpfs "$2"
    mkdir "$2"/{upper,work,root}
    mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
    cd "$2/root"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs tmpfs run
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm old
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    pivot_root . old
    umount -l old
    exec env -i container=package-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no
}

inside() { # COMMAND...
    nsenter --all --target "$(pgrep -P "$init")" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
        DEBIAN_FRONTEND=noninteractive "$@"
}
put_inside() { # FILE PATH
    inside sh -c 'cat >"$1"' sh "$2" <"$1"
}
property() { # NAME
    inside systemctl show -P "$1" fileshare
}
expect() { # WHAT EXPECTED FOUND
    [[ $2 == "$3" ]] || fail "$1: '$3', expected '$2'"
}
wait_for() { # WHAT COMMAND...
    local what=$1
    shift
    for ((tries = 0; tries < 300; tries++)); do
        ! "$@" >"$work/last" 2>&1 || return 0
        sleep 0.1
    done
    fail "$what: $(<"$work/last") $(inside journalctl -u fileshare -n 20 --no-pager)"
}
client() { # USER [--OPTION...] COMMAND...: as the system user of that name
    local user=$1 arguments=()
    shift
    for word in "$@"; do
        [[ $word == --* ]] || arguments+=(-c)
        arguments+=("$word")
    done
    inside runuser -u "$user" -- env FILESHARE_PASSWORD="password of $user" HOME="/home/$user" \
        fileshare 127.0.0.1 12000 -u "$user" --dir "/home/$user" "${arguments[@]}" 2>"$work/notes.$user"
}

installs() {
    inside find / -xdev -not -path '/var/*' -not -path '/root*' -not -path '/home/*' -not -path '/tmp/*' | sort >"$work/before"
    inside dpkg -i /root/first.deb >"$work/install.log" 2>&1 || fail "$(<"$work/install.log")"
    expect "the service" "active enabled" "$(property ActiveState) $(inside systemctl is-enabled fileshare)"
    expect "the status" "0 peers online, 0 publications" "$(property StatusText)"
    local owners
    owners=$(inside stat -c '%a %U:%G' /etc/fileshare /etc/fileshare/credentials.txt /var/lib/fileshare /var/lib/fileshare/fileshare.db)
    expect "modes" $'750 root:fileshare\n640 root:fileshare\n700 fileshare:fileshare\n600 fileshare:fileshare' "$owners"
    expect "the user of the process" fileshare "$(inside stat -c %U "/proc/$(property MainPID)")"
    inside sh -c 'for file in /usr/bin/fileshare /usr/bin/fileshare-server /usr/share/bash-completion/completions/fileshare \
        /usr/share/bash-completion/completions/fileshare-server; do test -s $file || exit 1; done'
    inside dpkg --verify fileshare >"$work/verify"
    # A minimal system leaves documents out.
    ! grep -v /usr/share/ "$work/verify" || fail "files differ from those of the package"
}

explains_itself() {
    [[ $(inside fileshare 2>&1) == *"fileshare 127.0.0.1 12000"*"'fileshare-server' without arguments"* ]] || fail "$(inside fileshare 2>&1)"
    [[ $(inside fileshare-server 2>&1) == *"fileshare-server 12000"* ]] || fail "$(inside fileshare-server 2>&1)"
    [[ $(inside fileshare-server --help) == *"Usage: fileshare-server "* ]] || fail "the usage"
}

# As they are in the package: a minimal system leaves documents out.
has_documents() {
    local tree=$work/tree document link name manual escaped
    dpkg-deb --extract "$first" "$tree"
    local doc=$tree/usr/share/doc/fileshare
    for name in fileshare fileshare-server; do
        manual=$(zcat "$tree/usr/share/man/man1/$name.1.gz") escaped=${name//-/\\-}
        [[ $manual == *".TH $name 1  \"$name "*$'\n'"$escaped \\- "*$'\n'"\\fB$escaped\\fR ["* ]] || fail "the manual page of $name"
        [[ $(bash -c '. "$1" && complete -p' bash "$tree/usr/share/bash-completion/completions/$name") == *" $name" ]] || fail "bash completes something else"
        grep -q "^#compdef $name\$" "$tree/usr/share/zsh/vendor-completions/_$name" || fail "zsh completes something else"
        ! grep '^complete' "$tree/usr/share/fish/vendor_completions.d/$name.fish" | grep -qv "^complete -c $name " || fail "fish completes something else"
    done
    while IFS= read -r document; do
        while read -r link; do
            [[ $link == *://* || $link == '#'* || -e $(dirname "$document")/${link%%#*} ]] || fail "${document#"$doc/"} points to $link, which is not there"
        done < <(grep -oE '\]\([^)]+\)' "$document" | sed 's/^](//; s/)$//')
    done < <(find "$doc" -name '*.md')
    # The crates that cannot be left out, each with its text.
    zcat "$doc/crates-licences.txt.gz" >"$work/licences"
    for name in mio opaque-ke ring rusqlite snow; do
        grep -q "^$name [0-9.]* (.*): " "$work/licences" || fail "no licence of $name"
    done
    [[ $(zcat "$doc/rust-library-licences.html.gz") == *'<html'* ]] || fail "no licences of the standard library"
    # The test kits work with the programs of the package.
    [[ $(readlink -f "$tree"/usr/lib/fileshare/{client,server}) == "$tree/usr/bin/fileshare"$'\n'"$tree/usr/bin/fileshare-server" ]] || fail "FS_BIN"
}

is_hardened() {
    inside systemd-analyze verify /usr/lib/systemd/system/fileshare.service >"$work/unit" 2>&1 && [[ ! -s $work/unit ]] ||
        fail "the unit: $(<"$work/unit")"
    inside systemd-analyze security --no-pager --threshold=20 fileshare.service >"$work/unit" 2>&1 || fail "$(tail -n 3 "$work/unit")"
}

# Users in plain text and as a record, after a reload; a reload that is refused; a check beside the running server.
reloads() {
    echo 'hans password of hans' | inside sh -c 'cat >>/etc/fileshare/credentials.txt'
    echo 'password of vader' |
        inside runuser -u fileshare -- fileshare-server --enrol vader --data /var/lib/fileshare/fileshare.db |
        inside sh -c 'cat >>/etc/fileshare/credentials.txt'
    # It ends when the signal is sent, not when the file is read.
    inside systemctl reload fileshare
    wait_for "no line says that the credentials were read" in_journal "the credentials were read again: 2 users"
    wait_for "the service still reloads" is_active
    client vader lap >/dev/null || fail "vader cannot log in after the reload: $(<"$work/notes.vader")"
    inside cp -p /etc/fileshare/credentials.txt /root/credentials.txt
    echo nonsense | inside sh -c 'cat >>/etc/fileshare/credentials.txt'
    inside systemctl reload fileshare
    wait_for "no line says that the credentials were refused" in_journal "the credentials in force stay as they are"
    inside cp -p /root/credentials.txt /etc/fileshare/credentials.txt
    wait_for "the service still reloads" is_active
    client vader lap >/dev/null || fail "the old credentials are not in force: $(<"$work/notes.vader")"
    expect "--check" ok "$(inside runuser -u fileshare -- fileshare-server --check --bind 0.0.0.0 \
        --credentials /etc/fileshare/credentials.txt --data /var/lib/fileshare/fileshare.db)"
}

shares() {
    inside runuser -u hans -- sh -c 'head -c 3000000 /dev/urandom >/home/hans/film.mp4'
    client hans --stay 'pub film.mp4' >"$work/hans" 2>&1 &
    [[ $(client vader 'get --wait 20 film.mp4') == *"film.mp4 downloaded successfully"* ]] || fail "vader gets nothing: $(cat "$work"/hans "$work"/notes.*)"
    inside cmp /home/hans/film.mp4 /home/vader/film.mp4
}

reports() {
    wait_for "systemctl status has no figures" is_status "1 peers online, 1 publications"
    inside systemctl kill --signal SIGUSR1 fileshare
    wait_for "the figures are not in the log" in_journal 'fileshare_publications 1'
}
is_active() { [[ $(property ActiveState) == active ]]; }
is_status() { [[ $(property StatusText) == "$1" ]]; }
in_journal() { [[ $(inside journalctl -u fileshare --no-pager) == *"$1"* ]]; }

# With a shorter time than that of the package, so that the test need not wait for it.
restarts_when_stuck() {
    inside mkdir -p /run/systemd/system/fileshare.service.d
    printf '[Service]\nWatchdogSec=2\n' | inside sh -c 'cat >/run/systemd/system/fileshare.service.d/watchdog.conf'
    inside systemctl daemon-reload
    inside systemctl restart fileshare
    local before
    before=$(property MainPID)
    inside systemctl kill --signal SIGSTOP fileshare
    wait_for "a stuck server is not restarted" is_another_process "$before"
    in_journal 'Watchdog timeout' || fail "the journal does not say why"
    inside rm -r /run/systemd/system/fileshare.service.d
    inside systemctl daemon-reload
    wait_for "the peers are not back" is_status "1 peers online, 1 publications"
}
is_another_process() { [[ $(property ActiveState) == active && $(property MainPID) != "$1" ]]; }

# While hans serves. Data and credentials are those of before.
upgrades() {
    local before credentials
    before=$(property MainPID) credentials=$(inside sha256sum /etc/fileshare/credentials.txt)
    inside dpkg -i /root/second.deb >"$work/upgrade.log" 2>&1 || fail "$(<"$work/upgrade.log")"
    expect "the version" "$(dpkg-deb -f "$second" Version)" "$(inside dpkg-query -W -f '${Version}' fileshare)"
    is_another_process "$before" || fail "the server of before still runs"
    expect "the credentials" "$credentials" "$(inside sha256sum /etc/fileshare/credentials.txt)"
    inside rm /home/vader/film.mp4
    [[ $(client vader 'get --wait 20 film.mp4') == *"film.mp4 downloaded successfully"* ]] || fail "the publication is lost: $(cat "$work"/hans "$work"/notes.*)"
}

# What the administrator has switched off stays so.
stays_disabled() {
    inside systemctl disable --now fileshare 2>/dev/null
    inside dpkg -i /root/second.deb >"$work/upgrade.log" 2>&1 || fail "$(<"$work/upgrade.log")"
    expect "after an upgrade" "inactive disabled" "$(property ActiveState) $(inside systemctl is-enabled fileshare)"
    inside systemctl enable --now fileshare 2>/dev/null
}

is_removed() {
    inside dpkg -r fileshare >"$work/remove.log" 2>&1 || fail "$(<"$work/remove.log")"
    expect "the service" inactive "$(property ActiveState)"
    ! inside sh -c 'ls /usr/bin/fileshare* /usr/lib/systemd/system/fileshare.service' >/dev/null 2>&1 || fail "programs are left"
    inside test -s /etc/fileshare/credentials.txt -a -s /var/lib/fileshare/fileshare.db || fail "credentials or data are gone"
    inside dpkg -i /root/second.deb >"$work/install.log" 2>&1 || fail "$(<"$work/install.log")"
    wait_for "installed again, it has other data" is_status "1 peers online, 1 publications"
}

is_purged() {
    inside dpkg --purge fileshare >"$work/purge.log" 2>&1 || fail "$(<"$work/purge.log")"
    inside find / -xdev -not -path '/var/*' -not -path '/root*' -not -path '/home/*' -not -path '/tmp/*' | sort >"$work/after"
    local left
    left=$(comm -13 "$work/before" "$work/after")
    expect "left behind" "" "$left"
    ! inside test -e /var/lib/fileshare || fail "data are left"
}

make_base
first=$(scripts/package.sh "${options[@]}" --revision 1 "$work") second=$(scripts/package.sh --no-build --revision 2 "$work")
boot
for user in hans vader; do inside useradd --create-home "$user"; done
put_inside "$first" /root/first.deb
put_inside "$second" /root/second.deb
for step in installs explains_itself has_documents is_hardened reloads shares reports restarts_when_stuck upgrades stays_disabled is_removed is_purged; do
    "$step"
    ok "${step//_/ }"
done
