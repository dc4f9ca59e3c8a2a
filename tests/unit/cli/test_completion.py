"""Names of workspaces complete, as the shell asks for them."""

import os
import subprocess
import sys

from tests.unit.cli.agent import FakeAgent, workspace
from tests.unit.cli.conftest import Perry


def completed(words: str) -> str:
    environment = os.environ | {"_PERRY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
    code = "from cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_names_complete(agent: FakeAgent) -> None:
    agent.workspaces = {name: workspace(name) for name in ("alpha", "arthur", "beta")}
    assert completed("perry info a") == "plain,alpha\nplain,arthur"


def test_no_agent_completes_nothing(agent: FakeAgent) -> None:
    agent.token = "other"
    assert completed("perry info a") == ""


def test_zsh_has_what_its_script_needs_also_where_the_profile_says_nothing(perry_: Perry) -> None:
    lines = perry_("completion", "zsh").stdout.splitlines()
    assert lines[0] == "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }"
    assert any("compdef" in line for line in lines[1:])
