#!/usr/bin/env bash
# unreleased.sh vX.Y.Z: fails if there is a release of this version on GitHub, or if that can't be found out. Needs gh.
set -euo pipefail
if answer=$(gh api "repos/$GITHUB_REPOSITORY/releases/tags/$1" 2>&1); then
  echo "unreleased: $1 has been released; make the next version" >&2
  exit 1
fi
if [[ $answer != *'HTTP 404'* ]]; then
  echo "unreleased: ask GitHub for the release $1: $answer" >&2
  exit 1
fi
