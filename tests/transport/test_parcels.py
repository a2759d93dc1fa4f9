"""What did not change since the last capture is in files that did not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jupyter_train.errors import CaptureError
from jupyter_train.transport.capture import capture
from jupyter_train.transport.pages import _can_tell, is_written
from jupyter_train.transport.stream import LARGE_PIECE_BYTES, OutStream, reader
from tests.transport.conftest import Notebook


def test_a_second_capture_of_the_same_writes_the_small_envelope_alone(notebook: Notebook) -> None:
    notebook.cell("import numpy as np\nx = np.arange(1_000_000.0)\nhistory = []")
    first = notebook.capture("x, history")
    torch.rand(1)
    second = notebook.capture("x, history")

    assert first.written_bytes > 8_000_000
    assert 0 < second.written_bytes < 4_000, "the state of one generator, and nothing else"
    assert second.refs[1:] == first.refs[1:]


def test_a_list_that_grows_leaves_images_and_text_beside_it_alone(notebook: Notebook) -> None:
    notebook.cell(
        "import torch\n"
        "images = [torch.full((28, 28), float(i)) for i in range(500)]\n"
        "text = 'to be or not to be ' * 50_000\n"
        "raw = bytes(1_000_000)\n"
        "lines = [f'line {i} of the corpus' for i in range(30_000)]\n"
        "model = torch.nn.Linear(3, 1)\n"
        "history = ['start']"
    )
    source = "images, text, raw, lines, model, history"
    notebook.capture(source)
    notebook.cell("history.append('one more')\nmodel.weight.data += 1")

    again = notebook.capture(source)

    assert again.written_bytes < sum(again.sizes.values()) / 150


DATA = {
    "a frame": "import pandas as pd, numpy as np\nx = pd.DataFrame(np.arange(200_000.0).reshape(-1, 4), columns=list('abcd'))",
    "columns of many kinds": (
        "import pandas as pd, numpy as np\n"
        "x = pd.DataFrame({'when': pd.date_range('2020', periods=50_000, freq='min', tz='UTC'),\n"
        "  'kind': pd.Categorical(np.arange(50_000) % 7), 'maybe': pd.array(np.arange(50_000), dtype='Int64'),\n"
        "  'word': [f'word {i}' for i in range(50_000)]})"
    ),
    "a series with an index": "import pandas as pd, numpy as np\nx = pd.Series(np.arange(1e5), index=2 * np.arange(1e5))",
    "a sparse matrix": "import scipy.sparse as sp\nx = sp.random(3000, 3000, 0.02, 'csr', random_state=0)",
    "a forest": (
        "import numpy as np\nfrom sklearn.ensemble import RandomForestRegressor\n"
        "rng = np.random.RandomState(0)\n"
        "x = RandomForestRegressor(8, random_state=0).fit(rng.rand(3000, 3), rng.rand(3000))"
    ),
    "a data set and its parts": (
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset, random_split\n"
        "whole = TensorDataset(torch.rand(40_000, 8), torch.arange(40_000))\n"
        "x = [whole, *random_split(whole, [0.8, 0.2]), DataLoader(whole, batch_size=8)]"
    ),
    "a data set of one's own": (
        "import torch\nclass Mine(torch.utils.data.Dataset):\n"
        "    def __init__(self): self.images = torch.rand(500, 3, 16, 16).numpy(); self.names = ['n'] * 500\n"
        "    def __len__(self): return 500\n"
        "    def __getitem__(self, i): return self.images[i]\n"
        "x = Mine()"
    ),
}


@pytest.mark.parametrize("setup", DATA.values(), ids=DATA.keys())
def test_data_of_every_kind_is_not_written_again_for_what_changed_beside_it(
    notebook: Notebook, setup: str
) -> None:
    notebook.cell(setup + "\nhistory = ['start']")
    first = notebook.capture("x, history")
    notebook.cell("history.append('one more')")

    again = notebook.capture("x, history")

    assert first.written_bytes > 1_000_000
    assert again.written_bytes < first.written_bytes / 12


def test_large_texts_arrive_as_they_were(notebook: Notebook) -> None:
    notebook.cell(
        "text = 'zwölf ' * 100_000\nraw = b'\\x01' + bytes(400_000)\nboth = [text, raw, bytearray(raw)]"
    )

    notebook.train(
        "ok = (text.count('zwölf'), raw[0], len(raw), both[0] is text, both[1] is raw, type(both[2]).__name__)"
    )

    assert notebook["ok"] == (100_000, 1, 400_001, True, True, "bytearray")


def test_what_a_rank_writes_stays_out_of_the_file_and_comes_back(notebook: Notebook) -> None:
    notebook.cell("import numpy as np\nx = np.zeros(1_000_000)\ny = np.zeros(1_000_000)")
    captured = notebook.capture("x[5] = 1\ny.sum()")
    before = [notebook.content.path(ref.key).read_bytes() for ref in captured.refs]

    applied = notebook.train("x[5] = 1\ny.sum()")

    assert applied.changed == ("x",)
    assert notebook["x"][5] == 1
    assert [notebook.content.path(ref.key).read_bytes() for ref in captured.refs] == before


def test_more_than_the_limit_is_an_error_that_names_the_largest_and_copies_nothing(
    notebook: Notebook,
) -> None:
    notebook.cell(
        "import numpy as np\nx = np.zeros((1000, 300))\nfew = np.zeros(20_000)\nmodel = object.__new__(object)"
    )

    with pytest.raises(CaptureError, match=r"x \(ndarray 1000×300 float64\) 2.4 MB, few .* 160 kB") as raised:
        capture("x, few, model", notebook.names, content=notebook.content, limit_bytes=2_000_000)

    assert "inside the cell" in str(raised.value)
    assert "model" not in str(raised.value)
    assert not notebook.content.folder.exists()


def test_a_limit_counts_what_is_shared_once(notebook: Notebook) -> None:
    notebook.cell("import numpy as np\nx = np.zeros(100_000)\nviews = [x, x[10:], x[::2]]")

    captured = capture("x, views", notebook.names, content=notebook.content, limit_bytes=900_000)

    assert captured.names


def test_a_column_counts_as_what_it_takes_without_its_matrix(notebook: Notebook) -> None:
    notebook.cell("import numpy as np\nx = np.zeros((2000, 1000))\nx = x[:, 0]")

    assert capture("x", notebook.names, content=notebook.content, limit_bytes=50_000).names == ("x",)


def test_text_counts_too(notebook: Notebook) -> None:
    notebook.cell("lines = ['x' * 50_000 + str(i) for i in range(30)]")

    with pytest.raises(CaptureError, match=r"lines \(list of 30\) 1.5 MB"):
        capture("lines", notebook.names, content=notebook.content, limit_bytes=1_000_000)


def test_a_stream_gives_back_what_was_written_and_can_be_cut() -> None:
    stream = OutStream()
    large = b"L" * LARGE_PIECE_BYTES
    for data in (b"abc", b"def", large, b"tail"):
        stream.write(data)
    end = stream.tell()
    stream.write(large)
    stream.write(b"undone")
    stream.truncate(end)

    assert bytes(stream.joined()) == b"abcdef" + large + b"tail"
    assert stream.large() == [(6, 6 + len(large))]
    assert b"".join(stream.slices(4, 6 + len(large) + 2)) == b"ef" + large + b"ta"
    stream.truncate(2)
    stream.write(b"XY")
    assert bytes(stream.joined()) == b"abXY"
    assert reader([b"ab", b"", memoryview(b"cde")]).read() == b"abcde"


@pytest.mark.skipif(not _can_tell(), reason="no page table to read here")
def test_only_written_pages_count_as_written(notebook: Notebook) -> None:
    ref = notebook.content.put(bytes(100_000))
    mapped = np.frombuffer(notebook.content.map(ref.key), np.uint8)
    address = mapped.ctypes.data

    assert mapped.sum() == 0
    assert not is_written(address, 100_000)
    mapped[50_000] = 1
    assert is_written(address, 100_000)
    assert not is_written(address, 40_000)
