"""How `python -m controlplane` ends where it cannot go on."""

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]


def ended(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane", *arguments],
        cwd=CHECKOUT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_build_that_cannot_be_ends_with_a_sentence() -> None:
    done = ended("build", "--image", "nonsense")
    assert done.returncode == 1
    assert done.stderr.startswith("perry: There is no image 'nonsense'")
    assert len(done.stderr.splitlines()) == 1


def test_a_start_that_cannot_be_ends_with_a_sentence(tmp_path: Path) -> None:
    done = ended("run", PERRY_CONFIG_DIR=str(tmp_path), PERRY_NONSENSE="1")
    assert done.returncode == 1
    assert done.stderr == "perry: The variable PERRY_NONSENSE is no setting of Perry; unset it or mend its name.\n"
