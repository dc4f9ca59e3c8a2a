"""The small command ``perry`` inside a workspace, beside a worker that runs."""

import json

from tests.integration.worker.process import WorkerProcess


def test_sessions_are_listed_and_read_by_the_beginning_of_their_ids(worker: WorkerProcess) -> None:
    nothing = worker.perry("worker", "sessions", "list")
    assert nothing.stdout == "" and "No coding agent" in nothing.stderr
    worker.write("aaaa-1")
    worker.write("aaab-2")
    with worker.session_file("aaaa-1").open("a") as file:
        file.write('{"type":"custom-title","customTitle":"As it was renamed","sessionId":"aaaa-1"}\n')
    worker.end()
    worker.start()
    listed = worker.perry("worker", "sessions", "list").stdout.splitlines()
    assert len(listed) == 2 and all(line.startswith("claude") for line in listed)
    assert ["As it was renamed" in line for line in listed] == ["aaaa-1" in line for line in listed]
    asked = json.loads(worker.perry("worker", "sessions", "list", "--json").stdout)
    assert {each["sessionId"] for each in asked} == {"aaaa-1", "aaab-2"}
    assert len(worker.perry("worker", "sessions", "list", "--limit", "1").stdout.splitlines()) == 1

    said = worker.perry("worker", "sessions", "messages", "aaaa")
    assert said.returncode == 0 and said.stdout.startswith("--- user")
    messages = json.loads(worker.perry("worker", "sessions", "messages", "aaaa-1", "--json").stdout)
    assert [each["ordinal"] for each in messages] == list(range(len(messages)))

    for beginning, sentence in (("zzz", "no session 'zzz'"), ("aaa", "2 sessions begin")):
        failed = worker.perry("worker", "sessions", "messages", beginning)
        assert failed.returncode == 1 and sentence in failed.stderr


def test_the_worker_says_how_it_is(worker: WorkerProcess) -> None:
    said = worker.perry("worker", "status")
    assert said.returncode == 0 and said.stdout.startswith("worker ")
    assert json.loads(worker.perry("worker", "status", "--json").stdout)["watching"] is True


def test_what_cannot_be_is_a_sentence(worker: WorkerProcess) -> None:
    worker.end()
    for words in (("worker", "status"), ("worker", "sessions", "list")):
        failed = worker.perry(*words)
        assert failed.returncode == 1 and "does not run at the moment" in failed.stderr
    alone = worker.perry("auth", "whoami")
    assert alone.returncode == 1 and "http://perry" in alone.stderr
    misspelt = worker.perry("worker", "sesions")
    assert misspelt.returncode == 2 and "Traceback" not in misspelt.stderr
    for typed in ("list", "ssh alpha"):
        elsewhere = worker.perry(*typed.split())
        assert elsewhere.returncode == 2 and "your own devices" in elsewhere.stderr
        assert "worker, auth, wake" in elsewhere.stderr and "usage" not in elsewhere.stderr
    assert worker.perry("--version").stdout.startswith("perry worker ")
    assert worker.perry("--help").returncode == 0
