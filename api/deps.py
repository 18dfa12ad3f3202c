"""What endpoints ask for: the services, who acts, and the language of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from api.services import Services
from core import i18n


def services_of(request: Request) -> Services:
    """The services that `create_app` was given."""
    services: Services = request.app.state.services
    return services


def language_of(request: Request) -> i18n.Lang:
    """`?lang=`, then the cookie, then what the browser accepts."""
    return i18n.choose(
        request.query_params.get("lang"),
        request.cookies.get("lang"),
        request.headers.get("accept-language"),
    )


def actor_of() -> Callable[[str], str]:
    """Turns the name that came with an action into the actor that history keeps.

    There is no login yet, so people say who they are. The login replaces this one function: it will answer with the
    name of the session and refuse strangers.
    """
    return str.strip


Svc = Annotated[Services, Depends(services_of)]
Language = Annotated[i18n.Lang, Depends(language_of)]
Actor = Annotated[Callable[[str], str], Depends(actor_of)]
