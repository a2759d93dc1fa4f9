"""The call of a function, where a run has one instead of a cell."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from jupyter_train.record import Call
from jupyter_train.runtime import cell
from jupyter_train.transport.call import RETURN_VALUE


def execute(call: Call, given: Mapping[str, Any], namespace: dict[str, Any]) -> None:
    """Call it with what was captured; its value comes back as a name of ``namespace`` does.

    Raises what the function raises; a SystemExit leaves None as the value.
    The value of a coroutine function is what awaiting it gives.
    """
    function = given[call.function]
    args = [given[label] for label in call.args]
    kwargs = {name: given[label] for name, label in call.kwargs.items()}

    def called() -> Any:
        value = function(*args, **kwargs)
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    try:
        namespace[RETURN_VALUE] = cell.ending_forks(called)
    except SystemExit:
        namespace[RETURN_VALUE] = None
        raise
