"""The kinds of text in a cluster spec: each is checked where it is read, so that every format may use it as it is."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints


def _above_nothing(path: str) -> str:
    if ".." in path.split("/"):
        raise ValueError("a path may not go up by ..")
    return path


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("not an IP address; the launcher tells machines apart by theirs") from None


_LABEL = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"

# KubeRay wants a DNS-1035 label of at most 47 characters for a RayJob, and "-storage" is appended to ours.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z](?:[-a-z0-9]{0,37}[a-z0-9])?$")]
GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z](?:[-a-z0-9]{0,28}[a-z0-9])?$")]
# The name of an object of Kubernetes: a DNS-1123 subdomain.
ObjectName = Annotated[str, StringConstraints(pattern=rf"^{_DNS}(?:\.{_DNS})*$", max_length=253)]
Namespace = Annotated[str, StringConstraints(pattern=rf"^{_DNS}$")]
DataKey = Annotated[str, StringConstraints(pattern=r"^[-._A-Za-z0-9]+$", max_length=253)]
LabelKey = Annotated[str, StringConstraints(pattern=rf"^(?:{_DNS}(?:\.{_DNS})*/)?{_LABEL}$", max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^(?:{_LABEL})?$")]

Image = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._:/-]*(?::[A-Za-z0-9_][-.\w]{0,127})?(?:@sha256:[0-9a-f]{64})?$")
]
Memory = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,6}(?:Mi|Gi|Ti)$")]
Target = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[-a-z0-9._]{0,61}[a-z0-9])?$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# Neither line breaks nor what a shell, a compose file or a YAML parser would read as more than text.
EnvText = Annotated[str, StringConstraints(pattern=r"^[-A-Za-z0-9_.,:/=+@ ]*$", max_length=1000)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.+/]*$", max_length=200)]
StudyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Path = Annotated[
    str, StringConstraints(pattern=r"^(?:~/|/)?[A-Za-z0-9_.][-A-Za-z0-9_./]*$"), AfterValidator(_above_nothing)
]
AbsolutePath = Annotated[
    str, StringConstraints(pattern=r"^/[A-Za-z0-9_.][-A-Za-z0-9_./]*$"), AfterValidator(_above_nothing)
]
Server = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9.]*$", max_length=253)]
Url = Annotated[str, StringConstraints(pattern=r"^(?:s3|gs)://[a-z0-9][-a-z0-9._]*(?:/[-A-Za-z0-9._]+)*/?$")]
Address = Annotated[str, AfterValidator(_address)]
Count = Annotated[int, Field(ge=0, le=1000)]

_MEBIBYTES = {"Mi": 1, "Gi": 1024, "Ti": 1024 * 1024}


def mebibytes(memory: str) -> int:
    """A quantity of Kubernetes, such as ``4Gi``, in MiB."""
    return int(memory[:-2]) * _MEBIBYTES[memory[-2:]]
