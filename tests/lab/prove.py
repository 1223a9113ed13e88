"""The lab's promises, kept one by one: ``just prove-lab``. Needs root and Docker.

Builds what is missing, takes the figures, then runs the tests that prove each promise. Says on stderr what it does; the last
line, on stdout, is figures. Exit code 0 only if every proof passed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.lab import bundle, figures  # noqa: E402
from tests.lab.bundle import BundleError  # noqa: E402
from tests.lab.host import HostError, start_docker, unavailable  # noqa: E402

PROOFS = {
    "a two-node cluster, driven by config.yaml and systemd": "k3s_server::test_roles_and_addresses_are_on_the_nodes",
    "pods of both nodes reach each other, and a service by name": "cluster::test_pods_of_two_nodes_reach_each_other_and_a_service_by_name",
    "a volume claim is bound": "cluster::test_a_volume_claim_is_bound_and_keeps_what_is_written",
    "Kueue admits plain Jobs by quota": "cluster::test_kueue_admits_plain_jobs_one_at_a_time_by_quota",
    "machines of separate networks meet over headscale": "tailnet::test_machines_on_two_networks_meet_over_the_relay_only",
    "flannel runs on tailscale0": "tailnet_cluster::test_pods_on_networks_apart_reach_each_other_and_a_service_by_name",
    "Pulumi makes, changes, replaces, destroys": "pulumi::test_a_namespace_and_a_local_queue_are_made_changed_replaced_and_destroyed",
    "a Lima VM is reached over SSH": "lima::test_it_is_reached_over_ssh_by_anyone_with_the_key",
    "three servers survive the loss of one": "k3s_ha::test_the_loss_of_one_server_is_survived_and_it_comes_back",
}  # promise: the test (of test_….py) that proves it


def say(text: str) -> None:
    """On stderr, at once."""
    sys.stderr.write(f"-- {text}\n")
    sys.stderr.flush()


def proofs() -> dict[str, bool]:
    """Each promise and whether its test passed; one that did not run has not."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-m", "lab", "-p", "no:cacheprovider"]
    command += [f"tests/lab/test_{test.replace('::', '.py::')}" for test in PROOFS.values()]
    passed = set()
    env = {**os.environ, "QWEX_LAB": "required"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            sys.stderr.write(line)
            if found := re.match(r"tests/lab/test_(\w+)\.py(::\w+)\S* PASSED", line):
                passed.add(found[1] + found[2])
    return {promise: test in passed for promise, test in PROOFS.items()}


def main() -> int:
    """What the process returns."""
    try:
        say(f"Docker {start_docker()}")
        if reason := unavailable():
            raise HostError(reason)
        built = bundle.ready()
    except (BundleError, HostError) as error:
        say(f"error: {error}")
        return 1
    measured = figures.measure(built, say)
    kept = proofs()
    for promise, held in kept.items():
        say(f"{'kept' if held else 'NOT KEPT'}: {promise}")
    print(f"lab: {sum(kept.values())} of {len(kept)} promises kept; {', '.join(map(str, measured))}")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
