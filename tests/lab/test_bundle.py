"""The artifacts themselves: they are whole, they run, and the images do what the lab asks of them."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from pulumi import automation, export
from tests.lab.bundle import Bench, Bundle, Recipe, golang, images
from tests.lab.bundle.errors import BundleError, Damaged, NoRoom
from tests.lab.bundle.layout import architecture
from tests.lab.bundle.pins import LAB, pin, version
from tests.lab.bundle.workshop import Workshop
from tests.lab.waiting import until

pytestmark = pytest.mark.lab

AIRGAP = f"k3s/k3s-airgap-images-{architecture()}.tar"


def said(*argv: str | Path) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_every_file_matches_its_checksum(bundle: Bundle) -> None:
    listed = json.loads(bundle.path("bundle.json").read_text())["artifacts"]
    assert bundle.check() == len(listed) + 1
    found = {path.relative_to(bundle.root).as_posix() for path in bundle.root.rglob("*") if path.is_file()}
    assert found == {row["path"] for row in listed} | {"bundle.json", "SHA256SUMS"}


def test_the_bundle_has_the_shape_of_a_release(bundle: Bundle) -> None:
    expected = [
        "k3s/k3s",
        f"k3s/sha256sum-{architecture()}.txt",
        AIRGAP,
        "k3s/k3s-images.txt",
        "kueue/manifests.yaml",
        "kueue/images.tar",
        "tailscale/tailscaled",
        "tailscale/tailscale",
        "pulumi/pulumi",
        "lima/limactl",
        "kwok/kwok",
        "images/job.tar",
        "images/dev-session.tar",
        "lab/headscale",
        "lab/node.tar",
    ]
    assert [name for name in expected if not (bundle.root / name).is_file()] == []
    sums = bundle.path("k3s") / f"sha256sum-{architecture()}.txt"
    assert (
        "FAILED"
        not in subprocess.run(
            ["sha256sum", "-c", sums.name], cwd=sums.parent, capture_output=True, text=True, check=True
        ).stdout
    )


def test_archives_hold_the_images_that_are_named_beside_them(bundle: Bundle) -> None:
    for archive, text in (("images/job.tar", "images/job.txt"), ("images/dev-session.tar", "images/dev-session.txt")):
        assert images.names(bundle.path(archive)) == [bundle.text(text)]
    assert images.names(bundle.path("kueue/images.tar")) == bundle.text("kueue/images.txt").split()
    listed = [f"docker.io/{name}" for name in images.names(bundle.path(AIRGAP))]
    assert listed == bundle.text("k3s/k3s-images.txt").split()


def test_kueues_manifests_need_no_image_that_is_not_there(bundle: Bundle) -> None:
    documents = list(yaml.safe_load_all(bundle.path("kueue/manifests.yaml").read_text()))
    containers = [
        container
        for document in documents
        if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
    ]
    assert [(each["image"], each["imagePullPolicy"]) for each in containers] == [
        (pin("kueue")["image"], "IfNotPresent")
    ]
    kinds = {document["kind"] for document in documents}
    assert {"CustomResourceDefinition", "ValidatingWebhookConfiguration", "APIService", "RoleBinding"} <= kinds
    served = {
        row["name"]
        for document in documents
        if document["metadata"]["name"] == "clusterqueues.kueue.x-k8s.io"
        for row in document["spec"]["versions"]
    }
    assert "v1beta2" in served


def test_the_programs_tell_their_versions(bundle: Bundle) -> None:
    assert said(bundle.path("pulumi/pulumi"), "version") == version("pulumi")
    assert version("kwok").removeprefix("v") in said(bundle.path("kwok/kwok"), "--version")
    assert version("lima").removeprefix("v") in said(bundle.path("lima/limactl"), "--version")
    assert version("tailscale").removeprefix("v") in said(bundle.path("tailscale/tailscale"), "version")


def test_programs_for_images_are_static(bundle: Bundle) -> None:
    for name in ("kwok/kwok", "pulumi/pulumi", "lab/headscale", "tailscale/tailscaled"):
        program = bundle.path(name)
        # ldd's exit status says so too, its words differ between C libraries.
        assert subprocess.run(["ldd", program], capture_output=True, check=False).returncode == 1, name


def test_pulumi_runs_an_inline_program(bundle: Bundle, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    engine = bundle.path("pulumi/pulumi").parent
    options = automation.LocalWorkspaceOptions(
        pulumi_home=str(tmp_path / "home"),
        pulumi_command=automation.PulumiCommand(root=_engine_root(tmp_path, engine)),
        project_settings=automation.ProjectSettings(
            name="lab", runtime="python", backend=automation.ProjectBackend(f"file://{state}")
        ),
        env_vars={"PULUMI_CONFIG_PASSPHRASE": "x", "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )
    stack = automation.create_or_select_stack("one", project_name="lab", program=lambda: export("a", 1), opts=options)
    assert stack.up().outputs["a"].value == 1
    assert stack.preview().change_summary == {automation.OpType.SAME: 1}
    stack.destroy()


def _engine_root(directory: Path, engine: Path) -> str:
    """The Automation API looks for `bin/pulumi` below the root that it is given."""
    root = directory / "engine"
    root.mkdir()
    (root / "bin").symlink_to(engine)
    return str(root)


@contextmanager
def container(bundle: Bundle, name: str, *options: str) -> Iterator[str]:
    """A container of an image of the bundle, started; the image is removed with it unless it was there."""
    image = bundle.text(f"images/{name}.txt")
    present = bool(said("docker", "images", "--quiet", image))
    said("docker", "load", "--quiet", "--input", bundle.path(f"images/{name}.tar"))
    try:
        found = said("docker", "create", "--tty", "--name", f"qwexlab-{uuid.uuid4().hex[:6]}-image", *options, image)
        try:
            said("docker", "start", found)
            yield found
        finally:
            said("docker", "rm", "--force", "--volumes", found)
    finally:
        if not present:
            said("docker", "rmi", image)


def test_the_job_image_has_what_a_job_needs(bundle: Bundle) -> None:
    with container(bundle, "job", "--network=none") as job:
        assert said("docker", "exec", job, "sh", "-c", "tar --version").startswith("tar (GNU tar)")
        code = "import hashlib, json, lzma, ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)"
        assert said("docker", "exec", job, "python3", "-c", code) == "True"


def test_a_development_session_lets_its_user_in_and_nobody_else(bundle: Bundle, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("key", "stranger"):
        said("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name)
    shutil.copy(tmp_path / "key.pub", secret / "authorized_keys")
    (secret / "password").write_text("right")
    for path in (tmp_path, secret, *secret.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the session is another user
    answers = tmp_path / "answers"
    answers.write_text('#!/bin/sh\necho "$ANSWER"\n')
    answers.chmod(0o755)

    def ssh(address: str, *options: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        fixed = ["-p", "2222", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        fixed += ["-o", "NumberOfPasswordPrompts=1", "-o", "IdentitiesOnly=yes", "-F", "none"]
        environment = {**os.environ, "SSH_ASKPASS": str(answers), "SSH_ASKPASS_REQUIRE": "force", "ANSWER": answer}
        return subprocess.run(
            ["ssh", *fixed, *options, f"dev@{address}", "id -un; git --version; rsync --version; pwd"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    options = ("--cap-drop=ALL", "--security-opt=no-new-privileges", f"--volume={secret}:/etc/dev-session:ro")
    with container(bundle, "dev-session", *options) as session:
        address = said("docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", session)
        until("sshd to answer", lambda: _answers(address, 2222), within=30)
        by_key = ssh(address, "-i", str(tmp_path / "key"))
        assert by_key.returncode == 0, by_key.stderr
        assert by_key.stdout.startswith("dev\ngit version ")
        assert by_key.stdout.endswith("\n/home/dev\n")
        only_password = ("-o", "PubkeyAuthentication=no")
        assert ssh(address, *only_password, answer="right").returncode == 0
        for refused in (ssh(address, *only_password, answer="wrong"), ssh(address, "-i", str(tmp_path / "stranger"))):
            assert refused.returncode == 255
            assert "Permission denied" in refused.stderr


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def test_a_module_that_is_not_what_its_go_sum_says_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMODCACHE", "GOCACHE"):  # the user's, or all would be downloaded again
        account = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir}
        monkeypatch.setenv(name, subprocess.check_output(["go", "env", name], env=account, text=True).strip())
    module = tmp_path / "kwok"
    shutil.copytree(LAB / "go" / "kwok", module)
    sums = module / "go.sum"
    wanted = f"{pin('kwok')['module']} {version('kwok')} h1:"
    lines = sums.read_text().splitlines()
    sums.write_text("\n".join(f"{wanted}{'A' * 43}=" if line.startswith(wanted) else line for line in lines) + "\n")

    def build(bench: Bench) -> None:
        golang.build(bench, module, {"kwok": f"{pin('kwok')['module']}/cmd/kwok"})

    recipe = Recipe("kwok", "v0", (module,), (), build, place="kwok", requires=("go",))
    with pytest.raises(
        Damaged, match=rf"kwok v0: verifying {pin('kwok')['module']}@{version('kwok')}: checksum mismatch"
    ):
        Workshop({"kwok": recipe}, tmp_path / "cache", room=0).ready()


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    said("mount", "-t", "tmpfs", "-o", "size=4m", "qwexlab", cache)
    try:
        for build in (
            lambda bench: bench.run(["dd", "if=/dev/zero", f"of={bench.out / 'file'}", "bs=1M", "count=16"]),
            lambda bench: (bench.out / "file").write_bytes(bytes(16 << 20)),
        ):
            shop = Workshop({"big": Recipe("big", "v1", (), (), build, place="big")}, cache, room=0)
            with pytest.raises(NoRoom) as told:
                shop.ready()
            assert str(told.value).count("\n") == 0
            assert str(cache) in str(told.value)
            assert shop.find("big") is None
            assert not list((cache / "tmp").iterdir())
    finally:
        said("umount", cache)


def test_nothing_is_removed_through_a_mount(tmp_path: Path) -> None:
    inside = tmp_path / "tmp" / "low@1" / "scratch" / "dev"
    inside.mkdir(parents=True)
    said("mount", "-t", "tmpfs", "qwexlab", inside)
    try:
        (inside / "precious").touch()
        recipe = Recipe("low", "v1", (), (), lambda bench: None, place="low")
        with pytest.raises(BundleError, match="dev is still mounted"):
            Workshop({"low": recipe}, tmp_path, room=0).ready()
        assert (inside / "precious").exists()
    finally:
        said("umount", inside)


def test_a_killed_debian_build_leaves_no_process_and_no_mount(tmp_path: Path) -> None:
    script = "import sys; from tests.lab.bundle.__main__ import main; sys.exit(main(['build', 'job']))"
    builder = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "QWEX_LAB_CACHE": str(tmp_path), "PYTHONPATH": str(LAB.parent.parent)},
        stderr=subprocess.DEVNULL,
    )
    with builder:
        try:
            until("a tree in the making", lambda: list(tmp_path.glob("tmp/job@*/scratch/mmdebstrap.*/usr")), within=120)
        finally:
            builder.kill()
    until("its programs to end", lambda: str(tmp_path) not in _commands(), within=20)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not list((tmp_path / "store").iterdir())


def _commands() -> str:
    return said("ps", "-A", "-o", "args=")
