"""Arguments arrive byte for byte: many odd commands in one request, against the real far side."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.ssh.far import Client, ended, job, output, start

from qwex.backends.ssh import SSHBackend

pytestmark = pytest.mark.ssh

WORD = st.one_of(
    st.binary(max_size=30).filter(lambda data: b"\0" not in data),
    st.text("'\"\\$`!*?[]{}()<>|&;~# \t\n-=%", max_size=12).map(str.encode),
    st.sampled_from([b"", b"-n", b"--", b"-e", b"\n", b"'", b"''", b"\xff\x81\x88", b"\\n", b"a" * 5000]),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(st.lists(WORD, max_size=6), min_size=4, max_size=8))
def test_any_words(client: Client, commands: list[list[bytes]]) -> None:
    async def main() -> None:
        async with client.open() as backend:
            await compare(backend, commands)

    asyncio.run(main())


async def compare(backend: SSHBackend, commands: list[list[bytes]]) -> None:
    runs = [job("printf", r"<%s>\0", *(os.fsdecode(word) for word in words)) for words in commands]
    handles = await start(backend, *runs)
    await ended(backend, handles)
    for one, words in zip(runs, commands, strict=True):
        expected = b"".join(b"<%s>\0" % word for word in words) or b"<>\0"
        assert (await output(backend, handles[one.run_id]))[0] == expected
