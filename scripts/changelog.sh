#!/usr/bin/env bash
# changelog.sh vX.Y.Z|Unreleased: prints what CHANGELOG.md says of a version; fails if it has no such version.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1-}
version=${version#v}
awk -v heading="## [$version]" '
  index($0, "## [") == 1 { inside = index($0, heading) == 1; found = found || inside; next }
  /^\[[^]]*\]: / { next }
  inside && (NF || text) { text = text $0 "\n" }
  END { if (!found) exit 1; sub(/\n+$/, "", text); if (text != "") print text }
' CHANGELOG.md || {
  echo "changelog: CHANGELOG.md has no version $version" >&2
  exit 1
}
