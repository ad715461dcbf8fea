"""A campaign of kills: commands die at random moments and start again until they end well.

    python -m benchmarks.kills [--runs 20] [--kills 5] [--commands curate,refilter,encode,train] [--seed 0]

Each run makes one result with one command. The driver, a worker or the raylet is killed at a random moment,
up to `--kills` times. Then the same command runs to its end. Some runs of `curate` also lose their output
folder once. With `--s3-faults 0.2`, curate writes to an S3 server that fails this share of all requests.
The result must equal that of an undisturbed run (`benchmarks.kills.invariants`). Prints kills, results and
violations. Ends with status 1 if there is a violation.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.kills.faulty_s3 import FaultyS3
from benchmarks.kills.processes import VICTIMS, CommandRun
from benchmarks.kills.scenarios import COMMANDS, Scenario, build_scenarios
from benchmarks.machine import describe_machine

_LIMIT_FACTOR = 20  # of the undisturbed run's time: a run that takes longer hangs
_LIMIT_MIN_S = 180
_DELETE_EVERY = 4  # runs of curate of which one loses its output


def main() -> None:
    """Run the campaign and print what it counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5, help="kills of one run, at most")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3-faults", type=float, default=0.0, help="share of failing requests, 0..1")
    options = parser.parse_args()
    names = tuple(options.commands.split(","))
    if unknown := set(names) - set(COMMANDS):
        parser.error(f"no such command: {', '.join(sorted(unknown))}; commands are {', '.join(COMMANDS)}")
    counts: Counter[str] = Counter()
    violations: list[str] = []
    with tempfile.TemporaryDirectory(prefix="reprise-kills-") as scratch:
        folder = Path(scratch)
        scenarios = build_scenarios(folder, names)
        for run in range(options.runs):
            scenario = scenarios[run % len(scenarios)]
            draw = random.Random(f"{options.seed}/{run}")
            deletes = scenario.name == "curate" and (run // len(scenarios)) % _DELETE_EVERY == 0
            found = run_once(scenario, folder / f"run-{run}", draw, options.kills, counts, deletes=deletes)
            violations += [f"run {run} ({scenario.name}): {each}" for each in found]
            counts["results"] += 1
            print(f"run {run}: {scenario.name}, {len(found)} violations", file=sys.stderr, flush=True)
        if options.s3_faults:
            curate = next(each for each in scenarios if each.name == "curate")
            found, faults = run_on_s3(curate, folder / "s3", options.s3_faults, options.seed)
            counts["results"] += 1
            counts["S3 faults"] += faults
            violations += [f"S3: {each}" for each in found]
    print_counts(counts, violations)
    print(
        json.dumps({"benchmark": "kills", **counts, "violations": violations, "machine": describe_machine()})
    )
    raise SystemExit(1 if violations else 0)


def run_once(
    scenario: Scenario,
    folder: Path,
    draw: random.Random,
    kills: int,
    counts: Counter[str],
    *,
    deletes: bool,
) -> list[str]:
    """Kill one command several times, then let it end; return the violations."""
    folder.mkdir()
    output, log = folder / "output", folder / "log"
    scenario.prepare(output)
    limit_s = max(_LIMIT_MIN_S, _LIMIT_FACTOR * scenario.seconds)
    command = scenario.build_command(str(output))
    violations: list[str] = []
    for number in range(kills):
        run = CommandRun(command, log)
        try:
            if not run.wait_until(draw.uniform(0.05, 0.95) * scenario.seconds):
                continue
            if deletes and number == 0:
                shutil.rmtree(output, ignore_errors=True)
                counts["outputs deleted"] += 1
                if run.wait_for_end(limit_s) is None:
                    violations.append("a run whose output was deleted did not end")
                continue
            victim = draw.choice(VICTIMS)
            if not run.kill_victim(victim, draw):  # Ray does not run yet, or this command needs none
                victim = "driver"
                run.kill_victim(victim, draw)
            counts[f"kills of a {victim}"] += 1
            counts["kills"] += 1
            if victim != "driver" and run.wait_for_end(limit_s) is None:
                violations.append(f"after a kill of a {victim} the run did not end in {limit_s:.0f} s")
        finally:
            run.end_tree()
        violations += scenario.check_killed(output)
    last = CommandRun(command, log)
    try:
        status = last.wait_for_end(limit_s)
    finally:
        last.end_tree()
    if status != 0:
        tail = log.read_text(errors="replace")[-1500:]
        return [*violations, f"the last run ended with status {status}:\n{tail}"]
    violations += scenario.check(output)
    if not violations:
        shutil.rmtree(folder)
    return violations


def run_on_s3(scenario: Scenario, folder: Path, share: float, seed: int) -> tuple[list[str], int]:
    """Run curate on a failing S3 server until it ends well. Returns violations and the number of faults."""
    import boto3
    from moto.server import ThreadedMotoServer

    folder.mkdir()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    os.environ.update(keys)
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="kills")
        with FaultyS3(f"{host}:{port}", share, seed).serve_requests() as proxy:
            deadline = time.monotonic() + max(_LIMIT_MIN_S, _LIMIT_FACTOR * scenario.seconds)
            env = {**keys, "AWS_ENDPOINT_URL": proxy.endpoint}
            status: int | None = 1
            while status != 0 and time.monotonic() < deadline:
                run = CommandRun(scenario.build_command("s3://kills/dataset"), folder / "log", env)
                try:
                    status = run.wait_for_end(deadline - time.monotonic())
                finally:
                    run.end_tree()
        if status != 0:
            return [f"no run ended well; the last had status {status}"], proxy.faults
        copy = folder / "dataset"
        for page in client.get_paginator("list_objects_v2").paginate(Bucket="kills"):
            for item in page.get("Contents", []):
                target = copy / item["Key"].removeprefix("dataset/")
                target.parent.mkdir(parents=True, exist_ok=True)
                client.download_file("kills", item["Key"], str(target))
        return scenario.check(copy), proxy.faults
    finally:
        server.stop()


def print_counts(counts: Counter[str], violations: list[str]) -> None:
    """Print the counts as a table, and each violation on its own line."""
    table = Table("", "number", box=None)
    for name, count in sorted(counts.items()):
        table.add_row(name, str(count))
    table.add_row("violations", str(len(violations)))
    console = Console(stderr=True)
    console.print(table)
    for each in violations:
        console.print(each, markup=False, highlight=False)


if __name__ == "__main__":
    main()
