"""A service whose answers need a compiled extension, as WSGI and as ASGI:

    sopin run -- gunicorn --workers 2 service:app
    gunicorn -c python:sopin.gunicorn --workers 2 service:app
    sopin run -- uwsgi --ini uwsgi.ini
    sopin run -- uvicorn --workers 2 --loop uvloop service:asgi_app

In an environment in which `sopin enable` was run, leave `sopin run --` away.
"""

import os

from markupsafe import escape


def answer():
    """Returns the text of every answer: what the extension makes of two signs, and who answers."""
    return f"{escape('<right>')} {os.getpid()}"


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer().encode()]


async def asgi_app(scope, receive, send):
    if scope["type"] == "lifespan":
        # There is nothing to prepare.
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": answer().encode()})
