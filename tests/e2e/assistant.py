"""A person's assistant on a device of the tailnet: a real gateway that nothing but the tailnet reaches."""

import json
import re
from collections import Counter
from pathlib import Path

from protocol.wake import WAKE_PORT
from tests.e2e.stand_ins import bridge
from tests.e2e.system import Device, System, docker, eventually
from tests.fakes.model_server.server import ModelServer
from tests.gateways.running import OPENCLAW, command, environment, installed, settings

TOKEN = "tailnet-hooks-token-0123456789"
NAME = "assistant"


class Assistant:
    """``model`` is what it thinks with. It listens on its device's tailnet address alone."""

    url = f"http://{NAME}:{WAKE_PORT}"

    def __init__(self, system: System, folder: Path, model: ModelServer) -> None:
        self.folder = folder
        self.model = model
        self.device: Device = system.device(NAME)

    def join(self) -> None:
        """Take its place on the tailnet, with the program that the tests of gateways brought."""
        self.folder.mkdir()
        modules = installed(OPENCLAW)
        self.device.join_as_owner([f"{self.folder}:{self.folder}", f"{modules}:{modules}:ro"])

    def begin(self) -> None:
        """Start the program. :meth:`listens` tells when it is there."""
        model = f"http://{bridge()}:{self.model.port}/v1"
        given = settings(model, self.folder, port=WAKE_PORT, token=TOKEN, bind="tailnet")
        (self.folder / "config.json").write_text(json.dumps(given))
        variables = [f"--env={name}={value}" for name, value in environment(OPENCLAW, self.folder).items()]
        line = 'exec "$@" >log 2>&1'
        where = ("-w", str(self.folder), self.device.container)
        docker("exec", "-d", *variables, *where, "sh", "-c", line, "sh", *command(OPENCLAW))

    def listens(self) -> None:
        """Wait until its door answers on the tailnet's address; AssertionError with its words where it does not."""
        door = f"http://$(tailscale ip -4):{WAKE_PORT}/hooks/wake"
        ask = f"curl -s -o /dev/null -w %{{http_code}} -d {{}} -H 'Authorization: Bearer {TOKEN}' {door}"
        try:
            eventually(lambda: self.device.run("sh", "-c", ask, check=False)[1] == "400", "the gateway", seconds=40)
        except AssertionError as exc:
            raise AssertionError((self.folder / "log").read_text(errors="replace")) from exc

    def told(self, wake: str) -> list[str]:
        """What its model was told with the wake of this id: once for each time."""
        return [text for text in self._texts() for _ in range(text.count(f"[Perry {wake},"))]

    def record(self) -> Counter[str]:
        """How often its model was told each wake. What it keeps itself says that it was woken, and not with what."""
        return Counter(id_ for text in self._texts() for id_ in re.findall(r"\[Perry ([\w.-]+)[,\]]", text))

    def _texts(self) -> list[str]:
        """What its model was told by others. A text comes again with later ones, and is another with another time."""
        messages = (message for asked in self.model.requests() for message in asked["body"]["messages"])
        return list(dict.fromkeys(json.dumps(each["content"]) for each in messages if each["role"] == "user"))
