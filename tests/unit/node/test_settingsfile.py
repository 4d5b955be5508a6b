"""Files of settings: JSON or YAML, one rule for what says nothing."""

import pytest

from nodewright_agent import config, settingsfile
from nodewright_agent.runtime.images import providerconfig


def of(tmp_path, data):
    path = tmp_path / "given"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"a": [1]}', {"a": [1]}),
        (b"a: [1]\n", {"a": [1]}),
        (b"", {}),
        (b"# nothing yet\n", {}),
        (b"---\n", {}),
        (b"null", {}),
        (b"{}", {}),
    ],
)
def test_what_is_read(tmp_path, data, found):
    assert settingsfile.read(of(tmp_path, data)) == found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[]", "expected a mapping of settings, found list"),
        (b"false", "found bool"),
        (b"0", "found int"),
        (b'""', "found str"),
        (b"a: [", "while parsing"),
        (b"a: 1\n---\nb: 2\n", "2 documents in one file"),
        (b"\xff\xfe\xfa", "given: "),
        (b"!!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b"day: 2026-02-30", "day is out of range"),
    ],
)
def test_what_is_no_mapping_is_an_error(tmp_path, data, said):
    path = of(tmp_path, data)
    with pytest.raises(settingsfile.SettingsFileError) as caught:
        settingsfile.read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(config.ConfigError, match="given: "):
        config.load(path)


def test_an_empty_file_sets_nothing(tmp_path):
    empty = of(tmp_path, b"# nothing yet\n")
    assert config.load(empty, node_name="n1", node_ip="192.0.2.1") == config.load(node_name="n1", node_ip="192.0.2.1")
    with pytest.raises(providerconfig.ProviderConfigError, match=r"given: .*missing required field `apiVersion`"):
        providerconfig.load(empty, tmp_path)
