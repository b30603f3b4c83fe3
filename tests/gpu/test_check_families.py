"""The check of the published sizes runs through; on a GPU with these sizes, everywhere with small ones."""

import json

import pytest
import torch

from . import check_families


@pytest.mark.slow
def test_the_published_sizes_on_a_gpu(tmp_path):
    if reason := check_families.lacking(tiny=False):
        pytest.skip(reason)
    assert check_families.main(["--json", str(tmp_path / "found.json")]) == 0


@pytest.mark.slow
def test_small_ones_anywhere(tmp_path, capsys):
    assert check_families.main(["--tiny", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["rows"]) == len(check_families.CHECKS)
    for row in found["rows"][:4]:
        assert row["photos_per_second"] > 0, row
        assert row["parameters"] > 0
    assert capsys.readouterr().out.count("\n| ") == 1 + len(check_families.CHECKS)


def test_a_network_whose_loss_is_no_number_fails_the_check(monkeypatch, capsys):
    def broken(sizes):
        return check_families.Found("broken", 1)

    def raising(sizes):
        raise RuntimeError("no kernel\nfor this card")

    monkeypatch.setattr(check_families, "CHECKS", (broken, raising))
    assert check_families.main(["--tiny"]) == 1
    assert "| raising | 0 | 0 | 0.0 | 0.0 | nan | RuntimeError: no kernel |" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_reason_is_all_that_is_said(capsys):
    assert check_families.main([]) == 0
    assert capsys.readouterr().out == "not run: there is no GPU here\n"
