"""Commands on another machine, as an app runs them: over real connections, with a real daemon at the other end."""

import asyncio
import time
import unittest

import rig
from malai_ffi import ClusterRole, CommandEvent, CommandSignal, MalaiError, MalaiOptions, Malai


async def output_of(command):
    """Takes everything that a command does: its stdout, its stderr, its end."""
    stdout, stderr, end = b"", b"", None
    while await command.ready():
        for event in command.take_events(64):
            assert end is None, f"{event} after the end"
            if event.is_STDOUT():
                stdout += event.bytes
            elif event.is_STDERR():
                stderr += event.bytes
            else:
                end = event
    return stdout, stderr, end


async def first_line(command):
    text = b""
    while not text.endswith(b"\n"):
        assert await command.ready()
        (event,) = command.take_events(1)
        text += event.bytes
    return text


class Commands(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.rig = rig.Rig()
        cls.addClassCleanup(cls.rig.close)

        async def make():
            laptop = await cls.rig.make_cluster()
            await laptop.shutdown()

        asyncio.run(make())

    async def asyncSetUp(self):
        self.laptop = await self.rig.open("laptop")
        self.addAsyncCleanup(self.laptop.shutdown)

    def sh(self, script, *, malai=None):
        return (malai or self.laptop).run("web01.company", ["sh", "-c", script])

    async def run_sh(self, script, *, malai=None):
        return await asyncio.wait_for(output_of(self.sh(script, malai=malai)), rig.DEADLINE)

    async def fails(self, command):
        with self.assertRaises(MalaiError) as caught:
            await asyncio.wait_for(output_of(command), rig.DEADLINE)
        return caught.exception

    async def test_clusters_are_listed(self):
        (cluster,) = await self.laptop.clusters()
        self.assertEqual((cluster.alias, cluster.role), ("company", ClusterRole.MACHINE))
        self.assertEqual(cluster.machine, "laptop")
        self.assertEqual(sorted(machine.name for machine in cluster.machines), ["gone", "web01"])
        self.assertEqual(len(cluster.id52), 52)
        self.assertGreaterEqual(cluster.serial, 1)

    async def test_stdout_and_stderr_stay_apart(self):
        stdout, stderr, end = await self.run_sh("printf out; printf err >&2")
        self.assertEqual((stdout, stderr), (b"out", b"err"))
        self.assertEqual((end.status, end.signal), (0, None))

    async def test_the_status_is_the_programs(self):
        _, _, end = await self.run_sh("exit 3")
        self.assertEqual((end.status, end.signal), (3, None))

    async def test_death_by_signal_is_told(self):
        _, _, end = await self.run_sh("kill -9 $$")
        self.assertEqual((end.status, end.signal), (137, 9))

    async def test_words_reach_the_program_as_they_are(self):
        command = self.laptop.run("web01.company", ["printf", "[%s]", "$HOME", "a b", ";", ""])
        self.assertEqual((await output_of(command))[0], b"[$HOME][a b][;][]")
        # A person's "echo x" would be split; a program's is the name of a file that is not there.
        error = await self.fails(self.laptop.run("web01.company", ["echo x"]))
        self.assertIsInstance(error, MalaiError.NotFound)
        self.assertEqual(error.code, "command.not_found")

    async def test_stdin_is_echoed_while_it_is_open_and_ends(self):
        command = self.laptop.run("web01.company", ["cat"])
        for line in (b"one\n", b"two\n"):
            await command.write_stdin(line)
            self.assertEqual(await asyncio.wait_for(first_line(command), rig.DEADLINE), line)
        await command.end_stdin()
        stdout, _, end = await asyncio.wait_for(output_of(command), rig.DEADLINE)
        self.assertEqual((stdout, end.status), (b"", 0))
        with self.assertRaises(MalaiError.Cancelled):
            await command.write_stdin(b"late")

    async def test_bulk_goes_both_ways_unchanged(self):
        sent = bytes(range(256)) * 4096 * 4
        command = self.laptop.run("web01.company", ["cat"])

        async def feed():
            for at in range(0, len(sent), 1 << 16):
                await command.write_stdin(sent[at : at + (1 << 16)])
            await command.end_stdin()

        feeding = asyncio.create_task(feed())
        stdout, _, end = await asyncio.wait_for(output_of(command), rig.DEADLINE)
        await feeding
        self.assertEqual(end.status, 0)
        self.assertTrue(stdout == sent, f"{len(stdout)} of {len(sent)} bytes, or others")

    async def test_a_signal_reaches_the_program(self):
        command = self.sh("trap 'echo got; exit 7' TERM; echo up; while :; do sleep 0.05; done")
        self.assertEqual(await asyncio.wait_for(first_line(command), rig.DEADLINE), b"up\n")
        await command.signal(CommandSignal.TERMINATE)
        stdout, _, end = await asyncio.wait_for(output_of(command), rig.DEADLINE)
        self.assertEqual((stdout, end.status), (b"got\n", 7))

    async def test_a_command_that_is_not_allowed_is_denied(self):
        command = self.laptop.run("web01.company", ["reboot"])
        with self.assertRaises(MalaiError.Denied) as caught:
            await asyncio.wait_for(command.started(), rig.DEADLINE)
        error = caught.exception
        self.assertEqual(error.code, "acl.denied")
        self.assertIn("reboot", error.message)
        self.assertIn("ask", error.hint)
        # Who does not wait for the start learns it from the events, as often as it asks.
        for _ in range(2):
            with self.assertRaises(MalaiError.Denied):
                await command.ready()
        self.assertEqual(command.take_events(8), [])

    async def test_a_machine_that_is_away_is_unreachable_in_time(self):
        impatient = await self.rig.open("laptop", connect_timeout_ms=500)
        self.addAsyncCleanup(impatient.shutdown)
        began = time.monotonic()
        error = await self.fails(impatient.run("gone.company", ["true"]))
        self.assertIsInstance(error, MalaiError.Unreachable)
        self.assertEqual(error.code, "p2p.unreachable")
        # Its own limit, not the usual 5 s.
        self.assertLess(time.monotonic() - began, 4)

    async def test_what_is_no_address_is_told(self):
        for address, kind, code in (
            ("web01", MalaiError.InvalidInput, "address.invalid"),
            ("web01.nowhere", MalaiError.NotFound, "address.unknown_cluster"),
            ("web02.company", MalaiError.NotFound, "address.unknown_machine"),
        ):
            error = await self.fails(self.laptop.run(address, ["true"]))
            self.assertIsInstance(error, kind)
            self.assertEqual(error.code, code)

    async def test_cancel_ends_a_wait_at_once_and_the_remote_process(self):
        command = self.sh("echo $$; exec sleep 60")
        pid = int(await asyncio.wait_for(first_line(command), rig.DEADLINE))
        self.assertTrue(rig.is_alive(pid))
        waiting = asyncio.create_task(command.ready())
        await asyncio.sleep(0)
        began = time.monotonic()
        command.cancel()
        with self.assertRaises(MalaiError.Cancelled) as caught:
            await asyncio.wait_for(waiting, rig.DEADLINE)
        self.assertLess(time.monotonic() - began, 1)
        self.assertEqual(caught.exception.code, "cancelled")
        await asyncio.to_thread(rig.await_until, lambda: not rig.is_alive(pid), "the process to be gone")
        for call in (command.ready(), command.write_stdin(b"x"), command.signal(CommandSignal.KILL)):
            with self.assertRaises(MalaiError.Cancelled):
                await call

    async def test_cancel_reaches_a_command_that_does_not_run_yet(self):
        command = self.laptop.run("gone.company", ["true"])
        waiting = asyncio.create_task(command.started())
        await asyncio.sleep(0)
        began = time.monotonic()
        command.cancel()
        with self.assertRaises(MalaiError.Cancelled):
            await asyncio.wait_for(waiting, rig.DEADLINE)
        self.assertLess(time.monotonic() - began, 1)

    async def test_a_handle_that_nobody_holds_hangs_the_command_up(self):
        command = self.sh("echo $$; exec sleep 60")
        pid = int(await asyncio.wait_for(first_line(command), rig.DEADLINE))
        del command
        await asyncio.to_thread(rig.await_until, lambda: not rig.is_alive(pid), "the process to be gone")

    async def test_cancelling_the_task_that_waits_loses_nothing(self):
        lines = 300
        command = self.sh(f"i=0; while [ $i -lt {lines} ]; do echo $i; i=$((i+1)); done; exit 5")
        stdout, end, cancelled, yields = b"", None, 0, 0
        while end is None:
            waiting = asyncio.create_task(command.ready())
            # After another number of turns of the loop each time: before, while and after the wait is ready.
            yields = (yields + 1) % 7
            for _ in range(yields):
                await asyncio.sleep(0)
            if waiting.cancel():
                cancelled += 1
            await asyncio.wait([waiting], timeout=rig.DEADLINE)
            self.assertTrue(waiting.done())
            for event in command.take_events(1):
                if event.is_STDOUT():
                    stdout += event.bytes
                else:
                    end = event
        self.assertEqual(stdout, b"".join(b"%d\n" % line for line in range(lines)))
        self.assertEqual(end.status, 5)
        self.assertGreater(cancelled, 0)

    async def test_a_timeout_around_a_wait_loses_nothing(self):
        command = self.sh("for i in 1 2 3 4 5; do echo $i; sleep 0.03; done")
        stdout, timeouts, more = b"", 0, True
        while more:
            try:
                more = await asyncio.wait_for(command.ready(), 0.002)
            except asyncio.TimeoutError:
                timeouts += 1
                continue
            stdout += b"".join(event.bytes for event in command.take_events(64) if event.is_STDOUT())
        self.assertEqual(stdout, b"1\n2\n3\n4\n5\n")
        self.assertGreater(timeouts, 0)

    async def test_a_write_whose_task_is_cancelled_goes_out_whole(self):
        command = self.laptop.run("web01.company", ["sh", "-c", "sleep 0.3; cat"])
        await command.started()
        sent = b"x" * (4 << 20)
        writing = asyncio.create_task(command.write_stdin(sent))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.assertTrue(writing.cancel())
        await asyncio.wait([writing])

        async def end():
            await command.write_stdin(b"end")
            await command.end_stdin()

        ending = asyncio.create_task(end())
        stdout, _, _ = await asyncio.wait_for(output_of(command), rig.DEADLINE)
        await ending
        # All of it or, cancelled before it was begun, nothing; never a part.
        self.assertIn(len(stdout), (3, len(sent) + 3))
        self.assertTrue(stdout.endswith(b"end"))

    async def test_two_homes_in_one_process(self):
        tablet = await self.rig.open("tablet")
        self.addAsyncCleanup(tablet.shutdown)
        who = "echo $MALAI_CLIENT_MACHINE"
        runs = [self.run_sh(who, malai=malai) for malai in (self.laptop, tablet) * 5]
        names = [stdout for stdout, _, _ in await asyncio.gather(*runs)]
        self.assertEqual(names, [b"laptop\n", b"tablet\n"] * 5)
        # One goes, the other stays.
        await tablet.shutdown()
        self.assertEqual((await self.run_sh(who))[0], b"laptop\n")

    async def test_after_shutdown_everything_is_cancelled(self):
        tablet = await self.rig.open("tablet")
        command = self.sh("echo $$; exec sleep 60", malai=tablet)
        pid = int(await asyncio.wait_for(first_line(command), rig.DEADLINE))
        waiting = asyncio.create_task(command.ready())
        await asyncio.sleep(0)
        await asyncio.wait_for(tablet.shutdown(), rig.DEADLINE)
        for call in (waiting, tablet.clusters(), tablet.run("web01.company", ["true"]).ready()):
            with self.assertRaises(MalaiError.Cancelled):
                await asyncio.wait_for(call, rig.DEADLINE)
        await asyncio.to_thread(rig.await_until, lambda: not rig.is_alive(pid), "the process to be gone")
        await tablet.shutdown()


class Homes(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)

    async def test_a_home_is_made_and_a_cluster_in_it(self):
        malai = await Malai.open(str(self.rig.dir / "new"), MalaiOptions())
        self.addAsyncCleanup(malai.shutdown)
        self.assertEqual(await malai.clusters(), [])
        made = await malai.init_cluster("company")
        self.assertEqual((made.role, made.cluster_name), (ClusterRole.MANAGER, "company"))
        with self.assertRaises(MalaiError.Conflict):
            await malai.init_cluster("company")
        with self.assertRaises(MalaiError.InvalidInput) as caught:
            await malai.init_cluster("Not A Name")
        self.assertEqual(caught.exception.code, "name.invalid")
        self.assertEqual((self.rig.dir / "new").stat().st_mode & 0o777, 0o700)

    async def test_a_broken_config_tells_where_and_can_be_mended(self):
        malai = await self.rig.open("one")
        self.addAsyncCleanup(malai.shutdown)
        toml = self.rig.home("one") / "malai.toml"
        toml.write_text("[network]\nbnid = 1\n")
        with self.assertRaises(MalaiError.InvalidInput) as caught:
            await malai.clusters()
        self.assertEqual(caught.exception.code, "config.invalid")
        self.assertIn("malai.toml:2:1", caught.exception.message)
        toml.write_text(rig.MALAI_TOML)
        self.assertEqual(await malai.clusters(), [])

    async def test_a_home_that_cannot_be_is_refused(self):
        (self.rig.dir / "file").write_text("")
        with self.assertRaises(MalaiError.Storage):
            await Malai.open(str(self.rig.dir / "file" / "home"), MalaiOptions())
        with self.assertRaises(MalaiError.InvalidInput):
            await Malai.open("", MalaiOptions())


if __name__ == "__main__":
    unittest.main()
