#!/bin/sh
# Leaves the layout that k3s's installer leaves, from files that are there: BIN_DIR/k3s and what lies beside this script.
# It fetches nothing. What it knows of the real one's environment:
#   INSTALL_K3S_EXEC         `server` or `agent` and its arguments; the default is an agent if K3S_URL is set, else a server
#   INSTALL_K3S_NAME         the unit is k3s-<name> instead of k3s or k3s-agent
#   INSTALL_K3S_BIN_DIR      default /usr/local/bin          INSTALL_K3S_SYSTEMD_DIR  default /etc/systemd/system
#   INSTALL_K3S_SKIP_ENABLE, INSTALL_K3S_SKIP_START, INSTALL_K3S_SYMLINK=skip|force
#   K3S_*, CONTAINERD_* and the proxy variables go to the unit's environment file
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bin=${INSTALL_K3S_BIN_DIR:-/usr/local/bin}
units=${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}

die() {
    echo "error: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "root installs k3s"
[ -x "$bin/k3s" ] || die "$bin/k3s is not there: put it there first"
command -v systemctl >/dev/null || die "there is no systemd here"

run=${INSTALL_K3S_EXEC:-}
case $run in
'' | -*) [ -n "${K3S_URL:-}" ] && run="agent $run" || run="server $run" ;;
esac
case $run in
server*) name=k3s ;;
agent*) name=k3s-agent ;;
*) die "INSTALL_K3S_EXEC starts with server or agent, not with ${run%% *}" ;;
esac
if [ "${run%% *}" = agent ] && [ -n "${K3S_URL:-}" ] && [ -z "${K3S_TOKEN:-}${K3S_TOKEN_FILE:-}" ]; then
    die "K3S_URL needs K3S_TOKEN or K3S_TOKEN_FILE"
fi
uninstall=${name}-uninstall.sh
if [ "$name" = k3s ]; then uninstall=k3s-uninstall.sh; fi
if [ -n "${INSTALL_K3S_NAME:-}" ]; then
    name=k3s-$INSTALL_K3S_NAME
    uninstall=$name-uninstall.sh
fi
unit=$units/$name.service

fill() { # a template, filled in
    sed -e "s|@BIN@|$bin|g" -e "s|@UNIT@|$unit|g" -e "s|@NAME@|$name|g" -e "s|@UNINSTALL@|$uninstall|g" \
        -e "s|@EXEC@|$(echo "$run" | sed -e 's/[ \t]*$//' -e 's/[\\&|]/\\&/g')|g" "$1"
}

# Symbolic links, unless the command is there already.
for command in kubectl crictl ctr; do
    [ "${INSTALL_K3S_SYMLINK:-}" = skip ] && break
    if [ -e "$bin/$command" ] && [ "${INSTALL_K3S_SYMLINK:-}" != force ]; then continue; fi
    if [ "${INSTALL_K3S_SYMLINK:-}" = force ] || ! command -v "$command" >/dev/null; then
        ln -sf k3s "$bin/$command"
    fi
done

fill "$here/k3s-killall.sh" >"$bin/k3s-killall.sh"
fill "$here/k3s-uninstall.sh.in" >"$bin/$uninstall"
chmod 755 "$bin/k3s-killall.sh" "$bin/$uninstall"

# The values of an earlier run are lost, as they are with the real one.
(
    umask 077
    rm -f "$unit.env"
    env | grep -E '^(K3S_|CONTAINERD_)|^(NO|HTTP|HTTPS|ALL)_PROXY=|^(no|http|https|all)_proxy=' >"$unit.env" || true
)
fill "$here/k3s.service.in" >"$unit"
chmod 644 "$unit"

systemctl daemon-reload
[ "${INSTALL_K3S_SKIP_ENABLE:-}" = true ] && exit 0
systemctl enable --quiet "$name"
[ "${INSTALL_K3S_SKIP_START:-}" = true ] && exit 0
systemctl restart --no-block "$name"
