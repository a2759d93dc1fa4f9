from __future__ import annotations

import torch

from jupyter_train.runtime.parallel.plan import BUCKET_BYTES, make_plan


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> dict[int, torch.Tensor]:
    return {n: torch.zeros(shape, dtype=dtype, requires_grad=True) for n, shape in enumerate(shapes)}


def test_a_small_model_travels_in_one_piece_with_its_extras() -> None:
    own = parameters((3, 2), (4,))
    plan = make_plan([1, 0], own, extras=5)
    (bucket,) = plan.buckets
    assert bucket.reduced.whole.numel() == 6 + 4 + 5
    own[1].grad = torch.full((4,), 2.0, dtype=torch.float64)
    bucket.gather(1)
    bucket.write([1.0, 2.0, 3.0, 4.0, 5.0])
    assert bucket.lacks == 1
    assert bucket.reduced.whole.tolist() == [2.0] * 4 + [0.0] * 6 + [1.0, 2.0, 3.0, 4.0, 5.0]
    assert bucket.read() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_the_first_bucket_is_small_and_the_others_are_not_too_large() -> None:
    own = parameters(*[(1 << 19,)] * 20)  # 4 MiB each
    plan = make_plan(range(20), own, extras=1)
    assert [len(bucket.numbers) for bucket in plan.buckets] == [1, 7, 7, 5]
    assert all(bucket.reduced.whole.numel() * 8 <= BUCKET_BYTES + (8 << 20) for bucket in plan.buckets)
    assert [bucket.reduced.extras is not None for bucket in plan.buckets] == [False, False, False, True]


def test_extras_ride_where_they_stay_exact() -> None:
    own = parameters((2,), dtype=torch.bfloat16) | {1: torch.zeros(2, requires_grad=True)}
    plan = make_plan([1, 0], own, extras=1)
    assert [bucket.reduced.whole.dtype for bucket in plan.buckets] == [torch.bfloat16, torch.float32]
    assert plan.buckets[-1].reduced.extras is not None
    assert make_plan([0], own, extras=1).buckets[-1].reduced.extras is None


def test_a_plan_does_not_keep_parameters_alive_and_notices_changes() -> None:
    own = parameters((2,), (3,))
    plan = make_plan([0, 1], own, extras=1)
    assert not plan.is_stale()
    own[0].data = own[0].data.float()
    assert plan.is_stale()
    del own[0]
    own[1].grad = torch.ones(3, dtype=torch.float64)
    plan.buckets[0].gather(1)
    assert plan.buckets[0].lacks == 1
