#!/usr/bin/env bash
# release.sh DIR VERSION OS/ARCH...: empties DIR and writes an archive and a CycloneDX SBOM for each platform, and
# SHA256SUMS. The same commit gives the same files.
set -euo pipefail
dir=$1 version=$2
shift 2
cd "$(dirname "$0")/.."

# The time of the commit, so that the time of the build changes nothing.
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)

rm -rf "$dir"
mkdir -p "$dir"
for platform in "$@"; do
  name="refrakt-gate_${version}_${platform//\//_}"
  stage="$dir/$name"
  mkdir "$stage"
  CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$stage/refrakt-gate" ./cmd/refrakt-gate
  cp LICENSE README.md CHANGELOG.md "$stage"
  # From the binary, not from go.mod: so it lists what the binary for this platform contains.
  go tool -modfile=tools/release/go.mod cyclonedx-gomod bin -json -noserial -notimestamp -version "$version" \
    -output "$dir/$name.cdx.json" "$stage/refrakt-gate"
  tar --create --directory "$dir" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX "$name" | gzip -n >"$dir/$name.tar.gz"
  rm -r "$stage"
done
cd "$dir"
sha256sum -- *.tar.gz *.cdx.json >SHA256SUMS
