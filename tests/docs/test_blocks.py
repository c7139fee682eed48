"""Every code block of README.md and of the tutorials runs, or says why it cannot."""

from __future__ import annotations

import pytest

from tests.docs.blocks import PAGES, Block, blocks_of, parse
from tests.docs.shell import Failed, Shell

RUN_AS = ("sh", "python")
NOT_RUN = {
    "README.md": [
        "CI runs the tests and the demo in its small configuration by themselves",
        "installs packages; the environment that runs this page was made by it",
    ],
    "docs/tutorials/own-classifier.md": [
        "installs packages; the environment that runs this page was made by it"
    ],
    "docs/tutorials/raspberry-pi.md": ["installs packages on the Raspberry Pi"],
}


@pytest.mark.parametrize("page", PAGES)
def test_whatever_is_not_run_is_known_with_its_reason(page: str) -> None:
    blocks = blocks_of(page)
    assert [b.told for b in blocks if b.mark == "not run"] == NOT_RUN.get(page, [])
    for block in blocks:
        assert block.language in RUN_AS or block.mark == "file", f"{block} would not be run"


def test_marks_are_those_of_the_block_that_follows_them() -> None:
    text = (
        "<!-- file: a.yaml -->\n```yaml\na: 1\n```\n\n<!-- not run: no GPU -->\n\n```sh\nls\n```\n"
    )
    first, second = parse(text, "page.md")
    assert first == Block(
        page="page.md", line=2, language="yaml", code="a: 1\n", mark="file", told="a.yaml"
    )
    assert (second.mark, second.code) == ("", "ls\n")  # an empty line lies between them


@pytest.mark.slow
def test_a_block_that_fails_fails_the_page(shell: Shell) -> None:
    block = Block(page="page.md", line=7, language="sh", code="A=1\nfalse\necho over\n")
    with pytest.raises(Failed, match=r"page.md:7 ended with 1"):
        shell.run(block)
    shell.run(Block(page="p", line=1, language="sh", code="SAID='two words'\nexport TOLD=x\n"))
    shell.run(Block(page="p", line=2, language="sh", code='[ "$SAID $TOLD" = "two words x" ]\n'))
    with pytest.raises(Failed):
        shell.run(Block(page="p", line=3, language="python", code="assert 1 == 2"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(page: str, shell: Shell) -> None:
    """In their order: later pages go on with what earlier ones made."""
    for block in blocks_of(page):
        if block.mark != "not run":
            shell.run(block)
