from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_train.transport.arrays import array_parts, rebuild_array
from jupyter_train.transport.memory import Outgoing, Regions
from jupyter_train.transport.tensors import TensorMemory, rebuild_tensor


def carry(memory: Outgoing) -> Regions:
    """The regions in a process that has copies of them."""
    layout, contents = memory.regions()
    copies = [content.copy() for content in contents]
    return Regions(layout, copies.__getitem__, original=contents.__getitem__)


def test_overlapping_views_become_one_region() -> None:
    memory = Outgoing()
    base = np.arange(100.0)
    whole, part = array_parts(base, memory), array_parts(base[10:20], memory)

    regions = carry(memory)
    there, there_part = rebuild_array(regions, *whole), rebuild_array(regions, *part)
    there_part[0] = -1

    assert len(regions.layout.lengths) == 1
    assert there[10] == -1


def test_regions_come_in_the_order_in_which_they_are_first_used() -> None:
    """Not by their addresses, which are others each time: files are named by what is in them."""
    base = np.arange(10.0)
    for views in ([base[:2], base[4:6], base[8:]], [base[8:], base[:2], base[4:6]]):
        memory = Outgoing()
        for view in views:
            array_parts(view, memory)
        _, contents = memory.regions()
        assert [content.tobytes() for content in contents] == [view.tobytes() for view in views]


def test_neighbours_in_memory_stay_apart() -> None:
    memory = Outgoing()
    base = np.arange(10.0)
    array_parts(base[:5], memory)
    array_parts(base[5:], memory)

    assert memory.regions()[0].lengths.tolist() == [40, 40]


def test_a_small_view_does_not_drag_its_base_along() -> None:
    memory = Outgoing()
    big = torch.zeros(10_000_000)
    TensorMemory(memory, detach=False).parts(big[:5])

    assert memory.regions()[0].lengths.tolist() == [20]


def test_a_column_of_a_large_matrix_travels_without_the_gaps() -> None:
    memory = Outgoing()
    matrix = np.arange(4_000_000.0).reshape(2000, 2000)
    parts = array_parts(matrix[:, 3], memory)
    tensor_parts = TensorMemory(memory, detach=False).parts(torch.ones(2000, 2000)[:, 3])

    regions = carry(memory)

    assert regions.layout.lengths.sum() == 2000 * (8 + 4)
    assert np.array_equal(rebuild_array(regions, *parts), matrix[:, 3])
    assert torch.equal(rebuild_tensor(regions, *tensor_parts), torch.ones(2000))


def test_a_column_stays_a_view_where_its_matrix_travels_too() -> None:
    memory = Outgoing()
    matrix = np.arange(4_000_000.0).reshape(2000, 2000)
    column, whole = array_parts(matrix[:, 3], memory), array_parts(matrix, memory)

    regions = carry(memory)
    there_column, there = rebuild_array(regions, *column), rebuild_array(regions, *whole)
    there[5, 3] = -1

    assert there_column[5] == -1


def test_numpy_and_torch_share_memory_on_the_other_side() -> None:
    memory = Outgoing()
    array = np.arange(12.0)
    parts = array_parts(array, memory)
    tensor_parts = TensorMemory(memory, detach=False).parts(torch.from_numpy(array[3:]))

    regions = carry(memory)
    there, tensor = rebuild_array(regions, *parts), rebuild_tensor(regions, *tensor_parts)
    tensor[0] = 99

    assert there[3] == 99


def test_bytes_and_floats_over_one_memory_at_odd_addresses_keep_their_values() -> None:
    memory = Outgoing()
    raw = np.arange(64, dtype=np.uint8)
    parts = array_parts(raw[3:40], memory)
    tensor_parts = TensorMemory(memory, detach=False).parts(torch.from_numpy(raw[8:24].view(np.float32)))

    regions = carry(memory)

    assert rebuild_array(regions, *parts).tolist() == raw[3:40].tolist()
    assert torch.equal(rebuild_tensor(regions, *tensor_parts), torch.from_numpy(raw[8:24].view(np.float32)))


