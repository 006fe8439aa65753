"""Azure Blob Storage."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import attrs
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from azure.storage.blob import (
    BlobBlock,
    BlobProperties,
    ContentSettings,
    ImmutabilityPolicy,
    StandardBlobTier,
)

from shiftable.blob.driver import (
    BlobDriver,
    BlobFeatures,
    BucketSpec,
    CommonPrefix,
    Download,
    Headers,
    Lock,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    Part,
    PutOptions,
    Range,
    Retention,
    RetentionMode,
    SignedURL,
    SignOptions,
    Upload,
)
from shiftable.errors import Conflict, Fault, Resource, Unavailable, Unsupported
from shiftable.paging import Page
from shiftable.tokens import Token
from shiftable_azure import _order, rules
from shiftable_azure._arm import ArmRefusal
from shiftable_azure._calls import Arguments, Calls, fetch, moment, token
from shiftable_azure._order import Fetched, Stretch
from shiftable_azure._wire import Wire
from shiftable_azure.errors import ArmFailure, classify, classify_arm, code_of, fault_of

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

    from shiftable_azure._lifecycle import Lifecycles
    from shiftable_azure._session import Session

__all__ = ["AzureBlobDriver"]

_PAGE = 5_000
_COPY_LIMIT = 5_000 * 1024**2
_COPY_PART = 512 * 1024**2
_COPY_WORKERS = 8
_BLOCKS = 50_000
_SKEW = timedelta(seconds=2)
_PERMISSIONS = {"GET": "r", "PUT": "cw", "DELETE": "d"}
_UNMET = {"BlobAlreadyExists", "ConditionNotMet"}
_DEFAULT_TYPE = "application/octet-stream"
_PLAIN = SignOptions()
_UNLOCKED = Lock()
_MODES: Mapping[RetentionMode, str] = {"governance": "Unlocked", "compliance": "Locked"}


@attrs.define
class _Tries:
    """Learns from the SDK that a request is sent again: its first answer may have been lost.

    Args:
        look: for a write without a condition: says under which one it may be repeated.
        guarded: whether that was asked.
    """

    look: Callable[[_Tries], Mapping[str, str]] | None = None
    began: float = attrs.field(factory=time.monotonic)
    again: bool = False
    guarded: bool = False

    def __call__(self, *, request: Any, response: Any, error: Exception | None, **_: object) -> None:  # noqa: ANN401  the SDK's
        self.again = True
        if self.look is None or not _may_have_happened(response, error):
            return
        for name in ("If-Match", "If-None-Match"):
            request.headers.pop(name, None)
        condition = self.look(self)
        request.headers.update(condition)
        self.guarded = self.guarded or bool(condition)

    def moment(self, headers: Mapping[str, str] | None) -> datetime:
        """Return the server's time of the first attempt, from what an answer of now has for a date."""
        stated = headers.get("date") if headers is not None else None
        now = moment(stated) if stated else datetime.now(UTC)
        return now - timedelta(seconds=time.monotonic() - self.began)


def _may_have_happened(response: Any, error: Exception | None) -> bool:  # noqa: ANN401  azure-core's
    """Tell whether a request that failed may have been executed: not if it never left, nor if the server was busy."""
    if isinstance(error, ServiceRequestError):
        return False
    return response is None or response.status_code not in {429, 503}


