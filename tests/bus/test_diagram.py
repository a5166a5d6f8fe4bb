"""The picture of who sends and hears what."""

import functools
import re
from typing import Any

import pytest

from berrymq_rpc.bus import AsyncQueue, Bus, Follower, Message, Queue, cond
from berrymq_rpc.bus.diagram import DiagramNode

# What is written of Graphviz's language: an identifier, a text in double quotes, an attribute.
NAME = r"[a-z]\d+"
TEXT = r'"(?:[^"\\\n]|\\["\\n])*"'
ATTRIBUTES = rf"(?: \[\w+=(?:{TEXT}|\w+)(?:, \w+=(?:{TEXT}|\w+))*\])?"
LINE = re.compile(rf"  (?:rankdir=LR|{NAME}{ATTRIBUTES}|{NAME} -> {NAME}{ATTRIBUTES});")


def read(text: str) -> tuple[dict[str, str], set[tuple[str, str, str]]]:
    """The kind of each node by its label; and the lines, from label to label, with attributes."""
    first, *lines, last, end = text.split("\n")
    assert (first, last, end) == ("digraph berrymq {", "}", "")
    labels: dict[str, str] = {}
    kinds: dict[str, str] = {}
    arrows: list[tuple[str, str, str]] = []
    for line in lines:
        assert LINE.fullmatch(line), line
        if "->" in line:
            start, end, attributes = re.findall(r"  (\w+) -> (\w+)(.*);", line)[0]
            arrows.append((start, end, attributes.strip(" []")))
        elif "rankdir" not in line:
            name = line.split()[0]
            labels[name] = re.findall(rf"label=({TEXT})", line)[0][1:-1]
            kinds[labels[name]] = re.findall(r"shape=(\w+)", line)[0]
    return kinds, {(labels[start], labels[end], what) for start, end, what in arrows}


def function(message: Message) -> None: ...


class Logger(metaclass=Follower):
    def write(self, message: Message) -> None: ...

    @classmethod
    def count(cls, message: Message) -> None: ...


HERE = __name__


def test_nothing(bus: Bus) -> None:
    assert bus.show_followers() == {}
    assert read(bus.show_network()) == ({}, set())
    with pytest.raises(ValueError, match="'png'"):
        bus.show_network(format="png")


def test_receivers(bus: Bus) -> None:
    loggers = [Logger(), Logger()]
    for logger in loggers:
        bus.regist_method("*:log", logger.write)
    bus.regist_method("*:count", Logger.count)
    bus.regist_function("job:done", function)
    bus.regist_function("job:done", function, lambda message: True)
    bus.regist_function("*:log", function)
    assert bus.show_followers() == {
        "*:count": [f"{HERE}.Logger.count"],
        "*:log": [f"{HERE}.Logger.write"] * 2 + [f"{HERE}.function"],
        "job:done": [f"{HERE}.function"] * 2,
    }
    kinds, arrows = read(bus.show_network())
    assert kinds == {
        "*:log": "plaintext",
        "*:count": "plaintext",
        "job:done": "plaintext",
        rf"{HERE}.Logger\n3 objects": "box3d",
        f"{HERE}.function": "box",
    }
    assert arrows == {
        ("*:log", rf"{HERE}.Logger\n3 objects", 'label="write"'),
        ("*:count", rf"{HERE}.Logger\n3 objects", 'label="count"'),
        ("*:log", f"{HERE}.function", ""),
        ("job:done", f"{HERE}.function", ""),
        ("job:done", f"{HERE}.function", "style=dashed"),
    }
    del logger
    loggers.clear()
    assert list(bus.show_followers()) == ["*:count", "*:log", "job:done"]
    assert rf"{HERE}.Logger" in read(bus.show_network())[0]


def test_queues(bus: Bus) -> None:
    queues: list[Any] = [Queue("job", bus=bus), AsyncQueue("job", bus=bus)]
    queues += [Queue("task", shared=True, bus=bus), AsyncQueue("task", shared=True, bus=bus)]
    assert bus.show_followers() == {"job:*": ["Queue", "Queue"], "task:*": ["2 shared queues"]}
    kinds, arrows = read(bus.show_network())
    assert kinds["Queue"] == kinds["2 shared queues"] == "cylinder"
    assert arrows == {("job:*", "Queue", ""), ("task:*", "2 shared queues", "")}
    for queue in queues:
        queue.close()
    assert bus.show_followers() == {}


def test_senders(bus: Bus) -> None:
    def work() -> None: ...

    name = f"{HERE}.test_senders.<locals>.work"
    wrapped = [
        bus.auto_twitter("job")(work),
        bus.twitter_exception("job@plant:failed")(classmethod(lambda cls: None)),
    ]
    bus.regist_function("*:exit", function)
    bus.regist_function("job:entry", function)
    bus.regist_function("other:x", function)
    kinds, arrows = read(bus.show_network())
    assert kinds[name] == "box"
    assert arrows == {
        (name, "job:entry", ""),
        (name, "job:exit", ""),
        (f"{HERE}.test_senders.<locals>.<lambda>", "job@plant:failed", ""),
        ("job:exit", "*:exit", "style=dashed"),
        ("job:entry", f"{HERE}.function", ""),
        ("*:exit", f"{HERE}.function", ""),
        ("other:x", f"{HERE}.function", ""),
    }
    wrapped.clear()
    assert name not in read(bus.show_network())[0]


