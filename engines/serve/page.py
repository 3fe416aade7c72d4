"""The page for people: one file, without anything from elsewhere."""

import base64
import hashlib
import pkgutil
import re

from engines.serve.http import Response

KIND = "text/html; charset=utf-8"
NEEDS_TOKEN = "<html "  # noqa: S105 - where the page says that it needs one


def response(needs_token: bool) -> Response:
    """The page as an answer; the browser runs nothing in it but its own script."""
    text = (pkgutil.get_data("engines.serve", "page.html") or b"").decode("utf-8")
    if needs_token:
        text = text.replace(NEEDS_TOKEN, NEEDS_TOKEN + 'class="token" ', 1)
    policy = [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src blob: data:",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    for name in ("script", "style"):
        found = re.search("<{0}>(.*?)</{0}>".format(name), text, re.DOTALL)
        inside = found.group(1) if found else ""
        digest = base64.b64encode(hashlib.sha256(inside.encode("utf-8")).digest()).decode()
        policy.append("{}-src 'sha256-{}'".format(name, digest))
    headers = {
        "Content-Security-Policy": "; ".join(policy),
        "Permissions-Policy": "camera=(self)",
        "Referrer-Policy": "no-referrer",
    }
    return Response(200, text.encode("utf-8"), KIND, headers)
