/** Holds the READMEs against the code: tables, diagrams, paths and commands, in whichever README they stand. */
import { describe, expect, test } from "bun:test";
import { dirname, join } from "node:path";
import { eventTable } from "../../../proto/event-table.ts";

const root = join(import.meta.dir, "../../..");
const folders = "{proto,relay,services,load}";
const files = [
  ...(await Array.fromAsync(new Bun.Glob(`${folders}/**/*`).scan(root))),
  ...(await Array.fromAsync(new Bun.Glob("*").scan(root))),
].filter((path) => !path.includes("node_modules"));
const isFolder = (path: string) => files.some((file) => file.startsWith(`${path}/`));

const readmes = await Promise.all(
  files
    .filter((path) => path.endsWith("README.md"))
    .sort()
    .map(async (path) => ({ path, text: await Bun.file(join(root, path)).text() })),
);
const all = readmes.map(({ text }) => text).join("\n");

function renderedEventTable(): string {
  const name = (schema: { readonly name: string }) => `\`${schema.name}\``;
  const rows = eventTable.map((row) => {
    const reactions = row.reactions.map((reaction) => {
      const answers = reaction.answers.map(name).join(" or ");
      return `${reaction.service} ${reaction.effect}${answers === "" ? "" : ` → ${answers}`}`;
    });
    return `| ${name(row.schema)} | ${row.publishedBy} | ${reactions.join("; ") || "none: it is final, for watchers"} |`;
  });
  return ["| event | published by | who reacts, and how |", "| --- | --- | --- |", ...rows].join("\n");
}

test("the event table in the README is the one in the code", () => {
  const shown = [...all.matchAll(/<!-- event table -->\n([\s\S]*?)\n?<!-- \/event table -->/g)];
  expect(shown.map(([, table]) => table)).toEqual([renderedEventTable()]);
});

test("the root README is read in a few minutes: 150 lines at most", () => {
  const [main] = readmes.filter(({ path }) => path === "README.md");
  expect(main?.text.split("\n").length).toBeLessThanOrEqual(151);
});

test("the root README's excerpt of decide is the code of services/order/domain.ts", async () => {
  const [main] = readmes.filter(({ path }) => path === "README.md");
  const [, excerpt = ""] = /```ts\n(export function decide[\s\S]*?)\n\s*…\n```/.exec(main?.text ?? "") ?? [];
  expect(excerpt.split("\n").length).toBeGreaterThan(5);
  expect(await Bun.file(join(root, "services/order/domain.ts")).text()).toContain(excerpt);
});

describe("the sequence diagrams in the READMEs", () => {
  /** Each diagram is named by the summary or the heading above it. */
  const diagrams = [
    ...all.matchAll(
      /(?:<summary>([^<]+)<\/summary>|^#+ (.+)$)(?:(?!<summary>|^#+ |```)[\s\S])*```mermaid\nsequenceDiagram\n([\s\S]*?)```/gm,
    ),
  ].map(([, summary, heading, text = ""]) => ({
    path: (summary ?? heading ?? "").trim().toLowerCase(),
    lines: text
      .trim()
      .split("\n")
      .map((line) => line.trim()),
  }));
  /** What each path must end with, and the events that make it that path. */
  const paths = {
    complete: ["COMPLETED", "StockReserved", "PaymentAuthorized", "OrderCompleted"],
    "out of stock": ["FAILED (OUT_OF_STOCK)", "StockReservationFailed", "OrderFailed"],
    declined: ["FAILED (PAYMENT_DECLINED)", "PaymentFailed", "StockReleased", "OrderFailed"],
    "timed out": ["FAILED (TIMED_OUT)", "OrderCancelRequested", "StockReleased", "PaymentVoided", "OrderFailed"],
    cancelled: ["FAILED (CANCELLED)", "OrderCancelRequested", "StockReleased", "PaymentVoided", "OrderFailed"],
    "unknown payment": ["COMPLETED", "StockReserved", "PaymentAuthorized", "OrderCompleted"],
  };
  const definitions = new Map(eventTable.map((row) => [row.schema.name as string, row]));
  const answersOf = (event: string) =>
    definitions.get(event)?.reactions.flatMap(({ answers }) => answers.map(({ name }) => name as string)) ?? [];

  test("show every path and nothing else", () => {
    expect(all.split("```mermaid\nsequenceDiagram").length - 1).toBe(diagrams.length);
    expect([...new Set(diagrams.map(({ path }) => path))].toSorted()).toEqual(Object.keys(paths).toSorted());
  });

  for (const [path, [final = "", ...events]] of Object.entries(paths)) {
    test(`${path}: every arrow is in the event table, and every reader of an event is shown`, () => {
      for (const { lines } of diagrams.filter((diagram) => diagram.path === path)) {
        const readers = new Map<string, string[]>();
        for (const line of lines) {
          const [, from = "", arrow = "", to = "", label = ""] = /^(\w+)(->>|-->>|-\))(\w+): (.+)$/.exec(line) ?? [];
          const noted = /^Note over (\w+): publishes (\w+), which no service handles$/.exec(line);
          // Services speak to each other by events only. An event without readers is noted where it is published.
          if (arrow === "-)") {
            expect({ event: label, by: from }).toEqual({
              event: label,
              by: definitions.get(label)?.publishedBy ?? "an unknown publisher",
            });
            readers.set(label, [...(readers.get(label) ?? []), to]);
          } else if (noted !== null && definitions.has(noted[2] ?? "")) {
            expect(noted[1]).toBe(definitions.get(noted[2] ?? "")?.publishedBy ?? "an unknown publisher");
            readers.set(noted[2] ?? "", []);
          } else if (noted === null && !/^(Note over|opt) |^end$/.test(line)) {
            expect([from, to].filter((it) => it === "client" || it === "gateway")).toHaveLength(1);
          }
        }
        for (const [event, shown] of readers) {
          expect({ event, readers: shown.toSorted() }).toEqual({
            event,
            readers: (definitions.get(event)?.reactions ?? []).map(({ service }) => service as string).toSorted(),
          });
        }
        // Every event answers an earlier one, unless a client or a deadline caused it.
        const order = [...readers.keys()];
        const initial = new Set(["OrderPlaced", "OrderCancelRequested"]);
        const uncaused = order.filter(
          (event, index) =>
            !initial.has(event) && !order.slice(0, index).some((cause) => answersOf(cause).includes(event)),
        );
        expect(uncaused).toEqual([]);
        expect(order).toEqual(expect.arrayContaining(["OrderPlaced", ...events]));
        expect(lines.findLast((line) => line.startsWith("order-->>client"))).toBe(`order-->>client: ${final}`);
      }
    });
  }
});

