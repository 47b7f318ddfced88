#!/usr/bin/env bash
# Installs prometheus and promtool from the system's packages if they are missing. The tests start their own, so the
# service that the package may start is not needed.
set -euo pipefail
command -v prometheus >/dev/null && command -v promtool >/dev/null || "$(dirname "$0")/apt.sh" prometheus "prometheus"
