"""Static Pods as files have them."""

from nodewright_agent.pods.static.manifest import parse


def text(name="web", image="demo", more=""):
    spec = f"{{containers: [{{name: m, image: {image}}}]}}"
    return f"{{apiVersion: v1, kind: Pod, metadata: {{name: {name}{more}}}, spec: {spec}}}"


def static(name="web", image="demo", more="", file=None):
    return parse(text(name, image, more).encode(), file or f"/m/{name}.yaml", "node", "now")