test("the metrics in the READMEs are those in the code, with their labels", async () => {
  const sources = await Promise.all(
    files
      .filter((path) => /^(relay|services)\/.*\.ts$/.test(path) && !path.includes(".test."))
      .map((path) => Bun.file(join(root, path)).text()),
  );
  const metrics = sources.flatMap((source) =>
    [
      ...source.matchAll(/(?:new (?:Counter|Gauge|Histogram)|createCountGauge)\(\{\s*name: "(\w+)",([\s\S]*?)\s\}\)/g),
    ].map(([, name = "", rest = ""]) => {
      // All of the relay's metrics have the label `source`, and most have only that.
      const labels =
        /(?:labelNames: \[|label: )([^\],]*(?:, "\w+")*)/.exec(rest)?.[1] ??
        (rest.includes("labelNames,") ? '"source"' : "");
      return `${name} ${labels.replaceAll('"', "")}`.trim();
    }),
  );
  const tables = [...all.matchAll(/\| metric \(labels\) .*\n\| --- .*\n((?:\|.*\n?)+)/g)].map(([, rows = ""]) => rows);
  const shown = tables
    .join("")
    .split("\n")
    .flatMap((line) =>
      // A list of labels belongs to all the names before it.
      [...(line.split("|")[1] ?? "").matchAll(/((?:`\w+`,? ?)+)(?:\(([^)]*)\))?/g)].flatMap(
        ([, names = "", labels = ""]) => [...names.matchAll(/`(\w+)`/g)].map((match) => `${match[1]} ${labels}`.trim()),
      ),
    );
  expect(metrics.length).toBeGreaterThan(20);
  expect(shown.toSorted()).toEqual(metrics.toSorted());
});

test("every promise names a test file that holds it and a command that checks it", () => {
  const rows = [...all.matchAll(/^\| \**(I\d+)\b.*$/gm)];
  expect(rows.map(([, id]) => id)).toEqual(Array.from({ length: 9 }, (_, index) => `I${index + 1}`));
  for (const [row] of rows) {
    const named = [...row.matchAll(/`([^`]+)`/g)].map(([, word = ""]) => word);
    expect({ row, test: named.some((it) => it.endsWith(".test.ts")) }).toEqual({ row, test: true });
    expect({ row, tool: named.some((it) => it.startsWith("npm run ")) }).toEqual({ row, tool: true });
  }
});

for (const { path, text } of readmes) {
  const folder = dirname(path);
  const exists = (target: string) => files.includes(target) || isFolder(target);

  test(`${path}: every relative link leads to a file, and every fragment to a heading`, () => {
    const broken = [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, target = ""]) => target)
      .filter((target) => !/^[a-z]+:/.test(target))
      .filter((target) => {
        const [file = "", fragment] = target.split("#");
        const linked = file === "" ? path : join(folder, file).replace(/\/$/, "");
        if (!exists(linked)) return true;
        const headings = [...(readmes.find((it) => it.path === linked)?.text ?? "").matchAll(/^#+ (.+)$/gm)];
        return fragment !== undefined && !headings.some(([, heading = ""]) => slugOf(heading) === fragment);
      });
    expect(broken).toEqual([]);
  });

  test(`${path}: every path in backticks exists`, () => {
    const named = [...text.replaceAll(/```[\s\S]*?```/g, "").matchAll(/`([^`\s]+)`/g)]
      .map(([, word = ""]) => word.replace(/\/$/, ""))
      .filter((word) => /^(proto|relay|services|load)\/[\w./-]+$|^[\w./-]+\.(ts|mjs|proto|md|yaml)$/.test(word));
    const missing = named.filter(
      (word) =>
        !exists(word) &&
        !exists(join(folder, word)) &&
        // A bare name may stand for a file in each of several folders.
        !(!word.includes("/") && files.some((file) => file.endsWith(`/${word}`))),
    );
    expect(missing).toEqual([]);
  });
}

/** The fragment that GitHub gives a heading. */
function slugOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
    .replaceAll(" ", "-");
}

test("every npm command in the READMEs exists", async () => {
  const { scripts } = (await Bun.file(join(root, "package.json")).json()) as { scripts: Record<string, string> };
  const named = [...all.matchAll(/\bnpm (?:run ([a-z:]+)|(start|test)\b)/g)].map(
    ([, script, short]) => script ?? short ?? "",
  );
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
});
