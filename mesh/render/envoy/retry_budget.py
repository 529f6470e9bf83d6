"""Retry budget: over time, at most one retry for every five calls.

Envoy's own ``retry_budget`` compares retries with the calls currently in flight, which limits busy
callers but not quiet ones: calls that failed one after another were each tried three times. So
each call earns a fraction of a retry, and a call on a route with retries reserves its retries when
it starts; unused ones are returned with its response. A caller without budget does not retry.
Envoy's own budget also applies, for many concurrent calls.

A call cancelled by its client has no response; its reservation is returned after one to two
periods.
"""

from typing import Any

from mesh.render.envoy.proxy import typed

RETRIES = "retries"
"""Route metadata: maximum number of retries of one call. Routes without it reserve nothing."""
FILTER = "envoy.filters.http.lua"
_SCRIPT = """\
-- SHARE is a little less than a fifth, so that RESERVE fits into it within a hundred calls.
local SHARE, RESERVE, MOST, PERIOD = 0.14, 4, 32, 30
local budget, period, began = RESERVE, 0, os.time()
-- Retries reserved and not yet returned by calls of this period and the previous one.
local reserved, earlier = 0, 0

local function give_back(count)
  budget = math.min(MOST, budget + count)
end

function envoy_on_request(handle)
  budget = math.min(MOST, budget + SHARE)
  local most = handle:metadata():get("retries")
  if most == nil then
    return
  end
  if os.time() - began >= PERIOD then
    give_back(earlier)
    earlier, reserved, period, began = reserved, 0, period + 1, os.time()
  end
  local take = math.max(0, math.min(most, math.floor(budget)))
  budget, reserved = budget - take, reserved + take
  if take < most then
    handle:headers():replace("x-envoy-max-retries", tostring(take))
  end
  -- One number, because each entry costs time: at most 7 retries, and the period.
  handle:streamInfo():dynamicMetadata():set("amarre.retries", "call", period * 8 + take)
end

function envoy_on_response(handle)
  local tries = tonumber(handle:headers():get("x-envoy-attempt-count") or "1")
  handle:headers():remove("x-envoy-attempt-count")
  local call = handle:streamInfo():dynamicMetadata():get("amarre.retries")
  if call == nil then
    return
  end
  local taken, at = call["call"] % 8, math.floor(call["call"] / 8)
  local unused = taken - (tries - 1)
  if at == period then
    reserved = reserved - taken
    give_back(unused)
  elseif at == period - 1 then
    earlier = earlier - taken
    give_back(unused)
  else
    -- Already returned as a whole.
    budget = budget - (tries - 1)
  end
end
"""


def http_filter() -> dict[str, Any]:
    """Return the filter; routes must set ``include_attempt_count_in_response``."""
    return {
        "name": FILTER,
        "typed_config": typed(
            "envoy.extensions.filters.http.lua.v3.Lua",
            default_source_code={"inline_string": _SCRIPT},
        ),
    }


def reserving(most: int) -> dict[str, Any]:
    """Return the metadata of a route whose calls are retried at most *most* times."""
    return {"metadata": {"filter_metadata": {FILTER: {RETRIES: most}}}}
