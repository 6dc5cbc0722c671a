"""A camera for smoke.sh: rtsp_server.py FILE.ts prints its address, and plays the transport stream over RTSP to every client.

Implements as much of RTSP (RFC 2326) as a client needs that receives RTP over TCP, which sharpv tries first."""

import socketserver
import struct
import sys
import time

# According to RFC 2250, an RTP packet holds seven packets of 188 bytes. FFmpeg writes the stream with
#     ffmpeg -i demo/clip.mp4 -vf scale=224:224 -c:v libx264 -crf 30 -g 16 -bf 0 -pix_fmt yuv420p stream.ts
MPEG_TS = 33
CHUNK = 7 * 188
SDP = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP {MPEG_TS}\r\na=control:stream\r\n"

ANSWERS = {
    "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
    "DESCRIBE": ("Content-Type: application/sdp\r\n", SDP),
    "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
    "PLAY": ("Session: 1\r\n", ""),
}


class Camera(socketserver.StreamRequestHandler):
    timeout = 60

    def handle(self):
        while method := self.request_line():
            if method not in ANSWERS:
                return
            headers, body = ANSWERS[method]
            head = f"RTSP/1.0 200 OK\r\nCSeq: {self.cseq}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
            self.wfile.write((head + body).encode())
            if method == "PLAY":
                self.play()
                return

    def request_line(self):
        """Reads a request; returns its method, or nothing at the end."""
        method = self.rfile.readline().decode("latin-1").partition(" ")[0]
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            if name.lower() == "cseq":
                self.cseq = value.strip()
        return method

    def play(self):
        with open(sys.argv[1], "rb") as file:
            stream = file.read()
        for number, start in enumerate(range(0, len(stream), CHUNK)):
            rtp = struct.pack(">BBHII", 0x80, MPEG_TS, number, number * 9000, 1) + stream[start : start + CHUNK]
            self.wfile.write(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
            time.sleep(0.05)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("127.0.0.1", 0), Camera) as server:
    print(f"rtsp://127.0.0.1:{server.server_address[1]}/stream", flush=True)
    server.serve_forever()
