"""`output.mirror`: a run whose machine is gone resumes elsewhere, from object storage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
from exact import differences
from faulty import events, make_recipe, stop_at

import fasttune
from fasttune.runs.checkpoint.find import all_steps
from fasttune.runs.folder import RunFolder

PLACE = "memory://bucket/runs/reviews"
ROOT = "/bucket/runs/reviews/"


@pytest.fixture
def store() -> Any:
    """fsspec's object store in memory, without rename and append."""
    system = fsspec.filesystem("memory")
    system.store.clear()  # shared by all instances, so by other tests too
    del system.pseudo_dirs[1:]
    yield system
    system.store.clear()
    del system.pseudo_dirs[1:]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirror")


@pytest.fixture(scope="module")
def recipe(place: Path) -> Path:
    return make_recipe(place)


@pytest.fixture(scope="module")
def undisturbed(place: Path, recipe: Path) -> Path:
    """A finished run without a mirror."""
    return fasttune.fit(recipe, output=place / "undisturbed", progress=False).folder


@pytest.fixture(scope="module")
def stopped_once(place: Path, recipe: Path) -> tuple[Path, dict[str, bytes]]:
    """A run that was stopped at step 7, and the content of the store at that time."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    assert not fit(recipe, place / "stopped", observers=[stop_at(7)]).is_complete
    return place / "stopped", {name: system.cat_file(name) for name in system.find("/bucket")}


@pytest.fixture
def run(stopped_once: tuple[Path, dict[str, bytes]], tmp_path: Path, store: Any) -> Path:
    """A copy of the stopped run, with the store restored to that time."""
    folder, contents = stopped_once
    for name, content in contents.items():
        store.pipe_file(name, content)
    return Path(shutil.copytree(folder, tmp_path / "run"))


def stored(store: Any) -> set[str]:
    return {name.removeprefix(ROOT) for name in store.find("/bucket")}


def whole_steps(store: Any) -> set[int]:
    names = (name.split("/") for name in stored(store))
    return {int(name[1].rpartition("-")[2]) for name in names if name[-1] == "manifest.json"}


def files_of(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


def fit(recipe: Path, run: Path, **how: Any) -> fasttune.Run:
    return fasttune.fit(recipe, output=run, progress=False, overrides=[f"output.mirror={PLACE}"], **how)


def starts_of(recipe: Path, run: Path) -> list[int]:
    """The step from which a resume continues."""
    seen: list[int] = []
    fit(recipe, run, resume=True, observers=[lambda event: seen.append(event.step) if event.name == "start" else None])
    return seen


def test_a_run_that_lost_its_machine_ends_as_if_nothing_had_been(
    recipe: Path, run: Path, undisturbed: Path, store: Any
) -> None:
    assert whole_steps(store) == set(all_steps(RunFolder(run).checkpoints))
    shutil.rmtree(run)
    assert fit(recipe, run, resume=True).is_complete
    assert list(differences(run, undisturbed)) == []
    assert stored(store) == files_of(run)


def test_a_finished_run_comes_back_whole(recipe: Path, tmp_path: Path, store: Any) -> None:
    run = fit(recipe, tmp_path / "run")
    shutil.rmtree(run.folder)
    again = fit(recipe, tmp_path / "run", resume=True)
    assert again.reason == "finished before" and again.metrics == run.metrics
    assert fasttune.predict(again.folder, ["good food"])[0]["label"]


def test_a_damaged_copy_is_passed_over(recipe: Path, run: Path, store: Any) -> None:
    newest, older = sorted(whole_steps(store))[-1], sorted(whole_steps(store))[-2]
    name = f"{ROOT}checkpoints/checkpoint-{newest}/model.safetensors"
    content = bytearray(store.cat_file(name))
    content[-1] ^= 1
    store.pipe_file(name, bytes(content))
    shutil.rmtree(run)
    assert starts_of(recipe, run) == [older]


def test_a_copy_without_its_manifest_is_none(recipe: Path, run: Path, store: Any) -> None:
    steps = sorted(whole_steps(store))
    store.rm_file(f"{ROOT}checkpoints/checkpoint-{steps[-1]}/manifest.json")
    shutil.rmtree(run)
    assert starts_of(recipe, run) == [steps[-2]]


def test_copies_of_which_none_is_whole_are_an_error(recipe: Path, run: Path, store: Any) -> None:
    for name in store.find(ROOT):
        if name.endswith("model.safetensors") and "checkpoints" in name:
            store.pipe_file(name, b"cut")
    before = stored(store)
    shutil.rmtree(run)
    with pytest.raises(fasttune.Error, match=r"E514 .*none of its checkpoints is intact"):
        fit(recipe, run, resume=True)
    assert stored(store) == before


def test_the_best_checkpoint_comes_back_with_the_newest(recipe: Path, tmp_path: Path, store: Any) -> None:
    """Otherwise the weights of another run could be published at the end."""
    run, held = tmp_path / "run", list[set[int]]()
    changes = [f"output.mirror={PLACE}", "training.learning_rate=1", "output.save_total_limit=1"]
    how: dict[str, Any] = {"progress": False, "overrides": changes}
    fasttune.fit(recipe, output=run, observers=[stop_at(11)], **how)
    best = min((event for event in events(run) if event["event"] == "evaluation"), key=lambda one: one["eval_loss"])
    assert whole_steps(store) == {best["step"], 11}

    def observer(event: Any) -> None:
        if event.name == "start":
            held.append(set(all_steps(RunFolder(run).checkpoints)))

    shutil.rmtree(run)
    fasttune.fit(recipe, output=run, resume=True, observers=[observer], **how)
    assert held == [{best["step"], 11}]


def test_a_machine_that_comes_back_late_catches_up(
    recipe: Path, run: Path, undisturbed: Path, tmp_path: Path, store: Any
) -> None:
    there = tmp_path / "there"
    shutil.copytree(run, there)
    fit(recipe, there, resume=True, observers=[stop_at(10)])
    assert starts_of(recipe, run) == [10] and whole_steps(store)
    assert list(differences(run, undisturbed)) == []


def test_a_fetch_that_was_cut_begins_again(recipe: Path, run: Path, store: Any) -> None:
    steps = whole_steps(store)
    shutil.rmtree(run)
    for step in steps:  # what a kill leaves: incomplete folders, and no recipe
        place = RunFolder(run).checkpoints / f"checkpoint-{step}"
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"half")
    assert starts_of(recipe, run) == [max(steps)]


def test_what_is_not_a_run_is_left_alone(recipe: Path, tmp_path: Path, store: Any) -> None:
    store.pipe_file(f"{ROOT}checkpoints/checkpoint-5/model.bin", b"another run's")
    with pytest.raises(fasttune.Error, match=r"E514 .*other files"):
        fit(recipe, tmp_path / "run")
    assert stored(store) == {"checkpoints/checkpoint-5/model.bin"}


def test_a_fetch_writes_over_nothing(recipe: Path, run: Path, store: Any) -> None:
    shutil.rmtree(run)
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    with pytest.raises(fasttune.Error):
        fit(recipe, run, resume=True)
    assert {path.name for path in run.iterdir()} == {"notes.txt"}


def test_another_runs_mirror_is_refused(recipe: Path, tmp_path: Path, store: Any) -> None:
    fit(recipe, tmp_path / "run")
    before = stored(store)
    with pytest.raises(fasttune.Error, match=r"E514 output\.mirror=.*another run"):
        fit(recipe, tmp_path / "other")
    assert stored(store) == before
    assert not RunFolder(tmp_path / "other").is_run


def test_a_store_that_is_down_for_a_while_is_a_warning(
    recipe: Path, tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_down = type(store).put_file, [False]

    def put_file(self: Any, local: str, remote: str, **how: Any) -> None:
        if is_down[0]:
            raise TimeoutError("no answer from bucket")
        real(self, local, remote, **how)

    def observer(event: Any) -> None:
        if event.name == "step":
            is_down[0] = 3 <= event.step < 9

    monkeypatch.setattr(type(store), "put_file", put_file)
    run = tmp_path / "run"
    fit(recipe, run, observers=[observer])
    told = {event["failure"] for event in events(run) if event["event"] == "not_mirrored"}
    assert told == {"TimeoutError: no answer from bucket"}
    assert stored(store) == files_of(run)


def test_a_finished_run_that_cannot_be_sent_is_an_error_and_whole_here(
    recipe: Path, tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def observer(event: Any) -> None:
        if event.name == "end":
            monkeypatch.setattr(type(store), "put_file", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))

    with pytest.raises(fasttune.Error, match=r"E514 .*complete in"):
        fit(recipe, tmp_path / "run", observers=[observer])
    assert RunFolder(tmp_path / "run").is_finished
    monkeypatch.undo()
    assert fit(recipe, tmp_path / "run", resume=True).reason == "finished before"
    assert stored(store) == files_of(tmp_path / "run")


def test_the_newest_checkpoint_is_sent_first_and_one_that_is_gone_by_then_is_passed_over(
    recipe: Path, tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an upload takes longer than the time between saves, older checkpoints are pruned before their turn."""
    from fasttune.runs.mirror import Mirror

    run = tmp_path / "run"
    fit(recipe, run, observers=[stop_at(7)])
    steps = all_steps(RunFolder(run).checkpoints)
    assert len(steps) > 1
    for name in store.find("/bucket"):
        if "/checkpoints/" in name:
            store.rm_file(name)
    sent: list[str] = []
    real = type(store).put_file

    def slow(self: Any, local: str, remote: str, **how: Any) -> None:
        real(self, local, remote, **how)
        sent.append(remote)
        shutil.rmtree(RunFolder(run).checkpoints / f"checkpoint-{steps[0]}", ignore_errors=True)

    monkeypatch.setattr(type(store), "put_file", slow)
    assert Mirror(PLACE, RunFolder(run)).send() is None
    assert whole_steps(store) == set(steps[1:])
    order = [int(name.split("checkpoint-")[1].split("/")[0]) for name in sent if "manifest.json" in name]
    assert order == sorted(order, reverse=True)


def test_an_unknown_file_system_is_refused_at_once(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(fasttune.Error, match=r"E514"):
        fasttune.fit(recipe, output=tmp_path / "run", progress=False, overrides=["output.mirror=nowhere://bucket/run"])
