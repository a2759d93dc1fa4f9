"""One cell for each kind of thing: made in the notebook, used and changed on a rank, right afterwards."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.transport.conftest import Notebook


class Case(NamedTuple):
    setup: str  # runs in the notebook
    cell: str  # runs on a rank
    check: str  # holds in the notebook afterwards


CASES = {
    "abstract classes": Case(
        """\
import abc
class A(abc.ABC):
    @abc.abstractmethod
    def go(self): ...
class B(A):
    def go(self): return 1
b=B()
""",
        """\
r=b.go(), isinstance(b,A)
c=B()
""",
        "c.go()==1 and type(c) is B",
    ),
    "protocols, generics and typed dicts": Case(
        """\
from typing import Protocol, Generic, TypeVar, TypedDict
T=TypeVar('T')
class P(Protocol):
    def f(self): ...
class G(Generic[T]):
    x: T
    def f(self): return 3
class TD(TypedDict):
    a:int
g=G[int]()
d: TD={'a':1}
""",
        """\
r=g.f()
g.x=5
d['a']=TD(a=4)['a']
""",
        "r==3 and g.x==5 and d['a']==4",
    ),
    "metaclasses": Case(
        """\
class M(type):
    def __new__(m,n,b,d): d['tag']=1; return super().__new__(m,n,b,d)
class A(metaclass=M): pass
a=A()
""",
        """\
r=type(type(a)).__name__, a.tag
class S(A): pass
s=S()
""",
        "r==('M',1) and isinstance(s,A) and type(S) is M",
    ),
    "classes that register themselves": Case(
        """\
class R:
    reg=[]
    def __init_subclass__(cls): R.reg.append(cls.__name__)
class C(R): pass
c=C()
""",
        "r=len(R.reg), isinstance(c,R)",
        "r[1]",
    ),
    "autograd functions": Case(
        """\
import torch
class Sq(torch.autograd.Function):
    @staticmethod
    def forward(ctx,x): ctx.save_for_backward(x); return x*x
    @staticmethod
    def backward(ctx,g): return 2*g*ctx.saved_tensors[0]
w=torch.ones(2,requires_grad=True)
""",
        "Sq.apply(w).sum().backward(); r=w.grad.tolist()",
        "r==[2,2]",
    ),
    "compiled modules": Case(
        """\
import torch
m=torch.compile(torch.nn.Linear(2,2))
""",
        """\
r=list(m._orig_mod.weight.shape)
with torch.no_grad(): m._orig_mod.weight.fill_(3)
""",
        "m._orig_mod.weight.detach()[0, 0].item() == 3",
    ),
    "properties of every make": Case(
        """\
import functools
class A:
    def f(self,x): return x
    g=functools.partialmethod(f,4)
    @functools.cached_property
    def h(self): return 9
    @property
    def p(self): return 1
a=A()
""",
        "r=a.g(),a.h,a.p",
        "r==(4,9,1) and a.__dict__.get('h')==9",
    ),
    "loggers": Case(
        """\
import logging
log=logging.getLogger('x')
class A:
    def __init__(s): s.log=log
a=A()
""",
        "a.log.info('x'); a.z=1",
        "a.z==1 and a.log is log",
    ),
    "objects that pickle a copy of their insides": Case(
        """\
class Bag:
    def __init__(s,i): s.items=i
    def __reduce__(s): return Bag,(list(s.items),)
bag=Bag([1]); al=bag.items
""",
        "bag.items.append(2)",
        "bag.items==[1,2]",
    ),
    "objects that leave something out of their pickle": Case(
        """\
import threading
class O:
    def __init__(s): s.a=[1]; s.big=threading.Lock()
    def __getstate__(s): return {'a': s.a}
    def __setstate__(s,st): s.a=st['a']; s.big=None; s.made={}
o=O()
""",
        "o.a.append(2); o.made['q']=1; o.b=3",
        "o.a==[1,2] and o.b==3 and o.big is not None",
    ),
    "objects that guard their attributes": Case(
        """\
class G:
    def __setattr__(s,k,v): raise AttributeError
g=G(); g.__dict__['x']=1
""",
        "g.__dict__['x']=2",
        "g.x==2",
    ),
    "dicts with attributes": Case(
        """\
class AD(dict):
    __getattr__=dict.__getitem__
    __setattr__=dict.__setitem__
ad=AD(a=1, n=AD(b=2))
""",
        "ad.n.b=5; ad.c=3",
        "ad.n.b==5 and ad.c==3 and type(ad.n) is AD",
    ),
    "default dicts": Case(
        """\
