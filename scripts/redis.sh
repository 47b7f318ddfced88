#!/usr/bin/env bash
# Installs redis-server from the system's packages if it is missing.
set -euo pipefail
command -v redis-server >/dev/null || "$(dirname "$0")/apt.sh" redis-server "redis-server"
