"""Server reflection: what a session, or a listener, says of the services it hosts.

Tools such as grpcurl and grpcui ask ``ServerReflectionInfo`` which services there are, and for the ``.proto`` files
that describe them, which they get as serialized FileDescriptorProtos. Each request of the stream is answered by one
response, an error by an ``ErrorResponse`` in the stream, which goes on. ``v1`` and ``v1alpha`` differ in their names
only (grpc/grpc doc/server-reflection.md).

Nothing hosts this by default. The files come from the descriptor pools of the hosted methods' requests: a method with a
handler of raw messages has none, and its service is listed, but not described, unless its pool is given.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import DecodeError

from mobysession._pb import reflection_pb2 as pb
from mobysession._pb import reflection_v1alpha_pb2 as pb_v1alpha
from mobysession.errors import RpcError, StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import Descriptor, FileDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["Reflection"]

Found = TypeVar("Found")

_V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_V1ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class Reflection:
    """Describe the services that are hosted beside this one.

    Args:
        pools: where to look besides the pools of the hosted methods, for services whose handlers take raw messages.
    """

    def __init__(self, *pools: DescriptorPool) -> None:
        self._pools = pools

    def register(self, registrar: Registrar) -> None:
        """Add ServerReflectionInfo in both versions; services that are added later are described as well."""
        serve = functools.partial(_serve, _Descriptions(registrar, self._pools))
        registrar.stream(_V1, serve, request=pb.ServerReflectionRequest)
        # The same bytes mean the same in both versions.
        registrar.stream(_V1ALPHA, serve, request=pb_v1alpha.ServerReflectionRequest)


async def _serve(descriptions: _Descriptions, call: ServerCall) -> None:
    sent: set[str] = set()
    while (message := await call.receive()) is not None:
        try:
            request = pb.ServerReflectionRequest.FromString(message)
        except DecodeError as error:
            raise RpcError(StatusCode.INTERNAL, f"{call.method}: the request cannot be decoded") from error
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            _answer(request, response, descriptions, sent)
        except RpcError as error:
            response.error_response.error_code = int(error.code)
            response.error_response.error_message = error.message
        await call.send(response.SerializeToString())


def _answer(
    request: pb.ServerReflectionRequest,
    response: pb.ServerReflectionResponse,
    descriptions: _Descriptions,
    sent: set[str],
) -> None:
    match request.WhichOneof("message_request"):
        case "list_services":
            names = (pb.ServiceResponse(name=name) for name in descriptions.services())
            response.list_services_response.service.extend(names)
        case "file_by_filename":
            found = descriptions.file_by_name(request.file_by_filename)
            response.file_descriptor_response.file_descriptor_proto.extend(_with_imports(found, sent))
        case "file_containing_symbol":
            found = descriptions.file_containing(request.file_containing_symbol)
            response.file_descriptor_response.file_descriptor_proto.extend(_with_imports(found, sent))
        case "file_containing_extension":
            wanted = request.file_containing_extension
            found = descriptions.file_extending(wanted.containing_type, wanted.extension_number)
            response.file_descriptor_response.file_descriptor_proto.extend(_with_imports(found, sent))
        case "all_extension_numbers_of_type":
            name = request.all_extension_numbers_of_type
            numbers = descriptions.extension_numbers(name)
            response.all_extension_numbers_response.base_type_name = name
            response.all_extension_numbers_response.extension_number.extend(numbers)
        case _:
            raise RpcError(StatusCode.INVALID_ARGUMENT, "the request asks for nothing that is known here")


def _with_imports(file: FileDescriptor, sent: set[str]) -> Iterator[bytes]:
    """Yield a file, then those it imports, directly or not; each that was sent on this stream before is left out.

    The file itself is always sent: whoever asks for it again has lost it.
    """
    waiting = [file]
    sent.discard(file.name)
    while waiting:
        one = waiting.pop()
        if one.name not in sent:
            sent.add(one.name)
            yield one.serialized_pb
            waiting.extend(one.dependencies)


class _Descriptions:
    """What is known of the services of a registrar; each lookup raises RpcError NOT_FOUND where there is nothing."""

    def __init__(self, registrar: Registrar, pools: tuple[DescriptorPool, ...]) -> None:
        self._registrar = registrar
        self._pools = pools

    def services(self) -> list[str]:
        """Return the full names of the hosted services, sorted."""
        return sorted({name.split("/")[1] for name in self._registrar.methods})

    def file_by_name(self, name: str) -> FileDescriptor:
        """Return the file called ``name``."""
        return self._first(f"file {name!r}", lambda pool: pool.FindFileByName(name))

    def file_containing(self, symbol: str) -> FileDescriptor:
        """Return the file that declares ``symbol``: a service, a method of one, a type, a field, an extension."""
        return self._first(f"symbol {symbol!r}", functools.partial(_file_containing, symbol=symbol))

    def file_extending(self, type_name: str, number: int) -> FileDescriptor:
        """Return the file that declares the extension of a message by its field number."""

        def find(pool: DescriptorPool) -> FileDescriptor:
            extended: Descriptor = pool.FindMessageTypeByName(type_name)
            extension: Any = pool.FindExtensionByNumber(extended, number)
            file: FileDescriptor = extension.file
            return file

        return self._first(f"extension {number} of {type_name!r}", find)

    def extension_numbers(self, type_name: str) -> list[int]:
        """Return the field numbers of a message's extensions, sorted."""

        def find(pool: DescriptorPool) -> list[int]:
            extensions = pool.FindAllExtensions(pool.FindMessageTypeByName(type_name))
            return sorted(extension.number for extension in extensions)

        return self._first(f"type {type_name!r}", find)

    def _first(self, what: str, find: Callable[[DescriptorPool], Found]) -> Found:
        known: list[Any] = [
            method.request.DESCRIPTOR.file.pool for method in self._registrar if method.request is not None
        ]
        for pool in dict.fromkeys((*known, *self._pools)):
            try:
                return find(pool)
            except KeyError:
                continue
        raise RpcError(StatusCode.NOT_FOUND, f"{what} is not known here")


def _file_containing(pool: DescriptorPool, symbol: str) -> FileDescriptor:
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        service_name, _, method_name = symbol.rpartition(".")
        service = pool.FindServiceByName(service_name)
        if method_name not in service.methods_by_name:
            raise
        file: FileDescriptor = service.file
        return file
