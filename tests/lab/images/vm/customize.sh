#!/bin/sh
# Turns the fresh Debian tree $1 into Lima's guest and writes disk.raw, vmlinuz and initrd into the directory $2.
# A customize hook of mmdebstrap, so that owners are right whether it runs as root or in a user namespace.
set -eu
tree=$1 out=$2 here=$(dirname "$(readlink -f "$0")")

cp -r --no-preserve=ownership "$here/files/." "$tree"
chroot "$tree" update-initramfs -u
cp "$tree"/boot/vmlinuz-* "$out/vmlinuz"
cp "$tree"/boot/initrd.img-* "$out/initrd"
chmod 0644 "$out/vmlinuz" "$out/initrd"
rm "$tree"/boot/* "$tree"/vmlinuz* "$tree"/initrd.img* # they are booted from outside the disk

systemctl --root="$tree" enable systemd-networkd.service
# What a short-lived guest does not miss; cloud-config would start Python for a list of modules that is empty here.
systemctl --root="$tree" mask apt-daily.timer apt-daily-upgrade.timer cloud-config.service e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer systemd-firstboot.service

# Every machine makes its own identity.
rm -f "$tree"/etc/ssh/ssh_host_* "$tree"/etc/hostname "$tree"/var/lib/dbus/machine-id
: >"$tree/etc/machine-id"
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/* "$tree"/var/log/*.log "$tree"/var/log/apt "$tree"/var/cache/ldconfig

# Python reads no source to see whether its compiled files are current: on an emulated processor that takes a second.
chroot "$tree" python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.11

# Seen through a second door, in which mmdebstrap's /proc, /sys and /dev are not mounted.
mkdir "$out/bare"
mount --bind "$tree" "$out/bare"
find "$out/bare" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
truncate -s 1G "$out/disk.raw"
identity=6b8b4567-327b-43c6-b3a2-0f5f2b0d6c11
E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -t ext4 -L cloudimg-rootfs -U $identity \
	-E "hash_seed=$identity,lazy_itable_init=0,root_owner=0:0" -d "$out/bare" "$out/disk.raw"
umount "$out/bare"
