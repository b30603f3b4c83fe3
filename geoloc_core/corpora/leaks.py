"""What sets of photos share that a model could answer from memory: the stage ``geoloc leaks``.

The sets are the splits of each training corpus, and each benchmark (:mod:`geoloc_core.sets`). Shared are

- ``photographers``: photos by one author, who returns to the same places with the same camera;
- ``near_duplicates``: photos whose perceptual hashes differ in few bits, so copies of one picture;
- ``neighbours``: photos less than a kilometre apart on the sphere.

Training on a set that shares photographers or near-duplicates with what the model is scored on makes its scores too
good, and is refused unless ``leaks.allow`` of ``params.yaml`` names the kind and the two sets. Neighbours are reported
and block only if ``leaks.block`` names them: the famous places are in every set of photos from the web (IM2GPS and
MP-16 both come from Flickr), and to know a place is what is asked of a model, to know the picture is not.
So is training on a corpus whose validation split, on which models are chosen, shares them with its test split, which is
only reported. Validation and benchmarks may share what they like, since nothing is learnt from either. A benchmark that
no variant is scored on is compared and blocks nothing. Training corpora are not compared with each other: their photos
are often the same by construction (MP-16 is a part of YFCC100M, the 50 cities of the UK are among the 150), and a model
learns from one of them and is validated on that one's own.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc_core import files, parquet, plots, progress
from geoloc_core.corpora import leaked, manifest, near
from geoloc_core.geo import sphere
from geoloc_core.sets import LeakKind, Split, in_order, leak_name, leak_parts, set_name, set_parts

if TYPE_CHECKING:
    from geoloc_core.params import Leaks
    from geoloc_core.project import Project

EXAMPLES = 3
Finder = Callable[[int, int], np.ndarray]
"""The rows of one set that share something with another, each with a row of that one: (P, 2); −1 where unknown."""


@dataclass(frozen=True)
class Photos:
    """The photos of all sets, N rows.

    Attributes:
        sets: Names of the sets, such as ``mp16/train`` and ``im2gps``.
        member: (N,) the number of each row's set.
        ids: (N,) ``image_id``.
        authors: (N,) numbers of photographers, −1 where unknown.
        latitudes: (N,) degrees, NaN where unknown.
        longitudes: (N,) degrees, NaN where unknown.
        hashes: (N,) uint64.
        hashed: (N,) bool, whether there is a hash.
    """

    sets: tuple[str, ...]
    member: np.ndarray
    ids: pa.ChunkedArray
    authors: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    hashes: np.ndarray
    hashed: np.ndarray


@dataclass(frozen=True)
class Leak:
    """What two sets share.

    Attributes:
        kind: What they share.
        sets: The two sets.
        photos: How many photos of either set share something with the other.
        share: The same as a share of the set.
        examples: Pairs of ids, one of either set.
        leaked: (L,) rows of the second set that share something with the first.
    """

    kind: LeakKind
    sets: tuple[str, str]
    photos: tuple[int, int]
    share: tuple[float, float]
    examples: tuple[tuple[str, str], ...]
    leaked: np.ndarray = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """What ``leaks.allow`` calls it."""
        return leak_name(self.kind, *self.sets)

    def row(self, blocking: bool) -> dict[str, Any]:
        """For the report."""
        return {
            "kind": self.kind,
            "sets": list(self.sets),
            "photos": list(self.photos),
            "share": [round(share, 6) for share in self.share],
            "blocking": blocking,
            "examples": [list(pair) for pair in self.examples],
        }


def leaks(project: "Project") -> None:
    """Compare all sets of the profile with one another, and write what they share.

    Raises:
        UserError: A corpus has not been ingested or labelled.
    """
    options, benchmarks = project.profile.leaks, project.profile.benchmarks
    files.check_folder(project.leaks, "leaks")
    photos = read(project)
    found, crowded = find(photos, options)
    blocking = [leak for leak in found if blocks(leak, options, benchmarks)]
    with files.replacing_folder(project.leaks, "leaks") as aside:
        rows = [leak.row(leak in blocking) for leak in found]
        files.write_json(aside / "leaks.json", {"sets": sizes(photos), "leaks": rows})
        # Apart, and without counts, so that only another verdict makes trained models stale.
        files.write_json(aside / "blocking.json", sorted(leak.name for leak in blocking))
        parquet.write(_leaked(photos, found, options), aside / leaked.NAME)
    files.write_json(project.summary("leaks", "leaks"), _summary(photos, found, blocking) | {"crowded": crowded})
    _plot(project, found)
    _tell(found, blocking)


def read(project: "Project") -> Photos:
    """All photos of the profile with what is compared, and the set of each.

    Raises:
        UserError: A corpus has not been ingested or labelled, or its labels are those of another manifest.
    """
    tables, sets = [], []
    for name in project.profile.corpora:
        table = manifest.read_manifest(project.corpus(name), ["image_id", "author", "latitude", "longitude", "phash"])
        labels = manifest.read_labels(project.labels(name), table["image_id"], ["split"])
        tables.append(table)
        split = pc.dictionary_encode(labels["split"].combine_chunks())
        names = pa.array([set_name(name, known) for known in split.dictionary.to_pylist()], pa.string())
        sets.append(pa.DictionaryArray.from_arrays(split.indices, names))
    photos = pa.concat_tables(tables)
    member = pa.chunked_array(sets).unify_dictionaries().combine_chunks()
    authors = pc.dictionary_encode(photos["author"].combine_chunks()).indices
    return Photos(
        sets=tuple(member.dictionary.to_pylist()),
        member=member.indices.to_numpy(),
        ids=photos["image_id"],
        authors=pc.fill_null(authors, -1).to_numpy(),
        latitudes=pc.fill_null(photos["latitude"], np.nan).to_numpy(),
        longitudes=pc.fill_null(photos["longitude"], np.nan).to_numpy(),
        hashes=pc.fill_null(photos["phash"], 0).to_numpy(),
        hashed=pc.is_valid(photos["phash"]).to_numpy(),
    )


def sizes(photos: Photos) -> dict[str, int]:
    """Photos per set."""
    counts = np.bincount(photos.member, minlength=len(photos.sets))
    return dict(zip(photos.sets, counts.tolist(), strict=True))


def find(photos: Photos, options: "Leaks") -> tuple[list[Leak], int]:
    """Everything that two sets share, of every kind; nothing where they share none.

    Returns:
        The leaks, and how many photos were not compared with all others, since too many look alike.
    """
    near_finder, crowded = near_duplicates(photos, options.near_bits)
    finders = {
        LeakKind.PHOTOGRAPHERS: photographers(photos),
        LeakKind.NEAR_DUPLICATES: near_finder,
        LeakKind.NEIGHBOURS: neighbours(photos, options.neighbour_km),
    }
    order = sorted(range(len(photos.sets)), key=lambda number: in_order(photos.sets[number]))
    pairs = [pair for pair in combinations(order, 2) if _compared(*(photos.sets[number] for number in pair))]
    found = [_leak(photos, kind, finder, *pair) for pair in pairs for kind, finder in finders.items()]
    return [leak for leak in found if any(leak.photos)], crowded


def _leaked(photos: Photos, found: list[Leak], options: "Leaks") -> pa.Table:
    """Every photo that is scored and shares something with photos that are learned from, of the kinds that block."""
    learned = [leak for leak in found if set_parts(leak.sets[0])[1] == Split.TRAIN and leak.kind in options.block]
    parts = [
        pa.table(
            {
                "image_id": photos.ids.take(pa.array(leak.leaked)),
                "scored": pa.array([leak.sets[1]] * len(leak.leaked), pa.string()),
                "learned": pa.array([leak.sets[0]] * len(leak.leaked), pa.string()),
            },
            schema=leaked.ROWS,
        )
        for leak in learned
    ]
    return pa.concat_tables([leaked.ROWS.empty_table(), *parts])


def _leak(photos: Photos, kind: LeakKind, finder: Finder, one: int, other: int) -> Leak:
    counts = np.bincount(photos.member)
    here, there = finder(one, other), finder(other, one)
    examples = tuple((str(photos.ids[int(b)]), str(photos.ids[int(a)])) for a, b in there[:EXAMPLES])
    shares = (len(here) / counts[one], len(there) / counts[other])
    sets = (photos.sets[one], photos.sets[other])
    return Leak(kind, sets, (len(here), len(there)), shares, examples, there[:, 0])


def _compared(one: str, other: str) -> bool:
    """Two splits of one corpus are, and any set with a benchmark."""
    corpora, splits = zip(*(set_parts(name) for name in (one, other)), strict=True)
    return corpora[0] == corpora[1] or Split.BENCHMARK in splits


def blocks(leak: Leak, options: "Leaks", benchmarks: Collection[str]) -> bool:
    """Whether training is refused where models are scored on these benchmarks and on their own held-out splits.

    It is where one set is learnt from and the other one scored, or where one chooses and the other one is for test.
    """
    (_, first), (second_corpus, second) = map(set_parts, leak.sets)
    own = second in (Split.VALIDATION, Split.TEST)
    learnt = first == Split.TRAIN and (own or second_corpus in benchmarks)
    chosen = first == Split.VALIDATION and second == Split.TEST
    return (
        (learnt or chosen)
        and leak.kind in options.block
        and leak.name not in {leak_name(*leak_parts(allowed)) for allowed in options.allow}
    )


def photographers(photos: Photos) -> Finder:
    """What finds the rows of one set by authors of another, each with that one's first photo."""

    def rows(number: int) -> np.ndarray:
        return np.flatnonzero((photos.member == number) & (photos.authors >= 0))

    def finder(one: int, other: int) -> np.ndarray:
        mine, theirs = rows(one), rows(other)
        known, first = np.unique(photos.authors[theirs], return_index=True)
        if not len(known):
            return np.empty((0, 2), np.int64)
        place = np.minimum(np.searchsorted(known, photos.authors[mine]), len(known) - 1)
        hit = known[place] == photos.authors[mine]
        return np.stack([mine[hit], theirs[first[place[hit]]]], axis=1)

    return finder


