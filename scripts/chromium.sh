#!/usr/bin/env bash
# Installs chromium from the system's packages if it is missing.
set -euo pipefail
command -v chromium >/dev/null || "$(dirname "$0")/apt.sh" chromium "chromium"
