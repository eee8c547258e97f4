import { expect, test } from "bun:test";
import { requireCommand, runCommand } from "./run-command.ts";

test("a command's output and exit code are returned", async () => {
  const result = await runCommand(["sh", "-c", 'echo "$GREETING from $PWD"; echo oops >&2; exit 3'], {
    folder: "/",
    env: { GREETING: "hello" },
  });
  expect(result).toEqual({ exitCode: 3, stdout: "hello from /\n", stderr: "oops\n", output: "hello from /\noops\n" });
});

test("a command that must succeed throws what it printed", async () => {
  await requireCommand(["true"]);
  await expect(requireCommand(["sh", "-c", "echo oops; exit 3"])).rejects.toThrow("ended with exit code 3:\noops");
});

test("a command is killed after its time limit", async () => {
  const startedAtMs = performance.now();
  expect((await runCommand(["sleep", "30"], { timeoutMs: 50 })).exitCode).not.toBe(0);
  expect(performance.now() - startedAtMs).toBeLessThan(10_000);
});

test("the programs of the project's dependencies are found by name", async () => {
  expect((await runCommand(["biome", "--version"])).output).toStartWith("Version: ");
});
