#!/usr/bin/env bash
# Installs the programs that some tests need, where this user may, and says what stays missing.
set -u
cd "$(dirname "$0")" || exit 1

# Each Envoy watches its files with six to eight inotify instances, and tests run several meshes.
most=/proc/sys/fs/inotify/max_user_instances
if [ -w "$most" ] && [ "$(cat "$most")" -lt 512 ]; then
  echo 512 >"$most" || echo "inotify instances stay at $(cat "$most"); tests with many proxies may fail"
fi

# The official Node SDK of Appwrite, for the tests of its sandbox; Mermaid, for the diagrams; axe, for the pages.
for folder in sandbox/appwrite/node node; do
  if ! command -v npm >/dev/null; then
    echo "Not installed: npm. The tests that need tests/$folder are skipped and say so."
  elif [ ! "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ]; then
    (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts) \
      || echo "npm ci did not work in tests/$folder"
  fi
done

declare -A package=(
  [chromium]=chromium
  [iptables-restore]=iptables
  [nft]=nftables
  [redis-server]=redis-server
  [prometheus]=prometheus
  [prometheus-alertmanager]=prometheus-alertmanager
  [prometheus-node-exporter]=prometheus-node-exporter
)
missing=()
for program in "${!package[@]}"; do
  command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing for the tests: ${missing[*]}"
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  # Debian's packages start servers of their own at once; the tests start theirs on free ports.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  if apt-get update >"$log" 2>&1 && apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then
    exit 0
  fi
  echo "That did not work; the log is in $log"
fi
echo "Not installed: ${missing[*]}. The tests that need them are skipped and say so."
echo "To run them: apt-get install ${missing[*]}"
