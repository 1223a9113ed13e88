#!/bin/sh
# Ends k3s and all its pods, and takes away what they left in the kernel. The data stay: the next start brings all back.
set -u
[ "$(id -u)" = 0 ] || exec sudo "$0" "$@"

data=${K3S_DATA_DIR:-/var/lib/rancher/k3s}

for unit in /etc/systemd/system/k3s*.service; do
    [ -e "$unit" ] || continue
    systemctl stop "$(basename "$unit")"
done

# A pod is the shim's tree. Shims of another containerd are not ours.
shims() {
    ps -e -o pid= -o args= | awk -v home="$data/data/" 'index($2, home) == 1 && $2 ~ /\/bin\/containerd-shim/ { print $1 }'
}

tree() { # of the given processes
    for pid in "$@"; do
        echo "$pid"
        # shellcheck disable=SC2046
        tree $(ps -e -o ppid= -o pid= | awk -v parent="$pid" '$1 == parent { print $2 }')
    done
}

# The shim first, or it would report the end of its containers to nobody.
# shellcheck disable=SC2046
all=$(tree $(shims))
# shellcheck disable=SC2086
[ -z "$all" ] || kill -9 $all 2>/dev/null

unmount() { # all that is mounted at or below, the deepest first, and what is left of it
    awk -v path="$1" 'index($2, path) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mount; do
        umount -f "$mount" 2>/dev/null || umount -l "$mount"
    done
    rm -rf --one-file-system "$1"* 2>/dev/null
}

unmount /run/k3s
unmount /var/lib/kubelet/pods
unmount /var/lib/kubelet/plugins
unmount /run/netns/cni-
rmdir /run/netns 2>/dev/null # not empty where there are others

ip -o link show master cni0 2>/dev/null | awk -F': ' '{ sub(/@.*/, "", $2); print $2 }' | while read -r port; do
    ip link delete "$port"
done
ip -o link show | awk -F': ' '{ sub(/@.*/, "", $2); print $2 }' | grep -E '^(cni0$|flannel)' | while read -r device; do
    ip link delete "$device"
done
rm -rf /var/lib/cni

# The shims' sockets have their place in the program; another containerd's are there too.
if ! ps -e -o args= | grep -q '/[c]ontainerd-shim'; then
    rm -rf /run/containerd/s
    rmdir /run/containerd 2>/dev/null
fi

for family in iptables ip6tables; do
    command -v "$family-save" >/dev/null || continue
    "$family-save" | grep -v -e KUBE- -e CNI- | grep -vi flannel | "$family-restore"
done

if command -v tailscale >/dev/null; then
    # It fails where tailscaled is not up, and then there is nothing to take back.
    tailscale set --advertise-routes= 2>/dev/null
fi
exit 0
