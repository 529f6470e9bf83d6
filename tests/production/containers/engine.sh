#!/usr/bin/env bash
# A container engine of its own, for tests on machines that have Debian's packages but no engine.
#
#   engine.sh install   install the engine and the root of the base image (once, 3 minutes)
#   engine.sh start     start network, registry and engine, print the variables to export
#   engine.sh stop      stop what `start` started, by process id, and remove its network
#   engine.sh restart   stop and start the engine alone, as a reboot would
#
# STATE is the folder of everything; it can be deleted after `stop`.
# The engine is Debian 13's, in a mount namespace of its own: a plain chroot is not enough, since
# runc's pivot_root would leave the machine's root on top and `docker exec` would land there.
# It also has a network namespace of its own, whose only way out is slirp4netns: bridges, packet
# filter rules and published ports never touch the machine's network and end with the namespace.
set -euo pipefail
STATE=$(realpath -m "${STATE:?the folder of the engine}"); PORT=5006
run=$STATE/run
group=$(basename "$STATE")
export DOCKER_HOST=unix://$run/docker.sock DOCKER_CONFIG=$STATE/client DEBIAN_FRONTEND=noninteractive
docker() { "$STATE/bin/docker" "$@"; }

root() { # SUITE FOLDER PACKAGES: a minimal Debian, kept once it is complete
  [ -e "$2/.complete" ] && return
  rm -rf "$2"
  local mirror; mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
  debootstrap --variant=minbase --include="$3" "$1" "$2" "$mirror" >"$2.log" 2>&1 || { tail -5 "$2.log" >&2; exit 1; }
  touch "$2/.complete"
}

install_() {
  mkdir -p "$STATE/client/cli-plugins" "$STATE/bin"
  command -v debootstrap >/dev/null || {
    apt-get update -q && apt-get install -qy --no-install-recommends debootstrap
  } >"$STATE/install.log" 2>&1
  root trixie "$STATE/host" docker.io,docker-cli,docker-compose,docker-registry,slirp4netns,iptables,iproute2,ca-certificates,procps &
  local host=$!
  # shellcheck disable=SC1091
  root "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$STATE/base" \
    ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libreadline8,libbz2-1.0,liblzma5,libncursesw6,libuuid1,zlib1g,libexpat1
  wait "$host"
  cp "$STATE/host/usr/libexec/docker/cli-plugins/docker-compose" "$STATE/client/cli-plugins/"
  cp "$STATE/host/usr/bin/docker" "$STATE/bin/"
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

enter() { # COMMAND...: inside of Debian 13, in a mount namespace of its own
  export STATE; exec setsid unshare --mount --propagation private bash "$0" inner "$@" </dev/null
}

inner() { # COMMAND...: in the new mount namespace
  cd "$STATE/host"
  mount --bind . . && cd "$STATE/host"
  for path in proc sys dev; do mount --rbind "/$path" "$path"; done
  mkdir -p ".$STATE" && mount --bind "$STATE" ".$STATE"
  cp -L /etc/hosts etc/
  echo 'nameserver 10.0.2.3' >etc/resolv.conf # slirp4netns, which asks the machine's
  mkdir -p .old && pivot_root . .old && umount -l /.old
  cd / && exec "$@"
}

background() { # NAME COMMAND...: start COMMAND, whose process id goes to NAME.pid
  local name=$1; shift
  "$@" >>"$STATE/$name.log" 2>&1 </dev/null &
  echo $! >"$run/$name.pid"
}

inside() { exec nsenter --net="/proc/$(cat "$run/net.pid")/ns/net" "$@"; }

network() {
  is_alive net && return
  background net exec setsid unshare --net sleep infinity
  local net; net=$(cat "$run/net.pid")
  until [ "$(readlink "/proc/$net/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
  (inside chroot "$STATE/host" ip link set lo up)
  background slirp enter slirp4netns --configure --mtu 65520 --disable-host-loopback "$net" tap0
  for _ in $(seq 100); do (inside chroot "$STATE/host" ip route show default) | grep -q tap0 && return; sleep 0.1; done
  cat "$STATE/slirp.log" >&2; exit 1
}

registry() {
  is_alive registry && return
  printf 'version: 0.1\nstorage:\n  filesystem: {rootdirectory: %s}\nhttp: {addr: 127.0.0.1:%s}\n' \
    "$STATE/registry" "$PORT" >"$STATE/registry.yml"
  background registry inside bash "$0" enter docker-registry serve "$STATE/registry.yml"
}

engine() {
  docker info >/dev/null 2>&1 && return
  background docker inside bash "$0" enter dockerd --registry-mirror "http://127.0.0.1:$PORT" \
    --cgroup-parent "/$group" --data-root "$STATE/data" --exec-root "$STATE/exec" --pidfile "$run/dockerd.pid" -H "$DOCKER_HOST"
  for _ in $(seq 240); do docker info >/dev/null 2>&1 && return; sleep 0.25; done
  tail -5 "$STATE/docker.log" >&2; exit 1
}

start() {
  mkdir -p "$run" "$STATE"/{data,exec,registry}
  network; registry; engine
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
  printf '%s\n' "DOCKER_HOST=$DOCKER_HOST" "DOCKER_CONFIG=$DOCKER_CONFIG" "PATH=$STATE/bin:$PATH" \
    "PYTHON_DIGEST=$(cat "$run/digest")" "NETWORK=/proc/$(cat "$run/net.pid")/ns/net"
}

is_alive() { [ -s "$run/$1.pid" ] && kill -0 "$(cat "$run/$1.pid")" 2>/dev/null; }

end() { # NAME: end what NAME.pid holds, and wait for it
  [ -s "$run/$1.pid" ] || return 0
  local pid; pid=$(cat "$run/$1.pid")
  kill "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
  rm -f "$run/$1.pid"
}

stop() {
  docker ps -q 2>/dev/null | xargs -r "$STATE/bin/docker" stop -t 10 >/dev/null || true
  end docker; end registry; end slirp; end net
  # The engine leaves its empty control groups behind.
  find /sys/fs/cgroup -depth -type d \( -path "*/$group" -o -path "*/$group/*" \) -exec rmdir {} + 2>/dev/null || true
}

case ${1:-} in
  install) install_ ;;
  start | stop) "$1" ;;
  enter | inner) "$@" ;;
  restart) end docker; engine ;;
  *) sed -n '2,14p' "$0"; exit 2 ;;
esac
