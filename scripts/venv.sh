#!/usr/bin/env bash
# venv.sh DIR REQUIREMENTS: makes a Python environment in DIR with exactly the pinned packages.
set -euo pipefail
dir=${1%/} requirements=$2

# --clear below would empty the folder that the symlink points to, which may belong to another checkout.
if [ -L "$dir" ]; then
  echo "$dir is a symlink: remove it, then try again" >&2
  exit 1
fi
if ! command -v python3 >/dev/null; then
  echo "python3 is not installed: run 'apt-get install python3 python3-venv' (or your system's way)" >&2
  exit 1
fi
# Debian's module venv comes without pip.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  "$(dirname "$0")/apt.sh" python3-venv "Python's venv module"
fi
python3 -m venv --clear "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
