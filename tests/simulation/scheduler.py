"""Simulated time and threads: greenlets of which one runs at a time, chosen by the seed wherever a thread could be preempted.

Owner: one `Scheduler` per seed, `scheduler.current()` for the code under it. A `Task` stands for a thread, a `Process` for an
operating system's process: it can be killed (none of its tasks ever runs again) or paused (SIGSTOP) at every such point.
`THREADING`, `TIME`, `Future`, `wait`, `SimpleQueue` and `Loop` stand in for what the product imports; between two calls of
theirs a task has the machine for itself.
Not here: Kafka (kafka.py), what dies when (run.py).
"""

import asyncio
import concurrent.futures
import random
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from queue import Empty, Full
from types import SimpleNamespace
from typing import Any

from greenlet import getcurrent, greenlet

START_S = 1_700_000_000
"""What simulated clocks show at the start, epoch seconds."""


class Killed(SystemExit):
    """The process is gone; raised in its tasks so that they unwind. A SystemExit: asyncio lets nothing else through."""


class Stuck(Exception):
    """Nothing can run any more, and no timer is left."""


class Process:
    """What dies together. `faulty` ones are killed and paused by the scheduler's `fault`."""

    def __init__(self, name: str, faulty: bool = False):
        self.name = name
        self.faulty = faulty
        self.alive = True
        self.paused = False
        self.tasks: list[Task] = []
        self.parked: list[Task] = []  # ready but for the pause

    def buried(self) -> None:
        """Nothing of it runs any more."""


class Task(greenlet):
    """A thread."""

    def __init__(self, scheduler: "Scheduler", process: Process, function: Callable[[], Any], name: str):
        super().__init__(self._body, scheduler.hub)
        self.scheduler, self.process, self.function, self.name = scheduler, process, function, name
        self.turn = 0  # counts its waits, so that a late timer does not end a later one
        self.woken = False
        self.waiting = False
        self.loop: asyncio.AbstractEventLoop | None = None  # while it runs one
        self.over = False
        self.enders: list[tuple[Task, int]] = []
        process.tasks.append(self)

    def _body(self) -> None:
        try:
            if self.process.alive:
                self.function()
        except Killed:
            pass
        except BaseException as error:
            self.scheduler.broken = self.scheduler.broken or error
        self.over = True
        self.process.tasks.remove(self)
        for task, turn in self.enders:
            self.scheduler.wake(task, turn)


