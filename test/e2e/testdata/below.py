"""The example API with a route for all that is below /run. Servers don't resolve dots, so /run/.. is below it too."""

from app import accepted, app


@app.post("/run/{rest:path}", status_code=202)
async def below(rest: str) -> dict:
    return accepted(None)
