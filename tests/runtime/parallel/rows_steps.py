"""Rows of the matrix: optimizers, losses and all that stands between a loss and a step."""

from __future__ import annotations

STEPS: dict[str, str] = {}
LOSSES: dict[str, str] = {}

HEAD = "loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); model = mlp(); crit = nn.CrossEntropyLoss(); out = []\n"
LOOP = """
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
OPTIMIZERS = {
    "SGD with Nesterov momentum": "SGD(model.parameters(), .1, momentum=.9, nesterov=True, weight_decay=.01)",
    "Adam with amsgrad": "Adam(model.parameters(), 1e-2, amsgrad=True)",
    "Adam, fused": "Adam(model.parameters(), 1e-2, fused=True)",
    "AdamW, not foreach": "AdamW(model.parameters(), 1e-2, foreach=False)",
    "NAdam": "NAdam(model.parameters(), 1e-2)",
    "RAdam": "RAdam(model.parameters(), 1e-2)",
    "Adamax": "Adamax(model.parameters(), 1e-2)",
    "Adagrad": "Adagrad(model.parameters(), 1e-2)",
    "Adadelta": "Adadelta(model.parameters(), 1.)",
    "RMSprop, centred": "RMSprop(model.parameters(), 1e-2, centered=True, momentum=.5)",
    "ASGD": "ASGD(model.parameters(), .1)",
    "Rprop": "Rprop(model.parameters(), 1e-2)",
    "Adafactor": "Adafactor(model.parameters(), 1e-2)",
}
for _name, _made in OPTIMIZERS.items():
    STEPS[f"optimizer: {_name}"] = f"{HEAD}opt = torch.optim.{_made}{LOOP}"

_ADAM = "opt = torch.optim.Adam(model.parameters(), 1e-2)\n"
_SGD = "opt = torch.optim.SGD(model.parameters(), .1, momentum=.9)\n"
STEPS["an optimizer made before the model changes its type and place"] = f"""
torch.set_default_dtype(torch.float32)
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); model = mlp(); out = []; device = torch.device("cpu")
{_SGD}
model = model.to(device).to(X.dtype)
for ep in range(2):
    for x, y in loader:
        x, y = x.to(device, non_blocking=True), y.to(device); opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
STEPS["SGD with a closure"] = f"""{HEAD}{_SGD}
for ep in range(2):
    for x, y in loader:
        def closure():
            opt.zero_grad(); loss = crit(model(x), y); loss.backward(); return loss
        out.append(opt.step(closure).item())
"""
STEPS["two steps a batch, the second at sharper weights"] = f"""{HEAD}{_SGD}
for ep in range(2):
    for x, y in loader:
        crit(model(x), y).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm(); moved = []
        with torch.no_grad():
            for p in model.parameters(): e = .05 * p.grad / norm; p.add_(e); moved.append(e)
        opt.zero_grad(); loss = crit(model(x), y); loss.backward()
        with torch.no_grad():
            for p, e in zip(model.parameters(), moved): p.sub_(e)
        opt.step(); opt.zero_grad(); out += [loss.item(), norm.item()]
"""
STEPS["gradients read, measured and changed before the step"] = f"""{HEAD}{_SGD}
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward()
        out.append(sum(p.grad.pow(2).sum().item() for p in model.parameters()) ** .5)
        for p in model.parameters(): p.grad.div_(p.grad.abs().max() + 1e-3)
        opt.step()
"""
STEPS["gradients clipped by a layer's own norm"] = f"""{HEAD}{_SGD}
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(set_to_none=False); loss = crit(model(x), y); loss.backward()
        for layer in (model[0], model[2]): out.append(float(nn.utils.clip_grad_norm_(layer.parameters(), .2, norm_type=float("inf"))))
        opt.step()
"""
STEPS["gradients accumulated, the last step incomplete"] = f"""{HEAD}{_ADAM}
for ep in range(2):
    for k, (x, y) in enumerate(loader):
        loss = crit(model(x), y) / 4; loss.backward(); out.append(loss.item())
        if (k + 1) % 4 == 0 or k + 1 == len(loader): opt.step(); opt.zero_grad()
"""
STEPS["a loss divided and scaled on its way to backward, and read behind it"] = f"""{HEAD}{_SGD}
def fit():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.**10)
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); (loss / 4).backward(); opt.step(); out.append(loss.item())
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); scaler.scale(loss / 2).backward(); scaler.step(opt); scaler.update(); out.append(loss.item())
fit()
"""
STEPS["one loss backward twice, two losses of one graph"] = f"""{HEAD}{_SGD}
for ep in range(2):
    for x, y in loader:
        z = model(x); loss = crit(z, y); other = z.pow(2).mean(); opt.zero_grad()
        loss.backward(retain_graph=True); loss.backward(retain_graph=True); other.backward()
        opt.step(); out.append(loss.item())
"""
STEPS[
    "parameter groups added later, a head exchanged"
] = f"""{HEAD}opt = torch.optim.Adam(model[0].parameters(), 1e-2)
for ep in range(3):
    if ep == 1: opt.add_param_group({{"params": model[2].parameters(), "lr": 1e-3}})
    if ep == 2: model[2] = nn.Linear(32, 3); opt = torch.optim.Adam([{{"params": model[0].parameters(), "lr": 1e-4}}, {{"params": model[2].parameters()}}], lr=1e-2)
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
STEPS["Adam's state saved and resumed in new objects"] = f"""{HEAD}{_ADAM}
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
    kept = copy.deepcopy({{"model": model.state_dict(), "opt": opt.state_dict()}})
    model = mlp(); opt = torch.optim.Adam(model.parameters(), 1.); model.load_state_dict(kept["model"]); opt.load_state_dict(kept["opt"])
