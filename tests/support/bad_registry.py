"""A registry that misbehaves on demand, or asks for credentials."""

import base64

from aiohttp import web

from support.image_makers import MANIFEST


class BadRegistry:
    """Serves one image, with anything overridden: `routes` maps a path to a handler or a response maker."""

    def __init__(self):
        self.routes = {}
        self.requests = []
        self.blobs = {}
        self.manifests = {}
        self.types = {}
        self.host = ""

    def serve(self, made, name="app", tag="1", content_type=MANIFEST):
        data, found = made.freeze()
        self.blobs |= made.blobs
        for target in (tag, found):
            self.manifests[f"/v2/{name}/manifests/{target}"] = data
        self.types[data] = content_type
        return f"{self.host}/{name}:{tag}"

    async def handle(self, request):
        self.requests.append(request)
        if request.path in self.routes:
            return await self.routes[request.path](request)
        if request.path in self.manifests:
            data = self.manifests[request.path]
            return web.Response(body=data, content_type=self.types.get(data, MANIFEST))
        data = self.blobs.get(request.path.rpartition("/")[2])
        return web.Response(body=data) if data is not None else web.Response(status=404)


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def guard(bad, accepted):
    """Every request needs the header; tokens are handed out for user:right."""
    real = bad.handle

    async def token(request):
        bad.requests.append(request)
        if request.headers.get("Authorization") != basic("user", "right"):
            return web.Response(status=401)
        assert request.query["scope"] == "repository:app:pull"
        return web.json_response({"token": "T"})

    async def handle(request):
        if request.path == "/token":
            return await token(request)
        if request.headers.get("Authorization") != accepted:
            bad.requests.append(request)
            header = (
                f'Bearer realm="http://{bad.host}/token",service="s"' if accepted == "Bearer T" else 'Basic realm="r"'
            )
            return web.Response(status=401, headers={"WWW-Authenticate": header})
        return await real(request)

    return handle


async def serve(handler):
    """Serve everything with one handler; the runner, to be cleaned up, and host:port."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
