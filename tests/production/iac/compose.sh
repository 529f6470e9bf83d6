#!/bin/sh
# In place of the Compose plugin: writes down how it was called; `up` fails while /srv/fails exists.
# A unit that may write nowhere else may write to /dev/shm.
case "$1 $2 $3" in
  docker-cli-plugin-metadata*)
    echo '{"SchemaVersion":"0.1.0","Vendor":"test","Version":"2.26.1","ShortDescription":"test"}'; exit 0 ;;
  "compose version --short") echo 2.26.1; exit 0 ;;
esac
echo "$PWD $*" >>/dev/shm/compose.log
case "$*" in
  *pg_dump*) printf PGDMP ;;
  *" up "*) [ ! -e /srv/fails ] || { echo "a container is unhealthy" >&2; exit 1; } ;;
esac
