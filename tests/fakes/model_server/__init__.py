"""A model server that does what it is told: real coding agents work against it, without a network and without money.

It speaks OpenAI's chat completions and responses, Anthropic's messages and Gemini's generateContent, streamed and not.
What it answers stands in the prompt (:mod:`script`): ``List the files [[run: ls -la]] [[say: There are three.]]`` has
the agent really run ``ls -la`` with its own tool, and say that sentence when the tool's result is there. It remembers
what it was asked.

It knows the standard library only, so that it also runs inside a workspace, beside the agent (:mod:`inside`).

* in a test: ``with ModelServer() as model: … model.url … model.requests()``
* by hand: ``python -m tests.fakes.model_server --port 8085``; ``GET /requests`` is what it was asked
* how each agent is pointed at it: :mod:`agents`; for a person, ``python -m tests.fakes.model_server.agents codex PORT``
* a real transcript to test a reader with: start it, run an agent by the line that the above prints with an empty HOME,
  and keep what the agent wrote below that HOME
"""

from .server import ModelServer

__all__ = ["ModelServer"]
