import { expect, test } from "bun:test";
import { hedge } from "./hedge.ts";

const fails = (message: string) => () => Promise.reject(new Error(message));
const isSilent = () => new Promise<string>(() => undefined);

/** Fails the test if the delay is waited for. */
const never = 60_000;
const ignore = () => undefined;

test("the first attempt that succeeds wins, and no other begins", async () => {
  const second = () => Promise.reject(new Error("not needed"));
  expect(await hedge([async () => "first", second], never, ignore)).toBe("first");
});

test("an attempt begins as soon as all before it have failed", async () => {
  expect(await hedge([fails("a"), fails("b"), async () => "third"], never, ignore)).toBe("third");
});

test("an attempt begins if those before it do not answer", async () => {
  expect(await hedge([isSilent, fails("b"), async () => "third"], 1, ignore)).toBe("third");
});

test("a later success is discarded", async () => {
  const slow = Promise.withResolvers<string>();
  const discarded: string[] = [];
  expect(await hedge([() => slow.promise, async () => "fast"], 1, (result) => discarded.push(result))).toBe("fast");
  slow.resolve("slow");
  await slow.promise;
  await Promise.resolve();
  expect(discarded).toEqual(["slow"]);
});

test("if every attempt fails, the first error is thrown", async () => {
  await expect(hedge([fails("a"), fails("b")], never, ignore)).rejects.toThrow("a");
});
