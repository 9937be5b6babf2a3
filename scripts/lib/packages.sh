# shellcheck shell=bash
# What the scripts that get something for the tests have in common: saying what is
# missing, and getting packages of any release of Debian without installing them. Sourced
# by bash from the root of the checkout.

# missing MESSAGE...: ends the script; exit status 69 tells callers that nothing failed.
missing() {
    echo "$*" >&2
    exit 69
}

# need PROGRAM DEBIAN-PACKAGE
need() {
    command -v "$1" >/dev/null || missing "no $1 (Debian: apt-get install $2)"
}

# need_target TARGET: the toolchain has the standard library for it, or gets it.
need_target() {
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$1" ]; then
        need rustup rustup
        rustup -q target add "$1" || missing "rustup target add $1 failed"
    fi
}

# use_lists_of RELEASE [ARCHITECTURE]: sets `apt` to the options with which apt-get knows
# the packages of this release of Debian, whichever this machine has, and takes none for
# installed. The lists are in target/packages.
use_lists_of() {
    local architecture=${2:-amd64} lists archive
    lists=$PWD/target/packages/$1-$architecture
    apt=(
        -o "APT::Architecture=$architecture" -o "APT::Architectures::=$architecture"
        -o "Dir::Etc::SourceList=$lists.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$lists"
        -o Dir::State::Status=/dev/null -o Dir::Cache::PkgCache= -o Dir::Cache::SrcPkgCache=
        -o "APT::Sandbox::User=$(id -un)" -qq
    )
    if [ -e "$lists.list" ]; then return; fi
    need apt-get apt
    # shellcheck disable=SC2016 # apt's variable.
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
    [ -n "$archive" ] || missing 'apt-get names no archive (apt-get update)'
    mkdir -p "$lists/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >"$lists.new"
    apt-get update "${apt[@]}" -o "Dir::Etc::SourceList=$lists.new" >"$lists.log" 2>&1 ||
        missing "apt-get update failed for $1, see $lists.log"
    mv "$lists.new" "$lists.list"
}

# unpack DIRECTORY RELEASE PACKAGE...: into DIRECTORY, which is made anew; nothing is done
# where it was made from the same before. An argument behind RELEASE of the form -ARCHITECTURE
# names another one than amd64.
unpack() {
    local to=$1 release=$2 made_from="${*:2}" architecture='' download=$1.download package
    shift 2
    case ${1-} in -*) architecture=${1#-} && shift ;; esac
    if [ "$(cat "$to/.made-from" 2>/dev/null)" = "$made_from" ]; then return; fi
    need dpkg-deb dpkg
    echo "fetching $*"
    use_lists_of "$release" "$architecture"
    rm -rf "$to" "$download"
    mkdir -p "$to" "$download"
    (cd "$download" && apt-get download "${apt[@]}" "$@" >log 2>&1) ||
        missing "apt-get download failed, see $download/log"
    for package in "$download"/*.deb; do
        dpkg-deb -x "$package" "$to"
    done
    rm -r "$download"
    echo "$made_from" >"$to/.made-from"
}
