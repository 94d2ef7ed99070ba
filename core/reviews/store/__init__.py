"""Sessions in a database: who may do what, and every change with its event. What pages and commands use of it.

Each function takes an `Actor` and asks the database again what that actor may do; a reader reaches own screens only.
"""

from core.reviews.role import Role
from core.reviews.store.actors import (
    NO_ROLE,
    Actor,
    NotAllowedError,
    actor,
    enrol,
    first_admin,
    list_users,
    set_role,
    withdraw,
)
from core.reviews.store.changes import ConflictError, annotate, remove_mark, save_mark, spend, undo
from core.reviews.store.edits import SavedEdit, save_edit
from core.reviews.store.screens import (
    Progress,
    ReaderScreen,
    check_image,
    list_screens,
    next_screen,
    open_screen,
    progress,
    read_screen,
    writers,
)
from core.reviews.store.sessions import (
    SessionInfo,
    being_read,
    close_session,
    create_session,
    list_sessions,
    unblind,
)

__all__ = [
    "NO_ROLE",
    "Actor",
    "ConflictError",
    "NotAllowedError",
    "Progress",
    "ReaderScreen",
    "Role",
    "SavedEdit",
    "SessionInfo",
    "actor",
    "annotate",
    "being_read",
    "check_image",
    "close_session",
    "create_session",
    "enrol",
    "first_admin",
    "list_screens",
    "list_sessions",
    "list_users",
    "next_screen",
    "open_screen",
    "progress",
    "read_screen",
    "remove_mark",
    "save_edit",
    "save_mark",
    "set_role",
    "spend",
    "unblind",
    "undo",
    "withdraw",
    "writers",
]
