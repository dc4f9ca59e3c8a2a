"""Brings what exists and what was asked for together: at start, on Docker's events, and on a timer."""

import logging
import time

import anyio
import msgspec

from controlplane.errors import EngineError, TailnetError
from controlplane.ports import Engine, Tailnet, is_node_of
from controlplane.workspaces import spec
from controlplane.workspaces.host_rules import HostRules
from controlplane.workspaces.jobs import Jobs
from controlplane.workspaces.keys import Keys
from controlplane.workspaces.leftovers import Leftovers
from controlplane.workspaces.nodes import Nodes
from controlplane.workspaces.pods import Pods
from controlplane.workspaces.service import Workspaces
from controlplane.workspaces.sidecars import Sidecars
from controlplane.workspaces.state import Action, Desired, Pod, needed
from controlplane.workspaces.store import Record, Store

log = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
SETTLE_SECONDS = 2.0
"""Docker's events come in bursts, and what they mean shows when they are over. A Docker that is being stopped ends all
containers at once; one that is started again in that moment keeps a task that the next Docker stumbles over."""

LONGEST_SETTLE_SECONDS = 10.0

NODES_SECONDS = 20.0
"""Less than :data:`EVERY_SECONDS`: what Docker tells in between means nothing for the tailnet."""

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 300.0

TELLING = frozenset({"start", "die", "destroy", "oom"})


