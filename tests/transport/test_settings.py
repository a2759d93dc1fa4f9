"""Process-wide settings of earlier cells: read in one process, found in another."""

from __future__ import annotations
import __future__

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jupyter_train.transport.settings import (
    FUTURES,
    MAX_BYTES,
    Where,
    future_flags,
    inline_options,
    restore_settings,
    with_future_flags,
)
from tests.kit.forks import Forks

_with_torch: Forks

READ = "import pickle, sys; from jupyter_train.transport.settings import current_settings\n"
FIND = """
import json, pickle, sys
from jupyter_train.transport.settings import Where, restore_settings
settings, where = pickle.load(sys.stdin.buffer)
remarks = restore_settings(settings, Where(**where))
"""


@pytest.fixture(scope="module", autouse=True)
def with_torch() -> Iterator[Forks]:
    """Where what needs torch is run, unless it is to start from nothing."""
    global _with_torch
    _with_torch = Forks()
    yield _with_torch
    _with_torch.close()


def run(code: str, given: bytes = b"", *, fresh: bool = False) -> str:
    if not fresh and b"import torch" in code.encode() + given:
        return _with_torch.run(code, given)
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def settings_after(cell: str) -> dict[str, bytes]:
    """The settings of a kernel in which ``cell`` has run."""
    code = f"{READ}\nexec(sys.stdin.read(), {{'__name__': '__main__'}})\nprint(pickle.dumps(current_settings(), 5).hex())"
    told: dict[str, bytes] = pickle.loads(bytes.fromhex(run(code, cell.encode())))
    return told


def found(settings: dict[str, bytes], look: str, *, fresh: bool = False, **where: Any) -> Any:
    """The value of the expression ``look`` in a rank that has restored ``settings``; ``remarks`` are known there."""
    lines = look.strip().splitlines()
    code = "\n".join([FIND, *lines[:-1], f"print('value:' + json.dumps({lines[-1]}))"])
    return json.loads(run(code, pickle.dumps((settings, where), 5), fresh=fresh).split("value:")[1])


TORCH = {
    "torch.set_default_dtype(torch.float64)": "str(torch.ones(1).dtype) == 'torch.float64'",
    "torch.set_grad_enabled(False)": "torch.is_grad_enabled() is False",
    "torch.autograd.set_detect_anomaly(True, check_nan=False)": "torch.is_anomaly_enabled() and not torch.is_anomaly_check_nan_enabled()",
    "torch.use_deterministic_algorithms(True, warn_only=True)": "torch.is_deterministic_algorithms_warn_only_enabled()",
    "torch.set_float32_matmul_precision('high')": "torch.get_float32_matmul_precision() == 'high'",
    "torch.backends.cudnn.benchmark = True": "torch.backends.cudnn.benchmark",
    "torch.backends.cudnn.deterministic = True": "torch.backends.cudnn.deterministic",
    "torch.set_printoptions(precision=2)": "repr(torch.tensor([1/3])) == 'tensor([0.33])'",
    "torch.set_default_device('meta')": "torch.ones(1).is_meta",
    "torch.multiprocessing.set_sharing_strategy('file_system')": "torch.multiprocessing.get_sharing_strategy() == 'file_system'",
}


def test_everything_that_torch_was_told_holds_on_the_rank() -> None:
    settings = settings_after("import torch\n" + "\n".join(TORCH))
    claims = {**TORCH}
    del claims["torch.set_printoptions(precision=2)"]  # nothing can be printed on meta
    look = (
        "import torch\n[torch.get_default_dtype() is torch.float64, "
        + ", ".join(list(claims.values())[1:])
        + "]"
    )
    assert found(settings, look, fresh=True) == [True] * len(claims)
    assert found(settings, look) == [True] * len(claims)


@pytest.mark.parametrize(
    "told", ["torch.set_default_dtype(torch.float64)", "torch.set_printoptions(precision=2)"]
)
def test_one_setting_alone_travels(told: str) -> None:
    assert found(settings_after(f"import torch\n{told}"), f"import torch\nbool({TORCH[told]})")


def test_an_untouched_torch_has_nothing_to_tell() -> None:
    assert "torch" not in settings_after("import torch")


def test_nothing_is_imported_for_settings() -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)"
    code = "import sys\nfrom jupyter_train.transport.settings import current_settings\nfound = current_settings()"
    assert run(f"{code}\nprint({heavy}, sorted(found))").strip() == "set() ['logging', 'python', 'warnings']"


def test_an_accelerator_as_default_device_becomes_the_ranks() -> None:
    settings = settings_after("import torch\ntorch.set_default_device('cuda')")
    look = "import torch\n[str(torch.ones(1).device), remarks]"
    device, remarks = found(settings, look, device="cpu")
    assert device == "cpu"
    assert remarks == ["torch's default device is cuda in the notebook and cpu here"]


@pytest.mark.parametrize(("chosen", "share", "used"), [(3, 8, 3), (3, 1, 1)])
def test_a_chosen_number_of_threads_is_obeyed_within_the_ranks_share(
    chosen: int, share: int, used: int
) -> None:
    settings = settings_after(f"import torch\ntorch.set_num_threads({chosen})")
    assert found(settings, "import torch\ntorch.get_num_threads()", threads=share) == used


def test_numpy_prints_and_errs_alike() -> None:
    settings = settings_after(
        "import numpy as np\nnp.set_printoptions(precision=2, suppress=True); np.seterr(divide='raise')"
    )
    look = "import numpy as np\n[str(np.array([1/3])), np.geterr()['divide']]"
    assert found(settings, look) == ["[0.33]", "raise"]


