"""What stands behind an error of the hub's client, and what to do about it.

The client hides most causes behind one error, "not in the cache": no network, a token without the
right, a mirror that answers too little. The causes hang on that error.
"""

import os
from collections.abc import Iterator

LOGIN = "hf auth login, or HF_TOKEN"
NO_FILE = "it has no such file at this revision; check both"
# By HTTP status, where the client has no class of its own.
ADVICE = {
    401: f"the token is not valid; make another and log in with it ({LOGIN})",
    403: "the token may not read it; take one of type Read, or a fine-grained one that may read "
    f"gated repositories ({LOGIN})",
    404: NO_FILE,
    429: "the hub was asked too often; wait some minutes and run again: what is there is kept",
}
# By the client's own classes. The first one that is among the causes counts.
BY_NAME = {
    "GatedRepoError": f"accept its terms on its page of the hub, and log in ({LOGIN})",
    "RepositoryNotFoundError": f"check the name, and log in ({LOGIN}) if it is private",
    "RevisionNotFoundError": "it has no such revision; give one of its commits, tags or branches",
    "RemoteEntryNotFoundError": NO_FILE,
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE forbids the network, and the cache (HF_HOME) does not "
    "hold it whole; fetch it once without that variable",
    "FileMetadataError": "the server that HF_ENDPOINT names leaves out a file's commit or hash; "
    "take another mirror",
}


def told(error: Exception) -> tuple[str, str]:
    """What went wrong in a word, and advice, for an error of fetching from a hub."""
    chain = list(causes(error))
    # They are names, as not all of the client's versions have all of the classes.
    names = {kind.__name__ for each in chain for kind in type(each).__mro__}
    own = "LocalEntryNotFoundError"  # the client's cover for all causes
    what = next((type(each).__name__ for each in chain if type(each).__name__ != own), own)
    for name, advice in BY_NAME.items():
        if name in names:
            return name, advice
    if status := next((found for each in chain if (found := status_of(each))), None):
        other = f"{_server()} answers so; run again later: what is there is kept"
        return f"HTTP status {status}", ADVICE.get(status, other)
    if isinstance(error, OSError) and error.errno is not None:  # of the file system
        return f"{what}: {error.strerror}", "make room where HF_HOME is, or move that"
    return what, f"check the network to {_server()}, and run again: what is there is kept"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a server refused with."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _server() -> str:
    return "the mirror that HF_ENDPOINT names" if os.environ.get("HF_ENDPOINT") else "the hub"
