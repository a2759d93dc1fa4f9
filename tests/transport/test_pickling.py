from __future__ import annotations

import threading
import types
from typing import Any

import pytest

from jupyter_train.transport.memory import Regions
from jupyter_train.transport.pickling import RESERVED, Reader, Receiver, Writer, drop_temporaries

Names = dict[str, Any]


@pytest.fixture
def here() -> Names:
    return types.ModuleType("__main__").__dict__


@pytest.fixture
def there() -> Names:
    return types.ModuleType("__main__").__dict__


def reader(writer: Writer, namespace: Names, given: list[Any] | None = None) -> Reader:
    layout, contents = writer.memory.regions()
    copies = [content.copy() for content in contents]
    receiver = Receiver(namespace, Regions(layout, copies.__getitem__))
    return Reader(writer.stream(), receiver, given=given or [], buffers=writer.buffers)


def test_what_dumps_share_stays_shared(here: Names, there: Names) -> None:
    writer = Writer(here)
    shared = [1]
    writer.dump({"a": shared})
    writer.dump((shared, "text"))

    loaded = reader(writer, there)

    assert loaded.load()["a"] is loaded.load()[0]


def test_a_failed_dump_leaves_no_trace(here: Names, there: Names) -> None:
    writer = Writer(here)
    shared = ["shared"]
    writer.dump(shared)
    fresh = ["fresh"]
    with pytest.raises(Exception, match="a lock"):
        writer.dump([shared, fresh, threading.Lock()])
    writer.dump([shared, fresh])

    loaded = reader(writer, there)
    first = loaded.load()

    assert loaded.load() == [["shared"], ["fresh"]]
    assert first == ["shared"]
    numbers = writer.finish()
    assert [type(value) for value in numbers[RESERVED:]] == [
        type(value) for value in loaded.objects()[RESERVED:]
    ]


def test_the_namespace_is_the_other_sides(here: Names, there: Names) -> None:
    writer = Writer(here)
    writer.dump([here])

    assert reader(writer, there).load()[0] is there


def test_objects_that_the_other_side_has_are_named_by_number(here: Names, there: Names) -> None:
    theirs, ours = {"theirs": 1}, {"ours": 1}
    writer = Writer(here, given=[theirs, None, "text"])
    writer.dump([theirs, "text", {"new": 1}])

    loaded = reader(writer, there, given=[ours, None, "text"]).load()

    assert loaded[0] is ours
    assert loaded[1:] == ["text", {"new": 1}]


def test_functions_share_the_namespace_and_their_closures(here: Names, there: Names) -> None:
    exec(
        "scale = 2\n"
        "def even(n): return True if n == 0 else odd(n - 1)\n"
        "def odd(n): return False if n == 0 else even(n - 1)\n"
        "def counter():\n"
        "    count = 0\n"
        "    def up():\n"
        "        nonlocal count\n"
        "        count += scale\n"
        "    return up, lambda: count\n"
        "up, count = counter()\n"
        "def factorial():\n"
        "    def inner(n): return 1 if n < 2 else n * inner(n - 1)\n"
        "    return inner\n"
        "fact = factorial()\n",
        here,
    )
    writer = Writer(here)
    names = ["even", "odd", "up", "count", "fact"]
    for name in names:
        writer.dump(here[name])
    loaded = reader(writer, there)
    for name in names:
        there[name] = loaded.load()
    there["scale"] = 5

    there["up"]()

    assert there["even"].__globals__ is there
    assert there["even"](10)
    assert there["count"]() == 5
    assert here["count"]() == 0
    assert there["fact"](5) == 120
    assert writer.found_names.keys() >= {"odd", "even", "scale"}


def test_a_class_that_this_process_knows_is_left_alone(here: Names) -> None:
    exec("class Net:\n  def forward(self): return 1\nnet = Net()", here)
    method = here["Net"].forward
    writer = Writer(here)
    writer.dump(here["net"])

    loaded = reader(writer, {"__name__": "__main__"}).load()

    assert type(loaded) is here["Net"]
    assert here["Net"].forward is method


def test_what_only_a_reducer_made_is_dropped(here: Names) -> None:
    class Bag:
        def __init__(self, items: list[int]) -> None:
            self.items = items

        def __reduce__(self) -> Any:
            return Bag, (list(self.items),)

    bag = Bag([1])
    kept = {"key": [1, 2]}
    writer = Writer(here)
    writer.dump([bag, kept])
    objects = writer.finish()
    del writer

    dropped = drop_temporaries(objects)

    assert bag in objects
    assert kept in objects
    assert any(value is kept["key"] for value in objects)
    assert not any(isinstance(value, list) and value == [1] for value in objects)
    assert all(objects[number] is None for number in dropped)


def test_cycles_and_dicts_that_hold_themselves_travel(here: Names, there: Names) -> None:
    node: dict[str, Any] = {"list": []}
    node["self"] = node
    node["list"].append(node)
    writer = Writer(here)
    writer.dump(node)

    loaded = reader(writer, there).load()

    assert loaded["self"] is loaded
    assert loaded["list"][0] is loaded
