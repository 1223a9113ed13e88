#!/bin/sh
# Run by mmdebstrap once the packages are in: $1 is the machine's root directory, $2 this directory.
# Whatever would make two machines the same, or name the machine that built this, is taken out.
set -eu
root=$1 files=$2

install -m 755 "$files/init" "$root/usr/local/sbin/lab-init"

# An ordinary user that may do everything, as a cloud image has.
chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 debian
printf 'debian ALL=(ALL) NOPASSWD:ALL\n' >"$root/etc/sudoers.d/debian"
chmod 440 "$root/etc/sudoers.d/debian"
install -d -m 700 -o 1000 -g 1000 "$root/home/debian/.ssh"

# Keys only, and keys of its own: made when the machine first boots.
cat >"$root/etc/ssh/sshd_config.d/10-keys-only.conf" <<'X'
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
X
rm -f "$root"/etc/ssh/ssh_host_*
mkdir -p "$root/etc/systemd/system/ssh.service.d"
cat >"$root/etc/systemd/system/ssh.service.d/10-host-keys.conf" <<'X'
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
X

# What is for hardware, or would reach past the machine to the host's kernel, its settings and its file systems.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service systemd-sysctl.service \
    systemd-remount-fs.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount dev-hugepages.mount modprobe@.service systemd-random-seed.service \
    systemd-firstboot.service e2scrub_reap.service e2scrub_all.timer fstrim.timer getty.target console-getty.service \
    getty-static.service apt-daily.timer apt-daily-upgrade.timer nftables.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
chroot "$root" systemctl set-default multi-user.target

# Small, and kept over a power cut.
install -d -m 755 "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\nSyncIntervalSec=10s\n' >"$root/etc/systemd/journald.conf.d/lab.conf"
install -d -g systemd-journal -m 2755 "$root/var/log/journal" 2>/dev/null ||
    chroot "$root" install -d -g systemd-journal -m 2755 /var/log/journal
printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"

cat >"$root/etc/apt/sources.list.d/debian.sources" <<'X'
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
X
rm -f "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d/0000"*

: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
printf 'debian\n' >"$root/etc/hostname"
: >"$root/etc/resolv.conf"
rm -f "$root"/var/log/*.log "$root"/var/cache/apt/*.bin
