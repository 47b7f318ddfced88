#!/usr/bin/env bash
# release-chart.sh REGISTRY vX.Y.Z FILE: packages deploy/chart, pushes it to oci://REGISTRY, and writes its digest into FILE.
# Needs helm, logged in to the registry.
set -euo pipefail
registry=$1 version=${2#v} digest=$(realpath -m "$3")
cd "$(dirname "$0")/.."
rm -f "$digest"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
helm package deploy/chart --version "$version" --app-version "$version" --destination "$dir"
helm push "$dir/refrakt-gate-$version.tgz" "oci://$registry" 2>&1 | tee "$dir/pushed"
if ! grep -oE -m1 '^Digest: *sha256:[0-9a-f]{64}$' "$dir/pushed" >"$dir/digest"; then
  echo "release-chart: helm did not say the digest of the chart" >&2
  exit 1
fi
sed 's/^Digest: *//' "$dir/digest" >"$digest"
