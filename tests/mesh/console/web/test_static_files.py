"""The files of the pages."""

from tests.mesh.console.conftest import Running


async def test_compressed(running: Running) -> None:
    """
    Scripts and styles are compressed: the first view of a page loads at most 150 KB.
    """
    answer = await running.client.get(f"{running.url}/static/js/main.js")

    assert ("gzip", "nosniff") == (
        answer.headers["content-encoding"],
        answer.headers["x-content-type-options"],
    )
    assert int(answer.headers["content-length"]) < len(answer.content) / 2
