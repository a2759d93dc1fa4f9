"""Around a backward: weigh the loss, average the gradients before anything reads them, make the loss the global one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import torch

from jupyter_train.runtime.parallel.averaging import Averager, Line, Note
from jupyter_train.runtime.parallel.buffers import LOOKS, check_buffers
from jupyter_train.runtime.parallel.cellhooks import CellHooks
from jupyter_train.runtime.parallel.errors import NotSplittable, not_splittable
from jupyter_train.runtime.parallel.feed import Feed, Pass
from jupyter_train.runtime.parallel.graph import scaled
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.header import Header, Kind
from jupyter_train.runtime.parallel.laws import Profile, lie_apart
from jupyter_train.runtime.parallel.learning import Learner
from jupyter_train.runtime.parallel.loss import Reading
from jupyter_train.runtime.parallel.neighbours import Neighbours
from jupyter_train.runtime.parallel.registry import Registry, leaves
from jupyter_train.runtime.parallel.remarks import Remarks
from jupyter_train.runtime.parallel.shares import Share
from jupyter_train.runtime.parallel.sites import Site, Sites
from jupyter_train.runtime.parallel.sizes import first_words, is_of_a_size
from jupyter_train.runtime.parallel.study import Study
from jupyter_train.runtime.parallel.taking import Taking, scaler
from jupyter_train.runtime.parallel.weighing import Weigher, Weights, corrected

_TRAINER = "; Trainer(devices={ranks}, strategy='ddp') shares it out"
_LAUNCHED = {
    "pytorch_lightning": _TRAINER,
    "lightning": _TRAINER,
}  #: libraries that can, when told, use our ranks


class Reducer:
    """Makes each backward of a rank that of one process. Main thread of a rank."""

    def __init__(
        self,
        *,
        groups: Groups,
        header: Header,
        sites: Sites,
        feed: Feed,
        remarks: Remarks,
        rates: Callable[[], int],
        stop_requested: Callable[[], bool],
        on_stop: Callable[[], None],
        on_trained: Callable[[Pass, Site], None],
        neighbours: Neighbours | None = None,
        study: Study | None = None,
    ) -> None:
        self.active = True
        self.keep_requested: Callable[[], bool] = lambda: False  #: this rank wants a checkpoint to be kept
        self.on_keep: Callable[[], None] = lambda: None  #: some rank does
        self.registry = Registry()
        self._groups = groups
        self._ranks = groups.world_size
        self._header = header
        self._sites = sites
        self._feed = feed
        self._remarks = remarks
        self._rates = rates
        self._stop_requested = stop_requested
        self._on_stop = on_stop
        self._on_trained = on_trained
        self.cell_hooks = CellHooks(self.registry)
        self._study = study
        self._learner = Learner(self.registry, groups, remarks)
        self._averager = Averager(
            groups=groups,
            header=header,
            registry=self.registry,
            learner=self._learner,
            namespaces=self._namespaces,
            neighbours=neighbours,
        )
        self.registry.on_gradient = self._averager.on_gradient
        self.weigher = Weigher(
            groups=groups, remarks=remarks, is_weight=self._is_weight, ask_uneven=feed.ask_uneven
        )
        self._taking = Taking(
            groups=groups, header=header, feed=feed, registry=self.registry, weigh=self._weigh_taken
        )
        self._lines: dict[Site, Line] = {}
        feed.give_up = self._give_up

        header.on_other_terms = self._on_other_terms

    def _on_other_terms(self, where: str) -> None:
        """The ranks' losses are made of other terms: of whole batches they are not, or the ranks have parted indeed."""
        error = not_splittable(
            where,
            "the loss is made of other terms on one part of the batch than on another, as where a loop goes on to the end "
            "of the longest sentence, or a random number decides",
            "With terms that are the same for all samples (sentences padded to one length, random.random() to decide) it is split",
        )
        found = () if self._feed.per_rank else self._feed.found_whole(error)
        if found:
            self._header.start_over(found)

    def _is_weight(self, leaf: torch.Tensor) -> bool:
        return self.registry.number(leaf) is not None

    def nested(self) -> None:
        """Another backward runs inside the one under way."""
        self._averager.nested()

    def backward(
        self, original: Callable[..., None], site: Site, tensors: Any, arguments: tuple[Any, ...]
    ) -> float | None:
        """Run ``original`` so that gradients, and the loss, become those of one process.

        Returns:
            The global loss, None where it is not known.

        Raises:
            StartOver: the loop was split and must not be.
            RanksDiverged, PeerLost, CellError; NotSplittable where shares are forced.
        """
        try:
            with self._study.paused() if self._study is not None else nullcontext():
                return self._backward(original, site, tensors, arguments)
        except NotSplittable as error:
            self._give_up(error)

    def blame_the_share(self, error: BaseException) -> None:
        """The cell fails by ``error``: if it was of the size of its first share of a batch, give the attempt up instead.

        Raises:
            StartOver: the loops that are open become whole.
        """
        untried = self._feed.untried(error) if self.active and is_of_a_size(error) else []
        if not untried:
            return
        site = self._sites.of_error(error)
        blamed = not_splittable(
            "a line of the cell" if site is None else str(site),
            f"{type(error).__name__} with a part of the batch ({first_words(error)}), as where the cell relies on the "
            "batch size that it asked for",
            "With the size of the batch at hand (len(x)) in its place it is split",
        )
        self._give_up(blamed, untried)

    def _give_up(self, error: NotSplittable, sites: Sequence[Site] = ()) -> NoReturn:
        """The batches of the open loops, or of those at ``sites``, must not be split: start over with them whole."""
        found = () if self._feed.per_rank else self._feed.found_whole(error, sites)
        if not found:
            raise error
        self._header.start_over(found)

    def _backward(
        self, original: Callable[..., None], site: Site, tensors: Any, arguments: tuple[Any, ...]
    ) -> float | None:
        if not self.active:
            original(tensors, *arguments)
            return None
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        root = roots[0] if len(roots) == 1 and roots[0].numel() == 1 and _is_plain(arguments[0]) else None
        current, share = self._feed.current, self._feed.share
        line = self._lines.get(site)
        if line is None:
            line = self._lines[site] = Line(site=site)
        line.is_whole = share is None and (current is None or not current.deals_itself)
        if share is not None and line.looks < LOOKS:
            line.looks += 1
            self._header.post(Kind.WEIGHTS, site, batch=share.digest)
            self._header.check()
            check_buffers(self._groups, self._namespaces(), share, str(site))
        weights = self._weigh(line, root, share)
        if share is None and line.plan is None:
            self._say_that_it_is_whole(site, current)
        note = self._note(root, weights, share)
        multiples = scaled(root.grad_fn) if root is not None and share is not None else ()
        handles = [node.register_prehook(scaler(factor)) for node, factor in weights.nodes]
        if root is not None and line.has_inputs and share is not None:
            # A loss counts as many times as there are ranks, for the average; nobody averages these.
            scale = scaler(1.0 / self._ranks)
            handles += [leaf.register_hook(lambda grad: scale([grad])[0]) for leaf in self._inputs(root)]  # type: ignore[no-untyped-call]
        if weights.root != 1.0:
            arguments = _scaled(tensors, arguments, weights.root)
        if share is not None:
            self.cell_hooks.hold()
        try:
            with self._averager.watching(line):
                original(tensors, *arguments)
        except RuntimeError as error:
            if share is not None and "once_differentiable" in str(error):
                raise not_splittable(
                    str(site),
                    "the loss differentiates twice through the statistics of a BatchNorm",
                    "With GroupNorm or LayerNorm it is split",
                ) from error
            raise
        finally:
            for handle in handles:
                handle.remove()
            held = self.cell_hooks.put_back()
        told = self._average(line, roots, weights, share, note)
        self.cell_hooks.run(held)
        if line.is_whole and not line.kept and lie_apart(told.amounts):
            self._tell_apart(site)
        if told.stop:
            self._on_stop()
        if told.keep:
            self.on_keep()
        self._averager.count(line)
        if current is not None:
            self._feed.trained(current)
            self._on_trained(current, site)
        if weights.is_estimate:
            self._remarks.say(
                f"{site}: the terms of this loss count differently on each rank's share and only their sum is known, so "
                "that the loss shown is an estimate, the same on all ranks; gradients are those of the whole batch"
            )
        if math.isnan(told.loss):
            return None
        keeps_graph = arguments[1] or arguments[2]
        if root is not None and not keeps_graph:
            root.data.fill_(told.loss)
            if multiples:
                self._tell_what_was_scaled(multiples, told.loss)
        return told.loss

    def _tell_what_was_scaled(self, multiples: Sequence[tuple[Any, float]], value: float) -> None:
        """After ``(loss / 4).backward()`` or ``scaler.scale(loss).backward()`` the ``loss`` too is that of the batch."""
        for names in self._namespaces():
            for one in list(names.values()):
                if isinstance(one, torch.Tensor) and one.grad_fn is not None and one.numel() == 1:
                    for node, product in multiples:
                        if one.grad_fn is node:
                            one.data.fill_(value / product)

    # -- before

    def _weigh_taken(self, site: Site, root: torch.Tensor, share: Share) -> Weights:
        """How much a loss counts of which gradients are taken by hand: nothing is averaged that could correct it."""
        line = self._lines.get(site)
        if line is None:
            line = self._lines[site] = Line(site=site)
        return self._weigh(line, root, share, exactly=True)

    def _weigh(
        self, line: Line, root: torch.Tensor | None, share: Share | None, *, exactly: bool = False
    ) -> Weights:
        """How much this rank's loss counts; tells the others what comes."""
        self.registry.wake()
        site = line.site
        if share is None:
            self._header.post(Kind.BACKWARD, site, rates=self._rates())
            return Weights(value=1.0 / self._ranks)
        if root is None:
            raise not_splittable(
                str(site),
                "backward() of something that is not one number",
                "It is split where backward() is called on a sum or an average over the samples",
            )
        known = None if root.grad_fn is None else self._known(line, root, share)
        if known is None:  # the root is a parameter itself: no data in it
            self._header.post(Kind.BACKWARD, site, batch=share.digest, rates=self._rates())
            return Weights(value=1.0 / self._ranks)
        profile, reading = known
        if self._study is not None and self._study.is_under_way:
            self._judge(self._study, line, root, share)
        self._header.post(Kind.BACKWARD, site, batch=share.digest, rates=self._rates(), loss=reading.digest)
        exactly = (
            exactly
            or profile.needs_exchange
            or len(self._feed.shares) > 1
            or (line.plan is not None and line.plan.has_gradients())
        )
        if exactly:
            self._header.check()
        return self.weigher.weigh(site, profile, reading, share, exactly=exactly)

    def _known(self, line: Line, root: torch.Tensor, share: Share) -> tuple[Profile, Reading]:
        """What the loss is made of; the first time, the ranks find out together."""
        shares = self._feed.shares
        if len(shares) > 1 and any(0 in one.sizes for one in shares):
            # A sample that stands in for none counts nothing, but only one of the passes tells how much that is.
            raise not_splittable(
                str(line.site),
                "one of the loaders that are read together has a batch of fewer samples than there are ranks",
                "With drop_last=True for that loader it is split",
            )
        known = self.weigher.read(line.site, root)
        if known is not None and line.is_met:
            return known
        self._header.post(Kind.STUDY, line.site, batch=share.digest, rates=self._rates())
        self._header.check()
        self._learner.learn([root.grad_fn], self._namespaces(), str(line.site))
        line.has_learned = line.is_met = True
        line.has_inputs = any(True for _ in self._inputs(root))
        if known is not None:  # by an earlier attempt
            return known
        return self.weigher.study(line.site, root, share, [one.mine or 1 for one in shares])

    def _judge(self, study: Study, line: Line, root: torch.Tensor, share: Share) -> None:
        """The ranks find out together whether what was done since the last time can be done on shares."""
        self._header.post(Kind.STUDY, line.site, batch=share.digest, rates=self._rates())
        self._header.check()
        found = study.judge([root], self._feed.shares)
        if found is None:
            return
        if not self._feed.per_rank:
            raise found
        self._remarks.say(f"{found.why}: with  --batch per-rank  each rank does so within its own batch")
        study.end()

    def _tell_apart(self, site: Site) -> None:
        """Every rank computes this loss whole, and each has another: what it reads comes out of loops that are split.

        Raises:
            NotSplittable, StartOver: there are such.
        """
        loops = [] if self._feed.per_rank else list(self._feed.has_split)
        if loops:
            places = " and ".join(dict.fromkeys(map(str, loops)))
            why = f"what it trains on comes from the loop of {places}, where each rank sees its share"
            self._give_up(not_splittable(str(site), why), loops)

    def _inputs(self, root: torch.Tensor) -> Iterator[torch.Tensor]:
        """Data of this rank's share that takes gradients."""
        for leaf in leaves([root.grad_fn]):
            if not self._is_weight(leaf) and not isinstance(leaf, torch.nn.Parameter):
                yield leaf

    def _namespaces(self) -> list[Mapping[str, Any]]:
        """The names that the line which calls backward can see, its own first."""
        frame = self._sites.frame(2)
        out: list[Mapping[str, Any]] = []
        while frame is not None:
            if frame.f_locals is not frame.f_globals:
                out.append(frame.f_locals)
            if not any(frame.f_globals is one for one in out):
                out.append(frame.f_globals)
            if frame.f_code.co_filename == self._sites.cell_file and frame.f_code.co_name == "<module>":
                break
            frame = frame.f_back
        return out

    def _say_that_it_is_whole(self, site: Site, current: Pass | None) -> None:
        if current is not None and current.will_split:
            return
        library = "" if "backward" in site.text else self._sites.library(3)
        if library:
            self._remarks.say(
                f"{site}: {library} trains here as one process does, and its own loop is not split: every rank computes "
                f"all of it, right, but not faster{_LAUNCHED.get(library, '').format(ranks=self._ranks)}"
            )
        elif current is None or not current.why_whole:
            self._remarks.say(
                f"{site}: this backward() belongs to no loop over a DataLoader that was split, so every rank computes "
                "it whole: right, but not faster"
            )

    def _note(self, root: torch.Tensor | None, weights: Weights, share: Share | None) -> Note:
        amounts = [0.0] * self._ranks
        if share is not None and weights.law is not None:
            amounts[share.rank] = weights.amount
        note = Note(stop=self._stop_requested(), keep=self.keep_requested(), amounts=amounts)
        if root is not None:
            loss = float(root.detach())
            # An empty share's own loss may be 0/0, and so may one of several terms.
            counts_nothing = any(factor == 0.0 for _, factor in weights.nodes) and math.isnan(loss)
            note.loss = 0.0 if weights.value == 0.0 or counts_nothing else loss * weights.value
        return note

    # -- after

    def _average(
        self, line: Line, roots: Sequence[torch.Tensor], weights: Weights, share: Share | None, note: Note
    ) -> Note:
        averager, plan = self._averager, line.plan
        if plan is None:
            return averager.agree(line, roots, note)
        told = averager.reduce(line, plan, note)
        factor = None
        if weights.law is not None and share is not None:
            factor = corrected(weights, weights.law, told.amounts, share)
        if factor is None and not told.differs:
            averager.keep(plan)
            return told
        if factor is not None:
            self.weigher.distrust(line.site, weights.digest)
            averager.scale(plan, factor)
            note.loss = 0.0 if factor == 0.0 else note.loss * factor
        return averager.agree(line, roots, note)

    # -- what is not a backward

    @contextmanager
    def taking(self, outputs: Any, inputs: Any, given: Any) -> Iterator[Any]:
        """While ``autograd.grad`` runs: what stands for the gradients that it is given for its outputs.

        Raises:
            StartOver: on a share of a batch it would give what one process does not.
            NotSplittable: so, where shares are forced.
        """
        if not self.active or self._averager.is_watching or self._feed.share is None:
            yield given
            return
        try:
            with self._taking.around(self._sites.here(4), outputs, inputs, given) as weighted:
                yield weighted
        except NotSplittable as error:
            self._give_up(error)


def _is_plain(given: Any) -> bool:
    """No gradient was given for the root, or one number."""
    if given is None:
        return True
    if not isinstance(given, torch.Tensor):
        if len(given) != 1:
            return False
        given = given[0]
    return given is None or given.numel() == 1


def _scaled(tensors: Any, arguments: tuple[Any, ...], factor: float) -> tuple[Any, ...]:
    """The arguments of backward with the root's gradient times ``factor``."""
    one = tensors if isinstance(tensors, torch.Tensor) else tensors[0]
    given = arguments[0]
    if given is not None and not isinstance(given, torch.Tensor):
        given = given[0]
    scale = torch.full_like(one, factor) if given is None else given * factor
    return (scale if isinstance(tensors, torch.Tensor) else [scale], *arguments[1:])
