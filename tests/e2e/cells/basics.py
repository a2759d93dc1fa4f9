# Names, containers, statements: what any notebook does between its trainings.
# %% case: counts words of a text
# %% before
from collections import Counter

text = "the cat sat on the mat and the dog sat on the cat"
# %% cell
counts = Counter(text.split())
longest = max(counts, key=len)
print(f"{len(counts)} words")
for word, n in counts.most_common(3):
    print(f"{word:>5} {n}")
counts.most_common(2)
# %% after
print(counts["the"], longest)

# %% case: changes lists and dicts in place
# %% before
inbox = ["a", "b"]
alias = inbox
settings = {"lr": 0.1, "layers": [8, 8]}
layers = settings["layers"]
# %% cell
inbox.append("c")
settings["layers"].append(4)
settings["epochs"] = 3
del settings["lr"]
# %% after
print(alias, layers, settings, alias is inbox)

# %% case: changes containers of every kind in place
# %% before
from array import array
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque

recent = deque([1, 2, 3], maxlen=3)
groups = defaultdict(list, {"x": [1]})
order = OrderedDict(a=1, b=2, c=3)
seen = {1, 2}
tally = Counter("hello")
raw = bytearray(b"abc")
codes = array("i", [1, 2, 3])
chain = ChainMap({"a": 1}, {"b": 2})
nested = {"list": [1, {"deep": {2}}], "tuple": ([0],)}
# %% cell
recent.append(4)
groups["y"].append(2)
groups["x"] += [5]
order.move_to_end("a")
order["d"] = 4
seen |= {3}
seen.discard(1)
tally.update("lo")
raw += b"d"
raw[0] = 65
codes.append(4)
chain["c"] = 3
nested["list"][1]["deep"].add(3)
nested["tuple"][0].append(1)
# %% after
print(recent.maxlen, groups["new"], list(order), sorted(seen), tally.most_common(1), raw, codes, chain["c"])

# %% case: keeps aliases and cycles
# %% before
shared = [0]
left, right = {"shared": shared}, {"shared": shared}
tree = {"name": "root", "children": []}
tree["children"].append({"name": "leaf", "parent": tree})
# %% cell
shared.append(1)
left["also"] = right["shared"]
tree["children"].append({"name": "second", "parent": tree})
ring = [1]
ring.append(ring)
pair = (shared, left)
# %% after
print(left["also"] is right["shared"] is shared is pair[0], tree["children"][1]["parent"] is tree, ring[1] is ring)

# %% case: deletes names and rebinds them
# %% before
old = [1, 2, 3]
keep = old
temporary = "scratch"
total = 10
# %% cell
del temporary
old = [x * 2 for x in old]
total += sum(old)
total -= 1
missing = "temporary" in globals()

# %% case: unpacks with stars and swaps
# %% before
a, b = 1, 2
row = ("ada", 1815, "london", "uk")
# %% cell
a, b = b, a
name, year, *rest = row
first, *_, last = range(5)
merged = {**{"x": 1}, "y": 2} | {"z": 3}
print(name, *rest, sep=" | ")
[*range(2), *"ab"]

# %% case: uses walrus and comprehensions
# %% before
numbers = [3, 8, -1, 12, 5]
limit = 4
# %% cell
big = [y for x in numbers if (y := x - limit) > 0]
squares = {n: n**2 for n in numbers}
unique = {n % 3 for n in numbers}
lazy = sum(n for n in numbers)
pairs = [(i, j) for i in range(3) for j in range(i)]
if (count := len(big)) > 1:
    print(f"{count=} {y=}")
matrix = [[i * j for j in range(3)] for i in range(3)]

# %% case: matches patterns
# %% before
from dataclasses import dataclass


@dataclass
class Point:
    x: int
    y: int


commands = ["go north", "stop", ["pick", "lamp"], {"kind": "say", "text": "hi"}, Point(0, 3), 42]
# %% cell
answers = []
for command in commands:
    match command:
        case str() as words if words.startswith("go "):
            answers.append(words.split()[1])
        case "stop" | "quit":
            answers.append("bye")
        case ["pick", thing]:
            answers.append(f"took {thing}")
        case {"kind": "say", "text": text}:
            answers.append(text)
        case Point(x=0, y=y):
            answers.append(y)
        case _:
            answers.append(None)
