"""Entry point of survey_svc: settings -> adapters -> service -> serve()."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from amarre.survey.v1.survey_service_pb2_grpc import add_SurveyServiceServicer_to_server

from mesh.chassis import config, server
from mesh.chassis.background import background
from mesh.chassis.channel import channel
from mesh.chassis.credentials.revocations import RevokedSessions
from mesh.chassis.errors import MeshError
from survey_svc.config import SurveySettings, read_token
from survey_svc.ports import Cache
from survey_svc.redcap.breaker import LOOKUPS_OPEN, Breaker
from survey_svc.redcap.client import RedcapApi
from survey_svc.redcap.project import LOOKUP_MAX_BYTES, LOOKUPS_RUNNING, RedcapProject
from survey_svc.requests.creation import Creation
from survey_svc.requests.listing import Listing
from survey_svc.requests.misses import Misses
from survey_svc.requests.watching import Watching
from survey_svc.revocations import watch
from survey_svc.service import SurveyService
from survey_svc.storage.memory_cache import MemoryCache
from survey_svc.storage.redis_cache import RedisCache
from survey_svc.storage.selection import open_store
from survey_svc.study import profile as profiles
from survey_svc.study.profile import Profile, ProfileError
from survey_svc.study.study import Study

log = structlog.get_logger("survey")

SWEEP_SECONDS = 30.0


async def main(settings: SurveySettings) -> None:
    """Serve until stopped."""
    profile = _profile(settings)
    token = read_token(settings.survey_redcap_token_file)
    async with contextlib.AsyncExitStack() as stack:
        api = RedcapApi(settings.survey_redcap_url, token)
        stack.push_async_callback(api.close)
        lookups = RedcapApi(
            settings.survey_redcap_url,
            token,
            connections=LOOKUPS_RUNNING,
            max_bytes=LOOKUP_MAX_BYTES,
            breaker=Breaker(gauge=LOOKUPS_OPEN),
        )
        stack.push_async_callback(lookups.close)
        project = RedcapProject(
            api, profile, lookups=lookups, time_zone=ZoneInfo(settings.survey_redcap_time_zone)
        )
        study = Study(profile, project)
        await _check(study)
        store = await open_store(settings.survey_store)
        stack.push_async_callback(store.close)
        cache = _open_cache(settings)
        stack.push_async_callback(cache.close)
        scope = hashlib.sha256(
            f"{settings.survey_redcap_url} {token.get_secret_value()}".encode()
        ).hexdigest()
        misses = Misses(settings.survey_unknown_ids_per_user)
        listing = Listing(study, project, cache, misses, scope=scope)
        creation = Creation(profile, project, store, listing, _now)
        watching = Watching(
            profile,
            project,
            listing,
            per_user=settings.survey_watches_per_user,
            total=settings.survey_watches_total,
        )
        service = SurveyService(
            study=study, project=project, listing=listing, creation=creation, watching=watching
        )
        await stack.enter_async_context(background("watch requests", watching.run))
        await stack.enter_async_context(background("study refresh", study.keep))
        await stack.enter_async_context(background("reservation sweep", partial(_sweep, creation)))
        revoked = RevokedSessions()
        if "auth" in settings.peers:
            auth = await stack.enter_async_context(channel("auth", settings))
            follow = partial(revoked.follow, lambda: watch(auth))
            await stack.enter_async_context(background("follow revocations", follow))
        register: Callable[[Any], None] = partial(add_SurveyServiceServicer_to_server, service)
        checks = {"redcap": project.is_alive, "profile": study.is_ready}
        await server.serve("survey", settings, register, checks=checks, revoked=revoked)


def _profile(settings: SurveySettings) -> Profile:
    try:
        return profiles.load(settings.survey_profile)
    except ProfileError as error:
        raise server.StartError(str(error)) from error


async def _check(study: Study) -> None:
    """Check the profile against REDCap; if REDCap is unavailable, retry later."""
    try:
        await study.check()
    except ProfileError as error:
        raise server.StartError(str(error)) from error
    except MeshError as fault:
        log.warning("profile not checked yet", fault=fault.message)


def _open_cache(settings: SurveySettings) -> Cache:
    if settings.survey_cache == "memory":
        return MemoryCache()
    return RedisCache.at(settings.survey_cache)


async def _sweep(creation: Creation) -> None:
    while True:
        try:
            await creation.sweep()
        except MeshError as fault:
            log.warning("abandoned creations not resolved", fault=type(fault).__name__)
        await asyncio.sleep(SWEEP_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    loaded = config.load_or_exit(SurveySettings)
    server.run(partial(main, loaded), "survey", loaded)
