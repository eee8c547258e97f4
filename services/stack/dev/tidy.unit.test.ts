/** The rules of the house that a program can check: layout, imports, purity, sizes. No file is exempt by its kind. */
import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { serviceNames } from "../services.ts";
import { readSource, type SourceFile } from "./source-code.ts";

const root = join(import.meta.dir, "../../..");

const functionLinesMax = 70;
const fileLinesMax = 400;
const sharedVariablesMax = 6;

/**
 * Exceptions from the limits above: by file, the largest size in it. They may only shrink: a test fails if an entry is
 * larger than needed. There are none for `relay/` and `services/`.
 */
const exceptions: Readonly<
  Record<"functionLines" | "fileLines" | "sharedVariables", Readonly<Record<string, number>>>
> = {
  functionLines: {},
  fileLines: {},
  sharedVariables: {},
};

const paths = (await Array.fromAsync(new Bun.Glob("{proto,relay,services,load}/**/*.{ts,mjs}").scan(root)))
  .filter((path) => !path.startsWith("proto/gen/"))
  .sort();
const sources = await Promise.all(paths.map(async (path) => readSource(path, await Bun.file(join(root, path)).text())));
const isTest = (path: string) => path.endsWith(".test.ts");
const code = sources.filter(({ path }) => !isTest(path));

/** The part of the system that a file belongs to: each service is one. */
function partOf(path: string): string {
  const [first = "", second = ""] = path.split("/");
  return first === "services" ? `${first}/${second}` : first;
}

/** The files for which `sizeOf` is more than `max`, with the sizes. */
function above(max: number, files: readonly SourceFile[], sizeOf: (file: SourceFile) => number) {
  const sizes = files.map((file) => [file.path, sizeOf(file)] as const);
  return Object.fromEntries(sizes.filter(([, size]) => size > max));
}

test("the rules find the project's files and their imports", () => {
  expect(sources.length).toBeGreaterThan(40);
  const imports = sources.flatMap((source) => source.imports);
  expect(imports).toContain("proto/envelope.ts");
  expect(imports).toContain("kafkajs");
});

test("the top level holds the agreed entries and nothing else", async () => {
  const allowed = new Set(
    "proto services relay load compose.yaml package.json tsconfig.json bunfig.toml README.md bun.lock node_modules".split(
      " ",
    ),
  );
  const entries = await readdir(root);
  expect(entries.filter((name) => !name.startsWith(".") && !allowed.has(name))).toEqual([]);
});

describe("imports run down the layers only, in tests too", () => {
  const layers = [
    ["proto", "services/kit"],
    ["relay"],
    serviceNames.map((name) => `services/${name}`),
    ["services/stack"],
    ["services/ops"],
    ["load"],
  ];
  const layerOf = (part: string) => layers.findIndex((parts) => parts.includes(part));
  for (const { path, imports } of sources) {
    test(path, () => {
      const part = partOf(path);
      expect(layerOf(part)).not.toBe(-1);
      const own = imports.filter((it) => /^(proto|relay|services|load)\//.test(it));
      expect(own.filter((it) => partOf(it) !== part && layerOf(partOf(it)) >= layerOf(part))).toEqual([]);
    });
  }
});

test("kafkajs is imported in relay/kafka and nowhere else", () => {
  const users = sources.filter(({ imports }) => imports.some((it) => /^kafkajs\b/.test(it)));
  expect(users.map(({ path }) => path).filter((path) => !path.startsWith("relay/kafka/"))).toEqual([]);
});

test("every service has the same file names", async () => {
  for (const service of serviceNames) {
    const files = await readdir(join(root, "services", service));
    expect(files).toEqual(
      expect.arrayContaining([
        "main.ts",
        "config.ts",
        "domain.ts",
        "domain.unit.test.ts",
        "handlers.ts",
        "repository.ts",
        "schema.ts",
        "migrations",
      ]),
    );
  }
});

test("the services are listed in the event table and in services.ts only", () => {
  const listing = (file: SourceFile) =>
    file.wordLists.filter((words) => serviceNames.every((name) => words.includes(name))).length;
  const {
    "proto/event-table.ts": types,
    "services/stack/services.ts": definitions,
    ...found
  } = above(0, sources, listing);
  expect([types, definitions]).toEqual([1, 1]);
  expect(found).toEqual({});
});

test("pure domain files import no I/O and read neither the clock nor a random source", () => {
  const pure = sources.filter(({ path }) => /^services\/[a-z]+\/(domain|placement)\.ts$/.test(path));
  expect(pure.map(({ path }) => path)).toEqual(
    expect.arrayContaining(serviceNames.map((name) => `services/${name}/domain.ts`)),
  );
  const allowed = /^(@bufbuild\/protobuf|proto\/.*|services\/kit\/errors\.ts)$/;
  for (const { path, text, imports } of pure) {
    const isPure = (it: string) => allowed.test(it) || pure.some((file) => file.path === it);
    expect({ path, imports: imports.filter((it) => !isPure(it)) }).toEqual({ path, imports: [] });
    expect(text).not.toMatch(
      /\bDate\.now\b|new Date\(\)|Math\.random|\bcrypto\.|\bBun\.|\bprocess\.|\bfetch\(|\blog\b/,
    );
  }
});

test("the environment is read in one place", () => {
  const readers = sources.filter(({ text }) => /\bprocess\.env\b|\bBun\.env\b/.test(text)).map(({ path }) => path);
  expect(readers).toEqual([
    "services/kit/config.ts",
    // Runs on Node, before any dependency is installed.
    "services/stack/dev/bootstrap.mjs",
  ]);
});

test("signals are combined by linkSignals, because nothing detaches those of AbortSignal.any", () => {
  const users = code.filter(({ text }) => /AbortSignal\.any\(/.test(text)).map(({ path }) => path);
  expect(users).toEqual([]);
});

test("a test's suffix says what it costs", () => {
  const tests = paths.filter((path) => /\btest\.ts$/.test(path) && path !== "services/stack/dev/test.ts");
  expect(tests.filter((path) => !/\.(unit|int|e2e)\.test\.ts$/.test(path))).toEqual([]);
  const needServers = sources.filter(
    ({ path, imports }) => path.endsWith(".unit.test.ts") && imports.includes("mysql2/promise"),
  );
  expect(needServers.map(({ path }) => path)).toEqual([]);
});

test("production code has no test hooks", () => {
  const wrong = code
    .filter(({ path }) => path !== "services/stack/dev/test.ts")
    .filter(({ text, imports }) => /failpoint|NODE_ENV/i.test(text) || imports.includes("bun:test"));
  expect(wrong.map(({ path }) => path)).toEqual([]);
});

test("no exception is for relay/ or services/", () => {
  const files = Object.values(exceptions).flatMap((sizes) => Object.keys(sizes));
  expect(files.filter((path) => !path.startsWith("load/"))).toEqual([]);
});

test(`no function is longer than ${functionLinesMax} lines`, () => {
  const longest = ({ functions }: SourceFile) => Math.max(0, ...functions.map(({ lineCount }) => lineCount));
  expect(above(functionLinesMax, code, longest)).toEqual(exceptions.functionLines);
});

test(`no file but a test is longer than ${fileLinesMax} lines`, () => {
  expect(above(fileLinesMax, code, ({ lineCount }) => lineCount)).toEqual(exceptions.fileLines);
});

test(`the functions of one closure share at most ${sharedVariablesMax} variables that change`, () => {
  const most = ({ closures }: SourceFile) => Math.max(...closures.map((closure) => closure.sharedVariables.length));
  expect(above(sharedVariablesMax, code, most)).toEqual(exceptions.sharedVariables);
});
