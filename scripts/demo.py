"""`make demo`: the whole story on real parts, with its own Redis; exit 0 only if every answer was as expected."""

import redis

import stack

BURST, MAX_PENDING = 3, 5
SETTINGS = {
    "RATE_LIMIT_RUN_BURST": str(BURST),
    "RATE_LIMIT_RUN_PER_MINUTE": "30",
    "QUEUE_MAX_PENDING": str(MAX_PENDING),
    "QUEUE_SAMPLE_INTERVAL": "200ms",
    "PROMETHEUS_QUEUE_POLL_INTERVAL": "200ms",
    "SHUTDOWN_DRAIN": "0s",
}
LIMITED = '{"detail":"Too Many Requests"}'


class Demo:
    def __init__(self, s: stack.Stack):
        self.s = s
        self.wrong = 0

    def __call__(self) -> None:
        self.start()
        self.limit()
        self.shed()
        self.recover()
        self.count()
        if self.wrong:
            raise stack.Failed(f"{self.wrong} answers were not as expected")
        print("\nEvery answer was as expected.")

    def start(self) -> None:
        print("Starting Redis, the example API, a SAQ worker, the gate and Envoy …", flush=True)
        sock = self.s.dir / "redis.sock"
        base = stack.clean_env()
        self.s.start("redis", ["redis-server", "--port", "0", "--unixsocket", sock, "--save", "", "--dir", self.s.dir], base)
        self.redis = redis.Redis(unix_socket_path=str(sock))
        self.s.wait("redis to answer", self.redis_answers)
        self.env = {**base, "QUEUE_URL": f"unix://{sock}"}
        api = self.s.api(self.env)
        self.start_worker()
        grpc, self.telemetry = self.s.gate({**self.env, **SETTINGS})
        self.envoy = self.s.envoy(stack.envoy_config(self.s.dir / "envoy.yaml", api, grpc), base)

    def limit(self) -> None:
        self.tell(f"One caller may start {BURST} jobs at once (RATE_LIMIT_RUN_BURST={BURST}).")
        for _ in range(BURST):
            self.post("/run", "203.0.113.1", 202)
        headers = self.post("/run", "203.0.113.1", 429, LIMITED)
        wait = self.retry_after(headers)
        self.tell("Others are not concerned, nor are other routes.")
        self.post("/run", "203.0.113.2", 202)
        self.ask("GET", "/ping", "203.0.113.1", 200)
        self.tell(f"The caller waits the {wait} s it was told to.")
        self.s.sleep(wait)
        self.post("/run", "203.0.113.1", 202)

    def shed(self) -> None:
        self.wait_queue(0)
        self.s.stop(self.worker)
        self.wait_queue(0)
        self.tell(f"The worker is stopped, so jobs pile up to QUEUE_MAX_PENDING={MAX_PENDING}.")
        for n in range(MAX_PENDING):
            self.post("/run", f"203.0.113.{10 + n}", 202)
        self.wait_queue(MAX_PENDING)
        self.tell("The queue is full: both routes that start jobs are closed, whoever asks. /ping is not.")
        for path in ("/run", "/assistant"):
            self.retry_after(self.post(path, "203.0.113.20", 503))
        self.ask("GET", "/ping", "203.0.113.20", 200)

    def recover(self) -> None:
        self.tell("The worker is back and drains the queue.")
        self.start_worker()
        self.wait_queue(0)
        self.post("/run", "203.0.113.20", 202)
        self.post("/assistant", "203.0.113.20", 200)

    def count(self) -> None:
        self.tell("What the gate counted:")
        _, _, text = stack.request(self.telemetry, "GET", "/metrics")
        for line in text.splitlines():
            if line.startswith("refrakt_gate_decisions_total{") and not line.endswith(" 0"):
                print("  " + line)

    def start_worker(self) -> None:
        # A worker that starts sweeps, and may abort a job that was just taken; SAQ's own lock holds it off.
        self.redis.set("saq:default:sweep", 1, ex=600)
        self.worker = self.s.worker(self.env)

    def wait_queue(self, pending: int) -> None:
        """Waits until so many jobs wait and none runs, and the gate has seen it."""

        def seen() -> bool:
            if (self.redis.llen("saq:default:queued"), self.redis.llen("saq:default:active")) != (pending, 0):
                return False
            _, _, text = stack.request(self.telemetry, "GET", "/metrics")
            return {f"refrakt_queue_pending_jobs {pending}", "refrakt_queue_running_jobs 0"} <= set(text.splitlines())

        self.s.wait(f"the queue to hold {pending} jobs", seen, 30)

    def post(self, path: str, caller: str, want: int, want_body: str | None = None) -> dict:
        return self.ask("POST", path, caller, want, want_body)

    def ask(self, method: str, path: str, caller: str, want: int, want_body: str | None = None) -> dict:
        self.s.check()
        status, headers, body = stack.request(self.envoy, method, path, {"CF-Connecting-IP": caller})
        right = status == want and want_body in (None, body)
        extra = f", Retry-After {headers['retry-after']} s" if "retry-after" in headers else ""
        print(f"  {'ok   ' if right else 'WRONG'}  {method:4} {path:10} from {caller:13} expected {want}, got {status}{extra}",
              flush=True)  # fmt: skip
        if not right:
            print(f"         body: {body}")
            self.wrong += 1
        return headers

    def retry_after(self, headers: dict) -> int:
        value = headers.get("retry-after", "")
        if not value.isdigit() or int(value) < 1:
            print(f"  WRONG  Retry-After: expected whole seconds of at least 1, got {value!r}")
            self.wrong += 1
            return 1
        return int(value)

    def redis_answers(self) -> bool:
        try:
            return self.redis.ping()
        except redis.ConnectionError:
            return False

    @staticmethod
    def tell(text: str) -> None:
        print(f"\n{text}", flush=True)


if __name__ == "__main__":
    stack.main(lambda s: Demo(s)())
