#!/usr/bin/env bash
# Makes a package for Debian and its relatives: fileshare_VERSION-REVISION_ARCHITECTURE.deb. docs/OPERATIONS.md describes it.
#
#   scripts/package.sh [--no-build] [--revision N] [FOLDER]
#
# The package is written to FOLDER, by default target/package, and its path to standard output. Its version is that of Cargo.toml,
# with revision N, by default 1. Builds release programs first; with --no-build, uses those in FS_BIN, by default those that were built.
# Needs dpkg-deb and dpkg-shlibdeps (Debian's dpkg-dev), python3 and the crates' sources as cargo has downloaded them, and no root.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

build=yes revision=1
while [[ ${1:-} == --* ]]; do
    case $1 in
    --no-build) build= ;;
    --revision) revision=${2:?} && shift ;;
    *) echo "usage: scripts/package.sh [--no-build] [--revision N] [FOLDER]" >&2 && exit 2 ;;
    esac
    shift
done
out=${1:-target/package}
[[ -z $build ]] || cargo build --release --locked --bins >&2
bin=${CARGO_TARGET_DIR:-target}/release
[[ -n $build ]] || bin=${FS_BIN:-$bin}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)-$revision
architecture=$(dpkg --print-architecture)
maintainer='The fileshare authors <fileshare@localhost>'
# The same input gives the same package: all files are as old as the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d "${TMPDIR:-/tmp}/fileshare-package.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
root=$work/root

put() { # FILE TARGET [MODE]
    install -D -m "${3:-644}" -- "$1" "$root/$2"
}
put_program() { # PROGRAM NAME
    put "$bin/$1" "usr/bin/$2" 755
    strip --strip-all "$root/usr/bin/$2"
    # By the name that the test kits know, for FS_BIN.
    mkdir -p "$root/usr/lib/fileshare"
    ln -s "../../bin/$2" "$root/usr/lib/fileshare/$1"
    put_renamed "docs/man/$1.1" "usr/share/man/man1/$2.1" "$@"
    put_renamed "docs/completions/$1.bash" "usr/share/bash-completion/completions/$2" "$@"
    put_renamed "docs/completions/_$1" "usr/share/zsh/vendor-completions/_$2" "$@"
    put_renamed "docs/completions/$1.fish" "usr/share/fish/vendor_completions.d/$2.fish" "$@"
}
put_renamed() { # FILE TARGET PROGRAM NAME: a manual page, or a completion for a shell
    sed -E "s/^\.TH $3 1  \"$3 /.TH $4 1  \"$4 /; s/^(\\\\fB)?$3(\\\\fR \[| \\\\- )/\1${4//-/\\\\-}\2/
        s/\b_$3\b/_$4/g; s/^(#compdef|.*\bcomp(def|lete -F) .*) $3\$/\1 $4/; s/^complete -c $3 /complete -c $4 /" "$1" >"$work/renamed"
    put "$work/renamed" "$2"
}
put_program client fileshare
put_program server fileshare-server
sed 's|/usr/local/bin/|/usr/bin/|' scripts/fileshare.service >"$work/fileshare.service"
put "$work/fileshare.service" usr/lib/systemd/system/fileshare.service
put scripts/package/credentials.txt usr/share/fileshare/credentials.txt
doc=usr/share/doc/fileshare
for file in *.md LICENSE-* docs/*.* docs/performance/* scripts/{README.md,functions.sh,fileshare_testkit.py}; do
    put "$file" "$doc/$file"
done
# What the programs are linked with.
python3 -B scripts/package/licences.py >"$root/$doc/crates-licences.txt"
put "$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html" "$doc/rust-library-licences.html"
cat >"$root/$doc/changelog.Debian" <<CHANGELOG
fileshare ($version) unstable; urgency=medium

  * What has changed is in CHANGELOG.md.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
CHANGELOG
gzip -9n "$root/$doc"/{changelog.Debian,crates-licences.txt,rust-library-licences.html} "$root"/usr/share/man/man1/*.1
put scripts/package/copyright "$doc/copyright"

# The libraries that the programs need, in the versions that they need.
mkdir "$work/debian"
printf 'Source: fileshare\n\nPackage: fileshare\nArchitecture: any\n' >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O --ignore-missing-info root/usr/bin/* 2>/dev/null | sed -n 's/^shlibs:Depends=//p')

mkdir "$root/DEBIAN"
install -m 755 scripts/package/{postinst,prerm,postrm} "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: fileshare
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -k -s --apparent-size "$root/usr" | cut -f 1)
Depends: $libraries, adduser
Recommends: systemd (>= 250)
Section: net
Priority: optional
Description: permissioned peer-to-peer file share
 One server knows who is online and who shares what; files move directly
 between clients, encrypted and verified. This package has the client,
 fileshare, and the server, fileshare-server, with its systemd service.
CONTROL
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -type d -exec chmod 755 {} +
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p -- "$out"
file=$out/fileshare_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$file" >&2
echo "$file"
