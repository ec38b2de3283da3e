"""Scaling: the simulation against closed forms and a second scheduler, and how recorded trials are read."""

from __future__ import annotations

import heapq
import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.__main__ import app
from search.errors import UserError
from search.scaling.controller import gaps_of
from search.scaling.lives import Life, life_of, read_lives
from search.scaling.parallel import _row
from search.scaling.virtual import Cluster, Costs, benches_for, simulate, undisturbed
from spaces.recipe import Int8Static, Recipe
from tests.fakes import make_record

RESULTS = Path(__file__).resolve().parents[2] / "results"


def life(train: float = 10.0, *, quick: int = 0, full: int = 0, rungs: int = 0) -> Life:
    return Life(before=0.0, train=train, after=0.0, quick=quick, full=full, rungs=rungs)


@pytest.mark.parametrize("workers", [1, 3, 256])
def test_without_waiting_every_worker_is_always_at_work(workers: int) -> None:
    found = simulate([life(rungs=2)], Costs(), workers=workers, benches=1)
    assert found.efficiency == pytest.approx(1.0)
    assert found.makespan == pytest.approx(64 * 10.0)
    assert (found.driver_share, found.bench_share, found.limit) == (0.0, 0.0, "")


@pytest.mark.parametrize("workers", [1, 4, 7])
def test_without_costs_trials_are_scheduled_as_a_list(workers: int) -> None:
    lives = [life(seconds) for seconds in (1.0, 5.0, 20.0)]
    found = simulate(lives, Costs(), workers=workers, benches=1, seed=3)
    draws, free = random.Random(3), [0.0] * workers
    for _ in range(64 * workers):
        heapq.heappush(free, heapq.heappop(free) + draws.choice(lives).train)
    assert found.makespan == pytest.approx(max(free))


def test_a_bench_bounds_the_trials_that_end_in_a_time() -> None:
    costs = Costs(quick=2.0, full=3.0)
    own = life(10.0, quick=2, full=2)  # 10 s of a bench, 20 s in all
    assert undisturbed(own, costs) == 20.0
    for benches in (1, 4):
        found = simulate([own], costs, workers=64, benches=benches, each=64)
        assert found.trials / found.makespan == pytest.approx(benches / 10.0, rel=0.01)
        assert found.efficiency == pytest.approx(benches * 2 / 64, rel=0.01)
        assert found.limit == "bench"
    assert simulate([own], costs, workers=1, benches=1).efficiency == pytest.approx(1.0)


def test_the_driver_bounds_them_too() -> None:
    costs = Costs(suggest=0.5, decide=0.125, end=0.25)
    found = simulate([life(10.0, rungs=2)], costs, workers=64, benches=1, each=64)
    assert found.trials / found.makespan == pytest.approx(1.0, rel=0.01)  # a second of the driver for each trial
    assert found.limit == "driver"
    alone = simulate([life(10.0, rungs=2)], costs, workers=1, benches=1)
    assert alone.efficiency == pytest.approx(10 / 11)


def test_a_bench_with_random_times_is_the_machine_repairman() -> None:
    """Workers that think and are served for exponential times: M/M/1 with a finite source has a closed form."""
    workers, think, serve = 6, 10.0, 2.0
    draws, served = random.Random(0), random.Random(1)
    lives = [life(draws.expovariate(1 / think), full=1) for _ in range(4000)]
    cluster = Cluster(lives, Costs(full=1.0), workers=workers, benches=1, trials=40_000)
    plain = cluster._bench.serve
    cluster._bench.serve = lambda s, then: plain(s * served.expovariate(1 / serve), then)  # type: ignore[method-assign]
    found = cluster.run()
    terms = [1.0]
    for k in range(workers):
        terms.append(terms[-1] * (workers - k) * serve / think)
    busy = 1 - terms[0] / sum(terms)
    assert found.bench_share == pytest.approx(busy, rel=0.02)


