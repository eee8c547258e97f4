/** The house style's rules that a program can hold: layout, the direction of dependencies, purity, one reader of the environment. */
import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { dirname, join, relative } from "node:path";

const root = join(import.meta.dir, "../../..");
const services = ["order", "inventory", "payment"];

const paths = (await Array.fromAsync(new Bun.Glob("{proto,relay,services,load}/**/*.{ts,mjs}").scan(root)))
  .filter((path) => !path.includes("node_modules"))
  .sort();
const sources = await Promise.all(
  paths.map(async (path) => {
    const text = await Bun.file(join(root, path)).text();
    return { path, text, imports: importsOf(path, text) };
  }),
);

/** Package names, and paths from the root for the project's own files. */
function importsOf(path: string, text: string): readonly string[] {
  const specifiers = [...text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^;'"]*?from\s+"([^"]+)"/g)]
    .concat([...text.matchAll(/\bimport\(\s*"([^"]+)"\s*\)/g)], [...text.matchAll(/(?:^|\n)import\s+"([^"]+)"/g)])
    .map((match) => match[1] ?? "");
  return specifiers.map((it) => (it.startsWith(".") ? relative(root, join(root, dirname(path), it)) : it));
}

/** The part of the system that a file belongs to; services/order is a part of its own. */
function partOf(path: string): string {
  const [first = "", second = ""] = path.split("/");
  return first === "services" ? `${first}/${second}` : first;
}

const isTest = (path: string) => path.endsWith(".test.ts");

test("there are files to look at", () => {
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

describe("dependencies run one way", () => {
  const mayImport: Readonly<Record<string, readonly string[]>> = {
    proto: [],
    "services/kit": [],
    relay: ["proto", "services/kit"],
    "services/order": ["proto", "services/kit", "relay"],
    "services/inventory": ["proto", "services/kit", "relay"],
    "services/payment": ["proto", "services/kit", "relay"],
    // Composes all of them, on one machine.
    "services/stack": ["proto", "services/kit", "relay", "services/order", "services/inventory", "services/payment"],
    // Looks at the system from outside, with its operators' eyes.
    "services/ops": [
      "proto",
      "services/kit",
      "relay",
      "services/order",
      "services/inventory",
      "services/payment",
      "services/stack",
    ],
    // Loads, breaks and explores it.
    load: [
      "proto",
      "services/kit",
      "relay",
      "services/order",
      "services/inventory",
      "services/payment",
      "services/stack",
      "services/ops",
    ],
  };
  // A codec test needs no server; what needs the local stack says so by its suffix.
  const exempt = (path: string) => /\.(int|e2e)\.test\.ts$/.test(path);
  for (const { path, imports } of sources) {
    if (exempt(path)) continue;
    test(path, () => {
      const part = partOf(path);
      const own = imports.filter((it) => /^(proto|relay|services|load)\//.test(it)).map(partOf);
      const allowed = new Set([part, ...(mayImport[part] ?? [])]);
      expect(own.filter((it) => !allowed.has(it))).toEqual([]);
    });
  }
});

test("no service imports another, in tests neither", () => {
  const wrong = sources.flatMap(({ path, imports }) => {
    const part = partOf(path);
    if (!services.some((name) => part === `services/${name}`)) return [];
    return imports
      .filter((it) => services.some((name) => it.startsWith(`services/${name}/`) && `services/${name}` !== part))
      .map((it) => `${path} imports ${it}`);
  });
  expect(wrong).toEqual([]);
});

test("every service has the same file names", async () => {
  for (const service of services) {
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

test("pure domain files import no I/O, and ask for no time and no chance", () => {
  const pure = sources.filter(({ path }) => /^services\/[a-z]+\/(domain|placement)\.ts$/.test(path));
  expect(pure.map(({ path }) => path)).toEqual([
    "services/inventory/domain.ts",
    "services/order/domain.ts",
    "services/order/placement.ts",
    "services/payment/domain.ts",
  ]);
  const allowed = /^(@bufbuild\/protobuf|proto\/|services\/kit\/errors\.ts$)/;
  for (const { path, text, imports } of pure) {
    const own = new RegExp(`^${dirname(path)}/(domain|placement)\\.ts$`);
    expect({ path, imports: imports.filter((it) => !allowed.test(it) && !own.test(it)) }).toEqual({
      path,
      imports: [],
    });
    expect(text).not.toMatch(
      /\bDate\.now\b|new Date\(\)|Math\.random|\bcrypto\.|\bBun\.|\bprocess\.|\bfetch\(|\blog\b/,
    );
  }
});

test("the environment is read in one place", () => {
  const readers = sources.filter(({ text }) => /\bprocess\.env\b|\bBun\.env\b/.test(text)).map(({ path }) => path);
  expect(readers).toEqual([
    "services/kit/config.ts",
    // Runs on Node, before anything of ours is there.
    "services/stack/dev/bootstrap.mjs",
  ]);
});

test("the Kafka client stays behind one module", () => {
  const users = sources.filter(({ imports }) => imports.includes("kafkajs")).map(({ path }) => path);
  expect(users).not.toEqual([]);
  expect(users.filter((path) => !path.startsWith("relay/kafka/"))).toEqual([]);
});

test("tests say by their suffix what they cost", () => {
  const tests = paths.filter((path) => /\btest\.ts$/.test(path) && path !== "services/stack/dev/test.ts");
  expect(tests.filter((path) => !/\.(unit|int|e2e)\.test\.ts$/.test(path))).toEqual([]);
  const heavy = sources.filter(
    ({ path, imports }) => path.endsWith(".unit.test.ts") && imports.includes("mysql2/promise"),
  );
  expect(heavy.map(({ path }) => path)).toEqual([]);
});

test("production code holds no test hook", () => {
  const wrong = sources
    .filter(({ path }) => !isTest(path) && path !== "services/kit/testing.ts" && path !== "services/stack/dev/test.ts")
    .filter(({ text, imports }) => /failpoint|NODE_ENV/i.test(text) || imports.includes("bun:test"))
    .map(({ path }) => path);
  expect(wrong).toEqual([]);
});
