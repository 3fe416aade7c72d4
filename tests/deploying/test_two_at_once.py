"""Two deployments to one device never mix."""

from faults import wait_for
from fleet import Fleet
from host import Host
from watching import Client


def test_the_second_is_told_and_the_first_goes_on(fleet: Fleet, host: Host) -> None:
    (device,) = fleet.serving()
    one, other = host.bundle(), host.bundle()
    with Client(device.serving, [fleet.first, one, other]) as client:
        device.stop_at(12)  # it has the lock
        process = host.start(str(one.file), *host.to(device))
        wait_for(device.stopped)
        second = host.deploy(str(other.file), *host.to(device))
        assert second.code == 1
        assert "another" in second.said
        client.check(fleet.first.id)
        device.go_on()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        client.check(fleet.first.id, one.id)
        again = host.deploy(str(other.file), *host.to(device))
        assert again.code == 0, again.said
        client.check(fleet.first.id, one.id, other.id)


def test_both_at_the_same_moment(fleet: Fleet, host: Host) -> None:
    (device,) = fleet.serving()
    both = [host.bundle(), host.bundle()]
    with Client(device.serving, [fleet.first, *both]) as client:
        started = [host.start(str(bundle.file), *host.to(device)) for bundle in both]
        said = [process.communicate(timeout=100) for process in started]
        codes = [process.returncode for process in started]
        assert 0 in codes and set(codes) <= {0, 1}, said
        client.all_right()
        won = device.current()
        assert won in [bundle.id for bundle, code in zip(both, codes, strict=True) if code == 0]
        assert client.releases()[-1] == won
        for bundle in both:
            done = host.deploy(str(bundle.file), *host.to(device))
            assert done.code == 0, done.said
            assert device.current() == bundle.id
        client.all_right()