def test_the_fewest_benches_are_found() -> None:
    own, costs = life(8.0, full=1), Costs(full=2.0)  # a fifth of a trial is on a bench
    enough = benches_for([own], costs, workers=50)
    efficiency = [simulate([own], costs, workers=50, benches=count).efficiency for count in (enough - 1, enough, 50)]
    assert efficiency[0] < 0.9 * efficiency[2] <= efficiency[1]
    assert 8 <= enough <= 10


def test_the_life_of_a_trial_is_what_it_did_without_the_bench() -> None:
    """The fakes measure 100 runs of 5 ms and as many of 10 ms: 1.5 s with a ratio of .5."""
    recipe = Recipe(image_size=64)
    leaves = [make_record(recipe), make_record(recipe.model_copy(update={"quantize": Int8Static()}))]
    seconds = {"shape": 1.0, "screen": 4.0, "train": 60.0, "measure": 10.0}
    curve = ((3, 0.2), (9, 0.3), (20, 0.4))
    trained = [leaf.model_copy(update={"seconds": seconds, "curve": curve}) for leaf in leaves]
    assert life_of(trained) == Life(before=4.25, train=60.0, after=7.0, quick=2, full=2, rungs=2)
    screened = [
        leaf.model_copy(update={"seconds": {"shape": 1.0, "screen": 4.0}, "state": "screened"}) for leaf in leaves
    ]
    assert life_of(screened) == Life(before=2.0, train=0.0, after=0.0, quick=2, full=0, rungs=0)
    untrained = [
        leaf.model_copy(update={"seconds": {"shape": 1.0, "screen": 0.0, "train": 0.0, "measure": 2.0}})
        for leaf in leaves
    ]
    assert life_of(untrained) == Life(before=1.0, train=0.0, after=0.0, quick=0, full=2, rungs=0)


def test_recorded_studies_tell_how_their_trials_lived() -> None:
    lives = read_lives([RESULTS / "bccd-front"])
    lines = [json.loads(line) for line in (RESULTS / "bccd-front" / "records.jsonl").read_text().splitlines()]
    steps = {json.dumps(line["seconds"], sort_keys=True) for line in lines if "screen" in line["seconds"]}
    assert len(lives) == len(steps) == 36  # leaves of a trunk have the same steps, to the millisecond
    assert sum(life.train for life in lives) == pytest.approx(sum(json.loads(s).get("train", 0.0) for s in steps))
    with pytest.raises(UserError, match=r"no trial in .* tells how long"):
        read_lives([])


def test_gaps_are_between_the_trials_of_one_worker() -> None:
    asleep, gaps = gaps_of([[(10.0, 11.0), (0.0, 2.0), (2.5, 9.0)], [(1.0, 3.0)]])
    assert asleep == [6.5, 1.0]
    assert gaps == [0.5, 1.0]


def test_a_search_is_compared_with_itself_on_the_fewest_workers() -> None:
    """Twice the epochs in half the time on eight workers: a quarter of what is ideal; one world was not reached."""
    row = _row(8, 1, [(100, 50.0), (80, 40.0), (10, 5.0)], [(200, 25.0), (160, 20.0), None])
    assert (row.epochs, row.speedup, row.efficiency, row.reached, row.seeds) == (2.0, 2.0, 0.25, 2, 3)


def test_the_command_prints_a_table_or_json() -> None:
    call = ["scaling", "--workers", "1,64", "--records", str(RESULTS / "bccd-front")]
    shown = CliRunner().invoke(app, call)
    assert shown.exit_code == 0 and shown.stdout.splitlines()[0] == "virtual:" and len(shown.stdout.splitlines()) == 4
    found = json.loads(CliRunner().invoke(app, [*call, "--quick", "60", "--json"]).stdout)
    rows = found["virtual"]["rows"]
    assert [row["workers"] for row in rows] == [1, 64]
    assert rows[0]["efficiency, 1 bench"] > 0.95 > rows[1]["efficiency, 1 bench"]
    assert rows[1]["limit, 1 bench"] == "bench" and rows[1]["benches for 90 %"] > 1
    wrong = CliRunner().invoke(app, ["scaling", "--workers", "1,none"])
    assert isinstance(wrong.exception, UserError)
