"""Who may do what on a server: users and groups with their roles, from a TOML file that its administrator writes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from core.reviews.role import Role
from core.types import CXRLensError


class AccessError(CXRLensError):
    """Nobody, or not this user, may use the review pages here; the message says what to do."""


def same_address(email: str) -> str:
    """An e-mail address as it is compared: A to Z like a to z, and one with any other sign exactly as it is written.

    Python's ``lower`` and Unicode's normal forms both make the Kelvin sign a k, and so one person another.
    """
    return email.lower() if email.isascii() else email


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may do what on a server, from a TOML file.

    Attributes:
        users: role by e-mail address, as `same_address` writes it.
        claim: of the identity provider that holds a user's groups; empty for none.
        groups: role by group; of several the one that may do most counts.
        unverified: "refuse"; "accept" where the provider says of no address whether it is verified. What it says not
            to be verified is refused all the same.
    """

    users: Mapping[str, Role]
    claim: str
    groups: Mapping[str, Role]
    unverified: str = "refuse"

    def name_of(self, claims: Mapping[str, Any]) -> str:
        """Name of whom the identity provider describes.

        Raises:
            AccessError: the provider gives no e-mail address, or does not say that it is verified.
        """
        email = claims.get("email")
        verified = claims.get("email_verified") is True
        if "email_verified" not in claims:
            verified = self.unverified == "accept"
        if not isinstance(email, str) or not email or not verified:
            raise AccessError("Your identity provider gives no verified e-mail address. Ask the people who run it.")
        return same_address(email)

    def role_of(self, claims: Mapping[str, Any]) -> tuple[str, Role]:
        """Name and role of whom the identity provider describes.

        Raises:
            AccessError: as `name_of`, or no role is given.
        """
        email = self.name_of(claims)
        if email in self.users:
            return email, self.users[email]
        of_user = claims.get(self.claim) if self.claim else None
        groups = [of_user] if isinstance(of_user, str) else of_user if isinstance(of_user, list | tuple) else []
        held = [self.groups[group] for group in groups if isinstance(group, str) and group in self.groups]
        if not held:
            raise AccessError(f"{email} has no role in these review sessions. Ask the people who run this server.")
        return email, max(held, key=get_args(Role).index)


def read_roles(path: Path) -> Roles:
    """Read who may do what: tables ``users`` and ``groups`` of roles by name, ``claim``, and ``unverified``.

    Raises:
        AccessError: it is missing, no TOML, or has foreign keys or roles.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AccessError(f"Nobody can sign in: {path.name} cannot be read ({error}). See docs/reviews.md.") from error
    users, groups, claim = content.get("users", {}), content.get("groups", {}), content.get("claim", "")
    unverified = content.get("unverified", "refuse")
    tables = isinstance(users, dict) and isinstance(groups, dict) and isinstance(claim, str)
    if not tables or set(content) - {"users", "groups", "claim", "unverified"} or (groups and not claim):
        raise AccessError(
            f"Nobody can sign in: {path.name} has the tables users and groups, and with groups the name of their claim."
        )
    if unverified not in ("refuse", "accept"):
        raise AccessError(f"Nobody can sign in: unverified in {path.name} is 'refuse' or 'accept'.")
    wrong = sorted(str(role) for role in (*users.values(), *groups.values()) if role not in get_args(Role))
    if wrong:
        raise AccessError(f"Nobody can sign in: {path.name} has unknown roles: {', '.join(wrong)}.")
    named = [same_address(name.strip(" ")) for name in users]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise AccessError(f"Nobody can sign in: {path.name} names {', '.join(twice)} twice.")
    return Roles(dict(zip(named, users.values(), strict=True)), claim, groups, unverified)
