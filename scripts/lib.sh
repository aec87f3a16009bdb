# Shared by the scripts beside it: where things lie, how they speak. Sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
driver_name=nomad-driver-jenkins-agent

# ccache keys must not depend on where the checkout lies.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1

say() { printf '== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# usage: print the calling script's own head comment.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit "${1:-0}"; }

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# version_at_least WANTED FOUND
version_at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n1) == "$1" ]]; }

# human SIZE_IN_BYTES
human() { numfmt --to=iec-i --suffix=B "$1"; }

driver_path() { echo "$root/build/$1/driver/$driver_name"; }   # release or test

# nomad_binary: the Nomad that tests and the demo use; empty when there is none yet.
nomad_minimum=1.8
nomad_binary() {
  local found
  if found=$(command -v nomad) &&
      version_at_least "$nomad_minimum" "$("$found" version | sed -n 's/^Nomad v\([0-9.]*\).*/\1/p')"; then
    echo "$found"
  elif [[ -x $cache/nomad ]]; then
    echo "$cache/nomad"
  fi
}

# configure release|test|fuzz|tsan: CMake's part of a build; does nothing when it is up to date.
configure() {
  local directory=$root/build/$1 sanitize=ON launcher=() more=()
  [[ $1 == test ]] || sanitize=OFF
  [[ $1 != tsan ]] || more=(-DTSAN=ON)
  [[ $1 != fuzz ]] || more=(-DFUZZ=ON -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14)
  [[ ! -f $directory/build.ninja ]] || return 0   # ninja runs CMake again when a CMakeLists.txt changed
  if have ccache; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  say "configuring build/$1"
  cmake -S "$root" -B "$directory" -G Ninja -DSANITIZE=$sanitize "${more[@]}" "${launcher[@]}" >"$cache/configure-$1.log" 2>&1 ||
    { cat "$cache/configure-$1.log" >&2; die "CMake failed for build/$1"; }
}

# compile release|test|fuzz|tsan [TARGET...]
compile() {
  local kind=$1; shift
  configure "$kind"
  say "building build/$kind ${*:-(everything)}"
  ninja -C "$root/build/$kind" "$@" || die "the build of build/$kind failed"
}

# our C++ sources, for format and lint
sources() { (cd "$root" && find driver cgroups tests -name '*.cc' -o -name '*.h' | sort); }

# For tests and benches; unpacked, never installed: their packages start services.
fetch_service() {  # package, which has a program of the same name
  local fresh
  [[ ! -d $cache/$1 ]] && ! have "$1" || return 0
  apt-cache show "$1" >/dev/null 2>&1 || as_root apt-get -qq update
  say "fetching $1"
  mkdir -p "$cache"
  fresh=$(mktemp -d "$cache/fetch.XXXXXX")
  (cd "$fresh" && apt-get -qq -o APT::Sandbox::User=root download "$1" && dpkg-deb -x ./*.deb "$1") ||
    die "$1 could not be fetched and unpacked"
  mv "$fresh/$1" "$cache/$1"
  rm -r "$fresh"
  done_something+=("$1")
}