@attrs.define(eq=False)
class AzureBlobDriver(BlobDriver):
    """Block blobs of one storage account; containers are buckets.

    Permissions: those of ``AzureProvider``. Containers are made without public access, and stay without.

    Accounts with hierarchical namespace are another kind of storage: directories exist there, and some of what is said
    here does not hold.

    Storage classes are access tiers. Without one the account's default applies, which may be another than ``Hot``.

    MD5: sent with every object that is written in one piece, and with each part; Azure compares it. It is kept with the
    object, so that listings tell it, also for objects in parts if the writer knows the MD5 of the whole.

    Lost answers: the SDK sends the request again, and a conditional write then fails on its own first success. The
    driver looks: what is there now and was written meanwhile, with the same content, headers and metadata, was written
    by us. A write without a condition is repeated under one, so that it is neither done twice nor overwrites what
    somebody wrote seconds after it. An object in parts is known by the ids of its blocks. A rival that writes the very
    same bytes in the same seconds cannot be told apart; let what serves as a lock name its holder.

    Uploads in parts: a part is an uncommitted block whose id begins with the id of the upload, so that the parts of two
    writers do not mix. Azure drops all uncommitted blocks of a key with each write of that key, by whomever: of two
    uploads to one key the first that completes lives, and the other fails with ``Conflict``. It also drops them a week
    after the last. It has no call to drop or to list them: an aborted upload leaves them until then, unseen.

    Deleting a container: Azure would delete it with all that it holds. The driver looks first; what another writer adds
    between the look and the deletion is lost.

    Presigned URLs: a PUT must carry the header ``x-ms-blob-type: BlockBlob``, as ``SignedURL.headers`` says. Azure
    binds no content type to a URL: what the request says is stored.

    Versions: an account keeps them for all of its containers or for none. There are no delete markers. To delete the
    current version is to delete the object and then that version; the one before it does not become the current one.

    Locks: a retention is the immutability policy of a version, in mode ``Unlocked`` for governance and ``Locked`` for
    compliance. A container has them with version-level immutability, which only the management plane switches on: for
    the account when that is made, or for a container by ``az storage container-rm create --enable-vlw``. Whoever may
    set an unlocked policy may also shorten it: that this takes ``bypass`` is the driver's own look before it writes,
    and two writers in the same moment are not told apart. It takes the role Storage Blob Data Owner, or the account's
    key.

    Args:
        session: whose credentials, retries and endpoint are used.
        features: ``VERSIONED_BLOB`` where the account keeps versions.
        lifecycles: the rules of the account's containers, where the features have them.
        copy_limit: what is larger, in bytes, is copied in parts.
        copy_part: size of these parts; larger where 50,000 of them do not suffice.
        page: entries of a listing that are asked for at once; 5,000 are Azure's most.
    """

    session: Session
    features: BlobFeatures
    provider: str = "azure"
    lifecycles: Lifecycles | None = attrs.field(default=None, kw_only=True)
    copy_limit: int = attrs.field(default=_COPY_LIMIT, kw_only=True)
    copy_part: int = attrs.field(default=_COPY_PART, kw_only=True)
    page: int = attrs.field(default=_PAGE, kw_only=True)
    _told_tags: set[str] = attrs.field(factory=set, init=False, repr=False)
    _default_tier: str | None = attrs.field(default=None, init=False, repr=False)
    _default_asked: bool = attrs.field(default=False, init=False, repr=False)
    _fast: AzureBlobDriver | None = attrs.field(default=None, init=False, repr=False)
    _calls: Calls = attrs.field(init=False, repr=False)

    @_calls.default
    def _made(self) -> Calls:
        return Wire(self.session) if self.session.is_lane else Calls(self.session)

    def classify(self, exc: Exception) -> Fault | None:
        """Claim the exceptions of azure-core and of the HTTP clients beneath it."""
        return classify_arm(exc) if isinstance(exc, ArmRefusal | ArmFailure) else classify(exc)

    @property
    def why_not_later(self) -> str:
        """Say who switches it on."""
        return (
            "only the management plane switches on version-level immutability, which object lock needs: `az storage "
            "container-rm migrate-vlw --name CONTAINER --storage-account ACCOUNT`, and apply again"
        )

    def check_name(self, name: str) -> str | None:
        """Apply the rules for containers."""
        return rules.container_name(name)

    def check_key(self, key: str) -> str | None:
        """Refuse what Azure would change or cannot have."""
        return BlobDriver.check_key(self, key) or rules.blob_key(key)

    def check_metadata(self, metadata: Mapping[str, str]) -> str | None:
        """Refuse what is no C# identifier, or what HTTP headers would change."""
        return BlobDriver.check_metadata(self, metadata) or rules.metadata(metadata)

    def check_headers(self, headers: Headers) -> str | None:
        """Refuse what is not ASCII, and blanks that a shared key's signature has otherwise."""
        return rules.headers(headers)

    def check_tags(self, tags: Mapping[str, str]) -> str | None:
        """Refuse the characters and lengths that Azure's tags do not have."""
        return BlobDriver.check_tags(self, tags) or rules.tags(tags)

    # buckets

    def missing_features(self, spec: BucketSpec) -> tuple[str, ...]:
        """Say what a declaration needs and the account does not have."""
        own = {
            "versioning": "versioning without the setting blob_versioning, of an account that keeps versions",
            "CORS rules": "CORS rules of one container: they are the whole account's; set them there and declare none",
        }
        return tuple(own.get(each, each) for each in super().missing_features(spec))

    def create(self, spec: BucketSpec) -> None:
        """Make a container, without public access."""
        if spec.versioning != self.features.versioning:
            raise self._fixed_versioning(spec.name, "create")
        tries = _Tries()
        try:
            self.session.blobs.create_container(spec.name, public_access=None, retry_hook=tries)
        except HttpResponseError as exc:
            if not (tries.again and code_of(exc) == "ContainerAlreadyExists"):
                raise
            made = self._container(spec.name).get_container_properties()
            if made.last_modified is None or made.last_modified < tries.moment(_headers_of(exc)) - _SKEW:
                raise
        if spec.object_lock and not self.describe(spec.name).object_lock:
            self.session.blobs.delete_container(spec.name)  # as we made it, in vain
            raise Unsupported(
                f"the account does not give new containers version-level immutability, which object lock needs: make "
                f"this one with `az storage container-rm create --name {spec.name} --storage-account ACCOUNT "
                f"--enable-vlw true`, and apply again",
                provider=self.provider,
                operation="blob.create",
                resource=Resource("bucket", spec.name),
            )
        if self.lifecycles is not None:  # also without rules: those of a container that others deleted may be left
            try:
                self.lifecycles.set(spec.name, spec.lifecycle)
            except Exception:
                self.session.blobs.delete_container(spec.name)
                raise

    def describe(self, name: str) -> BucketSpec:
        """Return the declaration; whether versions are kept is the account's."""
        found = self._container(name).get_container_properties()
        scope = found.encryption_scope
        return BucketSpec(
            name=name,
            versioning=self.features.versioning,
            lifecycle=self.lifecycles.of(name) if self.lifecycles is not None else (),
            public=found.public_access is not None,
            encryption=scope.default_encryption_scope if scope is not None else None,
            object_lock=self.features.object_lock and bool(found.immutable_storage_with_versioning_enabled),
        )

    def update(self, current: BucketSpec, spec: BucketSpec) -> None:
        """Set the lifecycle, and close what is open: stored access policies stay; that takes the account's key."""
        if spec.versioning != current.versioning:
            raise self._fixed_versioning(spec.name, "update")
        if self.lifecycles is not None and spec.lifecycle != current.lifecycle:
            if self.lifecycles.of(spec.name) != current.lifecycle:
                why = "the lifecycle is no longer what the change starts from; make a new plan"
                raise self._conflict(spec.name, "update", why)
            self.lifecycles.set(spec.name, spec.lifecycle)
        if current.public and not spec.public:
            container = self._container(spec.name)
            policies = container.get_container_access_policy()["signed_identifiers"]
            known = {policy.id: policy.access_policy for policy in policies}
            container.set_container_access_policy(known, public_access=None)

    def destroy(self, name: str) -> None:
        """Delete a container that holds no blob, no version and no snapshot."""
        held = self._container(name).list_blobs(include=["snapshots", "versions"], results_per_page=1).by_page()
        for page in held:
            if next(iter(page), None) is not None:
                why = "the container is not empty; versions and snapshots count as content"
                raise self._conflict(name, "delete", why)
        if self.lifecycles is not None:  # before: they would hold for the next container of that name
            self.lifecycles.set(name, ())
        tries = _Tries()
        try:
            self.session.blobs.delete_container(name, retry_hook=tries)
        except HttpResponseError as exc:
            # Sent again after a lost answer: what the first one was to delete is gone.
            if not (tries.again and code_of(exc) in {"ContainerNotFound", "ContainerBeingDeleted"}):
                raise

    def names(self, cursor: str | None, limit: int | None) -> Page[str]:
        """Return one page of at most 5,000 containers."""
        listing = self.session.blobs.list_containers(results_per_page=min(limit or self.page, self.page))
        pages: Any = listing.by_page(cursor)  # azure-core types a bare iterator
        names = tuple(str(container.name) for container in next(pages))
        return Page(names, pages.continuation_token or None)

    # writing

    def put(self, bucket: str, key: str, data: bytes, options: PutOptions) -> ObjectInfo:
        """Write an object in one piece, 5,000 MiB at most."""
        options = attrs.evolve(options, md5=options.md5 or hashlib.md5(data, usedforsecurity=False).digest())
        tries = self._tries(bucket, key, options, lambda info: _is(info, len(data), options))
        try:
            answer = self._calls.put(
                bucket, key, data, {"retry_hook": tries, **self._content(options), **_conditions(options)}
            )
        except HttpResponseError as exc:
            return self._found_own(bucket, key, len(data), options, exc, tries)
        return self._written(bucket, key, len(data), options, answer)

    def upload_begin(self, bucket: str, key: str, options: PutOptions) -> Upload:
        """Begin a block list. Azure does not hear of it; a missing container is found out here all the same."""
        self._container(bucket).get_container_properties()
        return Upload(bucket=bucket, key=key, id=uuid.uuid4().hex, options=options)

    def upload_part(self, upload: Upload, number: int, data: bytes, offset: int) -> Part:  # noqa: ARG002  ids say the order
        """Send one uncommitted block with its MD5."""
        block = _block(upload, number)
        self._calls.put_block(upload.bucket, upload.key, block, data)
        return Part(number=number, size=len(data), token=block)

    def upload_complete(self, upload: Upload, parts: tuple[Part, ...]) -> ObjectInfo:
        """Commit the block list."""
        blocks = [BlobBlock(part.token) for part in parts]
        blob, options = self._blob(upload.bucket, upload.key), upload.options
        tries = self._tries(upload.bucket, upload.key, options, lambda _: self._holds(blob, parts))
        try:
            answer = blob.commit_block_list(blocks, retry_hook=tries, **self._content(options), **_conditions(options))
        except HttpResponseError as exc:
            if not (tries.again and self._holds(blob, parts)):
                self._give_up(exc, tries)
            return self.stat(upload.bucket, upload.key, version=None)
        size = sum(part.size for part in parts)
        return self._written(upload.bucket, upload.key, size, options, answer)

    def upload_abort(self, upload: Upload) -> None:
        """Leave the blocks to Azure, which drops them a week later and shows them to no reader."""

    # reading

    def get(
        self,
        bucket: str,
        key: str,
        *,
        range_: Range | None,
        if_match: Token | None,
        version: str | None,
        if_none_match: Token | None = None,
    ) -> Download:
        """Open an object; one request, whatever its size."""
        selected = _selected(if_match, version, if_none_match)
        arguments = dict(selected)
        if range_ is not None:
            if range_.stop is not None and range_.stop <= range_.start:
                return self._nothing(bucket, key, selected)
            arguments["offset"] = range_.start
            if range_.stop is not None:
                arguments["length"] = range_.stop - range_.start
        try:
            headers, chunks = self._calls.open(bucket, key, arguments)
        except HttpResponseError as exc:
            if code_of(exc) == "ConditionNotMet" and if_match is not None:
                self._head(bucket, key, _selected(None, version))  # what is missing is no other version
            if range_ is None or code_of(exc) != "InvalidRange":
                raise
            return self._nothing(bucket, key, selected)
        content = headers.get("content-range")
        size = int(content.rpartition("/")[2]) if content else int(headers["content-length"])
        return Download(info=self._info(bucket, key, size, headers), chunks=chunks)

    def stat(self, bucket: str, key: str, *, version: str | None) -> ObjectInfo:
        """Return an object's properties. Azure states the error's code in a header, so that HEAD tells it too."""
        return self._head(bucket, key, _selected(None, version))

    def list(
        self,
        bucket: str,
        *,
        prefix: str,
        delimiter: str | None,
        start_after: str | None,
        cursor: str | None,
        limit: int | None,
    ) -> Page[ObjectSummary | CommonPrefix]:
        """Return one page of at most 5,000, brought into the order of UTF-8.

        ``start_after`` is Azure's ``startFrom``. A server that does not know it is listed from the prefix on.
        """
        if cursor is not None:
            stretches = _order.restored(cursor)
        elif start_after is None:
            stretches = (Stretch(prefix, known=len(prefix)),)
        else:
            stretches = self._behind(bucket, prefix, delimiter, start_after)
        if not stretches:
            self._container(bucket).get_container_properties()
            return Page(())
        size = min((limit or self.page) + (start_after is not None), self.page)
        rows, left = _order.read(stretches, lambda stretch: self._calls.page(bucket, stretch, delimiter, size))
        return Page(tuple(row.item for row in rows), _order.written(left))

    # deleting

    def delete(self, bucket: str, key: str, *, if_match: Token | None, version: str | None) -> None:
        """Delete an object or one version of it. A blob with snapshots is not deleted."""
        tries = _Tries()
        try:
            self._delete(bucket, key, version, {"retry_hook": tries, **_selected(if_match, None)})
        except HttpResponseError as exc:
            # Sent again after a lost answer: what the first one was to delete is gone.
            if code_of(exc) != "BlobNotFound" or (if_match is not None and not tries.again):
                raise

    def delete_many(self, bucket: str, keys: tuple[str, ...]) -> Mapping[str, Fault]:
        """Delete up to 256 objects."""
        answers: Any = self._container(bucket).delete_blobs(*keys, raise_on_any_failure=False)  # a response for each
        failed = {key: answer for key, answer in zip(keys, answers, strict=True) if answer.status_code >= 300}
        for answer in failed.values():
            if _code(answer) == "ContainerNotFound":  # Azurite says so in each of them
                raise HttpResponseError(response=answer)
        return {key: _fault(answer) for key, answer in failed.items() if _code(answer) != "BlobNotFound"}

    # optional

    def copy(
        self,
        bucket: str,
        key: str,
        to_bucket: str,
        to_key: str,
        options: PutOptions | None,
        *,
        version: str | None = None,
    ) -> ObjectInfo:
        """Copy inside Azure, in parts above 5,000 MiB; the source must stay in the version that was found first."""
        source = self.stat(bucket, key, version=version)
        wanted = options
        if wanted is None:
            tags = {} if source.tag_count == 0 else self.tags(bucket, key, version=version)
            wanted = PutOptions(headers=source.headers, metadata=source.metadata, tags=tags)
        wanted = attrs.evolve(wanted, md5=source.md5)
        if source.size > self.copy_limit or wanted.lock != _UNLOCKED:  # a copy of the whole takes no lock
            return self._copy_blocks(bucket, source, to_bucket, to_key, wanted, version)
        url, authorization = self.session.source(bucket, key, version)
        tries = self._tries(to_bucket, to_key, wanted, lambda info: _is(info, source.size, wanted))
        try:
            # The source's own properties are copied with its MD5, which cannot be said beside other properties.
            arguments: Arguments = {
                "retry_hook": tries,
                "include_source_blob_properties": options is None,
                "source_content_md5": bytearray(source.md5) if source.md5 is not None else None,
                "source_etag": _quoted(source.token),
                "source_match_condition": MatchConditions.IfNotModified,
            }
            stored = self._content(wanted, with_headers=options is not None)
            self._calls.copy(to_bucket, to_key, url, arguments | authorization | stored | _conditions(wanted))
        except HttpResponseError as exc:
            return self._found_own(to_bucket, to_key, source.size, wanted, exc, tries)
        return self.stat(to_bucket, to_key, version=None)

    def tags(self, bucket: str, key: str, *, version: str | None = None) -> Mapping[str, str]:
        """Return an object's tags."""
        tags = dict(self._blob(bucket, key).get_blob_tags(**_selected(None, version)))
        self._told_tags.add(bucket)
        return tags

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        """Replace all tags of an object."""
        self._blob(bucket, key).set_blob_tags(dict(tags))

    def set_retention(
        self, bucket: str, key: str, retention: Retention | None, *, version: str | None, bypass: bool
    ) -> None:
        """Set the policy of a version or delete it. Whoever may set it may shorten it to Azure: the driver looks."""
        self._require_locks()
        blob, selected = self._blob(bucket, key), _selected(None, version)
        if not bypass:
            self._require_longer(bucket, key, version, retention)
        if retention is None:
            blob.delete_immutability_policy(**selected)
            return
        policy = ImmutabilityPolicy(expiry_time=retention.until, policy_mode=_MODES[retention.mode])
        blob.set_immutability_policy(policy, **selected)

    def set_hold(self, bucket: str, key: str, *, hold: bool, version: str | None) -> None:
        """Set it or clear it."""
        self._require_locks()
        self._blob(bucket, key).set_legal_hold(hold, **_selected(None, version))

    def versions(self, bucket: str, *, prefix: str, cursor: str | None, limit: int | None) -> Page[ObjectVersion]:
        """Return one page of versions. Those of one object come together, and are in memory at once."""
        if not self.features.versioning:
            raise Unsupported("no versions: the account keeps none, or the setting blob_versioning does not say so")
        stretches = (Stretch(prefix, known=len(prefix)),) if cursor is None else _order.restored(cursor)
        container, size = self._container(bucket), min(max(limit or self.page, 2), self.page)
        entries, left = _order.read(stretches, lambda stretch: _fetched_whole(container, stretch, size))
        rows: list[ObjectVersion] = []
        for _, group in groupby(entries, key=lambda entry: entry.name):
            rows += sorted(map(_row, group), key=lambda row: row.version, reverse=True)
        return Page(tuple(rows), _order.written(left))

    def sign(
        self,
        bucket: str,
        key: str,
        *,
        method: Literal["GET", "PUT", "DELETE"],
        expires: timedelta,
        content_type: str | None,
        options: SignOptions = _PLAIN,
    ) -> str:
        """Sign a URL with a user delegation key, or with the account's."""
        overrides = {
            "content_type": options.answer.content_type,
            "content_disposition": options.answer.content_disposition,
        }
        url = self.session.signed(bucket, key, _PERMISSIONS[method], max(expires, timedelta(seconds=1)), **overrides)
        if method != "PUT":
            return SignedURL(url)
        typed = {} if content_type is None else {"Content-Type": content_type}
        return SignedURL(url, {"x-ms-blob-type": "BlockBlob", **typed})

    def lane(self) -> AzureBlobDriver:
        """Return this driver over connections of its own that cost less, unless somebody gave it a transport."""
        session = self.session.lane()
        if session is self.session:
            return self
        if self._fast is None:
            self._fast = attrs.evolve(self, session=session)
        return self._fast

    @property
    def gives_way(self) -> bool:
        """The bulk lane does."""
        return self.session.is_lane

    def close(self) -> None:
        """Close the session's connections."""
        if self._fast is not None:
            self._fast.close()
        self.session.close()

    # work

    def _container(self, name: str) -> ContainerClient:
        return self.session.blobs.get_container_client(name)

    def _blob(self, bucket: str, key: str) -> BlobClient:
        return self._calls.blob(bucket, key)

    def _content(self, options: PutOptions, *, with_headers: bool = True) -> Arguments:
        """Return what is stored with an object. The type is always said, so that it does not depend on the call."""
        headers = _kept(options.headers)
        arguments: Arguments = {"metadata": dict(options.metadata)}
        if with_headers:
            arguments["content_settings"] = ContentSettings(
                content_type=headers.content_type,
                cache_control=headers.cache_control,
                content_disposition=headers.content_disposition,
                content_encoding=headers.content_encoding,
                content_language=headers.content_language,
                content_md5=bytearray(options.md5) if options.md5 is not None else None,
            )
        if options.tags:
            arguments["tags"] = dict(options.tags)
        if options.storage_class is not None:
            arguments["standard_blob_tier"] = StandardBlobTier(options.storage_class)
        kept = options.retention
        if kept is not None:
            arguments["immutability_policy"] = ImmutabilityPolicy(expiry_time=kept.until, policy_mode=_MODES[kept.mode])
        if options.hold:
            arguments["legal_hold"] = True
        return arguments

    def _require_locks(self) -> None:
        if not self.features.object_lock:
            raise Unsupported("no object lock: the account keeps no versions, or blob_versioning does not say so")

    def _require_longer(self, bucket: str, key: str, version: str | None, retention: Retention | None) -> None:
        """Refuse what would weaken a retention or change its mode."""
        present = self.stat(bucket, key, version=version).retention
        if present is None or present.until <= datetime.now(UTC):
            return
        if retention is None or retention.mode != present.mode or retention.until < present.until:
            raise self._locked(bucket, key, Lock(retention=present))

    def _locked(self, bucket: str, key: str, lock: Lock) -> Conflict:
        resource = Resource("object", key, Resource("bucket", bucket))
        return Conflict(f"the version is locked: {lock}", provider=self.provider, resource=resource)

    def _fixed_versioning(self, name: str, operation: str) -> Unsupported:
        has = self.features.versioning
        return Unsupported(
            f"the storage account keeps {'' if has else 'no '}versions of blobs (setting blob_versioning), in all "
            f"containers: declare versioning = {str(has).lower()}, or use another account",
            provider=self.provider,
            operation=f"blob.{operation}",
            resource=Resource("bucket", name),
        )

    def _conflict(self, name: str, operation: str, why: str) -> Conflict:
        return Conflict(why, provider=self.provider, operation=f"blob.{operation}", resource=Resource("bucket", name))

    def _head(self, bucket: str, key: str, arguments: Arguments) -> ObjectInfo:
        headers = self._calls.properties(bucket, key, arguments)
        return self._info(bucket, key, int(headers["content-length"]), headers)

    def _nothing(self, bucket: str, key: str, arguments: Arguments) -> Download:
        return Download(info=self._head(bucket, key, arguments), chunks=iter(()))

    def _info(self, bucket: str, key: str, size: int, headers: Mapping[str, str]) -> ObjectInfo:
        digest = headers.get("x-ms-blob-content-md5") or (
            None if "content-range" in headers else headers.get("content-md5")
        )
        return ObjectInfo(
            key=key,
            size=size,
            token=token(headers["etag"]),
            modified=moment(headers["last-modified"]),
            md5=base64.b64decode(digest) if digest else None,
            storage_class=self._tier(headers),
            headers=Headers(
                content_type=headers.get("content-type") or None,
                cache_control=headers.get("cache-control") or None,
                content_disposition=headers.get("content-disposition") or None,
                content_encoding=headers.get("content-encoding") or None,
                content_language=headers.get("content-language") or None,
            ),
            metadata={name[10:]: value for name, value in headers.items() if name.lower().startswith("x-ms-meta-")},
            version=self._version(headers.get("x-ms-version-id")),
            tag_count=self._tag_count(bucket, headers),
            retention=_retention(headers),
            hold=headers.get("x-ms-legal-hold") == "true",
        )

    def _tag_count(self, bucket: str, headers: Mapping[str, str]) -> int | None:
        """Return how many tags an object has. Azure tells of none neither to all who ask nor to whom may not read them.

        Whoever was told of tags in a container once, or holds the account's key, has none where none are told.
        """
        told = headers.get("x-ms-tag-count")
        if told is not None:
            self._told_tags.add(bucket)
            return int(told)
        return 0 if bucket in self._told_tags or self.session.has_account_key else None

    def _written(self, bucket: str, key: str, size: int, options: PutOptions, answer: Mapping[str, Any]) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size=size,
            token=token(answer["etag"]),
            modified=answer["last_modified"],
            md5=options.md5,
            storage_class=options.storage_class or self._default_class(bucket, key),
            headers=_kept(options.headers),
            metadata=options.metadata,
            version=self._version(answer.get("version_id")),
            tag_count=len(options.tags),
            retention=options.retention,
            hold=options.hold,
        )

    def _default_class(self, bucket: str, key: str) -> str | None:
        """Return the account's default tier, which writes do not tell: the driver looks at the first that it made."""
        if self._default_tier is None and not self._default_asked:
            self._default_asked = True
            with suppress(HttpResponseError):  # the credentials may not read, or somebody has deleted it
                self.stat(bucket, key, version=None)
        return self._default_tier

    def _tier(self, headers: Mapping[str, str]) -> str | None:
        tier = headers.get("x-ms-access-tier")
        if headers.get("x-ms-access-tier-inferred") == "true":
            self._default_tier = tier
        return tier

    def _version(self, id_: str | None) -> str | None:
        return id_ if self.features.versioning else None

    def _behind(self, bucket: str, prefix: str, delimiter: str | None, start_after: str) -> tuple[Stretch, ...]:
        """Return what comes behind a key; a prefix that holds it, and more behind it, is still to come."""
        at = start_after.find(delimiter, len(prefix)) if delimiter and start_after.startswith(prefix) else -1
        if delimiter is None or at < 0:
            return _order.behind(prefix, start_after)
        rolled = start_after[: at + len(delimiter)]
        rest = self.list(bucket, prefix=rolled, delimiter=None, start_after=start_after, cursor=None, limit=1)
        while not rest.items and rest.next is not None:
            rest = self.list(bucket, prefix=rolled, delimiter=None, start_after=None, cursor=rest.next, limit=1)
        first, *others = _order.behind(prefix, rolled)
        return (attrs.evolve(first, without_start=not rest.items), *others)

    def _delete(self, bucket: str, key: str, version: str | None, arguments: Arguments) -> None:
        if version is None:
            self._calls.delete(bucket, key, arguments)
            return
        try:
            self._calls.delete(bucket, key, {**arguments, "version_id": version})
        except HttpResponseError as exc:
            if code_of(exc) != "OperationNotAllowedOnRootBlob":
                raise
            # It is the current version: it becomes an older one with the deletion of the object, if that is still it.
            info = self.stat(bucket, key, version=version)
            if info.lock.is_active(_now(exc)):  # else the object would be gone, and only that
                raise self._locked(bucket, key, info.lock) from exc
            self._calls.delete(bucket, key, arguments | _selected(info.token, None))
            self._calls.delete(bucket, key, {"version_id": version})

    def _tries(self, bucket: str, key: str, options: PutOptions, ours: Callable[[ObjectInfo], bool]) -> _Tries:
        """Have a write without a condition repeated under one, if its first attempt may have happened."""
        if options.if_absent or options.if_match is not None:
            return _Tries()

        def look(tries: _Tries) -> Mapping[str, str]:
            try:
                headers = self._calls.properties(bucket, key, {})
            except HttpResponseError as exc:
                return {"If-None-Match": "*"} if code_of(exc) == "BlobNotFound" else {}  # who may not look repeats
            info, began = self._info(bucket, key, int(headers["content-length"]), headers), tries.moment(headers)
            done = info.modified >= began - _SKEW and ours(info)
            overtaken = info.modified > began + _SKEW
            return {"If-None-Match": "*"} if done or overtaken else {"If-Match": headers["etag"]}

        return _Tries(look)

    def _found_own(
        self, bucket: str, key: str, size: int, options: PutOptions, exc: HttpResponseError, tries: _Tries
    ) -> ObjectInfo:
        """Return what is there if it is what we have just written: a write that failed on its own first attempt."""
        if not tries.again or code_of(exc) not in _UNMET:
            raise exc
        try:
            info = self.stat(bucket, key, version=None)
        except HttpResponseError:
            self._give_up(exc, tries)
        if not _is(info, size, options) or info.modified < tries.moment(_headers_of(exc)) - _SKEW:
            self._give_up(exc, tries)
        return info

    def _give_up(self, exc: HttpResponseError, tries: _Tries) -> NoReturn:
        """Raise what is left of a write that was repeated."""
        if not tries.guarded or code_of(exc) not in _UNMET:
            raise exc
        why = (
            "the answer was lost, and somebody has written the object since; whether this write came first is not known"
        )
        raise Unavailable(why, provider=self.provider, code=code_of(exc)) from exc

    def _holds(self, blob: BlobClient, parts: tuple[Part, ...]) -> bool:
        """Tell whether a blob is made of these parts; their ids are of one upload."""
        try:
            committed, _ = blob.get_block_list("committed")
        except HttpResponseError:
            return False
        return [block.id for block in committed] == [part.token for part in parts]

    def _copy_blocks(
        self,
        bucket: str,
        source: ObjectInfo,
        to_bucket: str,
        to_key: str,
        options: PutOptions,
        version: str | None,
    ) -> ObjectInfo:
        upload = self.upload_begin(to_bucket, to_key, options)
        blob = self._blob(to_bucket, to_key)
        step = max(self.copy_part, -(-source.size // _BLOCKS))

        def part(start: int) -> Part:
            number, size = start // step + 1, min(step, source.size - start)
            url, authorization = self.session.source(bucket, source.key, version)
            blob.stage_block_from_url(
                _block(upload, number),
                url,
                source_offset=start,
                source_length=size,
                headers={"x-ms-source-if-match": _quoted(source.token)},  # the SDK has no argument for it
                **authorization,
            )
            return Part(number=number, size=size, token=_block(upload, number))

        with ThreadPoolExecutor(_COPY_WORKERS, thread_name_prefix="shiftable-copy") as pool:
            parts = tuple(pool.map(part, range(0, source.size, step)))
        return self.upload_complete(upload, parts)


# arguments of calls


def _conditions(options: PutOptions) -> Arguments:
    if options.if_absent:
        return {"match_condition": MatchConditions.IfMissing}
    return {} if options.if_match is None else _selected(options.if_match, None)


def _selected(if_match: Token | None, version: str | None, if_none_match: Token | None = None) -> Arguments:
    arguments: Arguments = {} if version is None else {"version_id": version}
    if if_match is not None:
        arguments |= {"etag": _quoted(if_match), "match_condition": MatchConditions.IfNotModified}
    elif if_none_match is not None:
        arguments |= {"etag": _quoted(if_none_match), "match_condition": MatchConditions.IfModified}
    return arguments


def _block(upload: Upload, number: int) -> str:
    """Return a block's id: all of one key must have the same length, 64 bytes at most."""
    return f"{upload.id}-{number:05d}"


def _quoted(token: Token) -> str:
    return f'"{token.value}"'


# values out of answers


def _is(info: ObjectInfo, size: int, options: PutOptions) -> bool:
    """Tell whether an object is what these options write; without an MD5 nobody knows."""
    same = options.md5 is not None and (info.md5, info.size) == (options.md5, size)
    return same and (info.headers, info.metadata) == (_kept(options.headers), options.metadata)


def _headers_of(exc: HttpResponseError) -> Mapping[str, str] | None:
    response: Any = exc.response  # azure-core types less than all responses have
    return None if response is None else response.headers


def _now(exc: HttpResponseError) -> datetime:
    """Return the server's time of a refusal."""
    stated = (_headers_of(exc) or {}).get("date")
    return moment(stated) if stated else datetime.now(UTC)


def _retention(headers: Mapping[str, str]) -> Retention | None:
    told, until = headers.get("x-ms-immutability-policy-mode"), headers.get("x-ms-immutability-policy-until-date")
    mode = next((mode for mode, name in _MODES.items() if told is not None and name.lower() == told.lower()), None)
    return Retention(until=moment(until), mode=mode) if mode is not None and until else None


def _kept(headers: Headers) -> Headers:
    return headers if headers.content_type is not None else attrs.evolve(headers, content_type=_DEFAULT_TYPE)


def _fetched_whole(container: ContainerClient, stretch: Stretch, size: int) -> Fetched:
    """Fetch versions until those of one object are complete; go on from the name of the next."""
    fetched: list[BlobProperties] = []
    page = Fetched((), stretch.marker)
    while True:
        page = fetch(container, attrs.evolve(stretch, marker=page.marker), None, size, include=["versions"])
        fetched += page.entries
        if page.marker is None:
            return Fetched(tuple(fetched))
        if fetched and fetched[-1].name != fetched[0].name:
            last = fetched[-1].name
            return Fetched(tuple(entry for entry in fetched if entry.name != last), start=last)


def _row(entry: BlobProperties) -> ObjectVersion:
    return ObjectVersion(
        key=entry.name,
        version=str(entry.version_id),
        size=entry.size,
        token=token(entry.etag),
        modified=entry.last_modified,
        latest=bool(entry.is_current_version),
    )


def _code(answer: Any) -> str:  # noqa: ANN401  azure-core's response to a part of a batch
    return str(answer.headers.get("x-ms-error-code", ""))


def _fault(answer: Any) -> Fault:  # noqa: ANN401  the same
    return fault_of(answer.status_code, answer.headers, _code(answer), answer.reason or "")
