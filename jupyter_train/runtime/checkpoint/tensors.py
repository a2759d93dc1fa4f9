"""Tensors put back: in place where that says the same, and sharing memory as they did when they were kept."""

from __future__ import annotations

from typing import Any


class Tensors:
    """Where the memory of a checkpoint's tensors is by now. For one loading, by one thread."""

    def __init__(self) -> None:
        #: saved memory → a tensor that has it now, and the shift in bytes
        self._storages: dict[int, tuple[Any, int]] = {}
        #: memory that was loaded into → from which saved memory
        self._written: dict[tuple[str, int], int] = {}

    def into(self, target: Any, saved: Any) -> Any:
        """``saved``, a tensor on the CPU, in the place of ``target``, or where its memory is by now."""
        import torch

        if (shared := self._shared(saved)) is not None:
            if isinstance(target, torch.Tensor) and _same_place(target, shared):
                return target
            return shared
        if (
            isinstance(target, torch.Tensor)
            and target.shape == saved.shape
            and target.dtype == saved.dtype
            and target.layout is torch.strided
            and not _overlaps_itself(target)
            and not (target.requires_grad and not target.is_leaf)
            and not target.is_inference()
            and self._may_write(target, saved)
        ):
            with torch.no_grad():
                target.copy_(saved)
            self.now_in(saved, target)
            return target
        device = target.device if isinstance(target, torch.Tensor) else torch.device("cpu")
        fresh = saved.detach().clone().to(device)
        self.now_in(saved, fresh)
        return fresh

    def with_more(self, target: Any, saved: dict[str, Any]) -> Any:
        """As :meth:`into`, for a tensor of which more was kept: its device, gradient, and that it takes one."""
        import torch

        device = _here(saved["device"])
        on_device = target
        if not isinstance(target, torch.Tensor) and device.type != "cpu":
            on_device = torch.empty(0, device=device)
        tensor = self.into(on_device, saved["data"])
        if saved.get("requires_grad"):
            if saved.get("parameter") and not isinstance(tensor, torch.nn.Parameter):
                tensor = torch.nn.Parameter(tensor)
            tensor.requires_grad_(True)
            if "grad" in saved:
                tensor.grad = _gradient(saved["grad"], tensor)
            else:
                tensor.grad = None
        return tensor

    def _shared(self, saved: Any) -> Any:
        """A view of the memory that ``saved`` shares by now with a tensor that was loaded before."""
        import torch

        if not saved.numel() or (known := self._storages.get(saved.untyped_storage().data_ptr())) is None:
            return None
        holder, shift = known
        start = saved.storage_offset() * saved.element_size() + shift
        storage = holder.untyped_storage()
        extent = 1 + sum((n - 1) * stride for n, stride in zip(saved.size(), saved.stride(), strict=True))
        if (
            start < 0
            or start % saved.element_size()
            or start + extent * saved.element_size() > storage.nbytes()
        ):
            return None
        view = torch.empty(0, dtype=saved.dtype, device=holder.device)
        view.set_(storage, start // saved.element_size(), saved.size(), saved.stride())
        return view

    def now_in(self, saved: Any, tensor: Any) -> None:
        """The memory of ``saved`` is that of ``tensor`` by now: others that shared it are views of it."""
        if not saved.numel():
            return
        if tensor.stride() == saved.stride() and tensor.dtype == saved.dtype:
            shift = (tensor.storage_offset() - saved.storage_offset()) * saved.element_size()
            self._storages.setdefault(saved.untyped_storage().data_ptr(), (tensor.detach(), shift))
        self._written[_memory(tensor)] = saved.untyped_storage().data_ptr()

    def _may_write(self, target: Any, saved: Any) -> bool:
        written = self._written.get(_memory(target))
        return not target.numel() or written is None or written == saved.untyped_storage().data_ptr()


def _gradient(saved: Any, owner: Any) -> Any:
    tensor = saved["data"] if isinstance(saved, dict) else saved
    return tensor.detach().clone().to(owner.device)


def _memory(tensor: Any) -> tuple[str, int]:
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def _same_place(one: Any, other: Any) -> bool:
    return bool(
        _memory(one) == _memory(other)
        and one.storage_offset() == other.storage_offset()
        and one.size() == other.size()
        and one.stride() == other.stride()
        and one.dtype == other.dtype
    )


def _overlaps_itself(tensor: Any) -> bool:
    return any(stride == 0 and n > 1 for n, stride in zip(tensor.size(), tensor.stride(), strict=True))


def _here(kind: str) -> Any:
    import torch

    if kind == "cuda" and not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
