"""The demo world: it follows what it knows of the Earth, and writes what the published corpora look like."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from geoloc_core.corpora.fetch.world import Options, fetch
from geoloc_core.corpora.simulated import Plan
from geoloc_core.corpora.sources import places365
from geoloc_core.corpora.sources.places365 import COLUMNS
from geoloc_core.corpora.world import known, scenes, sun
from geoloc_core.corpora.world.climate import climate, season_of
from geoloc_core.corpora.world.culture import OPTIONS, culture
from geoloc_core.corpora.world.fields import field, unit_vectors
from geoloc_core.corpora.world.gazetteer import NATURAL, Spread, centres, cities, countries, cumulative
from geoloc_core.corpora.world.paint.canvas import CLASSES
from geoloc_core.corpora.world.paint.script import LETTERS
from geoloc_core.corpora.world.people import BLOCK, Place, authors_of
from geoloc_core.corpora.world.photo import Photo, facts, photo, photos
from geoloc_core.corpora.world.render import render
from geoloc_core.corpora.world.rng import stream
from geoloc_core.corpora.world.shots import views
from geoloc_core.corpora.world.words import BIOME, HOUSES, PLACELESS, SCENES, caption, clues, seen
from geoloc_core.files import digest

ROOT = str(Path(__file__).parents[3])
SHARDED = places365.Options(kind="places365", metadata="mp16_places365.csv", urls="mp16_urls.csv", shards="shard_*.msg")
FLAT = places365.Options(kind="places365", metadata="im2gps_places365.csv", images="images")
SOME = list(photos(3, "some", 0, 300))


def options(**changes):
    return Options(**{"kind": "world", "path": "world", "photos": 100, "size": 64} | changes)


def made(folder, source, name="mp16", workers=1, **changes):
    out, partial = folder / "out", folder / "partial"
    return out, fetch(options(**changes), name=name, source=source, seed=5, out=out, partial=partial, workers=workers)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def at(latitude, longitude, country, scene=None, month=6, index=0, style="street"):
    """A photo taken at a place."""
    place = Place(latitude, longitude, country, "Somewhere", 0.5)
    shown = facts(stream(1, "test", index), place, style, month)
    if scene:
        from dataclasses import replace

        shown = replace(shown, scene=scenes.BY_NAME[scene])
    return Photo(index, (1, "test"), "12345678@N00", place, shown.scene, shown, (0.0, 0.0, 1.0))


class TestLayout:
    @pytest.fixture(scope="class")
    def sharded(self, tmp_path_factory):
        return made(tmp_path_factory.mktemp("sharded"), SHARDED)

    @pytest.fixture(scope="class")
    def flat(self, tmp_path_factory):
        return made(tmp_path_factory.mktemp("flat"), FLAT, name="im2gps", masks=True)

    def test_shards_hold_every_photo_of_the_metadata_in_order(self, sharded):
        out, figures = sharded
        with (out / "shard_0.msg").open("rb") as stream:
            records = list(msgpack.Unpacker(stream))
        rows = rows_of(out / "mp16_places365.csv")
        assert tuple(rows[0]) == COLUMNS
        assert [record["id"] for record in records] == [row["IMG_ID"] for row in rows]
        assert len({row["IMG_ID"] for row in rows}) == 100 == figures["photos"]
        assert all(record["image"].startswith(b"\xff\xd8") for record in records)
        first, second, file = rows[0]["IMG_ID"].split("/")
        assert len(first) == len(second) == 2
        assert file.removesuffix(".jpg").isdigit()

    def test_urls_have_no_header_line(self, sharded):
        out, _ = sharded
        lines = (out / "mp16_urls.csv").read_text().splitlines()
        assert len(lines) == 100
        assert all(line.split(",")[1].startswith("https://photos.example/") for line in lines)

    def test_captions_and_clues_lie_beside(self, sharded):
        out, _ = sharded
        assert [r["IMG_ID"] for r in rows_of(out / "captions.csv")] == [
            r["IMG_ID"] for r in rows_of(out / "mp16_places365.csv")
        ]
        assert {row["country"] for row in rows_of(out / "clues.csv")} == set(centres())

    def test_flat_files_are_named_by_photo_secret_number_and_author(self, flat):
        out, _ = flat
        rows = rows_of(out / "im2gps_places365.csv")
        assert {row["IMG_ID"] for row in rows} == {path.name for path in (out / "images").iterdir()}
        for row in rows:
            photo_id, secret, number, author = row["IMG_ID"].removesuffix(".jpg").split("_")
            assert photo_id.isdigit()
            assert len(secret) == 10
            assert number.isdigit()
            assert author == row["AUTHOR"]
        assert Image.open(out / "images" / rows[0]["IMG_ID"]).size == (64, 64)

    def test_masks_lie_beside_on_request(self, flat, sharded):
        out, _ = flat
        masks = sorted((out / "masks").iterdir())
        assert [m.stem for m in masks] == sorted(path.stem for path in (out / "images").iterdir())
        assert np.asarray(Image.open(masks[0])).shape == (64, 64)
        assert not (sharded[0] / "masks").exists()

    def test_labels_agree_with_the_probabilities_and_the_scene(self, sharded):
        for row in rows_of(sharded[0] / "mp16_places365.csv"):
            probabilities = [float(row[f"Prob_{kind}"]) for kind in ("indoor", "natural", "urban")]
            assert int(row["S3_Label"]) == int(np.argmax(probabilities))
            assert sum(probabilities) == pytest.approx(1)
            assert 0 <= int(row["S16_Label"]) < 16
            assert 0 <= int(row["S365_Label"]) < 365
            assert -90 <= float(row["LAT"]) <= 90
            assert -180 <= float(row["LON"]) <= 180

    def test_nothing_unfinished_is_left(self, sharded):
        assert [path.name for path in sharded[0].parent.iterdir()] == ["out"]


class TestDeterminism:
    @pytest.mark.slow
    def test_the_number_of_workers_changes_nothing(self, tmp_path):
        one, figures = made(tmp_path / "one", FLAT, photos=BLOCK + 20, size=32)
        two, same = made(tmp_path / "two", FLAT, photos=BLOCK + 20, size=32, workers=2)
        assert digest(one) == digest(two)
        assert figures == same

    def test_a_photo_does_not_depend_on_how_many_there_are(self):
        alone = photo(7, "mp16", 300)
        among = list(photos(7, "mp16", 290, 305))[10]
        assert alone == among
        assert render(alone, 64).jpeg() == render(among, 64).jpeg()

    def test_seed_and_corpus_matter(self):
        assert len({photo(seed, name, 0).place for seed in (1, 2) for name in ("mp16", "im2gps")}) == 4

    def test_finished_pieces_are_kept_and_foreign_ones_dropped(self, tmp_path, monkeypatch):
        monkeypatch.setattr(places365, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path, FLAT, size=32)
        piece = tmp_path / "partial" / "pieces" / "000000.msg"
        before = piece.stat().st_mtime_ns
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path, FLAT, size=32)
        assert piece.stat().st_mtime_ns == before
        monkeypatch.undo()
        _, figures = made(tmp_path, FLAT, size=40)
        assert figures["photos"] == 100
        image = next((tmp_path / "out" / "images").iterdir())
        assert Image.open(image).size == (40, 40)

    @pytest.mark.slow
    def test_a_killed_run_resumes_to_the_same_bytes(self, tmp_path):
        script = tmp_path / "run.py"
        script.write_text(
            "import sys\nfrom pathlib import Path\n"
            "from geoloc_core.corpora.fetch.world import Options, fetch\n"
            "from geoloc_core.corpora.sources import places365\n"
            "if __name__ == '__main__':\n"
            "    out, partial = map(Path, sys.argv[1:])\n"
            "    fetch(Options(kind='world', path='world', photos=1500, size=64), name='mp16', seed=5,\n"
            "          out=out, partial=partial,\n"
            f"          source=places365.Options(**{SHARDED.model_dump()!r}), workers=2)\n"
        )

        def start(name):
            command = [sys.executable, str(script), str(tmp_path / name / "out"), str(tmp_path / name / "partial")]
            return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ROOT})

        whole, killed = start("whole"), start("killed")
        pieces = tmp_path / "killed" / "partial" / "pieces"
        while not (pieces.exists() and any(piece.name[0] != "." for piece in pieces.iterdir())):
            assert killed.poll() is None
            time.sleep(0.02)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        again = start("killed")
        _, said = again.communicate()
        whole.communicate()
        assert again.returncode == whole.returncode == 0
        assert "were rendered before" in said
        assert digest(tmp_path / "whole" / "out") == digest(tmp_path / "killed" / "out")


class TestViews:
    PLAN = Plan("street", (0, 90, 180), country="US", within=(25, -125, 49.4, -66.9))

    def test_a_place_is_seen_in_every_heading_of_the_plan(self):
        shown = list(views(3, "us", 0, 12, self.PLAN))
        assert [heading for _, _, heading in shown] == [0, 90, 180] * 4
        assert [spot for _, spot, _ in shown] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        assert len({photo.place for photo, _, _ in shown}) == 4
        for spot in range(4):
            same = [photo for photo, number, _ in shown if number == spot]
            assert len({photo.place for photo in same}) == len({p.facts.moment.month for p in same}) == 1
            assert len({render(photo, 48).jpeg() for photo in same}) == 3

    def test_a_view_does_not_depend_on_where_its_piece_starts(self):
        assert list(views(3, "us", 4, 9, self.PLAN)) == list(views(3, "us", 0, 12, self.PLAN))[4:9]

    def test_places_stay_within_the_plan(self):
        for shown, _, _ in views(3, "us", 0, 60, self.PLAN):
            assert shown.place.country == "US"
            assert 25 <= shown.place.latitude <= 49.4
            assert -125 <= shown.place.longitude <= -66.9


class TestOptions:
    @pytest.mark.parametrize(
        "changes",
        [
            {"photos": 99},
            {"photos": 1_000_001},
            {"size": 0},
            {"colour": 1},
            {"kind": "files"},
            {"countries": 0},
            {"evenness": 1.1},
        ],
    )
    def test_nonsense_is_refused(self, changes):
        with pytest.raises(ValidationError):
            options(**changes)


class TestPeople:
    def test_authors_take_several_photos_mostly_around_the_same_places(self):
        authors = Counter(p.author for p in SOME)
        assert 3 < len(SOME) / len(authors) < 12
        assert min(authors.values()) == 1
        assert max(authors.values()) >= 10
        home = {}
        for p in SOME:
            home.setdefault(p.author, []).append(p.place.country)
        shares = [Counter(codes).most_common(1)[0][1] / len(codes) for codes in home.values() if len(codes) > 3]
        assert np.mean(shares) > 0.7

    @given(st.integers(0, 1000), st.integers(0, 5))
    @settings(max_examples=20, deadline=None)
    def test_every_photo_of_a_block_has_an_author(self, seed, block):
        assert len(authors_of(seed, "any", block)) == BLOCK

    @staticmethod
    def shares(spread):
        found = Counter()
        for code, share in zip(cities().country, np.diff(cumulative(spread), prepend=0).tolist(), strict=True):
            found[code] += share
        return +found

    def test_photos_are_uneven_over_countries_with_a_long_tail(self):
        shares = self.shares(NATURAL)
        assert [code for code, _ in shares.most_common(4)] == ["US", "GB", "ES", "FR"]
        assert 0.06 < shares["US"] < 0.15
        assert all(share > 0 for share in shares.values())
        assert len(shares) > 230

    @pytest.mark.parametrize(("countries", "evenness"), [(None, 0.5), (40, 0.5), (40, 0.0), (3, 1.0)])
    def test_evenness_brings_countries_closer_and_a_limit_keeps_the_most_photographed(self, countries, evenness):
        shares, natural = self.shares(Spread(countries, evenness)), self.shares(NATURAL)
        assert len(shares) == (countries or len(natural))
        assert all(natural[c] < 1.0001 * min(natural[code] for code in shares) for c in natural.keys() - shares)
        ratio = max(shares.values()) / min(shares.values())
        assert ratio == pytest.approx(
            (max(natural[c] for c in shares) / min(natural[c] for c in shares)) ** (1 - evenness)
        )

    def test_views_of_an_even_corpus_show_as_many_places_of_each_country(self):
        plan = Plan("street", (0, 180))
        shown = Counter(p.place.country for p, _, _ in views(3, "even", 0, 240, plan, Spread(6, 1.0)))
        assert len(shown) == 6
        assert max(shown.values()) - min(shown.values()) <= 4 * len(plan.headings)


class TestLand:
    @pytest.mark.parametrize(
        ("name", "latitude", "longitude", "biome"),
        [
            ("Cairo", 30, 31.2, "desert"),
            ("Manaus", -3, -60, "tropical"),
            ("Nairobi", -1.3, 36.8, "savanna"),
            ("London", 51.5, -0.1, "temperate"),
            ("Moscow", 55.7, 37.6, "boreal"),
            ("Phoenix", 33.4, -112, "desert"),
            ("Athens", 38, 23.7, "mediterranean"),
            ("Bangkok", 13.7, 100.5, "tropical"),
        ],
    )
    def test_known_places_have_their_biome(self, name, latitude, longitude, biome):
        assert climate(latitude, longitude, 6).biome == biome

    @given(st.floats(-65, 65), st.integers(1, 12))
    def test_seasons_are_opposite_across_the_equator(self, latitude, month):
        assert season_of(latitude, month) == pytest.approx(-season_of(-latitude, month), abs=1e-9)

    def test_winter_is_in_january_in_the_north_and_in_july_in_the_south(self):
        assert climate(60, 10, 1).temperature_c < climate(60, 10, 7).temperature_c - 10
        assert climate(-33, 151, 7).temperature_c < climate(-33, 151, 1).temperature_c - 5
        assert climate(56, 40, 1).snow > 0.8
        assert climate(56, 40, 7).snow == 0

    @given(st.floats(-90, 90), st.integers(1, 12), st.floats(0, 24))
    def test_the_sun_stands_somewhere(self, latitude, month, hour):
        assert -90 <= sun.sun_elevation(latitude, month, hour) <= 90

    @given(st.floats(-60, 60))
    def test_noon_is_the_highest(self, latitude):
        assert sun.sun_elevation(latitude, 3, 12) >= sun.sun_elevation(latitude, 3, 9)

    def test_mountains_are_high_and_coasts_are_near(self):
        assert climate(46.5, 8, 1).elevation_m > 1000 > climate(52, 5, 1).elevation_m
        assert climate(35, 86, 1).elevation_m > 2000
        assert climate(51.9, 4.4, 1).coast_km < 60 < 500 < climate(48, 86, 1).coast_km

    @given(st.floats(-80, 80), st.floats(-180, 180))
    @settings(max_examples=50)
    def test_fields_are_smooth(self, latitude, longitude):
        points = unit_vectors(np.array([latitude, latitude + 0.1]), np.array([longitude, longitude]))
        here, near = field("walls", 350, points)
        assert abs(here - near) < 0.5


class TestCulture:
    @pytest.mark.parametrize("code", ["GB", "AU", "JP", "IN", "ZA", "KE", "TH", "NZ", "IE", "MT"])
    def test_they_drive_on_the_left(self, code):
        assert culture(code).left

    @pytest.mark.parametrize("code", ["US", "FR", "DE", "BR", "CN", "RU", "EG", "NO", "ES", "TW"])
    def test_they_drive_on_the_right(self, code):
        assert not culture(code).left

    @pytest.mark.parametrize(
        ("code", "feature", "value"),
        [
            ("NZ", "sign", "green"),
            ("US", "centre", "yellow"),
            ("GB", "plate", "yellow"),
            ("ZA", "edge", "yellow"),
            ("RU", "script", "cyrillic"),
            ("EG", "script", "arabic"),
            ("IN", "script", "devanagari"),
            ("TH", "script", "thai"),
            ("KR", "script", "hangul"),
            ("JP", "script", "kana"),
            ("GR", "script", "greek"),
            ("IL", "script", "hebrew"),
            ("GE", "script", "georgian"),
            ("CN", "script", "han"),
            ("AR", "script", "latin"),
            ("SE", "warning", "yellow triangle"),
            ("AU", "warning", "yellow diamond"),
        ],
    )
    def test_known_facts_hold(self, code, feature, value):
        assert getattr(culture(code), feature) == value

    def test_neighbours_are_more_alike_than_countries_far_apart(self):
        codes = sorted(centres())
        near = [(a, b) for a in codes for b in countries()[a].neighbours if b in centres()]
        rng = np.random.default_rng(0)
        far = [tuple(rng.choice(codes, 2, replace=False).tolist()) for _ in range(len(near))]

        def alike(pairs):
            return np.mean([getattr(culture(a), f) == getattr(culture(b), f) for a, b in pairs for f in OPTIONS])

        assert alike(near) > alike(far) + 0.2

    def test_tables_name_real_countries_once(self):
        for feature, table in OPTIONS.items():
            listed = " ".join(table.values()).split()
            assert len(listed) == len(set(listed)), feature
            assert set(listed) <= set(countries()), feature
        assert set(known.LEFT.split()) <= set(countries())

    def test_every_script_has_letters_and_every_style_words(self):
        assert {culture(code).script for code in centres()} <= set(LETTERS)
        assert {culture(code).style for code in centres()} <= set(HOUSES)


class TestScenes:
    def test_kinds_are_many_and_their_labels_valid(self):
        table = list(scenes.BY_NAME.values())
        assert len({scene.s365 for scene in table}) == len(table) > 40
        assert all(0 <= scene.s365 < 365 and 0 <= scene.s16 < 16 for scene in table)
        assert {scene.name for scene in scenes.INDOOR} == set(PLACELESS)
        assert {scene.name for scene in scenes.OUTDOOR} == set(SCENES)

    def test_a_quarter_of_the_photos_shows_no_place(self):
        share = np.mean([p.facts is None for p in SOME])
        assert 0.18 < share < 0.36

    def test_placeless_photos_do_not_know_their_place(self):
        indoor = next(p for p in SOME if p.facts is None)
        from dataclasses import replace

        moved = replace(indoor, place=Place(-33.9, 18.4, "ZA", "Cape Town", 0.0))
        assert render(indoor, 64).jpeg() == render(moved, 64).jpeg()
        assert caption(indoor) == caption(moved)

    def test_camera_cars_are_always_outdoors_and_on_a_road(self):
        assert all(p.scene.road != "none" for p in photos(1, "street", 0, 40, "street"))


class TestPictures:
    def test_masks_align_and_do_not_change_the_photo(self):
        with_mask, without = render(SOME[0], 96, masks=True), render(SOME[0], 96)
        assert with_mask.mask.shape == (96, 96)
        assert with_mask.image.tobytes() == without.image.tobytes()
        assert without.mask is None

    def test_masks_hold_the_classes_of_a_road_scene(self):
        seen = set()
        for index in range(12):
            mask = render(at(40, -100, "US", "highway", index=index), 128, masks=True).mask
            assert mask.max() // 1000 < len(CLASSES)
            seen |= {CLASSES[value // 1000] for value in np.unique(mask)}
        assert {"sky", "ground", "road", "marking", "vegetation", "sign", "bollard", "pole", "car", "plate"} <= seen

    def test_instances_are_told_apart(self):
        mask = render(at(40, -100, "US", "parking_lot"), 128, masks=True).mask
        cars = {value for value in np.unique(mask).tolist() if value // 1000 == CLASSES.index("car")}
        assert len(cars) > 3

    def test_the_middle_of_the_road_is_on_the_other_side_where_they_drive_on_the_left(self):
        def middle(code, latitude, longitude):
            lines = [
                np.nonzero(
                    render(at(latitude, longitude, code, "street", 7, k), 128, masks=True).mask[-12:] // 1000
                    == CLASSES.index("marking")
                )[1]
                for k in range(8)
            ]
            return np.mean(np.concatenate(lines))

        assert middle("GB", 52, -1) > 80
        assert middle("FR", 47, 3) < 48

    def test_the_desert_is_not_green_and_the_forest_is(self):
        def greenness(latitude, longitude, code, scene):
            pixels = (
                np.asarray(render(at(latitude, longitude, code, scene), 64).image, float)[40:]
                .reshape(-1, 3)
                .mean(axis=0)
            )
            return pixels[1] - pixels[0]

        assert greenness(25, 30, "EG", "field/wild") < -10 < 5 < greenness(-3, -60, "BR", "field/wild")

    @pytest.mark.parametrize("scene", sorted(scenes.BY_NAME))
    def test_every_scene_can_be_drawn_in_every_style(self, scene):
        styles = {culture(code).style: code for code in centres()}
        if scene in PLACELESS:
            drawn = next(p for p in photos(1, "all", 0, 2000) if p.scene.name == scene)
            assert render(drawn, 32).image.size == (32, 32)
            return
        for k, code in enumerate(sorted(styles.values())[:4] if scene != "street" else styles.values()):
            assert render(at(10.0 * k - 60, 20, code, scene, 1 + k % 12, k), 32).image.size == (32, 32)

    @pytest.mark.parametrize("size", [32, 100, 600])
    def test_any_size(self, size):
        assert render(SOME[1], size).image.size == (size, size)


class TestWords:
    def test_captions_of_placeless_photos_name_no_place(self):
        names = {country.name for country in countries().values()}
        for p in SOME:
            text = caption(p)
            assert text
            if p.facts is None:
                assert not any(name in text for name in names)

    def test_many_captions_name_the_place(self):
        outdoors = [p for p in SOME if p.facts]
        share = np.mean([countries()[p.place.country].name in caption(p) for p in outdoors])
        assert 0.3 < share < 0.9

    def test_what_is_seen_names_no_place_and_nothing_that_was_not_drawn(self):
        names = {name.lower() for country in countries().values() for name in (country.name, country.continent)}
        for p in SOME[:60]:
            things = render(p, 32).things
            phrases = seen(p, things)
            assert 0 < len(phrases) <= 24
            assert not names & set(" ".join(phrases).lower().split())
            assert any("plate" in phrase for phrase in phrases) == ("plate" in things)
            assert any("posts" in phrase for phrase in phrases) == ("bollard" in things)

    def test_clues_say_what_is_drawn(self):
        texts = {row["text"] for row in clues()}
        assert "New Zealand uses green directional signs." in texts
        assert "In Kenya people drive on the left side of the road." in texts
        assert len({row["clue_id"] for row in clues()}) == len(clues()) > 2000

    def test_every_biome_has_words(self):
        assert {
            climate(float(lat), float(lon), 1).biome for lat in range(-50, 75, 6) for lon in range(-180, 180, 12)
        } <= set(BIOME)