class Scheduler:
    """Runs one seed's tasks.

    Parameters
    ----------
    seed : int
    trace : callable, optional
        Told each line worth reading.
    """

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None):
        self.random = random.Random(seed)
        self.now = 0.0
        self.hub = getcurrent()
        self.broken: BaseException | None = None
        self.preempt = self.random.choice([0.02, 0.1, 0.3])
        self.points = 0
        self.switches = 0
        self.fault: Callable[[Process], None] | None = None
        self.fault_at = sys.maxsize  # the number of the point of a faulty process at which `fault` is called
        self._ready: list[Task] = []
        self._timers: list[tuple] = []
        self._number = 0
        self._trace = trace

    # Of the hub

    def run(self, done: Callable[[], bool], until: float) -> bool:
        """Run until `done`, which is asked whenever all tasks wait; False if it is not by the time `until`."""
        global _current
        _current, self.hub = self, getcurrent()
        draw, ready, timers = self.random.random, self._ready, self._timers
        while self.broken is None:
            while timers and timers[0][0] <= self.now:
                _, _, task, turn = heappop(timers)
                if turn is None:
                    task()
                elif task.waiting and task.turn == turn:
                    self._make_ready(task, False)
            if ready:
                place = int(draw() * len(ready))
                task, ready[place] = ready[place], ready[-1]
                ready.pop()
                if task.process.paused:
                    task.process.parked.append(task)
                    continue
                self.now += draw() * 0.0002
                self.switches += 1
                task.switch()
            elif done():
                return True
            elif not timers:
                raise Stuck("all tasks wait for each other")
            elif timers[0][0] > until:
                return False
            else:
                self.now = max(self.now, timers[0][0])
        raise self.broken

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Call `act` in the hub when the time has come; it must not wait."""
        self._number += 1
        heappush(self._timers, (self.now + delay_s, self._number, act, None))

    def spawn(self, process: Process, function: Callable[[], Any], name: str) -> Task:
        task = Task(self, process, function, name)
        self._ready.append(task)
        return task

    def kill(self, process: Process) -> None:
        """End a process now; from the hub, or from one of its own tasks, which then does not return."""
        process.alive = False
        process.paused = False
        if getcurrent() is not self.hub:
            self.at(0, lambda: self.bury(process))
            raise Killed
        self.bury(process)

    def bury(self, process: Process) -> None:
        """Let the tasks of a dead process unwind."""
        process.alive = False
        dead = list(process.tasks)
        gone = set(map(id, dead))
        self._ready[:] = [task for task in self._ready if id(task) not in gone]
        process.parked.clear()
        for task in dead:
            task.waiting = False
            for _ in range(20):  # a task may take it for an error of its own once or twice
                if not task:  # over, or never begun
                    break
                task.throw(Killed)
            else:
                raise RuntimeError(f"{process.name}/{task.name} does not die")
        process.tasks.clear()
        process.buried()

    def pause(self, process: Process, seconds: float) -> None:
        """Stop a process for some time: SIGSTOP, a long garbage collection, a suspended machine."""
        process.paused = True
        self.at(seconds, lambda: self.wake_up(process))

    def wake_up(self, process: Process) -> None:
        process.paused = False
        self._ready.extend(process.parked)
        process.parked.clear()

    # Of the tasks

    def point(self) -> None:
        """Pass a place where a thread may be preempted, or its process die."""
        task = getcurrent()
        if task is self.hub:
            return
        process = task.process
        if not process.alive:
            raise Killed
        if process.faulty:
            self.points += 1
            if self.points >= self.fault_at:
                self.fault(process)
                if process.paused:
                    self._ready.append(task)
                    self._switch(task)
                    return
        if self.random.random() < self.preempt:
            self._ready.append(task)
            self._switch(task)

    def block(self, timeout_s: float | None = None) -> bool:
        """Wait to be woken; False if the time was up first."""
        task = getcurrent()
        if not task.process.alive:
            raise Killed
        task.turn += 1
        task.waiting = True
        if timeout_s is not None:
            self._number += 1
            heappush(self._timers, (self.now + max(timeout_s, 0.0), self._number, task, task.turn))
        self._switch(task)
        return task.woken

    def me(self) -> tuple[Task, int]:
        """Give what `wake` needs to end the next `block` of the running task."""
        task = getcurrent()
        return task, task.turn + 1

    def wake(self, task: Task, turn: int) -> None:
        if task.waiting and task.turn == turn:
            self._make_ready(task, True)

    def sleep(self, seconds: float) -> None:
        self.block(seconds)

    def log(self, text: str) -> None:
        if self._trace is not None:
            task = getcurrent()
            who = "" if task is self.hub else f"{task.process.name}/{task.name}"
            self._trace(f"{self.now:9.4f} {who:28} {text}")

    def _make_ready(self, task: Task, woken: bool) -> None:
        task.waiting, task.woken = False, woken
        (task.process.parked if task.process.paused else self._ready).append(task)

    def _switch(self, task: Task) -> None:
        if task.loop is not None:
            events._set_running_loop(None)
            try:
                self.hub.switch()
            finally:
                events._set_running_loop(task.loop)
        else:
            self.hub.switch()
        if not task.process.alive:
            raise Killed


_current: Scheduler | None = None


def current() -> Scheduler:
    """The scheduler that runs."""
    return _current


def process() -> Process:
    """The process of the running task."""
    return getcurrent().process


def alive() -> bool:
    """Whether the running task's process is."""
    task = getcurrent()
    return not isinstance(task, Task) or task.process.alive


# What stands in for `threading`


class Lock:
    """A lock that its holder may take again; plain locks are not told apart, since nobody takes one twice."""

    def __init__(self) -> None:
        self._owner: Any = None
        self._depth = 0
        self._waiters: deque = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = _current
        scheduler.point()
        task = getcurrent()
        while self._owner is not None and self._owner is not task:
            if not blocking:
                return False
            self._waiters.append(scheduler.me())
            if not scheduler.block(None if timeout < 0 else timeout):
                return False
        self._owner = task
        self._depth += 1
        return True

    def release(self) -> None:
        if self._owner is getcurrent():  # not when a dead task unwinds
            self._depth -= 1
            if self._depth == 0:
                self._owner = None
                self._pass_on()

    def _pass_on(self) -> None:
        while self._waiters and self._owner is None:
            task, turn = self._waiters.popleft()
            if task.waiting and task.turn == turn:
                _current.wake(task, turn)
                return

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()


