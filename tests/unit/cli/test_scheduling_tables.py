"""What `explain` and `simulate` print for people: readable in 120 columns, for three nodes and for a thousand."""

import json
from pathlib import Path

import pytest

from nodewright.cli.explaintables import print_explanation
from nodewright.cli.main import main
from nodewright.scheduler.explain import Cluster
from nodewright.scheduler.profile import Profile
from support.scheduler_builders import make_node, make_pod


def lines_of(capsys):
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def picture(count):
    nodes = [make_node(f"node-{n:04}", "4" if n % 2 else "2", labels={"pool": "ab"[n % 2]}) for n in range(count)]
    return Cluster(nodes, [make_pod("old", {"cpu": "3"}, node="node-0001")], {"nodewright": Profile()})


def test_a_pod_that_fits_somewhere(capsys):
    print_explanation(picture(3).explain(Profile(), make_pod("web", {"cpu": "2"}, nodeSelector={"pool": "a"})), 10)
    lines = lines_of(capsys)
    assert lines[0] == "Pod default/web: pending (schedulerName nodewright)"
    assert lines[2].split() == ["FITS", "ON", "TOTAL", "TAINTS", "ROOM", "BALANCE"]
    assert lines[3].startswith("node-0000 *")
    assert "100×3" in lines[3]
    assert lines[6].split()[:4] == ["DOES", "NOT", "FIT", "ON"]
    assert "nodeSelector pool=a: the node has pool=b" in lines[7]
    assert "cpu: needs 2000m, 1000m free of 4000m: 1000m short" in lines[8]


@pytest.mark.parametrize("limit", [10, None])
@pytest.mark.parametrize("cpu", ["1", "9"])
def test_a_thousand_nodes(capsys, cpu, limit):
    pod = make_pod("web", {"cpu": cpu}, nodeSelector={"pool": "a"}, priority=7)
    print_explanation(picture(1000).explain(Profile(), pod, detailed=limit), limit)
    lines = [line for line in lines_of(capsys) if not line.startswith("0/1000 nodes")]
    assert max(map(len, lines)) <= 120
    assert len(lines) < 60 if limit else len(lines) > 1000
    if limit:
        assert any(line.startswith("and ") and "more nodes" in line for line in lines)


def test_victims_are_listed_node_by_node(capsys):
    nodes = [make_node(f"n{n}") for n in range(3)]
    pods = [make_pod(f"old-{n}-{m}", {"cpu": "500m"}, node=f"n{n}", priority=n) for n in range(3) for m in range(8)]
    found = Cluster(nodes, pods, {"nodewright": Profile()}).explain(
        Profile(), make_pod("vip", {"cpu": "4"}, priority=9)
    )
    print_explanation(found, 10)
    lines = lines_of(capsys)
    assert "Preemption would evict on n0, of 3 where that helps:" in lines
    assert any(line.startswith("n0 *") and "default/old-0-0 (0)" in line for line in lines)
    assert any(line.endswith("and 3 more") for line in lines)


# --- simulate --------------------------------------------------------------------------------------------------------


def node(name, cpu="4"):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}}  # fmt: skip


def deployment(name, replicas, cpu):
    containers = [{"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}]
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def write(path: Path, *objects) -> str:
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return str(path)


@pytest.fixture
def dump(tmp_path):
    return write(tmp_path / "dump.json", node("n1"), node("n2", "2"))


def test_all_fit(dump, tmp_path, capsys):
    files = write(tmp_path / "web.json", deployment("web", 3, "1"))
    assert main(["simulate", "--dump", dump, "-f", files]) == 0
    lines = lines_of(capsys)
    assert lines[0] == "3 of 3 pods placed, 0 pending"
    assert lines[3].split()[:4] == ["Deployment", "default/web", "3", "3"]
    assert any(line.split()[:1] == ["n1"] and "→" in line for line in lines)


def test_some_stay_pending(dump, tmp_path, capsys):
    files = write(tmp_path / "web.json", deployment("web", 30, "1"), deployment("big", 2, "5"))
    assert main(["simulate", "--dump", dump, "-f", files]) == 3
    lines = lines_of(capsys)
    assert lines[0] == "6 of 32 pods placed, 26 pending"
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("default/web-simulated-6 and 23 more") for line in lines)


def test_everything_and_json(dump, tmp_path, capsys):
    files = write(tmp_path / "web.json", deployment("web", 30, "100m"))
    assert main(["simulate", "--dump", dump, "-f", files, "--all"]) == 0
    assert sum("web-simulated-" in line for line in lines_of(capsys)) == 30
    assert main(["simulate", "--dump", dump, "-f", files, "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["placed"], len(answer["pods"]), len(answer["nodes"])) == (30, 30, 2)


def test_many_nodes_are_capped(tmp_path, capsys):
    dump = write(tmp_path / "dump.json", *(node(f"n{n}") for n in range(1000)))
    files = write(tmp_path / "web.json", deployment("web", 50, "1"))
    assert main(["simulate", "--dump", dump, "-f", files]) == 0
    lines = lines_of(capsys)
    assert len(lines) < 40
    assert lines[-1].startswith("and 980 more nodes, 950 of them as before")


def test_copies_of_a_node_and_a_dump_that_is_written_again(dump, tmp_path, capsys):
    files = write(tmp_path / "web.json", deployment("web", 4, "2"))
    again = tmp_path / "again.yaml"
    more = ["--nodes", "1", "--node-template", "n2"]
    assert main(["simulate", "--dump", dump, "-f", files, "--save-dump", str(again), *more]) == 0
    assert "n2-simulated-1 (new)" in capsys.readouterr().out
    assert main(["simulate", "--dump", str(again), "-f", files]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do"),
        (["-f", "{tmp}/none.yaml"], "none.yaml: no such file"),
        (["-f", "{tmp}/bad.yaml"], "bad.yaml: not YAML: while parsing"),
        (["-f", "{tmp}/field.yaml"], "field.yaml, document 1 (Pod p): spec.containers: Required value"),
        (["--dump", "{tmp}/bad.yaml", "-f", "{dump}"], "bad.yaml: not YAML"),
        (["-f", "{dump}", "--nodes", "3"], "--nodes and --node-template go together"),
        (["-f", "{dump}", "--nodes", "3", "--node-template", "m"], "there is no node m (there are: n1, n2)"),
    ],
)
def test_mistakes_are_one_line_and_code_2(dump, tmp_path, capsys, arguments, message):
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "field.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {}\n")
    given = [argument.format(tmp=tmp_path, dump=dump) for argument in arguments]
    assert main(["simulate", *([] if "--dump" in given else ["--dump", dump]), *given]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_of_manifests_and_a_dump_alone(dump, tmp_path, capsys):
    folder = tmp_path / "manifests"
    folder.mkdir()
    write(folder / "a.json", deployment("a", 1, "1"))
    write(folder / "b.json", deployment("b", 1, "1"))
    (folder / "README.md").write_text("no manifest")
    assert main(["simulate", "--dump", dump, "-f", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("2 of 2 pods placed")
    assert main(["simulate", "--dump", dump, "--save-dump", str(tmp_path / "copy.json")]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "copy.json").read_text())["items"][0]["metadata"]["name"] == "n1"
