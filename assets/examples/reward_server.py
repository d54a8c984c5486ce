"""Serves a reward of your own to flow-grpo: python3 reward_server.py [PORT]. Needs numpy and Pillow."""
import base64, io, json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np
from PIL import Image

NAME = "redness"

def score(image: np.ndarray, prompt: str, metadata) -> float:
    """Your model goes here. `image` is height x width x 3, uint8."""
    red, green, blue = (image[..., channel].mean() for channel in range(3))
    return (red - (green + blue) / 2) / 255

class Handler(BaseHTTPRequestHandler):
    def answer(self, body):
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):  # /health
        self.answer({"status": "ok", "rewards": {NAME: [NAME]}})

    def do_POST(self):  # /score
        results, errors = [], []
        for item in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["requests"]:
            try:
                turn = item["history"][-1]
                image = Image.open(io.BytesIO(base64.b64decode(turn["image_b64"]))).convert("RGB")
                number = float(score(np.asarray(image), turn["text"], item.get("metadata")))
                results.append({NAME: {NAME: number}}), errors.append({})
            except Exception as error:  # The client stops and names this image.
                results.append({}), errors.append({NAME: f"{type(error).__name__}: {error}"})
        self.answer({"results": results, "errors": errors})

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 18087), Handler)
print(f"serving {NAME} at http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
