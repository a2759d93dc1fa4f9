# What appears below a cell.
# %% case: prints in every way
# %% cell
import sys

print("plain")
print("a", 1, 2.5, sep="-", end="!\n")
print("to stderr", file=sys.stderr)
sys.stdout.write("written\n")
print("progress 1", end="\r")
print("progress 2", end="\r", flush=True)
print("progress 3")
print("\x1b[31mred\x1b[0m and \x1b[1mbold\x1b[0m")
print("no newline", end="")

# %% case: shows the last expression
# %% cell
answer = 42
answer * 2

# %% case: shows nothing behind a semicolon
# %% cell
answer = 42
answer * 2;

# %% case: shows nothing for None
# %% cell
print("only this")
None

# %% case: shows what displays itself
# %% before
class Card:
    def __init__(self, title):
        self.title = title

    def _repr_html_(self):
        return f"<b>{self.title}</b>"

    def __repr__(self):
        return f"Card({self.title})"


class Bundle:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": "bundle", "text/markdown": "*bundle*"}
# %% cell
from IPython.display import HTML, JSON, Latex, Markdown, display

print("first")
display(Card("inside"))
print("second")
display(HTML("<i>html</i>"), Markdown("**md**"), {"plain": 1})
display(Bundle())
Card("last")

# %% case: displays without importing it
# %% cell
for n in range(2):
    display(f"item {n}")
display({"a": [1, 2]})

# %% case: shows a table and text in order
# %% needs: pandas
# %% before
import pandas as pd

frame = pd.DataFrame({"x": [1, 2], "y": ["a", "b"]})
# %% cell
print("before")
display(frame)
print("between")
display(frame.describe())
print("after")
frame["x"]

# %% case: draws a figure
# %% before
import matplotlib.pyplot as plt
# %% cell
plt.plot([1, 2, 3], [2, 4, 8])
plt.title("growth")
plt.xlabel("step")
plt.show()
print("drawn")

# %% case: leaves a figure open to be shown
# %% before
import matplotlib.pyplot as plt
import numpy as np
# %% cell
fig, axes = plt.subplots(1, 2, figsize=(5, 2))
axes[0].hist(np.arange(10) % 4)
axes[1].imshow(np.eye(3))
print("two axes");

# %% case: draws with the notebook's own style
# %% before
import matplotlib.pyplot as plt

plt.rcParams["figure.figsize"] = (3, 2)
plt.rcParams["figure.dpi"] = 60
# %% cell
fig, ax = plt.subplots()
ax.plot([0, 1])
size = fig.get_size_inches().tolist()
fig

# %% case: clears and updates what it shows
# %% cell
from IPython.display import clear_output, display

print("gone")
clear_output()
handle = display("waiting", display_id=True)
for percent in (50, 100):
    handle.update(f"{percent} %")
print("there")

# %% case: animates by clearing with wait
# %% cell
from IPython.display import clear_output

for frame in range(3):
    clear_output(wait=True)
    print("frame", frame)

# %% case: warns and logs
# %% before
import logging
import warnings
# %% cell
warnings.warn("this is old", DeprecationWarning)
warnings.warn("be careful")
logging.warning("disk %d%%", 91)
logging.info("not shown")
log = logging.getLogger("mine")
log.error("failed %s", "twice")

# %% case: logs as the notebook configured it
# %% before
import logging
import sys

logging.basicConfig(level=logging.INFO, format="%(levelname)s|%(message)s", stream=sys.stdout, force=True)
logger = logging.getLogger("train")
# %% cell
logger.info("epoch %d", 1)
logger.debug("not shown")
logger.warning("slow")

# %% case: prints from threads
# %% before
from concurrent.futures import ThreadPoolExecutor
import threading
# %% cell
results = []


def work(n):
    results.append(n * n)


threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with ThreadPoolExecutor(2) as pool:
    doubled = list(pool.map(lambda n: n * 2, range(4)))
talker = threading.Thread(target=lambda: print("from a thread"))
talker.start()
talker.join()
del threads, thread, talker, pool
print(sorted(results), doubled)

# %% case: runs another program
# %% before
import subprocess
import sys
# %% cell
done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True)
answer = int(done.stdout)
print(answer, done.returncode)
del done

# %% case: shows progress bars
# %% needs: tqdm
# %% before
from tqdm import tqdm
# %% cell
total = 0
for n in tqdm(range(20), desc="adding"):
    total += n
print(total)

# %% case: asks for help
# %% before
def area(width, height=1):
    """Width times height."""
    return width * height
# %% cell
help(area)
area.__doc__

# %% case: pretty prints nested values
# %% before
import pprint

nested = {"model": {"layers": [64, 32, 16], "activation": "relu", "dropout": 0.1}, "data": list(range(30))}
# %% cell
pprint.pprint(nested, width=40)
nested

# %% case: measures time
# %% before
import time
from timeit import timeit
# %% cell
began = time.perf_counter()
total = sum(range(1000))
elapsed = time.perf_counter() - began
fast = elapsed < 5
del began, elapsed
fast
