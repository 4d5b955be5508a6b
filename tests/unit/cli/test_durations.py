import pytest

from nodewright.cli.durations import seconds
from nodewright.cli.output import USAGE, CliError


@pytest.mark.parametrize(
    ("text", "expected"), [("15s", 15), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), (".5s", 0.5), ("2h0m", 7200)]
)
def test_durations(text, expected):
    assert seconds(text, "--x") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "15", "s", "1x", "-1s", "0s", "1s ", "1 s", "1ss"])
def test_what_is_none(text):
    with pytest.raises(CliError, match=r"^--x .* is not a duration") as caught:
        seconds(text, "--x")
    assert caught.value.exit_code == USAGE