def test_what_is_forgotten_does_not_travel() -> None:
    memory = Outgoing()
    array_parts(np.ones(3), memory)
    array_parts(np.ones(1000), memory)

    memory.forget(1)

    assert memory.regions()[0].lengths.tolist() == [24]


def test_only_regions_that_were_written_to_count_as_changed() -> None:
    memory = Outgoing()
    arrays = [np.ones(10), np.ones(20), np.ones(30)]
    parts = [array_parts(array, memory) for array in arrays]
    regions = carry(memory)
    there = [rebuild_array(regions, *part) for part in parts]

    there[1][4] = 2

    changed = regions.changed()
    assert [regions.view(part[0])[0].nbytes for part in parts if regions._region_of[part[0]] in changed] == [
        160
    ]


@pytest.mark.parametrize("dtype", ["f8", "i1", "?", "c16", "M8[ns]", "S5", "U3", "V7", "f2,i4"])
def test_arrays_of_every_plain_type_keep_their_elements(dtype: str) -> None:
    memory = Outgoing()
    array = np.zeros(7, dtype)
    array.view(np.uint8)[:] = np.arange(array.nbytes) % 2
    parts = array_parts(array, memory)

    there = rebuild_array(carry(memory), *parts)

    assert there.dtype == array.dtype
    assert there.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64, torch.int64])
def test_tensors_of_every_type_keep_their_elements(dtype: torch.dtype) -> None:
    memory = Outgoing()
    tensor = torch.arange(6).to(dtype).reshape(2, 3)
    parts = TensorMemory(memory, detach=False).parts(tensor)

    assert torch.equal(rebuild_tensor(carry(memory), *parts), tensor)


def test_a_parameter_stays_one_and_a_graph_is_left_behind_on_the_way_back() -> None:
    weight = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    loss = (torch.ones(2, requires_grad=True) * 2).sum()
    out, back = Outgoing(), Outgoing()
    weight_parts = TensorMemory(out, detach=False).parts(weight)
    loss_parts = TensorMemory(back, detach=True).parts(loss)

    there = rebuild_tensor(carry(out), *weight_parts)
    returned = rebuild_tensor(carry(back), *loss_parts)

    assert type(there) is torch.nn.Parameter
    assert not there.requires_grad
    assert not returned.requires_grad
    assert returned.item() == 4


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_empty_and_scalar_shapes_survive(shape: tuple[int, ...]) -> None:
    memory = Outgoing()
    parts = array_parts(np.ones(shape), memory)
    tensor_parts = TensorMemory(memory, detach=False).parts(torch.ones(shape))

    regions = carry(memory)

    assert np.array_equal(rebuild_array(regions, *parts), np.ones(shape))
    assert torch.equal(rebuild_tensor(regions, *tensor_parts), torch.ones(shape))


_slice = st.builds(slice, st.integers(-6, 6), st.integers(-6, 6), st.sampled_from([-3, -2, -1, 1, 2, 3]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_slice, _slice), min_size=1, max_size=5))
def test_views_of_one_array_share_the_elements_that_they_shared(slices: list[tuple[slice, slice]]) -> None:
    base = np.arange(30.0).reshape(5, 6)
    views = [base[pair] for pair in slices]
    memory = Outgoing()
    parts = [array_parts(view, memory) for view in views]
    regions = carry(memory)
    there = [rebuild_array(regions, *part) for part in parts]

    for view, copy in zip(views, there, strict=True):
        assert np.array_equal(view, copy)
    for number, view in enumerate(views):
        if view.size:
            view.flat[0] += 1000
            there[number].flat[0] += 1000
    for view, copy in zip(views, there, strict=True):
        assert np.array_equal(view, copy)


def test_what_shared_memory_on_an_accelerator_shares_its_copy_here() -> None:
    """Without an accelerator at hand: the copy of one storage is made once, whoever asks."""
    memory = TensorMemory(Outgoing(), detach=False)
    storage = torch.arange(8.0).untyped_storage()

    address = memory._host_address(storage)

    assert address != storage.data_ptr()
    assert memory._host_address(storage) == address
