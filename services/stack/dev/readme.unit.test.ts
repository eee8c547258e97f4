import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { eventTable } from "../../../proto/event-table.ts";

const root = join(import.meta.dir, "../../..");
const readme = await Bun.file(join(root, "README.md")).text();

function renderedEventTable(): string {
  const name = (schema: { readonly name: string }) => `\`${schema.name}\``;
  const rows = eventTable.map((row) => {
    const reactions = row.reactions.map((reaction) => {
      const answers = reaction.answers.map(name).join(" or ");
      return `${reaction.service} ${reaction.effect}${answers === "" ? "" : ` → ${answers}`}`;
    });
    return `| ${name(row.schema)} | ${row.publishedBy} | ${reactions.join("; ") || "nobody: it is final, for watchers"} |`;
  });
  return ["| event | published by | who reacts, and how |", "| --- | --- | --- |", ...rows].join("\n");
}

test("the README's event table is the one in the code", () => {
  const shown = /<!-- event table -->\n([\s\S]*?)\n?<!-- \/event table -->/.exec(readme)?.[1];
  expect(shown).toBe(renderedEventTable());
});

describe("the README's sequence diagrams", () => {
  const section = /<!-- sequence diagrams -->\n([\s\S]*?)<!-- \/sequence diagrams -->/.exec(readme)?.[1] ?? "";
  const diagrams = new Map(
    [...section.matchAll(/<summary>([^<]+)<\/summary>\s*```mermaid\nsequenceDiagram\n([\s\S]*?)```/g)].map(
      ([, path = "", text = ""]) =>
        [
          path,
          text
            .trim()
            .split("\n")
            .map((line) => line.trim()),
        ] as const,
    ),
  );
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

  test("are one for each path", () => expect([...diagrams.keys()]).toEqual(Object.keys(paths)));

  for (const [path, [final = "", ...events]] of Object.entries(paths)) {
    test(`${path}: every arrow is in the event table, and none of an event's readers is left out`, () => {
      const lines = diagrams.get(path) ?? [];
      const readers = new Map<string, string[]>();
      for (const line of lines) {
        const [, from = "", arrow = "", to = "", label = ""] = /^(\w+)(->>|-->>|-\))(\w+): (.+)$/.exec(line) ?? [];
        const noted = /^Note over (\w+): (\w+)$/.exec(line);
        // Services speak to each other by events only; an event that nobody reads is noted where it is published.
        if (arrow === "-)") {
          expect({ event: label, by: from }).toEqual({
            event: label,
            by: definitions.get(label)?.publishedBy ?? "nobody",
          });
          readers.set(label, [...(readers.get(label) ?? []), to]);
        } else if (noted !== null && definitions.has(noted[2] ?? "")) {
          expect(noted[1]).toBe(definitions.get(noted[2] ?? "")?.publishedBy ?? "nobody");
          readers.set(noted[2] ?? "", []);
        } else if (noted === null && !line.startsWith("Note over ")) {
          expect([from, to].filter((it) => it === "client" || it === "gateway")).toHaveLength(1);
        }
      }
      for (const [event, shown] of readers) {
        expect({ event, readers: shown.toSorted() }).toEqual({
          event,
          readers: (definitions.get(event)?.reactions ?? []).map(({ service }) => service as string).toSorted(),
        });
      }
      // What is not begun by a client or a deadline is the answer to something before it.
      const order = [...readers.keys()];
      const begun = new Set(["OrderPlaced", "OrderCancelRequested"]);
      const uncaused = order.filter(
        (event, index) => !begun.has(event) && !order.slice(0, index).some((cause) => answersOf(cause).includes(event)),
      );
      expect(uncaused).toEqual([]);
      expect(order).toEqual(expect.arrayContaining(["OrderPlaced", ...events]));
      expect(lines.findLast((line) => line.startsWith("order-->>client"))).toBe(`order-->>client: ${final}`);
    });
  }
});

test("the README's metrics are those in the code, with their labels", async () => {
  const paths = await Array.fromAsync(new Bun.Glob("{relay,services}/**/*.ts").scan(root));
  const sources = await Promise.all(
    paths.filter((path) => !path.includes(".test.")).map((path) => Bun.file(join(root, path)).text()),
  );
  const metrics = sources.flatMap((source) =>
    [
      ...source.matchAll(/(?:new (?:Counter|Gauge|Histogram)|createCountGauge)\(\{\s*name: "(\w+)",([\s\S]*?)\s\}\)/g),
    ].map(([, name = "", rest = ""]) => {
      // The relay's figures are all by source; where it is not said otherwise, by that alone.
      const labels =
        /(?:labelNames: \[|label: )([^\],]*(?:, "\w+")*)/.exec(rest)?.[1] ??
        (rest.includes("labelNames,") ? '"source"' : "");
      return `${name} ${labels.replaceAll('"', "")}`.trim();
    }),
  );
  const table = /\| metric \(labels\) .*\n\| --- .*\n((?:\|.*\n)+)/.exec(readme)?.[1] ?? "";
  const shown = table.split("\n").flatMap((line) =>
    // One list of labels is for all the names before it.
    [...(line.split("|")[1] ?? "").matchAll(/((?:`\w+`,? ?)+)(?:\(([^)]*)\))?/g)].flatMap(
      ([, names = "", labels = ""]) => [...names.matchAll(/`(\w+)`/g)].map((match) => `${match[1]} ${labels}`.trim()),
    ),
  );
  expect(metrics.length).toBeGreaterThan(20);
  expect(shown.toSorted()).toEqual(metrics.toSorted());
});

test("the README's commands exist", async () => {
  const { scripts } = (await Bun.file(join(import.meta.dir, "../../../package.json")).json()) as {
    scripts: Record<string, string>;
  };
  const named = [...readme.matchAll(/`npm (?:run )?([a-z]+)/g)].map((match) => match[1] ?? "");
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
});