from collections import defaultdict
dd=defaultdict(lambda: [])
""",
        "dd['x'].append(1); f=defaultdict(int); f['a']+=1",
        "dd['x']==[1] and dd['new']==[] and f['z']==0",
    ),
    "the main module": Case(
        """\
import __main__
val=3
def f(): return __main__.val
""",
        "val=4; r=f()",
        "r==4 and __main__.val==4",
    ),
    "the namespace itself": Case(
        """\
g=globals()
q=1
""",
        "q=2; g['z']=5; ok=g is globals()",
        "z==5 and ok and g is globals()",
    ),
    "bound methods": Case(
        """\
class A:
    def f(self): return self.x
a=A(); a.x=1; bound=a.f
""",
        """\
a.x=7; r=bound()
b2=a.f
""",
        "r==7 and bound()==7 and b2.__self__ is a",
    ),
    "exceptions": Case(
        """\
class E(Exception): pass
e=E('x', 2)
""",
        """\
try:
    raise e
except E as q: caught=q.args
""",
        "caught==('x',2)",
    ),
    "objects that refer to themselves": Case(
        """\
class Node:
    def __init__(s,v,n=None): s.v=v; s.n=n
    def add(s): return Node(s.v+1,s)
n=Node(1); n.n=n
""",
        "m=n.add(); n.v=5",
        "m.n is n and n.v==5 and type(m) is Node",
    ),
    "strings and numbers with attributes": Case(
        """\
class S(str): pass
s=S('a'); s.t=1
class I(int): pass
i=I(3); i.q=2
""",
        "s.t=2; r=(s+'b', i.q, type(s).__name__); i.q=9",
        "s.t==2 and i.q==9",
    ),
    "simple namespaces": Case(
        """\
from types import SimpleNamespace
ns=SimpleNamespace(a=SimpleNamespace(b=1))
""",
        "ns.a.b=2; ns.c=[1]",
        "ns.a.b==2 and ns.c==[1]",
    ),
    "an estimator fitted by the cell": Case(
        """\
from sklearn.linear_model import LogisticRegression
import numpy as np
X=np.random.rand(20,3); y=(X[:,0]>.5).astype(int); clf=LogisticRegression()
""",
        "clf.fit(X,y); acc=clf.score(X,y)",
        "clf.coef_.shape==(1,3)",
    ),
    "an estimator fitted again": Case(
        """\
import numpy as np
from sklearn.ensemble import RandomForestClassifier
X=np.random.rand(20,3); y=(X[:,0]>.5).astype(int)
clf2=RandomForestClassifier(3).fit(X,y)
""",
        "clf2.fit(X,1-y); p=clf2.predict(X).tolist()",
        "clf2.predict(X).tolist()==p",
    ),
    "iterators of lists": Case(
        "it=iter([1,2,3]); z=zip([1,2],[3,4]); en=enumerate('ab'); import itertools; ct=itertools.count()",
        "a1=next(it); b1=list(z); c1=next(en); d1=next(ct)",
        "a1==1 and b1==[(1,3),(2,4)]",
    ),
    "constants and types of the standard library": Case(
        """\
e=...; n=NotImplemented; t=type(None); c=complex; f=list[int]; import datetime,decimal,fractions,pathlib,uuid,re
dt=datetime.datetime.now(); de=decimal.Decimal('1.1'); p=pathlib.Path('/'); u=uuid.uuid4(); rx=re.compile('a')
""",
        "r=(e,n,t,c,f,dt,de,p,u,rx); p2=p/'x'",
        "r[0] is ... and r[1] is NotImplemented and r[4]==list[int] and str(p2)=='/x'",
    ),
    "coroutine and generator functions": Case(
        """\
async def co(): return 5
def genf():
    yield 1
""",
        "r=await co(); l=list(genf())",
        "r==5 and l==[1]",
    ),
    "single dispatch": Case(
        """\
import functools
@functools.singledispatch
def sd(x): return 'o'
@sd.register
def _f(x:int): return 'i'
""",
        "r=sd(1)",
        "r=='i'",
    ),
    "names beyond ASCII": Case(
        """\
ñ=1
__x=2
""",
        "ñ+=1; __x=3; __y=4",
        "ñ==2 and __x==3 and __y==4",
    ),
    "enums of every make": Case(
        """\
import enum
class F(enum.Flag):
    A=1
    B=2
class I(enum.IntEnum):
    X=1
class E2(str, enum.Enum):
    Q='q'
    def m(self): return self.value*2
