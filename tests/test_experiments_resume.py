"""The capacity experiments: killed and run again, two at once, and records that hold more.

Each runs at tiny size into a folder of its own.
"""

import json
import sys

import pytest

from experiments import law_of_robustness, mask_information, memorization, noise_correlation

ASIDE = ("command", "commit", "seconds", "processor_seconds", "cpu_seconds")


def aside(value):
    """Return a record without what differs from run to run."""
    if isinstance(value, dict):
        return {k: aside(v) for k, v in value.items() if k not in ASIDE}
    return [aside(v) for v in value] if isinstance(value, list) else value


def read(path):
    return aside(json.loads(path.read_text()))


def call(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


def killed(monkeypatch, module, step, *arguments, after=1):
    """Run an experiment that is killed in a step, once that was done ``after`` times."""
    whole, calls = getattr(module, step), []

    def once(*given, **options):
        calls.append(given)
        if len(calls) > after:
            raise KeyboardInterrupt
        return whole(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, step, once)
        with pytest.raises(KeyboardInterrupt):
            call(patch, module, *arguments)


def counted(monkeypatch, module, step, *arguments):
    """Run an experiment and return how often it took a step."""
    whole, calls = getattr(module, step), []

    def count(*given, **options):
        calls.append(given)
        return whole(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, step, count)
        call(patch, module, *arguments)
    return len(calls)


@pytest.fixture(autouse=True)
def no_git(monkeypatch):
    """Do not ask git for the commit: it reads every file."""
    for module in (memorization, noise_correlation, law_of_robustness, mask_information):
        monkeypatch.setattr(module, "commit", lambda: "none")


@pytest.fixture
def tiny_memorization(monkeypatch):
    monkeypatch.setattr(memorization, "CHUNK", 1)
    monkeypatch.setattr(memorization, "LABEL_DENSITIES", (0.5, 0.2))
    monkeypatch.setattr(memorization, "IMAGE_DENSITIES", (0.5, 0.2))
    return memorization


@pytest.fixture
def tiny_noise(monkeypatch):
    task = {"samples": 16, "dim": 4, "student": [5], "teacher": [3], "fresh": 20, "init": "torch",
            "noise_variance": 1.0}  # fmt: skip
    monkeypatch.setattr(noise_correlation, "CHUNK", 1)
    monkeypatch.setattr(noise_correlation, "TASK", task)
    monkeypatch.setattr(noise_correlation, "RATES", (1e-3,))
    monkeypatch.setattr(noise_correlation, "SIZES", (0.1, 0.3))
    return noise_correlation


@pytest.fixture
def tiny_law(monkeypatch, tmp_path):
    sizes = {"SAMPLES": (5, 6), "DIMENSIONS": (2, 3), "KEPT": (20, 40), "WIDTH": 16, "STEPS": 120,
             "TARGET": 0.7, "RESAMPLES": 5}  # fmt: skip
    for name, value in sizes.items():
        monkeypatch.setattr(law_of_robustness, name, value)
    law_files(monkeypatch, tmp_path)
    return law_of_robustness


def law_files(monkeypatch, folder):
    for name in ("RECORD", "CLAIM"):
        monkeypatch.setattr(law_of_robustness, name, folder / f"{name}.json")


@pytest.fixture
def tiny_masks(monkeypatch):
    sizes = {"WIDTHS": {"mse": 2}, "SEEDS": 2, "LONG_STEPS": 2, "RECORD": None}
    for name, value in sizes.items():
        monkeypatch.setattr(mask_information, name, value)
    return mask_information


LABELS = ("random-labels", "--seeds", 2, "--methods", "random", "snip", "--steps", 3, "--width", 6)
IMAGES = ("noisy-images", "--seeds", 2, "--methods", "random", "--images", 12, "--epochs", 2)
MASKS = ("--only", "apart")
PRUNING = "pruning, 2 epochs"


@pytest.mark.parametrize(("arguments", "cells"), [(LABELS, 4), (IMAGES, 2)])
def test_memorization_resumes(arguments, cells, tiny_memorization, monkeypatch, tmp_path):
    whole, resumed = tmp_path / "whole.json", tmp_path / "resumed.json"
    call(monkeypatch, tiny_memorization, *arguments, "--record", whole)
    killed(monkeypatch, tiny_memorization, "measure", *arguments, "--record", resumed)
    assert read(resumed) != read(whole)
    again = (tiny_memorization, "measure", *arguments, "--record", resumed)
    assert counted(monkeypatch, *again) == cells - 1
    assert read(resumed) == read(whole)
    assert counted(monkeypatch, *again) == 0


def test_noise_correlation_resumes(tiny_noise, monkeypatch, tmp_path):
    arguments = ("--seeds", 2, "--epochs", 2, "--every", 1, "--parts", "pruning", "noise relative")
    whole, resumed = tmp_path / "whole.json", tmp_path / "resumed.json"
    call(monkeypatch, tiny_noise, *arguments, "--record", whole)
    killed(monkeypatch, tiny_noise, "track_noise", *arguments, "--record", resumed, after=3)
    assert len(read(resumed)["parts"][PRUNING]["curves"]) == 2
    assert "noise relative" not in read(resumed)["parts"]  # killed between its two sizes
    again = (tiny_noise, "measure", *arguments, "--record", resumed)
    assert counted(monkeypatch, *again) == 2
    assert read(resumed) == read(whole)
    assert counted(monkeypatch, *again) == 0


def test_law_of_robustness_resumes(tiny_law, monkeypatch, tmp_path):
    files = []
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
        files.append([tmp_path / name / f"{file}.json" for file in ("RECORD", "CLAIM")])
    law_files(monkeypatch, tmp_path / "whole")
    call(monkeypatch, tiny_law, "--seeds", 2)
    law_files(monkeypatch, tmp_path / "resumed")
    killed(monkeypatch, tiny_law, "cell", "--seeds", 2)
    begun = read(files[1][0])
    assert begun["cells_not_started"] == [[5, 3], [6, 2], [6, 3]]
    assert {(r["n"], r["d"]) for r in begun["runs"]} == {(5, 2)}
    assert not files[1][1].exists()
    assert counted(monkeypatch, tiny_law, "cell", "--seeds", 2) == 3
    for whole, resumed in zip(*files, strict=True):
        assert read(resumed) == read(whole)
    assert read(files[1][0])["fits"]["random, lipschitz_low"]["runs"] > 4
    before = [file.read_bytes() for file in files[1]]
    assert counted(monkeypatch, tiny_law, "cell", "--seeds", 2) == 0
    assert [file.read_bytes() for file in files[1]] == before


def test_mask_information_resumes(tiny_masks, monkeypatch, tmp_path):
    whole, resumed = ([*MASKS, "--cache", tmp_path / name, "--record", tmp_path / f"{name}.json"]
                      for name in ("whole", "resumed"))  # fmt: skip
    call(monkeypatch, tiny_masks, *whole)
    killed(monkeypatch, tiny_masks, "toy_masks", *resumed)
    assert [row["method"] for row in read(resumed[-1])["curves"]] == ["imp"]
    assert counted(monkeypatch, tiny_masks, "toy_masks", *resumed) == 1
    assert read(resumed[-1]) == read(whole[-1])
    assert [row["seed"] for row in read(whole[-1])["curves"]] == [[0, 1]] * 2
    assert counted(monkeypatch, tiny_masks, "toy_masks", *resumed) == 0


@pytest.mark.parametrize("experiment", ["memorization", "noise"])
def test_two_runs_at_once_keep_each_other_s_cells(experiment, request, monkeypatch, tmp_path):
    """The second one measures its cell while the first one measures its own."""
    module = request.getfixturevalue(f"tiny_{experiment}")
    record = tmp_path / "record.json"
    if experiment == "memorization":
        one, other = ((*LABELS[:4], method, *LABELS[6:]) for method in ("random", "snip"))
    else:
        one, other = (
            ("--epochs", 2, "--parts", "pruning", "--first-seed", first, "--seeds", first + 1)
            for first in (0, 1)
        )
    whole = module.measure

    def measure(*given):
        with monkeypatch.context() as patch:
            patch.setattr(module, "measure", whole)
            call(patch, module, *other, "--record", record)
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "measure", measure)
        call(patch, module, *one, "--record", record)
    found = read(record)
    if experiment == "memorization":
        (cells,) = (each["cells"] for each in found["experiments"].values())
        assert {method: sorted(cell) for method, cell in cells.items()} == {
            "random": ["0", "1"],
            "snip": ["0", "1"],
        }
    else:
        assert sorted(found["parts"][PRUNING]["curves"]) == ["0", "1"]
        assert len(found["parts"][PRUNING]["last_loss"]) == 2


