#!/usr/bin/env bash
# sign.sh IMAGE@DIGEST CHART@DIGEST FILE: signs image, chart and file with cosign, without a key: by the identity of the
# workflow that runs this. The signature of the file is FILE.sigstore.json.
set -euo pipefail
image=$1 chart=$2 file=$3
for signed in "$image" "$chart"; do
  if [[ ! $signed =~ @sha256:[0-9a-f]{64}$ ]]; then
    echo "sign: \"$signed\" has no digest, and a tag can move" >&2
    exit 1
  fi
done
modfile=$(dirname "$0")/../tools/cosign/go.mod
cosign() { go tool -modfile="$modfile" cosign "$@"; }
cosign sign --yes --recursive "$image"
cosign sign --yes "$chart"
cosign sign-blob --yes --bundle "$file.sigstore.json" "$file"
