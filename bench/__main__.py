"""`python -m bench`: every contender in turns, then one table."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import instructions, process, traffic
from bench.certificate import make_certificate
from bench.checked import wrong
from bench.contenders import ALL_KINDS, CONTENDERS, Contender, Served, Unavailable
from bench.peers.link_assistant_router import LINK_ASSISTANT_ROUTER
from bench.peers.litellm import LITELLM
from bench.report import Results, table, write_readme

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rounds: int
    small: int
    turns: int
    latency: int
    streams: int

    def order(self, kind: str, share: float) -> dict[str, int]:
        """Connections and requests of one measurement."""
        return {
            "small": {"connections": 16, "requests": int(self.small * share), "warm_up": int(500 * share)},
            "turn": {"connections": 64, "requests": self.turns, "warm_up": 64},
            "short": {"connections": 64, "requests": self.turns * 4, "warm_up": 64},
            "latency": {"connections": 1, "requests": int(self.latency * share), "warm_up": int(100 * share)},
            "hold": {"connections": self.streams, "requests": 0, "warm_up": 0},
        }[kind]


START_SECONDS = 120
FULL = Plan(rounds=9, small=4000, turns=128, latency=1500, streams=1000)
QUICK = Plan(rounds=1, small=2000, turns=64, latency=400, streams=1000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def first_answer(port: int, contender: Contender | None, server: subprocess.Popen[bytes]) -> Served:
    """Until the server (None: the upstream itself) has answered one small request with 200."""
    prefix, issue = (contender.prefix, contender.token) if contender else ("", None)
    token = "" if issue else traffic.USER_TOKEN
    deadline = time.monotonic() + START_SECONDS
    answer = b""
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Unavailable(f"exited with {server.returncode}")
        try:
            if not token and issue:
                token = issue(port)
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(traffic.request("small", prefix, token=token))
                answer = connection.recv(65536)
                if answer.startswith(b"HTTP/1.1 200"):
                    return Served(port, prefix, token)
        except OSError:
            pass
        time.sleep(0.002)
    raise Unavailable(f"did not serve within {START_SECONDS} s, last answer {answer[:300]!r}")


def start(
    contender: Contender, home: Path, upstream: str, environ: dict[str, str]
) -> tuple[subprocess.Popen[bytes], Served, float]:
    """Start it, and wait until it has served a request: the process, where it is asked, the seconds that it took."""
    port = free_port()
    command = contender.command(home, port, upstream)
    began = time.perf_counter()
    server = process.start(command, process.CONTENDER_CORE, home / "output.log", dict(contender.environ) | environ)
    try:
        served = first_answer(port, contender, server)
    except BaseException:
        process.stop(server)
        raise
    return server, served, time.perf_counter() - began


@contextlib.contextmanager
def load(kind: str, served: Served, order: dict[str, int]) -> Iterator[Any]:
    """A load generator that is warm; calling what it yields runs it and returns its result."""
    wanted = {"kind": "small" if kind == "latency" else kind} | dataclasses.asdict(served) | order
    with process.pinned(process.LOAD_CORE):
        generator = subprocess.Popen(
            [sys.executable, "-m", "bench.load", json.dumps(wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert generator.stdin
    assert generator.stdout
    assert generator.stderr
    with generator:
        if generator.stdout.readline() != "ready\n":
            raise Unavailable(f"{kind}: {generator.stderr.read().strip()}")

        def go() -> dict[str, float]:
            assert generator.stdin
            assert generator.stdout
            assert generator.stderr
            generator.stdin.write("go\n")
            generator.stdin.flush()
            line = generator.stdout.readline()
            if not line:
                raise Unavailable(f"{kind}: {generator.stderr.read().strip()}")
            result: dict[str, float] = json.loads(line)
            return result

        try:
            yield go
        finally:
            generator.kill()


def measure(kind: str, pid: int | None, served: Served, plan: Plan, *, share: float = 1) -> dict[str, float]:
    """One measurement of one contender (pid None: the upstream itself)."""
    with load(kind, served, plan.order(kind, share)) as go:
        if kind == "hold":
            assert pid is not None
            return {"rss": process.rss_bytes(pid)}
        before = process.cpu_seconds(pid) if pid else 0.0
        result: dict[str, float] = go()
        if kind == "latency":
            return {"p50": result["p50"], "p99": result["p99"]}
        spent = process.cpu_seconds(pid) - before if pid else 0.0
        return {kind: spent / result["requests"]}


def run(plan: Plan, chosen: list[Contender], folder: Path) -> Results:
    results = Results(defaultdict(lambda: defaultdict(list)), {}, {})
    upstream_port, tls_port = free_port(), free_port()
    certificate = make_certificate(folder)
    with contextlib.ExitStack() as stack:
        upstream = process.start(
            [sys.executable, "-m", "bench.upstream", str(upstream_port), str(tls_port), str(certificate)],
            process.UPSTREAM_CORE,
            folder / "upstream.log",
        )
        stack.callback(process.stop, upstream)
        itself = first_answer(upstream_port, None, upstream)
        homes = {}
        for contender in chosen:
            homes[contender] = folder / contender.name.replace(" ", "-").replace(",", "")
            homes[contender].mkdir()
        for number in range(plan.rounds):
            order = [one for one in chosen if one.name not in results.skipped]
            order = order[number % len(order) :] + order[: number % len(order)] if order else []
            direct = measure("latency", None, itself, plan)
            # Started anew in each round: how a process happens to lie in memory makes 8 % between two of the same.
            with contextlib.ExitStack() as servers:
                running: dict[Contender, tuple[int, Served]] = {}
                for contender in order:
                    url = f"https://127.0.0.1:{tls_port}" if contender.tls else f"http://127.0.0.1:{upstream_port}"
                    trusted = {"SSL_CERT_FILE": str(certificate)} if contender.tls else {}
                    try:
                        server, served, seconds = start(contender, homes[contender], url, trusted)
                    except Unavailable as reason:
                        results.skipped[contender.name] = str(reason)
                        say(f"skipped {contender.name}: {reason}")
                        continue
                    servers.callback(process.stop, server)
                    if not number and (fault := wrong(served, swaps=contender.swaps)):
                        results.skipped[contender.name] = fault
                        say(f"skipped {contender.name}: {fault}")
                        continue
                    running[contender] = (server.pid, served)
                    results.values[contender.name]["start"].append(seconds)
                    results.versions[contender.name] = contender.version()
                # What only the first requests cost (a ledger's import, a price looked up) is in none of the figures.
                for contender, (_, served) in running.items():
                    with load("small", served, plan.order("small", contender.share)):
                        pass
                process.settle([pid for pid, _ in running.values()])
                # One kind after the other, so that what is compared is measured within seconds: machines drift by 20 %.
                for kind in ALL_KINDS:
                    if kind == "hold" and number:
                        continue
                    for contender, (pid, served) in running.items():
                        if kind not in contender.kinds:
                            continue
                        try:
                            found = measure(kind, pid, served, plan, share=contender.share)
                        except Unavailable as reason:
                            results.skipped[f"{contender.name}, {kind}"] = str(reason)
                            continue
                        if kind == "latency":
                            found = {name: value - direct[name] for name, value in found.items()}
                        for name, value in found.items():
                            results.values[contender.name][name].append(value)
                    say(f"round {number + 1}/{plan.rounds}: {kind}")
    return results


def check(folder: Path, *, write: bool) -> int:
    """Count instructions and compare them with the table, or keep them there. The exit status: that nothing can be
    counted is a failure in CI."""
    try:
        figures = instructions.count(folder, free_port(), free_port())
    except Unavailable as reason:
        print(f"skipped: {reason}")
        return 1 if os.environ.get("CI") else 0
    lines, good = instructions.compared(figures, None if write else instructions.kept().get(instructions.interpreter()))
    print("\n".join(lines))
    if write:
        instructions.keep(figures)
    return 0 if good else 1


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Side by side with peers, in one run.")
    parser.add_argument("--quick", action="store_true", help="one round, half a minute: noisy")
    parser.add_argument("--rounds", type=int, help="rounds, in each of which every contender has its turn")
    parser.add_argument("--only", action="append", metavar="NAME", help="contenders whose name begins so; repeatable")
    parser.add_argument(
        "--peers", action="store_true", help="with those that a registry has, which are installed first"
    )
    parser.add_argument("--write", action="store_true", help="keep the table in bench/README.md")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="keep configurations and logs there")
    parser.add_argument(
        "--check", action="store_true", help="count instructions, and fail where they are 3 %% above the table's"
    )
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = dataclasses.replace(plan, rounds=options.rounds)
    contenders = [*CONTENDERS, *([LINK_ASSISTANT_ROUTER, LITELLM] if options.peers else [])]
    only = tuple(map(str.lower, options.only or [""]))
    chosen = [one for one in contenders if one.name.lower().startswith(only)]
    if not chosen:
        parser.error(f"nobody is called so; there are {', '.join(one.name for one in contenders)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(16384, hard)), hard))
    if not options.check and os.getloadavg()[0] > 0.5:
        say(f"load average {os.getloadavg()[0]:.1f}: something else runs on this machine, the figures will be noisy")
    with contextlib.ExitStack() as stack:
        if options.keep:
            if options.keep.exists():
                parser.error(f"{options.keep} is there already")
            options.keep.mkdir(parents=True)
            folder = options.keep.resolve()
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aimux-bench-")))
        if options.check:
            sys.exit(check(folder, write=options.write))
        results = run(plan, chosen, folder)
    text = table(results, plan.rounds, plan.streams)
    print(text)
    if options.write:
        write_readme(text)


if __name__ == "__main__":
    main()
