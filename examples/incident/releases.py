"""Two releases of the reference agent: `good`, and `bad`, whose payments server lost the least amount of a transfer.

`python examples/incident/releases.py FOLDER` writes their manifests, and the traffic of the bad one on the day it went out.
"""

import json
import sys
from pathlib import Path

from auditgap.incidents.reference import Tools, reference_release
from auditgap.release.agent.tools import TOOLS
from auditgap.release.calls import Wire
from auditgap.release.capture import write_manifest


def _without_minimum() -> list[Wire]:
    tools = json.loads(json.dumps(TOOLS))
    transfer = next(tool for tool in tools if tool["name"] == "transfer")
    transfer["inputSchema"]["properties"]["amount_cents"] = {"type": "integer"}
    return tools


good = reference_release("payments v11")
bad = reference_release("payments v12", tools=Tools(_without_minimum(), version="2"))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, release in (("v11", good), ("v12", bad)):
        write_manifest(release.manifest, folder / f"{name}.json")
    records = [{"reported": n % 9 == 8, "release": bad.fingerprint} for n in range(200)]
    (folder / "traffic.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