"""
STEPS[
    "the best of all epochs restored, early stopping by validation"
] = f"""{HEAD}opt = torch.optim.Adam(model.parameters(), .05)
held = DataLoader(TensorDataset(X.flip(0)[:30], Y[:30]), batch_size=12); best, kept, patience = float("inf"), None, 0
for ep in range(8):
    model.train()
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step()
    model.eval()
    with torch.no_grad(): lost = sum(crit(model(x), y).item() * len(x) for x, y in held) / 30
    out.append(lost)
    if lost < best: best, kept, patience = lost, copy.deepcopy(model.state_dict()), 0
    else:
        patience += 1
        if patience == 2: break
model.load_state_dict(kept)
"""
STEPS["early stopping on the loss of the last batch"] = f"""{HEAD}{_ADAM}
for ep in range(20):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step()
    out.append(loss.item())
    if loss.item() < .55: break
"""
for _name, _made, _each in (
    ("steps of epochs", "StepLR(opt, 1, .5)", False),
    ("a cosine with restarts, each batch", "CosineAnnealingWarmRestarts(opt, 3)", True),
    ("a warm-up, then a decay", "SequentialLR(opt, [S.LinearLR(opt, .1, 1., 4), S.ExponentialLR(opt, .9)], [4])", True),
    ("one cycle", "OneCycleLR(opt, .3, total_steps=14)", True),
    ("cycles of rate and momentum", "CyclicLR(opt, .01, .2, 3)", True),
    ("a function of the epoch", "LambdaLR(opt, lambda e: 1 / (1 + e))", False),
):  # fmt: skip
    STEPS[f"scheduler: {_name}"] = f"""{HEAD}{_SGD}
import torch.optim.lr_scheduler as S
sched = S.{_made}
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
        if {_each}: sched.step()
    if not {_each}: sched.step()
    out.append(opt.param_groups[0]["lr"])
"""
STEPS["scheduler: a plateau of the validation loss"] = f"""{HEAD}opt = torch.optim.SGD(model.parameters(), 3.)
sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=.3, patience=0); held = DataLoader(TensorDataset(X[:30], Y[:30]), batch_size=8)
for ep in range(4):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step()
    with torch.no_grad(): lost = sum(crit(model(x), y).item() for x, y in held)
    sched.step(lost); out += [lost, opt.param_groups[0]["lr"]]
"""
STEPS["averaged weights of swa_utils, and their BatchNorms"] = """
from torch.optim.swa_utils import AveragedModel, SWALR, update_bn, get_ema_multi_avg_fn
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); out = []
net = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)); opt = torch.optim.SGD(net.parameters(), .1)
swa = AveragedModel(net); ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(.9), use_buffers=True); sched = SWALR(opt, swa_lr=.05)
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(net(x), y); loss.backward(); opt.step(); ema.update_parameters(net); out.append(loss.item())
    if ep: swa.update_parameters(net); sched.step()
update_bn(loader, swa)
model = nn.ModuleList([net, swa, ema])
"""
STEPS["autocast to bfloat16, with a scaler"] = f"""
torch.set_default_dtype(torch.float32); X = X.float()
{HEAD}{_SGD}
scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.**8)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16): loss = crit(model(x), y)
        scaler.scale(loss).backward(); scaler.step(opt); scaler.update()
