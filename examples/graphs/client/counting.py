"""Count the objects in a video, with a live view on a terminal and plain lines on a pipe.

Start a server as docs/graphs.md tells, then: python counting.py [host:port] [frames]
"""

import queue
import sys
import time
from collections.abc import Iterator

import cv2
import numpy as np
import tritonclient.grpc as triton
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

HEIGHT, WIDTH = 120, 240


def video(n_frames: int) -> Iterator[np.ndarray]:
    """Light discs on a dark ground; one comes in from the left every 15 frames and moves on."""
    for time_of_frame in range(n_frames):
        frame = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
        for start in range(0, time_of_frame + 1, 15):
            x, y = 8 + 6 * (time_of_frame - start), 20 + 37 * (start // 15) % (HEIGHT - 40)
            if x < WIDTH - 8:
                cv2.circle(frame, (x, y), 7, 255, -1)
        yield frame


def view(frame: np.ndarray, counts: np.ndarray, rate: float) -> Panel:
    """The frame in letters, and what was counted in it."""
    small = cv2.resize(frame, (WIDTH // 4, HEIGHT // 8), interpolation=cv2.INTER_AREA)
    picture = "\n".join("".join(" .:oO@"[pixel // 43] for pixel in row) for row in small)
    title = f"{counts[0]} objects now, {counts[1]} so far, {rate:.0f} frames/s"
    return Panel(Text(picture), title=title, expand=False)


def ask(client: triton.InferenceServerClient, answers: queue.SimpleQueue, frame: np.ndarray):
    tensor = triton.InferInput("frame", frame.shape, "UINT8")
    tensor.set_data_from_numpy(frame)
    client.async_stream_infer("counting", [tensor])
    result, error = answers.get(timeout=10)
    if error:
        raise error
    return result.as_numpy("counts")


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "localhost:9000"
    n_frames = int(sys.argv[2]) if len(sys.argv) > 2 else 90
    answers: queue.SimpleQueue = queue.SimpleQueue()
    console = Console()
    with triton.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        began = time.monotonic()
        if console.is_terminal:
            with Live(console=console, refresh_per_second=25) as live:
                for number, frame in enumerate(video(n_frames), 1):
                    counts = ask(client, answers, frame)
                    live.update(view(frame, counts, number / (time.monotonic() - began)))
                    time.sleep(0.04)  # as a camera would
        else:
            for number, frame in enumerate(video(n_frames), 1):
                counts = ask(client, answers, frame)
                print(f"frame {number}: {counts[0]} objects now, {counts[1]} so far")
        client.stop_stream()


if __name__ == "__main__":
    main()
