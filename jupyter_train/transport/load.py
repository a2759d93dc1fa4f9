"""The rank's side of a capture: the files into a fresh namespace, and what is kept to see changes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyter_train.errors import CaptureError
from jupyter_train.record import ContentRef
from jupyter_train.transport.code import know_sources
from jupyter_train.transport.collection import no_collection
from jupyter_train.transport.content import ContentStore, Mapped, map_part
from jupyter_train.transport.devices import device_remark, map_devices
from jupyter_train.transport.envelope import SEALED, Envelope, open_envelope
from jupyter_train.transport.memory import Regions
from jupyter_train.transport.pickling import RESERVED, Namespace, Reader, Receiver, drop_temporaries
from jupyter_train.transport.schedulers import track_steps
from jupyter_train.transport.snapshot import Snapshots
from jupyter_train.transport.sources import install_sources, unpack_sources

if "torch" in sys.modules:
    # A zygote imports torch and then this module, so that its ranks find everything imported.
    import jupyter_train.transport.tensors  # noqa: F401


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A capture as one process has it, before the cell runs."""

    names: tuple[str, ...]
    given: Namespace  #: values by label, which are in no namespace
    random_state: dict[str, Any] | None  #: see ``randomness.random_state``; None: the run has a seed
    settings: Mapping[str, bytes]  #: see ``settings.current_settings``
    remarks: tuple[str, ...]  #: what is different here; the same on every rank
    objects: tuple[Any, ...] = field(repr=False)  #: by number; None where the kernel or we have none
    snapshots: Snapshots = field(repr=False)
    bindings: Namespace = field(repr=False)  #: the namespace as it was


def load_capture(
    refs: Sequence[ContentRef], content: ContentStore, namespace: Namespace, *, device: str | None = None
) -> Loaded:
    """Fill ``namespace`` with what was captured.

    Args:
        refs: as ``Capture.refs``; their files are in ``content``. Empty: nothing was captured.
        content: the folder of this host.
        namespace: of the process's ``__main__``.
        device: where tensors go that lay on an accelerator in the notebook; None: the CPU.

    Raises:
        FileNotFoundError: captured data is not in ``content``.
        CaptureError: a module of the notebook cannot be imported here, or an
            object cannot be rebuilt.
    """
    with no_collection():
        objects, envelope, regions = load_objects(refs, content, namespace, device=device, know_code=True)
        drop_temporaries(objects)
        _drop_storages(objects)
        for number in envelope.dropped.tolist():
            objects[number] = None
        remark = _map_devices(namespace, envelope, objects, regions)
        track_steps(objects)
        snapshots = Snapshots(objects, regions)
    given = {label: namespace.pop(label) for label in envelope.tables.given}
    return Loaded(
        names=tuple(name for name in envelope.names if name not in given),
        given=given,
        random_state=envelope.random_state,
        settings=envelope.settings,
        remarks=(remark,) if remark else (),
        objects=tuple(objects),
        snapshots=snapshots,
        bindings=dict(namespace),
    )


def _map_devices(namespace: Namespace, envelope: Envelope, objects: Sequence[Any], regions: Regions) -> str:
    """Before the pictures are taken: what is mapped is no change that the cell made."""
    if regions.device is None or "torch" not in sys.modules:
        return ""
    names = envelope.tables.names
    moved = map_devices(namespace, names, objects, regions.device, cpu_was_chosen=envelope.accelerator)
    return device_remark({**regions.moved, **moved})


def _know_local_modules(key: str, content: ContentStore) -> None:
    folder = content.folder.with_name("sources") / key
    try:
        install_sources(unpack_sources(content.map(key), folder), folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CaptureError(
            f"the notebook's own modules cannot be written to {folder.parent}: {error.strerror or error}"
        ) from error


def _import_if_there(name: str) -> None:
    """Import a submodule that the cell may reach: by its words alone, so it may not need it."""
    try:
        importlib.import_module(name)
    except ImportError:
        return


def _drop_storages(objects: list[Any]) -> None:
    """Forget torch's storages: named on the way back, one would stand for the kernel's old bytes."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    kinds = (torch.UntypedStorage, torch.storage.TypedStorage)
    for number, value in enumerate(objects):
        if isinstance(value, kinds):
            objects[number] = None


def load_objects(
    refs: Sequence[ContentRef],
    content: ContentStore,
    namespace: Namespace,
    *,
    device: str | None = None,
    know_code: bool = False,
) -> tuple[list[Any], Envelope, Regions]:
    """Fill ``namespace`` and return every object by its number.

    With ``know_code`` the source of the functions is known to this process from now on, and the
    notebook's local modules can be imported.

    Raises:
        FileNotFoundError: as :func:`load_capture`.
        CaptureError: as :func:`load_capture`.
    """
    envelope = open_envelope([content.map(ref.key) for ref in refs[:SEALED]])
    tables = envelope.tables
    files = [content.mapped(ref.key) for ref in refs[SEALED:]]
    parts: dict[int, Mapped] = {}

    def region(index: int) -> memoryview:
        file, offset = tables.placement[index].tolist()
        if file < 0:
            parts[index] = map_part(tables.elsewhere[-1 - file], int(tables.layout.lengths[index]))
            return parts[index].private
        mapped: memoryview = files[file].private
        return mapped[offset : offset + int(tables.layout.lengths[index])]

    def original(index: int) -> memoryview:
        file, offset = tables.placement[index].tolist()
        if file < 0:
            return parts[index].original
        mapped: memoryview = files[file].original
        return mapped[offset : offset + int(tables.layout.lengths[index])]

    receiver = Receiver(namespace, Regions(tables.layout, region, original=original, device=device))
    stream = [
        files[file].original[offset : offset + length] for file, offset, length in envelope.pieces.tolist()
    ]
    if know_code and envelope.sources:
        _know_local_modules(envelope.sources, content)
    name = ""
    try:
        for name in tables.imports:
            _import_if_there(name)
        reader = Reader(stream, receiver, buffers=tables.buffers)
        for name in tables.names:
            namespace[name] = reader.load()
        code = reader.load() if refs else {}
        if know_code:
            know_sources(code)
    except ModuleNotFoundError as error:
        raise CaptureError(
            f"{name} needs the module {error.name}, which is not installed on the worker"
        ) from error
    except CaptureError:
        raise
    except ImportError as error:
        raise CaptureError(f"{name} needs what cannot be imported on the worker: {error}") from error
    except Exception as error:
        raise CaptureError(
            f"{name} could not be rebuilt on the rank: {type(error).__name__}: {error}"
        ) from error
    return reader.objects()[RESERVED:], envelope, receiver.regions