"""
STEPS["anomaly detection"] = f"""{HEAD}{_SGD}
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with torch.autograd.set_detect_anomaly(True):
        for ep in range(2):
            for x, y in loader:
                opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
STEPS["a hook on a parameter that masks its gradient"] = f"""{HEAD}{_SGD}
mask = (torch.rand(32, 10) > .5).to(X.dtype); model[0].weight.register_hook(lambda g: g * mask)
model[2].register_full_backward_hook(lambda m, gi, go: None); seen_by_hook = []
model[1].register_forward_hook(lambda m, i, o: seen_by_hook.append(len(o)))
{LOOP}"""
STEPS["hooks on parameters that clip, as gradients accumulate"] = f"""{HEAD}{_SGD}
for p in model.parameters(): p.register_hook(lambda g: g.clamp(-.01, .01))
for ep in range(2):
    for k, (x, y) in enumerate(loader):
        loss = crit(model(x), y); loss.backward(); out.append(loss.item())
        if k % 3 == 2: opt.step(); opt.zero_grad()
"""
STEPS["hooks on parameters that read, and one that is removed"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); out = []; norms = []
class Net(nn.Module):
    def __init__(self): super().__init__(); self.a = nn.Linear(10, 8); self.b = nn.Linear(8, 8); self.o = nn.Linear(8, 3)
    def forward(self, x, k): h = torch.tanh(self.a(x)); return self.o(h + self.b(h) if k % 2 else h)
model = Net(); opt = torch.optim.SGD(model.parameters(), .1)
handle = model.a.weight.register_hook(lambda g: g / g.norm()); model.b.weight.register_hook(lambda g: norms.append(g.norm().item()))
for ep in range(2):
    for k, (x, y) in enumerate(loader):
        opt.zero_grad(); loss = F.cross_entropy(model(x, k), y); loss.backward(); opt.step(); out.append(loss.item())
    handle.remove()
out += norms
"""
STEPS["an optimizer that steps inside of backward"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); model = mlp(); out = []
opts = {p: torch.optim.SGD([p], .1) for p in model.parameters()}
def step(p): opts[p].step(); opts[p].zero_grad()
for p in model.parameters(): p.register_post_accumulate_grad_hook(step)
for ep in range(2):
    for x, y in loader: loss = F.cross_entropy(model(x), y); loss.backward(); out.append(loss.item())
"""
STEPS["no_grad updates by hand, of lists"] = f"""{HEAD}
params = list(model.parameters()); speed = [torch.zeros_like(p) for p in params]
for ep in range(2):
    for x, y in loader:
        loss = crit(model(x), y); loss.backward(); out.append(loss.item())
        with torch.no_grad():
            grads = [p.grad for p in params]; torch._foreach_mul_(speed, .9); torch._foreach_add_(speed, grads); torch._foreach_add_(params, speed, alpha=-.1)
        for p in params: p.grad = None
"""
STEPS["a mean teacher, consistent with its pupil"] = """
loader = DataLoader(TensorDataset(X, X + .01 * X.flip(0), Y), batch_size=12, shuffle=True); out = []
pupil = mlp(); teacher = copy.deepcopy(pupil).requires_grad_(False); opt = torch.optim.Adam(pupil.parameters(), 1e-2); k = 0
for ep in range(2):
    for a, b, y in loader:
        z = pupil(a); k += 1; w = min(1., k / 5)
        loss = F.cross_entropy(z, y) + w * F.mse_loss(z.softmax(1), teacher(b).softmax(1))
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
        with torch.no_grad():
            for t, p in zip(teacher.parameters(), pupil.parameters()): t.mul_(.9).add_(p, alpha=.1)
model = nn.ModuleList([pupil, teacher])
"""
STEPS["a batch that is left out when its loss is not finite"] = f"""{HEAD}{_SGD}
for ep in range(2):
    for k, (x, y) in enumerate(loader):
        opt.zero_grad(); loss = crit(model(x) * (float("nan") if k == 2 else 1.), y); loss.backward()
        if not math.isfinite(loss.item()): continue
        opt.step(); out.append(loss.item())
"""

