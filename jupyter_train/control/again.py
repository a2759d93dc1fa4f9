"""What an attempt is told of the ones before it, and when there is no use in another. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from jupyter_train.record import Checkpoint, CheckpointPart, Gathered, ResumePoint, RunSpec, WholeLoop

_KEEPS = re.compile(r"\btrain\.(epochs|checkpoint)\b")
MOST_ATTEMPTS = 8  #: those after a loss are not counted
#: The last resort: with it nothing is split, so that nothing is left to be found.
EVERY_LOOP = WholeLoop(why="again and again loops of this cell were found that cannot be split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a run stands between its attempts: where the next one begins, and how many there may be."""

    run_id: str
    ranks: int
    retries: int = 0  #: attempts that may follow the loss of a rank
    whole: tuple[WholeLoop, ...] = ()  #: loops that are known not to be splittable
    resume: ResumePoint | None = None  #: where the run itself begins: a checkpoint of another one
    gathered: Gathered = field(default_factory=Gathered)  #: what its ranks told of checkpoints
    keeps: bool = False  #: its cell keeps checkpoints, as far as can be seen
    lost: int = 0  #: attempts that ended with the loss of a rank
    started_over: int = 0  #: attempts that were given up for what they found
    unread: int = 0  #: attempts that could not read the checkpoint that they were to begin from
    unread_since: int = 0  #: of these, since the last loss

    @property
    def can_retry(self) -> bool:
        """The loss of a rank does not end the run."""
        return self.lost < self.retries

    @property
    def attempts(self) -> int:
        """How many there will be at most, as far as is known."""
        return 1 + max(self.retries, 0) + self.started_over + self.unread

    @property
    def begin(self) -> ResumePoint | None:
        """Where the next attempt begins; None: from the start.

        Only a checkpoint that every rank has written counts, and that stands in a loop over ``train.epochs``.
        """
        usable = _usable(self.gathered)
        return usable[-1].resume_point(self.run_id) if usable else self.resume

    def with_part(self, attempt: int, rank: int, part: CheckpointPart) -> Course:
        """This and what ``rank`` told of a checkpoint."""
        told = self.gathered.with_part(part, attempt=attempt, rank=rank, ranks=self.ranks)
        return replace(self, gathered=told, keeps=True)

    def after_loss(self) -> Course:
        """This once an attempt was lost: the next one goes on from the newest checkpoint."""
        return replace(self, lost=self.lost + 1, unread_since=0, gathered=_back(self.gathered, 1))

    def after_unread(self) -> Course:
        """This once an attempt could not read its checkpoint: there is the one before it, and then the start."""
        before = _back(self.gathered, 2) if not self.unread_since else Gathered()
        return replace(self, unread=self.unread + 1, unread_since=self.unread_since + 1, gathered=before)

    def starting_over(self, found: Iterable[WholeLoop]) -> Course | None:
        """This once an attempt was given up for what it ``found``; None: there is no use in another.

        What it trained, it trained wrongly, and maybe those before it: none of their checkpoints counts.
        """
        whole = to_be_whole(self.whole, found, self.started_over + 1)
        if whole is None:
            return None
        return replace(self, whole=whole, started_over=self.started_over + 1, gathered=Gathered())


def keeps_checkpoints(spec: RunSpec) -> bool:
    """Whether the code of a run, as far as it is on record, has what keeps checkpoints. For words only."""
    texts = [spec.source]
    for kind in ("definitions", "modules"):
        found = spec.provenance.get(kind)
        texts += [str(text) for text in found.values()] if isinstance(found, Mapping) else []
    return any(_KEEPS.search(text) for text in texts)


def _back(gathered: Gathered, count: int) -> Gathered:
    """``gathered`` up to the ``count``-th newest checkpoint that can be gone on from; nothing where there is none."""
    usable = _usable(gathered)
    if len(usable) < count:
        return Gathered()
    one = usable[-count]
    return gathered.back_to(one.attempt, one.number)


def _usable(gathered: Gathered) -> list[Checkpoint]:
    """Checkpoints that an attempt can go on from."""
    return [one for one in gathered.whole if one.says_where]


def to_be_whole(
    known: tuple[WholeLoop, ...], found: Iterable[WholeLoop], attempt: int
) -> tuple[WholeLoop, ...] | None:
    """The loops that the next attempt does not split; None: it would find what this one has found.

    ``attempt`` counts from 1, and not those that ended with a loss.
    """
    if EVERY_LOOP in known:
        return None
    loops = {(one.file, one.line): one for one in known}
    before = len(loops)
    for one in found:
        loops.setdefault((one.file, one.line), one)
    if len(loops) == before or attempt >= MOST_ATTEMPTS - 1:
        return (*loops.values(), EVERY_LOOP)
    return tuple(loops.values())
