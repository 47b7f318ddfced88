#!/usr/bin/env bash
# containers.sh PROGRAM...: installs what `make containers` needs of these from the system's packages, if it is missing.
# The packages' services are not started: the tests start an engine of their own.
set -euo pipefail
declare -A package=([dockerd]=docker.io [iptables]=iptables [mmdebstrap]=mmdebstrap [slirp4netns]=slirp4netns [curl]=curl [git]=git)
PATH=$PATH:/usr/sbin:/sbin

missing=()
for program in "$@"; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "${missing[0]} is not installed, and only root can run a container engine of its own: try again as root" >&2
  exit 1
fi
# Debian asks this file whether a package may start its service. A file that is there is the machine's own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 0755 "$policy"
  trap 'rm "$policy"' EXIT
fi
for program in "${missing[@]}"; do
  "$(dirname "$0")/apt.sh" "${package[$program]}" "$program"
done
