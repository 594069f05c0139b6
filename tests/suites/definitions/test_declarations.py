"""Every suite declares what the harness and the reports need, and has a configuration: nothing else lists it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import yaml

from suites import definitions
from suites.base.backends import DTYPES
from suites.base.paths import CONF
from suites.definitions import CONFIGURED, SUITES, TRACED, with_section
from suites.definitions.base import SECTIONS, Suite
from suites.measure.config import suite_names
from suites.metrics.floors import INSIDE
from suites.metrics.registry import metric_of

# what a suite's own class must say, and what it may inherit from the suite that it extends
OWN = ("name", "title", "subject", "sections")
INHERITED = ("whole", "checkpoints", "protocol", "about_time", "about_parity", "details", "judged")
CONFIGURED_KEYS = ("name", "summary", "components", "limits")
SELFTEST = "known"


@pytest.mark.parametrize("attribute", [*OWN, *INHERITED])
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_declares(name, attribute):
    suite = type(SUITES[name])
    declared = vars(suite) if attribute in OWN else dir(suite)
    assert attribute in declared, f"the suite {name} does not declare {attribute}"


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_in_run_all_exactly_if_it_is_configured(name):
    assert (name in CONFIGURED) == (name in suite_names()), f"{name}: an order, or a file conf/suite/{name}.yaml, lacks"
    assert (name == SELFTEST) == (name not in CONFIGURED)


@pytest.mark.parametrize("name", suite_names())
def test_a_configuration_has_a_suite_and_says_what_every_one_says(name):
    assert name in SUITES, f"conf/suite/{name}.yaml has no suite in suites/definitions"
    stored = yaml.safe_load((CONF / "suite" / f"{name}.yaml").read_text())
    for key in CONFIGURED_KEYS:
        assert key in stored, f"conf/suite/{name}.yaml lacks {key}"
    assert stored["name"] == name
    assert ("index_rate" in stored) == SUITES[name].takes_index
    assert ("trace" in stored) == (name in TRACED)


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_configured_limits_are_those_that_the_suite_judges(name):
    limits = yaml.safe_load((CONF / "suite" / f"{name}.yaml").read_text())["limits"]
    assert set(limits) == set(DTYPES)
    for policy, found in limits.items():
        assert set(found) == {figure.name for figure in SUITES[name].judged}, policy


@pytest.mark.parametrize("name", SUITES)
def test_figures_sections_and_components_exist(name):
    suite = SUITES[name]
    assert set(suite.sections) <= set(SECTIONS)
    assert all(metric_of(figure.name) is figure.metric for figure in (*suite.details, *suite.judged))
    assert all(figure.label for figure in suite.details)
    if name in CONFIGURED:
        components = yaml.safe_load((CONF / "suite" / f"{name}.yaml").read_text())["components"]
        assert {figure.of for figure in suite.details} <= set(components)
        assert suite.whole is None or suite.whole in components


def test_orders_are_unique_and_every_section_has_a_suite():
    orders = [SUITES[name].order for name in CONFIGURED]
    assert orders == sorted(set(orders))
    assert all(with_section(section) for section in SECTIONS)


def test_every_module_with_a_suite_is_found():
    found = set()
    for module in pkgutil.iter_modules(definitions.__path__):
        members = vars(importlib.import_module(f"suites.definitions.{module.name}")).values()
        found |= {one for one in members if isinstance(one, type) and issubclass(one, Suite) and "name" in vars(one)}
    assert found == {type(suite) for suite in SUITES.values()}


def test_a_model_inside_the_pipeline_is_a_traced_suite():
    assert set(INSIDE.values()) == set(TRACED) - {"pipeline"}
