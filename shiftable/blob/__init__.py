"""Blob storage: buckets of objects."""

from shiftable.blob._bucket import Bucket, Method
from shiftable.blob._store import BlobStore
from shiftable.blob._stream import ObjectStream
from shiftable.blob._sync import SyncStep, sync
from shiftable.blob._upload import Source
from shiftable.blob.driver import (
    BlobFeatures,
    BucketSpec,
    CommonPrefix,
    CorsMethod,
    CorsRule,
    Headers,
    LifecycleRule,
    Lock,
    ObjectInfo,
    ObjectSummary,
    ObjectVersion,
    PendingUpload,
    Retention,
    RetentionMode,
    SignedURL,
    StorageClass,
    translate_class,
)
from shiftable.tokens import Token

__all__ = [
    "BlobFeatures",
    "BlobStore",
    "Bucket",
    "BucketSpec",
    "CommonPrefix",
    "CorsMethod",
    "CorsRule",
    "Headers",
    "LifecycleRule",
    "Lock",
    "Method",
    "ObjectInfo",
    "ObjectStream",
    "ObjectSummary",
    "ObjectVersion",
    "PendingUpload",
    "Retention",
    "RetentionMode",
    "SignedURL",
    "Source",
    "StorageClass",
    "SyncStep",
    "Token",
    "sync",
    "translate_class",
]
