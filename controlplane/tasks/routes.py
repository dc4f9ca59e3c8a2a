"""The procedures of tasks."""

from controlplane.procedures import Group
from controlplane.tasks.fallback import Fallback
from controlplane.tasks.service import TaskService
from protocol.tasks import (
    Checked,
    CheckTask,
    DispatchTask,
    ListTasks,
    ReadTaskLogs,
    Task,
    TaskLogs,
    TaskRef,
    TaskResult,
    Tasks,
    Waited,
    WaitForTasks,
)

group = Group("tasks", TaskService)
fallback = Group("tasks", Fallback)


@group.procedure("dispatch")
async def dispatch(tasks: TaskService, wanted: DispatchTask) -> Task:
    """Give a coding agent a task, and return at once."""
    return await tasks.dispatch(wanted)


@group.procedure("list")
async def list_(tasks: TaskService, wanted: ListTasks) -> Tasks:
    """Tasks, the newest first."""
    return await tasks.list(wanted)


@group.procedure("get")
async def get(tasks: TaskService, wanted: TaskRef) -> Task:
    """One task."""
    return await tasks.get(wanted.id)


@group.procedure("logs")
async def logs(tasks: TaskService, wanted: ReadTaskLogs) -> TaskLogs:
    """A piece of what the agent has printed."""
    return await tasks.logs(wanted)


@group.procedure("wait")
async def wait(tasks: TaskService, wanted: WaitForTasks) -> Waited:
    """Wait until tasks have ended, or need a person."""
    return await tasks.wait(wanted)


@group.procedure("cancel")
async def cancel(tasks: TaskService, wanted: TaskRef) -> Task:
    """End a task. What has ended stays as it is."""
    return await tasks.cancel(wanted.id)


@fallback.procedure("check")
async def check(fallback: Fallback, wanted: CheckTask) -> Checked:
    """Look now at a task, or at a workspace's latest session, and say what it comes to."""
    return await fallback.check(wanted)


@group.procedure("result")
async def result(tasks: TaskService, wanted: TaskRef) -> TaskResult:
    """What a task has left: the agent's last message, commits, the diff's size."""
    return await tasks.result(wanted.id)