def near_duplicates(photos: Photos, bits: int) -> tuple[Finder, int]:
    """What finds the rows of one set that have a near-duplicate in another, with partners for the first few alone.

    Returns:
        The finder, and how many photos were not all compared, since too many look alike.
    """
    rows = np.flatnonzero(photos.hashed)
    member, hashes = photos.member[rows], photos.hashes[rows]
    search = near.open_search(hashes, bits)
    place = np.searchsorted(search.hashes, hashes)

    def reached(word: int) -> np.ndarray:
        """Per row, the sets in which it has a near-duplicate: a flag each of the sets 64 · word and up."""
        marks = np.zeros(len(search.hashes), np.uint64)
        here = member // 64 == word
        np.bitwise_or.at(marks, place[here], np.uint64(1) << (member[here] % 64).astype(np.uint64))
        return near.reach(search, marks)[place]

    reaches = [reached(word) for word in range(-(-len(photos.sets) // 64))]

    def finder(one: int, other: int) -> np.ndarray:
        hit = (member == one) & (reaches[other // 64] & np.uint64(1 << other % 64) != 0)
        mine, theirs = rows[hit], rows[member == other]
        partner = np.full(len(mine), -1)
        for example, row in enumerate(mine[:EXAMPLES]):
            partner[example] = theirs[np.bitwise_count(photos.hashes[theirs] ^ photos.hashes[row]).argmin()]
        return np.stack([mine, partner], axis=1)

    return finder, int(search.crowded[place].sum())


def neighbours(photos: Photos, km: float) -> Finder:
    """What finds the rows of one set less than so many kilometres from one of another, each with the nearest there."""
    from scipy.spatial import KDTree

    placed = np.isfinite(photos.latitudes) & np.isfinite(photos.longitudes)
    rows = [np.flatnonzero(placed & (photos.member == number)) for number in range(len(photos.sets))]
    vectors = [sphere.unit_vectors(photos.latitudes[mine], photos.longitudes[mine]) for mine in rows]
    trees = [KDTree(points, compact_nodes=False, balanced_tree=False) if len(points) else None for points in vectors]
    limit = float(sphere.chord(km))

    def finder(one: int, other: int) -> np.ndarray:
        tree = trees[other]
        if tree is None or not len(rows[one]):
            return np.empty((0, 2), np.int64)
        away, nearest = tree.query(vectors[one], distance_upper_bound=limit, workers=-1)
        hit = np.isfinite(away)
        return np.stack([rows[one][hit], rows[other][nearest[hit]]], axis=1)

    return finder


def _summary(photos: Photos, found: list[Leak], blocking: list[Leak]) -> dict[str, Any]:
    return {
        "photos": len(photos.member),
        "sets": sizes(photos),
        "leaks": len(found),
        "blocking": len(blocking),
        "without_hash": int((~photos.hashed).sum()),
        "shared": [
            {
                "kind": leak.kind,
                "sets": " + ".join(leak.sets),
                "photos": " + ".join(map(str, leak.photos)),
                "blocking": leak in blocking,
            }
            for leak in found
        ],
    }


def _plot(project: "Project", found: list[Leak]) -> None:
    pairs = sorted({leak.sets for leak in found if set_parts(leak.sets[0])[1] == Split.TRAIN})
    shares = {(leak.kind, leak.sets): 100 * leak.share[1] for leak in found}
    with plots.picture(project.plot("leaks", "leaks"), 8, 1.2 + 0.5 * max(len(pairs), 1)) as axes:
        for offset, kind in zip((0.27, 0, -0.27), LeakKind, strict=True):
            values = [shares.get((kind, pair), 0.0) for pair in pairs]
            bars = axes.barh(np.arange(len(pairs)) + offset, values, 0.25, label=kind.replace("_", " "))
            axes.bar_label(bars, fmt="%.2g", padding=2, fontsize=7)
        axes.set_yticks(range(len(pairs)), [f"{other}\nof {train}" for train, other in pairs])
        axes.set(xlabel="photos that share it with the training set, %", title="Leaks", xlim=(0, None))
        axes.legend(frameon=False, loc="lower right")


def _tell(found: list[Leak], blocking: list[Leak]) -> None:
    progress.say(f"leaks: {len(found)} pairs of sets share something, {len(blocking)} of them block training")
    rows = [
        (leak.kind, " + ".join(leak.sets), " + ".join(f"{n:,}" for n in leak.photos), "✗" if leak in blocking else "")
        for leak in found
    ]
    if rows:
        progress.table(("shared", "sets", "photos", "blocks"), rows)
