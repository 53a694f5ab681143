"""Only those who show the key may use a server."""

import hmac
import json
import os
from typing import Any

VLLM_KEY = "VLLM_API_KEY"  # the variable from which vLLM's server reads its key
WRONG = "the API key is missing or wrong"
REFUSED = {"error": {"message": WRONG, "type": "invalid_request_error", "param": None, "code": 401}}


class KeyRequired:
    """An ASGI application for those alone who show the key; its health is nobody's secret.

    key: None: the value of VLLM_API_KEY. vLLM itself asks for it only where a path begins with /v1
    or the like, and also answers prompts at others, such as /invocations.
    """

    def __init__(self, app: Any, key: str | None = None) -> None:
        self.app = app
        self.wanted = f"Bearer {os.environ[VLLM_KEY] if key is None else key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope["path"] == "/health" or self.is_shown(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            body = json.dumps(REFUSED).encode()
            headers = {"content-type": "application/json", "content-length": str(len(body))}
            headers |= {"www-authenticate": "Bearer"}
            coded = [(name.encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": 401, "headers": coded})
            await send({"type": "http.response.body", "body": body})

    def is_shown(self, scope: Any) -> bool:
        shown = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(shown, self.wanted)  # its time tells nothing of the key
