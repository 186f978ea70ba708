#!/bin/sh
# What does a worker need on Debian, Ubuntu or Raspberry Pi OS? This looks, and installs what is missing.
#
# One file that can be copied to a board alone, beside Hermes' wheel. dependencies_master.sh takes the
# functions from here.
set -eu

script="$0"
extra=torch
broker=
from=
python="${PYTHON:-python3}"
venv="$HOME/.hermes-edge/venv"
check=
yes=

usage() {
  cat << END
usage: $script [--check] [--yes] [--extra NAME] [--from PATH] [--venv DIR] [--broker HOST:PORT]

Sees that this machine has what a Hermes worker needs (Python 3.10 or newer with venv, tmux, and Hermes in
a virtual environment), and installs what is missing. Safe to run again; removes nothing; asks before it
uses root.

  --check             only report: exit code 0 if all is there, 1 if something is missing
  --yes               ask nothing (without it and without a terminal, nothing is installed as root)
  --extra NAME        torch (default), keras-torch, keras-tensorflow, or none: enough for hermes.nn jobs
  --from PATH         Hermes' checkout or wheel (default: the checkout that this file lies in, else
                      hermes_edge-*.whl beside it)
  --venv DIR          where to install Hermes (default: ~/.hermes-edge/venv, as hermes up does)
  --broker HOST:PORT  the cluster's broker: see that it can be reached from here, and name it in the line
                      that starts the worker
  PYTHON=...          another Python than python3
END
}

# --- what was asked for ---------------------------------------------------------------------------

fail() { # MESSAGE [REMEDY]
  printf 'error: %s\n' "$1" >&2
  if [ -n "${2:-}" ]; then printf '  %s\n' "$2" >&2; fi
  exit 2
}

value_of() { # FLAG VALUE: a flag's value must be there
  if [ -z "${2:-}" ]; then fail "$1 needs a value" "See $script --help"; fi
  printf '%s' "$2"
}

read_flags() {
  while [ $# -gt 0 ]; do
    case "$1" in
      -h | --help) usage; exit 0 ;;
      --check) check=1 ;;
      --yes | -y) yes=1 ;;
      --extra) extra="$(value_of "$@")"; shift ;;
      --broker) broker="$(value_of "$@")"; shift ;;
      --from | --venv | --kafka) read_own_flag "$@"; shift ;;
      *) fail "unknown argument: $1" "See $script --help" ;;
    esac
    shift
  done
  case "$extra" in
    torch | keras-torch | keras-tensorflow | none) ;;
    *) fail "unknown extra: $extra" "One of torch, keras-torch, keras-tensorflow, none" ;;
  esac
  case "$broker" in
    '' | ?*:[0-9]*) ;;
    *) fail "--broker $broker is no HOST:PORT" "Such as --broker 192.168.1.10:9092" ;;
  esac
}

read_own_flag() { # the flags that only this script has; dependencies_master.sh has others
  case "$1" in
    --from) from="$(value_of "$@")" ;;
    --venv) venv="$(value_of "$@")" ;;
    *) fail "unknown argument: $1" "See $script --help" ;;
  esac
}

# --- what is here ---------------------------------------------------------------------------------

missing=  # what, for people
packages=  # Debian's, that bring it
to_install=  # 1: Hermes itself is to be installed, which needs no root

need() { # WHAT TEST PACKAGES
  if $2; then
    printf '  there    %s\n' "$1"
  else
    printf '  missing  %s\n' "$1"
    missing="$missing$1; "
    packages="$packages $3"
  fi
}

need_hermes() { # WHAT TEST
  if $2; then
    printf '  there    %s\n' "$1"
  else
    printf '  missing  %s\n' "$1"
    missing="$missing$1; "
    to_install=1
  fi
}

has_python() { "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; }
has_venv() { "$python" -c 'import ensurepip, venv' 2> /dev/null; }
has_tmux() { command -v tmux > /dev/null; }

check_machine() {
  if [ "$(getconf LONG_BIT 2> /dev/null || echo 64)" = 32 ]; then
    fail "this system is a 32-bit one, for which the packages that Hermes needs are not made" \
      "Install the 64-bit image of the system (Raspberry Pi OS has one for every board since the Pi 3)."
  fi
  if command -v "$python" > /dev/null && ! has_python; then
    fail "Hermes needs Python 3.10 or newer; $python is $("$python" --version 2>&1)" \
      "Use a newer release of the system (Debian 12, Ubuntu 22.04), or name another: PYTHON=/path/to/python3"
  fi
}

check_broker() { # whether HOST:PORT takes a connection from here; nothing is sent
  if ! has_python; then
    printf '  unknown  a broker at %s (there is no Python to ask with)\n' "$broker"
  elif said="$("$python" - "$broker" << 'END' 2>&1
import socket, sys
host, _, port = sys.argv[1].rpartition(":")
try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
except (OSError, ValueError, OverflowError) as error:
    sys.exit(str(error))
END
  )"; then
    printf '  there    something answers at %s\n' "$broker"
  else
    printf '  missing  a broker at %s (%s)\n' "$broker" "$said"
    missing="${missing}a broker at $broker; "
  fi
}

# --- Debian's packages ----------------------------------------------------------------------------

root=  # what comes before a command that needs root
root_known=

find_root() {
  root_known=1
  if [ "$(id -u)" = 0 ]; then
    root=
  elif command -v sudo > /dev/null; then
    root="sudo "
  else
    root_known=
    root="(as root) "
  fi
}

