#!/usr/bin/env bash
# containers.sh [PROGRAM...]: installs what a container engine for tests needs, and these programs, from the system's
# packages if they are missing. The packages' services are not started: the tests start an engine of their own.
set -euo pipefail
declare -A package=([dockerd]=docker.io [docker]=docker-cli)
export PATH=$PATH:/usr/sbin:/sbin

if [ "$(id -u)" != 0 ]; then
  echo "only root can run a container engine of its own: try again as root" >&2
  exit 1
fi
for program in dockerd docker iptables curl git "$@"; do
  command -v "$program" >/dev/null && continue
  # Debian asks this file whether a package may start its service. One that is there is the machine's own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
  fi
  "$(dirname "$0")/apt.sh" "${package[$program]:-$program}" "$program"
done