class Reconciler:
    """One for each control plane. Reports trouble and goes on; nothing that it meets ends it."""

    def __init__(
        self,
        *,
        engine: Engine,
        tailnet: Tailnet,
        store: Store,
        pods: Pods,
        followed: Sidecars,
        jobs: Jobs,
        keys: Keys,
        nodes: Nodes,
        leftovers: Leftovers,
        host_rules: HostRules,
        workspaces: Workspaces,
        instance: str,
    ) -> None:
        self._engine = engine
        self._tailnet = tailnet
        self._store = store
        self._pods = pods
        self._sidecars = followed
        self._jobs = jobs
        self._keys = keys
        self._nodes = nodes
        self._leftovers = leftovers
        self._host_rules = host_rules
        self._rules_wanted = True
        self.looked = anyio.Event()
        """Set after the first look, whatever it found."""
        self._swept = False
        self._began = time.monotonic()
        self._complaints: dict[str, str] = {}
        self._workspaces = workspaces
        self._instance = instance
        self._news = anyio.Event()
        self._retries: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            while True:
                self._news = anyio.Event()
                try:
                    await self.once()
                except Exception:
                    # A bug in mending one thing must not end what serves all the others.
                    log.exception("a look at what there is crashed")
                self.looked.set()
                with anyio.move_on_after(EVERY_SECONDS):
                    await self._news.wait()
                    await self._settled()

    async def _settled(self) -> None:
        """Wait for the end of a burst of news: each look costs, and ten starts at once are one burst."""
        with anyio.move_on_after(LONGEST_SETTLE_SECONDS):
            settling = True
            while settling:
                news = self._news = anyio.Event()
                with anyio.move_on_after(SETTLE_SECONDS):
                    await news.wait()
                settling = news.is_set()

    async def _listen(self) -> None:
        while True:
            try:
                async for event in self._engine.events(spec.instance_labels(self._instance)):
                    if event.action in TELLING:
                        self._news.set()
            except EngineError as exc:
                self._complain("events", f"no events from Docker: {exc.message}")
            # A Docker that comes back may have made its packet rules anew, and what failed without it may succeed now.
            self._rules_wanted = True
            self._retries.clear()
            await anyio.sleep(1)
            self._news.set()

    def _complain(self, about: str, message: str) -> None:
        """Say it once, and not with each look."""
        if self._complaints.get(about) != message:
            self._complaints[about] = message
            log.warning(message)

    async def once(self) -> None:
        """One look at everything."""
        self._began = time.monotonic()
        try:
            await self._prepare_tailnet()
            await self._prepare_machine()
            await self._adopt()
            pods = await self._workspaces.look(tell=True)
            self._forget_retries()
            for record in self._store.all():
                if not self._jobs.busy(record.name):
                    await self._bring_together(record.name, pods.get(record.name, Pod()))
            if self._tailnet.joins:
                await self._clear_tailnet()
        except EngineError as exc:
            self._complain("look", f"looking again later: {exc.message}")
        else:
            self._complaints.pop("events", None)
            self._complaints.pop("look", None)

    async def _clear_tailnet(self) -> None:
        await self._leftovers.clear()
        if self._swept:
            return
        try:
            await self._keys.sweep()
        except TailnetError as exc:
            log.warning("keys that may be left behind are looked for later: %s", exc.message)
        else:
            self._swept = True

    async def _prepare_tailnet(self) -> None:
        try:
            await self._tailnet.ensure()
        except (TailnetError, EngineError) as exc:
            self._complain("tailnet", f"the tailnet is not ready: {exc.message}")
        else:
            self._complaints.pop("tailnet", None)

    async def _prepare_machine(self) -> None:
        if self._rules_wanted and self._tailnet.joins:
            await self._engine.info()
            await self._host_rules.ensure()
            self._rules_wanted = False

    async def _adopt(self) -> None:
        """Take over workspaces that Docker knows and state.db does not: it was lost, or is another folder's."""
        claims = await self._pods.claims()
        known = {record.name for record in self._store.all()}
        if claims.keys() <= known:
            return
        pods = await self._pods.all()
        for name, claim in claims.items():
            if name in known:
                continue
            if claim is None:
                log.warning("removing what is left of a workspace %s that was never whole", name)
                await self._pods.remove_containers(name)
                continue
            runs = pods.get(name, Pod()).any_running
            # A claim is as old as what carries it: to copy or clone again could go over what its owner has done since.
            request = msgspec.structs.replace(claim.request, cloned=True, source=None)
            adopted = self._store.adopt(
                msgspec.structs.replace(claim, request=request), Desired.RUNNING if runs else Desired.STOPPED
            )
            if adopted is None:
                log.warning("workspace %s cannot be taken over: its port or its addresses are another's", name)
            else:
                log.info("took over workspace %s, which Docker knows and state.db did not", name)

    async def _bring_together(self, name: str, listed: Pod) -> None:
        record = self._store.get(name)
        if record is None:
            return
        pod = listed
        if listed.any_running or needed(record.desired, listed, record.startup) is not Action.NOTHING:
            # The list may be older than a start or a stop that has ended since.
            pod = await self._pods.inspect(name)
            record = self._store.get(name)
        if record is None or self._jobs.busy(name):
            return
        action = needed(record.desired, pod, record.startup)
        if action is Action.NOTHING:
            self._retries.pop(record.name, None)
            if record.desired is Desired.RUNNING and pod.tailnet is not None:
                self._sidecars.follow(record.name, pod.tailnet.id, started=str(pod.tailnet.started))
                await self._recover_node(record)
        elif action is Action.STOP:
            self._workspaces.stop_now(record.name)
        elif self._may_try(record.name):
            log.info("%s of workspace %s, to bring it to what was asked for", action, record.name)
            if action is Action.DELETE:
                self._workspaces.delete_now(record.name)
            else:
                self._workspaces.start_now(record)

    def _may_try(self, name: str) -> bool:
        """With longer and longer pauses, so that what cannot be mended does not keep the machine busy."""
        tried, at = self._retries.get(name, (0, 0.0))
        if time.monotonic() < at:
            return False
        pause = min(FIRST_RETRY_SECONDS * 2**tried, LAST_RETRY_SECONDS)
        self._retries[name] = (tried + 1, time.monotonic() + pause)
        return True

    def _forget_retries(self) -> None:
        """Of those that are gone: a new one of that name has failed at nothing yet."""
        noted = {each for record in self._store.all() for each in (record.name, _joining(record.name))}
        for each in self._retries.keys() - noted:
            del self._retries[each]

    async def _recover_node(self, record: Record) -> None:
        """Record a node that joined late, and enrol one that has no key to join with, or was deleted behind our back.

        What runs on from before the tailnet was exchanged for another comes over with its next start.
        """
        if not self._tailnet.joins or record.tailnet != self._store.tailnet:
            return
        status = self._sidecars.status(record.name)
        joined = status is not None and status.state == "running"
        if status is not None and joined and status.node_id and status.node_id != record.node_id:
            self._store.set_node(record.name, status.node_id)
            self._store.set_key(record.name, None)
            self._retries.pop(_joining(record.name), None)
            return
        if status is not None and status.state == "needs-key" and record.node_id is None:
            # No key was to be had at its start, or it expired before the coordinator was back.
            if (await self._tailnet.info()).error is None and self._may_try(_joining(record.name)):
                log.info("workspace %s joins the tailnet, which could not be had at its start", record.name)
                self._workspaces.start_now(record)
            return
        try:
            managed = record.node_id if self._tailnet.manages else None
            gone = managed is not None and await self._is_gone(managed, record.name)
        except TailnetError:
            return
        if gone:
            # A sidecar may say for a while yet that it runs. That it starts is no sign that it joins.
            if self._may_try(_joining(record.name)):
                log.warning("the node of workspace %s is gone from the tailnet; it joins anew", record.name)
                self._workspaces.start_now(record)
        elif joined:
            self._retries.pop(_joining(record.name), None)

    async def _is_gone(self, node_id: str, name: str) -> bool:
        for seconds in (NODES_SECONDS, time.monotonic() - self._began):
            # Who was not there may have come since: all are asked for once more, since ten may have come at once.
            known = {node.id: node for node in await self._nodes.lately(seconds)}
            if is_node_of(known.get(node_id), name):
                return False
        return not is_node_of(await self._tailnet.node(node_id), name)


def _joining(name: str) -> str:
    """Under what it is noted when a workspace may try to join again: that is no matter of its containers."""
    return f"join {name}"
