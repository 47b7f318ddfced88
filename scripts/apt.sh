#!/usr/bin/env bash
# apt.sh PACKAGE NAME: installs a system package if that needs no password, else says what to run.
set -euo pipefail
package=$1 name=$2

if [ "$(id -u)" = 0 ]; then
  as_root=()
elif sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
else
  as_root=(false)
fi

# After a failed update, the old lists may still do. The install decides.
install() {
  "${as_root[@]}" apt-get update -qq || true
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"
}

if ! command -v apt-get >/dev/null || [ "${as_root[0]-}" = false ] || ! install </dev/null >&2; then
  echo "$name is not installed: run 'sudo apt-get install $package' (or your system's way), then try again" >&2
  exit 1
fi
