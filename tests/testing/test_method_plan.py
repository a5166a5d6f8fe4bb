"""What the next calls of a method meet, step by step."""

import pytest

from berrymq_rpc.testing.method_plan import MethodPlan, Steps


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def plan(steps: Steps) -> MethodPlan:
    return MethodPlan("charge", steps)


def taken(steps: Steps, count: int) -> list[object]:
    found = []
    for _ in range(count):
        step = steps.take()
        if step is None:
            found.append(None)
        elif step.error is not None:
            found.append(step.error)
        else:
            found.append("hangs" if step.hangs else step.value if step.returns else step.seconds)
    return found


def test_times_and_then(steps: Steps, plan: MethodPlan) -> None:
    plan.fails(ValueError, times=2).then(returns=7)
    assert taken(steps, 4) == [ValueError, ValueError, 7, 7]


def test_the_handler_runs_after_the_last(steps: Steps, plan: MethodPlan) -> None:
    plan.returns(None, times=1).then(delays=0.5, times=1)
    assert steps.take().returns  # type: ignore[union-attr]
    assert taken(steps, 3) == [0.5, None, None]


def test_without_times_what_is_followed_is_for_one_call(steps: Steps, plan: MethodPlan) -> None:
    plan.fails(ValueError).then(hangs=True).returns(1)
    assert taken(steps, 4) == [ValueError, "hangs", 1, 1]


def test_a_new_plan_replaces_the_old_one(steps: Steps, plan: MethodPlan) -> None:
    plan.returns(1)
    MethodPlan("charge", steps).returns(2, times=1)
    assert taken(steps, 2) == [2, None]
    plan.hangs()
    MethodPlan("charge", steps).runs()
    assert taken(steps, 1) == [None]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "one of returns="),
        ({"returns": 1, "hangs": True}, "one of returns="),
        ({"fails": "text"}, r"ValueError\('text'\), not 'text'"),
        ({"fails": int}, "give an exception"),
    ],
)
def test_bad_use(plan: MethodPlan, arguments: dict[str, object], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        plan.then(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [0, -1, 1.5, True])
def test_bad_times(plan: MethodPlan, times: object) -> None:
    with pytest.raises(ValueError, match="number of calls from 1 on"):
        plan.returns(1, times=times)  # type: ignore[arg-type]


def test_bad_seconds(plan: MethodPlan) -> None:
    with pytest.raises(ValueError, match="seconds must be"):
        plan.delays(-1)
