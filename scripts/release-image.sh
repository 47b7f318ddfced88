#!/usr/bin/env bash
# release-image.sh IMAGE vX.Y.Z FILE: builds the image for amd64 and arm64, with SBOM and provenance, pushes it, and writes
# its digest into FILE. Needs docker with buildx, logged in to the registry.
set -euo pipefail
image=$1 version=$2 digest=$(realpath -m "$3")
cd "$(dirname "$0")/.."
rm -f "$digest"

# The engine's own builder makes no attestations.
builder=refrakt-gate-release
docker buildx inspect "$builder" >/dev/null 2>&1 || docker buildx create --name "$builder" --driver docker-container
metadata=$(mktemp)
trap 'rm -f "$metadata"' EXIT
docker buildx build --builder "$builder" --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max \
  --build-arg VERSION="$version" --build-arg REVISION="$(git rev-parse HEAD)" \
  --tag "$image:$version" --push --metadata-file "$metadata" .
python3 -c 'import json, sys; print(json.load(sys.stdin)["containerimage.digest"])' <"$metadata" >"$digest"
