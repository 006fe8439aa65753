"""Read and write SOPS files with age: the format itself, as a library.

A SOPS file is a YAML or JSON document with its keys in clear and its values encrypted, so that a repository can hold
it and a reviewer can see what changed. What this package writes, ``sops -d`` reads, and the other way round.

How the format protects a document, and where that ends:

- A random *data key* encrypts every value (AES-256-GCM, bound to the keys on the way to it) and is itself encrypted
  for each recipient with age. Whoever may read one value may read all.
- The *MAC* is a SHA-512 over all values in the order of the document, encrypted under the data key. It makes dropped,
  reordered and exchanged values known. It covers neither the names of keys whose values are in clear, nor nulls, nor
  where one value ends and the next begins, nor the type that is noted beside a value: who depends on those must
  protect them as well.
- Age does not say who encrypted. Whoever can write the file can replace all of it by another whole one, or by an
  older one; signed commits show that. Nor does anything vouch for the names of the recipients in a file: when you
  encrypt anew, take them from rules of your own.

Formats are YAML, JSON, dotenv, INI (text without quotes) and binary: one value ``data`` of any bytes. Values are text,
whole numbers of 64 bits, numbers with a point, booleans and (encrypted only) bytes. Comments are kept; dates must be
quoted. Key groups (Shamir), comment rules and several documents in one file are refused.

>>> private, public = generate_identity()
>>> content = dump(Document({"db": {"password": "s3cret", "port": 5432}}, recipients=(public,)))
>>> b"s3cret" in content
False
>>> load(content, parse_identities(private)).data
{'db': {'password': 's3cret', 'port': 5432}}
"""

from shiftable.sops._age import Identities, find_identities, generate_identity, parse_identities
from shiftable.sops._comments import Comment
from shiftable.sops._document import Document, Inspection, dump, from_plain, inspect, load, recipients, to_plain
from shiftable.sops._leaves import Rule
from shiftable.sops._merge import Merge, merged, shown, tag_key
from shiftable.sops._policy import FileRule, Policy
from shiftable.sops._repository import Changed, Finding, Repository, reseal, tracked
from shiftable.sops._scan import Allowed, Allowlist, Leak, scan
from shiftable.sops._seal import EXPOSED_LABEL, SECRET_RULE, expose, is_secret, seal_fits, sealed
from shiftable.sops._text import FORMATS, Format, format_of

__all__ = [
    "EXPOSED_LABEL",
    "FORMATS",
    "SECRET_RULE",
    "Allowed",
    "Allowlist",
    "Changed",
    "Comment",
    "Document",
    "FileRule",
    "Finding",
    "Format",
    "Identities",
    "Inspection",
    "Leak",
    "Merge",
    "Policy",
    "Repository",
    "Rule",
    "dump",
    "expose",
    "find_identities",
    "format_of",
    "from_plain",
    "generate_identity",
    "inspect",
    "is_secret",
    "load",
    "merged",
    "parse_identities",
    "recipients",
    "reseal",
    "scan",
    "seal_fits",
    "sealed",
    "shown",
    "tag_key",
    "to_plain",
    "tracked",
]
