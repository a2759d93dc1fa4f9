# Functions of the notebook, of the cell, and both together.
# %% case: calls functions of other cells
# %% before
scale = 3


def double(x):
    return 2 * x


def transform(x, shift=1):
    return double(x) * scale + shift
# %% cell
results = [transform(i) for i in range(4)]
scale = 10
after_change = transform(1)


def triple(x):
    return 3 * x


triple(double(1))
# %% after
print(transform(1), triple(2), transform.__globals__ is globals())

# %% case: redefines a function that another one calls
# %% before
def step(x):
    return x + 1


def run(n):
    x = 0
    for _ in range(n):
        x = step(x)
    return x


before = run(3)
# %% cell
def step(x):
    return x + 10


with_new_step = run(3)
# %% after
print(run(2), before)

# %% case: counts in a closure
# %% before
def make_counter(start=0):
    count = start

    def increment(by=1):
        nonlocal count
        count += by
        return count

    def read():
        return count

    return increment, read


increment, read = make_counter(5)
increment()
# %% cell
increment()
seen = increment(by=3)
other, other_read = make_counter()
other()
# %% after
print(read(), increment(), other_read())

# %% case: decorates functions
# %% before
import functools


def counted(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)

    wrapper.calls = 0
    return wrapper


def repeat(times):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return [function(*args) for _ in range(times)]

        return wrapper

    return decorate


@counted
def greet(name):
    return f"hello {name}"
# %% cell
greet("ada")
greet("bob")


@repeat(times=2)
@counted
def shout(text):
    return text.upper()


shouted = shout("hey")
calls = greet.calls
# %% after
print(greet.calls, shout("again"), greet.__name__)

# %% case: changes globals from a function
# %% before
history = []
level = 0


def record(value):
    global level, newest
    history.append(value)
    newest = value
    level += 1
# %% cell
record("first")
record("second")
print(level, newest)

# %% case: remembers results of a recursive function
# %% before
from functools import cache, lru_cache, partial, reduce, singledispatch


@lru_cache(maxsize=None)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


power = partial(pow, 2)
# %% cell
value = fibonacci(50)


@cache
def ways(n):
    return 1 if n <= 1 else ways(n - 1) + ways(n - 2)


kilo = power(10)
product = reduce(lambda x, y: x * y, range(1, 6))
cube = partial(pow, exp=3)
print(value, ways(10), cube(2))
# %% after
print(fibonacci(10), ways(5), kilo)

# %% case: keeps values in default arguments
# %% before
def collect(item, into=[]):
    into.append(item)
    return into


bag = collect("a")
# %% cell
collect("b")
again = collect("c")
later = [lambda x, i=i: x + i for i in range(3)]
sums = [f(10) for f in later]
# %% after
print(bag, again is bag, collect("d"), [f(1) for f in later])

# %% case: makes generators and iterates them
# %% before
def read_lines(lines):
    for line in lines:
        yield line.strip()


def numbers(lines):
    for line in read_lines(lines):
        if line.isdigit():
            yield int(line)


lines = [" 1 ", "two", "3"]
# %% cell
import itertools

values = list(numbers(lines))


def countdown(n):
    while n:
        received = yield n
        n = n - 1 if received is None else received


rest = list(itertools.islice(countdown(10), 3))
batches = list(itertools.batched(range(5), 2)) if hasattr(itertools, "batched") else []
flat = list(itertools.chain.from_iterable([[1], [2, 3]]))
print(values, rest, flat)

# %% case: leaves a generator half way
# %% before
def squares():
    n = 0
    while True:
        yield n * n
        n += 1
# %% cell
source = squares()
first = [next(source) for _ in range(3)]
print(first)

# %% case: sorts and groups by functions
# %% before
from itertools import groupby
from operator import attrgetter, itemgetter

people = [("ada", "math"), ("bob", "art"), ("cyd", "math")]
# %% cell
by_subject = {k: [name for name, _ in g] for k, g in groupby(sorted(people, key=itemgetter(1)), key=itemgetter(1))}
by_length = sorted(people, key=lambda p: (len(p[1]), p[0]), reverse=True)
getter = itemgetter(0)
list(map(getter, by_length))

# %% case: sends functions of the cell back
# %% before
offset = 100
# %% cell
table = {"add": lambda x: x + offset, "sub": lambda x: x - offset}


def outer(n):
    def inner(m):
        return n + m + offset

    return inner


add_five = outer(5)
composed = [outer(i) for i in range(2)]
# %% after
offset = 1
print(add_five(1), table["add"](1), composed[1](1), add_five.__globals__ is globals())

# %% case: sets attributes of functions
# %% before
def loss(x):
    return x * loss.weight


loss.weight = 2
# %% cell
loss.weight = 5
loss.history = [loss(1)]
value = loss(2)
# %% after
print(loss(1), loss.history)

# %% case: defines context managers
# %% before
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
import io

events = []


@contextmanager
def logged(name):
    events.append(f"enter {name}")
    try:
        yield name.upper()
    finally:
        events.append(f"exit {name}")
# %% cell
with logged("a") as upper:
    events.append(upper)
with suppress(KeyError), logged("b"):
    {}["nothing"]
with ExitStack() as stack:
    opened = [stack.enter_context(logged(n)) for n in "cd"]
buffer = io.StringIO()
with redirect_stdout(buffer):
    print("not shown")
caught = buffer.getvalue()
events
