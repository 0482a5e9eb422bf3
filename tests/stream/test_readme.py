"""What the README says of settings and verbs is what the program has."""

import re
from pathlib import Path

from stream.cli import fraudstream
from stream.schema import write_schemas
from stream.settings import load_settings, settings_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_the_one_the_types_give():
    written = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", README, re.DOTALL)

    assert written is not None
    assert written.group(1).strip() == settings_table().strip(), "run: python -m stream.settings"


def test_every_verb_the_documents_show_exists():
    text = README + (ROOT / "docs" / "runbook.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()

    shown = set(re.findall(r"(?:`|\$ )fraudstream ([a-z]+)", text))

    assert shown <= set(fraudstream.commands)


def test_every_verb_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()

    assert all(f"`{verb}`" in changelog for verb in fraudstream.commands)


def test_the_published_schemas_are_those_of_the_types(tmp_path):
    settings = load_settings(None, {})

    for path in write_schemas(tmp_path, settings.topics, settings.mapping(), settings.limits()):
        published = ROOT / "docs" / "schema" / path.name
        assert published.read_bytes() == path.read_bytes(), "run: python -m stream.schema docs/schema"
