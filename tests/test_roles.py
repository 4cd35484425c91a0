"""Numbers in prose: what a role says of a record, what it refuses, and the lint that keeps typed numbers out."""

import json
import types

import pytest

from medbench.book import prose, roles
from medbench.records import Record

ACCURACY = dict(name="phantom.softmax.balanced_accuracy", quantity="balanced_accuracy", value=0.74321, low=0.731,
                high=0.7554, n=5000)
MACS = dict(name="cost.softmax.macs", quantity="macs", value=1_912_345_678, unit="MAC")


def said(record, options=""):
    words = roles.say(Record(**record), roles.parse("10_training:a.b" + options))
    return words.replace("\u00a0", " ").replace("\u202f", " ")


@pytest.mark.parametrize("record, options, words", [
    (ACCURACY, "", "0.743"),
    (ACCURACY, "|.1%", "74.3 %"),
    (ACCURACY, "|.1%|bare", "74.3"),
    (ACCURACY, "|.1%|±", "74.3 % (73.1 to 75.5 %)"),
    (ACCURACY, "|±|.2f", "0.74 (0.73 to 0.76)"),
    (ACCURACY, "|n", "5 000"),
    (MACS, "", "1.91 GMAC"),
    (MACS, "|.2f G", "1.91 GMAC"),
    (MACS, "|.0f M", "1912 MMAC"),
    (MACS, "|,.0f M|bare", "1 912"),
    (MACS, "|.2f G|bare", "1.91"),
    (MACS | {"unit": "parameters", "value": 28_284_000}, "|.2f M", "28.28 M parameters"),
    (MACS | {"unit": "parameters", "value": 770}, "", "770 parameters"),
    (MACS | {"unit": "ms", "value": 12.345}, "", "12.3 ms"),
    (MACS | {"unit": "ms", "value": 0.01234}, "", "0.0123 ms"),
    (MACS | {"unit": "s", "value": 4610.0}, "", "4 610 s"),
    (MACS | {"unit": "s", "value": 0.0123}, "|.1f m", "12.3 ms"),
    (MACS | {"unit": "1", "value": 44671}, "", "44 671"),
    (MACS | {"unit": "1", "value": -0.25}, "", "\u22120.250"),
    (MACS | {"unit": "percentage point", "value": 2.34}, "|.1f", "2.3 points"),
    (MACS | {"unit": "byte", "value": 2_500_000_000}, "", "2.50 GB"),
    (MACS | {"unit": "FLOP/s", "value": 1.7e12}, "|.1f T", "1.7 TFLOP/s"),
    (MACS | {"unit": "J", "value": None, "reason": "no counter"}, "|.1f", "not measured (no counter)"),
    (MACS | {"value": 0}, "", "0 MAC"),
])
def test_a_value_in_words(record, options, words):
    assert said(record, options) == words


@pytest.mark.parametrize("text, complaint", [
    ("phantom.softmax.top1", "wanted chapter:name"),
    ("10_training:", "wanted chapter:name"),
    ("10_training:a.b|.1q", "option is '.1q'; allowed"),
    ("10_training:a.b|+-", "option is '\\+-'; allowed"),
])
def test_a_malformed_role_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        roles.parse(text)


@pytest.mark.parametrize("options, complaint", [("|±", "has no interval"), ("|n", "has no count")])
def test_what_a_record_does_not_have_is_refused(options, complaint):
    with pytest.raises(LookupError, match=complaint):
        said(MACS, options)


def test_a_device_may_stand_before_the_chapter():
    asked = roles.parse("study-2022/11_cost:cost.softmax.macs|.2f G|seed=3")
    assert (asked.device, asked.chapter, asked.name) == ("study-2022", "11_cost", "cost.softmax.macs")
    assert (asked.spec, asked.prefix, asked.seed) == (".2f", "G", 3)


# --------------------------------------------------------------------------------------------- finding
@pytest.fixture
def role(tmp_path):
    """A role over an assembled tree with records of two devices."""
    root = tmp_path / "book" / "results"
    for device, value in (("this-one", 1), ("the-edition", 2)):
        (root / device).mkdir(parents=True)
        (root / device / "11_cost.json").write_text(json.dumps(
            {"device": device, "chapter": "11_cost", "records": [MACS | {"value": value}]}))
    (root / "HERE").write_text("this-one\n")
    (root / "EDITION").write_text("the-edition\n")
    found = roles.ValueRole()
    depends = []
    env = types.SimpleNamespace(srcdir=str(tmp_path), note_dependency=depends.append)
    found.inliner = types.SimpleNamespace(document=types.SimpleNamespace(settings=types.SimpleNamespace(env=env)))
    found.depends = depends
    return found


@pytest.mark.parametrize("device, value", [("", 1), ("this-one/", 1), ("the-edition/", 2), ("edition/", 2)])
def test_the_device_decides_which_record(role, device, value):
    assert role.find(roles.parse(f"{device}11_cost:cost.softmax.macs")).value == value
    assert role.depends[0].endswith("11_cost.json")


@pytest.mark.parametrize("text, complaint", [
    ("11_cost:cost.sofmax.macs", "no record cost.sofmax.macs, device 'this-one', .* near it: cost.softmax.macs"),
    ("12_latency:cost.softmax.macs", "no result file this-one/12_latency; there is this-one/11_cost"),
    ("h100/11_cost:cost.softmax.macs", "no result file h100/11_cost; there is the-edition/11_cost, this-one/11_cost"),
])
def test_a_missing_record_is_named_with_what_is_near(role, text, complaint):
    with pytest.raises(LookupError, match=complaint):
        role.find(roles.parse(text))


# --------------------------------------------------------------------------------------------- the lint
TYPED = """12 ms; 12.5ms; 3 s; 74.3 %; 74%; $74\\%$; 1.91 GMAC; 1.91 GMACs; 28 M parameters; 1.4 million parameters
    28 GB; 16 GiB; 5 J; 300 images/s; 300 images a second; about 2 percent; 1.7 TFLOP/s; ~35 % fewer; 4,610 s; 2 seconds
    2.3 percentage points"""
FREE = """112 px; 64 tokens; 3 heads of 4; in 2022; 1 MAC = 2 FLOP; a 95 % bootstrap interval
    `12 ms`; {value}`10_training:a.b|.1%`; {defined}`2 %`; chapters 3 and 4; 4 of 10 classes; 35 minutes; N = 6C
    [1](https://a.b/50%25 s); 5 mice; 16 x 16 s-shaped"""


def each(text):
    return [part.strip() for line in text.splitlines() for part in line.split(";") if part.strip()]


@pytest.mark.parametrize("quantity", each(TYPED))
def test_the_lint_finds_a_typed_quantity(quantity):
    assert [line for line, _ in prose.findings(f"Words.\n\nWe saw {quantity} here.")] == [3]


@pytest.mark.parametrize("free", each(FREE))
def test_the_lint_leaves_definitions_alone(free):
    assert prose.findings(f"We take {free} here.") == []


BOXES = """
```bash
echo 1 ms
```
:::{note}
It took 2 ms.
:::
```{figure} x.png
:width: 3 %
After 4 s.
```
~~~
sleep 5 s
~~~
```{code-cell}
x = "6 %"
```
```
7 GB
```
````{note}
```{tip}
8 s
```
9 s
````
So 10 s.
```{note}
11 s
```
`12 s
13 s` and `14 s

15 s`
"""


def test_the_lint_skips_code_but_not_boxes():
    found = [words for _, words in prose.findings(BOXES)]
    assert found == ["2 ms", "4 s", "8 s", "9 s", "10 s", "11 s", "14 s", "15 s"]
