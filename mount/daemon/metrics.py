"""Write a mount's status in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

_Sample = tuple[Mapping[str, str], float | None]  # labels and value; None leaves the sample out


def as_metrics(status: Mapping[str, Any]) -> str:
    """Return the metrics of a status (`mount.daemon.status`)."""
    reads, imports, process = status["reads"], status["imports"], status["process"]
    info = {name: status[name] for name in ("version", "mountpoint", "store", "engine")}
    since = datetime.datetime.fromisoformat(status["since"]).timestamp()
    lines = [
        *_family("bentofs_mount_info", "gauge", "The mount.", [(info, 1)]),
        *_family("bentofs_start_time_seconds", "gauge", "When the mount began, since 1970.", [({}, since)]),
        *_family("bentofs_models", "gauge", "Models in the store.", [({}, status["models"])]),
    ]
    for figure, help_text in (
        ("opens", "Files opened."),
        ("reads", "Reads served by the daemon."),
        ("bytes", "Bytes read from the daemon."),
    ):
        samples = [({"kind": kind}, total[figure]) for kind, total in reads.items()]
        lines += _family(f"bentofs_read_{figure}_total", "counter", f"{help_text} By format.", samples)
    if imports is not None:
        ended = [({"outcome": outcome}, count) for outcome, count in imports["ended"].items()]
        lines += _family("bentofs_imports_running", "gauge", "Imports that run now.", [({}, imports["running"])])
        lines += _family("bentofs_imports_total", "counter", "Imports that ended, by outcome.", ended)
    problems = [({"level": level}, status["problems"][f"{level}s"]) for level in ("warning", "error")]
    lines += _family("bentofs_log_records_total", "counter", "Records of the log, by level.", problems)
    for name, kind, help_text, value in (
        ("bentofs_kernel_nodes", "gauge", "Files and directories that the kernel remembers.", status["kernel_nodes"]),
        ("bentofs_cache_bytes", "gauge", "Memory of all caches.", status["caches"]["bytes"]),
        ("bentofs_decoder_bytes", "gauge", "Memory of decoders.", status["caches"]["decoders_bytes"]),
        ("bentofs_cache_limit_bytes", "gauge", "Most memory of both.", status["caches"]["limit_bytes"]),
        ("bentofs_index_bytes", "gauge", "Size of the user's index on disk.", status["index"]["bytes"]),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", process["resident_bytes"]),
        ("process_cpu_seconds_total", "counter", "Processor time.", process["cpu_seconds"]),
        ("process_open_fds", "gauge", "Open file descriptors.", process["open_files"]),
        ("process_threads", "gauge", "Threads.", process["threads"]),
    ):
        lines += _family(name, kind, help_text, [({}, value)])
    return "".join(f"{line}\n" for line in lines)


def _family(name: str, kind: str, help_text: str, samples: Iterable[_Sample]) -> list[str]:
    """Return the lines of one metric."""
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
    found = [f"{name}{_labels(labels)} {value}" for labels, value in samples if value is not None]
    return lines + found if found else []


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """Return a label's value as the format wants it: in UTF-8, with three characters escaped."""
    text = value.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
