"""`make run`: Envoy, the gate and the example API on their usual ports, until Ctrl-C.

Every setting of the gate is taken from the environment. Without QUEUE_URL nothing needs Redis.
"""

import os

import stack

PORTS = {8080: "Envoy", 9901: "Envoy admin", 8000: "the example API", 9001: "the gate", 9464: "the gate's metrics"}

GUIDE = """
Envoy is on http://localhost:8080, in front of the gate and the example API. Try:

  curl -i -X POST localhost:8080/run          # {burst} at once, then 429 with Retry-After
  curl -i -X POST localhost:8080/assistant    # its own bucket
  curl -i localhost:8080/ping                 # never asks the gate
  curl -i -X POST localhost:8080/run -H 'CF-Connecting-IP: 203.0.113.9'   # another caller, another bucket
  curl -s localhost:9464/metrics | grep refrakt_

{store}
Logs are in {logs}. Ctrl-C stops everything.
"""

EMBEDDED = "Buckets are in the gate's memory. With QUEUE_URL=redis://localhost:6379/0 they and the job queue are in Redis."
REDIS = """Buckets and job queue are in the Redis of QUEUE_URL. Jobs wait until a worker runs:
  cd examples/api && ../../.venv/bin/saq worker.settings"""


def story(s: stack.Stack) -> None:
    stack.require_free(PORTS)
    env = dict(os.environ)
    s.api(env, 8000)
    s.gate(env, 9001, 9464)
    s.envoy(stack.ENVOY_CONFIG, env)
    print(GUIDE.format(
        burst=env.get("RATE_LIMIT_RUN_BURST", "10"), store=REDIS if env.get("QUEUE_URL") else EMBEDDED, logs=s.dir,
    ), flush=True)  # fmt: skip
    s.forever()


if __name__ == "__main__":
    stack.main(story)
