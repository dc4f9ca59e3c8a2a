"""Which sessions there are: of two files one session, and never more than are allowed."""

from protocol.sessions import SessionStatus
from worker.sessions.agent import Found, Looked
from worker.sessions.index import Index


def found(key: str, id: str = "s", at: float = 0, mark: str = "1", status: str = "idle") -> Found:
    return Found(key, id, mark, SessionStatus(status), at)


def test_only_changes_are_told() -> None:
    index = Index()
    assert [new.key for new in index.take(Looked([found("/a"), found("/b", "t")])).seen] == ["/a", "/b"]
    assert index.take(Looked([found("/a")])).seen == []
    assert index.take(Looked([found("/a", mark="2")])).seen == [found("/a", mark="2")]
    assert index.take(Looked(gone=["/a", "/never"])).gone == ["s"]
    assert index.take(Looked([found("/b", "t")], everything=True)).gone == []
    assert index.take(Looked(everything=True)).gone == ["t"]


def test_of_two_files_the_newer_is_the_session_and_they_take_no_turns() -> None:
    index = Index()
    index.take(Looked([found("/old", at=0)]))
    assert [new.key for new in index.take(Looked([found("/new", at=1000)])).seen] == ["/new"]
    told = [
        index.take(Looked([found(key, at=1000 + at, mark=str(at))])) for at in range(1, 9) for key in ("/old", "/new")
    ]
    assert {changed.key for change in told for changed in change.seen} == {"/new"}
    assert len(index) == 1
    [other] = index.take(Looked(gone=["/new"])).seen
    assert other.key == "/old"
    assert index.take(Looked(gone=["/old"])).gone == ["s"]


def test_a_file_whose_session_is_another_now() -> None:
    index = Index()
    index.take(Looked([found("/a", "s")]))
    changes = index.take(Looked([found("/a", "t")]))
    assert (changes.gone, [new.session_id for new in changes.seen]) == (["s"], ["t"])


def test_what_could_not_be_seen_stays() -> None:
    index = Index()
    index.take(Looked([found("/p/a", "s"), found("/q/b", "t"), found("/r", "u")]))
    assert index.take(Looked(everything=True, unseen=["/p", "/r"])).gone == ["t"]


def test_no_more_than_the_limit() -> None:
    index = Index(limit=2)
    index.take(Looked([found(f"/{n}", str(n)) for n in range(5)], everything=True))
    assert (len(index), index.left_out) == (2, 3)
    index.take(Looked([found("/0", "0"), found("/9", "9")], everything=True))
    assert (len(index), index.left_out, index.key_of("9")) == (2, 0, "/9")


def test_below() -> None:
    index = Index()
    index.take(Looked([found("/p/a/x", "s"), found("/p/ab", "t")]))
    assert index.below({"/p/a"}) == {"/p/a/x"}
    assert index.below({"/p"}) == {"/p/a/x", "/p/ab"}
    assert index.below(set()) == set()
