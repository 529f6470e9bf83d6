"""``/users``: what a key may do with users and their sessions."""

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.appwrite import models, params
from sandbox.appwrite.access import Access
from sandbox.appwrite.errors import AppwriteError, invalid
from sandbox.appwrite.state import Project

PAGE, LARGEST_PAGE = 25, 5_000


class Users:
    """The server side of users."""

    def __init__(self, project: Project, access: Access) -> None:
        self._project = project
        self._access = access

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/users", self.list),
            Route("/v1/users", self.create, methods=["POST"]),
            Route("/v1/users/{user_id}", self.get),
            Route("/v1/users/{user_id}/labels", self.set_labels, methods=["PUT"]),
            Route("/v1/users/{user_id}/status", self.set_status, methods=["PATCH"]),
            Route("/v1/users/{user_id}/sessions", self.list_sessions),
            Route("/v1/users/{user_id}/sessions", self.create_session, methods=["POST"]),
            Route("/v1/users/{user_id}/sessions", self.delete_sessions, methods=["DELETE"]),
            Route(
                "/v1/users/{user_id}/sessions/{session_id}",
                self.delete_session,
                methods=["DELETE"],
            ),
        ]

    async def list(self, request: Request) -> Response:
        """List users in order of their making, by ``limit`` and ``cursorAfter``."""
        self._access.caller(request).need("users.read")
        limit, after = PAGE, ""
        for name, value in request.query_params.multi_items():
            if name.startswith("queries["):
                method, argument = _query(value)
                if method == "limit" and type(argument) is int and 0 < argument <= LARGEST_PAGE:
                    limit = argument
                elif method == "cursorAfter" and isinstance(argument, str):
                    after = argument
                else:
                    raise invalid("queries", f"Invalid query: {value}")
        ids = [*self._project.users]
        if after and after not in ids:
            raise invalid("queries", f"Cursor {after} not found")
        start = ids.index(after) + 1 if after else 0
        shown = [models.full_user(self._project.users[one]) for one in ids[start : start + limit]]
        return JSONResponse({"total": len(ids), "users": shown})

    async def create(self, request: Request) -> Response:
        """Make a user with a chosen id."""
        self._access.caller(request).need("users.write")
        given = await params.body(request)
        user = self._project.add_user(params.user_id(given), params.email(given))
        return JSONResponse(models.full_user(user), status_code=201)

    async def get(self, request: Request) -> Response:
        """Show a user."""
        self._access.caller(request).need("users.read")
        user = self._project.user(request.path_params["user_id"])
        return JSONResponse(models.full_user(user))

    async def set_labels(self, request: Request) -> Response:
        """Replace a user's labels."""
        self._access.caller(request).need("users.write")
        user = self._project.user(request.path_params["user_id"])
        labels = (await params.body(request)).get("labels")
        if not isinstance(labels, list) or not all(
            isinstance(label, str) and label.isalnum() and len(label) <= 36 for label in labels
        ):
            raise invalid("labels", "Value must be an array of alphanumeric strings")
        user.labels = labels
        return JSONResponse(models.full_user(user))

    async def set_status(self, request: Request) -> Response:
        """Block a user or let them in again."""
        self._access.caller(request).need("users.write")
        user = self._project.user(request.path_params["user_id"])
        user.enabled = (await params.body(request)).get("status") is True
        return JSONResponse(models.full_user(user))

    async def list_sessions(self, request: Request) -> Response:
        """List a user's sessions."""
        self._access.caller(request).need("users.read")
        user = self._project.user(request.path_params["user_id"])
        found = [
            models.session(session, current=False) for session in self._project.sessions_of(user.id)
        ]
        return JSONResponse({"total": len(found), "sessions": found})

    async def create_session(self, request: Request) -> Response:
        """Open a session for a user on the word of the key's owner, who sees its secret."""
        self._access.caller(request).need("users.write")
        user = self._project.user(request.path_params["user_id"])
        if not user.enabled:
            raise AppwriteError("user_blocked")
        session, secret = self._project.open_session(
            user,
            ip=request.client.host if request.client else "",
            user_agent=request.headers.get("x-forwarded-user-agent", ""),
        )
        answer = models.session(session, current=False, secret=secret)
        return JSONResponse(answer, status_code=201)

    async def delete_sessions(self, request: Request) -> Response:
        """End all sessions of a user."""
        self._access.caller(request).need("users.write")
        user = self._project.user(request.path_params["user_id"])
        for session in [*self._project.sessions_of(user.id)]:
            del self._project.sessions[session.id]
        return Response(status_code=204, headers={"Content-Type": "text/plain"})

    async def delete_session(self, request: Request) -> Response:
        """End one session of a user."""
        self._access.caller(request).need("users.write")
        user = self._project.user(request.path_params["user_id"])
        session = self._project.sessions.get(request.path_params["session_id"])
        if session is None or session.user_id != user.id:
            raise AppwriteError("user_session_not_found")
        del self._project.sessions[session.id]
        return Response(status_code=204, headers={"Content-Type": "text/plain"})


def _query(text: str) -> tuple[object, object]:
    try:
        query = json.loads(text)
        return query["method"], query["values"][0]
    except (ValueError, TypeError, KeyError, IndexError) as exc:
        raise invalid("queries", f"Invalid query: {text}") from exc
