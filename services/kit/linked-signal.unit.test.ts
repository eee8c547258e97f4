import { heapStats } from "bun:jsc";
import { expect, test } from "bun:test";
import { linkSignals } from "./linked-signal.ts";

test("a linked signal is aborted with the reason of the first source that is", () => {
  const [first, second] = [new AbortController(), new AbortController()];
  const { signal } = linkSignals(first.signal, second.signal);
  expect(signal.aborted).toBe(false);
  second.abort("second");
  first.abort("first");
  expect(signal.reason).toBe("second");
});

test("a source that is aborted already aborts the linked signal at once", () => {
  const { signal } = linkSignals(new AbortController().signal, AbortSignal.abort("before"));
  expect(signal.reason).toBe("before");
});

test("a disposed signal no longer follows its sources", () => {
  const source = new AbortController();
  const linked = linkSignals(source.signal);
  linked[Symbol.dispose]();
  source.abort();
  expect(linked.signal.aborted).toBe(false);
});

test("linked signals leave nothing on a source that lives on, even if a listener was left on them", () => {
  const closing = new AbortController();
  const signals = () => {
    Bun.gc(true);
    return heapStats().objectTypeCounts.AbortSignal ?? 0;
  };
  const before = signals();
  for (let index = 0; index < 10_000; index++) {
    using linked = linkSignals(new AbortController().signal, closing.signal);
    linked.signal.addEventListener("abort", () => index);
  }
  expect(signals() - before).toBeLessThan(100);
  expect(closing.signal.aborted).toBe(false);
});
