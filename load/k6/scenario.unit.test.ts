import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";

test("the schema that the k6 script loads exists", async () => {
  const script = await Bun.file(join(import.meta.dir, "scenario.ts")).text();
  const [, folder = "", file = ""] = /client\.load\(\["([^"]+)"\], "([^"]+)"\)/.exec(script) ?? [];
  expect(file).toEndWith(".proto");
  expect(existsSync(join(import.meta.dir, folder, file))).toBe(true);
});
