"""What is mounted into containers: directories of the host, images, devices, and a user namespace around it all."""

import os
import stat

import pytest

from support.cri_server import IMAGE, CriServer

pytestmark = pytest.mark.needs_root


def test_directories_of_the_host(cri, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/file").write_text("from the host\n")
    (tmp_path / "link").symlink_to("here")
    mounts = [
        {"container_path": "/ro", "host_path": str(tmp_path / "link"), "readonly": True},
        {"container_path": "/rw", "host_path": str(tmp_path / "made")},
    ]
    _, cid = cri.started(cri.pod(), cri.container("main", "sleep", "1000", mounts=mounts))
    assert cri.crictl("exec", "-s", cid, "cat", "/ro/file") == "from the host"
    cri.crictl("exec", "-s", cid, "sh", "-c", "echo back > /rw/file; ! touch /ro/x")
    assert (tmp_path / "made/file").read_text() == "back\n"
    assert not (tmp_path / "here/x").exists()


def test_an_image_as_a_volume(cri):
    mounts = [
        {"container_path": "/all", "image": {"image": IMAGE}, "readonly": True},
        {"container_path": "/part", "image": {"image": IMAGE}, "image_sub_path": "www/cgi-bin"},
    ]
    sandbox, cid = cri.started(cri.pod(), cri.container("main", "sleep", "1000", mounts=mounts))
    assert cri.crictl("exec", "-s", cid, "ls", "/part").split() == ["index.cgi", "who"]
    assert "nobody" in cri.crictl("exec", "-s", cid, "cat", "/all/etc/passwd")
    cri.crictl("exec", "-s", cid, "sh", "-c", "! touch /all/x /part/x")
    assert cri.crictl("exec", "-s", cid, "/all/bin/busybox", "echo", "ran") == "ran"
    shown = cri.json("inspect", cid)["status"]["mounts"]
    assert shown[0]["image"]["imageRef"].startswith("sha256:")
    for path, text in (("none", "does not exist in the image"), ("../../etc", "leads out of the image")):
        wrong = {"container_path": "/x", "image": {"image": IMAGE}, "image_sub_path": path}
        config = cri.container("other", "true", mounts=[wrong])
        with pytest.raises(AssertionError, match=text):
            cri.crictl("create", sandbox, cri.file(config), cri.file(cri.pod()))


def test_a_device(cri, tmp_path):
    # One for local use, which no driver has: what may be opened is then not there, what may not is refused before.
    os.mknod(tmp_path / "node", stat.S_IFCHR | 0o666, os.makedev(240, 5))
    devices = [{"host_path": str(tmp_path / "node"), "container_path": "/dev/mine", "permissions": "r"}]
    _, cid = cri.started(cri.pod(), cri.container("main", "sleep", "1000", devices=devices))
    with pytest.raises(AssertionError, match="No such device"):
        cri.crictl("exec", "-s", cid, "sh", "-c", ": < /dev/mine")
    with pytest.raises(AssertionError, match="Operation not permitted"):
        cri.crictl("exec", "-s", cid, "sh", "-c", ": > /dev/mine")


def test_a_user_namespace(cri: CriServer):
    if not cri.json("info")["runtimeHandlers"][0]["features"].get("user_namespaces"):
        pytest.skip("this kernel has no idmapped mounts")
    ids = [{"host_id": 131072, "container_id": 0, "length": 65536}]
    options = {"pid": 1, "userns_options": {"mode": 0, "uids": ids, "gids": ids}}
    linux = {"security_context": {"namespace_options": options}}
    _, cid = cri.started(cri.pod(linux=linux), cri.container("main", "sleep", "1000", linux=linux))
    mapped = cri.crictl("exec", "-s", cid, "cat", "/proc/self/uid_map").split()
    assert mapped == ["0", "131072", "65536"]
    assert cri.crictl("exec", "-s", cid, "id", "-u") == "0"