answers

# %% case: loops with else and breaks
# %% cell
primes = []
for n in range(2, 30):
    for d in primes:
        if n % d == 0:
            break
    else:
        primes.append(n)
i = 0
while i < 3:
    i += 1
else:
    ended = True
print(primes)

# %% case: handles errors of its own
# %% before
records = ["3", "x", "7", None]
# %% cell
values, problems = [], []
for record in records:
    try:
        values.append(int(record))
    except (ValueError, TypeError) as error:
        problems.append(f"{type(error).__name__}: {error}")
    else:
        print("ok", record)
    finally:
        last = record
problem = None
try:
    raise LookupError("nothing there")
except LookupError as error:
    problem = error

# %% case: annotates its names
# %% before
from typing import Any, Optional
# %% cell
rate: float = 0.1
names: list[str] = []
later: Optional[int]
names.append("x")


def scale(x: float, by: "float" = 2.0) -> Any:
    return x * by


scaled = scale(rate)
print(sorted(__annotations__) if "__annotations__" in globals() else "elsewhere", scale.__annotations__)

# %% case: works with dates, decimals and text
# %% before
import datetime as dt
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

log = "2024-03-01 WARN disk 91%\n2024-03-02 INFO ok\n2024-03-04 WARN disk 97%"
# %% cell
pattern = re.compile(r"(?P<day>\S+) WARN disk (?P<percent>\d+)%")
found = [(dt.date.fromisoformat(m["day"]), int(m["percent"])) for m in pattern.finditer(log)]
span = found[-1][0] - found[0][0]
price = Decimal("19.99") * 3
third = Fraction(1, 3) + Fraction(1, 6)
path = Path("data") / "day.csv"
print(span.days, price, third, path.suffix)
found

# %% case: reads what is built in and shadows it
# %% before
list_of = list
values = [3, 1, 2]
# %% cell
max_before = max(values)
sum = 0
for id in values:
    sum += id
input_length = len(values)
print(sum, max_before, sorted(values))
# %% after
print(sum)
del sum
print(sum(values))

# %% case: imports as tutorials do
# %% cell
import collections.abc
import json as js
import os.path
from math import *
from math import factorial as fact, pi as PI
import xml.etree.ElementTree as ET

root = ET.fromstring("<a><b n='1'/><b n='2'/></a>")
text = js.dumps({"area": round(PI * 2**2, 3), "fact": fact(5), "sqrt": sqrt(16)})
print(text, os.path.join("a", "b"), isinstance([], collections.abc.Sequence), len(root))

# %% case: runs code that it makes
# %% before
base = 5
recipe = "result = base * factor"
# %% cell
factor = 3
exec(recipe)
globals()["made"] = eval("result + 1")
space = {}
exec("inner = 1", space)
inner = space["inner"]
names_now = sorted(n for n in ("result", "made", "recipe", "nope") if n in globals())
vars()["also"] = "vars"
print(result, made, names_now)

# %% case: uses earlier results of the notebook
# %% before
scores = {"ada": 3, "bob": 5}
best = max(scores, key=scores.get)
# %% cell
scores[best] += 1
ranking = sorted(scores.items(), key=lambda item: -item[1])
ranking[0]

# %% case: reads and writes files beside the notebook
# %% file: data/people.csv
name,age
ada,36
bob,41
# %% before
import csv
import json
from pathlib import Path

folder = Path("data")
# %% cell
with open(folder / "people.csv", newline="") as file:
    people = list(csv.DictReader(file))
average = sum(int(p["age"]) for p in people) / len(people)
print(len(people), average)
again = Path("data/people.csv").read_text().splitlines()[0]

# %% case: handles long text, bytes and unicode
# %% cell
poem = "Süßes ☃ 日本語 \N{SNOWMAN} \u200d" * 3
binary = poem.encode("utf-8")
large = "x" * 100_000
wide = "🎉 done"
π = 3.14159
print(wide, len(binary), poem[:7])
poem[:12]