@pytest.mark.parametrize("before", ["", "import matplotlib\n"])
def test_matplotlibs_parameters_wait_for_its_import(before: str) -> None:
    cell = "import matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as plt\nplt.rcParams['figure.figsize'] = (3, 2); plt.rcParams['axes.grid'] = True"
    settings = settings_after(cell)
    look = "waits = 'matplotlib' not in sys.modules\nimport matplotlib\n[waits, list(matplotlib.rcParams['figure.figsize']), matplotlib.rcParams['axes.grid']]"
    assert found(settings, look) == [True, [3.0, 2.0], True]
    # The backend is the rank's own: an inline backend needs a notebook.
    assert b"backend" not in settings["matplotlib"]


def test_pandas_options_travel_with_functions_in_them() -> None:
    pytest.importorskip("pandas")
    settings = settings_after(
        "import pandas as pd\npd.options.display.max_rows = 7; pd.options.display.float_format = lambda x: f'<{x:.1f}>'"
    )
    look = "import pandas as pd\n[pd.options.display.max_rows, str(pd.Series([0.25])).split()[1]]"
    assert found(settings, look) == [7, "<0.2>"]


def test_warnings_are_shown_as_in_the_notebook() -> None:
    settings = settings_after(
        "import warnings\nwarnings.filterwarnings('ignore', message='boring'); warnings.simplefilter('error', FutureWarning)"
    )
    look = """
import warnings
def outcome(text, kind):
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.warn(text, kind)
        return len(told)
    except Warning:
        return "raised"
[outcome("boring thing", UserWarning), outcome("new thing", UserWarning), outcome("x", FutureWarning)]
"""
    assert found(settings, look) == [0, 1, "raised"]


def test_logging_is_set_up_alike() -> None:
    settings = settings_after(
        "import json, logging, sys\n"
        "logging.basicConfig(level=logging.INFO, format='%(levelname)s! %(message)s', stream=sys.stdout)\n"
        "log = logging.getLogger('mine.own'); log.setLevel(logging.DEBUG)\n"
        "log.addHandler(logging.StreamHandler()); log.propagate = False\n"
        "logging.getLogger('json').addHandler(logging.StreamHandler())"
    )
    look = """
import logging
logging.info("here")
mine = logging.getLogger("mine.own")
[mine.level, mine.propagate, [h.stream is sys.stderr for h in mine.handlers], len(logging.root.handlers), logging.getLogger("json").handlers]
"""
    assert found(settings, look) == [10, False, [True], 1, []]
    out = run(FIND + "import logging; logging.info('here')", pickle.dumps((settings, {}), 5))
    assert out.strip() == "INFO! here"


def test_a_log_file_is_written_by_rank_0_alone(tmp_path: Any) -> None:
    file = tmp_path / "train.log"
    settings = settings_after(
        f"import logging\nlogging.basicConfig(filename={str(file)!r}, level=logging.INFO, format='%(message)s')\nlogging.info('notebook')"
    )
    look = "import logging\nlogging.info('rank {0}')\n0"
    for rank in (0, 1):
        found(settings, look.format(rank), rank=rank)
    assert file.read_text().splitlines() == ["notebook", "rank 0"]
    gone = settings_after(
        "import logging\nlogging.root.addHandler(logging.FileHandler('/tmp/jt-no-such-folder/x', delay=True))"
    )
    assert found(gone, "remarks") == ["the log file /tmp/jt-no-such-folder/x cannot be written here"]


def test_pythons_own_settings_travel() -> None:
    settings = settings_after(
        "import sys, decimal\nsys.setrecursionlimit(5000); decimal.getcontext().prec = 50"
    )
    look = "import decimal\n[sys.getrecursionlimit(), len(str(decimal.Decimal(1) / 3))]"
    assert found(settings, look) == [5000, 52]


def test_future_lines_of_earlier_cells_are_flags() -> None:
    feature = __future__.annotations
    flags = with_future_flags({}, feature.compiler_flag | 0x200)
    assert future_flags(flags) == feature.compiler_flag & FUTURES
    assert with_future_flags({}, 0x200) == {}
    assert future_flags({}) == 0


def test_a_setting_that_holds_on_to_much_stays() -> None:
    cell = f"import logging\nlogging.root.addFilter(lambda r: True)\nh = logging.NullHandler(); h.addFilter(lambda r, big=bytes({MAX_BYTES + 1}): True); logging.root.addHandler(h)"
    assert "logging" not in settings_after(cell)


def test_a_group_that_cannot_be_restored_costs_only_itself() -> None:
    settings = {
        **settings_after("import numpy as np\nnp.set_printoptions(precision=2)"),
        "warnings": b"nonsense",
    }
    remarks, shown = found(settings, "import numpy as np\n[remarks, str(np.array([1/3]))]")
    assert len(remarks) == 1
    assert "warnings" in remarks[0]
    assert shown == "[0.33]"


def test_formats_of_figures_are_known_to_those_who_draw_them() -> None:
    pytest.importorskip("matplotlib_inline")
    cell = "from matplotlib_inline.config import InlineBackend\nInlineBackend.instance().print_figure_kwargs = {'dpi': 50}"
    assert inline_options(settings_after(cell))["print_figure_kwargs"] == {"dpi": 50}
    assert inline_options({}) == {}


def test_where_is_a_cpu_unless_it_is_said() -> None:
    assert restore_settings({"of a newer version": b""}, Where()) == []
