"""What the subcommands of ``%train`` do. Each returns what the shell shows, or prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_train.errors import ClusterError, RunError
from jupyter_train.notebook import api
from jupyter_train.notebook.bundle import headline, plain
from jupyter_train.notebook.copying import keep_copy
from jupyter_train.notebook.table import RunTable, text_table

if TYPE_CHECKING:
    from jupyter_train.cluster import Connection
    from jupyter_train.notebook.comparison import Comparison
    from jupyter_train.notebook.session import Session

_STOP_WAIT_S = 8.0  # a rank that runs on is killed 4 s after it was asked
_RUNS_ON_SCREEN = 5
_LOG_CHARACTERS = 200_000


def run_command(words: str, given: Mapping[str, Any], session: Session) -> object | None:
    """Carries out the subcommand written as ``words`` (``%train cluster start``)."""
    return _COMMANDS[words](given, session)


def _overview(given: Mapping[str, Any], session: Session) -> None:
    _say(_clusters_text())
    table = api.runs(_RUNS_ON_SCREEN)
    _say("")
    _say(
        f"{table!r}"
        if len(table) or table.problems
        else "no runs yet; a cell that begins with  %%train  makes the first"
    )


def _cluster_list(given: Mapping[str, Any], session: Session) -> None:
    _say(_clusters_text())


def _cluster_start(given: Mapping[str, Any], session: Session) -> None:
    from jupyter_train import cluster

    options = {"idle_timeout_s": given["idle_timeout"]} if "idle_timeout" in given else {}
    record = cluster.start_local(given.get("workers"), **options)
    connection = cluster.use(record.name)
    wanted = given.get("workers")
    if wanted and len(connection.workers()) < wanted:
        connection.scale(wanted)
    _say_cluster(connection)


def _cluster_use(given: Mapping[str, Any], session: Session) -> None:
    from jupyter_train import cluster

    target = given["cluster"]
    named = session.namespace.get(target)
    # A Client that the notebook made, by the name it has there.
    connection = cluster.use(named if hasattr(named, "scheduler_info") else target)
    keep_copy(connection)
    _say_cluster(connection)


def _cluster_scale(given: Mapping[str, Any], session: Session) -> None:
    from jupyter_train import cluster

    connection = cluster.current()
    if connection is None:
        raise ClusterError("there is no current cluster: start one with  %train cluster start local -n N")
    connection.scale(given["workers"])
    connection.remarks = []  # of the newest run's size
    _say_cluster(connection)
    if len(connection.workers()) > given["workers"]:
        _say(f"  • {given['workers']} of them stay: idle ones go now, others when their runs end")


def _cluster_stop(given: Mapping[str, Any], session: Session) -> None:
    from jupyter_train import cluster

    name = cluster.stop(given.get("cluster"))
    _say(f"cluster {name} has ended")


def _runs(given: Mapping[str, Any], session: Session) -> RunTable:
    return api.runs()


def _attach(given: Mapping[str, Any], session: Session) -> None:
    from jupyter_train.notebook.cell import new_screen, show_again

    show_again(api.find(given["run"], session), new_screen(session))


def _stop(given: Mapping[str, Any], session: Session) -> None:
    run = api.find(given["run"], session)
    if run.view.state is not None and run.view.state.is_terminal:
        _say(f"run {plain(run.name, 80)} had ended: {run.state}")
        return
    run.stop(force=bool(given.get("kill")))
    follower = run.follow()
    follower.hurry()
    follower.done.wait(_STOP_WAIT_S)
    _say(f"run {plain(run.name, 80)}: {headline(run.view, now=time.time())}")


def _wait(given: Mapping[str, Any], session: Session) -> None:
    run = api.find(given["run"], session)
    run.wait()
    names = run.bring_in().names
    _say(f"run {plain(run.name, 80)}: {run.state}; in the notebook now: {', '.join(names) or 'nothing new'}")


def _log(given: Mapping[str, Any], session: Session) -> None:
    run = api.find(given["run"], session)
    rank = given.get("rank")
    text = run.log(rank)
    spec = run.view.spec
    if rank is not None and spec is not None and not 0 <= rank < spec.ranks:
        raise RunError(f"run {run.name} has ranks 0 to {spec.ranks - 1}, not {rank}")
    if len(text) > _LOG_CHARACTERS:
        _say(f'[the newest of {len(text):,} characters; all of them: jt.run("{run.id}").log()]')
        text = text[-_LOG_CHARACTERS:].partition("\n")[2]
    _say(text.rstrip("\n") if text else f"run {plain(run.name, 80)} has written nothing")


def _capture(given: Mapping[str, Any], session: Session) -> None:
    from jupyter_train.notebook.capturing import capture_command

    _say(capture_command(given.get("names", ()), session))


def _compare(given: Mapping[str, Any], session: Session) -> Comparison:
    return api.compare(api.find(given["first"], session), api.find(given["second"], session))


def _clean(given: Mapping[str, Any], session: Session) -> None:
    from jupyter_train.notebook.cleaning import OLD_S, Wanted, clean

    says = given.keys() - {"yes"}
    wanted = Wanted(
        older_than_s=given.get("older_than", None if says else OLD_S),
        larger_than=given.get("larger_than"),
        keep=given.get("keep"),
    )
    clean(wanted, session, yes=bool(given.get("yes")), now=time.time(), ask=input, say=_say)


_COMMANDS: dict[str, Callable[[Mapping[str, Any], Session], object | None]] = {
    "%train": _overview,
    "%train cluster start": _cluster_start,
    "%train cluster use": _cluster_use,
    "%train cluster list": _cluster_list,
    "%train cluster scale": _cluster_scale,
    "%train cluster stop": _cluster_stop,
    "%train runs": _runs,
    "%train attach": _attach,
    "%train stop": _stop,
    "%train wait": _wait,
    "%train capture": _capture,
    "%train compare": _compare,
    "%train clean": _clean,
    "%train log": _log,
}


def _clusters_text() -> str:
    """The clusters that run here and the one that is used, as a table."""
    from jupyter_train import cluster

    current = cluster.current()
    rows = []
    for record in cluster.clusters():
        used = current is not None and current.is_alive and current.name == record.name
        rows.append(
            ("→" if used else "", record.name, "local", record.address, _workers(current) if used else "")
        )
    if current is not None and current.record is None and current.is_alive:
        rows.append(("→", current.name, current.kind, current.address, _workers(current)))
    if not rows:
        return "no cluster runs: %%train starts a local one, or say  %train cluster start local -n N"
    return text_table(("", "cluster", "kind", "address", "workers"), rows)


def _workers(connection: Connection | None) -> str:
    if connection is None:
        return ""
    try:
        workers = connection.workers()
    except (ClusterError, OSError, TimeoutError):
        return "does not answer"
    busy = sum(1 for worker in workers if worker.get("run"))
    return f"{len(workers)}, {busy} busy"


def _say_cluster(connection: Connection) -> None:
    workers = connection.workers()
    plural = "s" * (len(workers) != 1)
    _say(f"cluster {connection.name} at {connection.address}: {len(workers)} worker{plural}")
    for remark in connection.remarks:
        _say(f"  • {remark}")


def _say(text: str) -> None:
    print(text)  # noqa: T201  a magic's answer is what it prints
