"""What is drawn of a run, how often, and what of it is anybody's text."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jupyter_train.notebook import chart
from jupyter_train.notebook.bundle import Picture, make_bundle, number
from jupyter_train.notebook.live import FIRST_PICTURE_S, LiveView
from jupyter_train.notebook.output import RankOutput
from jupyter_train.notebook.pace import Pace
from jupyter_train.notebook.series import StepClock, band, divergence, metric_band, usage_band
from jupyter_train.notebook.stage import TextStage
from jupyter_train.notebook.throttle import Throttle
from jupyter_train.record import Curve, Event, EventKind, Proof, RunSpec, RunView, Verdict, fold, unpack_event
from tests.notebook.fakes import FakeControl, FakeRun

SPEC = RunSpec(run_id="20261122-153000-ab12cd", name="digits", source="pass", ranks=2)


@pytest.fixture
def run() -> FakeRun:
    return FakeRun(FakeControl(), SPEC)


def seen(run: FakeRun) -> tuple[RunView, StepClock]:
    events = [unpack_event(data) for data in run.packed]
    clock = StepClock()
    clock.add(events)
    return fold(events), clock


def curve(values: list[float]) -> Curve:
    return Curve().extended(np.arange(len(values)), np.array(values, np.float64))


class TestSeries:
    def test_the_line_is_the_mean_over_ranks_and_the_band_their_extremes(self) -> None:
        line = metric_band({0: curve([1.0, 2.0]), 1: curve([3.0, 6.0])})
        assert line.mean.tolist() == [2.0, 4.0]
        assert line.low.tolist() == [1.0, 2.0]
        assert line.high.tolist() == [3.0, 6.0]

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_what_is_not_finite_on_any_rank_is_a_gap(self, bad: float) -> None:
        line = metric_band({0: curve([1.0, bad, 3.0]), 1: curve([1.0, 2.0, 3.0])})
        assert np.isnan(line.mean).tolist() == [False, True, False]
        assert np.isnan(line.low).tolist() == [False, True, False]

    def test_a_long_curve_keeps_its_extremes_in_few_columns(self) -> None:
        values = np.zeros(100_000)
        values[54_321] = 9.0
        line = band([(np.arange(100_000), values)])
        assert len(line.x) == 400
        assert line.high.max() == 9.0
        assert line.x[0] < 300
        assert line.x[-1] > 99_000

    def test_the_number_beside_a_curve_is_its_newest_value_however_thin_it_is_drawn(self) -> None:
        steps, values = np.arange(10_000), np.linspace(1.0, 0.0, 10_000)
        drawn = band([(steps, values), (steps, values + 2.0)])
        assert len(drawn.x) < 1000
        assert drawn.last == 1.0

    def test_a_curve_with_few_points_over_many_steps_has_no_holes(self) -> None:
        line = band([(np.array([0, 10**6, 2 * 10**6]), np.array([1.0, 2.0, 3.0]))])
        assert line.mean.tolist() == [1.0, 2.0, 3.0]

    def test_diverged_is_where_it_stopped_being_finite_for_good(self) -> None:
        nan = math.nan
        view = RunView(
            run_id="r", curves={"loss": {0: curve([1, nan, 2, nan, math.inf]), 1: curve([1, 1, 1, 1, nan])}}
        )
        assert divergence(view) == ("loss", 3)
        assert divergence(RunView(run_id="r", curves={"loss": {0: curve([1, nan, 2])}})) is None

    def test_usage_of_all_ranks_is_one_line_with_a_band(self, run: FakeRun) -> None:
        run.now = 100.0
        run.usage(0, cores=1.0)
        run.usage(1, cores=3.0)
        view, _ = seen(run)
        line = usage_band(view.usage, "cpu_cores")
        assert (line.mean.tolist(), line.low.tolist(), line.high.tolist()) == ([2.0], [1.0], [3.0])

    def test_steps_have_the_time_of_their_batch(self) -> None:
        clock = StepClock()
        column = {"step": np.array([9, 10]), "value": np.array([0.0, 0.0])}
        clock.add(
            [
                Event(run_id="r", time=50.0, kind=EventKind.STATE, payload={"state": "RUNNING"}),
                Event(run_id="r", time=60.0, kind=EventKind.METRICS, payload={"columns": {"loss": column}}),
            ]
        )
        assert clock.times(np.array([0.0, 5.0, 10.0])).tolist() == [50.0, 55.0, 60.0]

    def test_a_new_attempt_starts_the_clock_anew(self) -> None:
        clock = StepClock()
        for attempt, time in ((1, 50.0), (2, 90.0)):
            event = Event(
                run_id="r", attempt=attempt, time=time, kind=EventKind.STATE, payload={"state": "RUNNING"}
            )
            clock.add([event])
        assert clock.times(np.array([0.0])).tolist() == [90.0]


class TestChart:
    def drawn(self, run: FakeRun) -> Image.Image:
        view, clock = seen(run)
        png = chart.draw(view, clock, now=run.now)
        assert png is not None
        assert len(png) <= chart.MAX_BYTES
        return Image.open(io.BytesIO(png)).convert("RGBA")

    def test_it_is_a_small_transparent_png(self, run: FakeRun) -> None:
        run.begin()
        run.metrics(0, loss=[1.0, 0.5, 0.2], lr=[0.1, 0.05, 0.01])
        run.usage(0)
        run.usage(0)
        image = self.drawn(run)
        assert image.getpixel((image.width - 1, image.height - 1))[3] == 0  # type: ignore[index]
        assert image.width == chart.WIDTH_PX

    def test_noise_stays_below_the_limit(self, run: FakeRun) -> None:
        run.begin()
        rng = np.random.default_rng(0)
        for rank in range(2):
            run.metrics(rank, **{name: rng.normal(size=5000).tolist() for name in ("a", "b", "c", "d", "e")})
        self.drawn(run)

    @pytest.mark.parametrize(
        "name", ["$x^2$", r"\frac{a}{", "<script>", "损失", "a" * 300, "loss\n\x1b[31m", "_hidden", "🙂"]
    )
    def test_any_name_can_be_drawn(self, run: FakeRun, name: str) -> None:
        run.begin()
        run.metrics(0, **{name: [1.0, 2.0]})
        self.drawn(run)

    @pytest.mark.parametrize(
        "values",
        [
            [math.nan],
            [math.nan, math.nan],
            [1.0],
            [0.0, 0.0],
            [1e300, -1e300],
            [1e-300, 1.0],
            [math.inf, 1.0, 2.0],
        ],
    )
    def test_any_values_can_be_drawn(self, run: FakeRun, values: list[float]) -> None:
        run.begin()
        run.metrics(0, loss=values, other=[1e9] * len(values), lr=values)
        self.drawn(run)

    def test_usage_alone_is_drawn_from_the_second_reading_on(self, run: FakeRun) -> None:
        run.begin()
        assert chart.draw(*seen(run), now=run.now) is None
        run.usage(0)
        assert chart.draw(*seen(run), now=run.now) is None
        run.now += 1.0
        run.usage(0)
        self.drawn(run)

    def test_curves_of_another_size_get_an_axis_of_their_own(self, run: FakeRun) -> None:
        run.begin()
        run.metrics(0, loss=[1.0, 0.5])
        height = self.drawn(run).height
        run.metrics(0, accuracy=[0.5, 0.9])
        assert self.drawn(run).height == height
        run.metrics(0, tokens=[1e6, 2e6])
        assert self.drawn(run).height > height


class TestBundle:
    HOSTILE = '<img src=x onerror="alert(1)">\x1b[31m'

    def test_nothing_of_a_run_is_interpreted_as_html(self, run: FakeRun) -> None:
        run.begin()
        run.metrics(0, **{self.HOSTILE: [1.0]})
        run.prints(self.HOSTILE, stream="remark")
        run.say(
            EventKind.LOG, {"stream": "progress", "bar": "1", "label": self.HOSTILE, "done": 1, "total": 2}, 0
        )
        run.end("FAILED", reason=self.HOSTILE)
        view, _ = seen(run)
        bundle = make_bundle(
            view,
            name=self.HOSTILE,
            now=run.now,
            remarks=[self.HOSTILE],
            picture=Picture(png=b"", words=self.HOSTILE),
        )
        assert "<img src=x" not in bundle["text/html"]
        assert 'onerror="' not in bundle["text/html"]
        assert "\x1b" not in bundle["text/html"] + bundle["text/plain"]

    def test_it_has_no_widget_and_no_script(self, run: FakeRun) -> None:
        run.begin()
        view, _ = seen(run)
        bundle = make_bundle(view, name="digits", now=run.now)
        assert set(bundle) == {"text/plain", "text/html"}
        assert "<script" not in bundle["text/html"]

    def test_the_picture_has_an_alternative_text(self, run: FakeRun) -> None:
        run.begin()
        view, _ = seen(run)
        bundle = make_bundle(
            view, name="digits", now=run.now, picture=Picture(png=b"x", words="loss from 1 to 0.5")
        )
        assert '<img alt="loss from 1 to 0.5" src="data:image/png;base64,eA==">' in bundle["text/html"]

    def test_divergence_is_said(self, run: FakeRun) -> None:
        run.begin()
        run.metrics(0, loss=[1.0, math.nan])
        view, _ = seen(run)
        assert "loss diverged at step 2" in make_bundle(view, name="digits", now=run.now)["text/plain"]

    def test_the_table_has_speed_workers_and_progress(self, run: FakeRun) -> None:
        run.begin()
        run.metrics(0, loss=[0.5], step_time_s=[0.1], samples_per_s=[320.0])
        run.usage(0, cores=0.9, memory=10**9)
        run.usage(1, cores=0.8, memory=10**9)
        run.say(
            EventKind.LOG, {"stream": "progress", "bar": "1", "label": "epoch", "done": 5, "total": 10}, 0
        )
        view, _ = seen(run)
        text = make_bundle(view, name="digits", now=run.now)["text/plain"]
        for part in ("10 steps/s, 320 samples/s", "1.7 cores, 2.0 GB", "5/10", "loss 0.5"):
            assert part in text

    def test_the_speed_is_that_of_the_newest_steps_together(self, run: FakeRun) -> None:
        run.begin()
        run.metrics(0, step_time_s=[1.0, 3.0], samples_per_s=[32e5, 32e5 / 3])
        view, _ = seen(run)
        assert "0.5 steps/s, 1.6e+06 samples/s" in make_bundle(view, name="x", now=run.now)["text/plain"]

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.00123456, "0.001235"),
            (9999.4, "9999"),
            (22789.6, "22,790"),
            (-54321, "-54,321"),
            (2e6, "2e+06"),
        ],
    )
    def test_numbers_are_short_and_read_as_numbers(self, value: float, text: str) -> None:
        assert number(value) == text


class TestPace:
    def test_at_most_one_drawing_in_two_seconds(self) -> None:
        pace = Pace(share=0.01)
        assert pace.due_in(10.0) == 0
        pace.drawn(10.0, cost_s=0.001)
        assert pace.due_in(11.0) == pytest.approx(1.0)
        assert pace.due_in(12.0) == 0

    def test_an_expensive_drawing_takes_one_percent_of_a_core(self) -> None:
        pace = Pace(share=0.01)
        pace.drawn(10.0, cost_s=0.08)
        assert pace.due_in(10.0) == pytest.approx(8.0)


class Screen:
    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def show(self, bundle: dict[str, Any], *, final: bool) -> None:
        self.shown.append(bundle)

    def show_again(self, bundle: dict[str, Any]) -> None:
        self.shown.append(bundle)


class TestLive:
    def live(self, **options: Any) -> LiveView:
        self.now = 1000.0
        self.told = 0  # events that the view has been given
        self.view: RunView | None = None
        self.screen = Screen()
        return LiveView(
            self.screen,
            "digits",
            clock=lambda: self.now,
            wall=lambda: 1_700_000_010.0,
            cpu=lambda: 0.0,
            **options,
        )

    def news(self, live: LiveView, run: FakeRun) -> None:
        fresh = tuple(unpack_event(data) for data in run.packed[self.told :])
        self.told = len(run.packed)
        self.view = fold(fresh, self.view)
        live.step(fresh, self.view, connected=True)

    def test_it_draws_only_when_something_changed_and_two_seconds_went_by(self, run: FakeRun) -> None:
        live = self.live()
        run.begin()
        self.news(live, run)
        assert len(self.screen.shown) == 1
        run.metrics(0, loss=[1.0])
        self.news(live, run)
        assert len(self.screen.shown) == 1
        assert live.due_in() == pytest.approx(2.0)
        self.now += 2.0
        self.news(live, run)
        assert len(self.screen.shown) == 2
        self.now += 10.0
        self.news(live, run)
        assert len(self.screen.shown) == 2
        assert live.due_in() == math.inf

    def test_the_first_picture_waits_until_training_is_under_way(self, run: FakeRun) -> None:
        live = self.live()
        run.begin()
        run.metrics(0, loss=[1.0])
        self.news(live, run)
        assert "image/png" not in self.screen.shown[-1]
        self.now += FIRST_PICTURE_S
        run.metrics(0, loss=[0.9])
        self.news(live, run)
        assert "image/png" in self.screen.shown[-1]

    def test_who_attaches_sees_the_history_with_its_picture_at_once(self, run: FakeRun) -> None:
        live = self.live(at_once=True)
        live.show(RunView(run_id=run.spec.run_id))
        assert "digits: reading what it did so far" in self.screen.shown[-1]["text/plain"]
        run.begin()
        run.metrics(0, loss=[1.0, 0.5])
        self.news(live, run)
        assert len(self.screen.shown) == 2
        assert "step 2" in self.screen.shown[-1]["text/plain"]
        assert "image/png" in self.screen.shown[-1]

    def test_who_attaches_to_a_run_that_was_read_before_sees_it_drawn_all_the_same(
        self, run: FakeRun
    ) -> None:
        live = self.live(at_once=True)
        run.begin()
        run.metrics(0, loss=[1.0, 0.5])
        live.show(fold(unpack_event(data) for data in run.packed))
        assert "step 2" in self.screen.shown[-1]["text/plain"]
        self.news(live, run)
        assert "image/png" in self.screen.shown[-1]

    def test_the_end_is_always_drawn_with_its_picture(self, run: FakeRun) -> None:
        live = self.live()
        run.begin()
        run.metrics(0, loss=[1.0])
        self.news(live, run)
        run.end()
        live.close(fold(unpack_event(data) for data in run.packed))
        assert "image/png" in self.screen.shown[-1]
        assert "SUCCEEDED" in self.screen.shown[-1]["text/plain"]

    def test_text_and_picture_together_take_one_percent_of_a_core(self, run: FakeRun) -> None:
        spent = 0.0

        def cpu() -> float:
            # Each reading 20 ms after the one before: a costly picture and a costly text.
            nonlocal spent
            spent += 0.02
            return spent

        live = self.live()
        live._cpu = cpu
        run.begin()
        self.news(live, run)
        begun, before = self.now, spent
        while self.now < begun + 1000.0:
            self.now += 1.0
            run.metrics(0, loss=[1.0])
            self.news(live, run)
        assert len(self.screen.shown) > 20
        assert (spent - before) / 2 <= 0.01 * 1000.0 + 0.1

    def test_a_view_that_lost_its_run_says_so(self, run: FakeRun) -> None:
        live = self.live()
        run.begin()
        live.close(fold(unpack_event(data) for data in run.packed))
        assert "disconnected" in self.screen.shown[-1]["text/plain"]

    def test_a_lost_connection_is_shown(self, run: FakeRun) -> None:
        live = self.live()
        run.begin()
        self.news(live, run)
        self.now += 5.0
        live.step((), fold(unpack_event(data) for data in run.packed), connected=False)
        assert "disconnected" in self.screen.shown[-1]["text/plain"]

    def test_a_chart_that_fails_costs_the_chart_only(
        self, run: FakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no fonts")

        monkeypatch.setattr(chart, "draw", fail)
        live = self.live()
        run.begin()
        run.metrics(0, loss=[1.0])
        run.end()
        live.close(fold(unpack_event(data) for data in run.packed))
        assert "no chart" in self.screen.shown[-1]["text/plain"]


class TestOutput:
    def test_a_flood_is_cut_at_whole_lines_and_said(self) -> None:
        out, err = io.StringIO(), io.StringIO()
        now = [0.0]
        output = RankOutput("digits", stage=TextStage(out, err), clock=lambda: now[0])

        def prints(text: str) -> None:
            payload = {"stream": "stdout", "text": text}
            output.events([Event(run_id="r", rank=0, time=0.0, kind=EventKind.LOG, payload=payload)])

        prints("x" * 99 + "\n")
        prints(("y" * 99 + "\n") * 10_000)
        assert 150_000 < len(out.getvalue()) <= 200_000
        assert out.getvalue().endswith("\n")
        now[0] += 1.0
        prints("after\n")
        assert out.getvalue().endswith("after\n")
        assert "%train log digits" in err.getvalue()

    def test_the_end_of_a_flood_is_shown_when_the_run_has_ended(self) -> None:
        out, err = io.StringIO(), io.StringIO()
        output = RankOutput("digits", stage=TextStage(out, err), clock=lambda: 0.0)
        text = ("y" * 99 + "\n") * 10_000 + "accuracy 0.97\n"
        payload = {"stream": "stdout", "text": text}
        output.events([Event(run_id="r", rank=0, time=0.0, kind=EventKind.LOG, payload=payload)])
        output.close()
        shown = out.getvalue()
        assert shown.endswith("y\naccuracy 0.97\n")
        assert len(shown) <= 200_000 + 2_000
        assert f"{len(text) - len(shown):,} characters are only in the log" in err.getvalue()

    def test_the_rate_is_kept_over_time(self) -> None:
        throttle = Throttle(burst=1000.0, rate=1000.0)
        line = "z" * 99 + "\n"
        shown = sum(len(throttle.shown(line * 10, now=n / 10)) for n in range(101))
        assert 9_000 <= shown <= 11_500


@pytest.mark.parametrize(
    ("verdict", "sign"),
    [(Verdict.SAME, "✓"), (Verdict.DIFFERS, "✗"), (Verdict.RANDOM, "≈"), (Verdict.UNCHECKED, "○")],
)
def test_the_proof_stands_below_the_state_as_text(verdict: Verdict, sign: str) -> None:
    proof = Proof(verdict=verdict, text="as one process <b>\x1b[1m")
    bundle = make_bundle(RunView(run_id="r", proof=proof), name="n", now=0.0)
    assert bundle["text/plain"].splitlines()[2] == f"  {sign} as one process <b>"
    assert f"<div>{sign} as one process &lt;b&gt;</div>" in bundle["text/html"]


def test_the_picture_has_the_verdict_too() -> None:
    view = RunView(run_id="r", curves={"loss": {0: curve([1.0, 0.5, 0.4])}})
    proof = Proof(verdict=Verdict.DIFFERS, text="", difference=0.5)
    pictures = [chart.draw(one, StepClock(), now=1.0) for one in (view, replace(view, proof=proof))]
    assert None not in pictures
    assert pictures[0] != pictures[1]
