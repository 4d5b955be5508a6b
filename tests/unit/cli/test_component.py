"""Components read their options without typer, and as typer does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright.cli import application, main
from nodewright.cli.component import Component
from nodewright.cli.verbs import VERBS, Verb

COMPONENTS = [verb for verb in VERBS if verb.attribute == "COMPONENT"]
DRAWERS = ("typer", "rich", "pydantic", "yaml")
VALUES = ("", "x", "/a/b", "a=b", "10", "-3", "1_0", " 1", "٣", "--", "-", "-v", "--verbose", "--config", "ä", "*")


def by_typer(component: Component, arguments: list[str]) -> Any:
    """The options that typer makes of them; None when it refuses, or prints help."""
    import typer

    found = []
    app = typer.Typer(add_completion=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(
        component._replace(run=found.append).command()
    )
    try:
        app(args=arguments, prog_name="x", standalone_mode=True)
    except SystemExit:
        pass
    return found[0] if found else None


def words_of(component: Component) -> st.SearchStrategy[list[str]]:
    names = [name for field in component._declared() for names in field.option.names for name in names.split("/")]
    name = st.sampled_from([*names, "--nosuch", "-vv", "--help", "-h"])
    value = st.sampled_from(VALUES)
    one = st.one_of(
        st.tuples(name), st.tuples(name, value), st.builds(lambda n, v: (f"{n}={v}",), name, value), st.tuples(value)
    )
    return st.lists(one, max_size=4).map(lambda groups: [word for group in groups for word in group])


@pytest.mark.parametrize("verb", COMPONENTS, ids=lambda verb: verb.name)
def test_plain_words_mean_what_they_mean_to_typer(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    component: Component = verb.load()
    assert component.plain([]) == by_typer(component, []) == component.options()

    @settings(max_examples=60, deadline=None)
    @given(words_of(component))
    def agree(words: list[str]) -> None:
        plain = component.plain(words)
        if plain is not None:
            assert plain == by_typer(component, words)

    agree()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("agent", ["--config=/etc/x", "--node-name", "n", "-v"],
         {"config": Path("/etc/x"), "node_name": "n", "verbose": 1}),
        ("agent", ["-v", "--verbose", "--node-ip="], {"verbose": 2, "node_ip": ""}),
        ("operator", ["--no-leader-elect", "--controllers=*,-nodes"],
         {"leader_elect": False, "controllers": "*,-nodes"}),
        ("operator", ["--no-leader-elect", "--leader-elect"], {"leader_elect": True}),
        ("scheduler", ["--plugin", "A=2", "--plugin=B", "--metrics-bind", ""],
         {"plugin": ["A=2", "B"], "metrics_bind": ""}),
        ("scheduler", ["--leader-elect-resource-namespace=a"], {"leader_elect_namespace": "a"}),
        ("proxy", ["--healthz-port", "0", "--routes", "--node-ip=::1"],
         {"healthz_port": 0, "routes": True, "node_ip": ["::1"]}),
    ],
)  # fmt: skip
def test_what_is_plain(name: str, words: list[str], expected: dict[str, Any]) -> None:
    component = next(verb for verb in COMPONENTS if verb.name == name).load()
    assert component.plain(words) == component.options(**expected)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--config"], ["--config", "-v"], ["--config="], ["word"], ["--"], ["-v=1"], ["--nosuch"], ["-vv"]],
)
def test_the_rest_is_left_to_typer(words: list[str]) -> None:
    assert next(verb for verb in COMPONENTS if verb.name == "agent").load().plain(words) is None


def test_numbers_that_are_none_are_left_to_typer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["proxy", "--healthz-port", "many"]) == 2
    assert "--healthz-port" in capsys.readouterr().err


@pytest.mark.parametrize("verb", COMPONENTS, ids=lambda verb: verb.name)
def test_what_draws_is_not_in_the_process_of_a_component(verb: Verb) -> None:
    code = f"""
import json, sys
from nodewright.cli import main, verbs
component = next(verb for verb in verbs.VERBS if verb.name == {verb.name!r}).load()
seen = []
sys.modules[component.run.__module__].COMPONENT = component._replace(run=seen.append)
assert main.main([{verb.name!r}, "-v"]) == 0
print(json.dumps([seen[0].verbose, sorted(name for name in {DRAWERS!r} if name in sys.modules)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1, []]


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    for verb in COMPONENTS:
        with pytest.raises(SystemExit):
            application.build(verb.name)(args=[verb.name, "--help"], prog_name="nodewright")
        said = capsys.readouterr().out
        component: Component = verb.load()
        assert all(name in said for field in component._declared() for name in field.option.names[0].split("/"))
        assert (component.options.__doc__ or "?").splitlines()[0] in said


def test_nor_does_the_agent_bring_it_along() -> None:
    code = f"import sys, nodewright_agent.main; print([name for name in {DRAWERS!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
