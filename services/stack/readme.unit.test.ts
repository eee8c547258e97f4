import { expect, test } from "bun:test";
import { join } from "node:path";
import { eventTable } from "../../proto/event-table.ts";

const root = join(import.meta.dir, "../..");
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

test("the README's metrics are those in the code, with their labels", async () => {
  const paths = await Array.fromAsync(new Bun.Glob("{relay,services}/**/*.ts").scan(root));
  const sources = await Promise.all(
    paths.filter((path) => !path.includes(".test.")).map((path) => Bun.file(join(root, path)).text()),
  );
  const metrics = sources.flatMap((source) =>
    [...source.matchAll(/new (?:Counter|Gauge|Histogram)\(\{\s*name: "(\w+)",([\s\S]*?)\n\s*\}\)/g)].map(
      ([, name = "", rest = ""]) => {
        // The relay's figures are all by source; where it is not said otherwise, by that alone.
        const labels = /labelNames: \[([^\]]*)\]/.exec(rest)?.[1] ?? (rest.includes("labelNames,") ? '"source"' : "");
        return `${name} ${labels.replaceAll('"', "")}`.trim();
      },
    ),
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
  const { scripts } = (await Bun.file(join(import.meta.dir, "../../package.json")).json()) as {
    scripts: Record<string, string>;
  };
  const named = [...readme.matchAll(/`npm (?:run )?([a-z]+)/g)].map((match) => match[1] ?? "");
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
});