apt_commands() {
  printf '  %sapt-get update\n' "$root"
  printf '  %sapt-get install -y --no-install-recommends --no-remove%s\n' "$root" "$packages"
}

allowed() { # asks, where somebody is there to ask
  if [ -n "$yes" ]; then return 0; fi
  if [ ! -t 0 ]; then
    printf 'There is no terminal to ask at. Nothing was installed. Run these yourself, or give --yes:\n' >&2
    apt_commands >&2
    return 1
  fi
  printf 'These need root:\n'
  apt_commands
  printf 'Run them? [y/N] '
  read -r answer || answer=
  case "$answer" in
    [yY] | [yY][eE][sS]) ;;
    *) printf 'Nothing was installed.\n' >&2; return 1 ;;
  esac
}

install_packages() {
  if ! command -v apt-get > /dev/null; then
    fail "this system has no apt-get; missing here: ${missing%; }" \
      "Install these with the system's own package manager, then run this again."
  fi
  if ! allowed; then exit 2; fi
  if [ -z "$root_known" ]; then
    fail "installing needs root, and there is no sudo here" "As root, run:
$(apt_commands)"
  fi
  # $root and $packages are lists of words
  # shellcheck disable=SC2086
  ${root}apt-get update -q
  # shellcheck disable=SC2086
  ${root}env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove $packages
}

# --- Hermes ---------------------------------------------------------------------------------------

find_hermes() { # sets `from`; empty if nothing is beside this file
  if [ -z "$from" ]; then
    here="$(cd "$(dirname "$script")" && pwd)"
    if [ -f "$here/pyproject.toml" ] && [ -d "$here/hermes" ]; then
      from="$here"
    else
      for wheel in "$here"/hermes_edge-*.whl; do
        if [ -f "$wheel" ]; then from="$wheel"; fi
      done
    fi
  elif [ ! -e "$from" ]; then
    fail "--from $from is not there"
  else
    from="$(cd "$(dirname "$from")" && pwd)/$(basename "$from")"
  fi
}

source_sum() { # tells one state of the source from another
  if [ -d "$from" ]; then
    (cd "$from" && find hermes pyproject.toml -type f ! -name '*.pyc' | LC_ALL=C sort | xargs cat | cksum)
  else
    cksum < "$from"
  fi
}

stamp_text() { printf '%s %s' "$extra" "$(source_sum)"; }

has_hermes() {
  [ -x "$venv/bin/hermes" ] || return 1
  if [ -z "$from" ]; then return 0; fi  # nothing to compare with: what is there will do
  [ "$(cat "$venv/.hermes-dependencies" 2> /dev/null)" = "$(stamp_text)" ]
}

install_hermes() {
  if [ -z "$from" ]; then
    fail "there is no Hermes beside this file to install" \
      "Copy the wheel here (on the master: python3 -m pip wheel --no-deps -w dist .), or name it: --from PATH"
  fi
  wanted="$from"
  if [ "$extra" != none ]; then wanted="${from}[$extra]"; fi
  set --
  if [ -f "$from/constraints.txt" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    set -- -c "$from/constraints.txt"  # of releases that Python 3.10 does not have
  fi
  printf 'Installing %s into %s ...\n' "$wanted" "$venv"
  if [ ! -x "$venv/bin/python" ]; then "$python" -m venv "$venv"; fi
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --upgrade "$@" "$wanted"
  if [ -f "$from" ]; then  # the same version may have other contents
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --force-reinstall --no-deps "$from"
  fi
  stamp_text > "$venv/.hermes-dependencies"
}

# --- a worker -------------------------------------------------------------------------------------

look() {
  printf 'A worker, with Hermes (extra: %s):\n' "$extra"
  check_machine
  find_hermes
  need "Python 3.10 or newer ($python)" has_python python3
  need "venv" has_venv python3-venv
  need "tmux" has_tmux tmux
  need_hermes "Hermes in $venv" has_hermes
}

told() {
  cat << END
Ready. To let this worker in, type on the master (any name will do; one for each worker):
  hermes invite worker-1${broker:+ --broker $broker}
It writes worker-1.key and prints a line. Carry that file here (mode 0600) and type the line here, in tmux,
so that it goes on when you log out:
  tmux new-session -s hermes
  $venv/bin/hermes worker --join TOKEN --key-file worker-1.key
END
}

main() {
  read_flags "$@"
  find_root
  look
  if [ -n "$broker" ]; then check_broker; fi
  if [ -n "$check" ]; then
    if [ -z "$missing" ]; then printf 'All is there.\n'; exit 0; fi
    printf 'Missing: %s\n' "${missing%; }"
    if [ -n "$packages$to_install" ]; then printf 'To install it: %s\n' "$(again)"; fi
    if [ -n "$packages" ]; then printf 'which would run:\n'; apt_commands; fi
    exit 1
  fi
  if [ -n "$packages" ]; then install_packages; check_machine; fi
  if [ -n "$to_install" ]; then install_hermes; fi
  told
}

again() { # the command that installs what is missing
  printf '%s --extra %s' "$script" "$extra"
  again_own
  if [ -n "$broker" ]; then printf ' --broker %s' "$broker"; fi
}

again_own() {
  if [ -n "$from" ]; then printf ' --from %s' "$from"; fi
  printf ' --venv %s' "$venv"
}

if [ -z "${HERMES_DEPENDENCIES:-}" ]; then main "$@"; fi
