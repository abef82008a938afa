"""Read the files that W&B writes offline."""

import json
import struct
import time


def wandb_run(file, seconds=60):
    """What W&B's offline file says of its run, which has been finished.

    W&B's ``finish`` only tells its process to close the file, and does not wait until it is written.
    """
    deadline = time.monotonic() + seconds
    while not (result := _read(file))["finished"]:
        assert time.monotonic() < deadline, f"{file} does not end after {seconds} s: {result}"
        time.sleep(0.05)
    return result


def _read(file):
    """The run as far as it is written."""
    from wandb.proto import wandb_internal_pb2

    result = {"config": {}, "history": [], "summary": {}, "artifacts": set(), "finished": False}
    for written in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(written)
        if record.HasField("run"):
            result["config"] |= json_items(record.run.config.update)
            run = record.run
            result |= {"id": run.run_id, "group": run.run_group, "job_type": run.job_type, "tags": [*run.tags]}
            result |= {"name": run.display_name, "notes": run.notes}
        elif record.HasField("history"):
            result["history"].append(json_items(record.history.item))
        elif record.HasField("artifact") or record.request.HasField("log_artifact"):
            result["artifacts"].add(record.artifact.type or record.request.log_artifact.artifact.type)
        elif record.HasField("exit"):
            result |= {"finished": True, "exit_code": record.exit.exit_code}
        elif record.HasField("summary"):
            result["summary"] |= json_items(record.summary.update)
    return result


def _records(data):
    """The whole records of a file in LevelDB's log format."""
    position, whole = 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        if position + 7 > len(data):
            break
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if position + 7 + length > len(data):
            break
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind not in (1, 4):  # a record that goes on in the next block
            continue
        yield whole
        whole = b""


def json_items(items):
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
