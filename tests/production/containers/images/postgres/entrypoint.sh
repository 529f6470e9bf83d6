#!/usr/bin/env bash
# The steps of the official entry point when it does not run as root.
set -Eeo pipefail
POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE"); export PGPASSWORD=$POSTGRES_PASSWORD
mkdir -p "$PGDATA"; chmod 0700 "$PGDATA" || :; chmod 03775 /var/run/postgresql || :
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # shellcheck disable=SC2086
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") $POSTGRES_INITDB_ARGS
  printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
  pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
  for file in /docker-entrypoint-initdb.d/*.sh; do
    if [ -x "$file" ]; then "$file"; else . "$file"; fi
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
unset PGPASSWORD
exec "$@"
