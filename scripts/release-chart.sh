#!/usr/bin/env bash
# release-chart.sh REGISTRY vX.Y.Z FILE: packages deploy/chart, pushes it to oci://REGISTRY, and writes its digest into FILE.
# Needs helm, logged in to the registry.
set -euo pipefail
registry=$1 version=${2#v} digest=$3
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
helm package deploy/chart --version "$version" --app-version "$version" --destination "$dir"
helm push "$dir/refrakt-gate-$version.tgz" "oci://$registry" 2>&1 | tee "$dir/pushed"
sed -n 's/^Digest: *\(sha256:[0-9a-f]\{64\}\)$/\1/p' "$dir/pushed" >"$digest"
[ -s "$digest" ] || {
  echo "release-chart: helm did not say the digest of the chart" >&2
  exit 1
}
