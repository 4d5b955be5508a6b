"""The end of a cluster: state survives ``down``, and ``down --purge`` leaves the machine as it was."""

from support import host_state


def test_state_survives_down_and_up(cluster):
    uid = cluster.get("service", "hello")["metadata"]["uid"]
    cluster.run("down", "--name", cluster.name)
    cluster.run("down", "--name", cluster.name)
    cluster.run("up", "--name", cluster.name, "--nodes", "2", "--wait", timeout=600)
    assert cluster.get("service", "hello")["metadata"]["uid"] == uid
    cluster.wait_running("client", timeout=120)


def test_purge_leaves_nothing(cluster, before, marks):
    assert host_state.snapshot(marks)["processes"], "the check of processes sees the running ones"
    cluster.run("down", "--name", cluster.name, "--purge")
    assert host_state.difference(before, host_state.snapshot(marks)) == {}
    assert not (cluster.state_dir / "clusters" / cluster.name).exists()
    cluster.run("down", "--name", cluster.name, "--purge")