f=F.A|F.B; i=I.X; e2=E2.Q
""",
        "r=(f==F.A|F.B, i==1, e2.m(), F.A in f); g=F.B; h=E2.Q",
        "r==(True,True,'qq',True) and g is F.B and h is E2.Q",
    ),
    "averaged models": Case(
        """\
import torch
class Blk(torch.nn.Module):
    def __init__(s,c):
      super().__init__(); s.c=torch.nn.Conv2d(c,c,3)
net=torch.nn.Sequential(*[Blk(4) for _ in range(50)])
ema=torch.optim.swa_utils.AveragedModel(net)
""",
        "ema.update_parameters(net); n=int(ema.n_averaged)",
        "int(ema.n_averaged)==1",
    ),
    "recurrent layers": Case(
        """\
import torch
lstm=torch.nn.LSTM(3,4)
""",
        """\
lstm(torch.ones(1,1,3))
with torch.no_grad(): lstm.weight_ih_l0.fill_(1)
m2=torch.nn.LSTM(2,2)
""",
        "float(lstm._flat_weights[0].detach()[0,0])==1 and m2._flat_weights[0] is m2.weight_ih_l0 and lstm._flat_weights[0] is lstm.weight_ih_l0",
    ),
    "parametrized modules": Case(
        """\
import torch
wn=torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2,2))
""",
        """\
wn(torch.ones(1,2))
with torch.no_grad(): wn.parametrizations.weight.original1.fill_(2)
""",
        "float(wn.parametrizations.weight.original1.detach()[0,0])==2",
    ),
    "gradient scalers": Case(
        """\
import torch
sc=torch.amp.GradScaler('cpu')
p=torch.nn.Parameter(torch.ones(2)); sg=torch.optim.SGD([p],lr=.1,momentum=.9)
""",
        "l=(p*p).sum(); sc.scale(l).backward(); sc.step(sg); sc.update()",
        "len(sg.state)==1 and abs(float(p.detach()[0])-.8)<1e-6",
    ),
    "chained schedulers": Case(
        """\
import torch
p=torch.nn.Parameter(torch.ones(2)); sg=torch.optim.SGD([p],lr=.1,momentum=.9)
p.sum().backward(); sg.step()
pl=torch.optim.lr_scheduler.ReduceLROnPlateau(sg,patience=0)
lm=torch.optim.lr_scheduler.LambdaLR(sg, lambda e: .5**e)
sq=torch.optim.lr_scheduler.SequentialLR(sg,[torch.optim.lr_scheduler.ConstantLR(sg), torch.optim.lr_scheduler.ExponentialLR(sg,.9)],[2])
""",
        """\
sg.step()
pl.step(1.); pl.step(2.); lm.step(); sq.step(); lr=sg.param_groups[0]['lr']
""",
        "sg.param_groups[0]['lr']==lr and pl.best==1.0",
    ),
    "LBFGS": Case(
        """\
import torch
q=torch.nn.Parameter(torch.ones(3)); lb=torch.optim.LBFGS([q])
""",
        """\
def closure():
    lb.zero_grad(); l=((q-2)**2).sum(); l.backward(); return l
lb.step(closure)
""",
        "abs(float(q.detach()[0])-2)<1e-3 and len(lb.state)==1",
    ),
    "data sets of data sets": Case(
        """\
import torch
from torch.utils.data import *
ds=TensorDataset(torch.arange(10.)); a,b=random_split(ds,[7,3]); cc=ConcatDataset([a,b]); wl=DataLoader(cc,sampler=WeightedRandomSampler([1.]*10,5),batch_size=2)
""",
        "n=sum(len(x[0]) for x in wl)",
        "n==5 and a.dataset is b.dataset",
    ),
    "devices, types and sizes": Case(
        """\
import torch
dev=torch.device('cpu'); dt2=torch.float64; gen=torch.Generator(); sz=torch.Size([1,2])
""",
        "r=(dev, dt2, sz); dev2=torch.device('cpu')",
        "r[0]==torch.device('cpu') and r[1] is torch.float64 and r[2]==(1,2)",
    ),
}


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch.compile imports it
@pytest.mark.parametrize("thing", CASES)
def test_it_travels_both_ways(thing: str, notebook: Notebook) -> None:
    case = CASES[thing]
    if "sklearn" in case.setup:
        pytest.importorskip("sklearn")
    notebook.cell(case.setup)

    applied = notebook.train(case.cell)

    assert not applied.remarks
    assert eval(case.check, notebook.names)
