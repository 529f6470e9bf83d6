#!/usr/bin/env bash
# A container engine of its own, for tests on machines that have Debian's packages but no engine.
#
#   engine.sh install   install the engine and the root of the base image (once, 3 minutes)
#   engine.sh start     start registry and engine, print the variables to export
#   engine.sh stop      stop what `start` started, by process id
#   engine.sh restart   stop and start the engine alone, as a reboot would
#
# STATE is the folder of everything; it can be deleted after `stop`. PORT is the registry's.
# The engine is Debian 13's in a mount namespace of its own: a plain chroot is not enough, since
# runc's pivot_root would leave the machine's root on top and `docker exec` would land there.
set -euo pipefail
STATE=$(realpath -m "${STATE:?the folder of the engine}"); PORT=${PORT:-5006}
run=$STATE/run
export DOCKER_HOST=unix://$run/docker.sock DOCKER_CONFIG=$STATE/client DEBIAN_FRONTEND=noninteractive

root() { # SUITE FOLDER PACKAGES: a minimal Debian, kept once it is complete
  [ -e "$2/.complete" ] && return
  rm -rf "$2"
  local mirror; mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
  debootstrap --variant=minbase --include="$3" "$1" "$2" "$mirror" >"$2.log" 2>&1
  touch "$2/.complete"
}

install_() {
  mkdir -p "$STATE/client/cli-plugins"
  if ! command -v debootstrap docker-registry docker >/dev/null; then
    apt-get update -q && apt-get install -qy --no-install-recommends debootstrap docker-registry docker.io
  fi >"$STATE/install.log" 2>&1
  root trixie "$STATE/host" docker.io,docker-cli,docker-compose,iptables,ca-certificates,procps &
  local host=$!
  # shellcheck disable=SC1091
  root "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$STATE/base" \
    ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libreadline8,libbz2-1.0,liblzma5,libncursesw6,libuuid1,zlib1g,libexpat1
  wait "$host"
  cp "$STATE/host/usr/libexec/docker/cli-plugins/docker-compose" "$STATE/client/cli-plugins/"
  # As in the official image: one Python below /usr/local.
  local prefix version
  read -r prefix version < <("${PYTHON:?}" -c 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2])')
  tar -C "$prefix" -c --exclude=__pycache__ --exclude="lib/python$version/test" --exclude='*.a' \
    --exclude="lib/python$version/site-packages/*" "bin/python$version" "lib/python$version" "include/python$version" \
    $(cd "$prefix" && ls -d lib/libpython3*.so* 2>/dev/null) | tar -C "$STATE/base/usr/local" -x
  for link in python python3; do ln -sf "python$version" "$STATE/base/usr/local/bin/$link"; done
  chroot "$STATE/base" sh -ec 'ldconfig; python -m ensurepip >/dev/null 2>&1; python -c "import ssl, sqlite3, ctypes, bz2, lzma, uuid"'
  # Where packages come from on this machine, for pip inside of builds.
  { echo '[global]'; "$PYTHON" -m pip config list 2>/dev/null |
    sed -nE "s/^(global|:env:)\.(index-url|extra-index-url|trusted-host|timeout)='(.*)'$/\2 = \3/p"; } >"$STATE/base/etc/pip.conf"
  cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$STATE/base/etc/ssl/certs/ca-certificates.crt"
}

inner() { # in the new mount namespace
  cd "$STATE/host"
  mount --bind . . && cd "$STATE/host"
  for path in proc sys dev; do mount --rbind "/$path" "$path"; done
  mkdir -p ".$STATE" && mount --bind "$STATE" ".$STATE"
  cp -L /etc/resolv.conf /etc/hosts etc/
  mkdir -p .old && pivot_root . .old && umount -l /.old
  cd / && exec dockerd --registry-mirror "http://127.0.0.1:$PORT" --data-root "$STATE/data" \
    --exec-root "$STATE/exec" --pidfile "$run/docker.pid" -H "$DOCKER_HOST"
}

engine() {
  docker info >/dev/null 2>&1 && return
  STATE=$STATE PORT=$PORT setsid unshare --mount --propagation private bash "$0" inner \
    >>"$STATE/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 240); do docker info >/dev/null 2>&1 && return; sleep 0.25; done
  tail -5 "$STATE/dockerd.log" >&2; exit 1
}

start() {
  mkdir -p "$run" "$STATE"/{data,exec,registry}
  printf 'version: 0.1\nstorage:\n  filesystem: {rootdirectory: %s}\nhttp: {addr: 127.0.0.1:%s}\n' \
    "$STATE/registry" "$PORT" >"$STATE/registry.yml"
  if ! curl -fs "http://127.0.0.1:$PORT/v2/" >/dev/null; then
    setsid docker-registry serve "$STATE/registry.yml" >"$STATE/registry.log" 2>&1 </dev/null &
    echo $! >"$run/registry.pid"
  fi
  engine
  if [ ! -s "$run/digest" ]; then
    # The mirror answers for docker.io/library/python@DIGEST: no file of the product has to change.
    local name=127.0.0.1:$PORT/library/python:base ca=/etc/ssl/certs/ca-certificates.crt
    tar -C "$STATE/base" -c --exclude='./proc/*' --exclude='./sys/*' --exclude='./var/cache/apt/archives/*.deb' . |
      docker import --change 'CMD ["python3"]' \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change "ENV SSL_CERT_FILE=$ca PIP_CERT=$ca REQUESTS_CA_BUNDLE=$ca" - "$name" >/dev/null
    docker push -q "$name" >/dev/null
    docker image inspect "$name" --format '{{index .RepoDigests 0}}' | sed 's/.*@//' >"$run/digest"
  fi
  printf 'DOCKER_HOST=%s\nDOCKER_CONFIG=%s\nPYTHON_DIGEST=%s\n' "$DOCKER_HOST" "$DOCKER_CONFIG" "$(cat "$run/digest")"
}

end() { # NAME: end what NAME.pid holds, and wait for it
  [ -s "$run/$1.pid" ] || return 0
  local pid; pid=$(cat "$run/$1.pid")
  kill "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
  rm -f "$run/$1.pid"
}

stop() {
  docker ps -q 2>/dev/null | xargs -r docker stop -t 10 >/dev/null
  end docker; end registry
}

case ${1:-} in
  install) install_ ;;
  start | stop | inner) "$1" ;;
  restart) end docker; engine ;;
  *) sed -n '2,12p' "$0"; exit 2 ;;
esac
