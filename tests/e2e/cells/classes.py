# Classes and their instances.
# %% case: makes instances of a class of another cell
# %% before
class Account:
    interest = 0.02
    made = []

    def __init__(self, owner, balance=0.0):
        self.owner = owner
        self.balance = balance
        Account.made.append(owner)

    def deposit(self, amount):
        self.balance += amount
        return self

    def __repr__(self):
        return f"Account({self.owner!r}, {self.balance:.2f})"


ada = Account("ada", 10.0)
accounts = [ada]
# %% cell
ada.deposit(5).deposit(2.5)
bob = Account("bob")
accounts.append(bob)
both = isinstance(bob, Account) and type(ada) is Account
bob
# %% after
print(accounts[0] is ada, isinstance(bob, Account), bob.deposit(1), Account.made)

# %% case: defines classes with inheritance
# %% before
from abc import ABC, abstractmethod


class Shape(ABC):
    def __init__(self, name):
        self.name = name

    @abstractmethod
    def area(self): ...

    def describe(self):
        return f"{self.name}: {self.area():.2f}"
# %% cell
import math


class Circle(Shape):
    def __init__(self, r):
        super().__init__("circle")
        self.r = r

    def area(self):
        return math.pi * self.r**2


class Square(Shape):
    sides = 4

    def __init__(self, a):
        super().__init__("square")
        self.a = a

    @property
    def area_(self):
        return self.a**2

    def area(self):
        return self.area_

    @classmethod
    def unit(cls):
        return cls(1)

    @staticmethod
    def corners():
        return 4


shapes = [Circle(1), Square.unit()]
for shape in shapes:
    print(shape.describe())
# %% after
print([isinstance(s, Shape) for s in shapes], Circle(2).describe(), Square.__mro__[1] is Shape, type(shapes[0]) is Circle)

# %% case: uses data classes and enums
# %% before
from dataclasses import asdict, dataclass, field, replace
from enum import Enum, Flag, IntEnum, auto
from typing import NamedTuple


class Color(Enum):
    RED = auto()
    BLUE = auto()


@dataclass
class Config:
    lr: float = 0.1
    color: Color = Color.RED
    tags: list = field(default_factory=list)


class Size(NamedTuple):
    w: int
    h: int = 1


config = Config()
backup = config
# %% cell
config.tags.append("x")
config.lr = 0.5
config.color = Color.BLUE
quick = replace(config, lr=1.0)


@dataclass(frozen=True, order=True)
class Version:
    major: int
    minor: int = 0


class Mode(IntEnum):
    OFF = 0
    ON = 1


class Access(Flag):
    READ = auto()
    WRITE = auto()


versions = sorted([Version(2), Version(1, 5)])
size = Size(3)
both = Access.READ | Access.WRITE
state = {Color.RED: 1, Mode.ON: 2}
print(asdict(config), versions[0], size, both)
config
# %% after
print(config.color is Color.BLUE, backup is config, isinstance(quick, Config), versions[0] == Version(1, 5), Mode(1) is Mode.ON, state[Color.RED], size == Size(3, 1))

# %% case: redefines a class while instances live
# %% before
class Animal:
    def speak(self):
        return "..."


rex = Animal()
rex.age = 3
# %% cell
class Animal:
    def speak(self):
        return "woof"


fido = Animal()
same_class = type(rex) is type(fido)
rex.age += 1
# %% after
print(rex.speak(), fido.speak(), type(fido) is Animal, isinstance(rex, Animal), rex.age)

# %% case: sets attributes of a class
# %% before
class Registry:
    entries = {}
    count = 0


class Plugin:
    pass
# %% cell
Registry.entries["a"] = 1
Registry.count += 1
Plugin.version = "1.0"
Plugin.run = lambda self: f"running {self.version}"
text = Plugin().run()
print(Registry.entries, Registry.count, text)
# %% after
print(Registry.entries)

# %% case: uses slots, properties and operators
# %% before
class Vector:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def __iadd__(self, other):
        self.x += other.x
        self.y += other.y
        return self

    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)

    def __hash__(self):
        return hash((self.x, self.y))

    @property
    def norm(self):
        return (self.x**2 + self.y**2) ** 0.5

    @norm.setter
    def norm(self, value):
        by = value / self.norm
        self.x *= by
        self.y *= by


v = Vector(3.0, 4.0)
w = v
# %% cell
v += Vector(3.0, 4.0)
v.norm = 5.0
total = v + Vector(1, 1)
lookup = {v: "v"}
print(v.x, v.y, total.norm)
# %% after
print(w is v, w.norm, lookup[w], hasattr(v, "__dict__"))

# %% case: builds a linked structure of objects
# %% before
class Node:
    def __init__(self, value, parent=None):
        self.value, self.parent, self.children = value, parent, []
        if parent is not None:
            parent.children.append(self)

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()


root = Node("root")
left = Node("left", root)
# %% cell
right = Node("right", root)
deep = Node("deep", left)
left.value = "LEFT"
order = [node.value for node in root.walk()]
order
# %% after
print(deep.parent is left, root.children[1] is right, left.parent is root)

# %% case: subclasses containers and exceptions
# %% before
class Bag(dict):
    def __missing__(self, key):
        self[key] = []
        return self[key]


class Stack(list):
    limit = 3

    def push(self, x):
        self.append(x)
        self.peak = max(getattr(self, "peak", 0), len(self))
        return self


bag, stack = Bag(), Stack([1])
# %% cell
bag["a"].append(1)
stack.push(2).push(3)


class Odd(ValueError):
    def __init__(self, n):
        super().__init__(f"{n} is odd")
        self.n = n


try:
    raise Odd(3)
except ValueError as error:
    kept = error
# %% after
print(bag["b"], stack.peak, type(stack) is Stack, kept.n, isinstance(kept, Odd))

# %% case: uses metaclasses, descriptors and generics
# %% before
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class Meta(type):
    known = []

    def __new__(mcls, name, bases, space):
        cls = super().__new__(mcls, name, bases, space)
        cls.tag = name.lower()
        return cls


class Positive:
    def __set_name__(self, owner, name):
        self.name = "_" + name

    def __get__(self, obj, owner=None):
        return self if obj is None else getattr(obj, self.name)

    def __set__(self, obj, value):
        if value <= 0:
            raise ValueError("must be positive")
        setattr(obj, self.name, value)
# %% cell
class Base(metaclass=Meta):
    size = Positive()


class Queue(Generic[T]):
    def __init__(self) -> None:
        self.items: list[T] = []

    def put(self, item: T) -> None:
        self.items.append(item)


class Sized(Protocol):
    size: int


box = Base()
box.size = 4
queue = Queue[int]()
queue.put(1)
try:
    box.size = -1
except ValueError as error:
    refused = str(error)
print(Base.tag, box.size, refused)
# %% after
box.size = 7
print(box.size, type(Base) is Meta, isinstance(queue, Queue), Queue[str])
