#!/usr/bin/env bash
# check-version.sh vX.Y.Z: fails unless everything that names the version of a release names this one.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1-}
if [[ ! $tag =~ ^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]]; then
  echo "check-version: \"$tag\" is not vX.Y.Z" >&2
  exit 1
fi
version=${tag#v} failed=0

# names FILE LINE: the file must have this line.
names() {
  if ! grep -qxF -- "$2" "$1"; then
    echo "check-version: $1 has no line \"$2\"" >&2
    failed=1
  fi
}

names deploy/chart/Chart.yaml "version: $version"
names deploy/chart/Chart.yaml "appVersion: $version"
names deploy/kubernetes/base/kustomization.yaml "  newTag: $tag"
if ! grep -qE "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md; then
  echo "check-version: CHANGELOG.md has no heading \"## [$version] - YYYY-MM-DD\"" >&2
  failed=1
fi
if scripts/changelog.sh Unreleased | grep -q .; then
  echo "check-version: CHANGELOG.md has changes under Unreleased; move them below [$version]" >&2
  failed=1
fi
exit "$failed"
