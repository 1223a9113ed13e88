"""A tailnet of the lab's own: real tailscaled on the machines, real headscale as the control server and relay.

headscale runs on the host and listens at one lab network's gateway address only, over plain HTTP, which Tailscale's
clients allow for private addresses (there only: they insist on HTTPS for a name). Every machine of the lab reaches that
address, for the host is the router of each network; from one network to another the host lets nothing pass.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from tests.lab.bundle import Bundle
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.network import Network
from tests.lab.waiting import until

__all__ = ["Tailnet", "TailnetError", "accept", "address", "settings", "status"]

NAME = "headscale"
START = 60.0  # seconds
STOP = 10.0
RELAY = 999  # the relay's region; Tailscale leaves 900 to 999 to others
# What Debian's package leaves in /etc/default/tailscaled, and the lab's own: the relay speaks plain HTTP too, and logs
# go to nobody.
DEFAULTS = "\nTS_DEBUG_USE_DERP_HTTP=1\nTS_NO_LOGS_NO_SUPPORT=1\n"


class TailnetError(Exception):
    """headscale refused, or did not start; the message is what was asked and what it answered."""


def settings(directory: Path, listen: str, port: int, stun: int) -> dict[str, Any]:
    """headscale's configuration, with all its files in `directory` and its ports at the address `listen`."""
    return {
        "server_url": f"http://{listen}:{port}",
        "listen_addr": f"{listen}:{port}",
        "metrics_listen_addr": "127.0.0.1:0",
        "grpc_listen_addr": "127.0.0.1:0",
        "noise": {"private_key_path": str(directory / "noise.key")},
        "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"},
        "derp": {
            "server": {
                "enabled": True,
                "region_id": RELAY,
                "region_code": "lab",
                "region_name": "lab",
                "verify_clients": True,
                "stun_listen_addr": f"{listen}:{stun}",
                "private_key_path": str(directory / "derp.key"),
                "automatically_add_embedded_derp_region": True,
                "ipv4": listen,
            },
            "urls": [],
            "paths": [],
            "auto_update_enabled": False,
        },
        "disable_check_updates": True,
        "database": {"type": "sqlite", "sqlite": {"path": str(directory / "db.sqlite")}},
        "dns": {"magic_dns": False, "base_domain": "lab.test", "override_local_dns": False},
        "policy": {"mode": "database"},
        "unix_socket": str(directory / "headscale.sock"),
        "log": {"level": "info"},
    }