class Condition(Lock):
    def __init__(self, lock: Any = None) -> None:
        super().__init__()
        self._sleepers: list = []

    def wait(self, timeout: float | None = None) -> bool:
        me = _current.me()
        self._sleepers.append(me)
        depth, self._depth, self._owner = self._depth, 0, None
        self._pass_on()
        woken = _current.block(timeout)
        if not woken and me in self._sleepers:
            self._sleepers.remove(me)
        while self._owner is not None:
            self._waiters.append(_current.me())
            _current.block()
        self._owner, self._depth = getcurrent(), depth
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        ends = None if timeout is None else _current.now + timeout
        result = predicate()
        while not result:
            left = None if ends is None else ends - _current.now
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        woken, self._sleepers = self._sleepers[:n], self._sleepers[n:]
        for task, turn in woken:
            _current.wake(task, turn)

    def notify_all(self) -> None:
        self.notify(len(self._sleepers))


class Event:
    def __init__(self) -> None:
        self._condition = Condition()
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        with self._condition:
            self._set = True
            self._condition.notify_all()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._condition:
            return bool(self._condition.wait_for(lambda: self._set, timeout))


class Thread:
    def __init__(self, target: Callable, name: str = "", args: tuple = (), daemon: bool = False, kwargs: dict | None = None):
        self.name = name
        self._call = lambda: target(*args, **(kwargs or {}))
        self._task: Task | None = None

    def start(self) -> None:
        self._task = _current.spawn(process(), self._call, self.name)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.over

    def join(self, timeout: float | None = None) -> None:
        if self.is_alive():
            self._task.enders.append(_current.me())
            _current.block(timeout)


THREADING = SimpleNamespace(Thread=Thread, Lock=Lock, RLock=Lock, Condition=Condition, Event=Event)

# What stands in for `time`

TIME = SimpleNamespace(
    monotonic=lambda: _current.now,
    perf_counter=lambda: _current.now,
    time=lambda: START_S + _current.now,
    sleep=lambda seconds: _current.sleep(seconds),
)

# What stands in for `concurrent.futures` and `queue`


class Future(concurrent.futures.Future):
    """The real one over a simulated condition."""

    def __init__(self) -> None:
        super().__init__()
        self._condition = Condition()


def wait(futures: Iterable[Future], timeout: float | None = None) -> Any:
    """Wait for all of them; gives (done, not done)."""
    futures = list(futures)
    condition = Condition()

    def told(_: Any) -> None:
        with condition:
            condition.notify_all()

    for future in futures:
        future.add_done_callback(told)
    with condition:
        condition.wait_for(lambda: all(future.done() for future in futures), timeout)
    done = {future for future in futures if future.done()}
    return SimpleNamespace(done=done, not_done=set(futures) - done)


class SimpleQueue:
    def __init__(self, maxsize: int = 0) -> None:
        self._condition = Condition()
        self._items: deque = deque()
        self._maxsize = maxsize

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        with self._condition:
            full = self._maxsize and len(self._items) >= self._maxsize
            if full and not (block and self._condition.wait_for(lambda: len(self._items) < self._maxsize, timeout)):
                raise Full
            self._items.append(item)
            self._condition.notify_all()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with self._condition:
            if not self._items and (not block or not self._condition.wait_for(lambda: self._items, timeout)):
                raise Empty
            item = self._items.popleft()
            self._condition.notify_all()
            return item

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


# What stands in for asyncio's own event loop


class Loop(asyncio.BaseEventLoop):
    """An event loop whose clock is simulated and whose selector is a wait."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._clock_resolution = 1e-9
        self._called = False
        self._sleeper: tuple[Task, int] | None = None
        self.set_exception_handler(lambda *_: None)

    def time(self) -> float:
        return _current.now

    def select(self, timeout: float | None) -> list:
        _current.point()
        if not self._called and timeout != 0:
            self._sleeper = _current.me()
            _current.block(timeout)
            self._sleeper = None
        self._called = False
        return []

    def _process_events(self, event_list: list) -> None:
        pass

    def _write_to_self(self) -> None:
        self._called = True
        if self._sleeper is not None:
            _current.wake(*self._sleeper)

    def run_in_executor(self, executor: Any, func: Callable, *args: Any) -> asyncio.Future:
        result = Future()

        def run() -> None:
            try:
                result.set_result(func(*args))
            except Exception as error:
                result.set_exception(error)

        Thread(run, name="executor").start()
        return asyncio.wrap_future(result, loop=self)

    def run(self, main: Any) -> Any:
        """Run a coroutine to its end, in the running task."""
        task = getcurrent()
        task.loop = self
        try:
            return self.run_until_complete(main)
        finally:
            task.loop = None
            events._set_running_loop(None)
