# Makes a throw-away copy of this system and becomes its first process: throwaway.sh FOLDER CGROUP COMMAND...
#
# The copy is an overlay of `/` whose changes are in memory, with processes, network, kernel objects and control groups of its own.
set -e
folder=$1 cgroup=$2
shift 2
if [ -z "$THROWAWAY" ]; then
    # In a control group of its own before the namespace makes that group the root.
    mount -t tmpfs tmpfs "$folder"
    mkdir "$folder/cgroups" "$folder/upper" "$folder/work" "$folder/root"
    mount -t cgroup2 cgroup2 "$folder/cgroups"
    mkdir "$folder/cgroups/$cgroup"
    echo $$ >"$folder/cgroups/$cgroup/cgroup.procs"
    export THROWAWAY=inside
    exec unshare --cgroup --ipc --net --uts --pid --fork --kill-child sh "$0" "$folder" "$cgroup" "$@"
fi
root=$folder/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
# What this machine knows of treeline is not there.
rm -rf "$root/var/lib/treeline" "$root/etc/treeline" "$root/usr/bin/treeline"
# What is no namespace's own is not set anew.
mkdir -p "$root/etc/systemd/system"
for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-pstore systemd-random-seed; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf -o mode=700 bpf "$root/sys/fs/bpf"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
[ -z "$PACKAGE" ] || cp "$PACKAGE" "$root/run/treeline.deb"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=throwaway LC_ALL=C.UTF-8 chroot "$root" "$@"