def _free_port(address: str, kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class Tailnet:
    """`login_server` is the URL to join at, the same for every machine, and where its API answers."""

    def __init__(self, lab: Lab, bundle: Bundle, network: Network) -> None:
        self.lab, self.bundle = lab, bundle
        self.directory = Path(tempfile.mkdtemp(prefix=f"{NAME}-", dir=lab.directory))
        self.program = bundle.path("lab/headscale")
        self.config, self.log = self.directory / "config.yaml", self.directory / "headscale.log"
        port, stun = (_free_port(network.gateway, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
        self.login_server = f"http://{network.gateway}:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._users: dict[str, int] = {}
        self.config.write_text(yaml.safe_dump(settings(self.directory, network.gateway, port, stun)))

    @classmethod
    def create(cls, lab: Lab, bundle: Bundle, *networks: Network, tags: Sequence[str] = ("tag:qwex",)) -> Tailnet:
        """A running one, listening at the first network's gateway (the lab's first network when none is given).

        `tags`: what members of the user `lab` may give themselves with `--advertise-tags`. TailnetError when headscale
        does not start, with its log.
        """
        tailnet = cls(lab, bundle, networks[0] if networks else lab.network())
        lab.on_logs(tailnet.directory.name, tailnet.collect)
        try:
            tailnet.start()
            tailnet._user("lab")
            tailnet.policy({"tagOwners": {tag: ["lab@"] for tag in tags}, "acls": [accept("*", "*:*")]})
        except BaseException:
            tailnet.close()
            raise
        return tailnet

    # -- the server ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, unless it runs; returns when it answers."""
        if self._process is None:
            self._process = self.lab.spawn([self.program, f"--config={self.config}", "serve"], log=self.log)
        try:
            until("headscale to answer", self._answers, within=START)
        except TimeoutError as error:
            raise TailnetError(f"{error}\n{self.logs[-4000:]}") from error

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise TailnetError(f"headscale ended\n{self.logs[-4000:]}")
        try:
            self.ask("users", "list")
        except TailnetError:
            return False
        return True

    def stop(self) -> None:
        """Stop control server and relay, as for an upgrade. Links that need neither go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP)
            except subprocess.TimeoutExpired:  # it waits for its clients to hang up, who do not
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the server. Machines stay as they are; its files go with the lab."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def logs(self) -> str:
        """What headscale has said so far."""
        return self.log.read_text(errors="replace")

    def collect(self, to: Path) -> None:
        """Write headscale's log, and what it knows about its nodes, into that directory."""
        (to / "headscale.log").write_text(self.logs)
        if self._process is not None:
            (to / "nodes.json").write_text(json.dumps(self.nodes(), indent=1))

    def tell(self, *argv: str) -> str:
        """Run headscale's own command line; what it says. TailnetError when it refuses."""
        command: list[str | os.PathLike[str]] = [self.program, f"--config={self.config}", *argv]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=START, check=False)
        except subprocess.TimeoutExpired as error:
            raise TailnetError(f"headscale {' '.join(argv)}: no answer within {START:g} s") from error
        if done.returncode != 0:
            raise TailnetError(f"headscale {' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def ask(self, *argv: str) -> Any:
        """The same; its answer as JSON."""
        return json.loads(self.tell("--output=json", *argv))

    def policy(self, document: Mapping[str, Any]) -> None:
        """Replace the access policy (Tailscale's policy file, as far as headscale knows it)."""
        file = self.directory / "policy.json"
        file.write_text(json.dumps(document))
        self.tell("policy", "set", f"--file={file}")

    # -- keys ----------------------------------------------------------------------------------------------------

    def _user(self, name: str) -> int:
        if name not in self._users:
            known = {user["name"]: int(user["id"]) for user in self.ask("users", "list") or []}
            self._users[name] = known[name] if name in known else int(self.ask("users", "create", name)["id"])
        return self._users[name]

    def auth_key(
        self,
        *,
        reusable: bool = False,
        ephemeral: bool = False,
        expires: str = "1h",
        tags: Sequence[str] = (),
        user: str = "lab",
    ) -> str:
        """A fresh pre-auth key. `expires` is a duration such as `1h`; `tags` such as `tag:gpu` are given to who joins with it."""
        argv = ["preauthkeys", "create", f"--user={self._user(user)}", f"--expiration={expires}"]
        argv += ["--reusable"] if reusable else []
        argv += ["--ephemeral"] if ephemeral else []
        argv += [f"--tags={','.join(tags)}"] if tags else []
        return str(self.ask(*argv)["key"])

    def expired_key(self, user: str = "lab") -> str:
        """A key that would be good but for its age."""
        key = self.auth_key(reusable=True, user=user)
        self.tell("preauthkeys", "expire", f"--user={self._user(user)}", key)
        return key

    # -- nodes ---------------------------------------------------------------------------------------------------

    def nodes(self) -> list[dict[str, Any]]:
        """As headscale describes them: `id`, `given_name`, `ip_addresses`, `online`, `forced_tags`, `available_routes`…"""
        return self.ask("nodes", "list") or []

    def node(self, name: str) -> dict[str, Any]:
        """TailnetError, with the names there are, when none has that one."""
        found = {str(node["given_name"]): node for node in self.nodes()}
        if name not in found:
            raise TailnetError(f"the tailnet has no node {name}; it has {', '.join(sorted(found)) or 'none'}")
        return found[name]

    def _on(self, command: str, name: str, *argv: str) -> None:
        self.tell("nodes", command, f"--identifier={self.node(name)['id']}", *argv)

    def delete(self, name: str) -> None:
        """Forget the node: it is out at once, and must join anew."""
        self._on("delete", name, "--force")

    def expire(self, name: str) -> None:
        """Expire the node's key: it stays known, and is out until it logs in again."""
        self._on("expire", name)

    def routes(self, name: str) -> list[str]:
        """The subnets that it offers and that are approved."""
        return list(self.node(name).get("approved_routes") or [])

    def approve_routes(self, name: str, cidrs: Sequence[str]) -> None:
        """Approve exactly those subnets, once the node offers them all."""

        def offered() -> bool:
            return set(cidrs) <= set(self.node(name).get("available_routes") or [])

        until(f"{name} to offer {', '.join(cidrs)}", offered, within=30)
        self._on("approve-routes", name, f"--routes={','.join(cidrs)}")

    # -- machines ------------------------------------------------------------------------------------------------

    def install(self, *machines: Machine) -> None:
        """Leave what Debian's package does: two programs, the running service, and no account."""
        with ThreadPoolExecutor(max(1, len(machines))) as workers:
            list(workers.map(self._install, machines))

    def _install(self, machine: Machine) -> None:
        machine.put(self.bundle.path("tailscale/tailscaled"), "/usr/sbin/tailscaled", 0o755)
        machine.put(self.bundle.path("tailscale/tailscale"), "/usr/bin/tailscale", 0o755)
        defaults = self.bundle.path("tailscale/tailscaled.defaults").read_text() + DEFAULTS
        machine.put(defaults.encode(), "/etc/default/tailscaled")
        machine.put(self.bundle.path("tailscale/tailscaled.service"), "/usr/lib/systemd/system/tailscaled.service")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "--now", "tailscaled.service")

    def join(self, machine: Machine, *, key: str | None = None, **flags: str | bool) -> str:
        """Have an installed machine join, with a key of its own when none is given; its tailnet address (IPv4).

        `flags` are `tailscale up`'s, such as `advertise_routes="10.9.0.0/24"`. MachineError when it is refused.
        """
        secret = "/run/tailscale.key"  # never on a command line, where everyone could read it
        machine.put((key or self.auth_key()).encode(), secret, 0o600)
        given = {"hostname": machine.name, "accept_dns": False, "timeout": "60s", **flags}
        words = [
            f"--{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in given.items()
        ]
        try:
            machine.run(
                "tailscale",
                "up",
                f"--login-server={self.login_server}",
                f"--auth-key=file:{secret}",
                *words,
                timeout=90,
            )
        finally:
            machine.run("rm", "-f", secret)
        return address(machine)

    def leave(self, machine: Machine) -> None:
        """Log out, as `tailscale logout` does: the node's record stays (unless ephemeral) until it is deleted."""
        machine.run("tailscale", "logout")


def accept(source: str, to: str) -> dict[str, Any]:
    """A rule of the policy."""
    return {"action": "accept", "src": [source], "dst": [to]}


def address(machine: Machine) -> str:
    """Its tailnet address (IPv4)."""
    return machine.run("tailscale", "ip", "-4").stdout.strip()


def status(machine: Machine) -> dict[str, Any]:
    """`tailscale status --json` there: `BackendState`, `Self`, `Peer`, `Health`…"""
    found: dict[str, Any] = json.loads(machine.run("tailscale", "status", "--json").stdout)
    return found
