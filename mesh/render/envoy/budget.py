"""
The retry budget: over time, retries are at most a fifth of the calls.

Envoy's own ``retry_budget`` compares retries with the calls in flight at the same moment, which
bounds a busy caller and not a quiet one: calls that fail one after another were each tried three
times. So calls put aside a share of a retry each, retries take a whole one, and a caller whose
purse is empty does not retry. Envoy's own budget stays as well, for many calls at once.
"""

from typing import Any

from mesh.render.envoy.placement import typed

_SCRIPT = """\
-- A little less than a fifth, so that the reserve fits into it within a hundred calls.
local SHARE, RESERVE, MOST = 0.14, 4, 8
local purse = RESERVE

function envoy_on_request(handle)
  purse = math.min(MOST, purse + SHARE)
  if purse < 2 then
    handle:headers():replace("x-envoy-max-retries", tostring(math.max(0, math.floor(purse))))
  end
end

function envoy_on_response(handle)
  local tries = tonumber(handle:headers():get("x-envoy-attempt-count") or "1")
  handle:headers():remove("x-envoy-attempt-count")
  purse = purse - (tries - 1)
end
"""


def retry_budget() -> dict[str, Any]:
    """Return the filter; routes must ask for ``include_attempt_count_in_response``."""
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": typed(
            "envoy.extensions.filters.http.lua.v3.Lua",
            default_source_code={"inline_string": _SCRIPT},
        ),
    }
