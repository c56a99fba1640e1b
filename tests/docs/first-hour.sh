# Makes what docs/first-hour.md shows: `sh tests/docs/first-hour.sh PACKAGE` as root prints the whole transcript.
#
# The machine is a throw-away copy of this system (tests/package/throwaway.sh) with processes and network of its own; its eth0 leads
# to a client in a namespace beside, which asks for what the machine serves (first-hour.py). Nothing of it stays. It takes three minutes,
# python3, and tmux for the screen of `top`.
set -e
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "$MACHINE" ]; then
    export PACKAGE=$1
    folder=$(mktemp -d)
    unshare --mount sh "$here/../package/throwaway.sh" "$folder" "first-hour-$$" sleep infinity &
    outer=$!
    # The mounts go with the last process, then the control group can.
    end() {
        kill -KILL $outer && wait $outer || true
        sleep 1
        unshare --mount sh -c "mount -t cgroup2 cgroup2 $folder && find $folder/first-hour-$$ -depth -type d -exec rmdir {} +"
        rmdir "$folder"
    }
    trap end EXIT
    first=
    while [ -z "$first" ] || [ "$(cat "/proc/$first/comm")" != sleep ]; do
        kill -0 $outer
        first=$(cat /proc/$outer/task/$outer/children)
        first=${first%% *}
        sleep 0.2
    done
    cp "$here/first-hour.sh" "$here/first-hour.py" "/proc/$first/root/run/"
    nsenter --all --root --wd --target "$first" env -i MACHINE=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive TERM=dumb sh /run/first-hour.sh
    exit
fi

mkdir -p /run/netns /root/first && cd /root/first
ip netns add client
ip link set lo up
ip link add eth0 type veth peer name eth0 netns client
ip addr add 10.0.0.1/24 dev eth0 && ip link set eth0 up
ip -n client addr add 10.0.0.2/24 dev eth0 && ip -n client link set eth0 up
mv /run/treeline.deb ./treeline_0.1.0-1_amd64.deb
python3 /run/first-hour.py serve >/run/serves &
while [ ! -s /run/serves ]; do sleep 0.1; done
ip netns exec client python3 /run/first-hour.py ask 10.0.0.1 240 &

show() {
    echo "\$ $*"
    sh -c "$*" 2>&1 || echo "(ended with $?)"
    echo
}
show dpkg --install ./treeline_0.1.0-1_amd64.deb
show treeline doctor eth0
show treeline run eth0 --rate 95mbit --observe --train-every 10s --for 60s
show treeline up eth0 --rate 95mbit
show treeline run eth0 --rate 95mbit --train-every 10s --for 60s &
run=$!
sleep 45
{
    show treeline status
    tmux -f /dev/null new-session -d -x 80 -y 24 'treeline top'
    sleep 8
    echo '$ treeline top' && tmux capture-pane -p && echo
    tmux kill-server
    show treeline explain tcp 10.0.0.1:443 10.0.0.2:50000
    show treeline model show --rules
} >/run/meanwhile 2>&1
wait $run
cat /run/meanwhile
show treeline report --since 1h --out first-hour.html
show treeline model log
show treeline down eth0
show treeline status
show tc qdisc show dev eth0
