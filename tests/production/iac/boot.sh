#!/usr/bin/env bash
# Becomes systemd of the Debian root in STATE, in the namespaces that it is started in. WORK holds
# what this boot changes; the file `go` there says that the network is ready.
# VOLUME is the block device that the host has besides its root. Without udev, systemd waits for no
# device if /sys is read-only.
# The machine's sysctls stay as they are: the host gets copies of its own to write to.
set -e
while [ ! -e "$WORK/go" ]; do sleep 0.05; done
hostname host
mount --make-rprivate /
mkdir -p "$WORK/upper" "$WORK/work" "$WORK/merged"
mount -t overlay overlay -o "lowerdir=$STATE/root,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/merged"
mount --bind "$STATE/archives" "$WORK/merged/var/cache/apt/archives"
cd "$WORK/merged"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs run -o mode=755
mount -t tmpfs tmpfs dev -o mode=755
for d in null zero full random urandom tty; do : >dev/$d; mount --bind /dev/$d dev/$d; done
mkdir -p dev/pts dev/shm dev/disk/by-id
cp -a "$VOLUME" dev/vdb
ln -s ../../vdb dev/disk/by-id/virtio-data
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=666
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%%:*}" "dev/${n##*:}"; done
for part in kernel vm fs; do
  (cd proc/sys/$part && find . -type d) | (mkdir -p run/sysctl/$part; cd run/sysctl/$part; xargs mkdir -p)
  (cd proc/sys/$part && find . -type f -perm -u+r) |
    while read -r f; do cat "proc/sys/$part/$f" >"run/sysctl/$part/$f" 2>/dev/null || :; done
  mount --bind run/sysctl/$part proc/sys/$part
done
umount sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p .old
pivot_root . .old
umount -l /.old
exec env -i container=amarre PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 \
  /lib/systemd/systemd --system --log-target=console --show-status=no systemd.unified_cgroup_hierarchy=1
