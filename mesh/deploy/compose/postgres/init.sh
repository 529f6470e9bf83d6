#!/usr/bin/env bash
# Creates a role and a database for each service that stores data, when the volume is new.
set -euo pipefail
for service in auth survey; do
  password=$(cat "/run/secrets/postgres-$service-password")
  psql --set ON_ERROR_STOP=1 --set name="$service" --set password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
