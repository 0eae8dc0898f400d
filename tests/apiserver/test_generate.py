"""What the server makes up: names and uids."""

from __future__ import annotations

import uuid

from atoll.apiserver.machinery.generate import BASE_MAX, SUFFIX, Uids, generate_name


def test_uids_are_random_uuids_of_version_4():
    new_uid = Uids()
    made = [new_uid() for _ in range(200)]
    assert len(set(made)) == 200
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)


def test_generated_names_fit_a_label():
    assert len(generate_name("x" * 100)) == BASE_MAX + SUFFIX
