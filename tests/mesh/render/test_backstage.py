"""
The Backstage catalog: valid by Backstage's own schemas, complete, and consistent with contracts.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.contract import policy
from mesh.render import backstage, registry

NODE = Path(__file__).parents[2] / "node"
VALIDATE = """
import * as model from "@backstage/catalog-model";
const validator = (kind) => model[`${kind.toLowerCase()}EntityV1alpha1Validator`];
const entities = JSON.parse(await new Response(process.stdin).text());
const policies = [
  new model.SchemaValidEntityPolicy(),
  new model.FieldFormatEntityPolicy(),
  new model.NoForeignRootFieldsEntityPolicy(),
];
const wrong = [];
for (const entity of entities) {
  try {
    for (const policy of policies) await policy.enforce(entity);
    if (!await validator(entity.kind).check(entity)) throw new Error("another kind");
  } catch (error) { wrong.push(`${entity.metadata.name}: ${error.message}`); }
}
console.log(JSON.stringify(wrong));
"""


def entities() -> list[Any]:
    """Return the entities, with each referenced definition inlined."""
    found = list(yaml.safe_load_all(backstage.render()["catalog-info.yaml"]))
    for entity in found:
        definition = entity["spec"].get("definition")
        if definition:
            file = registry.committed("backstage") / definition["$text"]
            entity["spec"]["definition"] = file.resolve().read_text()
    return found


def problems(given: list[Any]) -> list[str]:
    """Return the errors of Backstage's own validators."""
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", VALIDATE],
        input=json.dumps(given),
        cwd=NODE,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules/@backstage").is_dir(),
    reason="needs `npm ci` in tests/node, which `make test` runs where there is npm",
)
def test_schema() -> None:
    """
    Every entity passes the validators of `@backstage/catalog-model`, which reject an invalid one.
    """
    given = entities()
    assert [] == problems(given)

    given[-1]["spec"].pop("lifecycle")
    given[0]["metadata"]["name"] = "not a name"
    assert 2 == len(problems(given))


def test_references() -> None:
    """
    Every owner, system, API and dependency is an entity of the same file.
    """
    found = entities()
    known = {f"{e['kind'].lower()}:{e['metadata']['name']}" for e in found}
    for entity in found:
        spec = entity["spec"]
        wanted = {f"group:{spec['owner']}"} if "owner" in spec else set()
        wanted |= {f"system:{spec['system']}"} if "system" in spec else set()
        for key in ("providesApis", "consumesApis"):
            wanted |= {f"api:{name}" for name in spec.get(key, ())}
        wanted |= set(spec.get("dependsOn", ()))
        assert wanted <= known, entity["metadata"]["name"]


def test_calls() -> None:
    """
    Components consume the APIs that the contracts permit, and provide their own.
    """
    by_name = {e["metadata"]["name"]: e["spec"] for e in entities() if e["kind"] == "Component"}
    mesh = policy.load()

    for caller, service in mesh.edges():
        if caller in by_name:
            assert f"amarre-{service}" in by_name[caller]["consumesApis"], caller
    for provider in mesh.services:
        assert [f"amarre-{provider.name}"] == by_name[provider.name]["providesApis"]
