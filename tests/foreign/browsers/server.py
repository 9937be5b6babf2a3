"""Serves this directory to a browser, on a port that is written to a file, and writes
the page's report to another file."""

import http.server
import os
import sys

RESULT, PORT = sys.argv[1:3]


def write(path: str, text: bytes) -> None:
    """Writes a file so that it exists either complete or not at all."""
    with open(path + ".new", "wb") as file:
        file.write(text)
    os.rename(path + ".new", path)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answers requests without logging them."""

    def do_POST(self) -> None:
        write(RESULT, self.rfile.read(int(self.headers["content-length"])) + b"\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
write(PORT, str(server.server_address[1]).encode())
server.serve_forever()
