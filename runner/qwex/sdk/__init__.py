"""What ``import qwex`` gives: ``Client`` and ``Job``. ``runner/docs/sdk.md`` shows how they are used."""

from qwex.errors import QwexError
from qwex.model.states import Reason, State
from qwex.sdk.client import Client, Options
from qwex.sdk.job import Job
from qwex.sdk.output import Lines

__all__ = ["Client", "Job", "Lines", "Options", "QwexError", "Reason", "State"]
