"""A release comes to a device, is served, is replaced, and is taken back."""

from fleet import Fleet
from host import Host
from watching import Client, ready


def test_first_release_is_served_and_the_second_run_changes_nothing(
    fleet: Fleet, host: Host
) -> None:
    (device,) = fleet.bare()
    bundle = host.bundle()
    flags = [str(bundle.file), *host.to(device), "--port", str(device.serving)]

    dry = host.deploy(*flags, "--dry-run")
    assert dry.code == 0, dry.said
    assert device.current() is None
    assert not ready(device.serving)

    first = host.deploy(*flags)
    assert first.code == 0, first.said
    assert device.current() == bundle.id
    with Client(device.serving, [bundle]) as client:
        before = device.history()
        again = host.deploy(*flags)
        assert again.code == 0, again.said
        assert device.history() == before
        client.check(bundle.id)


def test_switch_and_rollback_lose_no_answer(fleet: Fleet, host: Host) -> None:
    (device,) = fleet.serving()
    first, second = fleet.first, host.bundle()
    with Client(device.serving, [first, second], pause=0.002) as client:
        done = host.deploy(str(second.file), *host.to(device))
        assert done.code == 0, done.said
        client.check(first.id, second.id)
        back = host.deploy("--rollback", *host.to(device))
        assert back.code == 0, back.said
        client.check(first.id, second.id, first.id)
    assert device.current() == first.id
    assert [entry["event"] for entry in device.history()[-2:]] == ["deployed", "rolled back"]