def test_connections(bus: Bus) -> None:
    def lines() -> list[DiagramNode]:
        return [
            DiagramNode("connection", "tcp://peer:1", follows=("*@*:*",), sends=("*@*:*",)),
            DiagramNode("connection", "tcp://peer:2", follows=("job:done",)),
        ]

    class Mailbox:
        def put(self, message: Message) -> None: ...

        def bus_diagram_nodes(self) -> list[DiagramNode]:
            return [DiagramNode("queue", "remote queue")]

    mailbox = Mailbox()
    bus.gateway.add_diagram_source(lines)
    bus.regist_method("job", mailbox.put)
    assert bus.show_followers() == {
        "*@*:*": ["tcp://peer:1"],
        "job:*": ["remote queue"],
        "job:done": ["tcp://peer:2"],
    }
    kinds, arrows = read(bus.show_network())
    assert kinds["tcp://peer:1"] == "cds"
    assert kinds["remote queue"] == "cylinder"
    assert arrows == {
        ("*@*:*", "tcp://peer:1", ""),
        ("tcp://peer:1", "*@*:*", ""),
        ("job:done", "tcp://peer:2", ""),
        ("job:*", "remote queue", ""),
        ("*@*:*", "job:done", "style=dashed"),
        ("*@*:*", "job:*", "style=dashed"),
    }
    bus.gateway.remove_diagram_source(lines)
    bus.gateway.remove_diagram_source(lines)
    assert bus.show_followers() == {"job:*": ["remote queue"]}


def test_names_of_any_kind(bus: Bus) -> None:
    class Hostile:
        def __init__(self, text: str) -> None:
            self.text = text

        def __call__(self, message: Message) -> None: ...

        def __getattr__(self, name: str) -> Any:
            if name == "bus_diagram_nodes":
                raise AssertionError
            raise AttributeError(name)

        def __repr__(self) -> str:
            return self.text

    bus.regist_function('a"b\\c:d', Hostile('quote " backslash \\ line\n tab\t bell\a \ud800'))
    bus.regist_function(cond("ä:ü x") & cond("c:d"), functools.partial(print, "<b>"))
    bus.regist_method("x:y", Hostile("owner").__call__)
    kinds, _ = read(bus.show_network())
    assert r"a\"b\\c:d" in kinds
    bus.show_network().encode()
    assert any("<b>" in label for label in kinds)


def test_plain_values(bus: Bus) -> None:
    loggers = [Logger(), Logger()]
    for logger in loggers:
        bus.regist_method("*:log", logger.write)
    bus.regist_function("job:log", function, lambda message: True)
    send = bus.auto_twitter("job:log", entry=True)(lambda: None)
    network = bus.network()
    kinds = {
        node["id"]: (node["kind"], node["label"], node["objects"]) for node in network["nodes"]
    }
    sender = f"{HERE}.test_plain_values.<locals>.<lambda>"
    assert sorted(kinds.values()) == [
        ("class", f"{HERE}.Logger", 2),
        ("function", f"{HERE}.function", 1),
        ("function", sender, 1),
        ("identifier", "*:log", 1),
        ("identifier", "job:entry", 1),
        ("identifier", "job:log", 1),
    ]
    edges = {
        (kinds[edge["from"]][1], kinds[edge["to"]][1], edge["kind"], edge["label"], edge["guarded"])
        for edge in network["edges"]
    }
    assert edges == {
        ("*:log", f"{HERE}.Logger", "follows", "write", False),
        ("job:log", f"{HERE}.function", "follows", "", True),
        (sender, "job:entry", "sends", "", False),
    }
    assert len(bus.network(limit=1)["nodes"]) == 4
    assert bus.network(limit=0)["nodes"][0]["label"] == "job:entry"
    assert send() is None


def test_wildcards_that_are_sent_or_followed_match(bus: Bus) -> None:
    senders = [bus.auto_twitter(sent, entry=True)(lambda: None) for sent in ("*:x", "job:x")]
    bus.regist_function("job:*", function)
    bus.regist_function("job:entry", function)
    names = {node["id"]: node["label"] for node in bus.network()["nodes"]}
    matches = {
        (names[edge["from"]], names[edge["to"]])
        for edge in bus.network()["edges"]
        if edge["kind"] == "matches"
    }
    assert len(senders) == 2
    assert matches == {
        ("*:entry", "job:*"),
        ("*:entry", "job:entry"),
        ("job:entry", "job:*"),
    }
