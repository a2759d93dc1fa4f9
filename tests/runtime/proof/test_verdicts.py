"""What the proof says of ordinary cells: same where they are, and no more than it knows where they draw random numbers."""

from __future__ import annotations

import textwrap

import pytest

from jupyter_train.record.proof import Verdict
from tests.runtime.proof import rig

LOADER = "DataLoader(TensorDataset(X, Y), 16, shuffle=True)"
SAME = {
    "accumulation and clipping": f"""
        model = mlp()
        opt = torch.optim.AdamW(model.parameters(), lr=0.01)
        for step, (x, y) in enumerate({LOADER}):
            loss = F.cross_entropy(model(x), y) / 2
            loss.backward()
            if step % 2:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                opt.step()
                opt.zero_grad()
    """,
    "two models by turns": """
        G, D = mlp(4, 16, 10), mlp(10, 16, 1)
        g, d = torch.optim.Adam(G.parameters(), 0.01), torch.optim.Adam(D.parameters(), 0.01)
        z0 = torch.randn(N, 4, generator=g0)
        bce = F.binary_cross_entropy_with_logits
        for x, z in DataLoader(TensorDataset(X, z0), 16):
            one, none = torch.ones(len(x), 1), torch.zeros(len(x), 1)
            d.zero_grad()
            d_loss = bce(D(x), one) + bce(D(G(z).detach()), none)
            d_loss.backward()
            d.step()
            g.zero_grad()
            g_loss = bce(D(G(z)), one)
            g_loss.backward()
            g.step()
    """,
    "LBFGS with a closure": f"""
        model = mlp()
        opt = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        for x, y in {LOADER}:
            def closure():
                opt.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss
            opt.step(closure)
    """,
    "a class with a model, in a function": f"""
        class Trainer:
            def __init__(self):
                self.net = mlp()
                self.opt = torch.optim.SGD(self.net.parameters(), 0.1)
            def fit(self):
                for x, y in {LOADER}:
                    self.opt.zero_grad()
                    F.cross_entropy(self.net(x), y, label_smoothing=0.1).backward()
                    self.opt.step()
        def main():
            Trainer().fit()
        main()
    """,
    "sum losses, and tensors that are no module": f"""
        w = torch.zeros(10, 3, requires_grad=True)
        for x, y in {LOADER}:
            loss = F.cross_entropy(x @ w, y, reduction="sum") / len(x)
            loss.backward()
            with torch.no_grad():
                w -= 0.1 * w.grad
                w.grad = None
    """,
    "a loader with a generator of its own": """
        own = torch.Generator().manual_seed(4)
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), 0.1)
        for epoch in range(3):
            for x, y in DataLoader(TensorDataset(X, Y), 50, shuffle=True, generator=own):
                opt.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                opt.step()
    """,
    "a loop that draws between its passes": """
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), 0.1)
        loader = DataLoader(TensorDataset(X, Y), 50, shuffle=True)
        for epoch in range(3):
            for x, y in loader:
                opt.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                opt.step()
            with torch.no_grad():
                shown = model(torch.randn(4, 10)).sum()
    """,
}
COARSE = f"""
    model = mlp().float()
    opt = torch.optim.AdamW(model.parameters(), 0.01)
    for x, y in {LOADER}:
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(x.float()), y)
        loss.backward()
        opt.step()
"""
CHANCE = {
    "dropout": (
        f"""
        model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 3))
        opt = torch.optim.SGD(model.parameters(), 0.1)
        for x, y in {LOADER}:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
    """,
        "the loop (dropout)",
    ),
    "noise by numpy": (
        f"""
        import numpy as np
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), 0.1)
        for x, y in {LOADER}:
            opt.zero_grad()
            loss = F.cross_entropy(model(x + torch.from_numpy(np.random.randn(*x.shape)) * 0.1), y)
            loss.backward()
            opt.step()
    """,
        "the loop",
    ),
    "noise by a generator of its own": (
        f"""
        import numpy as np
        rng = np.random.default_rng(3)
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), 0.1)
        for x, y in {LOADER}:
            opt.zero_grad()
            loss = F.cross_entropy(model(x + torch.from_numpy(rng.normal(size=x.shape)) * 0.1), y)
            loss.backward()
            opt.step()
    """,
        "the loop",
    ),
    "augmentation in workers": (
        """
        class Noisy(Dataset):
            def __len__(self): return N
            def __getitem__(self, i): return X[i] + 0.1 * torch.randn(10), Y[i]
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), 0.1)
        for x, y in DataLoader(Noisy(), 16, num_workers=1):
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
    """,
        "the data set (augmentation)",
    ),
}


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("ranks", [2, 4])
def test_healthy_cells_are_the_same(ranks: int, single: bool) -> None:
    for name, proved in zip(SAME, rig.prove(list(SAME.values()), ranks=ranks, single=single), strict=True):
        assert not proved.ranks[0].error, (name, proved.ranks[0].error)
        assert proved.proof.verdict is Verdict.SAME, (name, proved.proof)
        assert proved.proof.steps == 4
        assert proved.proof.difference is not None
        assert proved.proof.difference < (1e-2 if single else 1e-9), (name, proved.proof)
        assert "parameters" not in proved.proof.text, name


def test_cells_that_draw_random_numbers_are_not_called_proven() -> None:
    proofs = rig.prove([cell for cell, _ in CHANCE.values()], ranks=2)
    for (name, (_, who)), proved in zip(CHANCE.items(), proofs, strict=True):
        assert not proved.ranks[0].error, (name, proved.ranks[0].error)
        assert proved.proof.verdict is Verdict.RANDOM, (name, proved.proof)
        assert f"random numbers that {who} draws" in proved.proof.text


def test_what_autocast_rounds_is_allowed_for_and_a_fault_shows_all_the_same() -> None:
    (proved,) = rig.prove([COARSE], ranks=2)
    assert proved.proof.verdict is Verdict.SAME, proved.proof
    (broken,) = rig.prove([COARSE], ranks=2, broken=rig.double_averaging)
    assert broken.proof.verdict is Verdict.DIFFERS
    assert broken.proof.ratio == pytest.approx(0.5, abs=0.05)


def test_gross_faults_show_behind_random_numbers_too() -> None:
    (proved,) = rig.prove([CHANCE["dropout"][0]], ranks=4, broken=_eight_times)
    assert proved.proof.verdict is Verdict.DIFFERS
    assert "more than the random numbers" in proved.proof.text


def test_other_initial_weights_are_named_as_such() -> None:
    cell = """
        import os
        scale = 2.0 if "RANK" in os.environ else 1.0
        model = nn.Linear(10, 3)
        with torch.no_grad(): model.weight *= scale
        for x, y in DataLoader(TensorDataset(X, Y), 16):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
    """
    (proved,) = rig.prove([textwrap.dedent(cell)], ranks=2)
    assert proved.proof.verdict is Verdict.DIFFERS
    assert "the start differs: model.weight" in proved.proof.text


def test_a_cell_that_takes_another_path_on_ranks_is_noticed() -> None:
    cell = """
        import os
        model = nn.Linear(10, 3)
        opt = torch.optim.SGD(model.parameters(), 0.1)
        for x, y in DataLoader(TensorDataset(X, Y), 16):
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            if "RANK" in os.environ and opt.param_groups[0]["lr"] == 0.1:
                break
    """
    (proved,) = rig.prove([cell], ranks=2)
    assert proved.proof.verdict is Verdict.DIFFERS
    assert "backward 1 times where one process does 4 times" in proved.proof.text


def _eight_times(parallel: object) -> rig.contextlib.AbstractContextManager[None]:
    return rig.times(8.0)
