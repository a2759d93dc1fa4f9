# How cells fail.
# %% case: fails half way
# %% before
done = []
# %% cell
for step in range(5):
    done.append(step)
    halves = 1 / (3 - step)
after = True
# %% after
print(done, halves)

# %% case: fails in a function of another cell
# %% before
def normalise(values):
    total = sum(values)
    return [v / total for v in values]


def prepare(rows):
    return [normalise(row) for row in rows]
# %% cell
good = prepare([[1, 3]])
bad = prepare([[1, 1], []]) + prepare([[0]])

# %% case: fails in a function of its own
# %% cell
def check(x):
    if x > 2:
        raise ValueError(f"{x} is too large")
    return x


kept = []
for i in range(10):
    kept.append(check(i))

# %% case: raises an exception class of the notebook
# %% before
class DataError(Exception):
    def __init__(self, column, row):
        super().__init__(f"bad value in {column}, row {row}")
        self.column, self.row = column, row
# %% cell
problem = None
try:
    raise DataError("age", 3)
except DataError as error:
    problem = error.column
raise DataError("city", 7)

# %% case: raises from another error
# %% cell
try:
    {}["key"]
except KeyError as error:
    raise RuntimeError("no such setting") from error

# %% case: fails an assertion
# %% before
import torch

batch = torch.zeros(4, 3)
# %% cell
checked = batch.shape[0] == 4
assert batch.shape[1] == 5, f"expected 5 features, got {batch.shape[1]}"

# %% case: multiplies shapes that do not fit
# %% before
import torch
from torch import nn

layer = nn.Linear(10, 2)
# %% cell
x = torch.zeros(4, 3)
out = layer(x)

# %% case: looks for a key, an index and an attribute
# %% before
config = {"lr": 0.1}
# %% cell
try:
    [][1]
except IndexError as error:
    first = str(error)
try:
    config.rate
except AttributeError as error:
    second = str(error)
rate = config["rate"]

# %% case: reads a name that is nowhere
# %% before
learning_rate = 0.1
# %% cell
steps = 3
total = steps * learning_rat

# %% case: reads a name before it is bound
# %% cell
first = 1
second = first + third
third = 3

# %% case: has a syntax error
# %% cell
ready = True
for i in range(3)
    print(i)

# %% case: has an indentation error
# %% cell
if True:
    x = 1
      y = 2

# %% case: raises a group of errors
# %% cell
errors = []
for text in ("1", "x", "y"):
    try:
        int(text)
    except ValueError as error:
        errors.append(error)
raise ExceptionGroup("bad rows", errors)

# %% case: ends by sys exit
# %% before
import sys
# %% cell
reached = 1
sys.exit("enough")

# %% case: is interrupted by its own KeyboardInterrupt
# %% cell
reached = 1
raise KeyboardInterrupt

# %% case: opens a file that is not there
# %% cell
name = "nowhere.csv"
with open(name) as file:
    text = file.read()

# %% case: imports a module that is not there
# %% cell
before = 1
import no_such_module_anywhere

# %% case: turns warnings into errors
# %% before
import warnings
# %% cell
with warnings.catch_warnings():
    warnings.simplefilter("error")
    quiet = False
    warnings.warn("not allowed", UserWarning)
