#!/usr/bin/env bash
# digests.sh: asks the registries for the digests of the base images, and pins them in the files that name one:
# NAME:TAG becomes NAME:TAG@sha256:…. A digest that is there is replaced. Needs docker with buildx, and the network.
set -euo pipefail
cd "$(dirname "$0")/.."
files=(Dockerfile examples/api/Dockerfile docker-compose.yml)

# `FROM [--platform=…] NAME` and `image: NAME`, without a digest. bases.go in test/containers looks for the same.
names=$(sed -nE 's/^ *(FROM +(--[^ ]+ +)?|(- )?image: +)([^ @]+).*/\4/p' "${files[@]}" | sort -u)
for name in $names; do
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$name")
  if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
    echo "$name: the registry's answer is no digest: $digest" >&2
    exit 1
  fi
  echo "$name@$digest"
  sed -i -E "s#^( *(FROM +(--[^ ]+ +)?|(- )?image: +))${name//./\\.}(@sha256:[0-9a-f]{64})?( |\$)#\1$name@$digest\6#" "${files[@]}"
done