def test_other_settings_are_refused(tiny_memorization, tiny_noise, tiny_law, monkeypatch, tmp_path):
    record = tmp_path / "record.json"
    call(monkeypatch, tiny_memorization, *IMAGES, "--record", record)
    with pytest.raises(SystemExit, match="recorded with other settings"):
        call(monkeypatch, tiny_memorization, *IMAGES, "--noise-variance", 1, "--record", record)
    record = tmp_path / "noise.json"
    call(monkeypatch, tiny_noise, "--parts", "rates", "--seeds", 1, "--record", record)
    with pytest.raises(SystemExit, match="recorded with other settings"):
        call(monkeypatch, tiny_noise, "--parts", "rates", "--every", 9, "--record", record)
    call(monkeypatch, tiny_law, "--seeds", 1)
    with pytest.raises(SystemExit, match="has other settings or seeds"):
        call(monkeypatch, tiny_law, "--seeds", 2)


def test_law_of_robustness_keeps_what_is_more_complete(tiny_law, monkeypatch, tmp_path):
    call(monkeypatch, tiny_law, "--seeds", 2)
    before = [file.read_bytes() for file in (tiny_law.RECORD, tiny_law.CLAIM)]
    assert counted(monkeypatch, tiny_law, "cell", "--seeds", 2, "--minutes", -1) == 0
    assert [file.read_bytes() for file in (tiny_law.RECORD, tiny_law.CLAIM)] == before
    tiny_law.RECORD.unlink()
    with pytest.raises(SystemExit, match=r"CLAIM\.json holds runs that this one would not repeat"):
        call(monkeypatch, tiny_law, "--seeds", 1)
    call(monkeypatch, tiny_law, "--seeds", 2, "--minutes", -1)  # ends before the first cell
    assert tiny_law.CLAIM.read_bytes() == before[1]


def test_mask_information_does_not_replace_a_record_that_holds_more(
    tiny_masks, monkeypatch, tmp_path
):
    record = tmp_path / "record.json"
    arguments = (*MASKS, "--record", record, "--cache")
    call(monkeypatch, tiny_masks, *arguments, tmp_path / "cache")
    before = record.read_bytes()
    with pytest.raises(SystemExit, match=r"record\.json holds 4 runs that the cache .*new lacks"):
        call(monkeypatch, tiny_masks, *arguments, tmp_path / "new")
    assert record.read_bytes() == before
    record.write_text(json.dumps(json.loads(before) | {"joint": [], "plug_in": []}))
    with pytest.raises(SystemExit, match="holds joint, sampled that the cache"):
        call(monkeypatch, tiny_masks, *arguments, tmp_path / "cache")