# What a loss is given: scores of three classes, and what stands beside the samples.
_FORMS = {
    "CrossEntropyLoss of probabilities": "F.cross_entropy(z, p)",
    "NLLLoss": "F.nll_loss(z.log_softmax(1), y)",
    "NLLLoss, weighted and summed": "F.nll_loss(z.log_softmax(1), y, weight=w, reduction='sum')",
    "BCELoss with a weight per sample": "F.binary_cross_entropy(z[:, 0].sigmoid(), b, weight=s)",
    "BCEWithLogitsLoss with pos_weight": "F.binary_cross_entropy_with_logits(z, p, pos_weight=w)",
    "MSELoss": "F.mse_loss(z, p)",
    "L1Loss, summed": "F.l1_loss(z, p, reduction='sum')",
    "SmoothL1Loss": "F.smooth_l1_loss(z, p, beta=.3)",
    "HuberLoss": "F.huber_loss(z, p, delta=.5)",
    "KLDivLoss": "F.kl_div(z.log_softmax(1), p, reduction='batchmean')",
    "KLDivLoss, log_target": "F.kl_div(z.log_softmax(1), p.log(), reduction='sum', log_target=True)",
    "PoissonNLLLoss": "F.poisson_nll_loss(z, p)",
    "GaussianNLLLoss": "F.gaussian_nll_loss(z[:, :1], p[:, :1], F.softplus(z[:, 1:2]) + .1)",
    "MarginRankingLoss": "F.margin_ranking_loss(z[:, 0], z[:, 1], 2 * b - 1, margin=.1)",
    "CosineEmbeddingLoss": "F.cosine_embedding_loss(z, p, 2 * b - 1)",
    "HingeEmbeddingLoss": "F.hinge_embedding_loss(z[:, 0], 2 * b - 1)",
    "SoftMarginLoss": "F.soft_margin_loss(z[:, 0], 2 * b - 1)",
    "MultiMarginLoss": "F.multi_margin_loss(z, y)",
    "MultiLabelSoftMarginLoss": "F.multilabel_soft_margin_loss(z, (p > .3).to(p.dtype))",
    "focal loss": "((1 - q.exp()) ** 2 * -q).mean()",
    "mean of a vector of losses": "F.cross_entropy(z, y, reduction='none').mean()",
    "sums over a sample, then a mean": "((z - p) ** 2).sum(1).mean(0)",
    "a distance per sample": "(z - p).norm(dim=1).mean()",
    "einsum": "torch.einsum('bc,bc->b', z, p).mean()",
    "weights per sample": "(s * F.cross_entropy(z, y, reduction='none')).sum() / s.sum()",
    "weights per sample, a mean": "(s * F.cross_entropy(z, y, reduction='none')).mean()",
    "a mixture of two targets": ".3 * F.cross_entropy(z, y) + .7 * F.cross_entropy(z, 2 - y)",
    "nothing but what is picked out": "-q.mean() + 1e-3 * z.pow(2).mean()",
    "entropy of the outputs as a bonus": "F.cross_entropy(z, y) + .1 * (z.softmax(1) * z.log_softmax(1)).sum(1).mean()",
    "a loss times ten, and minus": "-(10. * q).mean() / 3 - .5 * -F.mse_loss(z, p)",
    "stacked terms": "torch.stack([F.cross_entropy(z, y), F.mse_loss(z, p), z.pow(2).mean()]).mean()",
    "terms in a dict": "sum({'a': F.cross_entropy(z, y), 'b': .1 * F.l1_loss(z, p)}.values())",
    "some of the samples": "F.cross_entropy(model(x[b > 0]), y[b > 0])",
    "points of one's own beside the batch": "F.cross_entropy(z, y) + F.mse_loss(model(X[:5]), torch.zeros(5, 3)) + .01 * F.mse_loss(model(X[:2]), torch.ones(2, 3), reduction='sum')",
    "means over different numbers of samples": "F.cross_entropy(z, y, ignore_index=0) + F.cross_entropy(z, y)",
    "a sum divided by a constant": "F.mse_loss(z, p, reduction='sum') / 100.",
}
for _name, _form in _FORMS.items():
    LOSSES[f"loss: {_name}"] = f"""
loader = DataLoader(TensorDataset(X, Y, torch.rand(N, 3).softmax(1), (torch.arange(N) % 2).to(X.dtype), torch.rand(N) + .1), batch_size=12, shuffle=True); out = []
model = mlp(); opt = torch.optim.SGD(model.parameters(), .05); w = torch.tensor([.2, 1., 3.])
for ep in range(2):
    for x, y, p, b, s in loader:
        z = model(x); q = z.log_softmax(1).gather(1, y[:, None]).squeeze(1)
        loss = {_form}
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
